"""Cached answers of a workload that keeps content: they reach other workers and outlive a restart through PostgreSQL,
sealed, and what was stopped, cleared or erased meanwhile does not."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.nursery import fork_program

from groundplan.blueprint.model import Cache, Keep
from groundplan.core.audit.keys import create_keys
from groundplan.core.audit.store import destroy_subject_key
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import child_environment
from groundplan.gateway.caching import cache_store
from groundplan.gateway.caching.cache_link import StoredAnswer, StoreMessage
from groundplan.gateway.caching.cache_store import AnswerStore
from groundplan.identity import service as identity
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

CACHE = Cache(seconds=600, max_bytes=1 << 20, scope="workload")
SECRET = "the walrus sleeps at noon"


@dataclass
class CacheSetup:
    stack: Stack
    model: ScriptedModel
    keys: dict[str, str]
    person: str

    async def ask(self, text: str = SECRET, name: str = "kept", **more: object) -> str:
        reply = await self.stack.chat(self.keys[name], text, **more)
        assert reply.status == 200, reply.body
        return str(reply.json["groundplan"]["cache"])

    async def wait_until_stored(self, count: int) -> None:
        end = asyncio.get_running_loop().time() + 60
        while len(self.stack.sql("SELECT 1 FROM answer")) != count:
            assert asyncio.get_running_loop().time() < end, self.stack.sql("SELECT count(*) FROM answer")
            await asyncio.sleep(0.05)

    async def wait_until_linked(self) -> None:
        """Wait until the worker's answers reach the store, in their order; before that they are cached in the worker
        only."""
        for number in range(120):
            reply = await self.stack.chat(self.keys["kept"], f"is it there yet, for the {number}. time")
            call = reply.json["groundplan"]["call_id"]
            for _ in range(10):
                if self.stack.sql("SELECT 1 FROM answer WHERE call_id = %s", call):
                    self.stack.sql("DELETE FROM answer")
                    return
                await asyncio.sleep(0.05)
        raise AssertionError("no answer reaches the store")

    async def restart(self) -> None:
        for worker in self.stack.workers:
            worker.send_signal(signal.SIGTERM)
            await asyncio.to_thread(worker.wait, 60)
        self.stack.workers.clear()
        self.stack.start()
        await self.stack.wait_until_ready()

    async def wait_until_exact(self, text: str = SECRET) -> None:
        """Wait until the worker has the answer in its cache, without a call to the model."""
        before = self.model.counted
        end = asyncio.get_running_loop().time() + 60
        while True:
            reply = await self.stack.chat(self.keys["kept"], text, headers={"cache_control": "only-if-cached"})
            if reply.status == 200:
                break
            assert reply.code == "not_cached" and asyncio.get_running_loop().time() < end, reply.body
            await asyncio.sleep(0.05)
        assert reply.json["groundplan"]["cache"] == "exact" and self.model.counted == before


@pytest.fixture
async def cache_setup(database: Database, tmp_path: Path) -> AsyncIterator[CacheSetup]:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        workloads = [
            workload("kept", ["one"], cache=CACHE, keep=Keep(content="full", seconds=300)),
            workload("redacted", ["one"], cache=CACHE, keep=Keep(content="redacted", seconds=300)),
            workload("silent", ["one"], cache=CACHE),
        ]
        person = stack.person("ana@acme.example")
        keys = {each.name: stack.key(each.name, person) for each in workloads}
        shipper = fork_program(
            "groundplan.gateway.journal.shipper",
            ["--home", str(stack.home.root)],
            2,
            child_environment({"GROUNDPLAN_DATABASE_URL": database.dsn}),
        )
        try:
            stack.apply(blueprint(1, [deployment("one", port)], workloads))
            stack.start()
            await stack.wait_until_ready()
            created = CacheSetup(stack, model, keys, person)
            await created.wait_until_linked()
            yield created
        finally:
            shipper.terminate()
            await asyncio.to_thread(shipper.wait, 60)


async def test_answers_survive_a_restart_encrypted_and_only_if_content_is_kept(cache_setup: CacheSetup) -> None:
    for name in ("kept", "redacted", "silent"):
        assert await cache_setup.ask(name=name) == "none"
    await cache_setup.ask("streamed", stream=False)
    await cache_setup.wait_until_stored(2)
    rows = cache_setup.stack.sql("SELECT workload, sealed, answer::text FROM answer")
    assert {row[0] for row in rows} == {"kept"}
    assert all(row[1].startswith(f"sealed:{cache_setup.person}:") for row in rows)
    assert not any("walrus" in row[2] for row in rows)
    await cache_setup.restart()
    await cache_setup.wait_until_exact()
    assert await cache_setup.ask(name="silent") == "none"


async def test_another_worker_serves_the_answer_that_the_first_one_cached(cache_setup: CacheSetup) -> None:
    first = cache_setup.stack.workers[0]
    cache_setup.stack.start()
    await cache_setup.stack.wait_until_ready()
    os.kill(first.pid, signal.SIGSTOP)
    try:
        await cache_setup.wait_until_linked()
        assert await cache_setup.ask() == "none"
        await cache_setup.wait_until_stored(1)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    os.kill(cache_setup.stack.workers[1].pid, signal.SIGSTOP)
    try:
        await cache_setup.wait_until_exact()
    finally:
        os.kill(cache_setup.stack.workers[1].pid, signal.SIGCONT)


async def test_cleared_killed_or_erased_answers_do_not_come_back(cache_setup: CacheSetup) -> None:
    for text in ("cleared", "more"):
        await cache_setup.ask(text)
    await cache_setup.wait_until_stored(2)
    with psycopg.connect(cache_setup.stack.database.urls["control"]) as conn:
        number = identity.clear_answers(conn, "operator", "kept")
    await cache_setup.wait_until_stored(0)
    await cache_setup.stack.wait_until_acknowledged(number)
    await cache_setup.ask("stopped")
    await cache_setup.wait_until_stored(1)
    stop = "INSERT INTO kill_switch (id, scope, reason, by, lifted_at) VALUES (%s, 'site/site-one', 'x', 'o', now())"
    cache_setup.stack.policy("kill", "site/site-one", stop, new_id())
    await cache_setup.restart()
    await asyncio.sleep(1.5)
    assert await cache_setup.ask("stopped") == "none"


async def test_erasing_a_person_deletes_their_answers(cache_setup: CacheSetup) -> None:
    await cache_setup.ask("mine")
    await cache_setup.wait_until_stored(1)
    with psycopg.connect(cache_setup.stack.database.urls["control"]) as conn:
        destroy_subject_key(conn, cache_setup.person)
    await cache_setup.restart()
    await asyncio.sleep(1.5)
    assert await cache_setup.ask("mine") == "none"


def test_expired_killed_and_surplus_answers_are_deleted(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"good": (60, 0, 100), "old": (60, 0, 100), "over": (-1, 0, 1), "cleared": (60, 1, 1)}
    with psycopg.connect(database.superuser, autocommit=True) as conn:
        for name, (seconds, cleared, size) in reversed(rows.items()):
            conn.execute(
                "INSERT INTO answer (call_id, workload, cleared, made_at, expires_at, size, subjects, sealed)"
                " VALUES (%s, 'w', %s, now(), now() + make_interval(secs => %s), %s, '{site/s}', %s)",
                (new_id(), cleared, seconds, size, name),
            )

        def swept() -> set[str]:
            store = AnswerStore(Home(tmp_path), "")
            with psycopg.connect(database.urls["shipper"], autocommit=True) as shipper:
                store._sweep(shipper)
            return {row[0] for row in conn.execute("SELECT sealed FROM answer")}

        assert swept() == {"good", "old"}
        monkeypatch.setattr(cache_store, "MAX_STORED_BYTES", 150)
        assert swept() == {"good"}
        stop = "INSERT INTO kill_switch (id, scope, reason, by, lifted_at) VALUES (%s, 'site/s', 'x', 'o', now())"
        conn.execute(stop.encode(), (new_id(),))
        assert swept() == set()


def test_a_reader_of_a_number_has_received_all_lower_numbers(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stores of two replicas write at the same time, and each gives its workers what comes behind the last number
    that they have."""
    goes_on, begun = threading.Event(), threading.Event()

    def row(_: object, __: object, kept: StoredAnswer) -> tuple[object, ...]:
        if kept.whole == b"slow":
            begun.set()
            assert goes_on.wait(30)
        now = datetime.now(UTC)
        return UUID(bytes=kept.call), "w", 0, now, now + timedelta(hours=1), 1, [], "sealed"

    def write(*answers: bytes) -> None:
        store = AnswerStore(Home(tmp_path), "")
        store._waiting.extend(answer(each) for each in answers)
        with psycopg.connect(database.urls["shipper"], autocommit=True) as conn:
            store._write_waiting(conn)

    monkeypatch.setattr(cache_store, "_row_or_none", row)
    monkeypatch.setattr(SubjectKeys, "of", lambda _: "keys")
    with psycopg.connect(database.superuser, autocommit=True) as conn, ThreadPoolExecutor() as threads:
        first = threads.submit(write, b"quick", b"slow")
        assert begun.wait(30)
        second = threads.submit(write, b"quick")
        time.sleep(0.5)
        seen = [number for (number,) in conn.execute("SELECT number FROM answer")]
        goes_on.set()
        first.result(30)
        second.result(30)
        numbers = [number for (number,) in conn.execute("SELECT number FROM answer ORDER BY number")]
    assert len(numbers) == 3 and all(each > max(seen, default=0) for each in numbers if each not in seen)


