"""Python instructions of a call by function, with client and upstream played in the worker's own process.

    python -m benchmarks.gateway_alone [--kind call|cached|stream] [--calls 320] [--conc 32] [--top 40] [--json]

No socket, no database, and a disk that needs no time: what is counted is the request path and nothing beside it, under
three budgets and three limits, so that two runs differ by less than a thousandth, whatever else the machine does. Takes
a second. `gateway_instructions` counts in a real worker. Under Python 3.12 or newer.
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
from benchmarks.gateway_bed import KEY, blueprint
from benchmarks.gateway_load import request_bytes
from benchmarks.gateway_steps import NothingIsSynced
from benchmarks.gateway_upstream import Fixed
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


class Played(asyncio.Transport):
    """A socket whose other end is a function."""

    def __init__(self, told: Callable[[bytes], None]) -> None:
        super().__init__()
        self._told = told

    def write(self, data: Any) -> None:
        self._told(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """All is taken at once."""

    def is_closing(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return True


class Clients:
    """So many, each with its next request once it has its answer."""

    def __init__(self, server: Server, request: bytes, count: int) -> None:
        self._loop, self._request = server.loop, request
        self._ends = b"0\r\n\r\n" if b'"stream": true' in request else b"}"
        self._left = self._open = 0
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._all = [server.create_connection() for _ in range(count)]
        for connection in self._all:
            connection.connection_made(Played(self._answer(connection)))

    async def ask(self, calls: int) -> None:
        self._left, self._done = calls, self._loop.create_future()
        for connection in self._all:
            self._loop.call_soon(self._next, connection)
        await self._done
        await asyncio.sleep(0)

    def _next(self, connection: asyncio.Protocol) -> None:
        if self._left:
            self._left, self._open = self._left - 1, self._open + 1
            connection.data_received(self._request)

    def _answer(self, connection: asyncio.Protocol) -> Callable[[bytes], None]:
        def told(data: bytes) -> None:
            if data.startswith(b"HTTP/1.1") and not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(data.decode())
            if data.endswith(self._ends):
                self._open -= 1
                self._loop.call_soon(self._next, connection)
                if not self._left and not self._open:
                    self._done.set_result(None)

        return told


def upstream(pool: Http1Pool, loop: asyncio.AbstractEventLoop) -> None:
    """One more connection of the pool, which answers as the benchmarks' upstream does, each chunk in a turn of the
    loop."""
    connection = Http1Connection(pool)
    chunks = [Fixed.head, *Fixed.events]

    def step(number: int) -> None:
        connection.data_received(chunks[number])
        if number + 1 < len(chunks):
            loop.call_soon(step, number + 1)

    def told(data: bytes) -> None:
        if b'"stream": true' in data:
            loop.call_soon(step, 0)
        else:
            loop.call_soon(connection.data_received, Fixed.whole)

    connection.connection_made(Played(told))
    connection.mark_in_use()
    connection.in_use, connection.idle_since = False, loop.time() + _LONG_S
    cast(Any, pool)._connections.add(connection)
    cast(Any, pool)._idle_connections.append(connection)


def _serving(parts: app.Parts, home: Home, made: Blueprint) -> tuple[Gateway, Server]:
    """A worker's request path with all that it has, which was told of a blueprint, a key and slices of everything."""
    loop, epoch = asyncio.get_running_loop(), new_id()
    journal = Journal.open(home.journal / str(epoch), epoch, loop, sync=NothingIsSynced(loop))
    gateway, live, leases = app._build_gateway(parts, home, _NOWHERE, journal, NonDecreasingClock(SystemClock()))
    parts.pop_all()  # there is nobody to tell of its end
    pipeline = Pipeline(gateway)
    _tell(gateway, live, leases, made)
    gateway.server = server = app._server(gateway, pipeline)
    return gateway, server


def _tell(gateway: Gateway, live: LiveView, leases: LeaseClient, made: Blueprint) -> None:
    catalog = replace(index(made), approved=approved_of(made))
    key = KeyEntry(str(new_id()), "assistant", "", False, False, None)
    live.catalog = catalog
    live.policy = Policy(1, {hashlib.sha256(KEY.encode()).digest(): key}, {}, frozenset(), frozenset())
    cast(Any, live)._confirmed = (gateway.clock.monotonic() + _LONG_S, gateway.clock.seconds() + _LONG_S)
    app._take_up(gateway, leases, catalog)
    app.heed(gateway, live.policy)
    now, limits = gateway.clock.seconds(), catalog.limits
    for budget in made.budgets:
        gateway.slices.add_grant(
            budget.name, current_key(budget.period, budget.starts, budget.timezone, now), budget.limit
        )
    if limits is None:
        return
    for quota in limits.caller_quotas(catalog.plans["assistant"].workload, key.id, "", {}).quotas:
        for period in dict.fromkeys(current_key(quota.period, "", "UTC", now + 60 * later) for later in range(2)):
            gateway.limit_slices.add_grant(quota.name, period, quota.limit)
            cast(Any, leases)._account(quota, period, 1)


async def count(kind: str, calls: int, connections: int, folder: Path) -> dict[str, float]:
    """Instructions of a call by function."""
    home, made, loop = Home(folder / "home"), blueprint(1), asyncio.get_running_loop()
    home.create()
    if kind == "cached":
        rule = Cache(seconds=3600, max_bytes=1 << 26, scope="workload")
        made = structs.replace(made, workloads=[structs.replace(each, cache=rule) for each in made.workloads])
    gateway, server = _serving(app.Parts(), home, made)
    place = made.deployments[0]
    pool = gateway.targets.of(gateway.live.catalog.plans["assistant"].deployments_by_name["auto"][0]).pool  # type: ignore[union-attr]
    for _ in range(connections):
        upstream(cast(Http1Pool, pool), loop)
    targets = cast(Any, gateway.targets)._targets
    targets[place.name] = replace(targets[place.name], fresh_until=loop.time() + _LONG_S)
    clients = Clients(server, request_bytes(1, "auto", KEY, stream=kind == "stream"), connections)
    await clients.ask(calls)
    found: Counter[CodeType] = Counter()

    def one(code: CodeType, offset: int) -> None:  # noqa: ARG001 -- as it is called
        found[code] += 1

    events = sys.monitoring.events.INSTRUCTION
    sys.monitoring.use_tool_id(_TOOL, "instructions")
    sys.monitoring.register_callback(_TOOL, events, one)
    sys.monitoring.set_events(_TOOL, events)
    await clients.ask(calls)
    sys.monitoring.set_events(_TOOL, 0)
    told: Counter[str] = Counter()
    for code, number in found.items():
        if code.co_filename != __file__:
            told[f"{code.co_filename}:{code.co_firstlineno} {code.co_qualname}"] += number
    return {name: number / calls for name, number in told.most_common()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("call", "cached", "stream"), default="call")
    parser.add_argument("--calls", type=int, default=320)
    parser.add_argument("--conc", type=int, default=32)
    parser.add_argument("--top", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-alone-") as folder:
        found = uvloop.run(count(arguments.kind, arguments.calls, arguments.conc, Path(folder)))
    if arguments.json:
        print(json.dumps(found))
        return 0
    print(f"{sum(found.values()):9.1f} instructions a call")
    for name, number in list(found.items())[: arguments.top]:
        print(f"{number:9.1f} {name.rpartition('/groundplan/')[2] or name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
