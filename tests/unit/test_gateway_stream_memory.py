"""Unfinished events of streams have one room in a worker, together with large answers: however many upstreams begin a
large event at once, no more than that is held, and each gives back what it had, however it ends."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.contract.h2_server import H2Server
from tests.integration.gateway_stack import parse_reply
from tests.unit.call_rig import Rig, Stream, call_rig, reliability, wait_until
from tests.unit.raw_upstream import END, HI, ROLE, STREAM_HEAD, THERE, chunk, encode_events, tcp_server
from tests.unit.test_answer_memory import MIB, Watched, full
from tests.unit.test_gateway_guard import killed

from groundplan.blueprint.model import Cache
from groundplan.gateway.upstream.connection import UNRESERVED_BYTES

PAD = 3 * MIB
BEGUN, LARGE = encode_events(ROLE, HI), encode_events(chunk({"content": "there"}, pad="a" * PAD))
ANSWER = BEGUN + LARGE + encode_events(END, b"[DONE]")
UNFINISHED = BEGUN + LARGE[:-2]


@asynccontextmanager
async def streaming_rig(
    folder: Path, answer: bytes, limit: int = 4 * MIB, *, http: int = 1, pause: float = 0.0, **more: Any
) -> AsyncIterator[Rig]:
    """A worker whose first upstream streams `answer`, in pieces, and keeps its connection open after it. `limit`: bytes
    of the memory for large answers; `pause`: seconds before the last piece."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(STREAM_HEAD)
            for at in range(0, len(answer), MIB):
                writer.write(answer[at : at + MIB])
                await writer.drain()
                await asyncio.sleep(pause if len(answer) - MIB <= at + MIB < len(answer) else 0)
            await reader.read()

    settings = more.pop("more", {})
    settings["one"] = {"http": http, **settings.get("one", {})}
    async with tcp_server(serve) as port, AsyncExitStack() as stack:
        if http == 2:
            port = (await stack.enter_async_context(H2Server(port).listening(None))).port
        names = more.pop("names", ["one"])
        async with call_rig(folder, names, ports={"one": port}, more=settings, **more) as rig:
            rig.gateway.answer_memory = Watched(limit)
            yield rig


def check_whole(stream: Stream) -> None:
    assert (stream.status, stream.text, stream.finish, stream.done, stream.errors) == (
        200,
        "Hi there",
        ["stop"],
        True,
        [],
    )
    assert sum(len(each.get("pad", "")) for each in stream.chunks) == PAD


@pytest.mark.parametrize("http", [1, 2])
async def test_many_large_events_are_all_delivered_while_few_are_held(tmp_path: Path, http: int) -> None:
    async with streaming_rig(tmp_path, ANSWER, 4 * MIB, http=http) as rig:
        for stream in await asyncio.gather(*(rig.stream() for _ in range(8))):
            check_whole(stream)
        room: Any = rig.gateway.answer_memory
        assert 3 * MIB < room.most <= 4 * MIB + 8 * MIB and (room.held_bytes, room.waiting_count) == (0, 0)
        await rig.books()


async def test_an_unfinished_event_without_memory_breaks_its_stream(tmp_path: Path) -> None:
    """After the time in which the upstream may be silent; that is not held against the deployment."""
    async with streaming_rig(tmp_path, UNFINISHED, more={"one": {"idle_ms": 200}}) as rig:
        others = full(rig)
        stream = await rig.stream()
        (error,) = stream.errors
        assert (stream.text, stream.events[-1], error["code"]) == ("Hi ", {"error": error}, "stream_broken")
        assert "took all the memory" in error["message"] and error["hint"]
        room = rig.gateway.answer_memory
        assert (room.held_bytes, room.waiting_count, room.refused_answers) == (others.size, 0, 1)
        assert not rig.gateway.health._failures
        (only,) = await rig.settlements()
        assert (only.outcome, only.estimated) == ("failed", True) and "no_room" in only.flags
        await rig.books()


async def test_a_first_event_without_memory_until_its_deadline_is_no_deployment_failure(tmp_path: Path) -> None:
    workloads = {"assistant": {"deadline_ms": 300}}
    async with streaming_rig(tmp_path, LARGE[:-2], workloads=workloads) as rig:
        others = full(rig)
        refused = await rig.chat(stream=True)
        assert refused.status == 503 and refused.code == "upstream_failed"
        assert "took all the memory" in refused.json["error"]["message"]
        assert "GROUNDPLAN_REQUEST_MEMORY" in refused.json["error"]["hint"]
        assert not rig.gateway.health._failures and rig.gateway.answer_memory.held_bytes == others.size
        await rig.books()


async def test_a_stream_that_broke_without_memory_is_resumed(tmp_path: Path) -> None:
    declared, more = {"assistant": reliability(on_broken_stream="resume")}, {"one": {"idle_ms": 200}}
    async with streaming_rig(tmp_path, UNFINISHED, names=["one", "two"], workloads=declared, more=more) as rig:
        full(rig)
        stream = await rig.stream()
        assert stream.errors == [] and stream.text.startswith("Hi ") and stream.done
        first, second = await rig.settlements()
        assert first.outcome == "failed" and "resumed" in second.flags
        await rig.books()


@pytest.mark.parametrize("begun", [BEGUN, b""])
async def test_waiting_for_memory_is_no_silence(tmp_path: Path, begun: bytes) -> None:
    """Neither before the first byte nor after it."""
    answer = begun + LARGE + encode_events(END, b"[DONE]")
    more = {"one": {"idle_ms": 2000, "first_token_ms": 2000, "first_token_declared": True}}
    async with streaming_rig(tmp_path, answer, pause=2.6, more=more) as rig:
        room, others = rig.gateway.answer_memory, full(rig)
        asked = asyncio.create_task(rig.stream())
        await wait_until(lambda: room.waiting_count == 1)
        await asyncio.sleep(1.5)
        others.release()
        stream = await asked
        assert stream.done and stream.errors == [] and not rig.gateway.health._failures
        assert room.held_bytes == 0


