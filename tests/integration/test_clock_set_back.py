"""A wall clock that is set back: nothing that had ended begins again, ids and the audit log go on, leases do not grow.

The worker is the real one, in this process so that it can be given a clock.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from websockets.exceptions import ConnectionClosed

from groundplan.blueprint.model import Budget, Rates
from groundplan.core.audit import SYSTEM, record, store
from groundplan.core.audit.keys import create_keys, load_private, load_public
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.sequencer import heal, sequence_batch
from groundplan.core.audit.verify import verify
from groundplan.core.clock import CATCH_UP_RATE, NonDecreasingClock
from groundplan.core.database import connect
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.gateway.app import serve
from groundplan.gateway.batches.orders import order_store
from groundplan.gateway.batches.orders.order_runner import OrderRunner
from groundplan.gateway.batches.providers.provider import FoundBatches
from groundplan.gateway.caching.idempotency import MEMORY_SECONDS
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.http.listeners import ListenSockets
from groundplan.gateway.upstream.dial import resolver_of
from groundplan.ledger.model import Reservation, Settlement
from groundplan.testing import ManualClock
from groundplan.testing.database import Database
from groundplan.testing.journal import read_segment
from groundplan.testing.scripted import Script

NOW = datetime(2036, 12, 1, 0, 0, 5, tzinfo=UTC)
BACK = NOW - timedelta(hours=30)
"""Another day and another month, and not long past by PostgreSQL's own clock: of a window that is it lends nothing."""


@dataclass
class Scene:
    stack: Stack
    clock: ManualClock
    key: str

    def records(self, kind: type[Any]) -> list[Any]:
        """What is in the journal."""
        entries = [e for path in sorted(self.stack.home.journal.glob("*/*.seg")) for e in read_segment(path)[0]]
        return [each.record for each in entries if isinstance(each.record, kind)]


