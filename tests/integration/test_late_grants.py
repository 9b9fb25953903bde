"""A grant that PostgreSQL makes once nobody waits for it any more: its statement was on the way while a machine stood
still, or its commit waited for a disk, and its worker has found another connection and learned of nothing there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.integration.test_lease_client import COST, MONTH, budget_of, granted, until, worker
from tests.integration.test_limit_leases import Wall, quota
from tests.integration.test_limit_leases import granted as limit_granted
from tests.integration.test_limit_leases import worker as limited

from groundplan.gateway.budgets import grant_connection
from groundplan.gateway.budgets.leases import CONCURRENT, REQUESTS
from groundplan.testing.database import Database


@dataclass
class LateWay:
    """What clients say next on a connection that has these words is on its way until it is to `arrive`, whether they
    are there or not."""

    port: int
    words: bytes = b""
    arrive: asyncio.Event = field(default_factory=asyncio.Event)
    held: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, server = await asyncio.open_connection("127.0.0.1", self.port)
        back = asyncio.create_task(_pass_on(there, writer))
        try:
            while data := await reader.read(1 << 16):
                if data[4:8] == b"\x04\xd2\x16\x2e":
                    await self.arrive.wait()
                    break  # that a statement is to end is not heard
                if self.words and self.words in data:
                    self.words, self.held = b"", self.held + 1
                    await self.arrive.wait()
                server.write(data)
                await server.drain()
        finally:
            with suppress(OSError):
                server.write_eof()
            await back
            server.close()
            writer.close()


async def _pass_on(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await there.read(1 << 16):
            with suppress(OSError):
                writer.write(data)


@asynccontextmanager
async def late_way(database: Database) -> AsyncIterator[tuple[LateWay, Database]]:
    """And the database as it is reached there."""
    url = database.urls["gateway"]
    port = int(url.rpartition("@127.0.0.1:")[2].partition("/")[0])
    way = LateWay(port)
    server = await asyncio.start_server(way.answer, "127.0.0.1", 0)
    async with server:
        far = url.replace(f":{port}/", f":{server.sockets[0].getsockname()[1]}/")
        changed = Database(database.name, database.urls | {"gateway": far}, database.dsn, database.superuser)
        yield way, changed
        way.arrive.set()


async def test_money_that_is_granted_once_nobody_waits_for_it_is_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody could use it before that worker connects anew, and callers are refused."""
    monkeypatch.setattr(grant_connection, "_STATEMENT_S", 0.3)
    budget = budget_of(10 * COST)
    async with late_way(database) as (way, far), worker(far, tmp_path) as one:
        assert await one.fill(budget)
        idle = one.slices.available("assistant", MONTH)
        first, way.words = one.leases._grants._connection, b"grant_budget"
        assert not await one.make_call(budget, idle + COST, 0)
        await until(lambda: way.held == 1 and one.leases._grants._connection is not first and one.leases.connected)
        before = granted(database, "assistant")
        way.arrive.set()
        await until(lambda: granted(database, "assistant") > before)
        await until(lambda: one.slices.available("assistant", MONTH) == granted(database, "assistant"))


async def test_places_among_calls_that_are_granted_once_nobody_waits_for_them_are_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no window that ends: each of them was lost for as long as that worker went on."""
    monkeypatch.setattr(grant_connection, "_STATEMENT_S", 0.3)
    slots = quota(CONCURRENT, 2, "now")
    async with late_way(database) as (way, far), limited(far, tmp_path, Wall(datetime.now(UTC))) as one:
        assert await one.take(quota(REQUESTS, 9), 1, 1)
        first, way.words = one.leases._grants._connection, b"grant_limit"
        assert not await one.take(slots, 1, 0)
        await until(lambda: way.held == 1 and one.leases._grants._connection is not first and one.leases.connected)
        way.arrive.set()
        await until(lambda: limit_granted(database, slots) > 0)
        await until(lambda: one.counters.available(slots.name, "now") == limit_granted(database, slots))
