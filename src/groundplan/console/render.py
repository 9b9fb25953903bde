"""Renders pages from API responses: templates, their filters, and the header of every page.

No data is fetched here beyond the visitor's session, status and inbox.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from jinja2 import DictLoader, Environment, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from groundplan.api.routes.session import page_after_sign_in
from groundplan.console.client import Api, Reply
from groundplan.core.clock import end_of_day
from groundplan.core.money import PICO, short_usd
from groundplan.core.words import format_period, format_size, per_period, quantity

NAVIGATION = (
    ("Overview", "/"),
    ("Workloads", "/workloads"),
    ("Calls", "/calls"),
    ("Placement", "/placement"),
    ("Knowledge", "/knowledge"),
    ("Cost", "/cost"),
    ("Operations", "/operations"),
    ("Governance", "/governance"),
)
FOR_A_DUTY = frozenset({"/placement", "/cost", "/governance"})
"""Entries that nobody without a duty may open. Operations and Knowledge show them what they may see."""
FORWARDED_HEADERS = frozenset({b"cookie", b"host", b"user-agent"})


def format_amount(text: str | None) -> str:
    """Format a USD amount: `"0.002140000000"` as `$0.00214`; a dash for None."""
    return "–" if text is None else short_usd(int(Decimal(text) * PICO))


def format_time(text: str | None) -> str:
    """Format an ISO time as `25 Nov 13:05:07`, UTC; with the year where it is not the present one."""
    if not text:
        return "–"
    at = datetime.fromisoformat(text).astimezone(UTC)
    return at.strftime("%d %b %H:%M:%S" if at.year == datetime.now(UTC).year else "%d %b %Y %H:%M:%S")


def day_end_text(text: str) -> str:
    """The end of a day (UTC) that a form has as its last one: the API reads a date as its first moment. Other text is
    returned as it is, for the API to refuse."""
    try:
        return end_of_day(date.fromisoformat(text)).isoformat()
    except ValueError:
        return text


def grouped_digits(number: int) -> str:
    """Format an integer with grouped digits: `1,204`."""
    return f"{number:,}"


def format_milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 0.1:
        return f"{value * 1000:.0f} µs"
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def render_code(text: str) -> Markup:
    """Markup with text in backticks as code; everything else is escaped."""
    parts = [
        escape(part) if at % 2 == 0 else Markup("<code>{}</code>").format(part)
        for at, part in enumerate(escape_direction_marks(text).split("`"))
    ]
    return Markup("").join(parts)


def item_page_path(item: dict[str, Any]) -> str:
    """The path of the page about the subject of an inbox item; empty where there is none."""
    if item["kind"] == "kill":
        return "/kill"
    if document := item.get("detail", {}).get("document"):
        return f"/knowledge/documents/{quote(str(document), safe='')}"
    if holds := item.get("detail", {}).get("holds"):
        return f"/knowledge/documents?{urlencode({'source': item['detail']['source'], 'holds': holds})}"
    what, _, name = item["subject"].partition("/")
    if path := _SUBJECT_PAGES.get(what):
        return f"{path}/{quote(name, safe='')}"
    return _LIST_PAGES.get(what, "")


_SUBJECT_PAGES = {
    "change": "/governance/changes", "erasure": "/governance/erasures", "prompt": "/governance/prompts",
    "review": "/governance/reviews", "workload": "/workloads",
}  # fmt: skip
_LIST_PAGES = {
    "deployment": "/operations", "gateway": "/operations", "index": "/knowledge/index", "policy": "/governance/rules",
    "source": "/knowledge/findings",
}  # fmt: skip


_DIRECTION_MARKS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def escape_direction_marks(value: Any) -> Any:
    """The value as it is written into a page: characters that change the writing direction, by which `gnp.exe` could
    read as another type, are shown as codes."""
    if type(value) is not str or value.isascii():
        return value
    return _DIRECTION_MARKS.sub(lambda found: f"\\u{ord(found[0]):04x}", value)


# Read at import: an upgrade replaces the files before the process reloads, and newer templates need newer code.
_SOURCES = {
    file.name: file.read_text(encoding="utf-8") for file in (Path(__file__).parent / "templates").glob("*.html")
}
templates = Environment(
    loader=DictLoader(_SOURCES),
    finalize=escape_direction_marks,
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.globals["company_sign_in"] = False


def is_over(day: str) -> bool:
    """Whether a day has ended, by UTC."""
    return datetime.now(UTC) >= end_of_day(date.fromisoformat(day))


templates.filters.update(
    is_over=is_over,
    usd=format_amount,
    when=format_time,
    ms=format_milliseconds,
    period=format_period,
    each=per_period,
    counted=quantity,
    whole=grouped_digits,
    size=format_size,
    ticks=render_code,
    page_of=item_page_path,
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """A signed-in visitor, with the API as they may use it."""

    api: Api
    session: dict[str, Any]
    status: dict[str, Any]

    @property
    def sees_all(self) -> bool:
        """Whether the visitor is the operator or holds a duty; others see only what they own."""
        return _sees_all(self.session)

    @property
    def csrf(self) -> str:
        return str(self.session.get("csrf") or "")


def _sees_all(session: dict[str, Any] | None) -> bool:
    return session is not None and bool(session["duties"] or session["operator"])


def visitor_api(request: Request, csrf: str = "") -> Api:
    """The API with the visitor's cookie, and the CSRF token of the form, if any."""
    headers = tuple((name, value) for name, value in request.scope["headers"] if name in FORWARDED_HEADERS)
    extra = ((b"x-csrf-token", csrf.encode("latin-1", "replace")),) if csrf else ()
    address = request.client or ("unknown", 0)
    return Api(request.app, headers + extra, (address[0], address[1]))


