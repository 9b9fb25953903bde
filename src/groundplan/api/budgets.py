"""Use of budgets in their current periods, with their declared limits: PostgreSQL has a new limit only once a gateway
has asked it for more of that budget."""

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
    limits = {(each.name, key_at(each.period, each.starts, each.timezone, at)): each.limit for each in budgets}
    found = queries.budget_use(conn, at, near)
    for row in found:
        if (limit := limits.get((row["budget"], row["period"]))) is not None:
            row["limit_usd"] = format_usd(limit)
    return found
