"""The page of opportunities: where money may be saved, the most first, with what is still to prove. Decides nothing."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.pages import fetch_all
from groundplan.console.render import VisitorDep, render_for

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
DAYS = (7, 30, 90)


@router.get("/cost/opportunities")
async def opportunities(request: Request, visitor: VisitorDep, days: int = 30, workload: str = "") -> HTMLResponse:
    """Levers ranked by money."""
    days = days if days in DAYS else 30
    query = urlencode({"days": days, **({"workload": workload} if workload else {})})
    found = await fetch_all(visitor, found=f"/api/opportunities?{query}")
    rows, total = found["found"]["opportunities"], found["found"]["together_usd"]
    values = {"rows": rows, "days": days, "choices": DAYS, "workload": workload, "total": total}
    return await render_for(request, visitor, "opportunities.html", "/cost", **values, tab="Opportunities")
