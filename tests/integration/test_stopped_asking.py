"""A worker that is stopped while it talks to PostgreSQL does not block others: a request for slices is one message, of
which PostgreSQL gets all or nothing, and a write in several messages is rolled back while the worker is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from tests.integration.test_limit_leases import quota
from tests.unit.test_multipart import form

from groundplan.blueprint.model import Budget, Keep
from groundplan.core.ids import new_id
from groundplan.gateway.budgets import grant_store
from groundplan.gateway.budgets.grant_store import Grant, RequestedAmounts
from groundplan.gateway.budgets.leases import REQUESTS
from groundplan.gateway.database import Connection
from groundplan.ledger.model import Release
from groundplan.testing.database import Database

BUDGET = Budget(name="all", covers="company", limit=100, period="total")
ONE_REQUEST = RequestedAmounts(1, 1, 0, True)


class CuttableProxy:
    """A proxy between a worker and PostgreSQL. Once `cut` is set it forwards one more piece of what the worker sends,
    as if the worker was stopped after that."""

    def __init__(self) -> None:
        self.cut = False
        self.held = asyncio.Event()
        """Set if the worker sent more than that piece."""
        self._passed = False

    @asynccontextmanager
    async def forward(self, url: str) -> AsyncIterator[str]:
        port = urlsplit(url).port
        assert port is not None

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
            passing = asyncio.gather(
                self._forward_requests(reader, server_writer), self._forward_answers(server_reader, writer)
            )
            connections.append(passing)
            with suppress(OSError):
                await passing

        connections = list[asyncio.Future[tuple[None, None]]]()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            yield url.replace(f":{port}/", f":{server.sockets[0].getsockname()[1]}/")
        finally:
            server.close()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _forward_requests(self, reader: asyncio.StreamReader, server_writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            if self.cut and self._passed:
                self.held.set()
                continue
            self._passed = self.cut
            server_writer.write(data)
            await server_writer.drain()
        await close(server_writer)

    async def _forward_answers(self, server_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await server_reader.read(1 << 20):
            writer.write(data)
        await close(writer)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize("message", ["several limits", "a release"])
async def test_a_worker_stopped_while_it_requests_a_slice_does_not_block_others(
    database: Database, tmp_path: Path, message: str
) -> None:
    url, proxy, (one, two) = database.urls["gateway"], CuttableProxy(), (new_id(), new_id())
    limits = [quota(REQUESTS, 100, period) for period in ("day", "month")]
    limit_requests = [
        (each, "2099-01-01"[: {"day": 10, "month": 7}[each.period]], 1, ONE_REQUEST) for each in limits * 32
    ]

    async def send_to_postgres(connection: Connection) -> None:
        if message == "a release":
            await grant_store.report_releases(connection, one, [Release(new_id().bytes, "all", "total", 1)])
        else:
            await grant_store.grant_limits(connection, one, limit_requests)

    async def request_grant(connection: Connection) -> Grant:
        if message == "a release":
            return (await grant_store.grant_budgets(connection, two, [(BUDGET, "total", 1, ONE_REQUEST)]))[0]
        return (await grant_store.grant_limits(connection, two, limit_requests[:1]))[0]

    async with proxy.forward(url) as proxied_url:
        first = await grant_store.connect(proxied_url, one, tmp_path, 10.0)
        second = await grant_store.connect(url, two, tmp_path, 10.0)
        assert (await grant_store.grant_budgets(first, one, [(BUDGET, "total", 1, ONE_REQUEST)]))[0].amount == 1
        proxy.cut = True
        stopping = asyncio.create_task(send_to_postgres(first))
        await asyncio.wait([stopping, asyncio.create_task(proxy.held.wait())], timeout=0.2)
        async with asyncio.timeout(20):
            assert (await request_grant(second)).amount == 1
        assert not proxy.held.is_set(), "the request was one message"
        await stopping
        await first.close()
        await second.close()


INSERT_WAITS = """SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND relation = %s::regclass AND query LIKE '%%INSERT INTO %%'"""
"""Not what a worker does by itself to the same table, of which one statement or another nearly always waits, too."""
KEEP = Keep(content="full", seconds=3600)


async def send_request(stack: Stack, key: str, table: str) -> Reply:
    """The answer to a request that writes to that table, during which the workload's other writes to it wait."""
    if table == "api_file":
        body = form(("purpose", b"user_data", None), ("file", b"of a worker", "a.txt"))
        return await stack.ask("POST", "/v1/files", key, body, content_type="multipart/form-data; boundary=xyz")
    return await stack.post("/v1/responses", key, {"model": "one", "input": "First?", "background": True})


async def wait_until_insert_waits(stack: Stack, table: str, *, waits: bool) -> None:
    """Wait until an INSERT waits for a lock of that table, or until none does."""
    while (stack.sql(INSERT_WAITS, table) != [(0,)]) is not waits:  # noqa: ASYNC110 -- of PostgreSQL, which tells nobody
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("table", ["background_response", "api_file"])
async def test_a_worker_stopped_during_a_database_write_does_not_block_others(
    database: Database, tmp_path: Path, table: str
) -> None:
    async with scripted_upstream("one") as (_, port), installation(database, tmp_path) as stack, asyncio.timeout(60):
        stack.apply(blueprint(1, [deployment("one", port)], [workload("assistant", ["one"], keep=KEEP)]))
        stack.start()
        await stack.wait_until_ready()
        key, first = stack.key(), stack.workers[0].pid
        with psycopg.connect(database.superuser) as locking:
            locking.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE".encode())
            asking = asyncio.create_task(send_request(stack, key, table))
            await wait_until_insert_waits(stack, table, waits=True)
            os.kill(first, signal.SIGSTOP)
        try:
            await wait_until_insert_waits(stack, table, waits=False)
            stack.start()
            await stack.wait_until_ready()
            end = time.monotonic() + 10
            while (reply := await send_request(stack, key, table)).status == 503 and time.monotonic() < end:
                pass  # a request that waits for a lock is refused after seconds
            assert reply.status == 200, reply.body
        finally:
            os.kill(first, signal.SIGCONT)
        late = await asking
        if table == "background_response":  # whether it was written is unknown
            assert (late.status, late.code) == (409, "background_unknown"), late.body
        else:
            assert late.status == 503 and late.json["error"]["hint"] and late.headers["retry-after"], late.body
