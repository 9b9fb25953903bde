"""A line of a batch that two workers could both answer: one that was stopped, lost its connections, or is fenced.

It is sent once, and is in one row, whoever wakes when.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from openai import AsyncOpenAI
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.test_batch_kill import retry_until_served, run_shipper
from tests.integration.test_batches import BATCH_RATES, CHAT, LINE, contents, input_lines

from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.gateway.batches import batch_check, batch_store, result_store
from groundplan.gateway.batches.batch_runner import BatchRunner
from groundplan.gateway.batches.batch_store import BatchLine, ClaimedLine
from groundplan.gateway.database import Connection, connect
from groundplan.gateway.files import file_store
from groundplan.gateway.files.blobs import Blobs
from groundplan.testing import ManualClock
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script

COUNT = 10


async def until(stack: Stack, query: str, seconds: float = 60) -> list[tuple[Any, ...]]:
    async with asyncio.timeout(seconds):
        while not (rows := stack.sql(query)):  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.05)
    return rows


@pytest.mark.soak
async def test_only_the_stopped_worker_itself_completes_its_lines(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack, run_shipper(stack):
        place = deployment("one", port, rates=BATCH_RATES, first_token_ms=20_000)
        made = workload("assistant", ["one"], deadline_ms=60_000, batch_concurrent=2)
        stack.apply(blueprint(1, [place], [made], limit=PICO // 100))
        model.script = Script(tokens=20, latency_ms=700)
        stack.start(2)
        await stack.wait_until_ready()
        key = stack.key()
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{stack.port}/v1", api_key=key, max_retries=0) as client:
            file = await retry_until_served(
                lambda: client.files.create(file=("a.jsonl", input_lines(COUNT)), purpose="batch")
            )
            batch = await retry_until_served(
                lambda: client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            )
            rows = await until(
                stack,
                """SELECT g.pid, l.number, l.call_id FROM batch_line l JOIN gateway g ON g.epoch = l.epoch
                   WHERE l.state = 'running'""",
            )
            victim = rows[0][0]
            held = {number: call for pid, number, call in rows if pid == victim}
            await asyncio.sleep(0.2)  # they are sent by now
            os.kill(victim, signal.SIGSTOP)
            try:
                # its answers arrive, its connections to the database are lost, and the others have all the time
                await until(stack, f"SELECT 1 FROM batch_line HAVING count(*) FILTER (WHERE ok) >= {COUNT // 2}")
                stack.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid() AND usename LIKE '%%gateway'"
                )
                await asyncio.sleep(1.5)
                still = dict(stack.sql("SELECT number, call_id FROM batch_line WHERE state = 'running'"))
                assert held.items() <= still.items(), "a line of a worker that may wake was taken over"
            finally:
                os.kill(victim, signal.SIGCONT)
            async with asyncio.timeout(40):
                while (  # noqa: ASYNC110 -- what is waited for has no event
                    done := await retry_until_served(lambda: client.batches.retrieve(batch.id))
                ).status != "completed":
                    await asyncio.sleep(0.1)
            assert done.request_counts.completed == COUNT == model.counted, "a line was sent twice, or not at all"
            names = [entry["custom_id"] for entry in await contents(client, done.output_file_id)]
            assert names == [f"c{n}" for n in range(COUNT)]
        await until(stack, f"SELECT 1 FROM attempt HAVING count(*) FILTER (WHERE state = 'settled') >= {COUNT}")
        ((attempts, calls, spent),) = stack.sql("SELECT count(*), count(DISTINCT call_id), sum(cost_usd) FROM attempt")
        assert attempts == calls == COUNT and spent == COUNT * LINE
        lost = "SELECT 1 FROM batch_line l LEFT JOIN attempt a ON a.call_id = l.call_id WHERE a.call_id IS NULL"
        assert stack.sql(lost) == []


async def claimed(connection: Connection, batch: Any, worker: Any) -> ClaimedLine:
    """One line that `worker` has claimed."""
    await batch_store.claim_lines(connection, await find_batch(connection, batch), worker, 1)
    (line,) = await batch_store.list_claimed(connection, batch, worker)
    return line


async def find_batch(connection: Connection, batch: Any) -> batch_store.Batch:
    known = await batch_store.find(connection, batch)
    assert known is not None
    return known


def ordered(admin: psycopg.Connection[Any], *workers: Any) -> Any:
    """A batch of one line, in progress, with these workers alive; its id."""
    batch, file = new_id(), new_id()
    for worker in workers:
        admin.execute("INSERT INTO gateway (epoch, host, home, pid) VALUES (%s, 'h', '', 1)", (worker,))
    admin.execute(
        "INSERT INTO api_file (id, workload, purpose, filename, bytes) VALUES (%s, 'w', 'batch', 'f', 1)", (file,)
    )
    admin.execute(
        """INSERT INTO batch (id, workload, key_id, person, endpoint, input_file, completion_window, status, expires_at)
           VALUES (%s, 'w', %s, '', %s, %s, '24h', 'in_progress', now() + interval '1 day')""",
        (batch, new_id(), CHAT, file),
    )
    admin.execute(
        "INSERT INTO batch_line (batch_id, number, custom_id, place, length, held_usd) VALUES (%s, 1, 'a', 0, 1, 0)",
        (batch,),
    )
    return batch


def taken_over(admin: psycopg.Connection[Any], worker: Any) -> None:
    """The worker is dead, and its journal is in the ledger."""
    admin.execute("UPDATE gateway SET state = 'fenced' WHERE epoch = %s", (worker,))
    admin.execute("INSERT INTO shipped (epoch, segment, position, gaps, done) VALUES (%s, 1, 64, 0, true)", (worker,))


async def test_results_of_a_fenced_worker_are_ignored(database: Database) -> None:
    """A line went to another worker after its first one's journal was taken over: only the newest claim counts."""
    first, second = new_id(), new_id()
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin, first, second)
        async with await psycopg.AsyncConnection.connect(database.urls["gateway"], autocommit=True) as connection:
            early = await claimed(connection, batch, first)
            await batch_store.claim_lines(connection, await find_batch(connection, batch), second, 1)
            assert await batch_store.list_claimed(connection, batch, second) == [], "a running line was claimed again"
            taken_over(admin, first)
            await batch_store.recover_lines(connection, batch, "interrupted")
            late = await claimed(connection, batch, second)
            assert late.call != early.call and late.number == early.number
            await batch_store.end_line(connection, batch, early, ok=True, result=b'{"from":"first"}')
            assert await batch_store.has_open_lines(connection, batch) == 1, "a fenced worker's answer was taken"
            await batch_store.end_line(connection, batch, late, ok=True, result=b'{"from":"second"}')
            await batch_store.end_line(connection, batch, early, ok=False, result=b'{"from":"first"}')
            rows = admin.execute("SELECT ok, result, call_id FROM batch_line").fetchall()
            assert rows == [(True, '{"from":"second"}', late.call)]