async def test_an_event_that_was_delivered_holds_nothing(tmp_path: Path) -> None:
    """However long the rest of its stream takes."""
    async with streaming_rig(tmp_path, BEGUN + LARGE + encode_events(THERE)) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request(stream=True))
        received = b""
        while received.count(b'"there"') < 2:
            received += await reader.read(MIB)
        assert rig.gateway.answer_memory.held_bytes == 0 and len(rig.gateway.streams) == 1
        writer.transport.abort()


@pytest.mark.parametrize("billing", ["generated", "drain"])
async def test_a_client_that_leaves_while_an_event_waits_for_memory(tmp_path: Path, billing: str) -> None:
    more = {"one": {"billing_on_cancel": billing}}
    async with streaming_rig(tmp_path, ANSWER, more=more) as rig:
        room, others = rig.gateway.answer_memory, full(rig)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request(stream=True))
        await wait_until(lambda: room.waiting_count == 1)
        writer.transport.abort()
        await wait_until(lambda: not rig.gateway.running_calls and room.waiting_count == (billing == "drain"))
        others.release()
        await wait_until(lambda: not rig.gateway.background)
        assert (room.held_bytes, room.waiting_count) == (0, 0)
        (only,) = await rig.settlements()
        assert only.outcome == "cancelled" and only.estimated == (billing == "generated")
        await rig.books()


async def test_a_drained_event_is_bounded_too(tmp_path: Path) -> None:
    """Nobody waits for it."""
    more = {"one": {"billing_on_cancel": "drain", "idle_ms": 200}}
    async with streaming_rig(tmp_path, ANSWER, more=more) as rig:
        held = rig.gateway.answer_memory
        full(rig)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request(stream=True))
        await wait_until(lambda: held.waiting_count == 1)
        writer.transport.abort()
        await wait_until(lambda: not rig.gateway.running_calls and not rig.gateway.background)
        assert held.waiting_count == 0 and held.refused_answers >= 1
        await rig.books()


async def test_a_kill_ends_a_stream_whose_event_waits_for_memory(tmp_path: Path) -> None:
    async with streaming_rig(tmp_path, UNFINISHED) as rig:
        room, others = rig.gateway.answer_memory, full(rig)
        asked = asyncio.create_task(rig.stream())
        await wait_until(lambda: room.waiting_count == 1)
        killed(rig, "workload/assistant", streams=True)
        began = time.monotonic()
        (error,) = (await asked).errors
        assert error["code"] == "killed" and time.monotonic() - began < 10, "not only once it may wait no longer"
        assert (room.held_bytes, room.waiting_count) == (others.size, 0)


@pytest.mark.parametrize("last", [False, True])
async def test_a_client_that_reads_nothing_keeps_the_memory_of_its_event(tmp_path: Path, last: bool) -> None:
    """Also of the last one, which is sent with the facts of the call."""
    end = json.loads(END) | {"pad": "a" * 6 * MIB}
    events = encode_events(json.dumps(end).encode() if last else chunk({"content": "there"}, pad="a" * 6 * MIB), END)
    async with streaming_rig(tmp_path, BEGUN + events, 64 * MIB) as rig:
        room = rig.gateway.answer_memory
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1024)
        writer.write(rig.request(stream=True))
        await wait_until(lambda: any(each.paused is not None for each in rig.server.connections))
        (slow,) = rig.server.connections
        assert room.held_bytes >= 6 * MIB, "what waits for its client"
        assert slow.transport is not None and slow.transport.get_write_buffer_size() < MIB
        killed(rig, "workload/assistant", streams=True)
        await wait_until(lambda: not rig.gateway.running_calls)
        assert room.held_bytes == 0
        writer.transport.abort()


@pytest.mark.parametrize("how", ["exact", "replay"])
async def test_a_call_sharing_a_stream_does_not_wait_for_a_client_that_reads_its_end_slowly(
    tmp_path: Path, how: str
) -> None:
    cache = {"cache": Cache(seconds=60, max_bytes=256 * MIB, scope="workload")} if how == "exact" else {}
    end = json.dumps(json.loads(END) | {"pad": "a" * (3 * MIB + MIB // 2)}).encode()
    answer = BEGUN + encode_events(end, b"[DONE]")
    async with streaming_rig(tmp_path, answer, 64 * MIB, workloads={"assistant": cache}) as rig:
        asked = rig.request(stream=True).replace(b"\r\n\r\n", b"\r\nidempotency-key: once\r\n\r\n", how == "replay")
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", rig.port))
        await asyncio.get_running_loop().sock_sendall(slow, asked)
        await wait_until(lambda: any(each.paused is not None for each in rig.server.connections))
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(asked)
        stream = Stream(parse_reply(await asyncio.wait_for(reader.read(), 20)))
        assert stream.done and stream.errors == [] and rig.gateway.running_calls >= 1
        assert rig.gateway.call_counters.cache_hits == {("assistant", how): 1}
        writer.close()
        slow.close()


async def test_usual_events_reserve_nothing(tmp_path: Path) -> None:
    below = chunk({"content": "there"}, pad="a" * (UNRESERVED_BYTES - 500))
    async with streaming_rig(tmp_path, BEGUN + encode_events(below, THERE, END, b"[DONE]")) as rig:
        full(rig)
        stream = await rig.stream()
        assert stream.done and stream.errors == [] and stream.text == "Hi therethere"
        assert rig.gateway.answer_memory.waiting_count == 0
