"""Turning API answers into pages: the templates, their filters, and what every page has at its top.

No data is fetched here beyond the visitor's session and inbox.
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

from groundplan.console.client import Api, Reply
from groundplan.core.clock import end_of
from groundplan.core.money import PICO, short_usd
from groundplan.core.words import counted, each, period

ENTRIES = (
    ("Overview", "/"),
    ("Workloads", "/workloads"),
    ("Calls", "/calls"),
    ("Placement", "/placement"),
    ("Knowledge", "/knowledge"),
    ("Cost", "/cost"),
    ("Operations", "/operations"),
    ("Governance", "/governance"),
)
CARRIED = frozenset({b"cookie", b"host", b"user-agent"})


def usd(text: str | None) -> str:
    """`"0.002140000000"` as `$0.00214`; a dash for nothing."""
    return "–" if text is None else short_usd(int(Decimal(text) * PICO))


def when(text: str | None) -> str:
    """An ISO time as `25 Nov 13:05:07`, UTC; with its year where that is another one."""
    if not text:
        return "–"
    at = datetime.fromisoformat(text).astimezone(UTC)
    return at.strftime("%d %b %H:%M:%S" if at.year == datetime.now(UTC).year else "%d %b %Y %H:%M:%S")


def after_day(text: str) -> str:
    """When the day is over that a form has as the last one (UTC): the API takes a date for its first moment. Anything
    else is left for the API to refuse."""
    try:
        return end_of(date.fromisoformat(text)).isoformat()
    except ValueError:
        return text


def whole(number: int) -> str:
    """`1,204`: many digits in groups."""
    return f"{number:,}"


def milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 0.1:
        return f"{value * 1000:.0f} µs"
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def ticks(text: str) -> Markup:
    """`so` in backticks as code; everything else is text."""
    parts = [
        escape(part) if at % 2 == 0 else Markup("<code>{}</code>").format(part)
        for at, part in enumerate(in_order(text).split("`"))
    ]
    return Markup("").join(parts)


def page_of(item: dict[str, Any]) -> str:
    """The page about what an item of the inbox is about; empty where there is none."""
    if item["kind"] == "kill":
        return "/kill"
    if document := item.get("detail", {}).get("document"):
        return f"/knowledge/documents/{quote(str(document), safe='')}"
    if holds := item.get("detail", {}).get("holds"):
        return f"/knowledge/documents?{urlencode({'source': item['detail']['source'], 'holds': holds})}"
    what, _, name = item["subject"].partition("/")
    if path := _PAGES_OF_ONE.get(what):
        return f"{path}/{quote(name, safe='')}"
    return _PAGES_OF_ALL.get(what, "")


_PAGES_OF_ONE = {
    "change": "/governance/changes", "erasure": "/governance/erasures", "prompt": "/governance/prompts",
    "review": "/governance/reviews", "workload": "/workloads",
}  # fmt: skip
_PAGES_OF_ALL = {
    "deployment": "/operations", "gateway": "/operations", "index": "/knowledge/index", "policy": "/governance/rules",
    "source": "/knowledge/findings",
}  # fmt: skip


_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def in_order(value: Any) -> Any:
    """What is written into a page. A name that would turn its letters round, so that `gnp.exe` reads as another type,
    shows by its codes that it does."""
    if type(value) is not str or value.isascii():
        return value
    return _TURNS.sub(lambda found: f"\\u{ord(found[0]):04x}", value)


# Read at once: an upgrade replaces them some time before its reload, and newer ones ask for what this program lacks.
_SOURCES = {
    file.name: file.read_text(encoding="utf-8") for file in (Path(__file__).parent / "templates").glob("*.html")
}
templates = Environment(
    loader=DictLoader(_SOURCES),
    finalize=in_order,
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.globals["company_sign_in"] = False


def is_over(day: str) -> bool:
    """Whether that day has ended, by UTC."""
    return datetime.now(UTC) >= end_of(date.fromisoformat(day))


templates.filters.update(
    is_over=is_over,
    usd=usd,
    when=when,
    ms=milliseconds,
    period=period,
    each=each,
    counted=counted,
    whole=whole,
    ticks=ticks,
    page_of=page_of,
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks, and their way to the API."""

    api: Api
    session: dict[str, Any]
    status: dict[str, Any]

    @property
    def sees_all(self) -> bool:
        """Whether they hold a duty; others see what is their own."""
        return bool(self.session["duties"] or self.session["operator"])

    @property
    def csrf(self) -> str:
        return str(self.session.get("csrf") or "")