async def test_a_line_that_was_sent_is_flagged_and_never_sent_again(database: Database) -> None:
    """Its worker's journal shows that it was sent: it ends as interrupted, and stays in the row that it has."""
    worker, other = new_id(), new_id()
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin, worker, other)
        async with await psycopg.AsyncConnection.connect(database.urls["gateway"], autocommit=True) as connection:
            line = await claimed(connection, batch, worker)
            admin.execute(
                """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, reserved_usd,
                     cost_usd, usage, epoch, workload, blueprint)
                   VALUES (%s, 0, now(), 'one', 's', 'm', 'crashed', 'crashed', 1, 1, '{}', %s, 'w', 1)""",
                (line.call, worker),
            )
            taken_over(admin, worker)
            await batch_store.recover_lines(connection, batch, "interrupted")
            assert await batch_store.has_open_lines(connection, batch) == 0
            await batch_store.claim_lines(connection, await find_batch(connection, batch), other, 1)
            assert await batch_store.list_claimed(connection, batch, other) == [], "it would be sent twice"
            (row,) = admin.execute("SELECT ok, result::json -> 'error' ->> 'code', call_id FROM batch_line").fetchall()
            assert row == (False, "batch_line_interrupted", line.call)


async def test_large_results_are_read_a_few_at_a_time(database: Database) -> None:
    """Some hundreds of answers with vectors, all at once, were gigabytes."""
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin)
        admin.execute("UPDATE batch_line SET state = 'done', ok = true, result = 'r1'")
        admin.execute(
            """INSERT INTO batch_line (batch_id, number, custom_id, place, length, held_usd, state, ok, result)
               SELECT %s, n, n::text, 0, 1, 0, 'done', n <> 7, rpad('r' || n, 9 + 3000000 * (1 - n %% 2))
               FROM generate_series(2, 12) n""",
            (batch,),
        )
    async with await connect(database.urls["gateway"], autocommit=False) as connection, connection.transaction():
        turns = [found async for found in result_store.iterate_results(connection, batch, ok=True)]
    assert [text.strip() for found in turns for text in found] == [f"r{n}" for n in range(1, 13) if n != 7]
    assert max(sum(map(len, found)) for found in turns) < result_store.MAX_BUFFERED_BYTES and len(turns) == 6


