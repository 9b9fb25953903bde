"""The console's forms: each sends one API call with the form's CSRF token and redirects to a page with the result."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.form_result import propagation_note, redirect_with_result
from groundplan.console.render import Visitor, VisitorDep, current_visitor, render_for, visitor_api

router = lazy_router(prefix="/do", include_in_schema=False)
Text = Annotated[str, Form(max_length=2000)]
PLAN_NOTICES = {
    "cloud-down": "The cloud is down: its models reset every connection. Watch the lines swing; no call fails.",
    "cloud-up": "The cloud is back. The lines swing back as soon as it answers again.",
}
"""Demo act -> notice, for acts whose result the ground plan shows."""


@router.post("/approve")
async def approve(request: Request, csrf: Text, change: Text, comment: Text = "") -> RedirectResponse:
    reply = await visitor_api(request, csrf).post(
        f"/api/changes/{quote(change, safe='')}/approve", {"comment": comment}
    )
    return redirect_with_result("/governance", reply, "Approved.")


@router.post("/refuse")
async def refuse(request: Request, csrf: Text, change: Text, comment: Text = "") -> RedirectResponse:
    reply = await visitor_api(request, csrf).post(f"/api/changes/{quote(change, safe='')}/refuse", {"comment": comment})
    return redirect_with_result("/governance", reply, "Refused.")


@router.post("/withdraw")
async def withdraw(request: Request, csrf: Text, change: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post(f"/api/changes/{quote(change, safe='')}/withdraw")
    return redirect_with_result("/governance", reply, f"Withdrawn{propagation_note(reply)}.")


@router.post("/rollback")
async def rollback(request: Request, csrf: Text, to: Annotated[int, Form()]) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post("/api/rollback", {"to": to})
    made = reply.body.get("blueprint") if reply.ok else None
    return redirect_with_result("/blueprints", reply, f"Blueprint {made} has the content of blueprint {to}.")


@router.post("/kill")
async def kill(request: Request, csrf: Text, scope: Text, reason: Text, streams: Text = "") -> RedirectResponse:
    body = {"scope": scope, "reason": reason, "streams": bool(streams)}
    reply = await visitor_api(request, csrf).post("/api/kill", body)
    return redirect_with_result("/kill", reply, f"{scope} is stopped{propagation_note(reply)}.")


@router.post("/lift")
async def lift(request: Request, csrf: Text, scope: Text, reason: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post("/api/kill/lift", {"scope": scope, "reason": reason})
    if reply.ok and not reply.body["lifted"]:
        return redirect_with_result(
            "/kill", reply, f"You asked that {scope} may run again: it waits for {reply.body['waits_for']}."
        )
    return redirect_with_result("/kill", reply, f"{scope} may run again{propagation_note(reply)}.")


@router.post("/verify-log")
async def verify_log(request: Request, csrf: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post("/api/audit/verification")
    return redirect_with_result("/governance", reply, "The whole log is being verified.")


@router.post("/act-as")
async def act_as(request: Request, csrf: Text, person: Text = "") -> RedirectResponse:
    reply = await visitor_api(request, csrf).post("/api/session/act-as", {"person": person or None})
    return redirect_with_result("/", reply, f"You act as {person}." if person else "You are acting as yourself again.")


@router.post("/demo/ask-as", response_class=HTMLResponse)
async def ask_as(request: Request, visitor: VisitorDep, csrf: Text, question: Text = "") -> Response:
    """The same question as two people, side by side."""
    return await _two_people(request, visitor, csrf, question)


@router.post("/demo/revoke-hr", response_class=HTMLResponse)
async def revoke_hr(request: Request, visitor: VisitorDep, csrf: Text) -> Response:
    """Revoke access, then ask the same question again."""
    return await _changed(request, visitor, csrf, "revoke-hr")


@router.post("/demo/restore-hr", response_class=HTMLResponse)
async def restore_hr(request: Request, visitor: VisitorDep, csrf: Text) -> Response:
    return await _changed(request, visitor, csrf, "restore-hr")


@router.post("/demo/{act}", response_class=HTMLResponse)
async def demo(request: Request, _: VisitorDep, act: str, csrf: Text) -> Response:
    """Run another act of the demo, and show its actual result."""
    reply = await visitor_api(request, csrf).post(f"/api/demo/{quote(act, safe='')}")
    if not reply.ok or act in PLAN_NOTICES:
        return redirect_with_result("/", reply, PLAN_NOTICES.get(act, ""))
    after = await current_visitor(request)  # the act may have made a blueprint, whose number the header shows
    return await render_for(request, after, "act.html", "/", result=reply.body)


async def _changed(request: Request, visitor: Visitor, csrf: str, act: str) -> Response:
    reply = await visitor_api(request, csrf).post(f"/api/demo/{act}")
    if not reply.ok:
        return redirect_with_result("/demo/two-people", reply, "")
    return await _two_people(request, visitor, csrf, "", changed=reply.body)


async def _two_people(
    request: Request, visitor: Visitor, csrf: str, question: str, changed: dict[str, Any] | None = None
) -> Response:
    asked = {"question": question.strip()} if question.strip() else {}
    reply = await visitor_api(request, csrf).post("/api/demo/ask-as", asked)
    if not reply.ok:
        return redirect_with_result("/demo/two-people", reply, "")
    known = await visitor.api.get("/api/people")
    people = {person["email"]: person for person in known.body["people"]} if known.ok else {}
    return await render_for(request, visitor, "two_people.html", "/", result=reply.body, changed=changed, people=people)
