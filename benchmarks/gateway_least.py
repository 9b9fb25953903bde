"""The least that still counts as a gateway: uvicorn, a bare ASGI application, and a pooled client.

A call's key is looked up by its hash, its body is read as JSON and forwarded, the usage of its answer is read, and the
usage rows are written to SQLite four times a second. No policy, limit, budget or retry, nothing durable before the
answer, no audit: `gateway_peers` runs this program as the baseline for the cost of all of these.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import uvicorn

from groundplan.gateway.upstream.http1 import Http1Connection
from groundplan.gateway.upstream.http1_pool import Http1Pool

ROWS_EVERY_SECONDS = 0.25

Row = tuple[float, str, int, int]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Usage(msgspec.Struct):
    """Tokens that an answer reports."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatAnswer(msgspec.Struct):
    """The part of an answer, or of a stream's event, that is read."""

    usage: Usage | None = None


class ChatRequest(msgspec.Struct):
    """The part of a request that is read."""

    model: str
    messages: list[Any]
    stream: bool = False


class LeastGateway:
    """The ASGI application."""

    def __init__(self, upstream_port: int, key: str, file: str) -> None:
        self._upstream_port = upstream_port
        self._keys = {hashlib.sha256(key.encode()).digest(): "assistant"}
        self._request_decoder, self._answer_decoder = (
            msgspec.json.Decoder(ChatRequest),
            msgspec.json.Decoder(ChatAnswer),
        )
        self._pending_rows: list[Row] = []
        self._pool: Http1Pool | None = None
        self._writer_task: asyncio.Task[None] | None = None
        self._ledger = sqlite3.connect(file, isolation_level=None)
        self._ledger.execute("PRAGMA journal_mode = wal")
        self._ledger.execute("CREATE TABLE IF NOT EXISTS usage (at REAL, owner TEXT, input INTEGER, output INTEGER)")

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] != "POST":
            await _send(send, 200, b"{}")
            return
        owner = self._find_owner(scope["headers"])
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        if owner is None:
            await _send(send, 401, b"{}")
            return
        try:
            request = self._request_decoder.decode(body)
        except msgspec.DecodeError:
            await _send(send, 400, b"{}")
            return
        pool = self._started_pool()
        connection = pool.take_idle() or await pool.connect(1.0)
        connection.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: u\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        status = await connection.read_head(5.0)
        if request.stream:
            await self._relay_stream(connection, status, owner, send)
        else:
            answer = await connection.read_body(5.0)
            self._record_usage(owner, self._answer_decoder.decode(answer).usage)
            await _send(send, status, answer)
        connection.release()

    def _find_owner(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        for name, value in headers:
            if name == b"authorization":
                return self._keys.get(hashlib.sha256(value[7:]).digest())
        return None

    async def _relay_stream(self, connection: Http1Connection, status: int, owner: str, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        usage = None
        while (data := await connection.read_chunk(5.0)) is not None:
            if b'"usage"' in data:
                lines = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: {")]
                usage = next((event.usage for event in map(self._answer_decoder.decode, lines) if event.usage), usage)
            await send({"type": "http.response.body", "body": data, "more_body": True})
        self._record_usage(owner, usage)
        await send({"type": "http.response.body", "body": b""})

    def _record_usage(self, owner: str, usage: Usage | None) -> None:
        tokens = usage or Usage()
        self._pending_rows.append((time.time(), owner, tokens.prompt_tokens, tokens.completion_tokens))

    def _started_pool(self) -> Http1Pool:
        if self._pool is None:
            loop = asyncio.get_running_loop()
            self._pool = Http1Pool(f"http://127.0.0.1:{self._upstream_port}/v1", loop)
            self._writer_task = loop.create_task(self._write_rows())
        return self._pool

    async def _write_rows(self) -> None:
        while True:
            await asyncio.sleep(ROWS_EVERY_SECONDS)
            rows, self._pending_rows = self._pending_rows, []
            self._ledger.execute("BEGIN")
            self._ledger.executemany("INSERT INTO usage VALUES (?, ?, ?, ?)", rows)
            self._ledger.execute("COMMIT")


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--file", required=True, help="of its usage rows")
    arguments = parser.parse_args()
    settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "lifespan": "off", "loop": "uvloop"}
    uvicorn.run(
        LeastGateway(arguments.upstream, arguments.key, arguments.file),
        host="127.0.0.1",
        port=arguments.port,
        **settings,
    )


if __name__ == "__main__":
    main()