@pytest.mark.parametrize("when", ["read", "written"])
async def test_cancelling_a_batch_does_not_wait_for_its_start(
    database: Database, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Of fifty thousand lines that takes a while, after which it was told that there is no database."""
    nothing: Any = SimpleNamespace()
    runner = BatchRunner(nothing, nothing, nothing, database.urls["gateway"], nothing)
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin)
        admin.execute("UPDATE batch SET status = 'validating'")
        admin.execute("SET lock_timeout = '2s'")

        async def check(*_: Any) -> batch_check.CheckResult:
            if when == "read":
                cancel()
            return batch_check.CheckResult([BatchLine(2, "b", 0, 1, 0)], errors=[])

        async def hold(*_: Any) -> None:
            cancel()

        def cancel() -> None:
            admin.execute("UPDATE batch SET status = 'cancelling', cancelling_at = now()")

        monkeypatch.setattr(batch_check, "check", check)
        monkeypatch.setattr(runner, "_hold_budgets", hold)
        async with await connect(database.urls["gateway"]) as connection:
            await runner._check_batch(await find_batch(connection, batch), late=False)
            assert (await find_batch(connection, batch)).status == "cancelling"
            await batch_store.end_pending(connection, batch, "batch_cancelled", "it was")
            told = admin.execute("SELECT custom_id, ok, result FROM batch_line WHERE state = 'done'").fetchall()
            assert {name for name, _, _ in told} == ({"a"} if when == "read" else {"a", "b"})
            for name, ok, result in told:
                as_here = result_store.error_line(None, name, "batch_cancelled", "it was")
                assert {**json.loads(result), "id": as_here["id"]} == as_here and not ok
            await batch_store.mark_ended(connection, batch, "cancelled", (None, None), grounded=False)
            assert not await batch_store.mark_begun(connection, batch, 1, [], 0), "it has ended"


class FreshLeases:
    """Leases whose database was just lost, at the first booking."""

    def __init__(self) -> None:
        self.booked: list[Any] = []

    async def book_unrequested(self, keys: Any) -> None:
        self.booked.append(keys)
        if len(self.booked) == 1:
            raise psycopg.OperationalError("the connection is lost")


@pytest.mark.parametrize("ending", ["batch_cancelled", "batch_expired"])
async def test_lines_claimed_as_the_database_was_lost_end_with_their_batch(
    database: Database, tmp_path: Path, ending: str
) -> None:
    """Nobody began them, and nobody else may: until this worker ended, their batch did not, and held their money."""
    worker, clock, leases = new_id(), ManualClock(datetime.now(UTC)), FreshLeases()
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin, worker)
        gateway: Any = SimpleNamespace(
            epoch=worker, clock=clock, live=SimpleNamespace(catalog=None), running_calls=0,
            pressure=SimpleNamespace(is_crowded=lambda _: False),
        )  # fmt: skip
        nothing: Any = SimpleNamespace()
        runner = BatchRunner(gateway, cast(Any, leases), nothing, database.urls["gateway"], Blobs(Home(tmp_path)))
        try:
            with pytest.raises(psycopg.OperationalError):
                await runner._advance_batch(batch)
            assert admin.execute("SELECT state, epoch FROM batch_line").fetchall() == [("running", worker)]
            if ending == "batch_cancelled":
                admin.execute("UPDATE batch SET status = 'cancelling', cancelling_at = now()")
            else:
                admin.execute("UPDATE batch SET expires_at = now()")
                clock.advance(60)
            await runner._advance_batch(batch)
        finally:
            await runner.close()
        assert len(leases.booked) == 2, "the money that came with them is the worker's again"
        assert admin.execute("SELECT state, ok FROM batch_line").fetchall() == [("done", False)]
        found = admin.execute("SELECT status, error_file FROM batch").fetchone()
        assert found is not None and found[0] == ending.removeprefix("batch_")
        told = json.loads((tmp_path / "files" / str(found[1])).read_text())
        assert (told["custom_id"], told["error"]["code"]) == ("a", ending)


async def test_a_batch_that_was_begun_as_another_worker_ends_it_goes_on(database: Database, tmp_path: Path) -> None:
    """Cancelled while it was checked: its lines were not there when the other worker looked, and are since. Ended
    without them, it would hold their money for ever."""
    nothing: Any = SimpleNamespace()
    runner = BatchRunner(nothing, nothing, nothing, database.urls["gateway"], Blobs(Home(tmp_path)))
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin)
        admin.execute("UPDATE batch SET status = 'cancelling', cancelling_at = now()")
        async with await connect(database.urls["gateway"]) as connection:
            known = await find_batch(connection, batch)
            await runner._end_batch(known, late=False)
            assert (await find_batch(connection, batch)).status == "cancelling"
            await batch_store.end_pending(connection, batch, "batch_cancelled", "it was")
        assert admin.execute("SELECT state, ok FROM batch_line").fetchall() == [("done", False)]


@pytest.mark.parametrize("expires", [False, True])
async def test_a_batch_created_while_its_file_is_deleted_always_has_its_file(database: Database, expires: bool) -> None:
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        known = ordered(admin)
        (file,) = admin.execute("SELECT input_file FROM batch").fetchone() or ()
        admin.execute("UPDATE batch SET status = 'completed'")
        async with (
            await connect(database.urls["gateway"]) as ordering,
            await connect(database.urls["gateway"]) as deleting,
        ):
            again = replace(await find_batch(ordering, known), id=new_id(), status="validating", errors=[], charges=[])
            async with ordering.transaction():
                assert await file_store.lock_for_batch(ordering, file)
                await batch_store.add(ordering, again)
                if expires:  # it was there a moment ago
                    admin.execute("UPDATE api_file SET expires_at = now()")
                    await file_store.mark_expired(deleting)
                else:
                    gone = asyncio.create_task(file_store.delete(deleting, file))
                    assert not (await asyncio.wait([gone], timeout=0.3))[0], "it waits for the order"
            assert expires or not await gone
            assert admin.execute("SELECT deleted_at FROM api_file").fetchone() == (None,)
            admin.execute("UPDATE batch SET status = 'completed'")
            async with deleting.transaction():
                assert await file_store.delete(deleting, file)
                late = asyncio.create_task(file_store.lock_for_batch(ordering, file))
                await asyncio.sleep(0.05)
            assert not await late


async def test_concurrent_claims_never_return_the_same_line(database: Database) -> None:
    workers = [new_id() for _ in range(6)]
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin, *workers)
        for number in range(2, 41):
            admin.execute(
                """INSERT INTO batch_line (batch_id, number, custom_id, place, length, held_usd)
                   VALUES (%s, %s, %s, 0, 1, 0)""",
                (batch, number, f"c{number}"),
            )
        got = await asyncio.gather(*(_all(database.urls["gateway"], batch, worker) for worker in workers))
        numbers = sorted(line.number for lines in got for line in lines)
        assert numbers == list(range(1, 41)) and len({line.call for lines in got for line in lines}) == 40


async def test_a_worker_stopped_during_a_transfer_does_not_block_budgets(
    database: Database,
) -> None:
    """What `claim` had done, and did not commit, is undone, and its rows are free, once that is over."""
    worker = new_id()
    nothing: Any = SimpleNamespace()
    runner = BatchRunner(nothing, nothing, nothing, database.urls["gateway"], nothing)
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        ordered(admin, worker)
        admin.execute("INSERT INTO budget_period (budget, period, limit_usd, granted_usd) VALUES ('b', 'total', 9, 1)")
        admin.execute(
            "INSERT INTO budget_slice (epoch, budget, period, granted_usd) VALUES (%s, 'b', 'total', 1)", (worker,)
        )
        admin.execute("SET lock_timeout = '10s'")
        connection = await runner._connect()
        assert await (await connection.execute("SHOW idle_in_transaction_session_timeout")).fetchone() == ("2s",)
        await connection.execute("SET idle_in_transaction_session_timeout = '50ms'")
        stopped = connection.transaction()
        await stopped.__aenter__()
        await connection.execute("SELECT move_hold(%s, NULL, 0.5)", (worker,))
        admin.execute("UPDATE budget_period SET granted_usd = granted_usd WHERE budget = 'b'")  # waits for it
        assert admin.execute("SELECT granted_usd FROM budget_period").fetchone() == (1,), "it was moved"
        with pytest.raises(psycopg.Error):
            await stopped.__aexit__(None, None, None)
        await runner.close()


async def _all(url: str, batch: Any, worker: Any) -> list[ClaimedLine]:
    """Claim two at a time until nothing is left."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        before = -1
        while before != (now := len(await batch_store.list_claimed(connection, batch, worker))):
            before = now
            for _ in range(3):
                await batch_store.claim_lines(connection, await find_batch(connection, batch), worker, 2)
        return await batch_store.list_claimed(connection, batch, worker)
