"""The page of the search index: its editions, their comparisons, and forms to switch, roll back and drop."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console import rejected_forms
from groundplan.console.pages import fetch_all
from groundplan.console.render import VisitorDep, render_for, visitor_api

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
HERE = "/knowledge"
PAGE = "/knowledge/index"
Text = Annotated[str, Form(max_length=20)]
STATES = {
    "building": ("is being built", "badge-wait"),
    "ready": ("is ready", "badge-wait"),
    "switching": ("serves as soon as every search service has read it", "badge-wait"),
    "serving": ("serves", "badge-ok"),
    "kept": ("is kept for a rollback", ""),
}
"""State -> (words, class of its badge)."""
FIGURES = (
    ("documents", "Documents"), ("passages", "Passages"), ("characters", "Characters"),
    ("without_vector", "Without vector"), ("recall", "Recall@10 against exact"), ("found", "Found by heading"),
    ("rank", "1/place by heading"),
)  # fmt: skip
DONE = {
    "build": "It is being built beside the one that serves.",
    "compare": "Compared.",
    "switch": "It serves as soon as every search service has read it.",
    "rollback": "Search goes back to the previous edition.",
    "drop": "Dropped.",
}


@router.get(PAGE)
async def editions(request: Request, visitor: VisitorDep) -> HTMLResponse:
    found = await fetch_all(visitor, index="/api/knowledge/index")
    shown = [{**one, "said": STATES[one["state"]], "figures": figures(one)} for one in found["index"]["editions"]]
    kept = [one for one in shown if one["state"] == "kept" and one["served_at"]]
    return await render_for(
        request, visitor, "knowledge_index.html", HERE, tab="index", editions=shown, back=max(
            kept, key=lambda one: one["served_at"], default=None
        ), declared=found["index"]["declared"], serves_declared=found["index"]["serves_declared"],
    )  # fmt: skip


def figures(one: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, figure of this edition, figure of the serving one) of a comparison."""
    compared = one["compared"]
    if not compared:
        return []
    own, other = compared["own"], compared["serving"]
    rows = [(label, own[name], other[name]) for name, label in FIGURES]
    labelled = other["labelled"] or {}
    return rows + [(name, value, labelled.get(name, "–")) for name, value in (own["labelled"] or {}).items()]


@router.post("/do/knowledge/index/{what}")
async def act(request: Request, what: str, csrf: Text, edition: Text = "") -> RedirectResponse:
    path = f"/api{PAGE}/{quote(edition, safe='')}/{what}" if edition else f"/api{PAGE}/{what}"
    if what not in DONE:
        return RedirectResponse(PAGE, status_code=303)
    reply = await visitor_api(request, csrf).post(path, {})
    rejected_forms.raise_if_rejected(reply)
    result = {"notice": DONE[what]} if reply.ok else {"problem": reply.problem}
    return RedirectResponse(f"{PAGE}?{urlencode(result)}", status_code=303)
