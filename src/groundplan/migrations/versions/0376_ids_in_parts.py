"""The ids of what has left lie in parts: `0376_ids_in_parts.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
