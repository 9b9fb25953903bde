"""New attempts are found by their time: `0278_newest_attempts.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
