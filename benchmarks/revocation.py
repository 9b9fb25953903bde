"""How fast something is stopped at every gateway under load, and whether anything is served after that was reported.

A real installation: PostgreSQL, two gateway workers with journals, a scripted upstream in a process of its own, and
callers at a fixed rate. Again and again something is stopped as the API does it (a kill of the workload, of the
deployment, of the provider, a kill for security with streams under way, a revoked key, which is replaced), the time
until every gateway has acknowledged it is taken, and every call that was *sent after that* and yet served is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import uvloop

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gateway_bed import HERE, KEY, Installation
from benchmarks.gateway_load import request_bytes

from groundplan.core.database import database_url
from groundplan.core.ids import new_id
from groundplan.identity import service as identity

SCOPES = ("workload/assistant", "deployment/gpt", "provider/openai", "company", "site/cloud")
MOST_WAITING = 400
"""Calls that may be under way; beyond that the machine, not the gateway, sets the rate."""


class Callers:
    """Calls at a fixed rate; each remembers when it was sent and what came of it."""

    def __init__(self, port: int, rate: float) -> None:
        self.port, self.rate = port, rate
        self.request = request_bytes(port, "auto", KEY, stream=False)
        self.calls: list[tuple[float, float, int]] = []
        """(sent, answered, status)"""
        self.late = 0
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._running: set[asyncio.Task[None]] = set()
        self.going = True

    async def run(self) -> None:
        begun, number = time.monotonic(), 0
        while self.going:
            number += 1
            wait = begun + number / self.rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if len(self._running) >= MOST_WAITING:
                self.late += 1
                continue
            task = asyncio.get_running_loop().create_task(self._one())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        if self._running:
            await asyncio.wait(self._running, timeout=10)
        for _, writer in self._idle:
            writer.close()

    async def _one(self) -> None:
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self.port)
            sent = time.monotonic()
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            return
        self.calls.append((sent, time.monotonic(), int(head.split(b" ", 2)[1])))
        self._idle.append((reader, writer))


async def streams(port: int, count: int, request: bytes) -> list[asyncio.Task[tuple[float, bytes]]]:
    """Streams that are under way: (when each ended, what came)."""

    async def one() -> tuple[float, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        data = b""
        while chunk := await reader.read(65536):
            data += chunk
            if b"0\r\n\r\n" in chunk[-7:]:
                break
        writer.close()
        return time.monotonic(), data

    return [asyncio.get_running_loop().create_task(one()) for _ in range(count)]


class Stops:
    """Stops things as the API does, and waits until they are effective."""

    def __init__(self, url: str) -> None:
        self._url = url

    def kill(self, scope: str, *, streams: bool = False) -> float:
        """Seconds from the order until every gateway has acknowledged it."""
        with psycopg.connect(self._url) as conn:
            begun = time.monotonic()
            number = identity.kill(conn, "operator", scope, "benchmark", streams=streams)
            conn.commit()
            return self._effective(conn, number, begun)

    def lift(self, scope: str) -> None:
        with psycopg.connect(self._url) as conn:
            number = identity.lift(conn, "operator", scope)
            conn.commit()
            self._effective(conn, number, time.monotonic())

    def revoke(self) -> float:
        """Revoke the key that the callers use."""
        with psycopg.connect(self._url) as conn:
            row = conn.execute(
                "SELECT id FROM api_key WHERE hash = %s", (hashlib.sha256(KEY.encode()).digest(),)
            ).fetchone()
            assert row is not None
            begun = time.monotonic()
            number = identity.revoke_key(conn, "operator", row[0])
            conn.commit()
            return self._effective(conn, number, begun)

    def replace(self) -> None:
        """The callers' key holds again, as a new one with the same secret."""
        with psycopg.connect(self._url) as conn:
            digest = hashlib.sha256(KEY.encode()).digest()
            conn.execute("UPDATE api_key SET hash = %s WHERE hash = %s", (os.urandom(32), digest))
            conn.execute(
                "INSERT INTO api_key (id, hash, prefix, workload, created_by) "
                "VALUES (%s, %s, 'gp_', 'assistant', 'operator')",
                (new_id(), digest),
            )
            row = conn.execute("SELECT next_policy_number('key', 'benchmark', false)").fetchone()
            conn.commit()
            assert row is not None
            self._effective(conn, int(row[0]), time.monotonic())

    def _effective(self, conn: psycopg.Connection[Any], number: int, begun: float) -> float:
        while True:
            found = identity.effective(conn, number)
            conn.commit()
            if not found.waiting and found.acknowledged:
                return time.monotonic() - begun
            if time.monotonic() - begun > 30:
                raise SystemExit("no gateway acknowledged the stop within 30 s")
            time.sleep(0.002)


