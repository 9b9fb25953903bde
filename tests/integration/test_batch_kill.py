"""Batches while workers are killed at any moment: every line once, money exact, nothing held for ever."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, AsyncOpenAI
from openai.types import Batch
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.nursery import Worker, fork_program
from tests.integration.test_batches import BATCH_RATES, CHAT, LINE, create_batch, input_lines

from groundplan.core.endpoints import lookup
from groundplan.core.money import PICO
from groundplan.gateway.telemetry.content_link import SERVICE as CONTENT_WRITER
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script

COUNT = 60
UNRECOVERED = """SELECT 1 FROM gateway g LEFT JOIN shipped s USING (epoch)
    WHERE g.host <> 'batch' AND NOT coalesce(s.done, false)"""


@asynccontextmanager
async def run_shipper(stack: Stack) -> AsyncIterator[Worker]:
    """The process that takes journals over and recovers those of dead workers."""
    with (stack.home.logs / "shipper.log").open("ab") as log:
        environment = {**os.environ, "GROUNDPLAN_DATABASE_URL": stack.database.dsn}
        arguments = ["--home", str(stack.home.root)]
        process = fork_program("groundplan.gateway.journal.shipper", arguments, log.fileno(), environment)
    try:
        async with asyncio.timeout(60):
            while lookup(stack.home, CONTENT_WRITER) is None:  # noqa: ASYNC110 -- another process announces it
                await asyncio.sleep(0.05)
        yield process
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 60)


async def retrieve_batch_if_served(client: AsyncOpenAI, id: str) -> Batch | None:
    """None while no worker answers."""
    try:
        return await client.batches.retrieve(id)
    except APIError:
        return None


async def retry_until_served(make: Any) -> Any:
    """Until a worker answers."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await make()
            except APIError:
                await asyncio.sleep(0.3)


@pytest.mark.parametrize("seed", [1])
async def test_every_line_is_in_one_row_and_budgets_are_exact(database: Database, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack, run_shipper(stack):
        places = [deployment("one", port, rates=BATCH_RATES)]
        limit = PICO * COUNT // 10_000  # exactly what the batch may cost
        stack.apply(blueprint(1, places, [workload("assistant", ["one"], deadline_ms=10_000)], limit=limit))
        model.script = Script(tokens=20, latency_ms=60)
        stack.start(2)
        await stack.wait_until_ready()
        url = f"http://127.0.0.1:{stack.port}/v1"
        async with AsyncOpenAI(base_url=url, api_key=stack.key(), max_retries=0, timeout=30) as client:
            file = await retry_until_served(
                lambda: client.files.create(file=("a.jsonl", input_lines(COUNT)), purpose="batch")
            )
            batch = await retry_until_served(
                lambda: client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            )
            for _ in range(4):
                await asyncio.sleep(dice.uniform(0.05, 0.7))
                victim = dice.randrange(len(stack.workers))
                stack.workers[victim].kill()
                stack.workers.pop(victim).wait()
                stack.start(1)
            async with asyncio.timeout(90):
                while (  # noqa: ASYNC110 -- what is waited for has no event
                    found := await retrieve_batch_if_served(client, batch.id)
                ) is None or found.status != "completed":
                    await asyncio.sleep(0.2)
            await check_results(stack, client, found, model.counted)


async def check_results(stack: Stack, client: AsyncOpenAI, batch: Batch, counted: int) -> None:
    results: list[dict[str, Any]] = []
    for id in (batch.output_file_id, batch.error_file_id):
        if id is not None:
            found = await retry_until_served(
                lambda id=id: client.files.content(id)
            )  # the newest worker may not be ready yet
            results += [json.loads(text) for text in found.text.splitlines()]
    assert sorted(r["custom_id"] for r in results) == sorted(f"c{n}" for n in range(COUNT))
    counts = batch.request_counts
    assert counts is not None and counts.completed + counts.failed == counts.total == COUNT
    failures = [r for r in results if r["error"] is not None or r["response"]["status_code"] != 200]
    assert counts.failed == len(failures)
    for failure in failures:  # a call that a dead worker had sent, or one for which a dead worker kept the money
        told = failure["error"] or failure["response"]["body"]["error"]
        assert told["code"] in ("batch_line_interrupted", "budget_exhausted"), failure
    await asyncio.to_thread(stack.stop)
    async with asyncio.timeout(60):
        while stack.sql(UNRECOVERED):  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.2)
    ((rows, calls),) = stack.sql(
        "SELECT count(*), count(DISTINCT l.call_id) FROM batch_line l JOIN call c ON c.id = l.call_id"
    )
    assert rows == calls == COUNT, "a line without its one row in the ledger"
    ((attempts, spent),) = stack.sql("SELECT count(*), sum(cost_usd) FROM attempt")
    assert counted <= attempts <= COUNT and spent <= COUNT * LINE
    ((granted, limit),) = stack.sql("SELECT granted_usd, limit_usd FROM budget_period")
    assert granted == Decimal(spent) <= limit, "money is held for nothing, or was spent twice"
    assert list((stack.home.root / "batches").iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
async def test_lines_whose_provider_asked_to_be_called_later_outlive_their_worker(
    database: Database, tmp_path: Path, how: signal.Signals
) -> None:
    """Nobody billed what was refused: whoever comes next asks again."""
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack, run_shipper(stack):
        stack.apply(blueprint(1, [deployment("one", port, rates=BATCH_RATES)], [workload("assistant", ["one"])]))
        model.script = Script(tokens=20, mode="error", status=429, retry_after="50")
        stack.start()
        await stack.wait_until_ready()
        url = f"http://127.0.0.1:{stack.port}/v1"
        async with AsyncOpenAI(base_url=url, api_key=stack.key(), max_retries=0, timeout=30) as client:
            batch = await create_batch(client, input_lines(3))
            async with asyncio.timeout(30):
                while not model.counted:  # noqa: ASYNC110 -- what is waited for has no event
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)  # it waits
            stack.workers[0].send_signal(how)
            await asyncio.to_thread(stack.workers.pop().wait, 60)
            model.script = Script(tokens=20)
            stack.start()
            async with asyncio.timeout(60):
                while (  # noqa: ASYNC110 -- what is waited for has no event
                    found := await retrieve_batch_if_served(client, batch.id)
                ) is None or found.status != "completed":
                    await asyncio.sleep(0.2)
            counts = found.request_counts
            assert counts is not None and (counts.completed, counts.failed) == (3, 0)
