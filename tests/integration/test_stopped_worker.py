"""A worker that was stopped (SIGSTOP, or a machine that stalls) blames nobody else for that time: data that arrived
meanwhile is read before an upstream is taken to be silent. Real processes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    parse_events,
    workload,
)

from groundplan.blueprint.serving import Hedge, Reliability
from groundplan.testing.database import Database

SHORT_MS = 600
"""Every timeout, unless a test sets another."""
STOP_SECONDS = 1.3
LATE_SECONDS = 0.2
"""Seconds after the beginning of a stop at which data is sent: after timers of the worker have expired."""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
COMMENT = b": still there\n\n"
ENDING = (
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":9}}'
    b"\n\ndata: [DONE]\n\n"
)
ANSWER = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"well"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
JSON_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ANSWER),
    ANSWER,
)
FAILS = b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


class PhasedUpstream:
    """An upstream that sends `before_stop` at once, `during_stop` while the worker is stopped, and `after_stop` once it
    goes on. Complete answers to several calls follow each other on one connection."""

    def __init__(
        self, *before_stop: bytes, during_stop: tuple[bytes, ...] = (), after_stop: tuple[bytes, ...] = ()
    ) -> None:
        self.before_stop, self.during_stop, self.after_stop = before_stop, during_stop, after_stop
        self.request_received, self.stopped, self.resumed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.counted = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            while (head := await reader.readuntil(b"\r\n\r\n")) and await reader.readexactly(content_length(head)):
                # those of this call, also if the test sets others for the next one
                before_stop, during_stop, after_stop = self.before_stop, self.during_stop, self.after_stop
                self.counted += 1
                self.request_received.set()
                await write_pieces(writer, before_stop)
                if during_stop:
                    await self.stopped.wait()
                    await asyncio.sleep(LATE_SECONDS)
                    await write_pieces(writer, during_stop)
                if after_stop:
                    await self.resumed.wait()
                    await asyncio.sleep(0.05)
                    await write_pieces(writer, after_stop)
                if b"close" in b"".join((*before_stop, *during_stop)):
                    break
        writer.close()


async def write_pieces(writer: asyncio.StreamWriter, pieces: tuple[bytes, ...]) -> None:
    for each in pieces:
        writer.write(each)
        await writer.drain()
        await asyncio.sleep(0.02)


def content_length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))


@asynccontextmanager
async def gateway(
    database: Database, folder: Path, *upstream: PhasedUpstream, **more: Any
) -> AsyncIterator[tuple[Stack, str]]:
    """A worker and a key for a workload with these upstreams in order. `more`: settings of each deployment;
    `workload`: settings of the workload."""
    workload_settings = more.pop("workload", {})
    settings = {"first_token_ms": SHORT_MS, "idle_ms": SHORT_MS, "connect_ms": SHORT_MS, **more}
    servers = [await asyncio.start_server(each.answer, "127.0.0.1", 0) for each in upstream]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    places = [deployment(f"d{n}", port, **settings) for n, port in enumerate(ports)]
    async with installation(database, folder) as stack:
        stack.apply(
            blueprint(1, places, [workload("assistant", [place.name for place in places], **workload_settings)])
        )
        stack.start()
        await stack.wait_until_ready()
        yield stack, stack.key()
    for server, each in zip(servers, upstream, strict=True):
        server.close()
        for writer in each.writers:
            writer.close()


async def pause_worker(
    stack: Stack, meanwhile: Callable[[], Awaitable[object] | None], seconds: float = STOP_SECONDS
) -> None:
    """Stop the worker for `seconds`, and call `meanwhile` during that time."""
    pid, begun = stack.workers[0].pid, time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        if (waited := meanwhile()) is not None:
            await waited
        await asyncio.sleep(seconds - (time.monotonic() - begun))
    finally:
        os.kill(pid, signal.SIGCONT)


async def answer_across_stop(
    stack: Stack, upstream: PhasedUpstream, asking: Awaitable[Reply], seconds: float = STOP_SECONDS
) -> Reply:
    """The answer to a call during which the worker is stopped."""
    task = asyncio.ensure_future(asking)
    async with asyncio.timeout(20):
        await upstream.request_received.wait()
        await asyncio.sleep(0.05)
        await pause_worker(stack, upstream.stopped.set, seconds)
        upstream.resumed.set()
        return await task


GOOD_UPSTREAMS = [
    pytest.param(lambda: PhasedUpstream(HEAD, CHUNK % b"a", during_stop=(CHUNK % b"b", ENDING)), id="all of it"),
    pytest.param(lambda: PhasedUpstream(during_stop=(HEAD, CHUNK % b"a", ENDING)), id="from its head on"),
    pytest.param(lambda: PhasedUpstream(HEAD, during_stop=(CHUNK % b"a",), after_stop=(ENDING,)), id="its first event"),
    pytest.param(lambda: PhasedUpstream(HEAD, after_stop=(CHUNK % b"a", ENDING)), id="nothing before its first event"),
    pytest.param(
        lambda: PhasedUpstream(HEAD, CHUNK % b"a", after_stop=(CHUNK % b"b", ENDING)), id="nothing in the middle"
    ),
    pytest.param(
        lambda: PhasedUpstream(HEAD, CHUNK % b"a", COMMENT, during_stop=(COMMENT,), after_stop=(ENDING,)), id="comments"
    ),
]
"""Upstreams with a correct stream, of which different parts arrive before, during and after a stop of the worker."""


@pytest.mark.parametrize("make_upstream", GOOD_UPSTREAMS)
async def test_a_stream_continues_after_a_stop_with_the_data_that_arrived_meanwhile(
    database: Database, tmp_path: Path, make_upstream: Callable[[], PhasedUpstream]
) -> None:
    """No other deployment could answer: the other one fails."""
    failing, upstream = PhasedUpstream(FAILS), make_upstream()
    async with gateway(database, tmp_path, failing, upstream) as (stack, key):
        reply = await answer_across_stop(stack, upstream, stack.chat(key, stream=True))
        *_, last = parse_events(reply.body)
        assert last == "[DONE]", last
        assert (failing.counted, upstream.counted) == (1, 1)


@pytest.mark.parametrize(
    "first_part", [b"", JSON_ANSWER[:60], JSON_ANSWER[:-20]], ids=["nothing", "a part of its head", "nearly all"]
)
async def test_a_complete_answer_that_arrived_during_a_stop_is_used(
    database: Database, tmp_path: Path, first_part: bytes
) -> None:
    upstream, other = (
        PhasedUpstream(first_part, during_stop=(JSON_ANSWER[len(first_part) :],)),
        PhasedUpstream(JSON_ANSWER),
    )
    async with gateway(database, tmp_path, upstream, other, first_token_ms=300, idle_ms=300) as (stack, key):
        reply = await answer_across_stop(stack, upstream, stack.chat(key))
        assert reply.status == 200 and reply.headers["groundplan-deployment"] == "d0", reply.body
        assert (upstream.counted, other.counted) == (1, 0)


async def test_a_connection_established_during_a_stop_is_used(database: Database, tmp_path: Path) -> None:
    """The listener's queue is full at first, and has room when the kernel retries a second later."""
    upstream, other = PhasedUpstream(JSON_ANSWER), PhasedUpstream(JSON_ANSWER)
    async with gateway(database, tmp_path, other) as (stack, key):
        listening, held = full_listener()
        place = deployment("slow", listening.getsockname()[1], connect_ms=500)
        there = deployment("d0", listening.getsockname()[1])
        stack.apply(blueprint(2, [place, there], [workload("assistant", ["slow", "d0"])]))
        await stack.wait_until_ready(2)
        task = asyncio.ensure_future(stack.chat(key))
        await asyncio.sleep(0.2)
        await pause_worker(stack, lambda: asyncio.start_server(upstream.answer, sock=listening), 1.5)
        reply = await task
        assert reply.status == 200 and reply.headers["groundplan-deployment"] == "slow", reply.body
        for each in (listening, *held):
            each.close()
        for writer in upstream.writers:
            writer.close()


