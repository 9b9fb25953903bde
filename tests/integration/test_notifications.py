"""What PostgreSQL tells a worker's connection: at once, in order, and not without being there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection

from groundplan.gateway.database import Connection
from groundplan.gateway.notifications import Listener, wait_for_notifications
from groundplan.testing.database import Database


async def receive_notifications(connection: Connection) -> list[str]:
    async with asyncio.timeout(20):
        return [notice.payload async for notice in wait_for_notifications(connection)]


def notify(database: Database, *payloads: str) -> None:
    with psycopg.connect(database.urls["owner"], autocommit=True) as other:
        for payload in payloads:
            other.execute("SELECT pg_notify('heard_test', %s)", (payload,))


async def test_what_is_told_is_heard_at_once(database: Database) -> None:
    async with await AsyncConnection.connect(database.urls["owner"], autocommit=True) as connection:
        await connection.execute("LISTEN heard_test")
        waiting = asyncio.create_task(receive_notifications(connection))
        await asyncio.sleep(0.3)
        assert not waiting.done(), "without a beat nobody is woken for nothing"
        await asyncio.to_thread(notify, database, "one")
        assert await waiting == ["one"]


async def test_what_was_told_during_a_statement_is_heard_without_waiting(database: Database) -> None:
    async with await AsyncConnection.connect(database.urls["owner"], autocommit=True) as connection:
        await connection.execute("LISTEN heard_test")
        await asyncio.to_thread(notify, database, "one", "two")
        await connection.execute("SELECT 1")
        assert await receive_notifications(connection) == ["one", "two"]


async def _until_lost(connection: Connection) -> int:
    """How often it was listened to until then."""
    for times in range(1, 100):
        try:
            assert await receive_notifications(connection) == []
        except psycopg.Error:
            return times
    raise AssertionError("a lost connection is never told")


async def test_a_lost_connection_is_told(database: Database) -> None:
    async with await AsyncConnection.connect(database.urls["owner"], autocommit=True) as connection:
        await connection.execute("LISTEN heard_test")
        waiting = asyncio.create_task(_until_lost(connection))
        await asyncio.sleep(0.1)
        with psycopg.connect(database.urls["owner"], autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        assert await waiting <= 3, "nobody turns round and round for it"
        with pytest.raises(psycopg.Error):
            await receive_notifications(connection)


@asynccontextmanager
async def listening(database: Database, statement: LiteralString = "SELECT $1::int + 1") -> AsyncIterator[Listener]:
    connection = await AsyncConnection.connect(database.urls["owner"], autocommit=True)
    try:
        await connection.execute("LISTEN heard_test")
        async with asyncio.timeout(20):
            with closing(await Listener.of(connection, statement)) as listener:
                yield listener
    finally:
        await connection.close()


async def seconds_until_told(listener: Listener, most: float) -> float:
    began = time.monotonic()
    await listener.wait(most)
    return time.monotonic() - began


async def test_a_listener_sleeps_until_it_is_told_something_or_until_the_beat(database: Database) -> None:
    async with listening(database) as listener:
        assert await listener.execute([1], 10) == [b"2"]
        assert 0.05 < await seconds_until_told(listener, 0.2) < 10
        waiting = asyncio.create_task(seconds_until_told(listener, 1000))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await asyncio.to_thread(notify, database, "one")
        await waiting
        assert await listener.execute([2], 10) == [b"3"]
        assert await seconds_until_told(listener, 0.2) > 0.05, "what was told is told once"


async def test_a_listener_is_told_what_came_with_an_answer(database: Database) -> None:
    """Over either way of asking; else a revocation would be heard of a heartbeat later."""
    async with listening(database) as listener:
        await asyncio.to_thread(notify, database, "one")
        assert await listener.execute([1], 10) == [b"2"]
        await listener.wait(1000)
        await asyncio.to_thread(notify, database, "two")
        assert await (await listener.connection.execute("SELECT 5")).fetchone() == (5,)
        await listener.wait(1000)


async def test_a_listener_that_nobody_asks_is_not_woken_again_and_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was told lies in its socket until somebody reads."""
    woken, wake = [0], Listener._wake

    def counted(listener: Listener) -> None:
        woken[0] += 1
        wake(listener)

    monkeypatch.setattr(Listener, "_wake", counted)
    async with listening(database) as listener:
        await listener.execute([1], 10)
        await asyncio.to_thread(notify, database, "one")
        await asyncio.sleep(0.2)
        assert woken[0] <= 3
        await listener.wait(1000)
        await listener.execute([1], 10)


@pytest.mark.parametrize(
    ("statement", "found"),
    [("SELECT NULL, 'two', $1::int", [b"", b"two", b"7"]), ("SELECT 1 WHERE $1::int < 0", [])],
)
async def test_a_listener_gives_one_row_or_none(
    database: Database, statement: LiteralString, found: list[bytes]
) -> None:
    async with listening(database, statement) as listener:
        assert await listener.execute([7], 10) == found
        assert await listener.execute([7], 10) == found


async def test_what_a_listener_may_not_is_refused_as_ever(database: Database) -> None:
    async with listening(database, "SELECT 1 / $1::int") as listener:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await listener.execute([0], 10)
        assert await listener.execute([1], 10) == [b"1"]


async def test_what_takes_a_listener_too_long_is_ended_there(database: Database) -> None:
    """Else each try would leave one behind that waits for the same lock."""
    async with listening(database, "SELECT 'heard_test' FROM pg_sleep($1::int)") as listener:
        with pytest.raises(TimeoutError):
            await listener.execute([60], 0.1)
        with psycopg.connect(database.superuser) as other:
            query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
            for _ in range(200):
                running = other.execute(query, (listener.connection.info.backend_pid,)).fetchone()
                other.commit()
                if running == (0,):
                    break
                await asyncio.sleep(0.05)
        assert running == (0,)


async def test_a_listener_tells_that_its_connection_is_lost(database: Database) -> None:
    async with listening(database) as listener:
        waiting = asyncio.create_task(listener.wait(1000))
        await asyncio.sleep(0.1)
        with psycopg.connect(database.urls["owner"], autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (listener.connection.info.backend_pid,))
        with pytest.raises(psycopg.Error):
            await waiting
        with pytest.raises(psycopg.Error):
            await listener.execute([1], 10)
