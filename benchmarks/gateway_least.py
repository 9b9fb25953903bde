"""The least that still counts as a gateway: uvicorn, a bare ASGI application, and a pooled client.

A call's key is looked up by its hash, its body is read as JSON, it is passed on, the usage of its answer is read, and a
row for it is written to SQLite four times a second. No policy, no limit, no budget, no retry, nothing durable before
the answer, no audit: what all of these cost is told against this program, run by `gateway_peers`.
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
    """Tokens that an answer says it took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Answer(msgspec.Struct):
    """What is read of an answer, or of a stream's event."""

    usage: Usage | None = None


class Asked(msgspec.Struct):
    """What is read of a call."""

    model: str
    messages: list[Any]
    stream: bool = False


class Least:
    """The application."""

    def __init__(self, upstream: int, key: str, file: str) -> None:
        self._upstream = upstream
        self._keys = {hashlib.sha256(key.encode()).digest(): "assistant"}
        self._asked, self._answer = msgspec.json.Decoder(Asked), msgspec.json.Decoder(Answer)
        self._rows: list[Row] = []
        self._pool: Http1Pool | None = None
        self._writing: asyncio.Task[None] | None = None
        self._ledger = sqlite3.connect(file, isolation_level=None)
        self._ledger.execute("PRAGMA journal_mode = wal")
        self._ledger.execute("CREATE TABLE IF NOT EXISTS usage (at REAL, owner TEXT, input INTEGER, output INTEGER)")

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] != "POST":
            await _send(send, 200, b"{}")
            return
        owner = self._owner(scope["headers"])
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        if owner is None:
            await _send(send, 401, b"{}")
            return
        try:
            asked = self._asked.decode(body)
        except msgspec.DecodeError:
            await _send(send, 400, b"{}")
            return
        pool = self._begun()
        connection = pool.take_idle() or await pool.connect(1.0)
        connection.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: u\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        status = await connection.read_head(5.0)
        if asked.stream:
            await self._passed_on(connection, status, owner, send)
        else:
            answered = await connection.read_body(5.0)
            self._note(owner, self._answer.decode(answered).usage)
            await _send(send, status, answered)
        connection.release()

    def _owner(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        for name, value in headers:
            if name == b"authorization":
                return self._keys.get(hashlib.sha256(value[7:]).digest())
        return None

    async def _passed_on(self, connection: Http1Connection, status: int, owner: str, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        usage = None
        while (data := await connection.read_chunk(5.0)) is not None:
            if b'"usage"' in data:
                events = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: {")]
                usage = next((read.usage for read in map(self._answer.decode, events) if read.usage), usage)
            await send({"type": "http.response.body", "body": data, "more_body": True})
        self._note(owner, usage)
        await send({"type": "http.response.body", "body": b""})

    def _note(self, owner: str, usage: Usage | None) -> None:
        told = usage or Usage()
        self._rows.append((time.time(), owner, told.prompt_tokens, told.completion_tokens))

    def _begun(self) -> Http1Pool:
        if self._pool is None:
            loop = asyncio.get_running_loop()
            self._pool = Http1Pool(f"http://127.0.0.1:{self._upstream}/v1", loop)
            self._writing = loop.create_task(self._write())
        return self._pool

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(ROWS_EVERY_SECONDS)
            rows, self._rows = self._rows, []
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
    a = parser.parse_args()
    settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "lifespan": "off", "loop": "uvloop"}
    uvicorn.run(Least(a.upstream, a.key, a.file), host="127.0.0.1", port=a.port, **settings)


if __name__ == "__main__":
    main()
