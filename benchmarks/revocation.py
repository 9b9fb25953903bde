"""How fast a stop takes effect at every gateway under load, and whether any call is served after that was reported.

A real installation: PostgreSQL, two gateway workers with journals, a scripted upstream in a process of its own, and
callers of two workloads in production at a fixed rate. The benchmark stops one thing after the other as the API does: a
kill of each of the nine scopes, a revoked key (which is replaced), a withdrawn approval of the model version, of the
prompt and of the source for its purpose (which are approved again), at the end a kill for security with open streams.
It measures the time until every gateway has acknowledged the stop, and counts every call that was *sent after that* and
yet served. A killed source or tool refuses no calls by itself, so only the time is measured for these. One call in ten
is of the workload with a source; there is no search service here, so it is answered without passages:
`knowledge_leaks.py` measures what people may read at a second search service.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import uvloop

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gateway_bed import HERE, KEY, Installation, build_blueprint
from benchmarks.gateway_load import request_bytes
from benchmarks.provenance import commit, machine

from groundplan.blueprint.content import Grounding, Source
from groundplan.blueprint.model import Blueprint
from groundplan.core.database import database_url
from groundplan.core.ids import new_id
from groundplan.governance import approvals
from groundplan.governance import service as governance
from groundplan.governance import store as changes
from groundplan.governance.approvals import Answer, Approver
from groundplan.governance.approved_parts import Part, workload_parts
from groundplan.governance.model import ApprovalRequest
from groundplan.governance.validity import Term
from groundplan.identity import service as identity
from groundplan.identity.store import insert_duty

GROUNDED_KEY = "gp_benchmark1111111111111111111111111111111111"
DUTIES = ("product", "security", "data", "compliance")
APPROVER = "sam@acme.example"
SCOPES = (
    "workload/assistant", "deployment/gpt", "provider/openai", "model/openai/gpt", "company", "site/cloud", "key",
    "source/handbook", "tool/refund",
)  # fmt: skip
"""Scopes that are killed; `key` is the callers' key."""
STOPS = (*SCOPES, "revoked", "model", "prompt", "data")
"""All stops in turn: kills, the revoked key, and approved parts that are withdrawn."""
REFUSES = {"source/handbook": "", "tool/refund": "", "data": "grounded"}
"""The workload whose calls a stop refuses, if not the assistant; empty: none."""
MAX_IN_FLIGHT = 400
"""Calls that may be in flight; beyond that the machine, not the gateway, sets the rate."""


class Callers:
    """Sends calls at a fixed rate and records when each was sent and its status."""

    def __init__(self, port: int, rate: float) -> None:
        self.port, self.rate = port, rate
        self.requests = {
            "assistant": request_bytes(port, "auto", KEY, stream=False),
            "grounded": request_bytes(port, "auto", GROUNDED_KEY, stream=False),
        }
        self.calls: list[tuple[float, str, int]] = []
        """(sent, workload, status)"""
        self.skipped = 0
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._running: set[asyncio.Task[None]] = set()
        self.is_running = True

    async def run(self) -> None:
        started, number = time.monotonic(), 0
        while self.is_running:
            number += 1
            wait = started + number / self.rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if len(self._running) >= MAX_IN_FLIGHT:
                self.skipped += 1
                continue
            workload = "grounded" if number % 10 == 0 else "assistant"
            task = asyncio.get_running_loop().create_task(self._call(workload))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        if self._running:
            await asyncio.wait(self._running, timeout=10)
        for _, writer in self._idle:
            writer.close()

    async def _call(self, workload: str) -> None:
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self.port)
            sent = time.monotonic()
            writer.write(self.requests[workload])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            return
        self.calls.append((sent, workload, int(head.split(b" ", 2)[1])))
        self._idle.append((reader, writer))


