"""The company's directory: `0073_directory.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
