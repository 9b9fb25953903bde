"""Pages of company rules, what guardrails found, and what waits for a person; with their forms."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.actions import Text
from groundplan.console.client import Reply
from groundplan.console.form_result import propagation_note, redirect_with_result
from groundplan.console.render import Visitor, VisitorDep, day_end_text, error_page, fetch_json, render_for, visitor_api

router = lazy_router(prefix="/governance", include_in_schema=False, default_response_class=HTMLResponse)
forms = lazy_router(prefix="/do", include_in_schema=False)
RULES, REVIEWS = "/governance/rules", "/governance/reviews"
Cedar = Annotated[str, Form(max_length=20_000)]
EXAMPLE = """@id("no-training")
forbid (principal, action == Action::"call", resource)
when { resource.sensitivity == "confidential" && context.training };"""
DAYS = ("1", "7", "30")


@router.get("/rules")
async def rules(request: Request, visitor: VisitorDep, days: str = "1") -> HTMLResponse:
    return await _rules(request, visitor, days if days in DAYS else "1")


@router.post("/rules")
async def try_draft(
    request: Request, visitor: VisitorDep, csrf: Text, cedar: Cedar = "", days: Text = "1"
) -> HTMLResponse:
    """The page with the calls that a draft rule would have refused."""
    days = days if days in DAYS else "1"
    reply = await visitor_api(request, csrf).post("/api/policies/try", {"cedar": cedar, "days": float(days)})
    return await _rules(request, visitor, days, cedar, reply)


async def _rules(
    request: Request, visitor: Visitor, days: str, draft: str = EXAMPLE, reply: Reply | None = None
) -> HTMLResponse:
    held = await visitor.api.get("/api/policies")
    trials = await visitor.api.get("/api/policies/shadow", days=days)
    found = await visitor.api.get("/api/guardrails")
    shadow = await visitor.api.get("/api/policies/shadow/days", days="7")
    for each in (held, trials, found, shadow):
        if not each.ok:
            return error_page(each, visitor)
    values: dict[str, Any] = {
        "policies": held.body["policies"],
        "exceptions": held.body["exceptions"],
        "trials": {trial["policy"]: trial for trial in trials.body["trials"]},
        "found": found.body["found"],
        "shadow": [each for each in shadow.body["policies"] if any(day["would_refuse"] for day in each["days"])],
        "days": days,
        "choices": DAYS,
        "draft": draft,
        "trial": reply.body["trials"][0] if reply is not None and reply.ok else None,
        "wrong": _draft_problem(reply),
    }
    return await render_for(request, visitor, "rules.html", "/governance", **values)


def _draft_problem(reply: Reply | None) -> str:
    """Why a draft rule could not be tried; empty if it was."""
    return "" if reply is None or reply.ok else reply.problem


@router.get("/reviews")
async def reviews(request: Request, visitor: VisitorDep, all: str = "") -> HTMLResponse:
    body = await fetch_json(visitor, "/api/reviews", all="true" if all else "false")
    values = {"reviews": body["reviews"], "minutes": body["minutes"], "everything": bool(all)}
    return await render_for(request, visitor, "reviews.html", "/governance", **values)


@router.get("/reviews/{id}")
async def review(request: Request, visitor: VisitorDep, id: str) -> HTMLResponse:
    body = await fetch_json(visitor, f"/api/reviews/{quote(id, safe='')}")
    return await render_for(request, visitor, "review.html", "/governance", held=body)


@forms.post("/review-release")
async def release(
    request: Request, csrf: Text, review: Text, reason: Text = "", minutes: Text = ""
) -> RedirectResponse:
    return await _decide_review(request, csrf, review, "release", reason, minutes)


@forms.post("/review-refuse")
async def refuse(request: Request, csrf: Text, review: Text, reason: Text = "", minutes: Text = "") -> RedirectResponse:
    return await _decide_review(request, csrf, review, "refuse", reason, minutes)


async def _decide_review(
    request: Request, csrf: str, review: str, what: str, reason: str, minutes: str
) -> RedirectResponse:
    body: dict[str, Any] = {"reason": reason}
    if minutes.strip().replace(".", "", 1).isdigit():
        body["minutes"] = float(minutes)
    reply = await visitor_api(request, csrf).post(f"/api/reviews/{quote(review, safe='')}/{what}", body)
    return redirect_with_result(REVIEWS, reply, "Released." if what == "release" else "Refused.")


@forms.post("/exception-ask")
async def ask(
    request: Request, csrf: Text, rule: Text, workload: Text, until: Text, reason: Text, person: Text = ""
) -> RedirectResponse:
    body = {"rule": rule, "workload": workload, "person": person, "until": day_end_text(until), "reason": reason}
    reply = await visitor_api(request, csrf).post("/api/policies/exceptions", body)
    return redirect_with_result(
        RULES, reply, "Requested; it takes effect once security and compliance have approved it."
    )


@forms.post("/exception-end")
async def end(request: Request, csrf: Text, exception: Text) -> RedirectResponse:
    path = f"/api/policies/exceptions/{quote(exception, safe='')}/end"
    reply = await visitor_api(request, csrf).post(path, {"reason": ""})
    return redirect_with_result(RULES, reply, f"The exception has ended{propagation_note(reply)}.")
