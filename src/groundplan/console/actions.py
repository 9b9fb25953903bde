"""The console's forms: each sends one API call with the form's CSRF token and goes back to a page with the result."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse

from groundplan.console.client import Reply
from groundplan.console.render import api_of

router = APIRouter(prefix="/do", include_in_schema=False)
Text = Annotated[str, Form(max_length=2000)]
ACTS = {
    "cloud-down": "The cloud is down: the lines swing to the fallback, and nobody's call fails.",
    "cloud-up": "The cloud is back.",
}


@router.post("/approve")
async def approve(request: Request, csrf: Text, change: Text, comment: Text = "") -> RedirectResponse:
    reply = await api_of(request, csrf).post(f"/api/changes/{change}/approve", {"comment": comment})
    return _back("/governance", reply, "Approved.")


@router.post("/refuse")
async def refuse(request: Request, csrf: Text, change: Text, comment: Text = "") -> RedirectResponse:
    reply = await api_of(request, csrf).post(f"/api/changes/{change}/refuse", {"comment": comment})
    return _back("/governance", reply, "Refused.")


@router.post("/rollback")
async def rollback(request: Request, csrf: Text, to: Annotated[int, Form()]) -> RedirectResponse:
    reply = await api_of(request, csrf).post("/api/rollback", {"to": to})
    made = reply.body.get("blueprint") if reply.ok else None
    return _back("/blueprints", reply, f"Blueprint {made} has the content of blueprint {to}.")


@router.post("/kill")
async def kill(request: Request, csrf: Text, scope: Text, reason: Text) -> RedirectResponse:
    reply = await api_of(request, csrf).post("/api/kill", {"scope": scope, "reason": reason})
    return _back("/kill", reply, f"{scope} is stopped.")


@router.post("/lift")
async def lift(request: Request, csrf: Text, scope: Text, reason: Text) -> RedirectResponse:
    reply = await api_of(request, csrf).post("/api/kill/lift", {"scope": scope, "reason": reason})
    return _back("/kill", reply, f"{scope} may run again.")


@router.post("/act-as")
async def act_as(request: Request, csrf: Text, person: Text = "") -> RedirectResponse:
    reply = await api_of(request, csrf).post("/api/session/act-as", {"person": person or None})
    return _back("/", reply, f"You act as {person}." if person else "You are yourself again.")


@router.post("/demo/{act}")
async def demo(request: Request, act: str, csrf: Text) -> RedirectResponse:
    reply = await api_of(request, csrf).post(f"/api/demo/{act}")
    told = _told(reply.body) if reply.ok else ""
    return _back("/", reply, ACTS.get(act, "") or told)


def _told(body: dict[str, Any]) -> str:
    """What an act of the demo answered, in its own words or as its figures."""
    if isinstance(body.get("told"), str):
        return str(body["told"])
    return ", ".join(f"{name}: {value}" for name, value in body.items() if isinstance(value, str | int | float))


def _back(path: str, reply: Reply, notice: str) -> RedirectResponse:
    words = {"notice": notice} if reply.ok else {"problem": reply.problem}
    return RedirectResponse(f"{path}?{urlencode(words)}", status_code=303)
