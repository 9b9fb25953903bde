"""Passkeys and sessions: registration, sign-in, confirmation of a colleague's passkey, and ending sessions."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request, Response
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api.access.authorization import company_duties
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, SignedIn, is_remote
from groundplan.api.context import Services, ServicesDep
from groundplan.api.mail import store as mail_store
from groundplan.api.people import find_person_id
from groundplan.api.routes.session import set_session_cookie
from groundplan.api.watch import unconfirmed_passkeys
from groundplan.core.errors import Denied, Invalid
from groundplan.identity import passkey_store, passkeys, session_store, sessions
from groundplan.identity import store as people
from groundplan.identity.model import DUTIES, Passkey, Session
from groundplan.identity.passkeys import Site

router = protected_router("session")
Hex = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}){1,1023}$")]


class CredentialBody(BaseModel):
    """The browser's answer to the `options` of a ceremony. `response` is the credential in WebAuthn's JSON form."""

    model_config = ConfigDict(extra="forbid")
    ceremony: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    response: Annotated[dict[str, Any], Field(max_length=20)]


class RegistrationBody(CredentialBody):
    """A new passkey. `label` is the owner's name for it."""

    label: Annotated[str, StringConstraints(max_length=passkeys.LABEL_CHARACTERS)] = ""


def passkey_site(request: Request, services: Services) -> Site:
    """The site that a passkey of this request is bound to. Raises `Invalid` (`passkey_host`) for a bare IP address."""
    url = services.settings.console_url
    host = request.url.hostname or ""
    if url is not None and is_remote(request, url):
        return Site(host, url)
    if host != "localhost":
        raise Invalid(
            "passkeys are bound to a host name, and this is a bare address",
            code="passkey_host",
            hint=f"Open http://localhost:{request.url.port or 80} instead.",
        )
    return Site(host, f"http://{request.url.netloc}")


@router.post("/sign-in/passkey/options")
def sign_in_options(request: Request, services: ServicesDep) -> dict[str, Any]:
    """Options for signing in with a passkey. Needs no authentication, and discloses nothing about registered people."""
    with services.transaction() as conn:
        return passkeys.begin_sign_in(conn, passkey_site(request, services), services.clock.now())


@router.post("/sign-in/passkey")
def sign_in(body: CredentialBody, request: Request, response: Response, services: ServicesDep) -> dict[str, Any]:
    """Sign in with a passkey; the response sets the session cookie."""
    agent = request.headers.get("user-agent", "")
    with services.transaction() as conn:
        secret, proof = passkeys.finish_sign_in(
            conn, passkey_site(request, services), body.model_dump(), services.clock.now(), agent
        )
    set_session_cookie(response, request, services, secret)
    return {"signed_in": True, "proof": proof}


