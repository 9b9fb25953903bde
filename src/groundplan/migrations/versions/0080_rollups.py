"""Sums that are kept as facts arrive: `0080_rollups.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
