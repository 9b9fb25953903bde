"""What is known of calls that have not ended is kept: `0380_open_calls_kept.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