def answer(whole: bytes) -> StoredAnswer:
    return StoredAnswer(
        digest=b"", stream=False, call=new_id().bytes, workload="w", made=0.0, until=0.0, deployment="one", subjects=[],
        person="", owner="", passages=[], cost=0, whole=whole, events=None, cleared=0, terms=b"",
    )  # fmt: skip


def test_an_answer_that_cannot_be_encrypted_blocks_no_other(database: Database, tmp_path: Path) -> None:
    home, other = Home(tmp_path / "home"), Home(tmp_path / "other")
    for each in (home, other):
        each.create()
        create_keys(each)
    theirs, ours = new_id(), new_id()
    store = AnswerStore(home, "")
    with psycopg.connect(database.urls["shipper"], autocommit=True) as conn:
        SubjectKeys.of(other).seal(conn, theirs, "a key that this HOME cannot read")
        for owner in (theirs, ours):
            store._enqueue(StoreMessage(kept=kept_for(str(owner))))
        store._write_waiting(conn)
    with psycopg.connect(database.superuser) as conn:
        (row,) = conn.execute("SELECT sealed FROM answer").fetchall()
    assert row[0].startswith(f"sealed:{ours}:") and not store._waiting


def test_a_failed_deletion_of_an_answer_is_retried_until_postgresql_accepts_it(
    database: Database, tmp_path: Path
) -> None:
    store, gone = AnswerStore(Home(tmp_path), ""), new_id()
    with (
        psycopg.connect(database.urls["shipper"], autocommit=True) as conn,
        psycopg.connect(database.superuser) as busy,
    ):
        conn.execute(
            "INSERT INTO answer (call_id, workload, cleared, made_at, expires_at, size, subjects, sealed)"
            " VALUES (%s, 'w', 0, now(), now() + interval '1 hour', 1, '{}', 's')",
            (gone,),
        )
        conn.execute("SET statement_timeout = 50")
        busy.execute("LOCK TABLE answer")
        store._enqueue(StoreMessage(dropped=[gone.bytes]))
        with pytest.raises(psycopg.errors.QueryCanceled):
            store._write_waiting(conn)
        busy.rollback()
        conn.execute("SET statement_timeout = 0")
        store._write_waiting(conn)
        assert not store._dropped
        assert conn.execute("SELECT count(*) FROM answer").fetchone() == (0,)


