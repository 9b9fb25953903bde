"""How sources are read: `0051_sources.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
