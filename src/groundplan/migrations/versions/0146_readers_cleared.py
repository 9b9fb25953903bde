"""Sets of readers that no document has are cleared: `0146_readers_cleared.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
