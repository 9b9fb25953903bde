"""The Placement pages: the plan with its pictures, one workload's reasons, what if, other ways, drift.

Everything is what the API tells; pictures are drawn from its figures. Nothing is decided here.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Form, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console import rejected_forms
from groundplan.console.pagination import make_page, search_and_start
from groundplan.console.render import VisitorDep, fetch_json, render_for, visitor_api
from groundplan.placement import pictures

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
HERE = "/placement"
LISTED = 50
NOTHING_DECLARED = 404
CHARTS = 24
"""Each takes some ten milliseconds to draw."""
LEVELS = (1.0, 0.75, 0.5)
FIELDS = ("set", "drop_site", "demand", "price")
WEIGHTS = {
    "carbon": "USD for a tonne of CO2e",
    "latency": "USD for a second of waiting per thousand calls",
    "people": "USD an hour",
}


@router.get("/placement")
async def placement(request: Request, visitor: VisitorDep) -> HTMLResponse:
    """The plan; where there is none, why, beside what is served."""
    search, after = request.query_params.get("search", "")[:200], request.query_params.get("after", "")[:63]
    query = {"search": search} if search else {}
    behind = {"after": after} if after else {}
    part = {"limit": str(LISTED), **query, **behind}
    asked = await visitor.api.get("/api/placement", **part)
    plan = asked.body if asked.ok else None
    if plan is not None:
        part = {"limit": str(LISTED), "among": ",".join(row["workload"] for row in plan["workloads"])}
    answer = await fetch_json(visitor, "/api/placement/served", **part)
    served, listed = answer["placements"], answer if plan is None else plan
    following = listed["next"]
    values: dict[str, Any] = {
        "plan": plan, "placements": served, "paper": find_spec("reportlab") is not None, "search": search,
        "listed": len(served if plan is None else plan["workloads"]), "total": listed["total"],
        "first": urlencode(query) if after else None,
        "more": urlencode({**query, "after": following}) if following else None,
    }  # fmt: skip
    values["told"] = "" if asked.ok or asked.status == NOTHING_DECLARED else asked.problem
    if plan is not None:
        values |= {
            "map": pictures.site_map(plan["sites"], plan["workloads"]),
            "waterfall": pictures.cost_waterfall(plan["terms"]),
            "sites": sorted(site["site"] for site in plan["sites"]),
        }
    return await render_for(request, visitor, "placement.html", HERE, **values)


@router.get("/placement/ways")
async def ways(request: Request, visitor: VisitorDep) -> HTMLResponse:
    """The front of cost, latency, carbon and hours, and who moves where the weights are moved."""
    asked = {name: request.query_params.get(name, "")[:12] for name in WEIGHTS}
    given = urlencode({name: value for name, value in asked.items() if value})
    body = await fetch_json(visitor, f"/api/placement/front?{given}")
    found = body["ways"]
    chart = pictures.alternatives_chart(found) if len(found) > 1 else ""
    values = {"ways": found, "chart": chart, "yours": body["yours"], "asked": asked}
    return await render_for(request, visitor, "placement_ways.html", HERE, weights=WEIGHTS, **values)


@router.get("/placement/ahead")
async def ahead(request: Request, visitor: VisitorDep) -> HTMLResponse:
    """The coming months: what each period costs, who moves, what fills up, what to commit to."""
    found = await fetch_json(visitor, "/api/placement/ahead")
    return await render_for(request, visitor, "placement_ahead.html", HERE, found=found)


@router.get("/placement/what-if")
async def what_if(request: Request, visitor: VisitorDep) -> HTMLResponse:
    """Two plans side by side. The form repeats what was asked."""
    asked = {name: request.query_params.get(name, "")[:400] for name in FIELDS}
    body = {name: value.split() for name, value in asked.items() if value.strip()}
    found, problem = None, None
    if body:
        reply = await visitor_api(request, visitor.csrf).post("/api/placement/what-if", body)
        found, problem = (reply.body, None) if reply.ok else (None, reply.problem)
    flips = {each["workload"] for each in found["flips"]} if found else set()
    values = {"asked": asked, "found": found, "flips": flips, "problem": problem}
    return await render_for(request, visitor, "placement_what_if.html", HERE, **values)


@router.get("/placement/drift")
async def drift(request: Request, visitor: VisitorDep) -> HTMLResponse:
    search, start = search_and_start(request)
    body = await fetch_json(visitor, "/api/placement/drift", search=search, begin=str(start), limit=str(CHARTS))
    part = make_page(request, body["charts"], body["total"], CHARTS)
    charts = await run_in_threadpool(lambda: [{**each, "svg": pictures.control_chart(each)} for each in part.rows])
    values = {name: body[name] for name in ("drifts", "replan", "calls_day")}
    return await render_for(request, visitor, "placement_drift.html", HERE, charts=charts, part=part, **values)


@router.post("/do/placement/replan")
async def replan(request: Request, csrf: Annotated[str, Form(max_length=2000)]) -> RedirectResponse:
    """One click: the plan at the calls that were seen, released; then to where its approvals wait."""
    reply = await visitor_api(request, csrf).post("/api/placement/replan", {})
    rejected_forms.raise_if_rejected(reply)
    if not reply.ok:
        return RedirectResponse(f"{HERE}/drift?{urlencode({'problem': reply.problem})}", status_code=303)
    waiting = reply.body["released"].get("pending", [])
    told = f"Re-planned: {len(waiting)} changes wait for approval." if waiting else "Re-planned and served."
    return RedirectResponse(f"/governance?{urlencode({'notice': told})}", status_code=303)


@router.get("/placement/{workload}")
async def one(request: Request, visitor: VisitorDep, workload: str) -> HTMLResponse:
    """Why one workload is where it is, with its load and what its own room bears."""
    found = await fetch_json(visitor, f"/api/placement/why/{quote(workload, safe='')}")
    week = found["curve"]
    own = max(week) * LEVELS[found["place"]["level"]] if week and found["place"]["burst"] else None
    values = {
        "found": found,
        "curve": pictures.load_curve("", week, own) if week else "",
        "waterfall": pictures.cost_waterfall(found["terms"]),
    }
    return await render_for(request, visitor, "placement_why.html", HERE, **values)
