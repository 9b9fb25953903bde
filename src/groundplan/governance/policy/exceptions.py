"""Exceptions from company rules: changes of the kind `exception`, with the row that gateways read.

`governance.service` and `governance.approvals` approve, refuse and expire them as every change; here they are requested
and ended early. The API decides who may end one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.errors import Conflict, Invalid, NotFound
from groundplan.governance import service as governance
from groundplan.governance import store as changes
from groundplan.governance.model import ApprovalRequest
from groundplan.governance.policy import exception_store as store
from groundplan.governance.policy.exceptions_model import ExceptionRequest, PolicyException

KIND = "exception"
EVERYBODY = "everybody"
MAX_EXCEPTION_LENGTH = timedelta(days=366)


def request_exception(
    conn: Connection[Any], actor: str, wanted: ExceptionRequest, *, seats: int, now: datetime
) -> PolicyException:
    """Request an exception; the same request keeps its pending change.

    Raises `Invalid` (`exception_until`, `reason`), `Conflict` (`approved_already`).
    """
    if not now < wanted.until <= now + MAX_EXCEPTION_LENGTH:
        hint = "Name a time from now on, within a year."
        raise Invalid("an exception ends, and within a year", code="exception_until", hint=hint)
    reason = wanted.reason.strip()
    if not reason:
        raise Invalid("an exception needs a reason", code="reason", hint="Say why; whoever approves it reads it.")
    whom, email = (EVERYBODY, "") if wanted.person is None else (str(wanted.person.id), wanted.person.email)
    what = {"rule": wanted.rule, "until": wanted.until.astimezone(UTC).isoformat(), "person": whom}
    asked = ApprovalRequest(KIND, f"workload/{wanted.workload}", what, reason)
    change = governance.request_approval(conn, actor, asked, seats=seats, at=now)
    store.insert_exception(conn, change.id, wanted.rule, wanted.workload, email, wanted.until)
    return get_exception(conn, change.id)


def check_undecided(conn: Connection[Any], id: UUID, now: datetime) -> None:
    """Check that an exception can still be decided. Raises `NotFound`, `Conflict` (`exception_decided`,
    `exception_lapsed`)."""
    known = get_exception(conn, id)
    if known.state != "asked":
        raise Conflict(f"it is {known.state} already", code="exception_decided", hint="Ask for another one.")
    if known.until <= now:
        raise Conflict("its time is over", code="exception_lapsed", hint="Ask for another one.")


def end_exception(conn: Connection[Any], actor: str, id: UUID, now: datetime) -> int:
    """Withdraw an exception that is in force or requested; returns the number of the policy without it.

    Raises `NotFound`, `Conflict` (`exception_decided`).
    """
    known = get_exception(conn, id)
    if known.state not in ("asked", "approved"):
        raise Conflict(f"it is {known.state} already", code="exception_decided", hint="Nothing is left to do.")
    governance.withdraw_change(conn, actor, id, at=now)
    store.mark_ended(conn, id, actor)
    return changes.policy_number(conn)


def get_exception(conn: Connection[Any], id: UUID) -> PolicyException:
    """The exception with this id. Raises `NotFound` (`exception_unknown`)."""
    known = store.find_exception(conn, id)
    if known is None:
        hint = "`groundplan policy exceptions` lists them."
        raise NotFound(f"there is no exception {id}", code="exception_unknown", hint=hint)
    return known
