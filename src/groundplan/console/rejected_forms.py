"""A rejected form is shown again with the typed values, so that they can be sent again instead of being lost.

This covers visitors who were signed out meanwhile or signed in again in another tab, invalid fields, and a database
outage. Other refusals of the API are shown on the form's own page (`form_result`). Nothing is stored here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from groundplan.api import errors
from groundplan.console.client import Reply
from groundplan.console.render import RespondWith, current_visitor, render
from groundplan.core.errors import Denied

SIGNED_OUT = "you were signed out before this was sent. Sign in in another tab, then send it again here"
STALE = "you signed in again since this form was opened, so nothing was done. Look at it, and send it again"
USE_CONSOLE_HINT = "Use the console itself."
TEXTAREA_LENGTH = 80
"""Longer values get a field with several lines."""


class FormRejected(Exception):
    """Raised to show a form again; `problem` says why."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status, self.problem = status, problem


def raise_if_rejected(reply: Reply) -> None:
    """Raise `FormRejected` for an API response after which the same form may be sent again."""
    error = reply.body.get("error") if isinstance(reply.body, dict) and not reply.ok else None
    code = error.get("code") if isinstance(error, dict) else None
    if reply.status == 401:
        raise FormRejected(401, SIGNED_OUT)
    if code == "csrf":
        raise FormRejected(403, STALE)
    if reply.status >= 500:
        raise FormRejected(reply.status, reply.problem)


async def on_form_rejected(request: Request, error: Exception) -> HTMLResponse | JSONResponse:
    """The page with the typed values of a rejected form."""
    assert isinstance(error, FormRejected)
    return await _page(request, error.status, error.problem)


async def on_invalid_form(request: Request, error: Exception) -> HTMLResponse | JSONResponse:
    """The response for an invalid form field; programs get the API's error."""
    assert isinstance(error, RequestValidationError)
    if request.method != "POST" or not request.url.path.startswith("/do/"):
        return await errors.on_invalid_request(request, error)
    told = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors() if each["loc"][-1] != "csrf"]
    if not told:  # as from the page that asked to sign in first
        return await _page(request, 403, STALE)
    return await _page(request, 422, f"this was not sent: {'; '.join(told)[:400]}")


async def _page(request: Request, status: int, problem: str) -> HTMLResponse | JSONResponse:
    if not _is_same_origin(request):
        return errors.response_for(
            Denied("this form comes from another site", code="csrf_origin", hint=USE_CONSOLE_HINT)
        )
    fields = _fields(await request.form())
    values: dict[str, Any] = {}
    try:
        visitor = await current_visitor(request)
    except RespondWith:
        csrf = ""
    else:
        values = {"session": visitor.session, "who": visitor.session["name"], "demo": visitor.session["demo"]}
        values |= {"blueprint": visitor.status.get("blueprint"), "csrf": visitor.csrf}
        csrf = visitor.csrf
    return render(
        "unsent.html", code=status, problem=problem, action=request.url.path, fields=fields, token=csrf,
        rows=TEXTAREA_LENGTH, **values,
    )  # fmt: skip


def _is_same_origin(request: Request) -> bool:
    """Whether a page of the console sent the form: values from another site, or another port of this machine, are never
    shown with a button that would send them in the visitor's name."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:  # what comes without a referrer, as from our pages, has no origin either
        return site == "same-origin"
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _fields(form: Any) -> Sequence[tuple[str, str]]:
    """The typed values, without files, which a page cannot send again."""
    return [(name, value) for name, value in form.multi_items() if name != "csrf" and isinstance(value, str)]
