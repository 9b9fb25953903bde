"""Passages have the heads of their tables: `0211_table_heads.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
