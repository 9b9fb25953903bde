"""Temporary rights: auditors, people on call, emergencies (break-glass) and tokens of programs; and who may lift a
stop.

All are recorded in the audit log. The policies of the API decide who may appoint, create tokens or lift. The rules here
apply to everybody: an emergency is short and reviewed by somebody else, a token expires, a stop is lifted by two
people.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit import record
from groundplan.core.errors import Conflict, Denied, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.identity import rights_store as store
from groundplan.identity.model import SCOPES, Appointment, Role, ServiceToken
from groundplan.identity.store import next_policy_number

EMERGENCY = timedelta(hours=1)
MAX_DURATION: dict[Role, timedelta] = {
    "auditor": timedelta(days=366), "on-call": timedelta(days=31), "emergency": EMERGENCY,
}  # fmt: skip
TOKEN_PREFIX = "gpt_"
MAX_TOKEN_LIFETIME = timedelta(days=366)


def appoint(
    conn: Connection[Any], actor: str, person_id: UUID, role: Role, reason: str, begins: datetime, ends: datetime
) -> Appointment:
    """Give a person a temporary right. Raises `Invalid` (`appointment_time`, `reason`)."""
    if not begins < ends <= begins + MAX_DURATION[role]:
        raise Invalid(
            f"{role} is for at most {MAX_DURATION[role].days or 1} {'days' if MAX_DURATION[role].days else 'hour'}",
            code="appointment_time",
            hint="Give an end; appoint again when it comes.",
        )
    if not reason.strip():
        raise Invalid("this needs a reason", code="reason", hint="Give a reason; it is kept in the audit log.")
    appointment = Appointment(new_id(), person_id, role, reason.strip(), begins, ends, actor)
    store.insert_appointment(conn, appointment)
    detail = {"role": role, "begins": begins.isoformat(), "ends": ends.isoformat(), "appointment": str(appointment.id)}
    record(conn, action="appointed", actor=actor, subject=f"person/{person_id}", detail=detail)
    return appointment


def break_glass(conn: Connection[Any], actor: str, person_id: UUID, reason: str, now: datetime) -> Appointment:
    """Take the rights to stop, roll back and read for an hour, for oneself; somebody else has to review it
    afterwards."""
    appointment = appoint(conn, actor, person_id, "emergency", reason, now, now + EMERGENCY)
    detail = {"reason": appointment.reason, "ends": appointment.ends.isoformat(), "appointment": str(appointment.id)}
    record(conn, action="emergency.begun", actor=actor, subject=f"person/{person_id}", detail=detail)
    return appointment


def end_appointment(conn: Connection[Any], actor: str, id: UUID, now: datetime) -> Appointment:
    """End an appointment early. Raises `NotFound` (`appointment_unknown`), `Conflict` (`appointment_over`)."""
    appointment = _get_appointment(conn, id)
    if not store.end_appointment(conn, id, actor, now):
        raise Conflict("this appointment is over", code="appointment_over", hint="Nothing is left to do.")
    record(
        conn, action="appointment.ended", actor=actor, subject=f"person/{appointment.person_id}", detail={"id": str(id)}
    )
    return _get_appointment(conn, id)


def review_emergency(
    conn: Connection[Any], actor: str, reviewer: UUID, id: UUID, text: str, now: datetime
) -> Appointment:
    """Record the review of an emergency that is over. Raises `Denied` (`self_review`), `Conflict`
    (`not_reviewable`)."""
    appointment = _get_appointment(conn, id)
    if appointment.person_id == reviewer:
        raise Denied("nobody may review their own emergency", code="self_review", hint="Ask security or compliance.")
    if (
        appointment.role != "emergency"
        or not appointment.is_over(now)
        or not store.save_emergency_review(conn, id, actor, text, now)
    ):
        raise Conflict("there is no emergency here to review", code="not_reviewable", hint="Wait until it is over.")
    record(
        conn,
        action="emergency.reviewed",
        actor=actor,
        subject=f"person/{appointment.person_id}",
        detail={"id": str(id)},
    )
    return _get_appointment(conn, id)


def create_token(
    conn: Connection[Any], actor: str, name: str, scopes: Sequence[str], now: datetime, expires: datetime
) -> tuple[ServiceToken, str]:
    """Create a token; returns (token, its secret, shown once).

    Raises `Invalid` (`token_scope`, `token_expiry`), `Conflict` (`already_left`) if its maker is just leaving: they
    would know the secret of a token that nobody revokes.
    """
    unknown_scopes = sorted(set(scopes) - SCOPES)
    if unknown_scopes or not scopes:
        raise Invalid(
            f"not a scope of a token: {', '.join(unknown_scopes) or 'none given'}",
            code="token_scope",
            hint=f"Scopes are {', '.join(sorted(SCOPES))}; a token never approves.",
        )
    if not now < expires <= now + MAX_TOKEN_LIFETIME:
        raise Invalid("a token ends within a year", code="token_expiry", hint="Give an end; make a new one then.")
    if not store.is_present_or_program(conn, actor):
        raise Conflict("you have left", code="already_left", hint="Ask a colleague to create it.")
    secret = f"{TOKEN_PREFIX}{secrets.token_urlsafe(32)}"
    token = ServiceToken(new_id(), name, tuple(sorted(set(scopes))), now, actor, expires)
    store.insert_token(conn, token, _hash(secret))
    detail = {"scopes": list(token.scopes), "expires": expires.isoformat()}
    record(conn, action="token.created", actor=actor, subject=f"token/{token.id}", detail=detail)
    return token, secret


def find_token(conn: Connection[Any], secret: str, now: datetime) -> ServiceToken | None:
    """The token with this secret; None if it is unknown, revoked or expired."""
    return store.use_token(conn, _hash(secret), now)


def revoke_token(conn: Connection[Any], actor: str, id: UUID, now: datetime) -> None:
    """End a token at once. Raises `NotFound` (`token_unknown`)."""
    if not store.revoke_token(conn, id, actor, now):
        raise NotFound("there is no such token", code="token_unknown", hint="List them: `groundplan tokens list`.")
    record(conn, action="token.revoked", actor=actor, subject=f"token/{id}", detail={})


def confirm_lift(conn: Connection[Any], actor: str, scope: str, reason: str, *, proven: bool, alone: bool) -> bool:
    """Record that `actor` wants a stopped scope to run again; returns whether it may now, otherwise a second person has
    to request it.

    Two different people who both proved their presence (`proven`) are needed, since the operator's token allows
    requests in anybody's name. One is enough if `alone`: in a company of one person, in a demo, or while nobody can
    prove to be present.
    """
    next_policy_number(conn, "lift", scope, False)  # locks before requests are read, as stopping and leaving do
    before = store.lift_wish(conn, scope)
    if alone or (before is not None and before[0] != actor and before[1] and proven):
        store.delete_lift_wish(conn, scope)
        return True
    if before is None or before[0] == actor or not before[1]:
        store.save_lift_wish(conn, scope, actor, proven, reason)
    detail = {"reason": reason, "waits": True}
    record(conn, action="kill.lift_asked", actor=actor, subject=scope, detail=detail)
    return False


def _get_appointment(conn: Connection[Any], id: UUID) -> Appointment:
    appointment = store.find_appointment(conn, id)
    if appointment is None:
        raise NotFound("there is no such appointment", code="appointment_unknown", hint="GET /api/appointments.")
    return appointment


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
