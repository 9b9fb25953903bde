"""The review queue: held calls are opened, released or refused, each with its minutes and its audit entry.

The caller checks who may decide; that nobody releases an answer to themselves is checked here.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit.store import record
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import Conflict, Denied, NotFound
from groundplan.governance.review import store
from groundplan.governance.review.model import HeldCall, ReviewDecision, Reviewer

APPROVAL_LASTS = timedelta(minutes=30)
"""For how long an approved tool call may be made."""
LONGEST_MINUTES = Decimal(480)


def find(conn: Connection[Any], id: UUID) -> HeldCall:
    """The held call with this id, locked. Raises `NotFound` (`review_unknown`)."""
    held = store.find(conn, id)
    if held is None:
        hint = "`groundplan review list` shows what waits."
        raise NotFound(f"nothing called {id} waits or waited", code="review_unknown", hint=hint)
    return held


def read_texts(conn: Connection[Any], keys: SubjectKeys, actor: str, held: HeldCall) -> dict[str, str | None]:
    """Unseal the prompt and the held answer for a reviewer; the first reading starts the minutes. It is audited."""
    texts = {name: keys.unseal(conn, sealed) if sealed else None for name, sealed in
             (("asked", held.asked), ("said", held.said))}  # fmt: skip
    if held.state == "waiting":
        store.mark_opened(conn, held.id, actor)
    detail = {"workload": held.workload, "kind": held.kind}
    record(conn, action="review.read", actor=actor, subject=f"review/{held.id}", detail=detail)
    return texts


def decide(conn: Connection[Any], reviewer: Reviewer, held: HeldCall, decision: ReviewDecision, now: datetime) -> str:
    """Release or refuse a held call; returns the new state. Raises `Conflict` (`review_decided`), `Denied`
    (`own_review`)."""
    release, reason = decision.release, decision.reason.strip()
    if release and reviewer.email is not None and reviewer.email == held.person and not reviewer.is_alone:
        hint = "Somebody else must look at it."
        raise Denied("nobody may release an answer to themselves", code="own_review", hint=hint)
    took = Decimal(str(decision.minutes)) if decision.minutes is not None else _minutes_since(held.opened_at, now)
    took = min(max(took, Decimal(0)), LONGEST_MINUTES).quantize(Decimal("0.01"))
    state = "released" if release else "refused"
    if not store.decide(conn, held.id, state, reviewer.actor, reason, took, said=decision.minutes is not None):
        raise Conflict("it is no longer waiting", code="review_decided", hint="Reload the queue.")
    if release and held.kind == "tool":
        store.extend(conn, held.id, now + APPROVAL_LASTS)
    detail = {
        "workload": held.workload, "kind": held.kind, "of": held.subject, "reason": reason,
        "minutes": str(took),
    }  # fmt: skip
    record(conn, action=f"review.{state}", actor=reviewer.actor, subject=f"review/{held.id}", detail=detail)
    return state


def _minutes_since(opened: datetime | None, now: datetime) -> Decimal:
    return Decimal(str((now - opened).total_seconds() / 60)) if opened is not None else Decimal(0)
