"""The console's pages. Each asks the API what its visitor may see and renders it; none decides anything."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from groundplan.console import charts
from groundplan.console.overview import plan_view
from groundplan.console.plan_svg import ground_plan
from groundplan.console.render import Visitor, failed, page, show, visitor_of

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
async def overview(request: Request, workload: str | None = None) -> HTMLResponse:
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    reply = await visitor.api.get("/api/overview")
    if not reply.ok:
        return failed(reply)
    people = await visitor.api.get("/api/people")
    view = plan_view(reply.body, workload)
    values = {
        "svg": ground_plan(view),
        "view": view,
        "overview": reply.body,
        "selected": workload,
        "people": people.body["people"] if people.ok else [],
    }
    return await show(request, visitor, "overview.html", "/", **values)


@router.get("/live/plan")
async def live_plan(request: Request, workload: str | None = None) -> HTMLResponse:
    """The drawing alone, for the live update of the overview."""
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return HTMLResponse("", status_code=401)
    reply = await visitor.api.get("/api/overview")
    if not reply.ok:
        return HTMLResponse("", status_code=reply.status)
    view = plan_view(reply.body, workload)
    return page("plan_part.html", svg=ground_plan(view), view=view)


@router.get("/workloads")
async def workloads(request: Request) -> HTMLResponse:
    return await _simple(request, "workloads.html", "/workloads", rows="/api/workloads")


@router.get("/workloads/{name}")
async def workload(request: Request, name: str) -> HTMLResponse:
    return await _simple(request, "workload.html", "/workloads", workload=f"/api/workloads/{name}")


@router.get("/calls")
async def calls(request: Request) -> HTMLResponse:
    return await _simple(request, "calls.html", "/calls", calls="/api/calls")


@router.get("/calls/{call_id}")
async def receipt(request: Request, call_id: str) -> HTMLResponse:
    return await _simple(request, "receipt.html", "/calls", call=f"/api/calls/{call_id}")


@router.get("/placement")
async def placement(request: Request) -> HTMLResponse:
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    placements: list[dict[str, Any]] = []
    if visitor.status.get("blueprint"):
        reply = await visitor.api.get("/api/blueprints/current")
        if not reply.ok:
            return failed(reply)
        placements = reply.body["content"]["placements"]
    return await show(request, visitor, "placement.html", "/placement", placements=placements)


@router.get("/knowledge")
async def knowledge(request: Request) -> HTMLResponse:
    return await _simple(request, "knowledge.html", "/knowledge", knowledge="/api/knowledge")


@router.get("/cost")
async def cost(request: Request) -> HTMLResponse:
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    found = await _fetch(visitor, cost="/api/cost", days="/api/cost/days")
    if isinstance(found, HTMLResponse):
        return found
    chart = charts.cost_by_day(found["days"]["days"])
    return await show(request, visitor, "cost.html", "/cost", chart=chart, **found)


@router.get("/operations")
async def operations(request: Request) -> HTMLResponse:
    return await _simple(request, "operations.html", "/operations")


@router.get("/governance")
async def governance(request: Request) -> HTMLResponse:
    paths = {"changes": "/api/changes", "entries": "/api/audit", "verdict": "/api/audit/verify"}
    return await _simple(request, "governance.html", "/governance", **paths)


@router.get("/audit/{entry_id}")
async def proof(request: Request, entry_id: str) -> HTMLResponse:
    return await _simple(request, "proof.html", "/governance", proof=f"/api/audit/{entry_id}/proof")


@router.get("/inbox")
async def inbox(request: Request) -> HTMLResponse:
    return await _simple(request, "inbox.html", "/inbox", inbox="/api/inbox")


@router.get("/blueprints")
async def blueprints(request: Request) -> HTMLResponse:
    return await _simple(request, "blueprints.html", "/blueprints", blueprints="/api/blueprints")


@router.get("/blueprints/{number}")
async def blueprint(request: Request, number: str) -> HTMLResponse:
    paths = {"one": f"/api/blueprints/{number}", "diff": f"/api/blueprints/{number}/diff"}
    return await _simple(request, "blueprint.html", "/blueprints", **paths)


@router.get("/kill")
async def kill(request: Request) -> HTMLResponse:
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    found = await _fetch(visitor, kills="/api/kill", one="/api/blueprints/current")
    if isinstance(found, HTMLResponse):
        return found
    content = found.pop("one")["content"]
    scopes = ["company"]
    for kind in ("workload", "deployment", "site", "source"):
        scopes += [f"{kind}/{item['name']}" for item in content[f"{kind}s"]]
    return await show(request, visitor, "kill.html", "/kill", scopes=scopes, **found)


async def _simple(request: Request, template: str, here: str, **paths: str) -> HTMLResponse:
    """A page whose values are API answers by name."""
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    found = await _fetch(visitor, **paths)
    if isinstance(found, HTMLResponse):
        return found
    return await show(request, visitor, template, here, **found)


async def _fetch(visitor: Visitor, **paths: str) -> dict[str, Any] | HTMLResponse:
    """Values by name; an answer of one list under the name asked for is unwrapped. The error page where one fails."""
    found: dict[str, Any] = {}
    for name, path in paths.items():
        reply = await visitor.api.get(path)
        if not reply.ok:
            return failed(reply)
        body = reply.body
        found[name] = body[name] if isinstance(body, dict) and isinstance(body.get(name), list) else body
    return found
