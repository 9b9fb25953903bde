"""Limits and budgets: how far each is used, and which are nearly exhausted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection

from groundplan.api import store
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.budgets import current_budget_use
from groundplan.api.caller import Reader
from groundplan.api.context import ServicesDep
from groundplan.api.limits import NEAR_SHARE, limits_json
from groundplan.api.served_blueprint import current_or_none
from groundplan.blueprint.model import Blueprint

router = protected_router("limits")


@router.get("/limits")
def limits(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List limits and budgets with their use in the present period, the most used ones first."""
    with services.transaction() as conn:
        return _limits_json(conn, current_or_none(conn), services.clock.now())


def near_limits(conn: Connection[Any], blueprint: Blueprint | None, at: datetime) -> list[str]:
    """`NAME of WHO at 95 %` for each limit and budget that is nearly exhausted."""
    value = _limits_json(conn, blueprint, at, near=NEAR_SHARE)
    rows = [(row["limit"], row["who"], row) for row in value["limits"]]
    rows += [
        (f"budget {row['title']}", row["title" if row["covers"] == row["budget"] else "covers"], row)
        for row in value["budgets"]
    ]
    return [f"{name} of {who} at {row['share'] * 100:.0f} %" for name, who, row in rows if row["near"]]


def _limits_json(
    conn: Connection[Any], blueprint: Blueprint | None, at: datetime, near: float | None = None
) -> dict[str, Any]:
    """Limits and budgets as JSON. With `near` (a share), limits of single users and keys, of which there may be tens of
    thousands, are included only from that used share on."""
    spans = store.limit_spans(conn, near)
    used = current_budget_use(conn, blueprint, at, near)
    ids = {span["name"].split("/", 2)[2] for span in spans if span["name"].count("/") > 1}
    ids |= {row["budget"].partition("/")[2] for row in used}
    return limits_json(blueprint, spans, used, store.actor_names(conn, ids))