async def open_streams(port: int, count: int, request: bytes) -> list[asyncio.Task[tuple[float, bytes]]]:
    """Tasks of open streams, which return (time of the end, bytes received)."""

    async def read_stream() -> tuple[float, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        data = b""
        while chunk := await reader.read(65536):
            data += chunk
            if b"0\r\n\r\n" in chunk[-7:]:
                break
        writer.close()
        return time.monotonic(), data

    return [asyncio.get_running_loop().create_task(read_stream()) for _ in range(count)]


class Stops:
    """Stops calls as the API does, and waits until the stop is effective."""

    def __init__(self, url: str, parts: dict[str, Part]) -> None:
        self._url, self._parts = url, parts
        with psycopg.connect(url) as conn:
            identity.add_person(conn, "operator", APPROVER, "Sam")
            self._approver = Approver(identity.find_person(conn, APPROVER).id, "passkey")
            for duty in DUTIES:
                insert_duty(conn, "company", duty, self._approver.person_id)

    def stop(self, stopped: str) -> float:
        """Seconds from the order until every gateway has acknowledged it."""
        if stopped == "revoked":
            return self._revoke_key()
        return self._withdraw(stopped) if stopped in self._parts else self.kill(self._scope(stopped))

    def undo(self, stopped: str) -> None:
        """Undo the stop."""
        if stopped == "revoked":
            self._replace_key()
        elif stopped in self._parts:
            self.approve(stopped)
        else:
            self._lift(self._scope(stopped))

    def approve(self, kind: str) -> None:
        """Request the approval of a part and approve it as another person."""
        part, now = self._parts[kind], datetime.now(UTC)
        with psycopg.connect(self._url) as conn:
            request = ApprovalRequest(kind, part.subject, part.declaration, "measured")
            requested = governance.request_approval(conn, "operator", request, seats=1, at=now)
            change = approvals.approve(conn, self._approver, requested.id, Answer(), separation="enforced", at=now)
            assert change.is_complete
            year = now.date() + timedelta(days=365)
            governance.apply_change(conn, change, None, Term(year, year), at=now)
            number = changes.policy_number(conn)
            conn.commit()
            self._wait_until_effective(conn, number, time.monotonic())

    def _withdraw(self, kind: str) -> float:
        digest = self._parts[kind].digest
        with psycopg.connect(self._url) as conn:
            (change,) = [applied for applied in changes.changes(conn, ["applied"]) if applied.digest == digest]
            started = time.monotonic()
            approvals.withdraw(conn, self._approver.actor, change.id, at=datetime.now(UTC))
            number = changes.policy_number(conn)
            conn.commit()
            return self._wait_until_effective(conn, number, started)

    def _scope(self, stopped: str) -> str:
        return f"key/{self._key_id()}" if stopped == "key" else stopped

    def _key_id(self) -> UUID:
        with psycopg.connect(self._url) as conn:
            digest = hashlib.sha256(KEY.encode()).digest()
            row = conn.execute("SELECT id FROM api_key WHERE hash = %s", (digest,)).fetchone()
        assert row is not None
        key_id: UUID = row[0]
        return key_id

    def kill(self, scope: str, *, streams: bool = False) -> float:
        """Seconds from the order until every gateway has acknowledged it."""
        with psycopg.connect(self._url) as conn:
            started = time.monotonic()
            number = identity.kill(conn, "operator", scope, "benchmark", streams=streams)
            conn.commit()
            return self._wait_until_effective(conn, number, started)

    def _lift(self, scope: str) -> None:
        with psycopg.connect(self._url) as conn:
            number = identity.lift(conn, "operator", scope)
            conn.commit()
            self._wait_until_effective(conn, number, time.monotonic())

    def _revoke_key(self) -> float:
        """Revoke the key that the callers use."""
        with psycopg.connect(self._url) as conn:
            key = self._key_id()
            started = time.monotonic()
            number = identity.revoke_key(conn, "operator", key)
            conn.commit()
            return self._wait_until_effective(conn, number, started)

    def _replace_key(self) -> None:
        """Replace the revoked key by a new one with the same secret."""
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
            self._wait_until_effective(conn, int(row[0]), time.monotonic())

    def _wait_until_effective(self, conn: psycopg.Connection[Any], number: int, started: float) -> float:
        while True:
            propagation = identity.policy_propagation(conn, number)
            conn.commit()
            if not propagation.waiting and propagation.acknowledged:
                return time.monotonic() - started
            if time.monotonic() - started > 30:
                raise SystemExit("no gateway acknowledged the stop within 30 s")
            time.sleep(0.002)


def start_installation(stack: ExitStack, workers: int) -> Installation:
    """An installation with its upstream and so many workers."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gp-revocation-")))
    installed = Installation(stack, folder)
    installed.start_database()
    installed.spawn(
        "upstream",
        sys.executable,
        str(HERE / "gateway_upstream.py"),
        "--port",
        str(installed.upstream_port),
        "--gap-ms",
        "250",
    )
    for slot in range(workers):
        installed.start_worker(f"worker{slot}", slot)
    return installed


def production_blueprint(upstream_port: int) -> Blueprint:
    """Two workloads in production, whose model, prompt and source for its purpose are approved separately."""
    base_blueprint = build_blueprint(upstream_port)
    handbook = Source(name="handbook", path="handbook", sensitivity="internal", owner=APPROVER, readers=["everyone"])
    (assistant,) = base_blueprint.workloads
    production_workload = msgspec.structs.replace(
        assistant, stage="production", prompt="polite@1", system_prompt="Be polite."
    )
    grounding = Grounding(sources=["handbook"], required=False)
    grounded = msgspec.structs.replace(
        production_workload,
        name="grounded",
        prompt=None,
        system_prompt=None,
        grounding=grounding,
        budgets=["company", "team"],
    )
    return msgspec.structs.replace(
        base_blueprint,
        number=2,
        sources=[handbook],
        workloads=[production_workload, grounded],
        approved_parts=["data", "model", "prompt"],
    )


def prepare(installation: Installation) -> Stops:
    """Approve both workloads and apply their blueprint."""
    blueprint = production_blueprint(installation.upstream_port)
    parts = {part.kind: part for workload in blueprint.workloads for part in workload_parts(blueprint, workload)}
    url = database_url(installation.home, installation.settings, "control")
    stops = Stops(url, {kind: parts[kind] for kind in ("model", "prompt", "data")})
    with psycopg.connect(url) as conn:
        conn.execute(
            "INSERT INTO api_key (id, hash, prefix, workload, created_by) "
            "VALUES (%s, %s, 'gp_', 'grounded', 'operator')",
            (new_id(), hashlib.sha256(GROUNDED_KEY.encode()).digest()),
        )
        conn.execute("SELECT next_policy_number('key', 'benchmark', false)")
    for kind in ("model", "prompt", "data"):
        stops.approve(kind)
    installation.apply_blueprint(blueprint)
    return stops


async def measure(installation: Installation, rate: float, rounds: int) -> dict[str, Any]:
    stops = prepare(installation)
    await asyncio.sleep(2.0)
    callers = Callers(installation.port, rate)
    caller_task = asyncio.get_running_loop().create_task(callers.run())
    await asyncio.sleep(2.0)
    started = time.monotonic()
    seconds_by_stop: dict[str, list[float]] = {}
    stopped: list[tuple[float, float, str]] = []
    for kind in islice(cycle(STOPS), rounds):
        seconds = await asyncio.to_thread(stops.stop, kind)
        effective_at = time.monotonic()
        seconds_by_stop.setdefault(kind, []).append(seconds)
        await asyncio.sleep(0.3)
        stopped.append((effective_at, time.monotonic(), REFUSES.get(kind, "assistant")))
        await asyncio.to_thread(stops.undo, kind)
        await asyncio.sleep(0.3)
    security = await _security(installation, stops)
    stopped_until = time.monotonic()
    duration = stopped_until - started
    callers.is_running = False
    await caller_task
    statuses = [
        status
        for sent, workload, status in callers.calls
        if any(effective <= sent < lifted and workload == refused for effective, lifted, refused in stopped)
    ]
    durations = sorted(seconds for each in seconds_by_stop.values() for seconds in each)
    rate_reached = sum(started <= sent < stopped_until for sent, _, _ in callers.calls) / duration
    return {
        "stops": len(durations),
        "effective_p50_s": round(statistics.median(durations), 3),
        "effective_max_s": round(durations[-1], 3),
        "effective_max_s_by_stop": {kind: round(max(seconds), 3) for kind, seconds in seconds_by_stop.items()},
        "served_after_effective": sum(status == 200 for status in statuses),
        "refused_after_effective": sum(status != 200 for status in statuses),
        **security,
        "calls_per_s": round(rate_reached),
        "wanted_per_s": rate,
        "rate_reached": rate_reached >= 0.98 * rate,
        "served": sum(status == 200 for _, _, status in callers.calls),
        "not_sent_for_load": callers.skipped,
    }


async def _security(installation: Installation, stops: Stops) -> dict[str, Any]:
    """Figures of a kill for security with open streams."""
    tasks = await open_streams(installation.port, 20, request_bytes(installation.port, "auto", KEY, stream=True))
    await asyncio.sleep(0.5)
    ordered_at = time.monotonic()
    seconds = await asyncio.to_thread(lambda: stops.kill("workload/assistant", streams=True))
    ended = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    return {
        "streams": len(ended),
        "streams_ended_with_error": sum(b'"killed"' in data for _, data in ended),
        "streams_ended_max_s": round(max(at for at, _ in ended) - ordered_at, 3),
        "streams_kill_effective_s": round(seconds, 3),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rate", type=float, default=1000.0, help="calls a second")
    parser.add_argument("--rounds", type=int, default=2 * len(STOPS), help="stops, in the order of STOPS")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with ExitStack() as stack:
        installation = start_installation(stack, options.workers)
        figures = uvloop.run(measure(installation, options.rate, options.rounds)) | {
            "gateways": options.workers,
            "targets": {"effective_max_s": 1.0, "served_after_effective": 0},
            "machine": machine(),
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
