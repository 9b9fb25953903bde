"""The console's pages. Each asks the API what its visitor may see and renders it; none decides anything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from groundplan.console import charts, receipt
from groundplan.console.cost import budget, rows, total
from groundplan.console.overview import marks, plan_view
from groundplan.console.plan_svg import ground_plan
from groundplan.console.render import Visitor, failed, page, show, visitor_of

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
ENTRIES_SHOWN = 50
STATUSES = ("ok", "refused", "failed", "cancelled", "crashed")


@router.get("/")
async def overview(request: Request, workload: str | None = None) -> HTMLResponse:
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    reply = await visitor.api.get("/api/overview")
    if not reply.ok:
        return failed(reply, visitor)
    people = await visitor.api.get("/api/people")
    view = plan_view(reply.body, workload)
    values = {
        "svg": ground_plan(view),
        "view": view,
        "overview": reply.body,
        "selected": next((row for row in reply.body["workloads"] if row["name"] == workload), None),
        "unserved": [row for row in reply.body["workloads"] if row["site"] is None],
        "pending": visitor.status.get("pending", []),
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
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    found = await fetch(visitor, workloads="/api/workloads")
    if isinstance(found, HTMLResponse):
        return found
    rows = [{**row, "marks": marks(row)} for row in found["workloads"]]
    return await show(request, visitor, "workloads.html", "/workloads", rows=rows)


@router.get("/workloads/{name}")
async def workload(request: Request, name: str) -> HTMLResponse:
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    found = await fetch(visitor, workload=f"/api/workloads/{quote(name, safe='')}")
    if isinstance(found, HTMLResponse):
        return found
    budgets = [budget(row) for row in found["workload"]["budgets"]]
    values = {**found, "budgets": budgets}
    return await show(request, visitor, "workload.html", "/workloads", **values)


@router.get("/calls")
async def calls(request: Request) -> HTMLResponse:
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    chosen = {name: request.query_params.get(name, "").strip()[:320] for name in ("workload", "status", "person")}
    query = {name: value for name, value in chosen.items() if value}
    before = request.query_params.get("before", "")
    reply = await visitor.api.get("/api/calls", **query, **({"before": before} if before else {}))
    served = await visitor.api.get("/api/workloads")
    values: dict[str, Any] = {
        "chosen": chosen,
        "statuses": STATUSES,
        "names": [row["name"] for row in served.body["workloads"]] if served.ok else [],
        "calls": reply.body["calls"] if reply.ok else [],
        "older": urlencode({**query, "before": reply.body["next"]}) if reply.ok and reply.body["next"] else None,
        "newest": urlencode(query) if before else None,
    }
    return await show(request, visitor, "calls.html", "/calls", problem=None if reply.ok else reply.problem, **values)


@router.get("/calls/{call_id}")
async def call(request: Request, call_id: str) -> HTMLResponse:
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    found = await fetch(visitor, call=f"/api/calls/{quote(call_id, safe='')}")
    if isinstance(found, HTMLResponse):
        return found
    values = {**found, "steps": receipt.steps(found["call"]), "used": receipt.share_used(found["call"])}
    return await show(request, visitor, "receipt.html", "/calls", **values)


@router.get("/placement")
async def placement(request: Request) -> HTMLResponse:
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    placements: list[dict[str, Any]] = []
    if visitor.status.get("blueprint"):
        reply = await visitor.api.get("/api/blueprints/current")
        if not reply.ok:
            return failed(reply, visitor)
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
    found = await fetch(visitor, days="/api/cost/days", cost="/api/cost")
    if isinstance(found, HTMLResponse):
        return found
    shown = rows(found["days"], datetime.now(UTC).date().isoformat())
    values = {
        "cost": found["cost"],
        "rows": shown,
        "total": total(shown),
        "budgets": [budget(row) for row in found["cost"]["budgets"]],
        "chart": charts.cost_by_day(found["days"]),
    }
    return await show(request, visitor, "cost.html", "/cost", **values)


@router.get("/demo/two-people")
async def two_people(request: Request) -> HTMLResponse:
    """The form; its answer comes from the action."""
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    return await show(request, visitor, "two_people.html", "/", result=None, changed=None)


@router.get("/operations")
async def operations(request: Request) -> HTMLResponse:
    return await _simple(request, "operations.html", "/operations")


@router.get("/governance")
async def governance(request: Request) -> HTMLResponse:
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    found = await fetch(visitor, changes="/api/changes", checked="/api/audit/verification")
    if isinstance(found, HTMLResponse):
        return found
    everything = request.query_params.get("calls") == "yes"
    before = request.query_params.get("before", "")
    query = {"limit": str(ENTRIES_SHOWN), **({} if everything else {"without": "call"})}
    log = await visitor.api.get("/api/audit", **query, **({"before": before} if before else {}))
    if not log.ok:
        return failed(log, visitor)
    entries = log.body["entries"]
    older = urlencode({**({"calls": "yes"} if everything else {}), "before": entries[-1]["id"]}) if entries else ""
    values = {"entries": entries, "everything": everything, "older": older if len(entries) == ENTRIES_SHOWN else ""}
    return await show(request, visitor, "governance.html", "/governance", **found, **values)


@router.get("/live/audit")
async def live_audit(request: Request) -> HTMLResponse:
    """What the last verification of the log found, for the live update of its page."""
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return HTMLResponse("", status_code=401)
    reply = await visitor.api.get("/api/audit/verification")
    if not reply.ok:
        return HTMLResponse("", status_code=reply.status)
    return page("checked_part.html", checked=reply.body, csrf=visitor.csrf)


@router.get("/governance/changes/{change_id}")
async def change(request: Request, change_id: str) -> HTMLResponse:
    path = f"/api/changes/{quote(change_id, safe='')}"
    return await _simple(request, "change.html", "/governance", change=path)


@router.get("/audit/{entry_id}")
async def proof(request: Request, entry_id: str) -> HTMLResponse:
    return await _simple(request, "proof.html", "/governance", proof=f"/api/audit/{quote(entry_id, safe='')}/proof")


@router.get("/inbox")
async def inbox(request: Request) -> HTMLResponse:
    return await _simple(request, "inbox.html", "/inbox", inbox="/api/inbox")


@router.get("/blueprints")
async def blueprints(request: Request) -> HTMLResponse:
    return await _simple(request, "blueprints.html", "/blueprints", blueprints="/api/blueprints")


@router.get("/blueprints/{number}")
async def blueprint(request: Request, number: str) -> HTMLResponse:
    paths = {
        "one": f"/api/blueprints/{quote(number, safe='')}",
        "diff": f"/api/blueprints/{quote(number, safe='')}/diff",
    }
    return await _simple(request, "blueprint.html", "/blueprints", **paths)


@router.get("/kill")
async def kill(request: Request) -> HTMLResponse:
    visitor = await visitor_of(request)
    if isinstance(visitor, HTMLResponse):
        return visitor
    found = await fetch(visitor, kills="/api/kill", one="/api/blueprints/current")
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
    found = await fetch(visitor, **paths)
    if isinstance(found, HTMLResponse):
        return found
    return await show(request, visitor, template, here, **found)


async def fetch(visitor: Visitor, **paths: str) -> dict[str, Any] | HTMLResponse:
    """Values by name; an answer of one list under the name asked for is unwrapped. The error page where one fails."""
    found: dict[str, Any] = {}
    for name, path in paths.items():
        reply = await visitor.api.get(path)
        if not reply.ok:
            return failed(reply, visitor)
        body = reply.body
        found[name] = body[name] if isinstance(body, dict) and isinstance(body.get(name), list) else body
    return found
