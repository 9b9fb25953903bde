"""HTTP load for one chat-completions address on loopback, from one process; prints one JSON object.

closed: `--conc` connections, each sends its next request when the last is answered. open: `--rate` requests a second,
whatever the answers do; latency counts from the moment of sending, `send_lag` says how late that was. They come at even
gaps, or with `--random` at exponential ones, always the same: at even gaps each answer may coincide with the sending
of another request. With `--stream` the time to the first event is reported too. Not a general load generator.
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
BATCHING_RATE = 1000
"""Requests a second from which on those of one millisecond are sent together."""
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
    """The request, head and body, with `size` bytes of prose in front of the question; `headers` are whole lines."""
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
    """The quantile `q` of times in seconds, in milliseconds; None without any."""
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(q * len(ordered)))], 3) if ordered else None


class _Connection(asyncio.Protocol):
    def __init__(self, run: LoadRun) -> None:
        self.run = run
        self.transport: asyncio.Transport | None = None
        self.is_busy = False
        self.buffer = bytearray()
        self.sent_at = self.first_event_at = 0.0
        self.expected_length = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self) -> None:
        self.buffer = bytearray()
        self.expected_length, self.first_event_at, self.is_busy = -1, 0.0, True
        self.sent_at = time.perf_counter()
        if self.transport is not None:
            self.transport.write(self.run.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.first_event_at and (not self.run.stream or b"data:" in self.buffer):
            self.first_event_at = time.perf_counter()
        if self.expected_length < 0:
            end = self.buffer.find(b"\r\n\r\n")
            length_at = self.buffer[:end].lower().find(b"content-length:")
            if end < 0:
                return
            self.expected_length = (
                end + 4 + int(self.buffer[length_at + 15 : end].split(b"\r\n", 1)[0]) if length_at >= 0 else 0
            )
        if len(self.buffer) >= self.expected_length if self.expected_length else self.buffer.endswith(b"0\r\n\r\n"):
            self.is_busy = False
            self.run.record_answer(self, bytes(self.buffer))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        if self.is_busy:
            self.is_busy = False
            self.run.record_failure(b"connection lost")


class LoadRun:
    """One measurement: its connections, what they sent, and the latencies of the answers."""

    def __init__(self, port: int, request: bytes, stream: bool, seconds: float, max_requests: int) -> None:
        self.port, self.request, self.stream = port, request, stream
        self.seconds, self.max_requests = seconds, max_requests
        self.latencies: list[float] = []
        self.first_event_times: list[float] = []
        self.send_lags: list[float] = []
        self.errors = self.sent = self.in_flight = 0
        self.sample_error = ""
        self.deadline = 0.0
        self.is_paced = False
        self.has_random_gaps = False
        self.idle_connections: list[_Connection] = []

    async def connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
        return connection

    def send_on(self, connection: _Connection) -> None:
        self.sent += 1
        self.in_flight += 1
        connection.send()

    def take_idle(self) -> _Connection | None:
        """Take an idle connection, if any. Connections that the server closed for being idle are dropped."""
        while self.idle_connections:
            connection = self.idle_connections.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        return None

    def should_send(self) -> bool:
        return self.sent < self.max_requests and time.perf_counter() < self.deadline

    def record_answer(self, connection: _Connection, answer: bytes) -> None:
        now = time.perf_counter()
        self.in_flight -= 1
        if answer[9:12] == b"200" and (b"[DONE]" in answer if self.stream else b'"choices"' in answer):
            self.latencies.append(now - connection.sent_at)
            self.first_event_times.append(connection.first_event_at - connection.sent_at)
        else:
            self.errors += 1
            self.sample_error = self.sample_error or answer[:400].decode("latin-1")
        if self.is_paced:
            self.idle_connections.append(connection)
        elif self.should_send():
            self.send_on(connection)

    def record_failure(self, reason: bytes) -> None:
        self.in_flight -= 1
        self.errors += 1
        self.sample_error = self.sample_error or reason.decode()

    async def measure(self, connections: int, rate: float) -> dict[str, Any]:
        self.idle_connections = [await self.connect() for _ in range(connections)]
        start = time.perf_counter()
        self.deadline = start + self.seconds
        self.is_paced = rate > 0
        if self.is_paced:
            await self._send_at_rate(start, rate)
        else:
            for connection in self.idle_connections:
                self.send_on(connection)
            while self.should_send():  # noqa: ASYNC110 -- ends by the clock
                await asyncio.sleep(0.05)
        limit = time.perf_counter() + 15
        while self.in_flight and time.perf_counter() < limit:  # noqa: ASYNC110 -- ends by the clock
            await asyncio.sleep(0.01)
        wall = time.perf_counter() - start
        return {
            "ok": len(self.latencies), "errors": self.errors + self.in_flight,
            "rps": round(len(self.latencies) / wall, 1),
            "p50_ms": quantile(self.latencies, 0.5), "p99_ms": quantile(self.latencies, 0.99),
            "first_p50_ms": quantile(self.first_event_times, 0.5),
            "first_p99_ms": quantile(self.first_event_times, 0.99),
            "send_lag_p99_ms": quantile(self.send_lags, 0.99), "sample_error": self.sample_error,
        }  # fmt: skip

    async def _send_at_rate(self, start: float, rate: float) -> None:
        gap, due, clock = self._gap_source(rate), start, Clock(asyncio.get_running_loop())
        while self.should_send():
            now = time.perf_counter()
            while due <= now and self.sent < self.max_requests:
                self.send_lags.append(now - due)
                due += gap()
                try:
                    connection = self.take_idle() or await self.connect()
                except OSError as error:  # the server lags by more connections than this process may open
                    self.sent, self.in_flight = self.sent + 1, self.in_flight + 1
                    self.record_failure(f"not connected: {error}".encode())
                else:
                    self.send_on(connection)
            await clock.sleep(max(0.001 if rate >= BATCHING_RATE else 0.0, due - time.perf_counter()))

    def _gap_source(self, rate: float) -> Callable[[], float]:
        generator = random.Random(1)
        return (lambda: generator.expovariate(rate)) if self.has_random_gaps else (lambda: 1 / rate)


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
    arguments = parser.parse_args()
    request = request_bytes(
        arguments.port,
        arguments.model,
        arguments.key,
        arguments.stream,
        arguments.bytes,
        arguments.path,
        arguments.header,
    )
    run = LoadRun(arguments.port, request, arguments.stream, arguments.secs, arguments.most)
    run.has_random_gaps = arguments.random
    print(json.dumps(uvloop.run(run.measure(arguments.conc, arguments.rate))))


if __name__ == "__main__":
    main()
