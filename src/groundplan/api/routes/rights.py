"""Temporary rights, emergency rights, service tokens, and access reviews."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from psycopg import Connection
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.actor_names import load_names
from groundplan.api.caller import Caller, Reader, SignedIn
from groundplan.api.context import Services, ServicesDep
from groundplan.api.mail import store as mail_store
from groundplan.api.people import find_person_id
from groundplan.api.watch import access_rights
from groundplan.core.audit import record
from groundplan.core.errors import Denied, Invalid
from groundplan.governance import store as governance
from groundplan.identity import responsibilities, rights, rights_store
from groundplan.identity import store as people
from groundplan.identity.model import COMPANY, SCOPES, Appointment, ServiceToken

router = protected_router("rights")
Reason = Annotated[str, StringConstraints(min_length=3, max_length=500)]
REVIEW_EVERY = timedelta(days=90)
MAX_AHEAD = timedelta(days=366)
RIGHTS_PAGE = "/governance/rights"


class NewAppointment(BaseModel):
    """A temporary right of a person; it starts now unless `begins` is later."""

    model_config = ConfigDict(extra="forbid")
    person: Annotated[str, StringConstraints(min_length=1, max_length=320)]
    role: Literal["auditor", "on-call"]
    days: Annotated[float, Field(gt=0, le=366)]
    begins: AwareDatetime | None = None
    reason: Reason


class ReasonBody(BaseModel):
    """A reason."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason


class NewToken(BaseModel):
    """A new service token for a program."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, StringConstraints(min_length=1, max_length=80)]
    scopes: Annotated[list[Annotated[str, StringConstraints(max_length=20)]], Field(min_length=1, max_length=20)]
    days: Annotated[int, Field(ge=1, le=366)] = 90


class AccessReviewBody(BaseModel):
    """The result of an access review. `removed` lists the rights that were taken away, as text."""

    model_config = ConfigDict(extra="forbid")
    removed: Annotated[list[Annotated[str, StringConstraints(max_length=200)]], Field(max_length=500)] = []
    comment: Reason


@router.get("/appointments")
def list_appointments(services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """List temporary rights, newest first: auditors, people on call, emergencies."""
    with services.transaction() as conn:
        listed = rights_store.appointments(conn)
        return {"appointments": [_json(conn, caller, services, appointment) for appointment in listed]}


@router.post("/appointments", status_code=201)
def appoint(body: NewAppointment, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Appoint an auditor (may read everything, changes nothing) or a person on call (may stop and roll back alone)."""
    now = services.clock.now()
    begins = now if body.begins is None else max(body.begins, now)
    if begins - now > MAX_AHEAD:
        raise Invalid(
            f"an appointment begins within {MAX_AHEAD.days} days",
            code="appointment_time",
            hint="Appoint when it is nearer.",
        )
    with services.transaction() as conn:
        person_id = find_person_id(conn, body.person)
        if person_id == caller.person:
            raise Denied("nobody may appoint themselves", code="self_appointment", hint="Ask a colleague.")
        ends = begins + timedelta(days=body.days)
        appointment = rights.appoint(conn, caller.actor, person_id, body.role, body.reason, begins, ends)
        return _json(conn, caller, services, appointment)


