"""The keys of live policy, read by a worker: after any change they are what reading all of them anew would give."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.integration.gateway_stack import blueprint

from groundplan.core.clock import SystemClock
from groundplan.core.errors import Conflict
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway import database as gateway_database
from groundplan.gateway.budgets.grant_store import register
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.database import Connection
from groundplan.gateway.notifications import Listener
from groundplan.gateway.policy import key_store, live
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.live import LiveView
from groundplan.gateway.policy.snapshot import Policy
from groundplan.identity import service
from groundplan.identity.model import KeyTerms
from groundplan.identity.scim import resources as scim
from groundplan.testing.database import Database


@asynccontextmanager
async def following(database: Database, folder: Path) -> AsyncIterator[tuple[LiveView, Connection]]:
    view = LiveView(database.urls["gateway"], Home(folder), new_id(), SystemClock(), Slices())
    async with await psycopg.AsyncConnection.connect(database.urls["gateway"], autocommit=True) as connection:
        yield view, connection


async def anew(database: Database, folder: Path) -> Policy:
    async with following(database, folder) as (view, connection):
        await view._load_policy(connection, None)
        return view.policy


class Company:
    """Who makes, rotates and revokes keys; `made` are ids of those that can be rotated."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.made: list[UUID] = []
        self.people: list[UUID] = []

    def connected(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.database.urls["control"])

    def make(self, **terms: Any) -> None:
        person = random.choice([None, *self.people])
        expires = random.choice([None, datetime.now(UTC) + timedelta(days=3)])
        with self.connected() as conn:
            made = service.create_key(conn, "operator", "assistant", person, KeyTerms(**terms), expires)
        self.made.append(made[0])

    def rotate(self) -> None:
        with suppress(Conflict), self.connected() as conn:  # whose person has left
            new, _, _ = service.rotate_key(conn, "operator", self._some(), timedelta(hours=1))
            self.made.append(new.id)

    def revoke(self) -> None:
        with suppress(Conflict), self.connected() as conn:
            service.revoke_key(conn, "operator", self._some())

    def join(self) -> None:
        address = f"{new_id().hex}@acme.example"
        with self.connected() as conn:
            service.add_person(conn, "operator", address, "P")
            self.people.append(service.find_person(conn, address).id)

    def leave(self) -> None:
        self.join()
        person = self.people.pop(0)
        with self.connected() as conn:
            service.create_key(conn, "operator", "assistant", person)
        with self.connected() as conn:
            service.deactivate_person(conn, "operator", person)

    def rename(self) -> None:
        self.join()
        address = f"{new_id().hex}@acme.example"
        with self.connected() as conn:
            scim.replace_user(conn, "operator", self.people[0], {"userName": address, "displayName": "Q"})

    def come_back(self) -> None:
        self.leave()
        with self.connected() as conn:
            row = conn.execute("SELECT id FROM person WHERE NOT active LIMIT 1").fetchone()
            assert row is not None
            left = row[0]
            scim.patch_user(
                conn, "operator", left, {"Operations": [{"op": "replace", "path": "active", "value": True}]}
            )
        self.people.append(left)

    def kill(self) -> None:
        with self.connected() as conn:
            service.kill(conn, "operator", "workload/assistant", "for the test")

    def _some(self) -> UUID:
        if not self.made:
            self.make()
        return self.made.pop(random.randrange(len(self.made)))


@pytest.mark.parametrize("seed", range(5))
async def test_keys_are_as_if_all_were_read_again(database: Database, tmp_path: Path, seed: int) -> None:
    random.seed(seed)
    company = Company(database)
    company.make(networks=("10.0.0.0/8",), models=("m",), budget=10**12, budget_period="month", tags=("a",))
    async with following(database, tmp_path) as (view, connection):
        await view._load_policy(connection, None)
        for _ in range(15):
            for _ in range(random.choice((1, 1, 3))):
                random.choice(
                    (
                        company.make, company.rotate, company.revoke, company.kill, company.join, company.leave,
                        company.rename, company.come_back,
                    )
                )()  # fmt: skip
            await view._load_policy(connection, None)
            assert view.policy == await anew(database, tmp_path)


