"""Sign-in: one-time links, sessions in an HttpOnly cookie, CSRF tokens, the operator's token.

Secrets have 256 random bits, and only their SHA-256 is stored. Does not send links; of HTTP it knows only the cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit import OPERATOR, ActingAs, person_actor, record
from groundplan.core.errors import Conflict, NotFound, Unauthenticated, Unavailable
from groundplan.core.home import Home, is_readable_by_others, write_atomically
from groundplan.identity import session_store, store
from groundplan.identity.model import Proof, Session

COOKIE = "groundplan_session"
LINK_LIFETIME = timedelta(minutes=10)
SESSION_LIFETIME = timedelta(hours=12)
AGENT_CHARACTERS = 200


def create_login_link(
    conn: Connection[Any], actor: str, person_id: UUID | None = None, now: datetime | None = None
) -> str:
    """The secret of a one-time sign-in link (10 minutes) for a person, or for the local operator.

    Raises `NotFound` (`unknown_person`), `Conflict` (`already_left`).
    """
    if person_id is not None:
        _check_active(conn, person_id)
    token, begun = secrets.token_urlsafe(32), now or datetime.now(UTC)
    session_store.insert_link(conn, hash_secret(token), person_id, begun, begun + LINK_LIFETIME)
    record(conn, action="login.link", actor=actor, subject=_subject(person_id), detail={})
    return token


def redeem_link(conn: Connection[Any], token: str, now: datetime | None = None, agent: str = "") -> str:
    """Use a link up and begin a session; returns the secret for its cookie. `agent`: the browser's User-Agent.

    A person's session then has the proof `recovery`, since anybody with the operator's token could have made the link.
    Raises `Unauthenticated` (`login_link`), the same for every reason.
    """
    begun = now or datetime.now(UTC)
    used = session_store.use_link(conn, hash_secret(token), begun)
    if used is None:
        raise Unauthenticated(
            "this sign-in link was used, has expired or never existed",
            code="login_link",
            hint="Make a new one with `groundplan login`.",
        )
    (person_id,) = used
    return begin(conn, person_id, "link" if person_id is None else "recovery", begun, agent)


def begin(conn: Connection[Any], person_id: UUID | None, proof: Proof, now: datetime, agent: str = "") -> str:
    """Begin a session of a person whose `proof` the caller has checked; returns the secret for its cookie."""
    session = Session(person_id, None, secrets.token_urlsafe(32), now + SESSION_LIFETIME, proof)
    secret = secrets.token_urlsafe(32)
    session_store.insert_session(conn, hash_secret(secret), session, now, agent[:AGENT_CHARACTERS])
    record(conn, action="login", actor=session_actor(session), subject=_subject(person_id), detail={"proof": proof})
    return secret


def revoke_session(conn: Connection[Any], actor: str, session_id: UUID, person_id: UUID | None, now: datetime) -> None:
    """End one session of a person (None: of the operator) at once. Raises `NotFound` (`session_unknown`)."""
    if not session_store.end_by_id(conn, session_id, person_id, now):
        raise NotFound("there is no such session", code="session_unknown", hint="GET /api/sessions lists them.")
    record(
        conn, action="session.revoked", actor=actor, subject=_subject(person_id), detail={"session": str(session_id)}
    )


def find_session(conn: Connection[Any], token: str, now: datetime | None = None) -> Session | None:
    """The session of a cookie's value; None if it is unknown or over, or its person has left."""
    return session_store.find_session(conn, hash_secret(token), now or datetime.now(UTC))


def end_session(conn: Connection[Any], token: str, now: datetime | None = None) -> bool:
    """Sign out; returns whether there was a session to end."""
    ended = now or datetime.now(UTC)
    session = session_store.find_session(conn, hash_secret(token), ended)
    if session is None:
        return False
    session_store.end_session(conn, hash_secret(token), ended)
    record(conn, action="logout", actor=actor_of(session), subject=_subject(session.person), detail={})
    return True


def sign_out_everywhere(conn: Connection[Any], actor: str, person_id: UUID) -> None:
    """End every session of a person at once, and record who did it."""
    end_all_sessions(conn, person_id)
    record(conn, action="session.revoked", actor=actor, subject=_subject(person_id), detail={"session": "all"})


def end_all_sessions(conn: Connection[Any], person_id: UUID) -> None:
    """End every session of a person at once."""
    session_store.end_sessions_of(conn, person_id)


def act_as(conn: Connection[Any], token: str, person_id: UUID | None, now: datetime | None = None) -> Session:
    """Act as one of the demo's people (None: as oneself again). The audit log records this under the real actor, and
    what follows under both (`actor_of`).

    The caller has checked that this is the demo and that the request came from this machine. Raises `Unauthenticated`
    (`session`), `NotFound` (`unknown_person`), `Conflict` (`already_left`).
    """
    session = find_session(conn, token, now)
    if session is None:
        raise Unauthenticated("nobody is signed in", code="session", hint="Make a link with `groundplan login`.")
    if person_id is not None:
        _check_active(conn, person_id)
    session_store.set_acting_as(conn, hash_secret(token), person_id)
    subject = _subject(person_id or session.person_id)
    record(conn, action="session.act_as", actor=session_actor(session), subject=subject, detail={"demo": True})
    return replace(session, acting_as=person_id)


def session_actor(session: Session) -> str:
    """The actor who signed in, also while acting as another person."""
    return OPERATOR if session.person_id is None else person_actor(session.person_id)


def actor_of(session: Session) -> str:
    """The actor for the audit log: the person acted as, together with the one who signed in if they differ."""
    real = session_actor(session)
    return real if session.acting_as is None else ActingAs(person_actor(session.acting_as), real)


def ensure_operator_token(home: Home) -> str:
    """The token of this HOME, created (mode 0600) if there is none. Idempotent, under the lock of HOME."""
    if not home.operator_token.exists():
        write_atomically(home.operator_token, f"gpo_{secrets.token_urlsafe(32)}\n".encode())
    return read_operator_token(home)


def read_operator_token(home: Home) -> str:
    """The operator's token. Raises `Unavailable` (`operator_token`) if it is missing, empty or readable by others."""
    try:
        if is_readable_by_others(home.operator_token.stat()):
            raise Unavailable(
                f"others may read {home.operator_token}",
                code="operator_token",
                hint="Delete it and start `groundplan up` again, which makes a new one.",
            )
        token = home.operator_token.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(
            f"there is no operator token in {home.root}",
            code="operator_token",
            hint="Start `groundplan up` with this HOME, or give GROUNDPLAN_TOKEN.",
        ) from error
    if not token:
        raise Unavailable("the operator token is empty", code="operator_token", hint="Delete it and start again.")
    return token


def is_operator_token(home: Home, token: str) -> bool:
    """Whether `token` is the operator's token of this HOME, compared in constant time. Raises as
    `read_operator_token`."""
    return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), read_operator_token(home).encode())


def hash_secret(token: str) -> bytes:
    """SHA-256 of the secret of a link or a cookie, which is what is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _subject(person_id: UUID | None) -> str:
    return OPERATOR if person_id is None else f"person/{person_id}"


def _check_active(conn: Connection[Any], person_id: UUID) -> None:
    person = store.person(conn, person_id)
    if person is None:
        raise NotFound(
            f"there is no person {person_id}", code="unknown_person", hint="List them: `groundplan people list`."
        )
    if not person.active:
        raise Conflict("the person has left", code="already_left", hint="Choose somebody active.")
