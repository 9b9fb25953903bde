"""The console's pages but `calls`. Each asks the API what its visitor may see and renders it; none decides anything."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.client import Reply
from groundplan.console.cost_figures import budget
from groundplan.console.overview import marks, plan_view
from groundplan.console.plan_svg import ground_plan
from groundplan.console.render import Signed, Visitor, after_day, answer_to, failed, page, show

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
ENTRIES_SHOWN = 50
LISTED = 100
DRAWN = 60
SEARCHED = ("who", "action", "workload", "since", "until")


@router.get("/")
async def overview(request: Request, visitor: Signed, workload: str | None = None) -> HTMLResponse:
    reply = await _overview(visitor, workload)
    if not reply.ok:
        return failed(reply, visitor)
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
    return await show(request, visitor, "overview.html", "/", **values)


@router.get("/begin")
async def begin(visitor: Signed) -> Response:
    """Where whoever has just signed in begins: at the ground plan, or where what waits for them is."""
    return RedirectResponse("/inbox" if visitor.session["owns"] and not visitor.sees_all else "/", status_code=303)


@router.get("/live/plan")
async def live_plan(visitor: Signed, workload: str | None = None) -> HTMLResponse:
    """The drawing alone, for the live update of the overview."""
    reply = await _overview(visitor, workload)
    if not reply.ok:
        return HTMLResponse("", status_code=reply.status)
    view = plan_view(reply.body, workload)
    return page("plan_part.html", svg=ground_plan(view), view=view)


async def _overview(visitor: Visitor, workload: str | None) -> Reply:
    """With as many workloads as a drawing can be read of."""
    return await visitor.api.get("/api/overview", most=str(DRAWN), **({"workload": workload} if workload else {}))


@router.get("/workloads")
async def workloads(
    request: Request, visitor: Signed, search: str = "", site: str = "", after: str = ""
) -> HTMLResponse:
    """A page of the list; `search` and `site` narrow it."""
    query = {name: value for name, value in (("search", search[:200]), ("site", site[:63])) if value}
    behind = {"after": after[:63]} if after else {}
    body = await answer_to(visitor, "/api/workloads", limit=str(LISTED), **query, **behind)
    following = body["next"]
    values = {
        "rows": [{**row, "marks": marks(row)} for row in body["workloads"]],
        "total": body["total"],
        "asked": {"search": search[:200], "site": site[:63]},
        "first": urlencode(query) if after else None,
        "more": urlencode({**query, "after": following}) if following else None,
    }
    return await show(request, visitor, "workloads.html", "/workloads", **values)


@router.get("/workloads/{name}")
async def workload(request: Request, visitor: Signed, name: str) -> HTMLResponse:
    found = await fetch(visitor, workload=f"/api/workloads/{quote(name, safe='')}")
    budgets = [budget(row) for row in found["workload"]["budgets"]]
    values = {**found, "budgets": budgets}
    return await show(request, visitor, "workload.html", "/workloads", **values)


@router.get("/demo/two-people")
async def two_people(request: Request, visitor: Signed) -> HTMLResponse:
    """The form; its answer comes from the action."""
    return await show(request, visitor, "two_people.html", "/", result=None, changed=None)


@router.get("/operations")
async def operations(request: Request, visitor: Signed) -> HTMLResponse:
    return await show(request, visitor, "operations.html", "/operations", **await _deployments(visitor))


@router.get("/live/operations")
async def live_operations(visitor: Signed) -> HTMLResponse:
    """Health of gateways and deployments alone, for the live update of the page."""
    return page("operations_live.html", status=visitor.status, **await _deployments(visitor))


async def _deployments(visitor: Visitor) -> dict[str, Any]:
    """`told` is why there are none, for who may not see them."""
    reply = await visitor.api.get("/api/traffic", minutes="15")
    if not reply.ok:
        return {"deployments": [], "minutes": 15, "told": reply.problem}
    return {"deployments": reply.body["deployments"], "minutes": reply.body["minutes"], "told": ""}


@router.get("/governance")
async def governance(request: Request, visitor: Signed) -> HTMLResponse:
    after = request.query_params.get("changes", "")
    requested = f"/api/changes?before={quote(after, safe='')}" if after else "/api/changes"
    found = await fetch(visitor, requested=requested, checked="/api/audit/verification")
    everything = request.query_params.get("calls") == "yes"
    before = request.query_params.get("before", "")
    query = {"limit": str(ENTRIES_SHOWN), **({} if everything else {"without": "call"})}
    asked = {name: request.query_params.get(name, "")[:320] for name in SEARCHED}
    wanted = {name: value for name, value in asked.items() if value}
    told = {**wanted, **({"until": after_day(wanted["until"])} if "until" in wanted else {})}
    log = await visitor.api.get("/api/audit", **query, **told, **({"before": before} if before else {}))
    entries = log.body["entries"] if log.ok else []
    more = {**({"calls": "yes"} if everything else {}), **wanted}
    older = urlencode({**more, "before": entries[-1]["id"]}) if len(entries) == ENTRIES_SHOWN else ""
    values = {"entries": entries, "everything": everything, "older": older, "asked": asked}
    values["archived"] = log.body.get("archived") if log.ok else None
    if not log.ok:
        values["problem"] = log.problem
    return await show(request, visitor, "governance.html", "/governance", **found, **values)


@router.get("/live/audit")
async def live_audit(visitor: Signed) -> HTMLResponse:
    """What the last verification of the log found, for the live update of its page."""
    reply = await visitor.api.get("/api/audit/verification")
    if not reply.ok:
        return HTMLResponse("", status_code=reply.status)
    return page("checked_part.html", checked=reply.body, csrf=visitor.csrf)


@router.get("/governance/changes/{change_id}")
async def change(request: Request, visitor: Signed, change_id: str) -> HTMLResponse:
    path = f"/api/changes/{quote(change_id, safe='')}"
    return await _simple(request, visitor, "change.html", "/governance", change=path)


@router.get("/audit/{entry_id}")
async def proof(request: Request, visitor: Signed, entry_id: str) -> HTMLResponse:
    return await _simple(
        request, visitor, "proof.html", "/governance", proof=f"/api/audit/{quote(entry_id, safe='')}/proof"
    )


@router.get("/inbox")
async def inbox(request: Request, visitor: Signed) -> HTMLResponse:
    return await _simple(request, visitor, "inbox.html", "/inbox", inbox="/api/inbox")


@router.get("/blueprints")
async def blueprints(request: Request, visitor: Signed) -> HTMLResponse:
    return await _simple(request, visitor, "blueprints.html", "/blueprints", blueprints="/api/blueprints")


@router.get("/blueprints/{number}")
async def blueprint(request: Request, visitor: Signed, number: str) -> HTMLResponse:
    paths = {
        "one": f"/api/blueprints/{quote(number, safe='')}?content=false",
        "diff": f"/api/blueprints/{quote(number, safe='')}/diff",
    }
    return await _simple(request, visitor, "blueprint.html", "/blueprints", **paths)


@router.get("/kill")
async def kill(request: Request, visitor: Signed) -> HTMLResponse:
    body = await answer_to(visitor, "/api/kill")
    return await show(request, visitor, "kill.html", "/kill", **body)


async def _simple(request: Request, visitor: Visitor, template: str, here: str, **paths: str) -> HTMLResponse:
    """A page whose values are API answers by name."""
    found = await fetch(visitor, **paths)
    return await show(request, visitor, template, here, **found)


async def fetch(visitor: Visitor, **paths: str) -> dict[str, Any]:
    """Values by name; an answer of one list under the name asked for is unwrapped.

    Where one fails, its error is shown instead of the page.
    """
    found: dict[str, Any] = {}
    for name, path in paths.items():
        body = await answer_to(visitor, path)
        found[name] = body[name] if isinstance(body, dict) and isinstance(body.get(name), list) else body
    return found
