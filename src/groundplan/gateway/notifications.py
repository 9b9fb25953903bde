"""What PostgreSQL tells a connection, without looking in between whether it has told something: the `notifies` of
psycopg wakes its process ten times a second for that. And what one is asked again and again beside, as a heartbeat is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, LiteralString

from psycopg import AsyncConnection, Error, Notify, OperationalError
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from groundplan.gateway.stalls import Alarm
from groundplan.gateway.ticks import next_tick

_NAME = b"groundplan_again"


async def heard(connection: AsyncConnection[Any]) -> AsyncIterator[Notify]:
    """What PostgreSQL has told this connection, once there is something. Raises psycopg.Error where it is lost."""
    waits = True
    async for notice in connection.notifies(timeout=0):
        waits = False
        yield notice
    if waits:
        await _readable(connection.fileno())
        async for notice in connection.notifies(timeout=0):
            yield notice


async def _readable(descriptor: int) -> None:
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
    """A connection that is told something now and then, and asked one statement again and again. Make it with `of`.

    What psycopg does for any statement, with a cursor, adapted values and a socket that the loop is told of each time,
    takes more than twice as long as all the rest of such a one. So this one is put to libpq as it is, and the loop
    knows the socket for as long as it is listened to. Other statements go over the connection as ever; one task has
    both.
    """

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self.connection = connection
        self._loop = asyncio.get_running_loop()
        self._pgconn = connection.pgconn
        # psycopg tells the loop of its own whenever it waits, and takes that back
        self._descriptor = os.dup(connection.fileno())
        self._watched = self._told = self._late = False
        self._waiter: asyncio.Future[None] | None = None
        connection.add_notify_handler(self._note)

    @classmethod
    async def of(cls, connection: AsyncConnection[Any], statement: LiteralString) -> Listener:
        """One that asks `statement`, with $1 and so on for its parameters. Raises psycopg.Error."""
        await connection.execute(b"PREPARE %b AS %b" % (_NAME, statement.encode()))
        return cls(connection)

    async def ask(self, parameters: Sequence[object], seconds: float) -> list[bytes]:
        """The row that the statement gives, as text; empty: it gives none. `parameters` are what PostgreSQL reads as
        Python writes it. It is there within so many seconds, or else nothing more is to be asked of this connection.
        Raises psycopg.Error, TimeoutError."""
        pgconn = self._pgconn
        pgconn.send_query_prepared(_NAME, [str(each).encode() for each in parameters])
        if pgconn.flush():
            raise OperationalError("PostgreSQL takes nothing more over this connection")
        self._late = False
        alarm = Alarm(self._loop, seconds, self._give_up)
        try:
            found = await self._result()
            while await self._result() is not None:
                """One statement has one result, and its end."""
        except (TimeoutError, asyncio.CancelledError):
            with suppress(Error):
                await self.connection.cancel_safe()
            raise
        finally:
            alarm.cancel()
        if found is None or found.status != ExecStatus.TUPLES_OK:
            raise OperationalError("no answer") if found is None else error_from_result(found)
        return [found.get_value(0, column) or b"" for column in range(found.nfields)] if found.ntuples else []

    async def told(self, seconds: float) -> None:
        """Until PostgreSQL has told something since this was last asked, or the next beat of `seconds`. Raises
        psycopg.Error where the connection is lost."""
        self._late = False
        timer = self._loop.call_at(next_tick(self._loop.time(), seconds), self._give_up)
        try:
            while not (self._told or self._late):
                await self._readable()
                self._read()
        finally:
            timer.cancel()
        self._told = False

    def close(self) -> None:
        """The loop knows of it no more; the connection is its owner's to close."""
        self._unwatch()
        os.close(self._descriptor)

    async def _result(self) -> PGresult | None:
        while self._pgconn.is_busy():
            await self._readable()
            if self._late:
                raise TimeoutError
            self._read()
        return self._pgconn.get_result()

    def _read(self) -> None:
        self._pgconn.consume_input()
        while self._pgconn.notifies() is not None:
            self._told = True

    async def _readable(self) -> None:
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self._descriptor, self._wake)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is None:
            self._unwatch()  # whoever reads next may do so only after a while, and it would be told all the time
        elif not self._waiter.done():
            self._waiter.set_result(None)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._descriptor)

    def _give_up(self) -> None:
        self._late = True
        self._wake()

    def _note(self, _: Notify) -> None:
        self._told = True