@pytest.fixture
async def scene(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setenv("GROUNDPLAN_DATABASE_URL", database.dsn)
    clock = ManualClock(NOW)
    async with scripted_upstream("primary") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=20)
        made = blueprint(
            1,
            [
                deployment("primary", port),
                deployment("talker", port, kind="realtime", rates=Rates(input=0, output=PICO), max_output_tokens=30),
            ],
            [
                workload("assistant", ["primary"], also=["talker"], budgets=["month"]),
                workload("counted", ["primary"], calls_per_day=2),
                workload("ended", ["primary"], expires="2036-11-30"),
                workload("pilot", ["primary"], also=["talker"], expires="2036-12-01"),
            ],
        )
        made.budgets.append(Budget(name="month", covers="workload/assistant", limit=PICO // 5000 * 3, period="month"))
        stack.apply(made)
        worker = asyncio.create_task(serve(stack.home, ListenSockets(stack.listening), 0, clock=clock))
        try:
            await asyncio.wait_for(ready(stack, worker), 60)
            loop = asyncio.get_running_loop()
            assert loop.getaddrinfo == resolver_of(loop).getaddrinfo_of_database, "PostgreSQL is found where it was"
            yield Scene(stack, clock, await asyncio.to_thread(stack.key))
        finally:
            if not worker.done():
                signal.raise_signal(signal.SIGTERM)
            await worker


async def ready(stack: Stack, worker: asyncio.Task[int]) -> None:
    while not worker.done() and (await stack.ask("GET", "/readyz", None)).status != 200:  # noqa: ASYNC110 -- of a server
        await asyncio.sleep(0.05)


async def key_for(scene: Scene, name: str, expires: datetime | None = None) -> str:
    key = await asyncio.to_thread(scene.stack.key, name)
    changed = "UPDATE api_key SET expires_at = %s WHERE workload = %s"
    await scene.stack.wait_until_acknowledged(scene.stack.policy("key", name, changed, expires, name))
    return key


async def confirmed(scene: Scene, **headers: str) -> Reply:
    """The answer once live policy is confirmed again after the clock went on: an old confirmation is too old then."""
    async with asyncio.timeout(30):
        while True:
            reply = await scene.stack.chat(scene.key, headers=headers)
            if reply.status != 503 or reply.code != "policy_lease_expired":
                return reply
            await asyncio.sleep(0.02)


async def test_an_ended_budget_period_is_not_opened_again(scene: Scene) -> None:
    assert (await scene.stack.chat(scene.key)).status == 200
    scene.clock.set_now(BACK)
    replies = [await scene.stack.chat(scene.key) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert "2037-01-01" in replies[2].json["error"]["hint"]
    granted = scene.stack.sql("SELECT period, granted_usd FROM budget_period WHERE budget = 'month'")
    assert granted == [("2036-12", Decimal("0.0006"))]


async def test_a_realtime_response_after_the_period_ended_is_charged_to_the_next_one(scene: Scene) -> None:
    at, records = f"127.0.0.1:{scene.stack.port}/v1", scene.records
    async with AsyncOpenAI(websocket_base_url=f"ws://{at}", base_url=f"http://{at}", api_key=scene.key) as client:
        async with client.realtime.connect(model="talker") as connection, asyncio.timeout(30):
            await connection.input_audio_buffer.append(audio="AAAA")
            while not records(Reservation):  # noqa: ASYNC110 -- of a server
                await asyncio.sleep(0.05)
            scene.clock.set_now(NOW + timedelta(days=31))
            await connection.input_audio_buffer.append(audio="AAAA")
            await connection.input_audio_buffer.commit()
            while (await connection.recv()).type != "response.done":
                pass
    periods = [charge.period for made in records(Reservation) for charge in made.charges if charge.budget == "month"]
    assert periods == ["2036-12", "2037-01"]
    assert [(each.outcome, each.cost > 0) for each in records(Settlement)] == [("not_billed", False), ("ok", True)]


async def test_an_exhausted_day_and_an_ended_pilot_stay_ended(scene: Scene) -> None:
    counted, ended = await key_for(scene, "counted"), await key_for(scene, "ended")
    assert [(await scene.stack.chat(counted)).status for _ in range(3)] == [200, 200, 429]
    assert (await scene.stack.chat(ended)).code == "workload_expired"
    scene.clock.set_now(BACK)
    assert (await scene.stack.chat(counted)).code == "calls_per_day"
    assert (await scene.stack.chat(ended)).code == "workload_expired"


async def test_a_conversation_ends_with_the_last_day_of_its_workload(scene: Scene) -> None:
    at, key = f"127.0.0.1:{scene.stack.port}/v1", await key_for(scene, "pilot")
    async with AsyncOpenAI(websocket_base_url=f"ws://{at}", base_url=f"http://{at}", api_key=key) as client:
        async with client.realtime.connect(model="talker") as connection, asyncio.timeout(30):
            await connection.input_audio_buffer.append(audio="AAAA")
            while not scene.records(Reservation):  # noqa: ASYNC110 -- of a server
                await asyncio.sleep(0.05)
            scene.clock.set_now(NOW + timedelta(days=1))
            while (told := await connection.recv()).type != "error":
                pass
            assert told.error.code == "workload_expired"
            with pytest.raises(ConnectionClosed) as ended:
                await connection.recv()
            assert ended.value.rcvd is not None and ended.value.rcvd.code == 1008


async def test_an_expired_key_stays_expired(scene: Scene) -> None:
    key = await key_for(scene, "counted", NOW - timedelta(seconds=1))
    assert (await scene.stack.chat(key)).code == "key_expired"
    scene.clock.set_now(BACK)
    assert (await scene.stack.chat(key)).code == "key_expired"


async def test_an_answer_is_kept_for_ten_minutes(scene: Scene) -> None:
    headers = {"idempotency_key": "k"}
    first = await scene.stack.chat(scene.key, headers=headers)
    scene.clock.set_now(BACK)
    await asyncio.sleep(0.5)  # the worker looks at its clock several times a second
    scene.clock.advance(MEMORY_SECONDS - 1)
    again = await confirmed(scene, **headers)
    assert (again.status, again.body) == (200, first.body)
    scene.clock.advance(
        MEMORY_SECONDS * (1 / CATCH_UP_RATE - 1) + 2
    )  # the worker's clock goes slower until it is right again
    late = await confirmed(scene, **headers)
    assert (late.status, late.code) == (409, "idempotency_replayed")


async def test_leases_are_not_extended(scene: Scene) -> None:
    assert (await scene.stack.chat(scene.key)).status == 200
    hanging = scene.stack.lock_heartbeats()
    try:
        await asyncio.sleep(0.3)
        scene.clock.advance(62)
        scene.clock.set_now(BACK)
        reply = await scene.stack.chat(scene.key)
        assert (reply.status, reply.code) == (503, "policy_lease_expired")
    finally:
        hanging.close()


async def test_calls_keep_their_order_and_their_ids(scene: Scene) -> None:
    ids = []
    for moment in (NOW, BACK, NOW + timedelta(days=1)):
        scene.clock.set_now(moment)
        ids.append((await scene.stack.chat(scene.key)).headers["groundplan-call-id"])
    assert ids == sorted(ids) and len(set(ids)) == 3


class Unseen:
    """A provider that does not know of an order, which may still be on its way to it for a minute."""

    async def find(self, _: object) -> FoundBatches:
        return FoundBatches()

    def max_request_seconds(self, _: object) -> float:
        return 60.0


async def test_a_batch_does_not_expire_because_a_gateways_clock_was_briefly_fast(scene: Scene) -> None:
    """What is over stays over, and what was paid for it; so its time has to be over by PostgreSQL's clock, too."""
    said = {"model": "auto", "max_tokens": 20, "messages": [{"role": "user", "content": "q"}]}
    line = {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": said}
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{scene.stack.port}/v1", api_key=scene.key) as client:
        file = await client.files.create(file=("calls.jsonl", msgspec.json.encode(line)), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        scene.clock.set_now(NOW + timedelta(hours=25))
        async with asyncio.timeout(60):
            while batch.status in ("validating", "in_progress", "finalizing"):
                await asyncio.sleep(0.1)
                batch = await client.batches.retrieve(batch.id)
    assert batch.status == "completed", batch


async def ordered(conn: psycopg.AsyncConnection[Any]) -> tuple[UUID, UUID]:
    """A batch, and an order of it that is being sent."""
    file, batch, order = new_id(), new_id(), new_id()
    await conn.execute("INSERT INTO api_file VALUES (%s, 'w', NULL, 'batch', 'f', 1)", (file,))
    await conn.execute(
        """INSERT INTO batch (id, workload, key_id, person, endpoint, input_file, completion_window, status,
             expires_at) VALUES (%s, 'w', %s, '', '/v1/embeddings', %s, '24h', 'in_progress', now())""",
        (batch, file, file),
    )
    place = msgspec.json.encode(deployment("one", 1)).decode()
    made = "INSERT INTO batch_order (id, batch_id, deployment, blueprint, state) VALUES (%s, %s, %s, 1, 'sending')"
    await conn.execute(made, (order, batch, place))
    return batch, order


async def test_an_order_in_progress_is_not_sent_again_because_a_clock_is_fast(
    database: Database, tmp_path: Path
) -> None:
    """It is PostgreSQL that wrote down when it was sent."""
    gateway = SimpleNamespace(clock=ManualClock(NOW))
    orders = OrderRunner(cast("Any", gateway), cast("Any", None), Blobs(Home(tmp_path)), "")
    async with await psycopg.AsyncConnection.connect(database.superuser, autocommit=True) as conn:
        _, order = await ordered(conn)
        for age, state in (("59 seconds", "sending"), ("61 seconds", "new")):
            await conn.execute("UPDATE batch_order SET sending_at = now() - %s::interval", (age,))
            found = await order_store.find(conn, order)
            assert found is not None
            await orders._resolve_sending(conn, found, cast("Any", Unseen()))
            assert await (await conn.execute("SELECT state FROM batch_order")).fetchone() == (state,)


async def test_an_order_is_polled_although_postgresqls_clock_was_briefly_fast(database: Database) -> None:
    """In that moment each was put off until a minute after it; so were those that their provider had just made."""
    async with await psycopg.AsyncConnection.connect(database.superuser, autocommit=True) as conn:
        batch, order = await ordered(conn)
        for state, ahead, seconds, due in (
            ("sent", "0", 60.0, False), ("sent", "1 hour", 0.5, True), ("new", "1 day", 60.0, True),
            ("sending", "0", 3700.0, False), ("sending", "1 day", 3700.0, True),
        ):  # fmt: skip
            await order_store.postpone(conn, order, seconds)
            await conn.execute("UPDATE batch_order SET state = %s, next_at = next_at + %s::interval", (state, ahead))
            assert await order_store.list_due(conn, batch) == ([order] if due else []), (state, ahead)


@given(st.lists(st.integers(0, 1 << 40), min_size=2, max_size=50))
def test_ids_stay_ordered_whatever_the_clock_says(milliseconds: list[int]) -> None:
    ids = [new_id(moment) for moment in milliseconds]
    assert ids == sorted(ids) and len(set(ids)) == len(ids)


def test_the_audit_log_goes_on_and_verifies(database: Database, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    with connect(database.urls["control"], autocommit=True) as conn:
        for number, moment in enumerate((NOW, BACK, NOW, BACK - timedelta(days=400))):
            for part in range(2):
                detail: dict[str, Any] = {"n": number, "part": part}
                record(conn, action="test", actor=SYSTEM, subject=f"number/{number}", detail=detail, at=moment)
            with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
                sequence_batch(conn, log, heal(conn, log).orphans, 100)
        verdict = verify(home.audit, load_public(home, "checkpoint").public_bytes_raw())
        assert verdict.ok and verdict.entries == 8
        assert [index for index, _ in store.sequenced_from(conn, 0, 100)] == list(range(8))


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(-5000, 5000)), max_size=30))
def test_time_never_goes_back_and_never_stands_still(moves: list[tuple[int, int]]) -> None:
    """Whatever is done to the wall clock, at least most of the time that really passes passes."""
    machine = ManualClock(NOW)
    clock = NonDecreasingClock(machine)
    for passed, jump in moves:
        before = clock.now()
        machine.advance(passed)
        after = clock.now()
        assert after >= before + timedelta(seconds=passed * CATCH_UP_RATE)
        machine.set_now(machine.now() + timedelta(seconds=jump))
        assert clock.now() >= after and clock.now() >= machine.now()


def test_the_clock_follows_the_machine_again_once_it_caught_up() -> None:
    machine = ManualClock(NOW)
    clock = NonDecreasingClock(machine)
    machine.set_now(BACK)
    assert clock.now() == NOW
    machine.advance(10)
    assert clock.now() == NOW + timedelta(seconds=10) * CATCH_UP_RATE
    machine.set_now(NOW + timedelta(hours=1))
    assert clock.now() == NOW + timedelta(hours=1)


def test_a_briefly_wrong_time_is_not_kept() -> None:
    machine = ManualClock(NOW + timedelta(hours=1))
    clock = NonDecreasingClock(machine)
    machine.set_now(NOW)
    assert clock.now() == NOW + timedelta(hours=1)
    machine.advance(4 * 3600)
    assert clock.now() == machine.now() + timedelta(minutes=30)
    machine.advance(4 * 3600)
    assert clock.now() == machine.now()
    machine.advance(60)
    assert clock.now() == machine.now()


def test_a_clock_that_was_set_back_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """Else nobody knows why keys are over that are not, after a clock was wrong for a moment."""
    machine = ManualClock(NOW)
    clock = NonDecreasingClock(machine)
    machine.set_now(NOW - timedelta(seconds=5))
    clock.now()
    assert not caplog.records
    machine.set_now(NOW + timedelta(days=1))
    clock.now()
    machine.set_now(NOW)
    for _ in range(3):
        clock.now()
    assert ["set back by 86400 s" in each.getMessage() for each in caplog.records] == [True]
