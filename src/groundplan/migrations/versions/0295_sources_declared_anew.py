"""What a source's declaration narrows holds with its blueprint: `0295_sources_declared_anew.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
