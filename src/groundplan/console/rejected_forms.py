"""A form that was not accepted is shown again with what somebody typed, to be sent again, instead of losing it.

So it is where they were signed out meanwhile, or in again in another tab, a field does not fit, or the database is
away. What the API refuses for another reason is told on the form's own page (`form_result`). Nothing is kept here.
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
from groundplan.console.render import Instead, page, visitor_of
from groundplan.core.errors import Denied

SIGNED_OUT = "you were signed out before this was sent. Sign in in another tab, then send it again here"
STALE = "you signed in again since this form was opened, so nothing was done. Look at it, and send it again"
HERE = "Use the console itself."
ROWS = 80
"""Longer texts have a field of several lines."""


class Unsent(Exception):
    """Ends a request of a form; `problem` is why."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status, self.problem = status, problem


def check(reply: Reply) -> None:
    """Raises `Unsent` for an answer of the API after which the same may be sent again as it is."""
    error = reply.body.get("error") if isinstance(reply.body, dict) and not reply.ok else None
    code = error.get("code") if isinstance(error, dict) else None
    if reply.status == 401:
        raise Unsent(401, SIGNED_OUT)
    if code == "csrf":
        raise Unsent(403, STALE)
    if reply.status >= 500:
        raise Unsent(reply.status, reply.problem)


async def shown(request: Request, error: Exception) -> HTMLResponse | JSONResponse:
    """The page with what was typed."""
    assert isinstance(error, Unsent)
    return await _page(request, error.status, error.problem)


async def misfit(request: Request, error: Exception) -> HTMLResponse | JSONResponse:
    """A field of a form that cannot be read; a program is told as the API tells it."""
    assert isinstance(error, RequestValidationError)
    if request.method != "POST" or not request.url.path.startswith("/do/"):
        return await errors.on_invalid_request(request, error)
    told = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors() if each["loc"][-1] != "csrf"]
    if not told:  # as of the page that asked to sign in first
        return await _page(request, 403, STALE)
    return await _page(request, 422, f"this was not sent: {'; '.join(told)[:400]}")


async def _page(request: Request, status: int, problem: str) -> HTMLResponse | JSONResponse:
    if not _is_ours(request):
        return errors.response_for(Denied("this form comes from another site", code="csrf_origin", hint=HERE))
    fields = _fields(await request.form())
    values: dict[str, Any] = {}
    try:
        visitor = await visitor_of(request)
    except Instead:
        csrf = ""
    else:
        values = {"session": visitor.session, "who": visitor.session["name"], "demo": visitor.session["demo"]}
        values |= {"blueprint": visitor.status.get("blueprint"), "csrf": visitor.csrf}
        csrf = visitor.csrf
    return page(
        "unsent.html", code=status, problem=problem, action=request.url.path, fields=fields, token=csrf, rows=ROWS,
        **values,
    )  # fmt: skip


def _is_ours(request: Request) -> bool:
    """Whether a page of the console sent it: what another site, or another port of this machine, wrote into a form is
    shown to nobody with a button that sends it in their name."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:  # what comes without a referrer, as from our pages, has no origin either
        return site == "same-origin"
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _fields(form: Any) -> Sequence[tuple[str, str]]:
    """What was typed, without files, which a page cannot send again."""
    return [(name, value) for name, value in form.multi_items() if name != "csrf" and isinstance(value, str)]
