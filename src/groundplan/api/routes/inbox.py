"""The inbox: everything that waits for somebody, in one list: approvals, reviews, findings, stops, silent gateways."""

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
"""The most pending changes."""


@router.get("/inbox")
def inbox(services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Items with `kind`, `message`, `hint`, `subject`; `mine` where one of your duties is asked for. Of findings the
    gravest; `more`: how many there are besides, which `count` has in it. Who holds no duty has the findings and reviews
    that are theirs, and nothing else."""
    with services.transaction() as conn:
        only = ownership.own_findings(conn, caller)
        findings = with_quotes(conn, caller, finding_store.list_findings(conn, limit=MAX_FINDINGS, only=only))
        more = (
            sum(finding_store.count_by_kind(conn, only=only).values()) - MAX_FINDINGS
            if len(findings) == MAX_FINDINGS
            else 0
        )
        others = [] if only is not None else _approvals_and_stops(conn, caller)
        reviews = _reviews(conn, caller, services.clock.now(), theirs=only is not None)
    items = [each for each in others if each["kind"] == "approval"] + reviews
    items += [
        {**finding, "mine": only is not None or (finding["owner"] is not None and finding["owner"] == caller.email)}
        for finding in findings
    ]
    items += [each for each in others if each["kind"] != "approval"]
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
    waits = "; ".join(f"{', '.join(duty for of, duty in needs if of == each)} of {each}" for each in subjects)
    return {
        "kind": "approval",
        "severity": "medium",
        "subject": f"change/{change['id']}",
        "message": f"A change waits for {waits}.",
        "hint": "Read its difference, then approve or refuse it.",
        "at": change["requested_at"],
        "mine": any(need["mine"] for need in change["waits_for"]),
    }


def _reviews(conn: Connection[Any], caller: Caller, now: datetime, *, theirs: bool) -> list[dict[str, Any]]:
    """Inbox items of held answers and tool uses; with `theirs` only those that the caller may decide."""
    waiting = [(held, may_decide(caller, held)) for held in queue.queue(conn, waiting=True) if held.due_at > now]
    return [_review(held, mine=mine) for held, mine in waiting if mine or not theirs]


def _review(held: HeldCall, *, mine: bool) -> dict[str, Any]:
    what = "An answer of" if held.kind == "answer" else f"A use of the tool {held.subject} by"
    return {
        "kind": "review",
        "severity": "high",
        "subject": f"review/{held.id}",
        "message": f"{what} {held.workload} waits for a person until {held.due_at.astimezone(UTC):%d %b %H:%M} UTC.",
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
