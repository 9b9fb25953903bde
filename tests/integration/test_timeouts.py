"""Each time limit of a deployment by itself, the others being long; and a slow reader that holds its upstream."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
from tests.integration.gateway_stack import (
    Stack,
    blueprint,
    deployment,
    installation,
    parse_events,
    scripted_upstream,
    workload,
)

from groundplan.testing.database import Database
from groundplan.testing.scripted import Script

LONG = 60_000
SHORT = 300


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts no more connections and refuses none: its queue is full."""
    held = []
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        port: int = listening.getsockname()[1]
        try:
            while True:
                waiting = socket.socket()
                held.append(waiting)
                waiting.settimeout(0.3)
                waiting.connect(("127.0.0.1", port))
        except TimeoutError:
            yield port
        finally:
            for each in held:
                each.close()


@asynccontextmanager
async def gateway(database: Database, folder: Path, **limits: dict[str, int]) -> AsyncIterator[tuple[Stack, str]]:
    """`limits` by deployment, in order: its port and its milliseconds."""
    places = [
        deployment(name, **{"connect_ms": LONG, "first_token_ms": LONG, "idle_ms": LONG, **given})
        for name, given in limits.items()
    ]
    async with installation(database, folder) as stack:
        stack.apply(blueprint(1, places, [workload("assistant", list(limits))]))
        stack.start()
        await stack.wait_until_ready()
        yield stack, stack.key()


@pytest.mark.parametrize("stream", [False, True])
async def test_connect(database: Database, tmp_path: Path, stream: bool) -> None:
    with silent_port() as silent:
        async with scripted_upstream("second") as (second, port):
            limits = {"first": {"port": silent, "connect_ms": SHORT}, "second": {"port": port}}
            async with gateway(database, tmp_path, **limits) as (stack, key):
                began = time.monotonic()
                reply = await stack.chat(key, stream=stream)
                assert reply.status == 200 and reply.headers["groundplan-deployment"] == "second"
                assert SHORT / 1000 <= time.monotonic() - began < LONG / 1000
                assert second.counted == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_first_token(database: Database, tmp_path: Path, stream: bool) -> None:
    """Of a whole answer the head comes when all of it is made, so there the time between tokens counts in."""
    async with scripted_upstream("first") as (first, one), scripted_upstream("second") as (second, two):
        first.script = Script(latency_ms=LONG)
        idle = LONG if stream else SHORT
        limits = {"first": {"port": one, "first_token_ms": SHORT, "idle_ms": idle}, "second": {"port": two}}
        async with gateway(database, tmp_path, **limits) as (stack, key):
            reply = await stack.chat(key, stream=stream)
            assert reply.status == 200 and reply.headers["groundplan-deployment"] == "second"
            assert (first.counted, second.counted) == (1, 1)


async def test_idle(database: Database, tmp_path: Path) -> None:
    """Tokens come, and then none for too long: the stream ends with an error event, and is billed as estimated."""
    async with scripted_upstream("only") as (only, port):
        only.script = Script(chunk_ms=SHORT * 20, tokens=5)
        async with gateway(database, tmp_path, only={"port": port, "idle_ms": SHORT}) as (stack, key):
            reply = await stack.chat(key, stream=True)
            *_, last = parse_events(reply.body)
            assert reply.status == 200 and last["error"]["code"] == "stream_broken" and last["error"]["hint"]


async def test_a_slow_stream_within_its_limits_is_not_cut(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("only") as (only, port):
        only.script = Script(latency_ms=200, chunk_ms=100, tokens=8)
        limits = {"port": port, "first_token_ms": 1500, "idle_ms": 700}
        async with gateway(database, tmp_path, only=limits) as (stack, key):
            for _ in range(3):  # the best of three: on a busy machine the model itself may be too slow
                *_, done = parse_events((await stack.chat(key, stream=True)).body)
                if done == "[DONE]":
                    break
            assert done == "[DONE]"


CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
ENDING = (
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":9}}'
    b"\n\ndata: [DONE]\n\n"
)
PIECES = 4000


class Fountain:
    """An upstream that streams 64 MB as fast as it is read, and knows how much was."""

    def __init__(self) -> None:
        self.sent = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            piece = CHUNK % (b"x" * 16_000)
            for _ in range(PIECES):
                writer.write(piece)
                await writer.drain()
                self.sent += 1
            writer.write(ENDING)
            await writer.drain()


async def test_a_slow_reader_holds_the_upstream_and_misses_nothing(database: Database, tmp_path: Path) -> None:
    fountain = Fountain()
    async with await asyncio.start_server(fountain.answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with gateway(database, tmp_path, only={"port": port}) as (stack, key):
            reader, writer = await asyncio.open_connection("127.0.0.1", stack.port, limit=1024)
            body = json.dumps(
                {"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": True}
            ).encode()
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
            )
            writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
            start = await reader.readexactly(200)
            async with asyncio.timeout(60):
                held = -1
                while fountain.sent != held:  # until whatever is on the way is full
                    held = fountain.sent
                    await asyncio.sleep(1.0)
            assert held < PIECES * 3 // 4, "it is not read on while the client takes nothing"
            got = len(start)
            tail = b""
            while data := await asyncio.wait_for(reader.read(1 << 20), 60):
                got += len(data)
                tail = (tail + data)[-3000:]
            writer.close()
            assert fountain.sent == PIECES and got > PIECES * 16_000
            assert b'"groundplan"' in tail and tail.endswith(b"0\r\n\r\n")