@router.post("/passkeys/registration")
def registration_options(request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Options for creating a passkey for the caller."""
    with services.transaction() as conn:
        return passkeys.begin_enrol(
            conn, passkey_site(request, services), require_session(caller), services.clock.now()
        )


@router.post("/passkeys", status_code=201)
def register_passkey(
    body: RegistrationBody, request: Request, response: Response, services: ServicesDep, caller: SignedIn
) -> dict[str, Any]:
    """Register a new passkey of the caller. `confirmed` says whether it already proves their identity; otherwise a
    colleague has to confirm it.

    The session is replaced by a session of this passkey, with a new cookie.
    """
    session, now = require_session(caller), services.clock.now()
    with services.transaction() as conn:
        key, proof = passkeys.finish_enrol(conn, passkey_site(request, services), session, body.model_dump(), now)
        if caller.session is not None:
            session_store.end_session(conn, sessions.hash_secret(caller.session), now)
        new_proof = session.proof if session.is_proven else proof
        secret = sessions.begin(conn, session.person_id, new_proof, now, request.headers.get("user-agent", ""))
        unconfirmed_passkeys.update_passkey_findings(conn, now)
        text = "A passkey was registered in your name; if it was not you, remove it there and tell security"
        mail_store.queue_mail(conn, f"passkey:{passkeys.hex_id(key)[:64]}", key.person_id, text, "/you", now)
        shown = _json(conn, key)
    set_session_cookie(response, request, services, secret)
    return shown


@router.get("/passkeys")
def list_passkeys(services: ServicesDep, caller: SignedIn, waiting: Annotated[bool, Query()] = False) -> dict[str, Any]:
    """List the caller's passkeys, or with `waiting` the passkeys of all people that wait for confirmation."""
    with services.transaction() as conn:
        if waiting:
            listed = passkey_store.list_unconfirmed(conn) if caller.operator or caller.duties else []
        else:
            listed = [] if caller.person is None else passkey_store.list_passkeys(conn, caller.person)
        return {"passkeys": [_json(conn, key) for key in listed]}


@router.post("/passkeys/{passkey}/confirm")
def confirm_passkey(passkey: Hex, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Confirm a colleague's passkey, after asking them in person: everything that they approve depends on it. Requires
    a proven session and a duty for the company."""
    now = services.clock.now()
    with services.transaction() as conn:
        _require_confirmer(conn, caller, bytes.fromhex(passkey))
        key = passkeys.confirm(conn, require_session(caller), bytes.fromhex(passkey), now)
        unconfirmed_passkeys.update_passkey_findings(conn, now)
        return _json(conn, key)


@router.delete("/passkeys/{passkey}")
def remove_passkey(passkey: Hex, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Remove a passkey and end the sessions of its person. Permitted for the person and for holders of the duty
    security."""
    now = services.clock.now()
    with services.transaction() as conn:
        key = passkey_store.find_passkey(conn, bytes.fromhex(passkey))
        if key is not None and key.person_id != caller.person and not _may_end(conn, caller):
            raise _not_yours_error()
        removed = passkeys.remove(conn, caller.actor, bytes.fromhex(passkey), now)
        unconfirmed_passkeys.update_passkey_findings(conn, now)
        return _json(conn, removed)


@router.get("/sessions")
def list_sessions(services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """List the caller's open sessions; `current` marks the one of this request."""
    if caller.browser_session is None:
        return {"sessions": []}
    with services.transaction() as conn:
        open_sessions = session_store.open_sessions(conn, caller.browser_session.person_id, services.clock.now())
    return {
        "sessions": [
            {
                "id": str(session.id),
                "proof": session.proof,
                "agent": session.agent,
                "created_at": session.created_at,
                "expires_at": session.expires_at,
                "current": session.id == caller.browser_session.id,
            }
            for session in open_sessions
        ]
    }


@router.delete("/sessions/{session_id}")
def end_session(session_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """End one of the caller's sessions at once."""
    session = require_session(caller)
    with services.transaction() as conn:
        sessions.revoke_session(conn, caller.actor, session_id, session.person_id, services.clock.now())
    return {"session": str(session_id), "ended": True}


@router.post("/people/{person}/sign-out")
def sign_out_person(person: str, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """End all sessions of a person at once. Permitted for the person and for holders of the duty security."""
    own = caller.email is not None and person.strip().lower() in (caller.email, caller.email.partition("@")[0])
    with services.transaction() as conn:
        may_end = _may_end(conn, caller)
        if not own and not may_end:  # checked before the look-up, which would disclose who exists
            raise _not_yours_error()
        person_id = find_person_id(conn, person)
        if person_id != caller.person and not may_end:
            raise _not_yours_error()
        sessions.sign_out_everywhere(conn, caller.actor, person_id)
    return {"person": person, "ended": True}


def require_session(caller: Caller) -> Session:
    """The caller's browser session. Raises `Denied` (`session_only`) for a token."""
    if caller.browser_session is None:
        raise Denied("a token has no session", code="session_only", hint="Sign in with a browser.")
    return caller.browser_session


def _require_confirmer(conn: Connection[Any], caller: Caller, passkey: bytes) -> None:
    """Raise `Denied` (`duty_missing`) unless the caller holds a duty for the company. Any duty is enough if nobody else
    could confirm the passkey, which would otherwise never be confirmed."""
    duties = {duty for _, duty in caller.duties} & set(DUTIES)
    if duties & company_duties(conn, caller):
        return
    key = passkey_store.find_passkey(conn, passkey) if duties else None
    if key is None or passkey_store.others_can_confirm(conn, key.person_id):
        raise Denied(
            "you hold no duty of the company" if duties else "you hold no duty here", code="duty_missing",
            hint="Ask somebody who holds a duty for the company to confirm it.",
        )  # fmt: skip


def _may_end(conn: Connection[Any], caller: Caller) -> bool:
    return caller.operator or "security" in company_duties(conn, caller)


def _not_yours_error() -> Denied:
    return Denied("this belongs to somebody else", code="not_yours", hint="Somebody with the duty security may end it.")


def _json(conn: Connection[Any], key: Passkey) -> dict[str, Any]:
    owner = people.person(conn, key.person_id)
    return {
        "id": passkeys.hex_id(key),
        "person": None if owner is None else owner.email,
        "name": None if owner is None else owner.name,
        "label": key.label,
        "created_at": key.created_at,
        "created_by": key.created_by,
        "used_at": key.used_at,
        "confirmed": key.confirmed_at is not None,
        "confirmed_at": key.confirmed_at,
        "confirmed_by": key.confirmed_by,
        "waits_until": key.waits_until,
    }