async def test_a_kill_of_a_key_covers_its_line(database: Database, tmp_path: Path) -> None:
    with psycopg.connect(database.urls["control"]) as conn:
        first, _ = service.create_key(conn, "operator", "assistant")
        second = service.rotate_key(conn, "operator", first, timedelta(hours=1))[0].id
        third = service.rotate_key(conn, "operator", second, timedelta(hours=1))[0].id
        other, _ = service.create_key(conn, "operator", "assistant")
    line = {f"key/{id}" for id in (first, second, third)}
    async with following(database, tmp_path) as (view, connection):
        for named in (first, third):
            with psycopg.connect(database.urls["control"]) as conn:
                service.kill(conn, "operator", f"key/{str(named).upper()}", "it asks oddly", streams=named == third)
            with psycopg.connect(database.urls["control"]) as conn, pytest.raises(Conflict, match="key_stopped"):
                service.rotate_key(conn, "operator", third, timedelta(hours=1))
            await view._load_policy(connection, None)
            assert view.policy.kills == line and f"key/{other}" not in view.policy.kills
            assert view.policy.severed == (line if named == third else set())
            with psycopg.connect(database.urls["control"]) as conn:
                service.lift(conn, "operator", f"key/{named.hex}")
            await view._load_policy(connection, None)
            assert not view.policy.kills and not view.policy.severed
    with psycopg.connect(database.urls["control"]) as conn:
        service.rotate_key(conn, "operator", third, timedelta(hours=1))


async def test_a_kill_reads_no_key(database: Database, tmp_path: Path) -> None:
    company = Company(database)
    for _ in range(3):
        company.make()
    async with following(database, tmp_path) as (view, connection):
        await view._load_policy(connection, None)
        before = view.policy
        company.kill()
        await view._load_policy(connection, None)
        assert view.policy.kills == {"workload/assistant"} and view.policy.keys is before.keys
        company.make()
        await view._load_policy(connection, None)
        assert len(before.keys) == 3 and len(view.policy.keys) == 4, "who reads the old ones still has them"


