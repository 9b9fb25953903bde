"""What a hostile or broken upstream sends: nothing of it but the answer's own bytes reaches a caller, nothing of ours
goes back, and no log line is made of it. A real worker before a server that sends what it likes."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import Reply, Stack, blueprint, deployment, installation, parse_events, workload

from groundplan.testing.database import Database

SECRET = "sk-upstream-0123456789abcdef0123456789abcdef"
GOOD = json.dumps(
    {
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()  # fmt: skip
OURS = {
    "date", "content-type", "content-length", "connection", "transfer-encoding", "cache-control", "retry-after",
    "retry-after-ms", "x-accel-buffering", "x-request-id", "x-should-retry",
}  # fmt: skip


def http_response(status: int, body: bytes, *lines: bytes) -> bytes:
    head = [b"HTTP/1.1 %d X" % status, b"content-length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


@dataclass
class Hostile:
    """Answers each request with `raw`."""

    stack: Stack
    key: str
    raw: bytes = b""
    asked: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            self.asked += 1
            writer.write(self.raw)
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async def answer(self, raw: bytes, **more: Any) -> Reply:
        self.raw = raw
        reply = await self.stack.chat(self.key, **more)
        assert {name for name in reply.headers if not name.startswith("groundplan-")} <= OURS, reply.headers
        assert reply.headers.get("x-request-id") == reply.headers.get("groundplan-call-id"), (
            "ours, and not the upstream's"
        )
        assert SECRET.encode() not in reply.body
        return reply


@asynccontextmanager
async def hostile(database: Database, folder: Path) -> AsyncIterator[Hostile]:
    secret = folder / "secret"
    secret.write_text(SECRET)
    async with installation(database, folder) as stack:
        made = Hostile(stack, "")
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        one = deployment("one", port, key=f"file:{secret}", idle_ms=5000)
        stack.apply(blueprint(1, [one], [workload("assistant", ["one"], attempts=1)]))
        stack.start()
        await stack.wait_until_ready()
        made.key = stack.key()
        yield made
        server.close()


@pytest.mark.timeout(120)
async def test_nothing_of_a_hostile_upstream_gets_through(database: Database, tmp_path: Path) -> None:
    async with hostile(database, tmp_path) as upstream:
        evil = (b"set-cookie: session=evil", b"location: http://evil.example/", b"x-powered-by: evil")
        reply = await upstream.answer(http_response(200, GOOD, *evil))
        assert reply.status == 200 and reply.json["choices"][0]["message"]["content"] == "fine"

        split = [
            http_response(200, GOOD, b"x: a\rset-cookie: evil=1"),
            http_response(200, GOOD, b"x: a\x00b"),
            http_response(200, GOOD, b"x: a\nset-cookie: evil=1"),
            http_response(200, GOOD, b" folded: line"),
            http_response(200, GOOD, b"transfer-encoding: chunked"),
            http_response(200, gzip.compress(b'{"choices":' + b"[" * 50_000_000), b"content-encoding: gzip"),
            http_response(302, b"", b"location: http://127.0.0.1:1/"),
            http_response(101, b"", b"upgrade: websocket", b"connection: upgrade"),
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        ]
        for raw in split:
            reply = await upstream.answer(raw)
            assert reply.status in (502, 503), (raw[:200], reply)
            assert b"evil" not in reply.body

        said = json.dumps({"error": {"message": f"your header was Authorization: Bearer {SECRET}", "type": "x"}})
        reply = await upstream.answer(http_response(400, said.encode()))
        assert reply.status == 400 and "your header was" in reply.json["error"]["message"]
        for status in (401, 403):
            assert (await upstream.answer(http_response(status, said.encode()))).status in (502, 503)
        html = b"<script>alert(1)</script>"
        reply = await upstream.answer(http_response(400, html, b"content-type: text/html"))
        assert reply.headers["content-type"] == "application/json" and html not in reply.body

        chunk = json.loads(GOOD) | {"object": "chat.completion.chunk"}
        chunk["choices"] = [{"index": 0, "delta": {"content": "a\r\n\r\ndata: evil"}, "finish_reason": "stop"}]
        stream = b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode()
        reply = await upstream.answer(
            http_response(200, stream, b"content-type: text/event-stream", *evil), stream=True
        )
        assert (
            reply.status == 200 and parse_events(reply.body)[-1] == "[DONE]" and "evil" not in parse_events(reply.body)
        )

        asked = upstream.asked
        forged = "gp_x\\r\\n2026-01-01 ERROR forged line \x1b[2J"
        await upstream.stack.post("/v1/chat/completions", forged.replace("\x1b", ""), {"model": "\n\rforged\x00"})
        assert upstream.asked == asked
    for log in (tmp_path / "home" / "logs").glob("*.log"):
        text = log.read_bytes()
        assert SECRET.encode() not in text and b"forged" not in text
        assert all(byte == 10 or 32 <= byte < 127 for byte in text), "a log is printable lines"
