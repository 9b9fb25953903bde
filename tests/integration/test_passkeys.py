"""Passkeys: registered, used, confirmed by somebody else; and what the operator's token alone can no longer do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from groundplan.core.audit import OPERATOR
from groundplan.core.audit import store as audit_store
from groundplan.core.database import connect
from groundplan.core.errors import Conflict, Denied, Invalid, NotFound, Unauthenticated
from groundplan.identity import passkey_store, passkeys, service, sessions
from groundplan.identity.model import GenesisPeople, GenesisPerson, Passkey, Session
from groundplan.identity.passkeys import Site
from groundplan.testing.database import Database
from groundplan.testing.passkey import SoftPasskey

Conn = psycopg.Connection[tuple[Any, ...]]
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
SITE = Site("localhost", "http://localhost:8601")


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["control"], autocommit=True) as conn:
        yield conn


@pytest.fixture
def ids(conn: Conn) -> dict[str, UUID]:
    people = tuple(GenesisPerson(f"{name}@acme.example", name.title()) for name in ("ana", "sam", "fay"))
    made = service.create_genesis_people(conn, GenesisPeople(people))
    return {email.partition("@")[0]: id for email, id in made.items()}


def by_link(conn: Conn, person: UUID, at: datetime = NOW) -> Session:
    token = sessions.redeem_link(conn, sessions.create_login_link(conn, OPERATOR, person, at), at)
    found = sessions.find_session(conn, token, at)
    assert found is not None and found.proof == "recovery" and not found.is_proven
    return found


def enrol(conn: Conn, session: Session, at: datetime = NOW) -> tuple[SoftPasskey, Passkey, str]:
    device = SoftPasskey(SITE.origin)
    asked = passkeys.begin_enrol(conn, SITE, session, at)
    given = {"ceremony": asked["ceremony"], "response": device.create(asked["options"]), "label": " laptop "}
    key, proof = passkeys.finish_enrol(conn, SITE, session, given, at)
    return device, key, proof


def sign_in(conn: Conn, device: SoftPasskey, at: datetime = NOW) -> Session:
    asked = passkeys.begin_sign_in(conn, SITE, at)
    given = {"ceremony": asked["ceremony"], "response": device.get(asked["options"])}
    token, proof = passkeys.finish_sign_in(conn, SITE, given, at, "Chromium")
    found = sessions.find_session(conn, token, at)
    assert found is not None and found.proof == proof
    return found


def test_the_first_passkey_is_trusted_and_others_wait_for_a_colleague(conn: Conn, ids: dict[str, UUID]) -> None:
    ana, key, proof = enrol(conn, by_link(conn, ids["ana"]))
    assert (proof, key.confirmed_by, key.label) == ("passkey", "founding", "laptop")
    founder = sign_in(conn, ana)
    assert founder.is_proven and founder.person_id == ids["ana"]
    sam, waiting, proof = enrol(conn, by_link(conn, ids["sam"]))
    assert proof == "unconfirmed" and waiting.waits_until is None
    assert not sign_in(conn, sam).is_proven
    with pytest.raises(Denied) as own:
        passkeys.confirm(conn, sign_in(conn, sam), waiting.id, NOW)
    assert own.value.code == "proof_missing"
    for unproven in (by_link(conn, ids["fay"]), by_link(conn, ids["ana"])):
        with pytest.raises(Denied) as refused:
            passkeys.confirm(conn, unproven, waiting.id, NOW)
        assert refused.value.code == "proof_missing"
    assert passkeys.confirm(conn, founder, waiting.id, NOW).confirmed_by == f"person:{ids['ana']}"
    with pytest.raises(Conflict):
        passkeys.confirm(conn, founder, waiting.id, NOW)
    with pytest.raises(Denied) as mine:
        passkeys.confirm(conn, founder, key.id, NOW)
    assert mine.value.code == "self_confirmation"
    assert sign_in(conn, sam).is_proven
    actions = [stored.entry.action for stored in audit_store.list_entries(conn, limit=200)]
    assert actions.count("passkey.added") == 2 and actions.count("passkey.confirmed") == 1


def test_the_operators_token_cannot_register_a_first_passkey_again(conn: Conn, ids: dict[str, UUID]) -> None:
    ana, first, _ = enrol(conn, by_link(conn, ids["ana"]))
    _, stolen, proof = enrol(conn, by_link(conn, ids["ana"]))
    assert proof == "unconfirmed" and stolen.waits_until == NOW + passkeys.WAITING_PERIOD
    passkeys.remove(conn, OPERATOR, first.id, NOW)
    _, again, proof = enrol(conn, by_link(conn, ids["ana"]))
    assert proof == "unconfirmed" and not again.is_valid(NOW + timedelta(hours=71))
    assert again.is_valid(NOW + timedelta(hours=72)), "nobody else could confirm it, and nobody objected"
    with pytest.raises(Unauthenticated):
        sign_in(conn, ana)


def test_a_proven_person_adds_passkeys_without_confirmation(conn: Conn, ids: dict[str, UUID]) -> None:
    ana, _, _ = enrol(conn, by_link(conn, ids["ana"]))
    _, second, proof = enrol(conn, sign_in(conn, ana))
    assert proof == "passkey" and second.confirmed_by == f"person:{ids['ana']}"
    with pytest.raises(Invalid) as caught:  # the device says itself that it is registered already
        asked = passkeys.begin_enrol(conn, SITE, sign_in(conn, ana), NOW)
        assert len(asked["options"]["excludeCredentials"]) == 2
        given = {"ceremony": asked["ceremony"], "response": {}}
        passkeys.finish_enrol(conn, SITE, sign_in(conn, ana), given, NOW)
    assert caught.value.code == "passkey_refused"


def test_a_ceremony_is_for_one_person_one_time_and_five_minutes(conn: Conn, ids: dict[str, UUID]) -> None:
    ana = by_link(conn, ids["ana"])
    device, _, _ = enrol(conn, ana)
    asked = passkeys.begin_sign_in(conn, SITE, NOW)
    given = {"ceremony": asked["ceremony"], "response": device.get(asked["options"])}
    with pytest.raises(Invalid):
        passkeys.finish_sign_in(conn, SITE, given, NOW + timedelta(minutes=5))
    passkeys.finish_sign_in(conn, SITE, given, NOW + timedelta(minutes=4))
    with pytest.raises(Invalid) as replayed:
        passkeys.finish_sign_in(conn, SITE, given, NOW + timedelta(minutes=4))
    assert replayed.value.code == "ceremony"
    asked = passkeys.begin_enrol(conn, SITE, ana, NOW)
    other = {"ceremony": asked["ceremony"], "response": SoftPasskey(SITE.origin).create(asked["options"])}
    with pytest.raises(Invalid) as stolen:
        passkeys.finish_enrol(conn, SITE, by_link(conn, ids["sam"]), other, NOW)
    assert stolen.value.code == "ceremony"


def test_of_anonymous_ceremonies_only_the_newest_are_kept(
    conn: Conn, ids: dict[str, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may begin a sign-in, and each left a row for a day, through which the next one looked."""
    monkeypatch.setattr(passkey_store, "MAX_OPEN_SIGN_INS", 3)
    mine = passkeys.begin_enrol(conn, SITE, by_link(conn, ids["ana"]), NOW)
    begun = [passkeys.begin_sign_in(conn, SITE, NOW + timedelta(seconds=at))["ceremony"] for at in range(6)]
    kept = {bytes(hash) for (hash,) in conn.execute("SELECT hash FROM ceremony")}
    assert kept == {hashlib.sha256(each.encode()).digest() for each in (mine["ceremony"], *begun[3:])}
    passkeys.begin_sign_in(conn, SITE, NOW + timedelta(hours=2))
    assert conn.execute("SELECT count(*) FROM ceremony").fetchone() == (1,), "what has expired is forgotten"


