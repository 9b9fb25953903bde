"""The page of opportunities: where money may be saved, the most first, with what is still to prove. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from groundplan.console.pages import fetch
from groundplan.console.render import Signed, show

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
DAYS = (7, 30, 90)


@router.get("/cost/opportunities")
async def opportunities(request: Request, visitor: Signed, days: int = 30, workload: str = "") -> HTMLResponse:
    """Levers ranked by money."""
    days = days if days in DAYS else 30
    query = urlencode({"days": days, **({"workload": workload} if workload else {})})
    found = await fetch(visitor, found=f"/api/opportunities?{query}")
    rows = found["found"]["opportunities"]
    values = {"rows": rows, "days": days, "choices": DAYS, "workload": workload, "total": str(at_most(rows))}
    return await show(request, visitor, "opportunities.html", "/cost", **values, tab="Opportunities")


def at_most(rows: Sequence[Mapping[str, Any]]) -> Decimal:
    """USD a month if every lever worked: of several cheaper models for the same calls one can be taken, the best."""
    best: dict[tuple[str, str, str], Decimal] = {}
    for row in rows:
        key = row["workload"], row["lever"], row["evidence"] if row["candidate"] else ""
        best[key] = max(best.get(key, Decimal(0)), Decimal(row["saves_usd"]))
    return sum(best.values(), Decimal(0))
