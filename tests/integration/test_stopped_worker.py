"""A worker that stood still (SIGSTOP; a machine that stalls does the same to it) holds its own silence against nobody:
what came meanwhile is read before anybody is taken to be silent. Real processes.
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
    events,
    installation,
    workload,
)

from groundplan.blueprint.serving import Hedge, Reliability
from groundplan.testing.database import Database

SHORT_MS = 600
"""Of every time limit, unless a test says another."""
STOP_SECONDS = 1.3
LATER_SECONDS = 0.2
"""Into a stop, in which whoever waits for sockets and a timer has come to an end by the timer."""
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
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
FAILS = b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


class Far:
    """An upstream that says `said` at once, `meanwhile` while the worker stands still, and `after` once it goes on. Of
    whole answers it says one after another on a connection."""

    def __init__(self, *said: bytes, meanwhile: tuple[bytes, ...] = (), after: tuple[bytes, ...] = ()) -> None:
        self.said, self.meanwhile, self.after = said, meanwhile, after
        self.asked, self.stopped, self.woken = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.counted = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            while (head := await reader.readuntil(b"\r\n\r\n")) and await reader.readexactly(length_of(head)):
                said, meanwhile, after = (
                    self.said,
                    self.meanwhile,
                    self.after,
                )  # of this call, whatever the next is told
                self.counted += 1
                self.asked.set()
                await say(writer, said)
                if meanwhile:
                    await self.stopped.wait()
                    await asyncio.sleep(LATER_SECONDS)
                    await say(writer, meanwhile)
                if after:
                    await self.woken.wait()
                    await asyncio.sleep(0.05)
                    await say(writer, after)
                if b"close" in b"".join((*said, *meanwhile)):
                    break
        writer.close()


async def say(writer: asyncio.StreamWriter, pieces: tuple[bytes, ...]) -> None:
    for each in pieces:
        writer.write(each)
        await writer.drain()
        await asyncio.sleep(0.02)


def length_of(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))


@asynccontextmanager
async def gateway(database: Database, folder: Path, *far: Far, **more: Any) -> AsyncIterator[tuple[Stack, str]]:
    """A worker before these upstreams, of which the first is asked first. `more`: of each deployment; `workload`: of
    the workload."""
    terms = more.pop("workload", {})
    settings = {"first_token_ms": SHORT_MS, "idle_ms": SHORT_MS, "connect_ms": SHORT_MS, **more}
    servers = [await asyncio.start_server(each.answer, "127.0.0.1", 0) for each in far]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    places = [deployment(f"d{n}", port, **settings) for n, port in enumerate(ports)]
    async with installation(database, folder) as stack:
        stack.apply(blueprint(1, places, [workload("assistant", [place.name for place in places], **terms)]))
        stack.start()
        await stack.ready()
        yield stack, stack.key()
    for server, each in zip(servers, far, strict=True):
        server.close()
        for writer in each.writers:
            writer.close()


async def stands_still(
    stack: Stack, meanwhile: Callable[[], Awaitable[object] | None], seconds: float = STOP_SECONDS
) -> None:
    """Stop the worker, do something, and let it go on after so many seconds."""
    pid, begun = stack.workers[0].pid, time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        if (waited := meanwhile()) is not None:
            await waited
        await asyncio.sleep(seconds - (time.monotonic() - begun))
    finally:
        os.kill(pid, signal.SIGCONT)


async def across_a_stop(stack: Stack, far: Far, asking: Awaitable[Reply], seconds: float = STOP_SECONDS) -> Reply:
    """The answer to a call during which the worker stands still."""
    task = asyncio.ensure_future(asking)
    async with asyncio.timeout(20):
        await far.asked.wait()
        await asyncio.sleep(0.05)
        await stands_still(stack, far.stopped.set, seconds)
        far.woken.set()
        return await task


WELL = [
    pytest.param(lambda: Far(HEAD, CHUNK % b"a", meanwhile=(CHUNK % b"b", ENDING)), id="all of it"),
    pytest.param(lambda: Far(meanwhile=(HEAD, CHUNK % b"a", ENDING)), id="from its head on"),
    pytest.param(lambda: Far(HEAD, meanwhile=(CHUNK % b"a",), after=(ENDING,)), id="its first event"),
    pytest.param(lambda: Far(HEAD, after=(CHUNK % b"a", ENDING)), id="nothing before its first event"),
    pytest.param(lambda: Far(HEAD, CHUNK % b"a", after=(CHUNK % b"b", ENDING)), id="nothing in the middle"),
    pytest.param(lambda: Far(HEAD, CHUNK % b"a", COMMENT, meanwhile=(COMMENT,), after=(ENDING,)), id="comments"),
]
"""Upstreams that answer a stream well, of which more or less came before, while and after a worker stood still."""


@pytest.mark.parametrize("well", WELL)
async def test_a_stream_continues_after_a_stop_with_the_data_that_arrived_meanwhile(
    database: Database, tmp_path: Path, well: Callable[[], Far]
) -> None:
    """Nobody else is left who could: the other one fails."""
    fails, far = Far(FAILS), well()
    async with gateway(database, tmp_path, fails, far) as (stack, key):
        reply = await across_a_stop(stack, far, stack.chat(key, stream=True))
        *_, last = events(reply.body)
        assert last == "[DONE]", last
        assert (fails.counted, far.counted) == (1, 1)


@pytest.mark.parametrize("said", [b"", WHOLE[:60], WHOLE[:-20]], ids=["nothing", "a part of its head", "nearly all"])
async def test_a_complete_answer_that_arrived_during_a_stop_is_used(
    database: Database, tmp_path: Path, said: bytes
) -> None:
    far, other = Far(said, meanwhile=(WHOLE[len(said) :],)), Far(WHOLE)
    async with gateway(database, tmp_path, far, other, first_token_ms=300, idle_ms=300) as (stack, key):
        reply = await across_a_stop(stack, far, stack.chat(key))
        assert reply.status == 200 and reply.headers["groundplan-deployment"] == "d0", reply.body
        assert (far.counted, other.counted) == (1, 0)


async def test_a_connection_established_during_a_stop_is_used(database: Database, tmp_path: Path) -> None:
    """Nobody accepts, and when the kernel asks once more, a second after the first time, somebody does."""
    far, other = Far(WHOLE), Far(WHOLE)
    async with gateway(database, tmp_path, other) as (stack, key):
        listening, held = crowded()
        place = deployment("slow", listening.getsockname()[1], connect_ms=500)
        there = deployment("d0", listening.getsockname()[1])
        stack.apply(blueprint(2, [place, there], [workload("assistant", ["slow", "d0"])]))
        await stack.ready(2)
        task = asyncio.ensure_future(stack.chat(key))
        await asyncio.sleep(0.2)
        await stands_still(stack, lambda: asyncio.start_server(far.answer, sock=listening), 1.5)
        reply = await task
        assert reply.status == 200 and reply.headers["groundplan-deployment"] == "slow", reply.body
        for each in (listening, *held):
            each.close()
        for writer in far.writers:
            writer.close()


def crowded() -> tuple[socket.socket, list[socket.socket]]:
    """A port that accepts no more connections and refuses none, and those that wait there."""
    listening, held = socket.create_server(("127.0.0.1", 0), backlog=0), []
    with suppress(TimeoutError):
        while True:
            held.append(waiting := socket.socket())
            waiting.settimeout(0.2)
            waiting.connect(("127.0.0.1", listening.getsockname()[1]))
    return listening, held


async def test_a_stopped_worker_sends_no_hedge(database: Database, tmp_path: Path) -> None:
    far, other = Far(meanwhile=(WHOLE,)), Far(WHOLE)
    terms = {"reliability": Reliability(hedge=Hedge(after_ms=400, at_most=1.0))}
    async with gateway(database, tmp_path, far, other, first_token_ms=5000, workload=terms) as (stack, key):
        reply = await across_a_stop(stack, far, stack.chat(key))
        assert reply.status == 200 and reply.headers["groundplan-deployment"] == "d0", reply.body
        assert await attempts(stack) == {"ok": 1}
        far.stopped.clear()
        slow = await stack.chat(key)
        assert slow.status == 200 and slow.headers["groundplan-deployment"] == "d1", "one that is slow is hedged"


async def test_a_deadline_that_passed_while_the_worker_was_stopped_is_enforced(
    database: Database, tmp_path: Path
) -> None:
    """The deadline of a call is of real time: when it goes on, nobody is waited for any longer."""
    far, other = Far(), Far(WHOLE)
    terms = {"deadline_ms": 800}
    async with gateway(database, tmp_path, far, other, first_token_ms=9000, workload=terms) as (stack, key):
        task = asyncio.ensure_future(stack.chat(key))
        await far.asked.wait()
        await stands_still(stack, lambda: None)
        begun = time.monotonic()
        reply = await task
        assert reply.status == 503 and reply.code == "upstream_failed", reply.body
        assert time.monotonic() - begun < 0.4
        assert other.counted == 0


async def test_an_upstream_silent_after_a_stop_times_out_as_usual(database: Database, tmp_path: Path) -> None:
    far, other = Far(HEAD, CHUNK % b"a"), Far(HEAD, CHUNK % b"b", ENDING)
    terms = {"reliability": Reliability(on_broken_stream="resume")}
    async with gateway(database, tmp_path, far, other, workload=terms) as (stack, key):
        task = asyncio.ensure_future(stack.chat(key, stream=True))
        await far.asked.wait()
        await stands_still(stack, lambda: None)
        begun = time.monotonic()
        reply = await task
        *_, last = events(reply.body)
        assert last == "[DONE]" and other.counted == 1
        assert time.monotonic() - begun < 3 * SHORT_MS / 1000


async def test_a_concurrency_slot_freed_during_a_stop_is_used(database: Database, tmp_path: Path) -> None:
    """Of a deployment that takes one call at a time; who waits for it is patient for two seconds."""
    far = Far(meanwhile=(WHOLE,))
    async with gateway(database, tmp_path, far, first_token_ms=20_000, concurrent=1) as (stack, key):
        first = asyncio.ensure_future(stack.chat(key))
        await far.asked.wait()
        second = asyncio.ensure_future(stack.chat(key))
        await asyncio.sleep(0.2)
        await stands_still(stack, far.stopped.set, 2.5)
        assert ((await first).status, (await second).status) == (200, 200)


async def test_time_spent_stopped_does_not_count_as_a_deployments_latency(database: Database, tmp_path: Path) -> None:
    """The one that is balanced by speed is asked as before."""
    far, other = Far(WHOLE), Far(WHOLE)
    terms = {"reliability": Reliability(balance="latency")}
    async with gateway(database, tmp_path, far, other, first_token_ms=5000, workload=terms) as (stack, key):
        for _ in range(20):
            assert (await stack.chat(key)).status == 200
        for each in (far, other):
            each.said, each.meanwhile = (), (WHOLE,)
            each.asked.clear()
        task = asyncio.ensure_future(stack.chat(key))
        asked_first = [asyncio.ensure_future(each.asked.wait()) for each in (far, other)]
        _, waiting = await asyncio.wait(asked_first, return_when=asyncio.FIRST_COMPLETED)
        for each_waiting in waiting:
            each_waiting.cancel()
        victim = far if far.asked.is_set() else other

        def meanwhile() -> None:
            far.stopped.set()
            other.stopped.set()

        await stands_still(stack, meanwhile)
        assert (await task).status == 200
        asked, calls = victim.counted, 0
        while victim.counted == asked and calls < 100:  # one that took two seconds would not be asked again for long
            assert (await stack.chat(key)).status == 200
            calls += 1
        assert victim.counted > asked


async def test_no_request_is_sent_on_a_connection_closed_during_a_stop(database: Database, tmp_path: Path) -> None:
    """The client asks before the upstream closes, on a connection that is there, so that may be what is read first."""
    far, body = Far(WHOLE), b'{"model":"auto","messages":[{"role":"user","content":"hello"}]}'
    async with gateway(database, tmp_path, far) as (stack, key):
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\ncontent-length: "
        request = b"%b%d\r\n\r\n%b" % (head.encode(), len(body), body)

        async def answer() -> bytes:
            told = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(length_of(told))
            return told[:12]

        async def meanwhile() -> None:
            await asyncio.sleep(LATER_SECONDS)
            writer.write(request)
            await asyncio.sleep(LATER_SECONDS)
            for each in far.writers:
                each.close()

        writer.write(request)
        assert await answer() == b"HTTP/1.1 200"
        await stands_still(stack, meanwhile)
        assert await answer() == b"HTTP/1.1 200"
        assert far.counted == 2
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
    far = Far(WHOLE)
    async with gateway(database, tmp_path, far) as (stack, key):
        held = psycopg.connect(database.superuser)
        held.execute("LOCK TABLE budget_period IN ACCESS EXCLUSIVE MODE")
        untold = asyncio.ensure_future(stack.ask_once(key))
        await asyncio.sleep(0.1)
        await stands_still(stack, held.close)
        reply = await untold
        assert reply.status == 200, reply.body