def full_listener() -> tuple[socket.socket, list[socket.socket]]:
    """A port that accepts no more connections and refuses none, and those that wait there."""
    listening, held = socket.create_server(("127.0.0.1", 0), backlog=0), []
    with suppress(TimeoutError):
        while True:
            held.append(waiting := socket.socket())
            waiting.settimeout(0.2)
            waiting.connect(("127.0.0.1", listening.getsockname()[1]))
    return listening, held


async def test_a_stopped_worker_sends_no_hedge(database: Database, tmp_path: Path) -> None:
    upstream, other = PhasedUpstream(during_stop=(JSON_ANSWER,)), PhasedUpstream(JSON_ANSWER)
    workload_settings = {"reliability": Reliability(hedge=Hedge(after_ms=400, at_most=1.0))}
    async with gateway(database, tmp_path, upstream, other, first_token_ms=5000, workload=workload_settings) as (
        stack,
        key,
    ):
        reply = await answer_across_stop(stack, upstream, stack.chat(key))
        assert reply.status == 200 and reply.headers["groundplan-deployment"] == "d0", reply.body
        assert await attempts(stack) == {"ok": 1}
        upstream.stopped.clear()
        slow = await stack.chat(key)
        assert slow.status == 200 and slow.headers["groundplan-deployment"] == "d1", "one that is slow is hedged"


