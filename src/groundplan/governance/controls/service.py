"""Evidence is collected from facts, given by people, withdrawn. One transaction each, told in the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core import canonical
from groundplan.core.audit.entry import SYSTEM
from groundplan.core.audit.store import record
from groundplan.core.errors import Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.governance import service as governance
from groundplan.governance.controls import evidence_store
from groundplan.governance.controls.assess import newest
from groundplan.governance.controls.checks import CHECKS
from groundplan.governance.controls.model import (
    APPROVED,
    COLLECTOR,
    Check,
    Evidence,
    EvidenceType,
    Facts,
    Verdict,
)
from groundplan.governance.model import ApprovalRequest, Change

LONGEST = timedelta(days=3 * 366)
_NOT_IN_LOG = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a round of collecting changed."""

    added: int
    kept: int


def collect(conn: Connection[Any], facts: Iterable[Facts], now: datetime) -> Collected:
    """Judge the facts of each workload; what is new, has changed or is half over becomes new evidence."""
    known = newest(evidence_store.standing(conn, now, demanded=False))
    added = kept = 0
    for each in facts:
        subject = f"workload/{each.workload}"
        fresh: list[Evidence] = []
        for check in CHECKS.values():
            if check.judge is None:
                continue
            verdict = check.judge(each, now.date())
            made = judged(check, verdict, subject, now)
            before = known.get((subject, check.name))
            if before is not None and stands(before, made, now, grows=verdict.grows):
                kept += 1
            else:
                fresh.append(made)
        if fresh:
            _keep(conn, SYSTEM, subject, fresh)
            added += len(fresh)
    return Collected(added, kept)


def judged(check: Check, verdict: Verdict, subject: str, now: datetime) -> Evidence:
    """Evidence of what a check found, which is not in the log yet."""
    made = Evidence(
        id=new_id(), what=check.name, subject=subject, type=check.type, collector=COLLECTOR, at=now,
        valid_until=now + timedelta(days=check.days), holds=verdict.holds, says=verdict.says, digest="",
        audit_entry=_NOT_IN_LOG, detail=verdict.detail, link=verdict.link,
    )  # fmt: skip
    return replace(made, digest=digest_of(made))


def digest_of(found: Evidence) -> str:
    """SHA-256 over canonical JSON of what it says, about whom; times and ids are not in it."""
    content = {
        "what": found.what, "subject": found.subject, "type": found.type, "holds": found.holds, "says": found.says,
        "detail": dict(found.detail),
    }  # fmt: skip
    return canonical.digest(canonical.canonical(content))


def stands(before: Evidence, made: Evidence, now: datetime, *, grows: bool) -> bool:
    """Whether what is known says the same and is not half over; of what `grows`, whether both hold: else each call, and
    each entry of the log, which evidence is as well, would make new evidence of every workload."""
    half = before.at + (before.valid_until - before.at) / 2
    same = before.digest == made.digest or (grows and before.holds and made.holds)
    return same and now < half


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Evidence as a person gives it."""

    what: str
    """`FRAMEWORK/CONTROL`, or a check that facts cannot show"""
    subject: str
    type: EvidenceType
    says: str
    days: int
    detail: Mapping[str, Any] = field(default_factory=dict)
    link: str | None = None


def give(
    conn: Connection[Any], actor: str, given: Given, now: datetime, *, seats: int | None = None
) -> tuple[Evidence, Change | None]:
    """Evidence that a person gives. `seats`: so many must approve it before it counts, in the change that is returned;
    None: it counts at once.

    Raises `Invalid` for what facts show by themselves, or one that lasts too long.
    """
    check = CHECKS.get(given.what)
    if check is not None and check.judge is not None:
        raise Invalid(
            f"{given.what} is collected from facts and cannot be given by hand",
            code="evidence_collected",
            hint=check.hint,
        )
    if check is None and "/" not in given.what:
        by_hand = ", ".join(name for name, each in CHECKS.items() if each.judge is None)
        raise Invalid(
            f"there is no check or control called {given.what[:80]}", code="evidence_unknown",
            hint=f"Name FRAMEWORK/CONTROL, such as 'iso-42001/A.6.2.7', or one of {by_hand}.",
        )  # fmt: skip
    if not timedelta() < timedelta(days=given.days) <= LONGEST:
        raise Invalid(
            f"evidence cannot hold for {given.days} days", code="evidence_days", hint=f"Give 1 to {LONGEST.days} days."
        )
    made = Evidence(
        id=new_id(), what=given.what, subject=given.subject, type=given.type, collector=actor, at=now,
        valid_until=now + timedelta(days=given.days), holds=True, says=given.says, digest="", audit_entry=_NOT_IN_LOG,
        detail=dict(given.detail), link=given.link,
    )  # fmt: skip
    made = replace(made, digest=digest_of(made))
    change = None if seats is None else _asked(conn, actor, made, seats, now)
    made = replace(made, approval=change.digest, counts=False) if change is not None else made
    (kept,) = _keep(conn, actor, given.subject, [made])
    return kept, change


def _asked(conn: Connection[Any], actor: str, made: Evidence, seats: int, now: datetime) -> Change:
    """The approval is bound to what it says, of whom and until when, and to the document by its SHA-256."""
    what: dict[str, Any] = {
        "control": made.what, "type": made.type, "says": made.says, "until": made.valid_until.isoformat(),
        "link": made.link, **made.detail,
    }  # fmt: skip
    return governance.request_approval(
        conn, actor, ApprovalRequest(APPROVED, made.subject, what, made.says), seats=seats, at=now
    )


def withdraw(conn: Connection[Any], actor: str, id: UUID, reason: str, now: datetime) -> None:
    """It counts no longer, from now on. Raises `NotFound` (`evidence_unknown`)."""
    found = evidence_store.withdraw(conn, id, str(actor), now)
    if found is None:
        raise NotFound(
            f"there is no valid evidence {id}",
            code="evidence_unknown",
            hint="`groundplan evidence list` shows what is valid.",
        )
    detail = {"evidence": str(id), "what": found["what"], "reason": reason}
    record(conn, action="evidence.withdrawn", actor=actor, subject=found["subject"], detail=detail)
    if found["approval"] is not None:
        governance.supersede_changes(conn, actor, APPROVED, found["approval"], at=now)


def _keep(conn: Connection[Any], actor: str, subject: str, fresh: list[Evidence]) -> list[Evidence]:
    told = [{"id": str(e.id), "what": e.what, "holds": e.holds, "digest": e.digest} for e in fresh]
    action = "evidence.collected" if actor == SYSTEM else "evidence.given"
    entry = record(conn, action=action, actor=actor, subject=subject, detail={"evidence": told})
    kept = [replace(each, audit_entry=entry) for each in fresh]
    for each in kept:
        evidence_store.add(conn, each)
    return kept
