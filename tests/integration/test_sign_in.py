"""Links, sessions, acting as somebody in the demo, and the operator's token."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from groundplan.core.audit import OPERATOR, person_actor
from groundplan.core.audit import store as audit_store
from groundplan.core.database import connect
from groundplan.core.errors import Conflict, NotFound, Unauthenticated, Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.identity import service, sessions
from groundplan.identity.model import GenesisPeople, GenesisPerson
from groundplan.testing.database import Database

Conn = psycopg.Connection[tuple[Any, ...]]
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["control"], autocommit=True) as conn:
        yield conn


@pytest.fixture
def ben(conn: Conn) -> UUID:
    return service.create_genesis_people(conn, GenesisPeople((GenesisPerson("ben@acme.example", "Ben"),)))[
        "ben@acme.example"
    ]


def test_a_link_signs_in_once(conn: Conn, ben: UUID) -> None:
    link = sessions.create_login_link(conn, OPERATOR, ben, NOW)
    token = sessions.redeem_link(conn, link, NOW + timedelta(minutes=9))
    found = sessions.find_session(conn, token, NOW + timedelta(hours=1))
    assert found is not None and found.person_id == found.person == ben
    for again in (link, token, "", "\ud800"):
        with pytest.raises(Unauthenticated) as caught:
            sessions.redeem_link(conn, again, NOW + timedelta(minutes=9))
        assert caught.value.code == "login_link"
    assert [(e.entry.action, e.entry.actor) for e in audit_store.list_entries(conn)][:2] == [
        ("login", person_actor(ben)),
        ("login.link", OPERATOR),
    ]


def test_links_and_sessions_expire(conn: Conn) -> None:
    link = sessions.create_login_link(conn, OPERATOR, None, NOW)
    with pytest.raises(Unauthenticated):
        sessions.redeem_link(conn, link, NOW + timedelta(minutes=10))
    token = sessions.redeem_link(conn, sessions.create_login_link(conn, OPERATOR, None, NOW), NOW)
    assert sessions.find_session(conn, token, NOW + timedelta(hours=11)) is not None
    assert sessions.find_session(conn, token, NOW + timedelta(hours=12)) is None
    assert sessions.find_session(conn, "unknown", NOW) is None


def test_secrets_are_stored_as_hashes_only(conn: Conn) -> None:
    link = sessions.create_login_link(conn, OPERATOR)
    token = sessions.redeem_link(conn, link)
    stored = conn.execute("SELECT hash FROM login_link UNION ALL SELECT hash FROM console_session").fetchall()
    assert len(stored) == 2 and all(len(hash) == 32 for (hash,) in stored)
    text = str(conn.execute("SELECT s::text, l::text FROM console_session s, login_link l").fetchall())
    assert link not in text and token not in text


def test_signing_out_ends_the_session_once(conn: Conn) -> None:
    token = sessions.redeem_link(conn, sessions.create_login_link(conn, OPERATOR))
    assert sessions.end_session(conn, token)
    assert sessions.find_session(conn, token) is None
    assert not sessions.end_session(conn, token)


def test_who_has_left_is_signed_out_and_cannot_sign_in(conn: Conn, ben: UUID) -> None:
    link = sessions.create_login_link(conn, OPERATOR, ben)
    token = sessions.redeem_link(conn, sessions.create_login_link(conn, OPERATOR, ben))
    operator = sessions.redeem_link(conn, sessions.create_login_link(conn, OPERATOR))
    sessions.act_as(conn, operator, ben)
    service.deactivate_person(conn, OPERATOR, ben)
    assert sessions.find_session(conn, token) is None
    found = sessions.find_session(conn, operator)
    assert found is not None and found.acting_as is None
    with pytest.raises(Unauthenticated):
        sessions.redeem_link(conn, link)
    with pytest.raises(Conflict):
        sessions.create_login_link(conn, OPERATOR, ben)
    with pytest.raises(NotFound):
        sessions.create_login_link(conn, OPERATOR, new_id())


def test_acting_as_somebody_is_recorded_as_oneself(conn: Conn, ben: UUID) -> None:
    token = sessions.redeem_link(conn, sessions.create_login_link(conn, OPERATOR))
    assert sessions.act_as(conn, token, ben).person == ben
    found = sessions.find_session(conn, token)
    assert found is not None and found.acting_as == ben and found.person_id is None
    entry = audit_store.list_entries(conn, limit=1)[0].entry
    assert (entry.action, entry.actor, entry.subject, entry.detail) == (
        "session.act_as",
        OPERATOR,
        f"person/{ben}",
        {"demo": True},
    )
    assert sessions.act_as(conn, token, None).person is None
    with pytest.raises(Unauthenticated):
        sessions.act_as(conn, "unknown", ben)
    with pytest.raises(NotFound):
        sessions.act_as(conn, token, new_id())


def test_the_operators_token_is_a_private_file(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    with pytest.raises(Unavailable):
        sessions.read_operator_token(home)
    token = sessions.ensure_operator_token(home)
    assert sessions.ensure_operator_token(home) == token and len(token) > 40
    assert home.operator_token.stat().st_mode & 0o777 == 0o600
    assert sessions.is_operator_token(home, token)
    for wrong in ("", token[:-1], token + "x", "\ud800"):
        assert not sessions.is_operator_token(home, wrong)
    home.operator_token.chmod(0o640)
    with pytest.raises(Unavailable) as caught:
        sessions.is_operator_token(home, token)
    assert "others" in caught.value.message
    home.operator_token.chmod(0o600)
    home.operator_token.write_text("\n")
    with pytest.raises(Unavailable):
        sessions.read_operator_token(home)
