"""Python instructions of a call by function, with client and upstream simulated in the worker's own process.

    python -m benchmarks.gateway_alone [--kind call|cached|stream] [--calls 320] [--conc 32] [--top 40] [--json]

No socket, no database, and a disk that needs no time: only the request path is counted, under three budgets and three
limits, so that two runs differ by less than a thousandth, whatever else the machine does. Takes a second.
`gateway_instructions` counts in a real worker. Under Python 3.12 or newer.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any, cast

import uvloop
from benchmarks.gateway_bed import KEY, build_blueprint
from benchmarks.gateway_load import request_bytes
from benchmarks.gateway_steps import InstantSync
from benchmarks.gateway_upstream import FixedAnswers
from msgspec import structs

from groundplan.blueprint.model import Blueprint, Cache
from groundplan.core.clock import NonDecreasingClock, SystemClock
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway import app
from groundplan.gateway.budgets.lease_client import LeaseClient
from groundplan.gateway.budgets.periods import current_key
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.pipeline import Pipeline
from groundplan.gateway.http.server import Server
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.policy.approved import approved_of
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.live import LiveView
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.gateway.upstream.http1 import Http1Connection
from groundplan.gateway.upstream.http1_pool import Http1Pool

_TOOL = 3
_NOWHERE = "postgresql://127.0.0.1:1/none"
_LONG_S = 3600.0


class FakeTransport(asyncio.Transport):
    """A transport that passes each write to a function."""

    def __init__(self, on_write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._on_write = on_write

    def write(self, data: Any) -> None:
        self._on_write(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Writes are never buffered."""

    def is_closing(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return True


class Clients:
    """Concurrent clients, each of which sends its next request once it has its answer."""

    def __init__(self, server: Server, request: bytes, client_count: int) -> None:
        self._loop, self._request = server.loop, request
        self._end_marker = b"0\r\n\r\n" if b'"stream": true' in request else b"}"
        self._remaining = self._in_flight = 0
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._connections = [server.create_connection() for _ in range(client_count)]
        for connection in self._connections:
            connection.connection_made(FakeTransport(self._write_handler(connection)))

    async def send_requests(self, calls: int) -> None:
        self._remaining, self._finished = calls, self._loop.create_future()
        for connection in self._connections:
            self._loop.call_soon(self._send_next, connection)
        await self._finished
        await asyncio.sleep(0)

    def _send_next(self, connection: asyncio.Protocol) -> None:
        if self._remaining:
            self._remaining, self._in_flight = self._remaining - 1, self._in_flight + 1
            connection.data_received(self._request)

    def _write_handler(self, connection: asyncio.Protocol) -> Callable[[bytes], None]:
        def on_write(data: bytes) -> None:
            if data.startswith(b"HTTP/1.1") and not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(data.decode())
            if data.endswith(self._end_marker):
                self._in_flight -= 1
                self._loop.call_soon(self._send_next, connection)
                if not self._remaining and not self._in_flight:
                    self._finished.set_result(None)

        return on_write


def add_upstream_connection(pool: Http1Pool, loop: asyncio.AbstractEventLoop) -> None:
    """Add a connection to the pool that answers as the benchmarks' upstream does, each chunk in a turn of the loop."""
    connection = Http1Connection(pool)
    chunks = [FixedAnswers.stream_head, *FixedAnswers.stream_chunks]

    def send_chunk(number: int) -> None:
        connection.data_received(chunks[number])
        if number + 1 < len(chunks):
            loop.call_soon(send_chunk, number + 1)

    def on_write(data: bytes) -> None:
        if b'"stream": true' in data:
            loop.call_soon(send_chunk, 0)
        else:
            loop.call_soon(connection.data_received, FixedAnswers.response)

    connection.connection_made(FakeTransport(on_write))
    connection.mark_in_use()
    connection.in_use, connection.idle_since = False, loop.time() + _LONG_S
    cast(Any, pool)._connections.add(connection)
    cast(Any, pool)._idle_connections.append(connection)


def _build_server(parts: app.Parts, home: Home, blueprint: Blueprint) -> tuple[Gateway, Server]:
    """A worker's complete request path, with a blueprint, a key, and slices of every budget and limit loaded."""
    loop, epoch = asyncio.get_running_loop(), new_id()
    journal = Journal.open(home.journal / str(epoch), epoch, loop, sync=InstantSync(loop))
    gateway, live, leases = app._build_gateway(parts, home, _NOWHERE, journal, NonDecreasingClock(SystemClock()))
    parts.pop_all()  # nothing has to be closed
    pipeline = Pipeline(gateway)
    _load_state(gateway, live, leases, blueprint)
    gateway.server = server = app._server(gateway, pipeline)
    return gateway, server


def _load_state(gateway: Gateway, live: LiveView, leases: LeaseClient, blueprint: Blueprint) -> None:
    catalog = replace(index(blueprint), approved=approved_of(blueprint))
    key = KeyEntry(str(new_id()), "assistant", "", False, False, None)
    live.catalog = catalog
    live.policy = Policy(1, {hashlib.sha256(KEY.encode()).digest(): key}, {}, frozenset(), frozenset())
    cast(Any, live)._confirmed = (gateway.clock.monotonic() + _LONG_S, gateway.clock.seconds() + _LONG_S)
    app._take_up(gateway, leases, catalog)
    app.heed(gateway, live.policy)
    now, limits = gateway.clock.seconds(), catalog.limits
    for budget in blueprint.budgets:
        gateway.slices.add_grant(
            budget.name, current_key(budget.period, budget.starts, budget.timezone, now), budget.limit
        )
    if limits is None:
        return
    for quota in limits.caller_quotas(catalog.plans["assistant"].workload, key.id, "", {}).quotas:
        for period in dict.fromkeys(current_key(quota.period, "", "UTC", now + 60 * later) for later in range(2)):
            gateway.limit_slices.add_grant(quota.name, period, quota.limit)
            cast(Any, leases)._account(quota, period, 1)


async def count_instructions(kind: str, calls: int, connections: int, folder: Path) -> dict[str, float]:
    """Instructions of a call by function, in descending order. `kind`: call, cached or stream."""
    home, blueprint, loop = Home(folder / "home"), build_blueprint(1), asyncio.get_running_loop()
    home.create()
    if kind == "cached":
        rule = Cache(seconds=3600, max_bytes=1 << 26, scope="workload")
        blueprint = structs.replace(
            blueprint, workloads=[structs.replace(each, cache=rule) for each in blueprint.workloads]
        )
    gateway, server = _build_server(app.Parts(), home, blueprint)
    deployment = blueprint.deployments[0]
    pool = gateway.targets.of(gateway.live.catalog.plans["assistant"].deployments_by_name["auto"][0]).pool  # type: ignore[union-attr]
    for _ in range(connections):
        add_upstream_connection(cast(Http1Pool, pool), loop)
    targets = cast(Any, gateway.targets)._targets
    targets[deployment.name] = replace(targets[deployment.name], fresh_until=loop.time() + _LONG_S)
    clients = Clients(server, request_bytes(1, "auto", KEY, stream=kind == "stream"), connections)
    await clients.send_requests(calls)
    counts: Counter[CodeType] = Counter()

    def on_instruction(code: CodeType, offset: int) -> None:  # noqa: ARG001 -- as it is called
        counts[code] += 1

    events = sys.monitoring.events.INSTRUCTION
    sys.monitoring.use_tool_id(_TOOL, "instructions")
    sys.monitoring.register_callback(_TOOL, events, on_instruction)
    sys.monitoring.set_events(_TOOL, events)
    await clients.send_requests(calls)
    sys.monitoring.set_events(_TOOL, 0)
    functions: Counter[str] = Counter()
    for code, number in counts.items():
        if code.co_filename != __file__:
            functions[f"{code.co_filename}:{code.co_firstlineno} {code.co_qualname}"] += number
    return {name: number / calls for name, number in functions.most_common()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("call", "cached", "stream"), default="call")
    parser.add_argument("--calls", type=int, default=320)
    parser.add_argument("--conc", type=int, default=32)
    parser.add_argument("--top", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-alone-") as folder:
        functions = uvloop.run(count_instructions(arguments.kind, arguments.calls, arguments.conc, Path(folder)))
    if arguments.json:
        print(json.dumps(functions))
        return 0
    print(f"{sum(functions.values()):9.1f} instructions a call")
    for name, number in list(functions.items())[: arguments.top]:
        print(f"{number:9.1f} {name.rpartition('/groundplan/')[2] or name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
