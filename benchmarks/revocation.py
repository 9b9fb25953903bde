"""How fast something is stopped at every gateway under load, and whether anything is served after that was reported.

A real installation: PostgreSQL, two gateway workers with journals, a scripted upstream in a process of its own, and
callers at a fixed rate, of two workloads in production. Again and again something is stopped as the API does it: a kill
of each of the eight scopes, a revoked key (which is replaced), a withdrawn approval of the model version, of the prompt
and of the source for its purpose (which are approved again), at the end a kill for security with streams under way. The
time until every gateway has acknowledged it is taken, and every call that was *sent after that* and yet served is
counted. A source and a tool that are killed refuse no calls by themselves, so of these only the time is taken. One call
in ten is of the workload with a source; there is no search service here, so it is answered without passages: what
people may read, at a second search service, is measured by `knowledge_leaks.py`.
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

from benchmarks.gateway_bed import HERE, KEY, Installation, blueprint
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
"""What is killed; `key` is that of the callers."""
STOPS = (*SCOPES, "revoked", "model", "prompt", "data")
"""All stops in turn: kills, the revoked key, and approved parts that are withdrawn."""
REFUSES = {"source/handbook": "", "tool/refund": "", "data": "grounded"}
"""Whose calls a stop refuses, where that are not the assistant's; empty: nobody's."""
MOST_WAITING = 400
"""Calls that may be under way; beyond that the machine, not the gateway, sets the rate."""


class Callers:
    """Calls at a fixed rate; each remembers when it was sent and what came of it."""

    def __init__(self, port: int, rate: float) -> None:
        self.port, self.rate = port, rate
        self.requests = {
            "assistant": request_bytes(port, "auto", KEY, stream=False),
            "grounded": request_bytes(port, "auto", GROUNDED_KEY, stream=False),
        }
        self.calls: list[tuple[float, str, int]] = []
        """(sent, workload, status)"""
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
            workload = "grounded" if number % 10 == 0 else "assistant"
            task = asyncio.get_running_loop().create_task(self._one(workload))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        if self._running:
            await asyncio.wait(self._running, timeout=10)
        for _, writer in self._idle:
            writer.close()

    async def _one(self, workload: str) -> None:
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

    def __init__(self, url: str, parts: dict[str, Part]) -> None:
        self._url, self._parts = url, parts
        with psycopg.connect(url) as conn:
            identity.add_person(conn, "operator", APPROVER, "Sam")
            self._approver = Approver(identity.find_person(conn, APPROVER).id, "passkey")
            for duty in DUTIES:
                insert_duty(conn, "company", duty, self._approver.person_id)

    def stop(self, what: str) -> float:
        """Seconds from the order until every gateway has acknowledged it."""
        if what == "revoked":
            return self._revoke()
        return self._withdraw(what) if what in self._parts else self.kill(self._scope(what))

    def start(self, what: str) -> None:
        """What was stopped goes on."""
        if what == "revoked":
            self._replace()
        elif what in self._parts:
            self.approve(what)
        else:
            self._lift(self._scope(what))

    def approve(self, kind: str) -> None:
        """As people do: it is asked for, and somebody else who was there approves it."""
        part, now = self._parts[kind], datetime.now(UTC)
        with psycopg.connect(self._url) as conn:
            asked = ApprovalRequest(kind, part.subject, part.declaration, "measured")
            made = governance.request_approval(conn, "operator", asked, seats=1, at=now)
            change = approvals.approve(conn, self._approver, made.id, Answer(), separation="enforced", at=now)
            assert change.is_complete
            year = now.date() + timedelta(days=365)
            governance.apply_change(conn, change, None, Term(year, year), at=now)
            number = changes.policy_number(conn)
            conn.commit()
            self._effective(conn, number, time.monotonic())

    def _withdraw(self, kind: str) -> float:
        digest = self._parts[kind].digest
        with psycopg.connect(self._url) as conn:
            (change,) = [each for each in changes.changes(conn, ["applied"]) if each.digest == digest]
            begun = time.monotonic()
            approvals.withdraw(conn, self._approver.actor, change.id, at=datetime.now(UTC))
            number = changes.policy_number(conn)
            conn.commit()
            return self._effective(conn, number, begun)

    def _scope(self, what: str) -> str:
        return f"key/{self._key()}" if what == "key" else what

    def _key(self) -> UUID:
        with psycopg.connect(self._url) as conn:
            digest = hashlib.sha256(KEY.encode()).digest()
            row = conn.execute("SELECT id FROM api_key WHERE hash = %s", (digest,)).fetchone()
        assert row is not None
        found: UUID = row[0]
        return found

    def kill(self, scope: str, *, streams: bool = False) -> float:
        """Seconds from the order until every gateway has acknowledged it."""
        with psycopg.connect(self._url) as conn:
            begun = time.monotonic()
            number = identity.kill(conn, "operator", scope, "benchmark", streams=streams)
            conn.commit()
            return self._effective(conn, number, begun)

    def _lift(self, scope: str) -> None:
        with psycopg.connect(self._url) as conn:
            number = identity.lift(conn, "operator", scope)
            conn.commit()
            self._effective(conn, number, time.monotonic())

    def _revoke(self) -> float:
        """Revoke the key that the callers use."""
        with psycopg.connect(self._url) as conn:
            key = self._key()
            begun = time.monotonic()
            number = identity.revoke_key(conn, "operator", key)
            conn.commit()
            return self._effective(conn, number, begun)

    def _replace(self) -> None:
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
            found = identity.policy_propagation(conn, number)
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


def production(upstream: int) -> Blueprint:
    """Two workloads in production, whose model, prompt and source for its purpose are approved by themselves."""
    base = blueprint(upstream)
    handbook = Source(name="handbook", path="handbook", sensitivity="internal", owner=APPROVER, readers=["everyone"])
    (assistant,) = base.workloads
    live = msgspec.structs.replace(assistant, stage="production", prompt="polite@1", system_prompt="Be polite.")
    grounding = Grounding(sources=["handbook"], required=False)
    grounded = msgspec.structs.replace(
        live, name="grounded", prompt=None, system_prompt=None, grounding=grounding, budgets=["company", "team"]
    )
    return msgspec.structs.replace(
        base, number=2, sources=[handbook], workloads=[live, grounded], approved_parts=["data", "model", "prompt"]
    )


def prepare(made: Installation) -> Stops:
    """Both workloads are approved and served."""
    served = production(made.upstream)
    parts = {part.kind: part for workload in served.workloads for part in workload_parts(served, workload)}
    url = database_url(made.home, made.settings, "control")
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
    made.apply(served)
    return stops


async def measure(made: Installation, rate: float, rounds: int) -> dict[str, Any]:
    stops = prepare(made)
    await asyncio.sleep(2.0)
    callers = Callers(made.port, rate)
    running = asyncio.get_running_loop().create_task(callers.run())
    await asyncio.sleep(2.0)
    begun = time.monotonic()
    took: dict[str, list[float]] = {}
    stopped: list[tuple[float, float, str]] = []
    for kind in islice(cycle(STOPS), rounds):
        seconds = await asyncio.to_thread(stops.stop, kind)
        at = time.monotonic()
        took.setdefault(kind, []).append(seconds)
        await asyncio.sleep(0.3)
        stopped.append((at, time.monotonic(), REFUSES.get(kind, "assistant")))
        await asyncio.to_thread(stops.start, kind)
        await asyncio.sleep(0.3)
    ended = await _security(made, stops)
    until = time.monotonic()
    span = until - begun
    callers.going = False
    await running
    during = [
        status
        for sent, workload, status in callers.calls
        if any(a <= sent < b and workload == whose for a, b, whose in stopped)
    ]
    every = sorted(seconds for each in took.values() for seconds in each)
    reached = sum(begun <= sent < until for sent, _, _ in callers.calls) / span
    return {
        "stops": len(every),
        "effective_p50_s": round(statistics.median(every), 3),
        "effective_max_s": round(every[-1], 3),
        "effective_max_s_by_stop": {kind: round(max(seconds), 3) for kind, seconds in took.items()},
        "served_after_effective": sum(status == 200 for status in during),
        "refused_after_effective": sum(status != 200 for status in during),
        **ended,
        "calls_per_s": round(reached),
        "wanted_per_s": rate,
        "rate_reached": reached >= 0.98 * rate,
        "served": sum(status == 200 for _, _, status in callers.calls),
        "not_sent_for_load": callers.late,
    }


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


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rate", type=float, default=1000.0, help="calls a second")
    parser.add_argument("--rounds", type=int, default=2 * len(STOPS), help="stops, in the order of STOPS")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with ExitStack() as stack:
        made = bed(stack, options.workers)
        figures = uvloop.run(measure(made, options.rate, options.rounds)) | {
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
