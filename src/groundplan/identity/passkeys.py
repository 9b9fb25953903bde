"""Passkeys (WebAuthn), by which a person proves presence: with the operator's token alone nobody can act as a person.

Trust is passed from person to person. The first passkey of a company is valid at once. A later one that was registered
after a link of the operator waits until another person with a proven session confirms it; if nobody else could, it
becomes valid after `WAITING_PERIOD`, announced in everybody's inbox. A person who signed in with a valid passkey may
add others at once. The protocol is implemented by `fido2`. This module knows neither HTTP nor who may approve what.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit import person_actor, record
from groundplan.core.errors import Conflict, Denied, Invalid, NotFound, Unauthenticated
from groundplan.identity import passkey_store, sessions, store
from groundplan.identity.model import Passkey, Person, Proof, Session

if TYPE_CHECKING:
    from fido2.server import Fido2Server

WAITING_PERIOD = timedelta(hours=72)
CEREMONY_LIFETIME = timedelta(minutes=5)
LABEL_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Site:
    """The domain that passkeys are bound to, and the one origin that browsers must name."""

    domain: str
    origin: str
    name: str = "Groundplan"


def begin_enrol(conn: Connection[Any], site: Site, session: Session, now: datetime) -> dict[str, Any]:
    """`{"ceremony", "options"}` for `navigator.credentials.create`. Raises `Denied` (`person_only`)."""
    person = _person_of(conn, session)
    credentials = [_credential_data(key) for key in passkey_store.list_passkeys(conn, person.id)]
    options, state = _server(site).register_begin(
        {"id": person.id.bytes, "name": person.email, "displayName": person.name},  # type: ignore[arg-type]
        credentials=credentials,
        resident_key_requirement=_requirement("ResidentKeyRequirement", "required"),
        user_verification=_requirement("UserVerificationRequirement", "required"),
    )
    return {"ceremony": _save_ceremony(conn, "enrol", person.id, state, now), "options": dict(options)["publicKey"]}


def finish_enrol(
    conn: Connection[Any], site: Site, session: Session, given: Mapping[str, Any], now: datetime
) -> tuple[Passkey, Proof]:
    """Register the passkey of `given` (`ceremony`, `response`, `label`); returns it and the proof that it provides now.

    Raises `Invalid` (`passkey_refused`, `ceremony`), `Conflict` (`passkey_known`), `Denied` (`person_only`).
    """
    person = _person_of(conn, session)
    ceremony_person, state = _take_ceremony(conn, str(given["ceremony"]), "enrol", now)
    if ceremony_person != person.id:
        raise _expired_ceremony_error()
    try:
        data = _server(site).register_complete(state, given["response"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _refused_error(error) from error
    material = data.credential_data
    if material is None:
        raise _refused_error(ValueError("no credential"))
    key = Passkey(
        bytes(material.credential_id), person.id, bytes(material), data.counter, _label(given.get("label")), now,
        sessions.session_actor(session), None, *_initial_confirmation(conn, session, person, now),
    )  # fmt: skip
    if not passkey_store.insert(conn, key):
        raise Conflict("this passkey is registered already", code="passkey_known", hint="Sign in with it.")
    detail = {"passkey": hex_id(key), "confirmed_by": key.confirmed_by, "after": session.proof}
    record(conn, action="passkey.added", actor=sessions.actor_of(session), subject=_subject(person.id), detail=detail)
    return key, _proof(key, now)


def begin_sign_in(conn: Connection[Any], site: Site, now: datetime) -> dict[str, Any]:
    """`{"ceremony", "options"}` for `navigator.credentials.get`. It reveals nothing about registered people."""
    required = _requirement("UserVerificationRequirement", "required")
    options, state = _server(site).authenticate_begin(user_verification=required)
    return {"ceremony": _save_ceremony(conn, "passkey", None, state, now), "options": dict(options)["publicKey"]}


def finish_sign_in(
    conn: Connection[Any], site: Site, given: Mapping[str, Any], now: datetime, agent: str = ""
) -> tuple[str, Proof]:
    """Begin a session of the passkey's person; returns (secret for its cookie, proof).

    Raises `Unauthenticated` (`passkey` for every reason, except for a copied passkey: `passkey_copied`), `Invalid`
    (`ceremony`).
    """
    _, state = _take_ceremony(conn, str(given["ceremony"]), "passkey", now)
    response = given["response"]
    key = passkey_store.find_passkey(conn, _raw_id(response))
    person = None if key is None else store.person(conn, key.person_id)
    if key is None or person is None or not person.active:
        raise _unknown_passkey_error()
    try:
        _server(site).authenticate_complete(state, [_credential_data(key)], response)
        counter = _sign_counter(response)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _unknown_passkey_error() from error
    if (counter or key.sign_count) and counter <= key.sign_count:
        raise Unauthenticated(
            "this passkey was used somewhere else since: it may have been copied",
            code="passkey_copied",
            hint="Remove it (your other passkeys can), and tell security.",
        )
    passkey_store.record_use(conn, key.id, counter, now)
    proof = _proof(key, now)
    return sessions.begin(conn, key.person_id, proof, now, agent), proof


def confirm(conn: Connection[Any], session: Session, passkey_id: bytes, now: datetime) -> Passkey:
    """Confirm another person's passkey. Raises `NotFound`, `Denied` (`self_confirmation`, `proof_missing`), `Conflict`
    (`passkey_confirmed`)."""
    key = _get_passkey(conn, passkey_id)
    if not session.is_proven or session.acting_as is not None:
        raise Denied(
            "only somebody who signed in with a passkey or at the company's sign-in may confirm others",
            code="proof_missing",
            hint="Sign in with your passkey.",
        )
    if session.person_id == key.person_id:
        raise Denied("nobody may confirm their own passkey", code="self_confirmation", hint="Ask a colleague.")
    actor = sessions.actor_of(session)
    if not passkey_store.confirm(conn, key.id, actor, now):
        raise Conflict("this passkey is confirmed already", code="passkey_confirmed", hint="Nothing is left to do.")
    detail = {"passkey": hex_id(key)}
    record(conn, action="passkey.confirmed", actor=actor, subject=_subject(key.person_id), detail=detail)
    return _get_passkey(conn, passkey_id)


def remove(conn: Connection[Any], actor: str, passkey_id: bytes, now: datetime) -> Passkey:
    """Remove a passkey and end the sessions of its person. The caller checks who may do so. Raises `NotFound`."""
    key = _get_passkey(conn, passkey_id)
    passkey_store.remove(conn, key.id, actor, now)
    detail = {"passkey": hex_id(key)}
    record(conn, action="passkey.removed", actor=actor, subject=_subject(key.person_id), detail=detail)
    sessions.end_all_sessions(conn, key.person_id)
    return key


def hex_id(key: Passkey) -> str:
    """The id in hexadecimal, as lists, routes and the log name it."""
    return key.id.hex()


def _initial_confirmation(
    conn: Connection[Any], session: Session, person: Person, now: datetime
) -> tuple[datetime | None, str | None, datetime | None]:
    """(confirmed at, confirmed by, waits until) of a passkey that is registered in this session."""
    if session.is_proven:
        return now, person_actor(person.id), None
    if not passkey_store.was_ever_confirmed(conn) and not passkey_store.others_have_proof(conn, person.id):
        return now, "founding", None
    return None, None, None if passkey_store.others_have_proof(conn, person.id) else now + WAITING_PERIOD


def _proof(key: Passkey, now: datetime) -> Proof:
    return "passkey" if key.is_valid(now) else "unconfirmed"


def _person_of(conn: Connection[Any], session: Session) -> Person:
    person = None if session.person_id is None else store.person(conn, session.person_id)
    if person is None or session.acting_as is not None:
        raise Denied(
            "passkeys belong to people: the local operator has none",
            code="person_only",
            hint="Sign in as yourself: `groundplan login --as E-MAIL`.",
        )
    return person


def _get_passkey(conn: Connection[Any], passkey_id: bytes) -> Passkey:
    key = passkey_store.find_passkey(conn, passkey_id)
    if key is None:
        raise NotFound("there is no such passkey", code="passkey_unknown", hint="GET /api/passkeys lists them.")
    return key


def _server(site: Site) -> Fido2Server:
    from fido2.server import Fido2Server  # noqa: PLC0415 -- heavy: only who signs in needs it
    from fido2.webauthn import PublicKeyCredentialRpEntity  # noqa: PLC0415

    entity = PublicKeyCredentialRpEntity(name=site.name, id=site.domain)
    return Fido2Server(entity, verify_origin=lambda origin: origin == site.origin)


def _requirement(kind: str, value: str) -> Any:
    from fido2 import webauthn  # noqa: PLC0415 -- heavy

    return getattr(webauthn, kind)(value)


def _credential_data(key: Passkey) -> Any:
    from fido2.webauthn import AttestedCredentialData  # noqa: PLC0415 -- heavy

    return AttestedCredentialData(key.material)


def _sign_counter(response: Any) -> int:
    from fido2.webauthn import AuthenticationResponse  # noqa: PLC0415 -- heavy

    return int(AuthenticationResponse.from_dict(response).response.authenticator_data.counter)


def _raw_id(response: Any) -> bytes:
    from fido2.utils import websafe_decode  # noqa: PLC0415 -- heavy

    try:
        return websafe_decode(response["rawId"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unknown_passkey_error() from error


def _save_ceremony(
    conn: Connection[Any], kind: str, person_id: UUID | None, state: dict[str, Any], now: datetime
) -> str:
    name = secrets.token_urlsafe(32)
    stored = {key: str(getattr(value, "value", value)) for key, value in state.items()}
    passkey_store.insert_ceremony(
        conn, hashlib.sha256(name.encode()).digest(), kind, person_id, stored, now + CEREMONY_LIFETIME
    )
    return name


def _take_ceremony(conn: Connection[Any], name: str, kind: str, now: datetime) -> tuple[UUID | None, Any]:
    hash = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    ceremony = passkey_store.use_ceremony(conn, hash, kind, now)
    if ceremony is None:
        raise _expired_ceremony_error()
    return ceremony


def _label(value: object) -> str:
    text = str(value or "").strip()
    return text[:LABEL_CHARACTERS] or "passkey"


def _subject(person_id: UUID) -> str:
    return f"person/{person_id}"


def _expired_ceremony_error() -> Invalid:
    return Invalid("this request has expired, or was answered already", code="ceremony", hint="Start again.")


def _refused_error(error: Exception) -> Invalid:
    return Invalid(f"the passkey was not accepted: {error}", code="passkey_refused", hint="Start again on this page.")


def _unknown_passkey_error() -> Unauthenticated:
    return Unauthenticated(
        "this passkey is not registered here",
        code="passkey",
        hint="Use a passkey that you registered here, or ask the operator for a link: `groundplan login --as E-MAIL`.",
    )
