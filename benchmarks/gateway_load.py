"""HTTP load for one chat-completions address on loopback, from one process; prints one JSON object.

closed: `--conc` connections, each sends its next request when the last is answered. open: `--rate` requests a second,
whatever the answers do; latency counts from the moment of sending, `send_lag` says how late that was. They come at even
gaps, or with `--random` at exponential ones, always the same: at even gaps an answer may come whenever another request
is sent. With `--stream` the time to the first event is told too. Not a general load generator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import uvloop

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gateway_clock import Clock

MESSAGES = [
    {"role": "system", "content": "You are a concise assistant that answers in one sentence."},
    {"role": "user", "content": "What is the capital of France, and on which river does it lie? Answer briefly."},
]
DENSE = 1000
"""Requests a second from which on they are sent in bundles of a millisecond."""
PROSE = 'The committee met on Tuesday and "agreed", after some debate, that the report (part 2) is due in May.\n'


def request_bytes(
    port: int,
    model: str,
    key: str,
    stream: bool,
    size: int = 0,
    path: str = "/v1/chat/completions",
    headers: Sequence[str] = (),
) -> bytes:
    """`size` more bytes of prose in front of the question; `headers` are whole lines."""
    prose = [{"role": "user", "content": (PROSE * (size // len(PROSE) + 1))[:size]}] if size else []
    body: dict[str, Any] = {"model": model, "messages": [*prose, *MESSAGES], "max_tokens": 64, "temperature": 0.2}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(data)}\r\n"
        f"{''.join(f'{line}{chr(13)}{chr(10)}' for line in headers)}\r\n"
    )
    return head.encode() + data


def quantile(values: Sequence[float], q: float) -> float | None:
    """In milliseconds."""
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(q * len(ordered)))], 3) if ordered else None


class _Connection(asyncio.Protocol):
    def __init__(self, run: Run) -> None:
        self.run = run
        self.transport: asyncio.Transport | None = None
        self.busy = False
        self.buffer = bytearray()
        self.sent = self.first = 0.0
        self.need = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self) -> None:
        self.buffer = bytearray()
        self.need, self.first, self.busy = -1, 0.0, True
        self.sent = time.perf_counter()
        if self.transport is not None:
            self.transport.write(self.run.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.first and (not self.run.stream or b"data:" in self.buffer):
            self.first = time.perf_counter()
        if self.need < 0:
            end = self.buffer.find(b"\r\n\r\n")
            at = self.buffer[:end].lower().find(b"content-length:")
            if end < 0:
                return
            self.need = end + 4 + int(self.buffer[at + 15 : end].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) >= self.need if self.need else self.buffer.endswith(b"0\r\n\r\n"):
            self.busy = False
            self.run.done(self, bytes(self.buffer))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        if self.busy:
            self.busy = False
            self.run.failed(b"connection lost")


class Run:
    """One measurement."""

    def __init__(self, port: int, request: bytes, stream: bool, seconds: float, most: int) -> None:
        self.port, self.request, self.stream = port, request, stream
        self.seconds, self.most = seconds, most
        self.latencies: list[float] = []
        self.firsts: list[float] = []
        self.lags: list[float] = []
        self.errors = self.sent = self.flying = 0
        self.sample = ""
        self.end = 0.0
        self.paced = False
        self.random = False
        self.free: list[_Connection] = []

    async def connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
        return connection

    def launch(self, connection: _Connection) -> None:
        self.sent += 1
        self.flying += 1
        connection.send()

    def idle(self) -> _Connection | None:
        """A connection that nobody uses. Those that the server closed, as nobody used them for long, are dropped."""
        while self.free:
            connection = self.free.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    def more(self) -> bool:
        return self.sent < self.most and time.perf_counter() < self.end

    def done(self, connection: _Connection, answer: bytes) -> None:
        now = time.perf_counter()
        self.flying -= 1
        if answer[9:12] == b"200" and (b"[DONE]" in answer if self.stream else b'"choices"' in answer):
            self.latencies.append(now - connection.sent)
            self.firsts.append(connection.first - connection.sent)
        else:
            self.errors += 1
            self.sample = self.sample or answer[:400].decode("latin-1")
        if self.paced:
            self.free.append(connection)
        elif self.more():
            self.launch(connection)

    def failed(self, reason: bytes) -> None:
        self.flying -= 1
        self.errors += 1
        self.sample = self.sample or reason.decode()

    async def go(self, connections: int, rate: float) -> dict[str, Any]:
        self.free = [await self.connect() for _ in range(connections)]
        start = time.perf_counter()
        self.end = start + self.seconds
        self.paced = rate > 0
        if self.paced:
            await self._pace(start, rate)
        else:
            for connection in self.free:
                self.launch(connection)
            while self.more():  # noqa: ASYNC110 -- ends by the clock
                await asyncio.sleep(0.05)
        limit = time.perf_counter() + 15
        while self.flying and time.perf_counter() < limit:  # noqa: ASYNC110 -- ends by the clock
            await asyncio.sleep(0.01)
        wall = time.perf_counter() - start
        return {
            "ok": len(self.latencies), "errors": self.errors + self.flying, "rps": round(len(self.latencies) / wall, 1),
            "p50_ms": quantile(self.latencies, 0.5), "p99_ms": quantile(self.latencies, 0.99),
            "first_p50_ms": quantile(self.firsts, 0.5), "first_p99_ms": quantile(self.firsts, 0.99),
            "send_lag_p99_ms": quantile(self.lags, 0.99), "sample_error": self.sample,
        }  # fmt: skip

    async def _pace(self, start: float, rate: float) -> None:
        gap, due, clock = self._gaps(rate), start, Clock(asyncio.get_running_loop())
        while self.more():
            now = time.perf_counter()
            while due <= now and self.sent < self.most:
                self.lags.append(now - due)
                due += gap()
                try:
                    connection = self.idle() or await self.connect()
                except OSError as error:  # a server that lies behind by more connections than this process may have
                    self.sent, self.flying = self.sent + 1, self.flying + 1
                    self.failed(f"not connected: {error}".encode())
                else:
                    self.launch(connection)
            await clock.sleep(max(0.001 if rate >= DENSE else 0.0, due - time.perf_counter()))

    def _gaps(self, rate: float) -> Callable[[], float]:
        dice = random.Random(1)
        return (lambda: dice.expovariate(rate)) if self.random else (lambda: 1 / rate)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="auto")
    parser.add_argument("--key", default="")
    parser.add_argument("--conc", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--random", action="store_true", help="requests of a rate come at random times")
    parser.add_argument("--secs", type=float, default=5)
    parser.add_argument("--most", type=int, default=10_000_000)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--bytes", type=int, default=0, help="size of a long prompt in front of the question")
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--header", action="append", default=[], help="a further header line; may be repeated")
    a = parser.parse_args()
    request = request_bytes(a.port, a.model, a.key, a.stream, a.bytes, a.path, a.header)
    run = Run(a.port, request, a.stream, a.secs, a.most)
    run.random = a.random
    print(json.dumps(uvloop.run(run.go(a.conc, a.rate))))


if __name__ == "__main__":
    main()
