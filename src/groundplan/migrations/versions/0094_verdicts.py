"""What is said of answers, and answers by meaning by day: `0094_verdicts.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
