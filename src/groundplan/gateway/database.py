"""How a worker reaches PostgreSQL beside the request path: for a moment, or through a pool for requests that need it.

Statements are those of the stores; what PostgreSQL tells by itself is in `notifications`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from time import monotonic
from typing import Any, LiteralString, Self

from psycopg import AsyncConnection, OperationalError
from psycopg.abc import RV, PQGen
from psycopg.errors import ConnectionTimeout, ReadOnlySqlTransaction, UndefinedTable
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg_pool import AsyncConnectionPool

from groundplan.core.errors import Misconfigured, Unavailable
from groundplan.gateway.stalls import patient
from groundplan.gateway.ticks import TURN

Connection = AsyncConnection[tuple[Any, ...]]
SECONDS = 3.0
"""Longest that a caller waits for PostgreSQL."""
CANCEL_SECONDS = 0.3
"""In which PostgreSQL takes it that a statement is to end, where it takes anything."""
MAX_STATEMENT_SECONDS = 120.0
"""The longest that a statement takes, where its user sets no limit: a server that is suspended never answers, and keeps
its connections open while another one has taken its place."""
BRIEFLY: LiteralString = "SET idle_in_transaction_session_timeout = '2s'"
"""What a transaction has locked, as the room of a workload for files, others wait for: a worker that is stopped in the
middle of one keeps them from it for no longer."""
_CONNECT_S = 2
_MOST_CONNECT_S = 6
_connect_seconds: dict[str, int] = {}
"""By address: seconds for each of its servers, where `_CONNECT_S` were not enough lately."""
_INSERT_S = 5.0
_CONNECTIONS = 2
_DURABLE = """SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')"""


def database_unavailable(message: str, hint: str) -> Unavailable:
    """The error for a request that needs PostgreSQL while it is away."""
    return Unavailable(message, code="database_unavailable", hint=hint, retry_after=2.0)


@contextmanager
def connect_timeout(url: str) -> Iterator[int]:
    """The seconds that each server of an address has for a connection, which is made inside: two, and after a try that
    was too short two more, up to six. A busy PostgreSQL, which needs some of a second for each answer, has to give
    several until a connection is there. Every connection of a worker, single or of a pool, goes by this."""
    seconds, began = _connect_seconds.get(url, _CONNECT_S), monotonic()
    try:
        yield seconds
    except ConnectionTimeout:
        _connect_seconds[url] = min(_MOST_CONNECT_S, seconds + _CONNECT_S)
        raise
    if monotonic() - began < _CONNECT_S / 2:
        _connect_seconds.pop(url, None)


@contextmanager
def leaving_lost_server(connection: PGconn) -> Iterator[None]:
    """Close a connection whose server does not answer the statement inside, or may write no more, as one that is left
    with connections after a failover: the next one is to the right server. Raises as the statement."""
    try:
        yield
    except (OperationalError, ReadOnlySqlTransaction) as error:
        if isinstance(error, ReadOnlySqlTransaction) or connection.transaction_status == TransactionStatus.ACTIVE:
            connection.finish()
        raise


class _Prompt(AsyncConnection[Any]):
    """One that is not waited for by whoever waits no more: psycopg gives PostgreSQL ten seconds to end a statement. It
    leaves a lost server."""

    @classmethod
    async def connect(cls, conninfo: str = "", **more: Any) -> Self:
        """As psycopg's, within the time of `connect_timeout`. Raises psycopg.Error, OSError."""
        with connect_timeout(conninfo) as seconds:
            return await super().connect(conninfo, **{**more, "connect_timeout": seconds})

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's, for `MAX_STATEMENT_SECONDS` at the most. Raises psycopg.Error."""
        with leaving_lost_server(self.pgconn):
            return await super().wait(gen, interval, MAX_STATEMENT_SECONDS if timeout is None else timeout)

    async def cancel_safe(self, *, timeout: float = CANCEL_SECONDS) -> None:
        """End the statement, or else the connection."""
        try:
            await super().cancel_safe(timeout=min(timeout, CANCEL_SECONDS))
        except OperationalError:
            self.pgconn.finish()


async def connect(url: str, *, autocommit: bool = True) -> Connection:
    """A connection within the time of `connect_timeout`. Raises psycopg.Error, OSError."""
    return await _Prompt.connect(url, autocommit=autocommit)


async def fetched(
    connection: Connection, statement: LiteralString, parameters: Sequence[Any] | Mapping[str, Any], seconds: float
) -> list[tuple[Any, ...]]:
    """All rows of a statement, which are there within so many seconds. Calls have a turn meanwhile: of people there may
    be a hundred thousand. Raises psycopg.Error, TimeoutError."""
    rows: list[tuple[Any, ...]] = []
    async with patient(seconds):
        cursor = await connection.execute(statement, parameters)
        while len(part := await cursor.fetchmany(TURN)) == TURN:
            rows += part
            await asyncio.sleep(0)
    return rows + part


async def insert(url: str, statement: LiteralString, rows: Sequence[Sequence[Any]]) -> None:
    """One statement for each row, all or none, over a connection of its own. Raises psycopg.Error, OSError,
    TimeoutError."""
    async with patient(_INSERT_S):
        async with await connect(url, autocommit=False) as connection, connection.cursor() as cursor:
            await cursor.executemany(statement, rows)


def emptied_error() -> Misconfigured:
    """The error raised where a statement finds no table: the database was emptied, or made anew."""
    hint = "Whoever runs this gateway is told by `groundplan status` what to do."
    return Misconfigured("the database lacks tables of this program", code="database_emptied", hint=hint)


class Pool:
    """A few connections for requests that wait for PostgreSQL; none before the first."""

    def __init__(self, url: str, name: str) -> None:
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=_Prompt,
            kwargs={"autocommit": True},
            min_size=0,
            max_size=_CONNECTIONS,
            timeout=SECONDS,
            configure=_configure,
            check=AsyncConnectionPool.check_connection,
            reconnect_timeout=1.0,
            num_workers=1,
            name=name,
            open=False,
        )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One of them, for `SECONDS` at the most. Raises psycopg.Error, TimeoutError, and `Misconfigured`
        (`database_emptied`) where there are no tables any more."""
        try:
            async with patient(SECONDS):
                await self._pool.open()
                async with self._pool.connection() as connection:
                    yield connection
        except UndefinedTable as error:
            raise emptied_error() from error

    async def close(self) -> None:
        await self._pool.close(timeout=1.0)


async def _configure(connection: Connection) -> None:
    await connection.execute(_DURABLE)
    await connection.execute(f"SET statement_timeout = {int(SECONDS * 1000)}; {BRIEFLY}")
