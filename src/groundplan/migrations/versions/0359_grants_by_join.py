"""Grants of somebody in thousands of groups: `0359_grants_by_join.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
