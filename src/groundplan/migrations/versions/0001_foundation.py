"""The first schema: `0001_foundation.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
