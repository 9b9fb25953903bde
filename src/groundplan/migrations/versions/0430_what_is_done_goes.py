"""What is done of workers and batches goes: `0430_what_is_done_goes.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
