"""Budgets are found by their periods: `0374_budgets_by_period.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
