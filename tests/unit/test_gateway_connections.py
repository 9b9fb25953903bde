"""How long a worker tries to connect to PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

import psycopg
import pytest
from psycopg import AsyncConnection, OperationalError
from psycopg.errors import ConnectionTimeout

from groundplan.core.errors import Unavailable
from groundplan.gateway import database, thread_connections
from groundplan.gateway.thread_connections import ThreadConnections


async def test_a_server_that_was_too_slow_to_connect_to_has_longer_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection takes several answers; a server that is gone is left after two seconds as long as another one is
    there."""
    had, now, outcome = list[int](), 0.0, "answers"

    async def connect(_: type, __: str, *, connect_timeout: int, **___: Any) -> str:
        nonlocal now
        had.append(connect_timeout)
        if outcome == "refuses":
            raise OperationalError("refused")
        now += connect_timeout if outcome == "times out" else 0.1 if outcome == "answers" else 1.5
        if outcome == "times out":
            raise ConnectionTimeout("connection timeout expired")
        return "connection"

    monkeypatch.setattr(AsyncConnection, "connect", classmethod(cast(Any, connect)))
    monkeypatch.setattr(database, "monotonic", lambda: now)
    monkeypatch.setattr(database, "_connect_seconds", {})
    for outcome, seconds in (
        ("answers", 2), ("refuses", 2), ("times out", 2), ("refuses", 4), ("times out", 4), ("times out", 6),
        ("answers late", 6), ("answers", 6), ("answers", 2),
    ):  # fmt: skip
        try:
            await database.connect("postgresql://one/")
        except OperationalError:
            assert outcome != "answers"
        assert had.pop() == seconds
        had.clear()
    assert not database._connect_seconds


@pytest.mark.parametrize("pooled", ["asynchronous", "in threads"])
async def test_pools_give_a_slow_server_as_much_time_as_single_connections(
    monkeypatch: pytest.MonkeyPatch, pooled: str
) -> None:
    """What one kind of connection has learnt of a server, all have."""
    url, had = f"postgresql://{pooled.split()[-1]}/", list[int]()

    async def connect(_: type, __: str, *, connect_timeout: int, **___: Any) -> None:
        had.append(connect_timeout)
        raise ConnectionTimeout("connection timeout expired")

    def connect_in_thread(_: type, __: str, *, connect_timeout: int, **___: Any) -> None:
        had.append(connect_timeout)
        raise ConnectionTimeout("connection timeout expired")

    monkeypatch.setattr(AsyncConnection, "connect", classmethod(cast(Any, connect)))
    monkeypatch.setattr(psycopg.Connection, "connect", classmethod(cast(Any, connect_in_thread)))
    monkeypatch.setattr(database, "SECONDS", 0.1)
    monkeypatch.setattr(thread_connections, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(thread_connections, "AWAY_SECONDS", 0.0)
    monkeypatch.setattr(database, "_connect_seconds", {})
    pool = database.Pool(url, "one")
    threads = ThreadConnections(url, "one", 1, lambda: Unavailable("away", code="away", hint=""))
    try:
        while len(had) < 3:
            if pooled == "asynchronous":
                with suppress(OperationalError, TimeoutError):
                    async with pool.connection():
                        pass
            else:
                with suppress(Unavailable):
                    await threads.run(lambda _: None)
            await asyncio.sleep(0.01)
        assert had[:3] == [2, 4, 6]
        with suppress(OperationalError):
            await database.connect(url)
        assert had.pop() == 6
    finally:
        await pool.close()
        await threads.close()