@router.post("/appointments/{appointment}/end")
def end_appointment(appointment: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """End a temporary right early."""
    with services.transaction() as conn:
        ended = rights.end_appointment(conn, caller.actor, appointment, services.clock.now())
        access_rights.update_rights_findings(conn, services.clock.now())
        return _json(conn, caller, services, ended)


@router.post("/emergency", status_code=201)
def break_glass(body: ReasonBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Take emergency rights to stop and roll back, for an hour. Holders of the duties security and compliance are
    notified at once, and somebody else has to review it afterwards. Not available to people who are only auditors."""
    duties = {duty for _, duty in caller.duties} - {"auditor", "emergency"}
    if caller.person is None or not duties or not caller.proven:
        raise Denied(
            "an emergency needs a person with a duty, signed in with a passkey or at the company's sign-in",
            code="proof_missing",
            hint="Sign in that way, or ask the operator, who can stop with `groundplan kill`.",
        )
    now = services.clock.now()
    with services.transaction() as conn:
        emergency = rights.break_glass(conn, caller.actor, caller.person, body.reason, now)
        for duty in ("security", "compliance"):
            for holder in governance.holders(conn, COMPANY, duty):
                text = f"{caller.name} took emergency rights for an hour"
                mail_store.queue_mail(
                    conn, f"emergency:{emergency.id}:{holder.person_id}", holder.person_id, text, RIGHTS_PAGE, now
                )
        access_rights.update_rights_findings(conn, now)
        return _json(conn, caller, services, emergency)


@router.post("/appointments/{appointment}/review")
def review_emergency(appointment: UUID, body: ReasonBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Record the review of an emergency that is over; nobody reviews their own."""
    if caller.person is None:
        raise Denied("only a person may review", code="person_only", hint="Sign in as yourself.")
    now = services.clock.now()
    with services.transaction() as conn:
        reviewed = rights.review_emergency(conn, caller.actor, caller.person, appointment, body.reason, now)
        access_rights.update_rights_findings(conn, now)
        return _json(conn, caller, services, reviewed)


@router.get("/tokens")
def list_tokens(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List service tokens, without their secrets; `state` is active, revoked or expired."""
    now = services.clock.now()
    with services.transaction() as conn:
        listed = rights_store.tokens(conn)
    return {
        "tokens": [
            {
                "id": str(token.id), "name": token.name, "scopes": token.scopes, "created_at": token.created_at,
                "created_by": token.created_by, "expires_at": token.expires_at, "revoked_at": token.revoked_at,
                "used_at": token.used_at, "state": _state(token, now),
            }
            for token in listed
        ]
    }  # fmt: skip


def _state(token: ServiceToken, now: datetime) -> str:
    return "revoked" if token.revoked_at is not None else "expired" if token.expires_at <= now else "active"


@router.post("/tokens", status_code=201)
def create_token(body: NewToken, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Create a service token. Only this response contains its secret. A token never approves, and has no rights that
    its creator does not have for the whole company, except managing people and groups as a directory (`scim`)."""
    authorize(caller, "people", COMPANY)
    for scope in body.scopes:
        if scope in SCOPES - {"scim"}:
            authorize(caller, scope, COMPANY)
    now = services.clock.now()
    with services.transaction() as conn:
        ends = now + timedelta(days=body.days)
        token, secret = rights.create_token(conn, caller.actor, body.name, body.scopes, now, ends)
    return {"id": str(token.id), "token": secret, "scopes": token.scopes, "expires_at": token.expires_at}


@router.delete("/tokens/{token}")
def revoke_token(token: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Revoke a service token at once."""
    authorize(caller, "people", COMPANY)
    with services.transaction() as conn:
        rights.revoke_token(conn, caller.actor, token, services.clock.now())
    return {"id": str(token), "revoked": True}


@router.get("/access-review")
def access_review(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The rights of all people, when they were last reviewed, and when the next review is due."""
    now = services.clock.now()
    with services.transaction() as conn:
        last = rights_store.last_access_review(conn)
        return {
            "rights": responsibilities.all_responsibilities(conn, now),
            "last_at": None if last is None else last[0],
            "last_by": None if last is None else last[1],
            "due": access_rights.next_review_day(conn),
        }


@router.post("/access-review", status_code=201)
def record_access_review(body: AccessReviewBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Record a review of all rights, and store these with it; the next one is due in `REVIEW_EVERY`."""
    now = services.clock.now()
    with services.transaction() as conn:
        responsibilities_now = responsibilities.all_responsibilities(conn, now)
        next_review = (now + REVIEW_EVERY).date()
        id = rights_store.insert_access_review(
            conn, caller.actor, responsibilities_now, body.removed, body.comment, now, next_review
        )
        detail = {"people": len(responsibilities_now), "removed": len(body.removed), "next": next_review.isoformat()}
        record(conn, action="access.reviewed", actor=caller.actor, subject=f"access-review/{id}", detail=detail)
        access_rights.update_rights_findings(conn, now)
    return {"id": str(id), "next": next_review}


@router.get("/people/{person}/holdings")
def holdings_of(person: str, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Everything that depends on a person: duties, groups, keys, passkeys, sessions, temporary rights, pending
    approvals."""
    with services.transaction() as conn:
        person_id = find_person_id(conn, person)
        return responsibilities.responsibilities_of(conn, person_id, services.clock.now())


def _json(conn: Connection[Any], caller: Caller, services: Services, appointment: Appointment) -> dict[str, Any]:
    owner = people.person(conn, appointment.person_id)
    names = load_names(
        conn, caller, [appointment.made_by, *([appointment.reviewed_by] if appointment.reviewed_by else [])]
    )
    return {
        "id": str(appointment.id),
        "person": None if owner is None else owner.email,
        "name": None if owner is None else owner.name,
        "role": appointment.role,
        "reason": appointment.reason,
        "begins": appointment.begins,
        "ends": appointment.ends,
        "made_by": names.of(appointment.made_by),
        "active": appointment.begins <= services.clock.now() and not appointment.is_over(services.clock.now()),
        "ended_at": appointment.ended_at,
        "reviewed_at": appointment.reviewed_at,
        "reviewed_by": None if appointment.reviewed_by is None else names.of(appointment.reviewed_by),
        "review": appointment.review,
    }
