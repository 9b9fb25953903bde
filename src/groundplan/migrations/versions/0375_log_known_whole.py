"""Up to where the log is known to be whole: `0375_log_known_whole.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
