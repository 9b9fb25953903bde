"""An index of attempts that failed: `0180_attempts_that_failed.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
