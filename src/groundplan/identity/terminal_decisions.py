"""Decisions from a command line: a decision is stored, a person confirms it in a browser where they signed in with a
passkey or at the company's sign-in, and only then the command line may make it, once.

With the operator's token one can only request it: what is confirmed is one decision about one content of one change,
shown to the person in words, with a code that their terminal shows. Nothing else can be done with it, and no session is
handed over. The decision itself is governance's.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit import record
from groundplan.core.audit.entry import person_actor
from groundplan.core.errors import Conflict, Denied, Exhausted, NotFound, Unavailable
from groundplan.core.ids import new_id
from groundplan.identity import terminal_decision_store
from groundplan.identity.model import Session, TerminalRequest
from groundplan.identity.sessions import hash_secret

LIFETIME = timedelta(minutes=10)
MAX_OPEN = 20
"""Requests of one caller that may wait at the same time."""
_LETTERS = "ABCDEFGHJKMNPQRSTVWXYZ23456789"


def request_decision(
    conn: Connection[Any], actor: str, change: UUID, digest: str, decision: str, comment: str, now: datetime
) -> tuple[TerminalRequest, str]:
    """Store a decision to be confirmed; returns the request and the secret with which the command line takes it.

    Raises `Exhausted` (`terminal_many`).
    """
    terminal_decision_store.delete_expired(conn, now - timedelta(days=1))
    if terminal_decision_store.count_open(conn, str(actor), now) >= MAX_OPEN:
        raise Exhausted(
            f"{MAX_OPEN} decisions wait to be confirmed already", code="terminal_many",
            hint="Confirm them, or wait ten minutes.", retry_after=LIFETIME.total_seconds(),
        )  # fmt: skip
    code = "".join(secrets.choice(_LETTERS) for _ in range(8))
    secret = secrets.token_urlsafe(32)
    request = TerminalRequest(
        new_id(), f"{code[:4]}-{code[4:]}", change, digest, decision, comment, str(actor), now, now + LIFETIME
    )
    terminal_decision_store.insert(conn, hash_secret(secret), request)
    return request, secret


def find_request(conn: Connection[Any], id: UUID, now: datetime, *, lock: bool = False) -> TerminalRequest:
    """The request to confirm. Raises `NotFound` (`terminal_unknown`), also for one that is used or has expired."""
    request = terminal_decision_store.find(conn, id, lock=lock)
    if request is None or request.expires_at <= now or request.used_at is not None:
        raise _unknown_error()
    return request


def confirm(conn: Connection[Any], id: UUID, session: Session, now: datetime) -> TerminalRequest:
    """Confirm a request as one's own. Raises `Denied` (`approval_unproven`), `Conflict` (`terminal_confirmed`)."""
    request = find_request(conn, id, now, lock=True)
    if session.person_id is None or session.acting_as is not None or not session.is_proven:
        raise Denied(
            "only whoever signed in with a passkey or at the company's sign-in confirms a decision",
            code="approval_unproven",
            hint="Sign in with your passkey, then open the link again.",
        )
    if request.confirmed_at is not None:
        raise Conflict("this was confirmed already", code="terminal_confirmed", hint="Look at your terminal.")
    terminal_decision_store.confirm(conn, id, session.person_id, session.proof, now)
    detail = {"change": str(request.change), "decision": request.decision, "digest": request.digest}
    record(
        conn, action="terminal.confirmed", actor=person_actor(session.person_id), subject=f"change/{request.change}",
        detail=detail, at=now,
    )  # fmt: skip
    return replace(request, person=session.person_id, proof=session.proof, confirmed_at=now)


def take_decision(conn: Connection[Any], id: UUID, secret: str, now: datetime) -> TerminalRequest:
    """Use a confirmed request up. Raises `NotFound` (`terminal_unknown`), `Unavailable` (`terminal_waits`) before it is
    confirmed."""
    request = terminal_decision_store.find_by_secret(conn, id, hash_secret(secret))
    if request is None or request.expires_at <= now or request.used_at is not None:
        raise _unknown_error()
    if request.person is None:
        raise Unavailable(
            "nobody has confirmed it yet", code="terminal_waits", hint="Open the link and confirm.", retry_after=1.0
        )
    terminal_decision_store.use(conn, id, now)
    return request


def _unknown_error() -> NotFound:
    return NotFound(
        "this was used, has expired or never existed", code="terminal_unknown", hint="Run the command again."
    )
