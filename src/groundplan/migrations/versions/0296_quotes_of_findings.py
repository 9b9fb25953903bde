"""What findings quote is for whoever may read it: `0296_quotes_of_findings.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
