"""Sums in one pass: `0245_sums_in_one_pass.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
