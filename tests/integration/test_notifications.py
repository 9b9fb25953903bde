"""What PostgreSQL tells a worker's connection: at once, in order, and not without being there."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest
from psycopg import AsyncConnection

from groundplan.gateway.notifications import heard
from groundplan.testing.database import Database


async def told(connection: AsyncConnection[object], seconds: float | None = None) -> list[str]:
    async with asyncio.timeout(20):
        return [notice.payload async for notice in heard(connection, seconds)]


def notify(database: Database, *payloads: str) -> None:
    with psycopg.connect(database.urls["owner"], autocommit=True) as other:
        for payload in payloads:
            other.execute("SELECT pg_notify('heard_test', %s)", (payload,))


async def test_what_is_told_is_heard_at_once_and_silence_ends_at_the_beat(database: Database) -> None:
    async with await AsyncConnection.connect(database.urls["owner"], autocommit=True) as connection:
        await connection.execute("LISTEN heard_test")
        began = time.monotonic()
        assert await told(connection, 0.2) == []
        assert 0.05 < time.monotonic() - began < 10
        waiting = asyncio.create_task(told(connection))
        await asyncio.sleep(0.3)
        assert not waiting.done(), "without a beat nobody is woken for nothing"
        await asyncio.to_thread(notify, database, "one")
        assert await waiting == ["one"]


async def test_what_was_told_during_a_statement_is_heard_without_waiting(database: Database) -> None:
    async with await AsyncConnection.connect(database.urls["owner"], autocommit=True) as connection:
        await connection.execute("LISTEN heard_test")
        await asyncio.to_thread(notify, database, "one", "two")
        await connection.execute("SELECT 1")
        assert await told(connection) == ["one", "two"]


async def _until_lost(connection: AsyncConnection[object]) -> int:
    """How often it was listened to until then."""
    for times in range(1, 100):
        try:
            assert await told(connection) == []
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
            await told(connection)