def api_of(request: Request, csrf: str = "") -> Api:
    """The API with this visitor's cookie, and the CSRF token of the form that they sent."""
    headers = tuple((name, value) for name, value in request.scope["headers"] if name in CARRIED)
    extra = ((b"x-csrf-token", csrf.encode("latin-1", "replace")),) if csrf else ()
    address = request.client or ("unknown", 0)
    return Api(request.app, headers + extra, (address[0], address[1]))


class Instead(Exception):
    """Ends a request with this page instead of the one that was asked for."""

    def __init__(self, shown: HTMLResponse) -> None:
        super().__init__(shown.status_code)
        self.shown = shown


async def visitor_of(request: Request) -> Visitor:
    """The signed-in visitor; for anybody else the page that says how to sign in is shown instead, and why nobody can be
    known while that is so."""
    api = api_of(request)
    session = await api.get("/api/session")
    if session.status == 401:
        raise Instead(page("signin.html", code=401))
    if not session.ok:
        raise Instead(page("error.html", code=session.status, problem=session.problem))
    status = await api.get("/api/status")
    return Visitor(api, session.body, status.body if status.ok else {})


Signed = Annotated[Visitor, Depends(visitor_of)]


async def show(request: Request, visitor: Visitor, template: str, here: str, **values: Any) -> HTMLResponse:
    """A page for a signed-in visitor."""
    inbox = await visitor.api.get("/api/inbox")
    problem = values.pop("problem", None)
    return await run_in_threadpool(  # others are answered meanwhile, also where a page is long
        page,
        template,
        here=here,
        session=visitor.session,
        sees_all=visitor.sees_all,
        who=visitor.session["name"],
        demo=visitor.session["demo"],
        csrf=visitor.csrf,
        blueprint=visitor.status.get("blueprint"),
        status=visitor.status,
        inbox_count=inbox.body["count"] if inbox.ok else 0,
        notice=request.query_params.get("notice", "")[:500],
        problem=request.query_params.get("problem", "")[:500] or problem,
        **values,
    )


def page(template: str, *, code: int = 200, **values: Any) -> HTMLResponse:
    """Render a whole page; what a template needs and nobody gave is an error, not an empty place."""
    defaults: dict[str, Any] = {
        "navigation": ENTRIES,
        "here": "",
        "session": None,
        "who": "",
        "demo": False,
        "blueprint": None,
        "inbox_count": 0,
        "notice": "",
        "problem": None,
        "csrf": "",
    }
    names = {**defaults, **values, "status": values.get("status", {})}
    return HTMLResponse(templates.get_template(template).render(names), status_code=code)


def failed(reply: Reply, visitor: Visitor) -> HTMLResponse:
    """The page for an API answer that is an error."""
    return page(
        "error.html",
        code=reply.status,
        problem=reply.problem,
        session=visitor.session,
        who=visitor.session["name"],
        demo=visitor.session["demo"],
        csrf=visitor.csrf,
        blueprint=visitor.status.get("blueprint"),
    )


async def answer_to(visitor: Visitor, path: str, **query: str) -> Any:
    """What the API answers; where that is an error, it is shown instead of the page."""
    reply = await visitor.api.get(path, **query)
    if not reply.ok:
        raise Instead(failed(reply, visitor))
    return reply.body