def bed(stack: ExitStack, workers: int) -> Installation:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gp-revocation-")))
    made = Installation(stack, folder)
    made.database()
    made.spawn(
        "upstream", sys.executable, str(HERE / "gateway_upstream.py"), "--port", str(made.upstream), "--gap-ms", "250"
    )
    for slot in range(workers):
        made.worker(f"worker{slot}", slot)
    return made


async def measure(made: Installation, rate: float, rounds: int) -> dict[str, Any]:
    stops = Stops(database_url(made.home, made.settings, "control"))
    callers = Callers(made.port, rate)
    running = asyncio.get_running_loop().create_task(callers.run())
    await asyncio.sleep(2.0)
    begun = time.monotonic()
    took: dict[str, list[float]] = {}
    stopped: list[tuple[float, float]] = []
    for kind in _kinds(rounds):
        seconds = await asyncio.to_thread(stops.revoke if kind == "key" else lambda scope=kind: stops.kill(scope))  # type: ignore[misc]
        at = time.monotonic()
        took.setdefault("key" if kind == "key" else "kill", []).append(seconds)
        await asyncio.sleep(0.3)
        stopped.append((at, time.monotonic()))
        await asyncio.to_thread(stops.replace if kind == "key" else lambda scope=kind: stops.lift(scope))  # type: ignore[misc]
        await asyncio.sleep(0.3)
    ended = await _security(made, stops)
    until = time.monotonic()
    span = until - begun
    callers.going = False
    await running
    after = sum(status == 200 and any(a <= sent < b for a, b in stopped) for sent, _, status in callers.calls)
    refused = sum(status in (401, 403) and any(a <= sent < b for a, b in stopped) for sent, _, status in callers.calls)
    every = sorted(seconds for each in took.values() for seconds in each)
    return {
        "stops": len(every),
        "effective_p50_s": round(statistics.median(every), 3),
        "effective_max_s": round(every[-1], 3),
        "kill_max_s": round(max(took["kill"]), 3),
        "key_max_s": round(max(took["key"]), 3),
        "served_after_effective": after,
        "refused_after_effective": refused,
        **ended,
        "calls_per_s": round(sum(begun <= sent < until for sent, _, _ in callers.calls) / span),
        "wanted_per_s": rate,
        "not_sent_for_load": callers.late,
    }


def _kinds(rounds: int) -> Iterator[str]:
    for number in range(rounds):
        yield SCOPES[number % len(SCOPES)]
        if number % 3 == 0:
            yield "key"


async def _security(made: Installation, stops: Stops) -> dict[str, Any]:
    """A kill for security with streams under way."""
    open_streams = await streams(made.port, 20, request_bytes(made.port, "auto", KEY, stream=True))
    await asyncio.sleep(0.5)
    order = time.monotonic()
    seconds = await asyncio.to_thread(lambda: stops.kill("workload/assistant", streams=True))
    ended = await asyncio.wait_for(asyncio.gather(*open_streams), 30)
    return {
        "streams": len(ended),
        "streams_ended_with_error": sum(b'"killed"' in data for _, data in ended),
        "streams_ended_max_s": round(max(at for at, _ in ended) - order, 3),
        "streams_kill_effective_s": round(seconds, 3),
    }


def commit() -> str:
    """The commit of this checkout, or unknown."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rate", type=float, default=1000.0, help="calls a second")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with ExitStack() as stack:
        made = bed(stack, options.workers)
        figures = uvloop.run(measure(made, options.rate, options.rounds)) | {
            "gateways": options.workers,
            "targets": {"effective_max_s": 1.0, "served_after_effective": 0},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "load": round(os.getloadavg()[0], 1),
            "commit": commit(),
        }
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>26}  {value}")


if __name__ == "__main__":
    main()
