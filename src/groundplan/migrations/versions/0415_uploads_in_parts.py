"""Files that are sent in parts: `0415_uploads_in_parts.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
