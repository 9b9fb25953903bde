"""Calls that were written off cost more by what is told of them later: `0386_costs_told_late.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
