"""Exceptions from company rules: asked for by anybody, approved by somebody else, over by themselves or ended before.

Each change is one transaction with its entry in the audit log and a new number of live policy. Who may approve is the
API's to know; that nobody approves their own is decided here.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit.store import record
from groundplan.core.errors import Conflict, Denied, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.governance.policy import exception_store as store
from groundplan.governance.policy.exceptions_model import Exempted
from groundplan.identity.store import next_policy_number

LONGEST = timedelta(days=366)


def ask(
    conn: Connection[Any], actor: str, *, rule: str, workload: str, person: str, until: datetime, reason: str,
    now: datetime,
) -> Exempted:  # fmt: skip
    """Ask for an exception. Raises `Invalid` (`exception_until`, `reason`)."""
    if not now < until <= now + LONGEST:
        hint = "Name a time from now on, within a year."
        raise Invalid("an exception ends, and within a year", code="exception_until", hint=hint)
    if not reason.strip():
        raise Invalid("an exception needs a reason", code="reason", hint="Say why; whoever approves it reads it.")
    made = Exempted(new_id(), rule, workload, person, until, reason.strip(), actor, now)
    store.insert(conn, made)
    _record(conn, "policy.exception.asked", actor, made)
    return made


def decide(
    conn: Connection[Any], actor: str, id: UUID, *, approve: bool, reason: str, now: datetime, alone: bool = False
) -> int | None:
    """Approve or refuse; the number of the policy where it holds now. `alone`: separation of duties is not enforced.

    Raises `NotFound`, `Conflict` (`exception_decided`, `exception_lapsed`), `Denied` (`own_exception`).
    """
    number = next_policy_number(conn, "exception", str(id), False) if approve else None
    found = _found(conn, id)
    if found.state != "asked":
        raise Conflict(f"it is {found.state} already", code="exception_decided", hint="Ask for another one.")
    if found.until <= now:
        raise Conflict("its time is over", code="exception_lapsed", hint="Ask for another one.")
    if approve and found.asked_by == actor and not alone:
        hint = "Somebody else with the duty must approve it."
        raise Denied("nobody approves their own exception", code="own_exception", hint=hint)
    store.decide(conn, id, "approved" if approve else "refused", actor, reason.strip())
    _record(conn, "policy.exception.approved" if approve else "policy.exception.refused", actor, found, reason.strip())
    return number


def end(conn: Connection[Any], actor: str, id: UUID) -> int:
    """Withdraw an exception that holds, or that was asked for. Raises `NotFound`, `Conflict` (`exception_decided`)."""
    number = next_policy_number(conn, "exception", str(id), True)
    found = _found(conn, id)
    if found.state not in ("asked", "approved"):
        raise Conflict(f"it is {found.state} already", code="exception_decided", hint="Nothing is left to do.")
    store.end(conn, id, actor)
    _record(conn, "policy.exception.ended", actor, found)
    return number


def _found(conn: Connection[Any], id: UUID) -> Exempted:
    found = store.find(conn, id)
    if found is None:
        hint = "`groundplan policy exceptions` lists them."
        raise NotFound(f"there is no exception {id}", code="exception_unknown", hint=hint)
    return found


def _record(conn: Connection[Any], action: str, actor: str, made: Exempted, reason: str = "") -> None:
    detail = {
        "rule": made.rule, "workload": made.workload, "until": made.until.isoformat(), "for_one": bool(made.person),
        "reason": reason or made.reason,
    }  # fmt: skip
    record(conn, action=action, actor=actor, subject=f"exception/{made.id}", detail=detail)
