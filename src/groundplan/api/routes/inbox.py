"""The inbox: everything that waits for somebody, in one list: approvals, findings, stops, silent gateways."""

from __future__ import annotations

from typing import Any

from groundplan.api import store
from groundplan.api.access.door import below_api
from groundplan.api.caller import Reader
from groundplan.api.context import Using
from groundplan.api.knowledge.quotes import with_quotes
from groundplan.api.routes.changes import with_approvals
from groundplan.ledger import finding_store

router = below_api("inbox")
SILENT_SECONDS = 1.0
MOST = 200


@router.get("/inbox")
def inbox(services: Using, caller: Reader) -> dict[str, Any]:
    """Items with `kind`, `message`, `hint`, `subject`; `mine` where one of your duties is asked for. Of findings the
    gravest; `more`: how many there are besides, which `count` has in it."""
    with services.transaction() as conn:
        pending = with_approvals(conn, store.changes(conn, "pending"))
        findings = with_quotes(conn, caller, finding_store.findings(conn, limit=MOST))
        more = sum(finding_store.kinds(conn).values()) - MOST if len(findings) == MOST else 0
        kills = store.kills(conn)
        workers = store.gateways(conn)
    held = set(caller.duties)
    items = [_approval(change, held) for change in pending]
    items += [
        {**finding, "mine": finding["owner"] is not None and finding["owner"] == caller.email} for finding in findings
    ]
    items += [_kill(kill) for kill in kills]
    items += [_silent(worker) for worker in workers if worker["silent_s"] > SILENT_SECONDS]
    return {"items": items, "count": len(items) + more, "more": more}


def _approval(change: dict[str, Any], held: set[tuple[str, str]]) -> dict[str, Any]:
    needs = [(need["subject"], need["duty"]) for need in change["waits_for"]]
    subjects = dict.fromkeys(subject for subject, _ in needs)
    waits = "; ".join(f"{', '.join(duty for of, duty in needs if of == each)} of {each}" for each in subjects)
    mine = any(need in held or ("company", need[1]) in held for need in needs)
    return {
        "kind": "approval",
        "severity": "medium",
        "subject": f"change/{change['id']}",
        "message": f"A change waits for {waits}.",
        "hint": "Read its difference, then approve or refuse it.",
        "at": change["requested_at"],
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


def _silent(worker: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "gateway",
        "severity": "high",
        "subject": f"gateway/{worker['epoch']}",
        "message": f"Gateway process {worker['pid']} has been silent for {worker['silent_s']:.0f} s.",
        "hint": "See HOME/logs; it serves no longer than its policy lease and grace allow.",
        "at": None,
        "mine": False,
    }
