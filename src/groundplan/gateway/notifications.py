"""Waits for PostgreSQL's notifications without polling: psycopg's own `notifies` wakes its process ten times a second.

`Listener` also repeats one statement over the same connection cheaply, for a heartbeat.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import LiteralString

from psycopg import Error, Notify, OperationalError
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from groundplan.gateway.database import Connection
from groundplan.gateway.stalls import Alarm
from groundplan.gateway.ticks import next_tick

_NAME = b"groundplan_again"
"""Name of the prepared statement."""


async def wait_for_notifications(connection: Connection) -> AsyncIterator[Notify]:
    """Wait until there are notifications, and yield them. Raises psycopg.Error where the connection is lost."""
    none_yet = True
    async for notice in connection.notifies(timeout=0):
        none_yet = False
        yield notice
    if none_yet:
        await _wait_readable(connection.fileno())
        async for notice in connection.notifies(timeout=0):
            yield notice


async def _wait_readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await waiter
    finally:
        loop.remove_reader(descriptor)


class Listener:
    """A connection that receives notifications, and executes one statement again and again. Create it with `of`.

    What psycopg does for any statement (a cursor, adapted values, registering the socket with the loop each time) takes
    more than twice as long as all the rest of the heartbeat. So this statement goes to libpq directly, and the socket
    stays registered with the loop. Other statements go over the connection as usual; one task uses both.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._loop = asyncio.get_running_loop()
        self._pgconn = connection.pgconn
        # psycopg registers its own descriptor with the loop whenever it waits, and removes it again
        self._descriptor = os.dup(connection.fileno())
        self._is_registered = self._was_notified = self._is_late = False
        self._waiter: asyncio.Future[None] | None = None
        connection.add_notify_handler(self._on_notify)

    @classmethod
    async def of(cls, connection: Connection, statement: LiteralString) -> Listener:
        """A listener that repeats `statement`, whose parameters are $1 and so on. Raises psycopg.Error."""
        await connection.execute(b"PREPARE %b AS %b" % (_NAME, statement.encode()))
        return cls(connection)

    async def execute(self, parameters: Sequence[object], seconds: float) -> list[bytes]:
        """Execute the statement; returns its row as text, or an empty list if it has none. `parameters`: values whose
        `str` PostgreSQL can read. After a TimeoutError the connection must not be used any more. Raises
        psycopg.Error, TimeoutError."""
        pgconn = self._pgconn
        pgconn.send_query_prepared(_NAME, [str(each).encode() for each in parameters])
        if pgconn.flush():
            raise OperationalError("PostgreSQL takes nothing more over this connection")
        self._is_late = False
        alarm = Alarm(self._loop, seconds, self._give_up)
        try:
            result = await self._next_result()
            while await self._next_result() is not None:
                """One statement has one result, and its end."""
        except (TimeoutError, asyncio.CancelledError):
            with suppress(Error):
                await self.connection.cancel_safe()
            raise
        finally:
            alarm.cancel()
        if result is None or result.status != ExecStatus.TUPLES_OK:
            raise OperationalError("no answer") if result is None else error_from_result(result)
        return [result.get_value(0, column) or b"" for column in range(result.nfields)] if result.ntuples else []

    async def wait(self, seconds: float) -> None:
        """Wait for a notification since the last call, but no longer than until the next tick of `seconds`. Raises
        psycopg.Error where the connection is lost."""
        self._is_late = False
        timer = self._loop.call_at(next_tick(self._loop.time(), seconds), self._give_up)
        try:
            while not (self._was_notified or self._is_late):
                await self._wait_readable()
                self._read()
        finally:
            timer.cancel()
        self._was_notified = False

    def close(self) -> None:
        """Unregister from the loop; the owner of the connection closes it."""
        self._unregister()
        os.close(self._descriptor)

    async def _next_result(self) -> PGresult | None:
        while self._pgconn.is_busy():
            await self._wait_readable()
            if self._is_late:
                raise TimeoutError
            self._read()
        return self._pgconn.get_result()

    def _read(self) -> None:
        self._pgconn.consume_input()
        while self._pgconn.notifies() is not None:
            self._was_notified = True

    async def _wait_readable(self) -> None:
        if not self._is_registered:
            self._is_registered = True
            self._loop.add_reader(self._descriptor, self._wake)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is None:
            self._unregister()  # nobody reads for a while, and the loop would call this all the time
        elif not self._waiter.done():
            self._waiter.set_result(None)

    def _unregister(self) -> None:
        if self._is_registered:
            self._is_registered = False
            self._loop.remove_reader(self._descriptor)

    def _give_up(self) -> None:
        self._is_late = True
        self._wake()

    def _on_notify(self, _: Notify) -> None:
        self._was_notified = True
