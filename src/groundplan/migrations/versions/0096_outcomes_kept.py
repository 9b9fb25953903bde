"""Outcomes and what evidence asks of calls, kept as sums: `0096_outcomes_kept.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
