"""Passkeys (WebAuthn): how a person proves to be there, so that the operator's token alone is nobody's signature.

Trust is handed on from person to person. The first passkey of a company founds it. Every later one that was registered
after a link of the operator waits until somebody else, who has a proven session, confirms it; where nobody else could,
it waits `WAITING` in everybody's inbox. Who signed in by a passkey that counts may add others at once. The protocol is
`fido2`'s. Does not know HTTP, and does not decide who may approve what.
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

WAITING = timedelta(hours=72)
CEREMONY = timedelta(minutes=5)
LABEL_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Site:
    """Where passkeys are good: the domain they are bound to, and the one origin that browsers must name."""

    domain: str
    origin: str
    name: str = "Groundplan"


def begin_enrol(conn: Connection[Any], site: Site, session: Session, now: datetime) -> dict[str, Any]:
    """`{"ceremony", "options"}` for `navigator.credentials.create`. Raises `Denied` (`person_only`)."""
    person = _person_of(conn, session)
    known = [_material(key) for key in passkey_store.of_person(conn, person.id)]
    options, state = _server(site).register_begin(
        {"id": person.id.bytes, "name": person.email, "displayName": person.name},  # type: ignore[arg-type]
        credentials=known,
        resident_key_requirement=_word("ResidentKeyRequirement", "required"),
        user_verification=_word("UserVerificationRequirement", "required"),
    )
    return {"ceremony": _ask(conn, "enrol", person.id, state, now), "options": dict(options)["publicKey"]}


def finish_enrol(
    conn: Connection[Any], site: Site, session: Session, given: Mapping[str, Any], now: datetime
) -> tuple[Passkey, Proof]:
    """Register the passkey of `given` (`ceremony`, `response`, `label`); (it, how its person is proven by it now).

    Raises `Invalid` (`passkey_refused`, `ceremony`), `Conflict` (`passkey_known`), `Denied` (`person_only`).
    """
    person = _person_of(conn, session)
    asked, state = _asked(conn, str(given["ceremony"]), "enrol", now)
    if asked != person.id:
        raise _no_ceremony()
    try:
        data = _server(site).register_complete(state, given["response"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _refused(error) from error
    material = data.credential_data
    if material is None:
        raise _refused(ValueError("no credential"))
    key = Passkey(
        bytes(material.credential_id), person.id, bytes(material), data.counter, _label(given.get("label")), now,
        sessions.session_actor(session), None, *_standing(conn, session, person, now),
    )  # fmt: skip
    if not passkey_store.insert(conn, key):
        raise Conflict("this passkey is registered already", code="passkey_known", hint="Sign in with it.")
    detail = {"passkey": shown_id(key), "confirmed_by": key.confirmed_by, "after": session.proof}
    record(conn, action="passkey.added", actor=sessions.actor_of(session), subject=_who(person.id), detail=detail)
    return key, _proof(key, now)


def begin_sign_in(conn: Connection[Any], site: Site, now: datetime) -> dict[str, Any]:
    """`{"ceremony", "options"}` for `navigator.credentials.get`. Says nothing about who is known here."""
    required = _word("UserVerificationRequirement", "required")
    options, state = _server(site).authenticate_begin(user_verification=required)
    return {"ceremony": _ask(conn, "passkey", None, state, now), "options": dict(options)["publicKey"]}


def finish_sign_in(
    conn: Connection[Any], site: Site, given: Mapping[str, Any], now: datetime, agent: str = ""
) -> tuple[str, Proof]:
    """Begin a session of whoever signed; (the secret for its cookie, how they are proven).

    Raises `Unauthenticated` (`passkey`), the same for every reason but a copied passkey (`passkey_copied`), `Invalid`
    (`ceremony`).
    """
    _, state = _asked(conn, str(given["ceremony"]), "passkey", now)
    response = given["response"]
    key = passkey_store.by_id(conn, _raw_id(response))
    person = None if key is None else store.person(conn, key.person_id)
    if key is None or person is None or not person.active:
        raise _not_signed()
    try:
        _server(site).authenticate_complete(state, [_material(key)], response)
        counter = _counter(response)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _not_signed() from error
    if (counter or key.sign_count) and counter <= key.sign_count:
        raise Unauthenticated(
            "this passkey was used somewhere else since: it may have been copied",
            code="passkey_copied",
            hint="Remove it (your other passkeys can), and tell security.",
        )
    passkey_store.used(conn, key.id, counter, now)
    proof = _proof(key, now)
    return sessions.begin(conn, key.person_id, proof, now, agent), proof


def confirm(conn: Connection[Any], session: Session, passkey_id: bytes, now: datetime) -> Passkey:
    """Somebody else says that a passkey is its person's. Raises `NotFound`, `Denied` (`self_confirmation`,
    `proof_missing`), `Conflict` (`passkey_confirmed`)."""
    key = _known(conn, passkey_id)
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
    detail = {"passkey": shown_id(key)}
    record(conn, action="passkey.confirmed", actor=actor, subject=_who(key.person_id), detail=detail)
    return _known(conn, passkey_id)


def remove(conn: Connection[Any], actor: str, passkey_id: bytes, now: datetime) -> Passkey:
    """It signs in nobody any more; the sessions of its person end. Who may is the caller's. Raises `NotFound`."""
    key = _known(conn, passkey_id)
    passkey_store.remove(conn, key.id, actor, now)
    detail = {"passkey": shown_id(key)}
    record(conn, action="passkey.removed", actor=actor, subject=_who(key.person_id), detail=detail)
    sessions.end_all(conn, key.person_id)
    return key


