"""The pages of Knowledge: sources, documents, findings, search with explanations, glossary, evaluations.

Each page shows what the API returns to its visitor; forms send one API call and redirect with its result.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode
from uuid import UUID

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console import rejected_forms
from groundplan.console.form_result import redirect_with_result
from groundplan.console.pages import fetch_all
from groundplan.console.render import VisitorDep, error_page, fetch_json, render_for, visitor_api
from groundplan.knowledge.evaluation import plot

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
HERE = "/knowledge"
Text = Annotated[str, Form(max_length=2000)]
Maybe = Annotated[str, Form(max_length=64)]
STATES = (
    "approved", "draft", "rejected", "superseded", "retired", "not_yet_valid", "expired", "kept back", "deleted",
)  # fmt: skip
REASONS = {
    "draft": "waits for approval",
    "rejected": "was rejected",
    "retired": "is retired",
    "superseded": "has a newer version",
    "not_yet_valid": "is not valid yet",
    "expired": "is no longer valid",
    "workload": "is not for this workload",
    "purpose": "is not for the purpose of this workload",
    "residency": "must stay where this workload may not run alone",
    "sensitivity": "is more sensitive than this workload",
    "not_scanned": "has not been scanned for personal data yet",
    "quality": "is below the quality that this workload requires",
    "deleted": "was deleted",
}
"""Reason why a document is kept back -> words."""
LINE_WIDTH, LINE_HEIGHT = 110, 22


@router.get("/knowledge")
async def sources(request: Request, visitor: VisitorDep) -> Response:
    """The sources; visitors without a duty are redirected to their findings, if they own anything, or to the search."""
    reply = await visitor.api.get("/api/knowledge/sources")
    if reply.status == 403:
        own = "findings" if visitor.session["owns"] else "search"
        return RedirectResponse(f"/knowledge/{own}", status_code=303)
    if not reply.ok:
        return error_page(reply, visitor)
    for row in reply.body["sources"]:
        row["line"] = trend_line([point["score"] for point in row["trend"]])
    return await render_for(request, visitor, "knowledge.html", HERE, tab="sources", **reply.body)


@router.get("/knowledge/documents")
async def documents(
    request: Request, visitor: VisitorDep, source: str = "", state: str = "", text: str = "", after: str = "",
    holds: str = "",
) -> HTMLResponse:  # fmt: skip
    filters = (("source", source), ("state", state), ("text", text), ("holds", holds))
    query = {name: value for name, value in filters if value}
    body = await fetch_json(visitor, "/api/knowledge/documents", **query, **({"after": after} if after else {}))
    names: dict[str, Any] = {"sources": [], "deletions": []}
    if visitor.sees_all:
        names = await fetch_all(visitor, sources="/api/knowledge/sources", deletions="/api/knowledge/deletions")
    values = {"source": source, "state": state, "text": text, "holds": holds, "states": STATES, **names}
    behind = body["next"]
    return await render_for(
        request, visitor, "documents.html", HERE, tab="documents", documents=body["documents"],
        first=urlencode(query) if after else None, more=urlencode({**query, "after": behind}) if behind else None,
        **values,
    )  # fmt: skip


@router.get("/knowledge/documents/{document_id}")
async def document(request: Request, visitor: VisitorDep, document_id: str, person: str = "") -> HTMLResponse:
    path = f"/api/knowledge/documents/{quote(document_id, safe='')}"
    answer = await fetch_json(visitor, path)
    if "access" in answer:
        return await render_for(request, visitor, "document_read.html", HERE, tab="search", **answer)
    links = await visitor.api.get(f"{path}/links")
    access: dict[str, Any] | None = None
    access_problem = ""
    if person:
        asked = await visitor.api.get(f"{path}/access", person=person)
        access, access_problem = (asked.body, "") if asked.ok else (None, asked.problem)
    return await render_for(
        request, visitor, "document.html", HERE, tab="documents", asked=person, access=access,
        access_problem=access_problem,
        held=property_rows(answer["document"]), reasons=REASONS, links=links.body["links"] if links.ok else [],
        **answer,
    )  # fmt: skip


@router.get("/knowledge/findings")
async def findings(
    request: Request, visitor: VisitorDep, kind: str = "", source: str = "", before: str = ""
) -> HTMLResponse:
    kind = kind if kind.startswith("knowledge.") else ""
    below = {"below": f"source/{source}"} if source else {}
    behind = {"before": before} if before else {}
    answer = await fetch_json(visitor, "/api/findings", kind=kind or "knowledge.", **behind, **below)
    found: dict[str, Any] = (
        await fetch_all(visitor, sources="/api/knowledge/sources") if visitor.sees_all else {"sources": []}
    )
    counts = await visitor.api.get("/api/findings/kinds", kind="knowledge.", **below)
    query = {name: value for name, value in (("kind", kind), ("source", source)) if value}
    older = answer["next"]
    return await render_for(
        request, visitor, "knowledge_findings.html", HERE, tab="findings", findings=answer["findings"],
        kinds=counts.body["kinds"] if counts.ok else {}, kind=kind, source=source,
        first=urlencode(query) if before else None, more=urlencode({**query, "before": older}) if older else None,
        **found,
    )  # fmt: skip


@router.get("/knowledge/search")
async def search(
    request: Request, visitor: VisitorDep, workload: str = "", q: str = "", call: str = ""
) -> HTMLResponse:
    """The playground: passages found for a question, with the reasons, and what is kept back. `call`: a call that was
    grounded in them; thumbs are recorded as its outcome."""
    known = await visitor.api.get("/api/names")
    names = known.body["grounded"] if known.ok else []
    result, search_problem = None, ""
    if q and workload:
        body = {"workload": workload, "query": q[:4000], "passages": 8, "explain": True}
        reply = await visitor_api(request, visitor.csrf).post("/api/knowledge/search", body)
        result, search_problem = (reply.body, "") if reply.ok else (None, reply.problem)
    return await render_for(
        request,
        visitor,
        "knowledge_search.html",
        HERE,
        tab="search",
        names=names,
        workload=workload,
        q=q,
        call=_parse_call_id(call),
        result=result,
        search_problem=search_problem,
        reasons=REASONS,
    )


@router.get("/knowledge/glossary")
async def glossary(request: Request, visitor: VisitorDep) -> HTMLResponse:
    found = await fetch_all(visitor, terms="/api/knowledge/glossary")
    return await render_for(request, visitor, "glossary.html", HERE, tab="glossary", **found)


@router.get("/knowledge/evaluations")
async def evaluations(request: Request, visitor: VisitorDep) -> HTMLResponse:
    found = await fetch_all(visitor, runs="/api/knowledge/evaluations")
    lines: dict[str, str] = {}
    for run in found["runs"]:
        runs = [each for each in reversed(found["runs"]) if each["subject"] == run["subject"]]
        lines[run["subject"]] = trend_line([float(each["figures"].get("ndcg@10", 0)) for each in runs])
    newest: dict[str, Any] = next((run["figures"] for run in found["runs"] if run["figures"].get("abstention")), {})
    reply = await visitor.api.get("/api/knowledge/signals")
    used = reply.body if reply.ok else {"documents": [], "unanswered": []}
    pictures = {"abstention": plot.abstention_chart(newest), "parts": plot.parts_chart(newest)}
    best = newest.get("calibrated")
    return await render_for(
        request, visitor, "evaluations.html", HERE, tab="evaluations", lines=lines, used=used, best=best, **pictures,
        **found,
    )  # fmt: skip


@router.post("/do/knowledge/decide")
async def decide(
    request: Request, csrf: Text, document: Text, what: Text, reason: Text, value: Maybe = ""
) -> RedirectResponse:
    """Decide about a document; no value withdraws a decision."""
    new_value: Any = None if value == "" else value == "yes" if what == "legal_hold" else value
    path = f"/api/knowledge/documents/{quote(document, safe='')}/decide"
    reply = await visitor_api(request, csrf).post(path, {"what": what, "value": new_value, "reason": reason})
    done = "Decided. It applies from the next search on; findings about it follow within ten minutes."
    if new_value is None:
        done = "Taken back. Its source is read now, and what that says holds then."
    return redirect_with_result(f"/knowledge/documents/{quote(document, safe='')}", reply, done)


@router.post("/do/knowledge/delete")
async def delete(request: Request, csrf: Text, document: Text, reason: Text) -> RedirectResponse:
    path = f"/api/knowledge/documents/{quote(document, safe='')}/delete"
    reply = await visitor_api(request, csrf).post(path, {"reason": reason})
    done = f"{reply.body['path']} is gone from search; from the disk by {reply.body['due'][:10]}." if reply.ok else ""
    return redirect_with_result("/knowledge/documents?state=deleted", reply, done)


@router.post("/do/knowledge/held")
async def held(request: Request, visitor: VisitorDep, csrf: Text, version: Text, reason: Text) -> HTMLResponse:
    """Show a version that a legal hold keeps; reading it is recorded in the audit log."""
    path = f"/api/knowledge/held/{quote(version, safe='')}/read"
    reply = await visitor_api(request, csrf).post(path, {"reason": reason})
    rejected_forms.raise_if_rejected(reply)
    if not reply.ok:
        return error_page(reply, visitor)
    return await render_for(request, visitor, "document_held.html", HERE, tab="documents", **reply.body)


@router.post("/do/knowledge/click")
async def click(
    request: Request, csrf: Text, workload: Text, document: Text, rank: Text, call: Maybe = ""
) -> RedirectResponse:
    """Redirect to the document of a passage and record the click, without the person; links from other sites do not
    count."""
    body = {
        "kind": "click",
        "workload": workload,
        "document": document,
        "rank": _parse_rank(rank),
        "call": _parse_call_id(call),
    }
    await visitor_api(request, csrf).post("/api/knowledge/signals", body)
    return RedirectResponse(f"/knowledge/documents/{quote(document, safe='')}", status_code=303)


@router.post("/do/knowledge/thumb")
async def thumb(
    request: Request, csrf: Text, workload: Text, q: Annotated[str, Form(max_length=4000)], document: Text, rank: Text,
    kind: Text, call: Maybe = "",
) -> RedirectResponse:  # fmt: skip
    """Record whether a passage helped; for a passage of a call it becomes an outcome of that call within half a
    minute."""
    call_id = _parse_call_id(call)
    body = {"kind": kind, "workload": workload, "document": document, "rank": _parse_rank(rank), "call": call_id}
    reply = await visitor_api(request, csrf).post("/api/knowledge/signals", body)
    query = urlencode({"workload": workload, "q": q, **({"call": call_id} if call_id else {})})
    return redirect_with_result(f"/knowledge/search?{query}", reply, "Noted.")


@router.post("/do/knowledge/share")
async def share(request: Request, csrf: Text, document: Text, until: Text, reason: Text) -> RedirectResponse:
    place = f"/knowledge/documents/{quote(document, safe='')}"
    reply = await visitor_api(request, csrf).post(f"/api{place}/links", {"until": until, "reason": reason})
    return redirect_with_result(
        place, reply, f"Send this link word; it is shown only once: {reply.body['word']}" if reply.ok else ""
    )


@router.post("/do/knowledge/unshare")
async def unshare(request: Request, csrf: Text, document: Text, link: Text) -> RedirectResponse:
    place = f"/knowledge/documents/{quote(document, safe='')}"
    reply = await visitor_api(request, csrf).post(f"/api{place}/links/{quote(link, safe='')}/withdraw", {})
    return redirect_with_result(place, reply, "Withdrawn. It grants nothing from the next search on.")


@router.post("/do/knowledge/open")
async def open_link(request: Request, csrf: Text, word: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post("/api/knowledge/links/open", {"word": word})
    done = f"You may read {reply.body['source']}/{reply.body['path']}: search finds it from now on." if reply.ok else ""
    return redirect_with_result("/knowledge/search", reply, done)


@router.post("/do/knowledge/fix")
async def fix(request: Request, csrf: Text, finding: Text, subject: Text) -> RedirectResponse:
    """Apply the fix that a finding proposes, as a decision or deletion."""
    api = visitor_api(request, csrf)
    found = await api.get("/api/findings", kind="knowledge.", subject=subject)
    row = next((each for each in found.body["findings"] if each["id"] == finding), None) if found.ok else None
    if row is None or not row["fix"]:
        return redirect_with_result("/knowledge/findings", found, "It has been settled already.")
    proposed = row["fix"]
    path = f"/api/knowledge/documents/{quote(str(proposed['document']), safe='')}"
    # not the finding's message: it may contain a name or a sentence, and reasons are kept in the audit log
    reason = f"proposed by a finding ({row['kind']})"
    if proposed["do"] == "delete":
        return redirect_with_result(
            "/knowledge/findings", await api.post(f"{path}/delete", {"reason": reason}), "Deleted."
        )
    what, value = proposed_change(proposed, request)
    reply = await api.post(f"{path}/decide", {"what": what, "value": value, "reason": reason})
    return redirect_with_result(
        "/knowledge/findings", reply, "Decided. The finding closes with the next check, within ten minutes."
    )


def proposed_change(proposed: dict[str, Any], request: Request) -> tuple[str, Any]:
    """(what, value) of the decision that a finding proposes."""
    today = request.app.state.services.clock.now().date().isoformat()
    return {
        "review": ("reviewed", today),
        "retire": ("state", "retired"),
        "reject": ("state", "rejected"),
        "supersede": ("superseded_by", proposed.get("by")),
        "sensitivity": ("sensitivity", proposed.get("to")),
    }[proposed["do"]]


def property_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows with name, value, origin and ignored declarations of every property of a document."""
    names = (
        "state", "sensitivity", "owner", "steward", "purposes", "workloads", "residency", "licence", "valid_from",
        "valid_until", "review_by", "review_days", "retain_until", "legal_hold",
    )  # fmt: skip
    source = f"source/{document['source']}"
    rows = []
    for name in names:
        value = document[name]
        origin = document["origins"].get("retain_days" if name == "retain_until" else name, {})
        if value in (None, False, []):
            continue
        shown = ", ".join(value) if isinstance(value, list) else "yes" if value is True else str(value)
        where = origin.get("from", "document" if name == "review_by" else source)
        rows.append(
            {"name": name.replace("_", " "), "value": shown, "from": where, "ignored": origin.get("ignored", [])}
        )
    return rows


def trend_line(scores: list[float]) -> str:
    """The points of a polyline in a box of 110 by 22; empty for fewer than two scores."""
    if len(scores) < 2:
        return ""
    step = LINE_WIDTH / (len(scores) - 1)
    points = [(at * step, LINE_HEIGHT - 1 - score * (LINE_HEIGHT - 2)) for at, score in enumerate(scores)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _parse_call_id(text: str) -> str | None:
    """The id of a call in `text`; None if it is not valid."""
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _parse_rank(rank: str) -> int | None:
    return int(rank) if rank.isdecimal() else None
