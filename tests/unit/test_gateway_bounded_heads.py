"""How many header lines and waiting requests one connection may make the server hold."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.call_rig import wait_until
from tests.unit.test_gateway_hostile import LIMITS, head, run_server, send

from groundplan.gateway.http.request_reader import MAX_HEADER_LINES, MAX_QUEUED


@pytest.mark.parametrize("name", ["x-{}", "x-forwarded-for", "x-same"])
async def test_lines_of_a_head_are_bounded(name: str) -> None:
    """A line of a few bytes takes hundreds in memory, and what is appended to an earlier line is copied each time."""
    lines = [f"{name.format(number)}:" for number in range(MAX_HEADER_LINES - 3)]
    end = ("connection: close", "content-length: 2")
    async with run_server(LIMITS) as running:
        assert (await send(running, head(*lines, *end) + b"hi")).endswith(b"ok:hi")
        answer = await send(running, head(*lines, f"{name.format('z')}:", *end) + b"hi")
        assert answer.startswith(b"HTTP/1.1 431 ") and answer.count(b"HTTP/1.1 ") == 1
        assert b"headers_too_large" in answer and b"100 lines" in answer
        assert len(running.targets) == 1


async def test_of_a_head_with_too_many_lines_no_more_is_kept() -> None:
    async with run_server(LIMITS) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        await wait_until(lambda: bool(running.server.connections))
        (connection,) = running.server.connections
        lines = [line for number in range(5000) for line in (f"x-{number}: a", "x-forwarded-for: b", "x-same: c")]
        connection.data_received(head(*lines, "content-length: 0"))
        assert len(connection._request.headers) <= MAX_HEADER_LINES
        assert len(connection._request.headers[b"x-forwarded-for"]) <= 3 * MAX_HEADER_LINES
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 431 ")
        writer.close()


async def test_requests_that_wait_on_one_connection_are_bounded() -> None:
    async with run_server(LIMITS) as running:
        many = MAX_QUEUED
        last = head("content-length: 0", "connection: close", target="/last")
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(head("content-length: 0", target="/wait"))
        await wait_until(lambda: len(running.targets) == 1)
        (connection,) = running.server.connections
        connection.data_received(head("content-length: 0", target="/next") * many * 3 + last)
        assert len(connection._queue) == many
        running.gate.set()
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    assert running.targets == [b"/wait"] + [b"/next"] * many, "the others are not executed"
    assert answer.count(b"HTTP/1.1 200 ") == many + 1
    assert b"too_many_pipelined" in answer.rpartition(b"HTTP/1.1 400 ")[2]
