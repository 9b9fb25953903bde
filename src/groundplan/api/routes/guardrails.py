"""Findings of guardrails, counted by workload and check."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import Query

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader
from groundplan.api.context import ServicesDep
from groundplan.governance.guardrails import count_store

router = protected_router("guardrails")


@router.get("/guardrails")
def found(services: ServicesDep, _: Reader, days: Annotated[int, Query(ge=1, le=366)] = 7) -> dict[str, Any]:
    """The number of matches and of calls with a match in the last `days`, by workload and check, with the newest such
    call. The matched texts are not stored."""
    since = services.clock.now().date() - timedelta(days=days - 1)
    with services.transaction() as conn:
        rows = count_store.guardrail_counts(conn, since)
    return {"since": since.isoformat(), "found": [{**row, "last_at": row["last_at"].isoformat()} for row in rows]}
