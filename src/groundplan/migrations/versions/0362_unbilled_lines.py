"""A gateway sees how attempts ended: `0362_unbilled_lines.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
