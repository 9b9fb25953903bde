"""Upstreams whose answers a test writes byte by byte, and the pieces of such answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.integration.gateway_stack import Reply, parse_reply
from tests.unit.call_rig import Rig, call_rig

from groundplan.ledger.model import Settlement

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
CHUNKED_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"[DONE]"


@asynccontextmanager
async def tcp_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A TCP server on loopback; yields its port. It closes its connections at the end, since Python 3.11 leaves
    connections open whose tasks the end of the loop cancels."""
    tasks = set[asyncio.Task[None]]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            with suppress(asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def raw_upstream_rig(
    folder: Path,
    *pieces: bytes,
    has_fallback: bool = False,
    both_raw: bool = False,
    delay: float = 0.0,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """A worker whose first upstream answers with `pieces`, each in a read of its own, and then closes the connection.

    `has_fallback`: there is a second, scripted upstream; `both_raw`: there is a second one that answers alike.
    `delay`: seconds before the answer begins."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(delay)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002 if len(pieces) > 1 else 0)

    names = ["one", "two"] if has_fallback or both_raw else ["one"]
    async with tcp_server(serve) as port:
        at = dict.fromkeys(names if both_raw else names[:1], port)
        async with call_rig(folder, names, ports=at, **settings) as rig:
            yield rig


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice],
                       **more}).encode()  # fmt: skip


def encode_events(*data: bytes, newline: bytes = b"\n") -> bytes:
    return b"".join(b"data: " + each + newline * 2 for each in data)


def usage_chunk(usage: bytes) -> bytes:
    return chunk({}, "stop")[:-1] + b',"usage":' + usage + b"}"


ROLE, HI, THERE = chunk({"role": "assistant"}), chunk({"content": "Hi "}), chunk({"content": "there"})
END = usage_chunk(b'{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}')
ANSWER = (ROLE, HI, THERE, END, DONE)


def completion_body(**more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi there"}, "finish_reason": "stop"}
    return json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
                       **more}).encode()  # fmt: skip


def json_response(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    return head + body


def multi_line_event(data: bytes) -> bytes:
    return b"".join(b"data: " + line + b"\n" for line in json.dumps(json.loads(data), indent=1).encode().split(b"\n"))


def nested_arrays(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


async def check_complete_stream(rig: Rig, **more: Any) -> Settlement:
    """Make a streamed call that must be answered with `ANSWER` in full; returns its settlement."""
    stream = await rig.stream(**more)
    assert (stream.text, stream.finish, stream.done, stream.errors) == ("Hi there", ["stop"], True, [])
    assert stream.headers["x-accel-buffering"] == "no"
    (only,) = await rig.settlements()
    assert only.outcome == "ok"
    await rig.books()
    return only


async def post(rig: Rig, path: str, body: dict[str, Any] | bytes, key: str = "assistant") -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data)
    try:
        return parse_reply(await asyncio.wait_for(reader.read(), 20))
    finally:
        writer.close()