def shown_id(key: Passkey) -> str:
    """The id as hex, by which lists, routes and the log name it."""
    return key.id.hex()


def _standing(
    conn: Connection[Any], session: Session, person: Person, now: datetime
) -> tuple[datetime | None, str | None, datetime | None]:
    """(confirmed at, by whom, waits until) of a passkey that is registered in this session."""
    if session.is_proven:
        return now, person_actor(person.id), None
    if not passkey_store.ever_confirmed(conn) and not passkey_store.others_confirmed(conn, person.id):
        return now, "founding", None
    return None, None, None if passkey_store.others_confirmed(conn, person.id) else now + WAITING


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


def _known(conn: Connection[Any], passkey_id: bytes) -> Passkey:
    key = passkey_store.by_id(conn, passkey_id)
    if key is None:
        raise NotFound("there is no such passkey", code="passkey_unknown", hint="GET /api/passkeys lists them.")
    return key


def _server(site: Site) -> Fido2Server:
    from fido2.server import Fido2Server  # noqa: PLC0415 -- heavy: only who signs in needs it
    from fido2.webauthn import PublicKeyCredentialRpEntity  # noqa: PLC0415

    entity = PublicKeyCredentialRpEntity(name=site.name, id=site.domain)
    return Fido2Server(entity, verify_origin=lambda origin: origin == site.origin)


def _word(kind: str, value: str) -> Any:
    from fido2 import webauthn  # noqa: PLC0415 -- heavy

    return getattr(webauthn, kind)(value)


def _material(key: Passkey) -> Any:
    from fido2.webauthn import AttestedCredentialData  # noqa: PLC0415 -- heavy

    return AttestedCredentialData(key.material)


def _counter(response: Any) -> int:
    from fido2.webauthn import AuthenticationResponse  # noqa: PLC0415 -- heavy

    return int(AuthenticationResponse.from_dict(response).response.authenticator_data.counter)


def _raw_id(response: Any) -> bytes:
    from fido2.utils import websafe_decode  # noqa: PLC0415 -- heavy

    try:
        return websafe_decode(response["rawId"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_signed() from error


def _ask(conn: Connection[Any], kind: str, person_id: UUID | None, state: dict[str, Any], now: datetime) -> str:
    name = secrets.token_urlsafe(32)
    kept = {key: str(getattr(value, "value", value)) for key, value in state.items()}
    passkey_store.insert_ceremony(conn, hashlib.sha256(name.encode()).digest(), kind, person_id, kept, now + CEREMONY)
    return name


def _asked(conn: Connection[Any], name: str, kind: str, now: datetime) -> tuple[UUID | None, Any]:
    hash = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    found = passkey_store.use_ceremony(conn, hash, kind, now)
    if found is None:
        raise _no_ceremony()
    return found


def _label(given: object) -> str:
    text = str(given or "").strip()
    return text[:LABEL_CHARACTERS] or "passkey"


def _who(person_id: UUID) -> str:
    return f"person/{person_id}"


def _no_ceremony() -> Invalid:
    return Invalid("this request has expired, or was answered already", code="ceremony", hint="Start again.")


def _refused(error: Exception) -> Invalid:
    return Invalid(f"the passkey was not accepted: {error}", code="passkey_refused", hint="Start again on this page.")


def _not_signed() -> Unauthenticated:
    return Unauthenticated(
        "this passkey is not registered here",
        code="passkey",
        hint="Use a passkey that you registered here, or ask the operator for a link: `groundplan login --as E-MAIL`.",
    )
