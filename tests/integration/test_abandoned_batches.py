"""Batches whose HOME is gone: another gateway on the same database ends them, so that their money goes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.integration.test_batch_race import ordered

from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.batches import batch_store
from groundplan.gateway.batches.batch_runner import BatchRunner
from groundplan.gateway.batches.message_shapes import batch_json
from groundplan.gateway.database import connect
from groundplan.gateway.files.blobs import Blobs
from groundplan.testing import ManualClock
from groundplan.testing.database import Database


@asynccontextmanager
async def running_worker(database: Database, home: Path) -> AsyncIterator[None]:
    """The part of a worker that runs batches, with a HOME that never had a file."""
    nothing: Any = SimpleNamespace()
    gateway: Any = SimpleNamespace(
        ready=True, loop=asyncio.get_running_loop(), epoch=new_id(), clock=ManualClock(datetime.now(UTC)),
        live=SimpleNamespace(catalog=None), running_calls=0, pressure=SimpleNamespace(is_crowded=lambda _: False),
    )  # fmt: skip
    runner = BatchRunner(gateway, nothing, nothing, database.urls["gateway"], Blobs(Home(home)))
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await runner.close()


async def ended_status(admin: psycopg.Connection[Any], batch: UUID) -> str:
    async with asyncio.timeout(60):
        while True:
            row = admin.execute("SELECT status FROM batch WHERE id = %s AND ended_at IS NOT NULL", (batch,)).fetchone()
            if row is not None:
                return str(row[0])
            await asyncio.sleep(0.05)


async def test_an_expired_batch_of_a_home_that_is_gone_ends_at_another_one(database: Database, tmp_path: Path) -> None:
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        gone, fresh = ordered(admin), ordered(admin)
        admin.execute("UPDATE batch SET expires_at = now() - interval '2 hours' WHERE id = %s", (gone,))
        admin.execute("UPDATE batch SET expires_at = now() - interval '1 minute' WHERE id = %s", (fresh,))
        async with running_worker(database, tmp_path):
            assert await ended_status(admin, gone) == "expired"
        states: dict[UUID, str] = dict(admin.execute("SELECT batch_id, state FROM batch_line").fetchall())
        assert states == {gone: "done", fresh: "pending"}, "its own gateway ends the other one"


async def test_a_message_batch_whose_input_is_gone_ends_without_results(database: Database, tmp_path: Path) -> None:
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin)
        admin.execute("DELETE FROM batch_line")
        admin.execute(
            """UPDATE batch SET endpoint = '/v1/messages', status = 'validating', total = 3,
                 expires_at = now() - interval '2 hours'"""
        )
        async with running_worker(database, tmp_path):
            assert await ended_status(admin, batch) == "failed"
        async with await connect(database.urls["gateway"]) as connection:
            found = await batch_store.find(connection, batch)
    assert found is not None and [error["code"] for error in found.errors] == ["file_elsewhere"]
    told = batch_json(found, (0, 0))
    assert told["processing_status"] == "ended" and told["request_counts"]["errored"] == 3


async def test_a_batch_whose_input_is_lost_fails_at_once(database: Database, tmp_path: Path) -> None:
    """It would be checked again and again until it expires, a day later."""
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin)
        admin.execute("DELETE FROM batch_line")
        admin.execute("UPDATE batch SET status = 'validating'")
        Blobs(Home(tmp_path)).mark(batch)
        async with running_worker(database, tmp_path):
            assert await ended_status(admin, batch) == "failed"
        assert "file_elsewhere" in str(admin.execute("SELECT errors FROM batch").fetchone())


@pytest.mark.parametrize(
    ("hours", "state", "abandoned"),
    [(0, None, False), (2, None, True), (2, "ended", True), (2, "sent", False), (25, "sent", True)],
)
async def test_a_batch_whose_order_waits_for_its_provider_is_left_to_its_home_for_a_day(
    database: Database, hours: int, state: str | None, abandoned: bool
) -> None:
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin)
        admin.execute("UPDATE batch SET expires_at = now() - make_interval(hours => %s)", (hours,))
        if state is not None:
            admin.execute(
                "INSERT INTO batch_order (id, batch_id, deployment, blueprint, state) VALUES (%s, %s, '{}', 1, %s)",
                (new_id(), batch, state),
            )
    async with await connect(database.urls["gateway"]) as connection:
        assert await batch_store.list_abandoned(connection) == ([batch] if abandoned else [])
