"""What the directory said, and what it deleted: `0131_directory_as_said.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
