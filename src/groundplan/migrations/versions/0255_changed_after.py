"""What changed of documents after a number, for search: `0255_changed_after.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
