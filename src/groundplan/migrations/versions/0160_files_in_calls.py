"""Files that calls name: `0160_files_in_calls.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
