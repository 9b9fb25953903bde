"""The page Sign-in: one's own passkeys and sessions, and the passkeys of colleagues that wait to be confirmed."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.form_result import redirect_with_result
from groundplan.console.render import VisitorDep, fetch_json, render_for, visitor_api

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
Text = Annotated[str, Form(max_length=2100)]


@router.get("/you")
async def you(request: Request, visitor: VisitorDep) -> HTMLResponse:
    values = {
        "passkeys": (await fetch_json(visitor, "/api/passkeys"))["passkeys"],
        "waiting": (await fetch_json(visitor, "/api/passkeys", waiting="true"))["passkeys"],
        "sessions": (await fetch_json(visitor, "/api/sessions"))["sessions"],
    }
    return await render_for(request, visitor, "you.html", "/you", **values)


@router.get("/you/terminal/{request_id}")
async def terminal(request: Request, visitor: VisitorDep, request_id: str) -> HTMLResponse:
    """A decision from a terminal, to be confirmed."""
    body = await fetch_json(visitor, f"/api/terminals/{quote(request_id, safe='')}")
    return await render_for(request, visitor, "terminal.html", "/you", asked=body)


@router.post("/do/terminal-confirm")
async def confirm_terminal(request: Request, csrf: Text, asked: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post(f"/api/terminals/{quote(asked, safe='')}/confirm")
    return redirect_with_result("/you", reply, "Confirmed. Your terminal continues now.")


@router.post("/do/passkey-confirm")
async def confirm(request: Request, csrf: Text, passkey: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post(f"/api/passkeys/{quote(passkey, safe='')}/confirm")
    return redirect_with_result("/you", reply, "The passkey is confirmed: it identifies its person from now on.")


@router.post("/do/passkey-remove")
async def remove(request: Request, csrf: Text, passkey: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).call("DELETE", f"/api/passkeys/{quote(passkey, safe='')}")
    return redirect_with_result("/you", reply, "The passkey is removed, and its person is signed out.")


@router.post("/do/session-end")
async def end(request: Request, csrf: Text, session: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).call("DELETE", f"/api/sessions/{quote(session, safe='')}")
    return redirect_with_result("/you", reply, "The session is ended.")


@router.post("/do/sign-out")
async def sign_out(request: Request, csrf: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post("/api/logout")
    return redirect_with_result("/you", reply, "You are signed out.")
