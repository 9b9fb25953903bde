"""The inbox: one list of everything that waits for a person: approvals, reviews, findings, kills, silent gateways."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from groundplan.api import store
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.knowledge import ownership
from groundplan.api.knowledge.quotes import with_quotes
from groundplan.api.routes.changes import with_approvals, with_holders
from groundplan.api.routes.reviews import may_decide
from groundplan.governance.review import store as queue
from groundplan.governance.review.model import HeldCall
from groundplan.ledger import finding_store

router = protected_router("inbox")
SILENT_SECONDS = 1.0
MAX_FINDINGS = 200
MAX_PENDING = 1000
"""The most pending changes that are listed."""


@router.get("/inbox")
def inbox(services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """List everything that waits for a person; `mine` marks items that the caller may decide or owns.

    Of findings only the most severe are listed; `more` counts the others, which are included in `count`. Callers
    without a duty get only their own findings and the reviews that they may decide.
    """
    with services.transaction() as conn:
        own_ids = ownership.own_findings(conn, caller)
        findings = with_quotes(conn, caller, finding_store.list_findings(conn, limit=MAX_FINDINGS, only=own_ids))
        more = (
            sum(finding_store.count_by_kind(conn, only=own_ids).values()) - MAX_FINDINGS
            if len(findings) == MAX_FINDINGS
            else 0
        )
        others = [] if own_ids is not None else _approvals_and_stops(conn, caller)
        reviews = _reviews(conn, caller, services.clock.now(), only_own=own_ids is not None)
    items = [item for item in others if item["kind"] == "approval"] + reviews
    items += [
        {**finding, "mine": own_ids is not None or (finding["owner"] is not None and finding["owner"] == caller.email)}
        for finding in findings
    ]
    items += [item for item in others if item["kind"] != "approval"]
    return {"items": items, "count": len(items) + more, "more": more}


def _approvals_and_stops(conn: Connection[Any], caller: Caller) -> list[dict[str, Any]]:
    """Inbox items of approvals, then of kills and silent gateways."""
    silent = [worker for worker in store.gateways(conn) if worker["silent_s"] > SILENT_SECONDS]
    pending = with_holders(conn, caller, with_approvals(conn, store.changes(conn, "pending", MAX_PENDING)))
    return [
        *map(_approval, pending),
        *map(_kill, store.kills(conn)),
        *map(_silent_gateway, silent),
    ]


def _approval(change: dict[str, Any]) -> dict[str, Any]:
    needs = [(need["subject"], need["duty"]) for need in change["waits_for"]]
    subjects = dict.fromkeys(subject for subject, _ in needs)
    waits = "; ".join(f"{', '.join(duty for of, duty in needs if of == subject)} of {subject}" for subject in subjects)
    return {
        "kind": "approval",
        "severity": "medium",
        "subject": f"change/{change['id']}",
        "message": f"A change waits for {waits}.",
        "hint": "Read its difference, then approve or refuse it.",
        "at": change["requested_at"],
        "mine": any(need["mine"] for need in change["waits_for"]),
    }


def _reviews(conn: Connection[Any], caller: Caller, now: datetime, *, only_own: bool) -> list[dict[str, Any]]:
    """Inbox items of answers and tool uses held for review; with `only_own` only those that the caller may decide."""
    waiting = [(held, may_decide(caller, held)) for held in queue.queue(conn, waiting=True) if held.due_at > now]
    return [_review(held, mine=mine) for held, mine in waiting if mine or not only_own]


def _review(held: HeldCall, *, mine: bool) -> dict[str, Any]:
    description = "An answer of" if held.kind == "answer" else f"A use of the tool {held.subject} by"
    deadline = f"{held.due_at.astimezone(UTC):%d %b %H:%M} UTC"
    return {
        "kind": "review",
        "severity": "high",
        "subject": f"review/{held.id}",
        "message": f"{description} {held.workload} waits for a person until {deadline}.",
        "hint": "Read it, then release or refuse it.",
        "at": held.at.isoformat(),
        "mine": mine,
    }


def _kill(kill: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "kill",
        "severity": "high",
        "subject": kill["scope"],
        "message": f"{kill['scope']} is stopped: {kill['reason']}",
        "hint": "Lift it when the cause is gone.",
        "at": kill["at"],
        "mine": False,
    }


def _silent_gateway(worker: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "gateway",
        "severity": "high",
        "subject": f"gateway/{worker['epoch']}",
        "message": f"Gateway process {worker['pid']} has been silent for {worker['silent_s']:.0f} s.",
        "hint": "See HOME/logs; it serves no longer than its policy lease and grace allow.",
        "at": None,
        "mine": False,
    }
