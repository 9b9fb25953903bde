"""Evidence collected from facts, given by people, withdrawn: one transaction each, with its audit entry."""

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
from groundplan.governance.controls.assess import select_decisive
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

MAX_VALIDITY = timedelta(days=3 * 366)
_NOT_IN_LOG = UUID(int=0)


@dataclass(frozen=True, slots=True)
class CollectionResult:
    """Number of new pieces of evidence, and of those that were kept."""

    added: int
    kept: int


def collect_evidence(conn: Connection[Any], facts: Iterable[Facts], now: datetime) -> CollectionResult:
    """Judge the facts of each workload; verdicts that are new, have changed or whose evidence is past half its time
    become new evidence."""
    known = select_decisive(evidence_store.newest_evidence(conn, now, demanded=False))
    added = kept = 0
    for each in facts:
        subject = f"workload/{each.workload}"
        fresh: list[Evidence] = []
        for check in CHECKS.values():
            if check.judge is None:
                continue
            verdict = check.judge(each, now.date())
            found = evidence_of_verdict(check, verdict, subject, now)
            before = known.get((subject, check.name))
            if before is not None and is_current(before, found, now, grows=verdict.grows):
                kept += 1
            else:
                fresh.append(found)
        if fresh:
            _store_evidence(conn, SYSTEM, subject, fresh)
            added += len(fresh)
    return CollectionResult(added, kept)


def evidence_of_verdict(check: Check, verdict: Verdict, subject: str, now: datetime) -> Evidence:
    """The evidence of a verdict, which is not in the log yet."""
    evidence = Evidence(
        id=new_id(), what=check.name, subject=subject, type=check.type, collector=COLLECTOR, at=now,
        valid_until=now + timedelta(days=check.days), holds=verdict.holds, says=verdict.says, digest="",
        audit_entry=_NOT_IN_LOG, detail=verdict.detail, link=verdict.link,
    )  # fmt: skip
    return replace(evidence, digest=evidence_digest(evidence))


def evidence_digest(found: Evidence) -> str:
    """SHA-256 over canonical JSON of its content and subject, without times and ids."""
    content = {
        "what": found.what, "subject": found.subject, "type": found.type, "holds": found.holds, "says": found.says,
        "detail": dict(found.detail),
    }  # fmt: skip
    return canonical.digest(canonical.canonical(content))


def is_current(before: Evidence, found: Evidence, now: datetime, *, grows: bool) -> bool:
    """Whether the known evidence says the same and is not past half its time. Where figures grow, it is enough that
    both hold: otherwise each call and each log entry, which evidence is itself, would make new evidence of every
    workload."""
    half = before.at + (before.valid_until - before.at) / 2
    same = before.digest == found.digest or (grows and before.holds and found.holds)
    return same and now < half


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvidence:
    """Evidence that a person gives."""

    what: str
    """`FRAMEWORK/CONTROL`, or a check that facts cannot show"""
    subject: str
    type: EvidenceType
    says: str
    days: int
    detail: Mapping[str, Any] = field(default_factory=dict)
    link: str | None = None


def add_evidence(
    conn: Connection[Any], actor: str, given: NewEvidence, now: datetime, *, seats: int | None = None
) -> tuple[Evidence, Change | None]:
    """Store evidence that a person gives. `seats`: number of people who must approve it before it counts, in the change
    that is returned; None: it counts at once.

    Raises `Invalid` (`evidence_collected`, `evidence_unknown`, `evidence_days`).
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
    if not timedelta() < timedelta(days=given.days) <= MAX_VALIDITY:
        raise Invalid(
            f"evidence cannot hold for {given.days} days",
            code="evidence_days",
            hint=f"Give 1 to {MAX_VALIDITY.days} days.",
        )
    evidence = Evidence(
        id=new_id(), what=given.what, subject=given.subject, type=given.type, collector=actor, at=now,
        valid_until=now + timedelta(days=given.days), holds=True, says=given.says, digest="", audit_entry=_NOT_IN_LOG,
        detail=dict(given.detail), link=given.link,
    )  # fmt: skip
    evidence = replace(evidence, digest=evidence_digest(evidence))
    change = None if seats is None else _request_approval(conn, actor, evidence, seats, now)
    evidence = replace(evidence, approval=change.digest, counts=False) if change is not None else evidence
    (kept,) = _store_evidence(conn, actor, given.subject, [evidence])
    return kept, change


def _request_approval(conn: Connection[Any], actor: str, evidence: Evidence, seats: int, now: datetime) -> Change:
    """Request approval, which is bound to the content, subject and end, and to the document by its SHA-256."""
    declaration: dict[str, Any] = {
        "control": evidence.what, "type": evidence.type, "says": evidence.says,
        "until": evidence.valid_until.isoformat(), "link": evidence.link, **evidence.detail,
    }  # fmt: skip
    return governance.request_approval(
        conn, actor, ApprovalRequest(APPROVED, evidence.subject, declaration, evidence.says), seats=seats, at=now
    )


def withdraw_evidence(conn: Connection[Any], actor: str, id: UUID, reason: str, now: datetime) -> None:
    """Withdraw evidence: it no longer counts from now on. Raises `NotFound` (`evidence_unknown`)."""
    found = evidence_store.withdraw_evidence(conn, id, str(actor), now)
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


def _store_evidence(conn: Connection[Any], actor: str, subject: str, fresh: list[Evidence]) -> list[Evidence]:
    entries = [{"id": str(e.id), "what": e.what, "holds": e.holds, "digest": e.digest} for e in fresh]
    action = "evidence.collected" if actor == SYSTEM else "evidence.given"
    entry = record(conn, action=action, actor=actor, subject=subject, detail={"evidence": entries})
    kept = [replace(each, audit_entry=entry) for each in fresh]
    for each in kept:
        evidence_store.insert_evidence(conn, each)
    return kept
