"""Live figures are kept in steps of ten seconds: `0280_live_steps.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
