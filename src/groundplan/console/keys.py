"""The page of API keys: whose they are, what they may do, and revoking one. Keys are created at the command line, which
prints the secret once; no page shows it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.form_result import propagation_note, redirect_with_result
from groundplan.console.pagination import PAGE_SIZE
from groundplan.console.render import VisitorDep, fetch_json, render_for, visitor_api

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
PAGE = "/keys"
FILTERS = ("workload", "user", "tag", "ended")
Text = Annotated[str, Form(max_length=1000)]


@router.get(PAGE)
async def keys(request: Request, visitor: VisitorDep) -> HTMLResponse:
    """Keys that can be used, newest first; with `ended` also revoked and expired ones."""
    chosen = {name: request.query_params.get(name, "").strip()[:320] for name in FILTERS}
    kept = {name: value for name, value in chosen.items() if value}
    asked = {name: value for name, value in kept.items() if name != "ended"}
    before = request.query_params.get("before", "")
    page = {"limit": str(PAGE_SIZE), "active": "false" if chosen["ended"] else "true"}
    if before:
        page["before"] = before
    names = await fetch_json(visitor, "/api/names")
    reply = await visitor.api.get("/api/keys", **asked, **page)
    older = reply.body["next"] if reply.ok else None
    values = {
        "keys": reply.body["keys"] if reply.ok else [],
        "problem": None if reply.ok else reply.problem,
        "chosen": chosen,
        "kept": urlencode(kept),
        "names": names["workloads"],
        "first": urlencode(kept) if before else None,
        "more": urlencode({**kept, "before": older}) if older else None,
    }
    return await render_for(request, visitor, "keys.html", "/calls", **values)


@router.post("/do/key-revoke")
async def revoke(request: Request, csrf: Text, key: Text, begins: Text = "", kept: Text = "") -> RedirectResponse:
    """Revoke a key, and go back to the list with the filter `kept`, a query."""
    reply = await visitor_api(request, csrf).call("DELETE", f"/api/keys/{quote(key, safe='')}")
    others = reply.body.get("others") if reply.ok else None
    rest = f" Keys that it was rotated to or from go on: {', '.join(others)}." if others else ""
    return redirect_with_result(
        f"{PAGE}?{kept}" if kept else PAGE, reply, f"The key {begins}… is revoked{propagation_note(reply)}.{rest}"
    )