async def test_a_deadline_that_passed_while_the_worker_was_stopped_is_enforced(
    database: Database, tmp_path: Path
) -> None:
    """A call's deadline is real time: once the worker goes on, it waits no longer."""
    upstream, other = PhasedUpstream(), PhasedUpstream(JSON_ANSWER)
    workload_settings = {"deadline_ms": 800}
    async with gateway(database, tmp_path, upstream, other, first_token_ms=9000, workload=workload_settings) as (
        stack,
        key,
    ):
        task = asyncio.ensure_future(stack.chat(key))
        await upstream.request_received.wait()
        await pause_worker(stack, lambda: None)
        begun = time.monotonic()
        reply = await task
        assert reply.status == 503 and reply.code == "upstream_failed", reply.body
        assert time.monotonic() - begun < 0.4
        assert other.counted == 0


async def test_an_upstream_silent_after_a_stop_times_out_as_usual(database: Database, tmp_path: Path) -> None:
    upstream, other = PhasedUpstream(HEAD, CHUNK % b"a"), PhasedUpstream(HEAD, CHUNK % b"b", ENDING)
    workload_settings = {"reliability": Reliability(on_broken_stream="resume")}
    async with gateway(database, tmp_path, upstream, other, workload=workload_settings) as (stack, key):
        task = asyncio.ensure_future(stack.chat(key, stream=True))
        await upstream.request_received.wait()
        await pause_worker(stack, lambda: None)
        begun = time.monotonic()
        reply = await task
        *_, last = parse_events(reply.body)
        assert last == "[DONE]" and other.counted == 1
        assert time.monotonic() - begun < 3 * SHORT_MS / 1000


async def test_a_concurrency_slot_freed_during_a_stop_is_used(database: Database, tmp_path: Path) -> None:
    """The deployment takes one call at a time; a call waits for it for up to two seconds."""
    upstream = PhasedUpstream(during_stop=(JSON_ANSWER,))
    async with gateway(database, tmp_path, upstream, first_token_ms=20_000, concurrent=1) as (stack, key):
        first = asyncio.ensure_future(stack.chat(key))
        await upstream.request_received.wait()
        second = asyncio.ensure_future(stack.chat(key))
        await asyncio.sleep(0.2)
        await pause_worker(stack, upstream.stopped.set, 2.5)
        assert ((await first).status, (await second).status) == (200, 200)


