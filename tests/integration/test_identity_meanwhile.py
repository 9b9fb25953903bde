"""People, keys, tokens, duties and stops while somebody else changes the same: no order of two leaves what was ended,
and none makes the two wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.integration.interleaved import Conn, Halt, connect_with_lock_timeout, run_concurrently, wait_until_blocked
from tests.integration.test_identity import ACME, refused

from groundplan.api.watch import access_rights, unconfirmed_passkeys
from groundplan.core.audit import OPERATOR
from groundplan.core.audit.entry import person_actor
from groundplan.core.database import connect
from groundplan.core.errors import Conflict
from groundplan.core.ids import new_id
from groundplan.identity import passkey_store, rights, rights_store, service, store
from groundplan.identity.model import Passkey
from groundplan.identity.scim import resources as scim
from groundplan.ledger import finding_store
from groundplan.testing.database import Database

SCOPE = "workload/assistant"


@pytest.fixture
def one(database: Database) -> Iterator[Conn]:
    with connect_with_lock_timeout(database) as conn:
        yield conn


@pytest.fixture
def other(database: Database) -> Iterator[Conn]:
    with connect_with_lock_timeout(database) as conn:
        yield conn


@pytest.fixture
def people(one: Conn) -> dict[str, UUID]:
    made = service.create_genesis_people(one, ACME)
    one.commit()
    return {email.partition("@")[0]: id for email, id in made.items()}


def patched(path: str, value: object, op: str = "replace") -> dict[str, Any]:
    return {"Operations": [{"op": op, "path": path, "value": value}]}


def test_no_key_is_created_for_a_person_leaving_concurrently(
    database: Database, one: Conn, other: Conn, people: dict[str, UUID]
) -> None:
    service.deactivate_person(one, OPERATOR, people["ben"])
    with run_concurrently(lambda: service.create_key(other, OPERATOR, "assistant", people["ben"])) as making:
        wait_until_blocked(database, other)
        one.commit()
        refused("already_left", making.result)


def test_no_token_outlives_its_creator(database: Database, one: Conn, other: Conn, people: dict[str, UUID]) -> None:
    now = datetime.now(UTC)
    ends, ben = now + timedelta(days=9), person_actor(people["ben"])
    service.deactivate_person(one, OPERATOR, people["ben"])
    with run_concurrently(lambda: rights.create_token(other, ben, "late", ["read"], now, ends)) as making:
        wait_until_blocked(database, other)
        one.commit()
        refused("already_left", making.result)
    other.rollback()

    hana = person_actor(people["hana"])
    _, secret = rights.create_token(one, hana, "early", ["read"], now, ends)
    with run_concurrently(lambda: service.deactivate_person(other, OPERATOR, people["hana"])) as leaving:
        wait_until_blocked(database, other)
        one.commit()
        leaving.result()
        other.commit()
    assert rights.find_token(one, secret, now) is None


def test_a_handover_does_not_restore_a_concurrently_replaced_owner(
    database: Database, one: Conn, other: Conn, people: dict[str, UUID]
) -> None:
    service.nominate(one, OPERATOR, SCOPE, {"business": ["ben@acme.example", "hana@acme.example"]})
    service.deactivate_person(one, OPERATOR, people["ben"])
    one.commit()
    service.nominate(one, OPERATOR, SCOPE, {"business": ["maria@acme.example"]})
    with run_concurrently(lambda: service.hand_over(other, OPERATOR, people["ben"], people["hana"])) as handing:
        wait_until_blocked(database, other)
        one.commit()
        handing.result()
        other.commit()
    assert [each.person.email for each in store.duties(one, SCOPE)] == ["maria@acme.example"]


def test_leaving_and_lifting_a_kill_do_not_deadlock(
    database: Database, one: Conn, other: Conn, people: dict[str, UUID]
) -> None:
    maria, ben = person_actor(people["maria"]), person_actor(people["ben"])
    service.kill(one, OPERATOR, SCOPE, "drill")
    one.commit()
    assert not rights.confirm_lift(one, ben, SCOPE, "over", proven=True, alone=False)
    one.commit()
    halt = Halt(one, "DELETE FROM lift_wish")

    def lift() -> bool:
        return rights.confirm_lift(other, maria, SCOPE, "over", proven=True, alone=False)

    with run_concurrently(lambda: service.deactivate_person(one, OPERATOR, people["ben"])) as leaving:
        halt.wait_until_reached()
        with run_concurrently(lift) as lifting:
            wait_until_blocked(database, other)
            halt.resume()
            leaving.result()
            one.commit()
            assert not lifting.result(), "whoever has left does not count"


def test_a_lift_does_not_lift_a_newer_kill(one: Conn, people: dict[str, UUID]) -> None:
    maria, ben = person_actor(people["maria"]), person_actor(people["ben"])
    service.kill(one, OPERATOR, SCOPE, "a drill")
    one.commit()
    assert not rights.confirm_lift(one, ben, SCOPE, "the drill is over", proven=True, alone=False)
    one.commit()
    service.kill(one, OPERATOR, SCOPE, "it leaks")
    one.commit()
    assert not rights_store.lift_wishes(one)
    assert not rights.confirm_lift(one, maria, SCOPE, "the drill is over", proven=True, alone=False)
    one.commit()
    assert rights.confirm_lift(one, ben, SCOPE, "it leaks no more", proven=True, alone=False)


def test_a_directory_update_does_not_restore_a_concurrent_leaver(
    one: Conn, other: Conn, people: dict[str, UUID]
) -> None:
    halt = Halt(one, nth=2)  # it has read who they are
    with run_concurrently(
        lambda: scim.patch_user(one, OPERATOR, people["ben"], patched("name.givenName", "Benjamin"))
    ) as naming:
        halt.wait_until_reached()
        service.deactivate_person(other, OPERATOR, people["ben"])
        other.commit()
        halt.resume()
        naming.result()
        one.commit()
    found = store.person(one, people["ben"])
    assert found is not None and not found.active


def test_concurrent_identical_directory_requests_both_succeed(
    database: Database, one: Conn, other: Conn, people: dict[str, UUID]
) -> None:
    made = UUID(scim.create_group(one, OPERATOR, {"displayName": "board"})["id"])
    one.commit()
    for op in ("add", "remove"):
        said = patched("members", [{"value": str(people["ben"])}], op)
        scim.patch_group(one, OPERATOR, made, said)
        with run_concurrently(lambda: scim.patch_group(other, OPERATOR, made, said)) as again:  # noqa: B023 -- done within
            wait_until_blocked(database, other)
            one.commit()
            members = again.result()["members"]
            other.commit()
        assert [each["value"] for each in members] == ([str(people["ben"])] if op == "add" else [])
    ended = patched("active", False)
    scim.patch_user(one, OPERATOR, people["ben"], ended)
    with run_concurrently(lambda: scim.patch_user(other, OPERATOR, people["ben"], ended)) as again:
        wait_until_blocked(database, other)
        one.commit()
        assert again.result()["active"] is False
        other.commit()


def test_concurrent_directory_changes_of_one_resource_are_both_applied(
    database: Database, one: Conn, other: Conn, people: dict[str, UUID]
) -> None:
    group = UUID(scim.create_group(one, OPERATOR, {"displayName": "board"})["id"])
    one.commit()
    ben, hana = str(people["ben"]), str(people["hana"])
    said: tuple[tuple[Callable[[Conn], object], Callable[[Conn], object]], ...] = (
        (lambda conn: scim.patch_user(conn, OPERATOR, people["ben"], patched("externalId", "7")),
         lambda conn: scim.patch_user(conn, OPERATOR, people["ben"], patched("name.givenName", "Benjamin"))),
        (lambda conn: scim.patch_group(conn, OPERATOR, group, patched("members", [{"value": ben}], "replace")),
         lambda conn: scim.patch_group(conn, OPERATOR, group, patched("members", [{"value": hana}], "add"))),
    )  # fmt: skip
    for first, second in said:
        first(one)
        with run_concurrently(lambda: second(other)) as later:  # noqa: B023 -- done within
            wait_until_blocked(database, other, unless=later.done)
            one.commit()
            later.result()
            other.commit()
    found = scim.get_user(one, people["ben"])
    assert (found.get("externalId"), found["name"]["givenName"]) == ("7", "Benjamin")
    assert {each["value"] for each in scim.get_group(one, group)["members"]} == {ben, hana}


def test_renaming_and_deactivating_by_a_directory_do_not_deadlock(
    database: Database, one: Conn, other: Conn, people: dict[str, UUID]
) -> None:
    scim.patch_user(one, OPERATOR, people["ben"], patched("externalId", "7"))
    one.commit()
    halt = Halt(one, "next_policy_number")

    def ended() -> None:
        scim.patch_user(one, OPERATOR, people["ben"], patched("active", False))
        one.commit()

    def renamed() -> None:
        scim.patch_user(other, OPERATOR, people["ben"], patched("displayName", "Benjamin"))
        other.commit()

    with run_concurrently(ended) as ending:
        halt.wait_until_reached()
        with run_concurrently(renamed) as renaming:
            wait_until_blocked(database, other, unless=renaming.done)
            halt.resume()
            ending.result()
            renaming.result()
    found = store.person(one, people["ben"])
    assert found is not None and (found.name, found.active) == ("Benjamin", False)


def test_concurrent_creation_of_one_name_by_a_directory_does_not_deadlock(
    database: Database, one: Conn, other: Conn, people: dict[str, UUID]
) -> None:
    """Of somebody who is here, and of somebody who is not."""
    halt = Halt(one, "next_policy_number")
    service.deactivate_person(other, OPERATOR, people["ben"])
    other.commit()

    def made(conn: Conn, address: str) -> None:
        body = {"userName": "one-name", "emails": [{"value": address, "primary": True}]}
        scim.create_user(conn, OPERATOR, body)
        conn.commit()

    with run_concurrently(lambda: made(one, "ben@acme.example")) as known:
        halt.wait_until_reached()
        with run_concurrently(lambda: made(other, "eva@acme.example")) as new:
            wait_until_blocked(database, other, unless=new.done)
            halt.resume()
            found = {type(each.exception()) for each in (known, new)}
    assert found == {type(None), Conflict}, "one of them has it"


@pytest.mark.parametrize("kind", [access_rights.EMERGENCY, unconfirmed_passkeys.KIND])
def test_concurrently_reported_findings_are_recorded(
    database: Database, one: Conn, other: Conn, people: dict[str, UUID], kind: str
) -> None:
    now = datetime.now(UTC)

    def tell(conn: Conn, who: UUID) -> None:
        if kind == access_rights.EMERGENCY:
            rights.break_glass(conn, person_actor(who), who, "it burns", now)
            access_rights.update_rights_findings(conn, now)
        else:
            key = Passkey(who.bytes, who, b"", 0, "", now, OPERATOR, None, None, None, None)
            assert passkey_store.insert(conn, key)
            unconfirmed_passkeys.update_passkey_findings(conn, now)

    halt = Halt(other, "UPDATE finding SET closed_at")
    tell(one, people["ben"])
    with run_concurrently(lambda: tell(other, people["hana"])) as telling:
        wait_until_blocked(database, other, unless=lambda: halt.is_reached)
        one.commit()
        halt.resume()
        telling.result()
        other.commit()
    found = {row["subject"] for row in finding_store.list_findings(one, kinds=[kind])}
    assert found == {f"person/{people[name]}" for name in ("ben", "hana")}


def test_fencing_many_workers_does_not_block_grants(database: Database, one: Conn, other: Conn) -> None:
    """Their host is gone: each had places among the calls at the same time of another limit."""
    with connect(database.urls["owner"], autocommit=True) as conn:
        for name in ("concurrent/b", "concurrent/a"):
            epoch = new_id()
            conn.execute(
                """INSERT INTO gateway (epoch, host, home, pid, heartbeat_at)
                   VALUES (%s, 'h', '/', 1, now() - interval '2 days')""",
                (epoch,),
            )
            conn.execute(
                "INSERT INTO limit_span (name, span, amount, granted, ends) VALUES (%s, 'now', 5, 1, 'infinity')",
                (name,),
            )
            conn.execute(
                "INSERT INTO limit_slice (epoch, name, span, granted) VALUES (%s, %s, 'now', 1)", (epoch, name)
            )
    granting = "SELECT FROM limit_span WHERE name = %s FOR UPDATE"
    one.execute(granting, ("concurrent/a",))
    with run_concurrently(lambda: service.fence_silent(other, OPERATOR, 86_400.0)) as fencing:
        wait_until_blocked(database, other)
        one.execute(granting, ("concurrent/b",))
        one.commit()
        assert len(fencing.result()) == 2
        other.commit()
    assert one.execute("SELECT sum(granted) FROM limit_span").fetchone() == (0,)