async def test_people_are_read_again_after_changes_of_people_only_and_a_part_at_a_time(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be a hundred thousand, and keys are made all the time."""
    monkeypatch.setattr(gateway_database, "TURN", 2)
    company = Company(database)
    for _ in range(4):
        company.join()
    async with following(database, tmp_path) as (view, connection):
        await view._load_policy(connection, None)
        before = view.policy
        assert len(before.people) == len(before.active) == 4
        for change in (company.make, company.kill):
            change()
            await view._load_policy(connection, None)
            assert view.policy.number > before.number
            assert view.policy.people is before.people and view.policy.active is before.active
        company.leave()
        await view._load_policy(connection, None)
        assert len(view.policy.active) == 4 and view.policy.active != before.active
        assert view.policy == await anew(database, tmp_path)


async def test_of_somebody_who_comes_changes_or_leaves_only_what_is_theirs_is_read(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that is taken up has thousands, one after the other."""
    company = Company(database)
    for _ in range(4):
        company.make()
        company.join()
    read: list[int] = []

    async def counted(*arguments: Any) -> Any:
        rows = await gateway_database.fetched(*arguments)
        read.append(len(rows))
        return rows

    async def never(*_: Any) -> Any:
        raise AssertionError("all keys were read")

    async with following(database, tmp_path) as (view, connection):
        await view._load_policy(connection, None)
        monkeypatch.setattr(key_store, "fetched", counted)
        monkeypatch.setattr(key_store, "_load_all", never)
        for change, most in ((company.join, 1), (company.rename, 4), (company.leave, 4), (company.come_back, 4)):
            change()
            read.clear()
            await view._load_policy(connection, None)
            changes, *rows = read
            assert changes <= 4 and sum(rows) <= most, (change.__name__, read)
        monkeypatch.undo()
        assert view.policy == await anew(database, tmp_path)


async def test_after_many_changes_and_by_hand_all_keys_are_read(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_store, "ROWS_PER_FETCH", 2)
    monkeypatch.setattr(key_store, "MAX_CHANGES", 3)
    company = Company(database)
    async with following(database, tmp_path) as (view, connection):
        await view._load_policy(connection, None)
        for _ in range(5):
            company.make()
        await view._load_policy(connection, None)
        assert len(view.policy.keys) == 5
        with company.connected() as conn:
            conn.execute("UPDATE api_key SET revoked_at = now()")
            conn.execute("SELECT next_policy_number('key', 'by hand', true)")
        await view._load_policy(connection, None)
        assert all(key.revoked for key in view.policy.keys.values())


async def slow(*_: Any, **__: Any) -> dict[bytes, Any]:
    raise TimeoutError


async def test_another_connection_may_be_to_a_database_that_has_other_keys(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was restored, or a replica that lost what was committed last, may go on with the same numbers."""
    company = Company(database)
    company.make()
    async with following(database, tmp_path) as (view, connection):
        await view._load_policy(connection, None)
        with psycopg.connect(database.superuser) as conn:
            conn.execute("DELETE FROM api_key")
        await view._load_policy(connection, None)
        assert len(view.policy.keys) == 1, "of the same database it is known already"
        view._is_new_connection = True
        await register(connection, view._epoch, tmp_path)
        with closing(await Listener.of(connection, live._HEARTBEAT)) as listener:
            with monkeypatch.context() as patch, pytest.raises(TimeoutError):
                patch.setattr(key_store, "load_keys", slow)
                await view.refresh(listener)
            await connection.execute("ROLLBACK")
            (acknowledged,) = await (await connection.execute("SELECT policy_ack FROM gateway")).fetchone() or ()
            assert acknowledged == 0, "what it knows is not what another revocation here will have the number of"
            await view.refresh(listener)
        assert view.policy.keys == {}


async def test_a_worker_whose_blueprint_the_database_lost_starts_anew(database: Database, tmp_path: Path) -> None:
    """Its number may be another blueprint's from now on."""
    async with following(database, tmp_path) as (view, connection):
        await register(connection, view._epoch, tmp_path)
        view.catalog, view._signature, view._is_new_connection = index(blueprint(2, [], [])), "then", False
        with closing(await Listener.of(connection, live._HEARTBEAT)) as listener:
            await view.refresh(listener)
            assert not view.fenced.is_set()
            view._is_new_connection = True  # the connection
            await view.refresh(listener)
        assert view.fenced.is_set()


async def test_a_worker_knows_no_keys_that_ended_long_ago(database: Database, tmp_path: Path) -> None:
    """Whether it begins now or had them while they were good: all that there ever were would fill its memory."""
    company = Company(database)
    for _ in range(5):
        company.make()
    company.rotate()
    old, ended, expired, lately = company.made[:4]  # the last one was rotated, or one of these
    with psycopg.connect(database.superuser) as conn:
        known = {id for (id,) in conn.execute("SELECT id::text FROM api_key").fetchall()}
    async with following(database, tmp_path) as (view, connection):
        await view._load_policy(connection, None)
        assert {key.id for key in view.policy.keys.values()} == known
        with psycopg.connect(database.superuser) as conn:
            conn.execute("UPDATE api_key SET expires_at = now() + interval '1 hour'")
            gone = [old, ended, expired]
            conn.execute("UPDATE api_key SET revoked_at = now() - interval '91 days' WHERE id = ANY(%s)", (gone[:2],))
            conn.execute("UPDATE api_key SET expires_at = now() - interval '91 days' WHERE id = %s", (expired,))
            conn.execute("UPDATE api_key SET revoked_at = now() - interval '89 days' WHERE id = %s", (lately,))
        left = known - {str(id) for id in gone}
        fresh = await anew(database, tmp_path)
        assert {key.id for key in fresh.keys.values()} == left
        (told,) = (key for key in fresh.keys.values() if key.id == str(lately))
        assert told.revoked, "whoever uses it is told so"
        view.policy = replace(fresh, keys=fresh.keys | {b"%d" % n: replace(told, expires=1.0 + n) for n in range(3)})
        view._keys_dropped_at = 0.0
        company.kill()
        await view._load_policy(connection, None)
        assert len(view.policy.keys) == len(left) + 3, "looked for only where keys come"
        for _ in range(2):
            company.make()
            await view._load_policy(connection, None)
        assert view.policy == await anew(database, tmp_path)


async def test_keys_of_a_line_share_what_they_know_of_each_other(database: Database, tmp_path: Path) -> None:
    """One that is rotated every hour has thousands in its line after a year. Those that ended long ago count, too: a
    budget may name one of them."""
    company = Company(database)
    company.make()
    first = str(company.made[0])
    with psycopg.connect(database.superuser) as conn:
        conn.execute(
            """INSERT INTO api_key (id, hash, prefix, workload, created_at, created_by, family, expires_at)
               SELECT gen_random_uuid(), sha256(n::text::bytea), 'gp', 'assistant', now(), 'operator', %s,
                 now() - make_interval(days => 120 - n) FROM generate_series(1, 125) n""",
            (first,),
        )
    lasting = {key.id: key for key in (await anew(database, tmp_path)).keys.values()}
    assert len(lasting) == 1 + 95 and {len(key.line) for key in lasting.values()} == {126}
    assert len({id(key.line) for key in lasting.values()}) == 1
    assert first in next(iter(lasting.values())).line
    async with following(database, tmp_path) as (view, connection):
        await view._load_policy(connection, None)
        company.rotate()
        await view._load_policy(connection, None)
        renewed = {key.id: key for key in view.policy.keys.values()}
        assert len(renewed) == 97 and {len(key.line) for key in renewed.values()} == {127}
        assert len({id(key.line) for key in renewed.values()}) == 1
