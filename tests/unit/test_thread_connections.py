"""Statements in threads while PostgreSQL is away: nobody waits for those who wait before them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from groundplan.core.errors import Unavailable
from groundplan.gateway import thread_connections
from groundplan.gateway.thread_connections import ThreadConnections

AWAY = "postgresql://nobody@127.0.0.1:1/nothing"


def unreachable() -> Unavailable:
    return Unavailable("it is away", code="database_unavailable", hint="Try again.")


async def test_a_crowd_of_threads_waits_no_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By turns the last of them would wait for 7.5 s."""
    monkeypatch.setattr(thread_connections, "TIMEOUT_SECONDS", 0.5)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
    database, began = ThreadConnections(AWAY, "shelf", 4, unreachable), monotonic()
    found = await asyncio.gather(*(database.run(lambda _: None) for _ in range(60)), return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in found)
    assert monotonic() - began < 3
    await database.close()


class Pool:
    """A pool that has a connection, or none."""

    def __init__(self) -> None:
        self.away, self.asked = True, 0

    def open(self) -> None:
        """It is."""

    @contextmanager
    def connection(self) -> Iterator[str]:
        self.asked += 1
        if self.away:
            raise PoolTimeout
        yield "connection"


@pytest.mark.parametrize("fails", ["asyncio_0", "shelf-scheduler", "shelf-worker-0"])
async def test_the_database_is_tried_again_once_threads_are_available(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a user who may have no more of them for a moment: a pool that could not begin is none."""
    monkeypatch.setattr(thread_connections, "AWAY_SECONDS", 0.05)
    monkeypatch.setattr(thread_connections, "TIMEOUT_SECONDS", 0.2)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4, "asyncio"))
    start, tried = threading.Thread.start, list[str]()

    def started(self: threading.Thread) -> None:
        if self.name == fails:
            raise RuntimeError("can't start new thread")
        start(self)

    def connect(*_: object, **__: object) -> None:
        tried.append("")
        raise psycopg.OperationalError("nobody is there")

    monkeypatch.setattr(thread_connections._TimedConnection, "connect", connect)
    database = ThreadConnections(AWAY, "shelf", 1, unreachable)
    with monkeypatch.context() as system:
        system.setattr(threading.Thread, "start", started)
        with pytest.raises(Unavailable):
            await database.run(str)
    assert not tried
    await asyncio.sleep(0.06)
    with pytest.raises(Unavailable):
        await database.run(str)
    assert tried, "somebody connects for it now"
    await database.close()


async def test_one_thread_probes_whether_the_database_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_connections, "AWAY_SECONDS", 0.05)
    database, pool = ThreadConnections(AWAY, "shelf", 4, unreachable), Pool()
    database._pool = pool  # type: ignore[assignment]

    async def asked(many: int) -> list[Any]:
        return await asyncio.gather(*(database.run(str) for _ in range(many)), return_exceptions=True)

    await asked(1)
    await asked(5)
    assert pool.asked == 1, "nobody waits for what is known to be away"
    await asyncio.sleep(0.06)
    await asked(5)
    assert pool.asked == 2, "one of them finds out"
    pool.away = False
    await asyncio.sleep(0.06)
    assert "connection" in await asked(5)
    assert await asked(5) == ["connection"] * 5, "it is back for all"
