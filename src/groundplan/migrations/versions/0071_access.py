"""Rights for a time, tokens of programs: `0071_access.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
