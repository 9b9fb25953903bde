"""Use of budgets in their current periods, with their declared limits: PostgreSQL learns of a changed limit only when a
gateway requests more of that budget."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection

from groundplan.blueprint.model import Blueprint
from groundplan.core.money import format_usd
from groundplan.gateway.budgets.periods import key_at
from groundplan.ledger import queries


def current_budget_use(
    conn: Connection[Any], blueprint: Blueprint | None, at: datetime, near: float | None = None
) -> list[dict[str, Any]]:
    """As `queries.budget_use`, with the served limits. Budgets that are not declared any more, and former periods of
    changed ones, are left out, since nothing can be used of them; those of keys and experiments are in no blueprint."""
    rows = queries.budget_use(conn, at, near)
    if blueprint is None:
        return rows
    limits = {
        (budget.name, key_at(budget.period, budget.starts, budget.timezone, at)): format_usd(budget.limit)
        for budget in blueprint.budgets
    }
    current = [row for row in rows if "/" in row["budget"] or (row["budget"], row["period"]) in limits]
    return [{**row, "limit_usd": limits.get((row["budget"], row["period"]), row["limit_usd"])} for row in current]
