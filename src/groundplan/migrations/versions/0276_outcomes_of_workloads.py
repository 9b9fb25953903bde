"""Outcomes are found by their workload: `0276_outcomes_of_workloads.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