def kept_for(owner: str) -> StoredAnswer:
    now = time.time()
    return StoredAnswer(
        digest=b"d", stream=False, call=new_id().bytes, workload="w", made=now, until=now + 60, deployment="one",
        subjects=["site/s"], person="", owner=owner, passages=[], cost=1, whole=b"{}", events=None, cleared=0,
        terms=b"",
    )  # fmt: skip


async def test_the_memory_limit_of_the_cache_applies_to_all_workloads_together(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten answers of 100 kB are in one MiB, although each workload alone may have more."""
    monkeypatch.setenv("GROUNDPLAN_CACHE_MEMORY", "1")
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(say="x" * 100_000)
        cache = Cache(seconds=600, max_bytes=64 << 20, scope="workload")
        declared = [workload(name, ["one"], cache=cache, max_output_tokens=40_000) for name in ("first", "second")]
        stack.apply(blueprint(1, [deployment("one", port, max_output_tokens=40_000)], declared))
        keys = [stack.key(each.name) for each in declared]
        stack.start()
        await stack.wait_until_ready()

        async def ask(number: int) -> str:
            reply = await stack.chat(keys[number % 2], f"question {number}", max_tokens=40_000)
            assert reply.status == 200, reply.body
            return str(reply.json["groundplan"]["cache"])

        assert [await ask(number) for number in range(12)] == ["none"] * 12
        assert await ask(11) == await ask(4) == "exact"
        assert await ask(0) == await ask(1) == "none"
