"""Exceptions from company rules: changes of the kind `exception`, with what gateways ask of them beside.

Approving, refusing, reminding and their end are `governance.service`'s, as of every change; here is what is asked for,
and its end before time. Who may end one is the API's to know.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.errors import Conflict, Invalid, NotFound
from groundplan.governance import service as governance
from groundplan.governance import store as changes
from groundplan.governance.model import Asked
from groundplan.governance.policy import exception_store as store
from groundplan.governance.policy.exceptions_model import ExceptionRequest, Exempted

KIND = "exception"
EVERYBODY = "everybody"
LONGEST = timedelta(days=366)


def ask(conn: Connection[Any], actor: str, wanted: ExceptionRequest, *, seats: int, now: datetime) -> Exempted:
    """Ask for an exception. The same one is asked for once.

    Raises `Invalid` (`exception_until`, `reason`), `Conflict` (`approved_already`).
    """
    if not now < wanted.until <= now + LONGEST:
        hint = "Name a time from now on, within a year."
        raise Invalid("an exception ends, and within a year", code="exception_until", hint=hint)
    reason = wanted.reason.strip()
    if not reason:
        raise Invalid("an exception needs a reason", code="reason", hint="Say why; whoever approves it reads it.")
    whom, email = (EVERYBODY, "") if wanted.person is None else (str(wanted.person.id), wanted.person.email)
    what = {"rule": wanted.rule, "until": wanted.until.astimezone(UTC).isoformat(), "person": whom}
    asked = Asked(KIND, f"workload/{wanted.workload}", what, reason)
    change = governance.ask(conn, actor, asked, seats=seats, at=now)
    store.insert(conn, change.id, wanted.rule, wanted.workload, email, wanted.until)
    return found(conn, change.id)


def check_open(conn: Connection[Any], id: UUID, now: datetime) -> None:
    """Raises `NotFound`, `Conflict` (`exception_decided`, `exception_lapsed`) for one that can no longer be decided."""
    known = found(conn, id)
    if known.state != "asked":
        raise Conflict(f"it is {known.state} already", code="exception_decided", hint="Ask for another one.")
    if known.until <= now:
        raise Conflict("its time is over", code="exception_lapsed", hint="Ask for another one.")


def end(conn: Connection[Any], actor: str, id: UUID, now: datetime) -> int:
    """Withdraw one that holds, or that was asked for; the number of the policy without it.

    Raises `NotFound`, `Conflict` (`exception_decided`).
    """
    known = found(conn, id)
    if known.state not in ("asked", "approved"):
        raise Conflict(f"it is {known.state} already", code="exception_decided", hint="Nothing is left to do.")
    governance.end(conn, actor, id, at=now)
    store.ended(conn, id, actor)
    return changes.policy_number(conn)


def found(conn: Connection[Any], id: UUID) -> Exempted:
    """Raises `NotFound` (`exception_unknown`)."""
    known = store.find(conn, id)
    if known is None:
        hint = "`groundplan policy exceptions` lists them."
        raise NotFound(f"there is no exception {id}", code="exception_unknown", hint=hint)
    return known
