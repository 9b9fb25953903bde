"""Calls over HTTP/2: what was not sent costs nothing, and what the upstream did not look at is sent once more."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.contract.h2_server import H2Server
from tests.unit.call_rig import Rig, call_rig, reliability, wait_until

from groundplan.gateway.upstream.http2 import Http2Pool

HTTP2 = {"one": {"http": 2}}


@asynccontextmanager
async def silent_tls(rig: Rig) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Deployment `one` behind a server that accepts connections and never answers the TLS handshake; yields what it has
    accepted."""
    accepted: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
    rig.change_deployment("one", url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    try:
        yield accepted
    finally:
        server.close()
        for writer in accepted:
            writer.close()


@asynccontextmanager
async def refusing(rig: Rig, refusal: str, times: int) -> AsyncIterator[H2Server]:
    """Deployment `one` over HTTP/2; its first requests are refused unprocessed."""
    (place, *_) = rig.plan("assistant").deployments_by_name["auto"]
    server = H2Server(urlsplit(place.url).port or 0)
    server.refusal, server.refusals_left = refusal, times
    async with server.listening(None):
        rig.change_deployment("one", url=f"http://127.0.0.1:{server.port}/v1")
        yield server


@pytest.mark.parametrize("billing", ["full", "generated", "drain"])
async def test_a_client_that_leaves_while_http2_connects_owes_nothing(tmp_path: Path, billing: str) -> None:
    more = {"one": HTTP2["one"] | {"billing_on_cancel": billing}}
    async with call_rig(tmp_path, ["one"], more=more) as rig, silent_tls(rig) as accepted:
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request())
        await wait_until(lambda: bool(accepted))
        writer.close()
        await wait_until(lambda: not (rig.gateway.running_calls or rig.gateway.background))
        (settled,) = await rig.settlements()
        assert (settled.outcome, settled.cost) == ("not_billed", 0)


async def test_a_deadline_that_passes_while_http2_connects_costs_nothing(tmp_path: Path) -> None:
    settings = {"assistant": {"deadline_ms": 300}}
    async with call_rig(tmp_path, ["one"], more=HTTP2, workloads=settings) as rig, silent_tls(rig):
        assert (await rig.chat()).code == "upstream_failed"
        (settled,) = await rig.settlements()
        assert (settled.outcome, settled.cost, settled.flags) == ("not_billed", 0, ["connect_timeout"])


async def test_a_hedge_that_loses_while_http2_connects_costs_nothing(tmp_path: Path) -> None:
    settings = {"assistant": reliability(hedge={"after_ms": 10, "at_most": 1.0})}
    async with call_rig(tmp_path, ["two", "one"], more=HTTP2, workloads=settings) as rig, silent_tls(rig) as accepted:
        first = rig.hold("two")
        asked = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: bool(accepted))
        first.release()
        assert (await asked).headers["groundplan-deployment"] == "two"
        hedge = next(each for each in await rig.settlements() if "hedge" in each.flags)
        assert (hedge.outcome, hedge.cost) == ("not_billed", 0)


@pytest.mark.parametrize("refusal", ["stream", "connection"])
async def test_a_request_that_http2_refused_unprocessed_is_sent_once_more(tmp_path: Path, refusal: str) -> None:
    """As when the upstream closes an idle connection just as it is used."""
    async with call_rig(tmp_path, ["one"], more=HTTP2) as rig, refusing(rig, refusal, 1) as server:
        assert (await rig.chat()).status == 200
        assert (server.requests, rig.models["one"].counted) == (2, 1)
        assert not rig.gateway.health._failures
        await rig.books()


async def test_an_upstream_that_refuses_every_request_is_asked_twice(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], more=HTTP2) as rig, refusing(rig, "stream", 1000) as server:
        assert (await rig.chat()).code == "upstream_failed"
        assert server.requests == 2
        (settled,) = await rig.settlements()
        assert (settled.outcome, settled.cost) == ("not_billed", 0)


async def test_a_request_is_not_sent_once_more_after_a_kill(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], more=HTTP2) as rig, refusing(rig, "stream", 1) as server:
        live: Any = rig.gateway.live

        def kill() -> None:
            live.policy = dataclasses.replace(live.policy, kills=frozenset({"company"}))

        server.on_refusal = kill
        assert (await rig.chat()).code == "killed"
        assert rig.models["one"].counted == 0
        (settled,) = await rig.settlements()
        assert (settled.outcome, settled.cost) == ("not_billed", 0)


async def test_a_piece_that_comes_as_its_reader_is_cancelled_is_read_by_the_next_one() -> None:
    """As of a hedge that loses just then, which is drained."""
    loop, more = asyncio.get_running_loop(), asyncio.Event()
    connection = await Http2Pool("http://127.0.0.1:1/v1", loop).connect(1.0)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        await more.wait()
        yield b"cd"

    connection._chunks = pieces()
    reader = loop.create_task(connection.read_body(5.0))
    await wait_until(lambda: connection._body_parts == [b"ab"] and connection._reading is not None)
    more.set()
    while connection._reading is not None and not connection._reading.done():  # noqa: ASYNC110 -- within one turn
        await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await connection.read_body(5.0) == b"abcd"