async def test_time_spent_stopped_does_not_count_as_a_deployments_latency(database: Database, tmp_path: Path) -> None:
    """A workload balanced by latency uses both deployments as before."""
    upstream, other = PhasedUpstream(JSON_ANSWER), PhasedUpstream(JSON_ANSWER)
    workload_settings = {"reliability": Reliability(balance="latency")}
    async with gateway(database, tmp_path, upstream, other, first_token_ms=5000, workload=workload_settings) as (
        stack,
        key,
    ):
        for _ in range(20):
            assert (await stack.chat(key)).status == 200
        for each in (upstream, other):
            each.before_stop, each.during_stop = (), (JSON_ANSWER,)
            each.request_received.clear()
        task = asyncio.ensure_future(stack.chat(key))
        asked_first = [asyncio.ensure_future(each.request_received.wait()) for each in (upstream, other)]
        _, waiting = await asyncio.wait(asked_first, return_when=asyncio.FIRST_COMPLETED)
        for each_waiting in waiting:
            each_waiting.cancel()
        victim = upstream if upstream.request_received.is_set() else other

        def meanwhile() -> None:
            upstream.stopped.set()
            other.stopped.set()

        await pause_worker(stack, meanwhile)
        assert (await task).status == 200
        asked, calls = victim.counted, 0
        while victim.counted == asked and calls < 100:  # one that took two seconds would not be asked again for long
            assert (await stack.chat(key)).status == 200
            calls += 1
        assert victim.counted > asked


async def test_no_request_is_sent_on_a_connection_closed_during_a_stop(database: Database, tmp_path: Path) -> None:
    """The client asks before the upstream closes, on a connection that is there, so that may be what is read first."""
    upstream, body = PhasedUpstream(JSON_ANSWER), b'{"model":"auto","messages":[{"role":"user","content":"hello"}]}'
    async with gateway(database, tmp_path, upstream) as (stack, key):
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\ncontent-length: "
        request = b"%b%d\r\n\r\n%b" % (head.encode(), len(body), body)

        async def answer() -> bytes:
            told = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(content_length(told))
            return told[:12]

        async def meanwhile() -> None:
            await asyncio.sleep(LATE_SECONDS)
            writer.write(request)
            await asyncio.sleep(LATE_SECONDS)
            for each in upstream.writers:
                each.close()

        writer.write(request)
        assert await answer() == b"HTTP/1.1 200"
        await pause_worker(stack, meanwhile)
        assert await answer() == b"HTTP/1.1 200"
        assert upstream.counted == 2
        made = await attempts(stack)
        assert made.pop("not_billed", 0) <= 1 and made == {"ok": 2}, "nothing was sent where nobody is, and billed"
        writer.close()


async def attempts(stack: Stack) -> dict[str, float]:
    """How many there were, by outcome."""
    text = (await stack.ask("GET", "/metrics", None)).body.decode()
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("groundplan_gateway_attempts_total{"):
            outcome = line.partition('outcome="')[2].partition('"')[0]
            found[outcome] = found.get(outcome, 0) + float(line.rpartition(" ")[2])
    return found


async def test_a_budget_slice_granted_during_a_stop_is_used(database: Database, tmp_path: Path) -> None:
    """The first call of a worker waits for its slice, a quarter of a second at most."""
    upstream = PhasedUpstream(JSON_ANSWER)
    async with gateway(database, tmp_path, upstream) as (stack, key):
        held = psycopg.connect(database.superuser)
        held.execute("LOCK TABLE budget_period IN ACCESS EXCLUSIVE MODE")
        untold = asyncio.ensure_future(stack.ask_once(key))
        await asyncio.sleep(0.1)
        await pause_worker(stack, held.close)
        reply = await untold
        assert reply.status == 200, reply.body
