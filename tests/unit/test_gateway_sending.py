"""What is looked at between the decision to send a request and its first byte: the call's deadline, and over HTTP/2,
where a connection is made only once there is a request, whether it may still be sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.contract.ways import pool_to
from tests.unit.call_rig import Rig, call_rig, reliability, wait_until
from tests.unit.raw_upstream import tcp_server
from tests.unit.test_gateway_further_attempts import CHANGES, approve, change_admission

from groundplan.gateway.call.attempts import attempt, prepare
from groundplan.gateway.call.attempts.upstream_request import encode_request
from groundplan.testing.scripted import ScriptedModel

HEDGED = {"assistant": reliability(hedge={"after_ms": 20, "at_most": 1.0})}


async def test_the_deadline_of_a_call_ends_the_wait_for_its_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads may be busy with other large requests. No deployment is blamed for that."""
    go = threading.Event()

    def encode(*given: Any) -> bytes:
        assert go.wait(60)
        return encode_request(*given)

    monkeypatch.setattr(attempt, "READ_BYTES", 0)
    monkeypatch.setattr(prepare, "encode_request", encode)
    async with call_rig(tmp_path, workloads={"assistant": {"deadline_ms": 300}}) as rig:
        try:
            reply = await rig.chat()
        finally:
            go.set()
        assert (reply.status, reply.code) == (503, "upstream_failed") and b"deadline" in reply.body
        assert rig.models["one"].counted == rig.models["two"].counted == 0 and not rig.gateway.health._failures
        (only,) = await rig.settlements()
        assert (only.outcome, only.cost) == ("not_billed", 0)
        await rig.books()


async def test_two_attempts_that_fail_here_before_they_are_sent_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, go = list[object](), asyncio.Event()

    async def fail(work: object) -> bytes:
        waiting.append(work)
        if len(waiting) == 2:
            go.set()
        await go.wait()
        raise RuntimeError("nobody foresaw it")

    monkeypatch.setattr(attempt, "READ_BYTES", 0)
    monkeypatch.setattr(prepare, "in_thread", fail)
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        assert (await rig.chat()).code == "internal_error"
        assert [(each.outcome, each.cost) for each in await rig.settlements()] == [("not_billed", 0)] * 2
        await rig.books()


class SlowNetwork:
    """Between the gateway and an upstream: connections are accepted, and what is sent arrives once `flows` is set."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.connected, self.flows = asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected.set()
        await self.flows.wait()
        from_upstream, to_upstream = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(_copy(reader, to_upstream), _copy(from_upstream, writer))
        finally:
            to_upstream.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def http2_rig(
    folder: Path, *, names: Sequence[str] = ("one",), is_approved: bool = False, **settings: Any
) -> AsyncIterator[tuple[Rig, ScriptedModel, SlowNetwork]]:
    """A worker whose deployment is reached by HTTP/2 over TLS and a slow network."""
    model = ScriptedModel("far")
    (folder / "way").mkdir()
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(pool_to("h2", model.handle, folder / "way"))
        network = SlowNetwork(int(way.wire.url.rpartition(":")[2].partition("/")[0]))
        port = await stack.enter_async_context(tcp_server(network.serve))
        rig = await stack.enter_async_context(call_rig(folder / "home", names, **settings))
        if is_approved:
            approve(rig.gateway.live)
        rig.change_deployment("one", http=2, tls=way.wire.tls, url=f"https://127.0.0.1:{port}/v1")
        yield rig, model, network


@pytest.mark.parametrize(("what", "code"), [*CHANGES, ("deployment/one", "upstream_failed")])
async def test_nothing_is_sent_by_http2_once_it_is_stopped_while_connecting(
    tmp_path: Path, what: str, code: str
) -> None:
    async with http2_rig(tmp_path, is_approved=what == "an approval") as (rig, model, network):
        asked = asyncio.ensure_future(rig.chat())
        await network.connected.wait()
        change_admission(rig.gateway.live, what)
        network.flows.set()
        reply = await asked
        assert (reply.code, model.counted) == (code, 0), reply.body
        assert not rig.gateway.health._failures
        (only,) = await rig.settlements()
        assert (only.outcome, only.cost) == ("not_billed", 0)
        await rig.books()


@pytest.mark.parametrize("what", ["company", "deployment/one"])
async def test_a_drained_loser_by_http2_that_is_stopped_while_connecting_costs_nothing(
    tmp_path: Path, what: str
) -> None:
    async with http2_rig(tmp_path, names=("one", "two"), workloads=HEDGED) as (rig, model, network):
        rig.change_deployment("one", billing_on_cancel="drain")
        gate = rig.hold("two")
        asked = asyncio.ensure_future(rig.chat())
        await network.connected.wait()
        gate.release()
        reply = await asked
        assert (reply.status, reply.headers["groundplan-deployment"]) == (200, "two")
        change_admission(rig.gateway.live, what)
        network.flows.set()
        await wait_until(lambda: not rig.gateway.background)
        (loser,) = [each for each in await rig.settlements() if each.attempt == 0]
        assert (loser.outcome, loser.cost, model.counted) == ("not_billed", 0, 0)
        await rig.books()


async def test_a_request_by_http2_that_may_be_sent_once_connected_is_sent_whole(tmp_path: Path) -> None:
    """With its length, which some servers require; also over the connection that there is by then."""
    async with http2_rig(tmp_path) as (rig, model, network):
        network.flows.set()
        for count, content in enumerate(("a b", "word " * 100_000), 1):
            reply = await rig.chat(messages=[{"role": "user", "content": content}])
            assert (reply.status, model.counted) == (200, count), reply.body
            assert model.last is not None and content.encode() in model.last.body
        await rig.books()
