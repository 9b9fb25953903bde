"""Documents shared by link: `0088_shared_links.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
