"""Rows of budgets and limits are locked in one order, whatever the collation of the database:
`0385_one_order_of_locks.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
