"""The console's general pages. Each fetches what its visitor may see from the API and renders it; none decides."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.client import Reply
from groundplan.console.cost_figures import budget_view
from groundplan.console.overview import marks, plan_view
from groundplan.console.plan_svg import ground_plan
from groundplan.console.render import Visitor, VisitorDep, day_end_text, error_page, fetch_json, render, render_for

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
ENTRIES_SHOWN = 50
PAGE_SIZE = 100
MAX_DRAWN = 60
SEARCH_FIELDS = ("who", "action", "workload", "since", "until")


@router.get("/")
async def overview(request: Request, visitor: VisitorDep, workload: str | None = None) -> HTMLResponse:
    reply = await _overview(visitor, workload)
    if not reply.ok:
        return error_page(reply, visitor)
    people = await visitor.api.get("/api/people") if visitor.session["demo"] else None
    view = plan_view(reply.body, workload)
    values = {
        "svg": ground_plan(view),
        "view": view,
        "overview": reply.body,
        "selected": next((row for row in reply.body["workloads"] if row["name"] == workload), None),
        "unserved": [row for row in reply.body["workloads"] if row["site"] is None],
        "pending": visitor.status.get("pending", []),
        "people": people.body["people"] if people and people.ok else [],
    }
    return await render_for(request, visitor, "overview.html", "/", **values)


@router.get("/begin")
async def begin(visitor: VisitorDep) -> Response:
    """The first page after signing in: the ground plan, or the inbox of people who only own something."""
    return RedirectResponse("/inbox" if visitor.session["owns"] and not visitor.sees_all else "/", status_code=303)


@router.get("/live/plan")
async def live_plan(visitor: VisitorDep, workload: str | None = None) -> HTMLResponse:
    """Only the ground plan, for the live update of the overview."""
    reply = await _overview(visitor, workload)
    if not reply.ok:
        return HTMLResponse("", status_code=reply.status)
    view = plan_view(reply.body, workload)
    return render("plan_part.html", svg=ground_plan(view), view=view)


async def _overview(visitor: Visitor, workload: str | None) -> Reply:
    """The overview with as many workloads as fit a readable drawing."""
    return await visitor.api.get("/api/overview", most=str(MAX_DRAWN), **({"workload": workload} if workload else {}))


@router.get("/workloads")
async def workloads(
    request: Request, visitor: VisitorDep, search: str = "", site: str = "", after: str = ""
) -> HTMLResponse:
    """A page of the list of workloads, filtered by `search` and `site`."""
    query = {name: value for name, value in (("search", search[:200]), ("site", site[:63])) if value}
    behind = {"after": after[:63]} if after else {}
    body = await fetch_json(visitor, "/api/workloads", limit=str(PAGE_SIZE), **query, **behind)
    following = body["next"]
    values = {
        "rows": [{**row, "marks": marks(row)} for row in body["workloads"]],
        "total": body["total"],
        "asked": {"search": search[:200], "site": site[:63]},
        "first": urlencode(query) if after else None,
        "more": urlencode({**query, "after": following}) if following else None,
    }
    return await render_for(request, visitor, "workloads.html", "/workloads", **values)


@router.get("/workloads/{name}")
async def workload(request: Request, visitor: VisitorDep, name: str) -> HTMLResponse:
    found = await fetch_all(visitor, workload=f"/api/workloads/{quote(name, safe='')}")
    budgets = [budget_view(row) for row in found["workload"]["budgets"]]
    values = {**found, "budgets": budgets}
    return await render_for(request, visitor, "workload.html", "/workloads", **values)


@router.get("/demo/two-people")
async def two_people(request: Request, visitor: VisitorDep) -> HTMLResponse:
    """The form; its answer comes from the action."""
    return await render_for(request, visitor, "two_people.html", "/", result=None, changed=None)


@router.get("/operations")
async def operations(request: Request, visitor: VisitorDep) -> HTMLResponse:
    return await render_for(request, visitor, "operations.html", "/operations", **await _health(visitor))


@router.get("/live/operations")
async def live_operations(visitor: VisitorDep) -> HTMLResponse:
    """Only the health of gateways and deployments, for the live update of the page."""
    return render("operations_live.html", **await _health(visitor))


async def _health(visitor: Visitor) -> dict[str, Any]:
    """Status and traffic by deployment; `told` says why there is none where the visitor may not see it. Raises
    `RespondWith` where the status cannot be read now."""
    status = visitor.status or await fetch_json(visitor, "/api/status")
    reply = await visitor.api.get("/api/traffic", minutes="15")
    if not reply.ok:
        return {"status": status, "deployments": [], "minutes": 15, "told": reply.problem}
    return {"status": status, "deployments": reply.body["deployments"], "minutes": reply.body["minutes"], "told": ""}


@router.get("/governance")
async def governance(request: Request, visitor: VisitorDep) -> HTMLResponse:
    after = request.query_params.get("changes", "")
    requested = f"/api/changes?before={quote(after, safe='')}" if after else "/api/changes"
    found = await fetch_all(visitor, requested=requested, checked="/api/audit/verification")
    everything = request.query_params.get("calls") == "yes"
    before = request.query_params.get("before", "")
    query = {"limit": str(ENTRIES_SHOWN), **({} if everything else {"without": "call"})}
    asked = {name: request.query_params.get(name, "")[:320] for name in SEARCH_FIELDS}
    wanted = {name: value for name, value in asked.items() if value}
    told = {**wanted, **({"until": day_end_text(wanted["until"])} if "until" in wanted else {})}
    log = await visitor.api.get("/api/audit", **query, **told, **({"before": before} if before else {}))
    entries = log.body["entries"] if log.ok else []
    more = {**({"calls": "yes"} if everything else {}), **wanted}
    older = urlencode({**more, "before": entries[-1]["id"]}) if len(entries) == ENTRIES_SHOWN else ""
    values = {"entries": entries, "everything": everything, "older": older, "asked": asked}
    values["archived"] = log.body.get("archived") if log.ok else None
    if not log.ok:
        values["problem"] = log.problem
    return await render_for(request, visitor, "governance.html", "/governance", **found, **values)


@router.get("/live/audit")
async def live_audit(visitor: VisitorDep) -> HTMLResponse:
    """Only the last verification of the audit log, for the live update of its page."""
    reply = await visitor.api.get("/api/audit/verification")
    if not reply.ok:
        return HTMLResponse("", status_code=reply.status)
    return render("checked_part.html", checked=reply.body, csrf=visitor.csrf)


@router.get("/governance/changes/{change_id}")
async def change(request: Request, visitor: VisitorDep, change_id: str) -> HTMLResponse:
    path = f"/api/changes/{quote(change_id, safe='')}"
    return await _render_fetched(request, visitor, "change.html", "/governance", change=path)


@router.get("/audit/{entry_id}")
async def proof(request: Request, visitor: VisitorDep, entry_id: str) -> HTMLResponse:
    return await _render_fetched(
        request, visitor, "proof.html", "/governance", proof=f"/api/audit/{quote(entry_id, safe='')}/proof"
    )


@router.get("/inbox")
async def inbox(request: Request, visitor: VisitorDep) -> HTMLResponse:
    return await _render_fetched(request, visitor, "inbox.html", "/inbox", inbox="/api/inbox")


@router.get("/blueprints")
async def blueprints(request: Request, visitor: VisitorDep) -> HTMLResponse:
    return await _render_fetched(request, visitor, "blueprints.html", "/blueprints", blueprints="/api/blueprints")


@router.get("/blueprints/{number}")
async def blueprint(request: Request, visitor: VisitorDep, number: str) -> HTMLResponse:
    paths = {
        "one": f"/api/blueprints/{quote(number, safe='')}?content=false",
        "diff": f"/api/blueprints/{quote(number, safe='')}/diff",
    }
    return await _render_fetched(request, visitor, "blueprint.html", "/blueprints", **paths)


@router.get("/kill")
async def kill(request: Request, visitor: VisitorDep) -> HTMLResponse:
    body = await fetch_json(visitor, "/api/kill")
    return await render_for(request, visitor, "kill.html", "/kill", **body)


async def _render_fetched(request: Request, visitor: Visitor, template: str, here: str, **paths: str) -> HTMLResponse:
    """Render a page whose values are API responses by name."""
    found = await fetch_all(visitor, **paths)
    return await render_for(request, visitor, template, here, **found)


async def fetch_all(visitor: Visitor, **paths: str) -> dict[str, Any]:
    """Fetch several API paths; name -> body. A body with a list under the same name is unwrapped to that list.

    Raises `RespondWith` with the error page where one fails.
    """
    found: dict[str, Any] = {}
    for name, path in paths.items():
        body = await fetch_json(visitor, path)
        found[name] = body[name] if isinstance(body, dict) and isinstance(body.get(name), list) else body
    return found
