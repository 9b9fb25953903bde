"""Calls: live traffic, the list, receipts, kept content, and the playground. Each page asks the API as its visitor."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console import receipt, rejected_forms
from groundplan.console.form_result import redirect_with_result
from groundplan.console.render import Visitor, VisitorDep, fetch_json, render, render_for, visitor_api
from groundplan.console.traffic_svg import call_waterfall, sparkline

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
STATUSES = ("ok", "refused", "failed", "cancelled", "crashed")
FILTERS = ("workload", "deployment", "status", "person", "key")
MINUTES = 15
Text = Annotated[str, Form(max_length=8000)]


@router.get("/calls")
async def calls(request: Request, visitor: VisitorDep) -> HTMLResponse:
    chosen, query, before = _asked(request)
    names = await visitor.api.get("/api/names")
    named = {"workload": query["workload"]} if "workload" in query else {}
    ordered = await visitor.api.get("/api/batches", limit="10", **named)
    made = await visitor.api.get("/api/responses", limit="10", **named)
    values = {
        "batches": ordered.body["batches"] if ordered.ok else [],
        "files": ordered.body["files"] if ordered.ok else [],
        "responses": made.body["responses"] if made.ok else [],
        "open_responses": made.body["open"] if made.ok else [],
        "orders": ordered.ok and made.ok,
        **await _list(visitor, query, before),
        "chosen": chosen,
        "live": urlencode(query),
        "statuses": STATUSES,
        "names": names.body["workloads"] if names.ok else [],
        "places": names.body["deployments"] if names.ok and visitor.sees_all else [],
    }
    return await render_for(request, visitor, "calls.html", "/calls", **values)


@router.get("/live/calls")
async def live_calls(request: Request, visitor: VisitorDep) -> HTMLResponse:
    """Traffic and the newest calls alone, for the live update of the page."""
    chosen, query, _ = _asked(request)
    values = await _list(visitor, query, "")
    if values["answered"] >= HTTPStatus.INTERNAL_SERVER_ERROR:  # what is shown stays, not that there are none
        return HTMLResponse("", status_code=values["answered"])
    return render("calls_live.html", chosen=chosen, **values)


def _asked(request: Request) -> tuple[dict[str, str], dict[str, str], str]:
    """What was chosen, what of it is said, and the page."""
    chosen = {name: request.query_params.get(name, "").strip()[:320] for name in FILTERS}
    return chosen, {name: value for name, value in chosen.items() if value}, request.query_params.get("before", "")


async def _list(visitor: Visitor, query: dict[str, str], before: str) -> dict[str, Any]:
    reply = await visitor.api.get("/api/calls", **query, **({"before": before} if before else {}))
    traffic = None
    if not before and not {"person", "key"} & query.keys():  # its figures are not kept by these
        found = await visitor.api.get("/api/traffic", minutes=str(MINUTES), **query)
        traffic = found.body if found.ok else None
    return {
        "calls": reply.body["calls"] if reply.ok else [],
        "problem": None if reply.ok else reply.problem,
        "answered": reply.status,
        "older": urlencode({**query, "before": reply.body["next"]}) if reply.ok and reply.body["next"] else None,
        "newest": urlencode(query) if before else None,
        "traffic": traffic,
        "spark": sparkline(traffic["steps"]) if traffic else "",
    }


@router.post("/do/responses/cancel")
async def cancel_response(request: Request, csrf: Text, id: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post(f"/api/responses/{quote(id, safe='')}/cancel")
    return redirect_with_result("/calls", reply, f"{id} is cancelled.")


@router.get("/calls/{call_id}")
async def call(request: Request, visitor: VisitorDep, call_id: str) -> HTMLResponse:
    body = await fetch_json(visitor, f"/api/calls/{quote(call_id, safe='')}")
    values = {
        "call": body,
        "steps": receipt.steps(body),
        "used": receipt.share_used(body),
        "tokens": receipt.usage_text,
        "waterfall": call_waterfall(body),
    }
    return await render_for(request, visitor, "receipt.html", "/calls", **values)


@router.post("/do/content", response_class=HTMLResponse)
async def read_content(request: Request, visitor: VisitorDep, csrf: Text, call: Text) -> Response:
    """What was asked and answered; the audit log is told that it was read."""
    path = f"/calls/{quote(call, safe='')}"
    reply = await visitor_api(request, csrf).post(f"/api{path}/content")
    rejected_forms.raise_if_rejected(reply)
    if not reply.ok:
        return RedirectResponse(f"{path}?{urlencode({'problem': reply.problem})}", status_code=303)
    texts = {name: _readable(reply.body[name]) for name in ("prompt", "answer")}
    return await render_for(request, visitor, "content.html", "/calls", call_id=call, kept=reply.body, texts=texts)


@router.get("/playground")
async def playground(request: Request, visitor: VisitorDep, workload: str = "") -> HTMLResponse:
    return await _playground(request, visitor, {"workload": workload[:63], "question": ""}, None)


@router.post("/do/playground", response_class=HTMLResponse)
async def play(request: Request, visitor: VisitorDep, csrf: Text, workload: Text, question: Text = "") -> Response:
    """Ask, and show the answer with what it took."""
    asked = {"workload": workload, "question": question}
    reply = await visitor_api(request, csrf).post("/api/playground", {**asked, "question": question.strip()})
    if reply.status < 500:  # what a model could not answer is told beside the question
        rejected_forms.raise_if_rejected(reply)
    return await _playground(
        request, visitor, asked, reply.body if reply.ok else None, None if reply.ok else reply.problem
    )


async def _playground(
    request: Request, visitor: Visitor, asked: dict[str, str], result: Any, problem: str | None = None
) -> HTMLResponse:
    known = await visitor.api.get("/api/names")
    names = known.body["served"] if known.ok else []
    values = {"asked": asked, "names": names, "result": result, "problem": problem}
    return await render_for(request, visitor, "playground.html", "/calls", **values)


def _readable(value: Any) -> str:
    """Messages and joined answers as text, anything else as indented JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and set(value) == {"0"}:
        return str(value["0"])
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        lines = [_message(message) for message in value["messages"]]
        if all(lines):
            return "\n\n".join(line for line in lines if line)
    choices = value.get("choices") if isinstance(value, dict) else None
    if isinstance(choices, list) and choices and all(isinstance(choice, dict) for choice in choices):
        lines = [_message(choice.get("message")) for choice in choices]
        if all(lines):
            return "\n\n".join(line for line in lines if line)
    return json.dumps(value, indent=2, ensure_ascii=False)


def _message(value: Any) -> str | None:
    """`role: content` of a message of plain text, None for any other."""
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        return f"{value.get('role', 'message')}: {value['content']}"
    return None
