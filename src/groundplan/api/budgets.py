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
    """As `queries.budget_use`, with the served limits; periods of an earlier declaration keep theirs."""
    budgets = blueprint.budgets if blueprint is not None else []
    limits = {
        (budget.name, key_at(budget.period, budget.starts, budget.timezone, at)): budget.limit for budget in budgets
    }
    rows = queries.budget_use(conn, at, near)
    for row in rows:
        if (limit := limits.get((row["budget"], row["period"]))) is not None:
            row["limit_usd"] = format_usd(limit)
    return rows
