"""Grants as one statement, limits beside budgets, and what keys may say: `0002_limits.sql`."""

from groundplan.migrations.chain import step

revision, down_revision, upgrade = step(__file__)
