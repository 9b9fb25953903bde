"""Who takes over from a leaver: `0074_handover.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