def test_other_origins_domains_signatures_and_copies_are_refused(conn: Conn, ids: dict[str, UUID]) -> None:
    device, key, _ = enrol(conn, by_link(conn, ids["ana"]))
    sign_in(conn, device)
    for change in ("origin", "domain", "signature", "id", "challenge"):
        asked = passkeys.begin_sign_in(conn, SITE, NOW)
        options = dict(asked["options"])
        liar = SoftPasskey(SITE.origin, device.key, device.id, device.user, device.counter)
        if change == "origin":
            liar.origin = "http://localhost:9999"
        if change == "domain":
            options["rpId"] = "evil.example"
        if change == "id":
            liar.id = bytes(32)
        if change == "challenge":
            options["challenge"] = "AAAA"
        response = liar.get(options)
        if change == "signature":
            response["response"]["signature"] = response["response"]["signature"][:-6] + "AAAAAA"
        with pytest.raises(Unauthenticated) as caught:
            passkeys.finish_sign_in(conn, SITE, {"ceremony": asked["ceremony"], "response": response}, NOW)
        assert caught.value.code == "passkey", change
    sign_in(conn, device)
    copy = SoftPasskey(SITE.origin, device.key, device.id, device.user, device.counter - 1)
    with pytest.raises(Unauthenticated) as copied:
        sign_in(conn, copy)
    assert copied.value.code == "passkey_copied"
    for broken in ({}, {"rawId": 7}, {"rawId": "!"}, {"rawId": "AAAA", "response": None}):
        asked = passkeys.begin_sign_in(conn, SITE, NOW)
        with pytest.raises(Unauthenticated):
            passkeys.finish_sign_in(conn, SITE, {"ceremony": asked["ceremony"], "response": broken}, NOW)
    found = passkey_store.find_passkey(conn, key.id)
    assert found is not None and found.sign_count == device.counter


def test_leavers_and_removed_passkeys_cannot_sign_in(conn: Conn, ids: dict[str, UUID]) -> None:
    ana, key, _ = enrol(conn, by_link(conn, ids["ana"]))
    session = sign_in(conn, ana)
    passkeys.remove(conn, OPERATOR, key.id, NOW)
    with pytest.raises(Unauthenticated):
        sign_in(conn, ana)
    with pytest.raises(NotFound):
        passkeys.remove(conn, OPERATOR, key.id, NOW)
    assert session.person_id == ids["ana"]
    sam, _, _ = enrol(conn, by_link(conn, ids["sam"]))
    service.deactivate_person(conn, OPERATOR, ids["sam"])
    with pytest.raises(Unauthenticated):
        sign_in(conn, sam)


def test_the_operator_has_no_passkey(conn: Conn) -> None:
    token = sessions.redeem_link(conn, sessions.create_login_link(conn, OPERATOR))
    found = sessions.find_session(conn, token)
    assert found is not None and found.proof == "link"
    with pytest.raises(Denied) as caught:
        passkeys.begin_enrol(conn, SITE, found, NOW)
    assert caught.value.code == "person_only"