class RespondWith(Exception):
    """Raised to end a request with this page instead of the requested one."""

    def __init__(self, response: HTMLResponse) -> None:
        super().__init__(response.status_code)
        self.response = response


async def current_visitor(request: Request) -> Visitor:
    """The signed-in visitor. Raises `RespondWith` for others: the sign-in page, or the problem why sessions cannot be
    read now."""
    api = visitor_api(request)
    session = await api.get("/api/session")
    if session.status == 401:
        raise RespondWith(render("signin.html", code=401, wanted=_asked_page(request)))
    if not session.ok:
        raise RespondWith(render("error.html", code=session.status, problem=session.problem))
    status = await api.get("/api/status")
    return Visitor(api, session.body, status.body if status.ok else {})


def _asked_page(request: Request) -> str:
    """Path and query of the page that was asked for, to be opened after signing in."""
    path, query = request.scope.get("raw_path", b""), request.scope.get("query_string", b"")
    if request.method != "GET" or path.startswith(b"/live/"):
        return page_after_sign_in("")
    return page_after_sign_in((path + b"?" + query if query else path).decode("latin-1"))


VisitorDep = Annotated[Visitor, Depends(current_visitor)]


async def render_for(request: Request, visitor: Visitor, template: str, here: str, **values: Any) -> HTMLResponse:
    """Render a page for a signed-in visitor, with navigation and inbox count."""
    inbox = await visitor.api.get("/api/inbox")
    problem = values.pop("problem", None)
    return await run_in_threadpool(  # long pages must not block other requests
        render,
        template,
        here=here,
        session=visitor.session,
        who=visitor.session["name"],
        demo=visitor.session["demo"],
        csrf=visitor.csrf,
        blueprint=visitor.status.get("blueprint"),
        inbox_count=inbox.body["count"] if inbox.ok else 0,
        notice=request.query_params.get("notice", "")[:500],
        problem=request.query_params.get("problem", "")[:500] or problem,
        **{"status": visitor.status, **values},
    )


def render(template: str, *, code: int = 200, **values: Any) -> HTMLResponse:
    """Render a page; a missing template value is an error, not an empty place."""
    sees_all = _sees_all(values.get("session"))
    defaults: dict[str, Any] = {
        "navigation": [entry for entry in NAVIGATION if sees_all or entry[1] not in FOR_A_DUTY],
        "sees_all": sees_all,
        "here": "",
        "session": None,
        "who": "",
        "demo": False,
        "blueprint": None,
        "inbox_count": 0,
        "notice": "",
        "problem": None,
        "wanted": page_after_sign_in(""),
        "csrf": "",
    }
    names = {**defaults, **values, "status": values.get("status", {})}
    return HTMLResponse(templates.get_template(template).render(names), status_code=code)


def error_page(reply: Reply, visitor: Visitor) -> HTMLResponse:
    """The page for an error response of the API."""
    return render(
        "error.html",
        code=reply.status,
        problem=reply.problem,
        session=visitor.session,
        who=visitor.session["name"],
        demo=visitor.session["demo"],
        csrf=visitor.csrf,
        blueprint=visitor.status.get("blueprint"),
    )


async def fetch_json(visitor: Visitor, path: str, **query: str) -> Any:
    """The body of an API response. Raises `RespondWith` with the error page where it is an error."""
    reply = await visitor.api.get(path, **query)
    if not reply.ok:
        raise RespondWith(error_page(reply, visitor))
    return reply.body
