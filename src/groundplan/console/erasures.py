"""The pages of erasure requests: what would be erased and kept; compliance confirms or refuses them."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.form_result import redirect_with_result
from groundplan.console.pages import fetch_all
from groundplan.console.render import VisitorDep, fetch_json, render_for, visitor_api

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
HERE = "/governance"
PAGE = "/governance/erasures"
Text = Annotated[str, Form(max_length=2000)]


@router.get(PAGE)
async def erasures(request: Request, visitor: VisitorDep) -> HTMLResponse:
    found = await fetch_all(visitor, erasures="/api/erasures")
    return await render_for(request, visitor, "erasures.html", HERE, **found)


@router.get(f"{PAGE}/{{erasure_id}}")
async def erasure(request: Request, visitor: VisitorDep, erasure_id: str) -> HTMLResponse:
    one = await fetch_json(visitor, f"/api/erasures/{quote(erasure_id, safe='')}")
    return await render_for(request, visitor, "erasure.html", HERE, one=one)


@router.get(f"{PAGE}/{{erasure_id}}/receipt")
async def receipt(visitor: VisitorDep, erasure_id: str) -> Response:
    """The signed receipt as a file."""
    reply = await visitor.api.get(f"/api/erasures/{quote(erasure_id, safe='')}")
    if not reply.ok or not reply.body["receipt"]:
        return RedirectResponse(PAGE, status_code=303)
    headers = {"Content-Disposition": f'attachment; filename="erasure-{reply.body["id"]}.txt"'}
    return Response(reply.body["receipt"], media_type="text/plain", headers=headers)


@router.post("/do/erasures/ask")
async def ask(request: Request, csrf: Text, person: Text, reason: Text, also: Text = "") -> RedirectResponse:
    words = [part.strip() for part in also.split(",") if part.strip()]
    reply = await visitor_api(request, csrf).post("/api/erasures", {"person": person, "reason": reason, "also": words})
    page = f"{PAGE}/{reply.body['id']}" if reply.ok else PAGE
    return redirect_with_result(page, reply, "Requested. Check what would be erased, then have it confirmed.")


@router.post("/do/erasures/decide")
async def decide(request: Request, csrf: Text, erasure: Text, what: Text, reason: Text = "") -> RedirectResponse:
    chosen = "confirm" if what == "confirm" else "refuse"
    body = {"reason": reason} if chosen == "refuse" else {}
    path = f"/api/erasures/{quote(erasure, safe='')}/{chosen}"
    reply = await visitor_api(request, csrf).post(path, body)
    done = "Erased. The receipt says what was erased and what stayed." if chosen == "confirm" else "Refused."
    return redirect_with_result(f"{PAGE}/{quote(erasure, safe='')}", reply, done)
