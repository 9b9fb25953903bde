"""Two replicas of one company on one PostgreSQL that neither of them runs, two upstreams, and the faults injected into
them.

All parts are real processes. The invariants that must hold afterwards are in `chaos_books`, the clients in
`chaos_traffic`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from groundplan.core.home import Home
from groundplan.core.money import from_decimal
from groundplan.runtime.postgres import EmbeddedPostgres
from tests.acceptance.chaos_books import (
    Attempt,
    Books,
    Call,
    Charge,
    ClientResult,
    Disruption,
    Limit,
    LimitMinute,
    Period,
)
from tests.acceptance.chaos_workspace import (
    COUNTED,
    GROUNDED,
    KINDS,
    OWN_LIMIT,
    RESTRICTED,
    TIGHT,
    TOKENS,
    declare,
    declare_limits,
)
from tests.acceptance.stack import Stack, Upstream, descendants, wait_until

LOGIN, PASSWORD, DATABASE = "acme_app", "an ordinary password", "acme_ai"
WORKER, SHIPPER, CONTROL = "groundplan.gateway.app", "groundplan.gateway.journal.shipper", "console.app"
SEARCH = "groundplan.gateway.search_app"
SHORT_NAMES = {WORKER: "worker", SHIPPER: "shipper", CONTROL: "control", SEARCH: "search"}


@dataclass
class ChaosInstallation:
    """The processes that run during a few rounds, and what happened to them."""

    folder: Path
    postgres: EmbeddedPostgres
    upstreams: dict[str, Upstream]
    replicas: tuple[Stack, Stack]
    keys: dict[str, str] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    client_results: list[ClientResult] = field(default_factory=list)
    disruptions: list[Disruption] = field(default_factory=list)
    """What was done to the database and the replicas; added when it has been undone."""

    def replica(self, name: str) -> Stack:
        return self.replicas[name == "second"]

    def administer(self, statement: str, database: str = DATABASE) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.superuser_url(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self, tight: float) -> None:
        for upstream in self.upstreams.values():
            upstream.start()
            upstream.control(**NORMAL)
        self.postgres.start()
        self.administer(
            f"CREATE ROLE {LOGIN} LOGIN NOSUPERUSER NOCREATEDB CREATEROLE PASSWORD '{PASSWORD}'", "postgres"
        )
        self.administer(f"CREATE DATABASE {DATABASE} OWNER {LOGIN}", "postgres")
        self.administer("CREATE EXTENSION vector")
        port = self.postgres.superuser_url("postgres").rpartition(":")[2].partition("/")[0]
        dsn = f"host=127.0.0.1 port={port} user={LOGIN} password='{PASSWORD}' dbname={DATABASE} connect_timeout=3"
        first, second = self.replicas
        for replica in self.replicas:
            replica.environment["GROUNDPLAN_DATABASE_URL"] = dsn
        first.start()
        Home(second.home).create()
        shutil.copytree(first.home / "keys", second.home / "keys", dirs_exist_ok=True)
        shutil.copy2(first.home / "operator.token", second.home / "operator.token")
        second.start()
        for name in KINDS:
            own = {"budget": f"{tight} USD/month"} if name == "tight-2" else {}
            self._create_key(name, name, **own, **({"user": "you@company.example"} if name == GROUNDED else {}))
        self._apply_limits({name: self._create_key(name + OWN_LIMIT, name) for name in COUNTED})

    def _create_key(self, name: str, workload: str, **terms: str) -> str:
        """Create a key, keep it in `keys` by this name, and return its id."""
        reply = self.replicas[0].control("POST", "/api/keys", {"workload": workload, **terms})
        assert reply.status == 201, reply.body
        self.keys[name] = reply.body["key"]
        return str(reply.body["id"])

    def _apply_limits(self, limited_keys: dict[str, str]) -> None:
        """Apply the limits and wait until every worker knows them; `limited_keys`: workload -> id of the key."""
        first = self.replicas[0]
        self.limits = declare_limits(first.workspace / "limits.yaml", limited_keys)
        number = first.cli("apply", "--workspace", str(first.workspace))["blueprint"]
        workers_behind = f"SELECT count(*) FROM gateway WHERE state = 'live' AND (blueprint < {number} OR NOT ready)"
        wait_until(lambda: self.administer(workers_behind) == [(0,)], 30, "every worker knows the limits")

    def on_both_replicas(self, what: Callable[[Stack], object]) -> None:
        """Call a function with both replicas at the same time."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(what, self.replicas))

    def stop(self) -> None:
        """Stop the replicas, as an operator would."""
        self.on_both_replicas(Stack.stop)

    def counted_attempts(self) -> list[str]:
        return [name for upstream in self.upstreams.values() for name in upstream.counted()]

    def has_settled(self) -> bool:
        """Whether every worker is ready and every journal is in the ledger."""
        with contextlib.suppress(psycopg.Error):
            ((live,),) = self.administer("SELECT count(*) FROM gateway WHERE state = 'live' AND ready")
            ((unrecovered,),) = self.administer(UNRECOVERED)
            ((unended,),) = self.administer(
                "SELECT count(*) FROM attempt a LEFT JOIN call c ON c.id = a.call_id"
                " WHERE c.id IS NULL OR a.state = 'open'"
            )
            attempts_in_ledger = {
                f"{call}-{number}" for call, number in self.administer("SELECT call_id, number FROM attempt")
            }
            calls = {str(call) for (call,) in self.administer("SELECT id FROM call")}
            workers = sum(replica.workers for replica in self.replicas)
            answered_calls = {result.call for result in self.client_results if result.status == 200}
            return (
                live == workers
                and not unrecovered
                and not unended
                and attempts_in_ledger >= set(self.counted_attempts())
                and calls >= answered_calls
            )
        return False

    def books(self) -> Books:
        """The database rows, what the upstreams counted, and what the clients got."""
        return replace(
            read_books(self.postgres.superuser_url(DATABASE)),
            counted=tuple(self.counted_attempts()),
            client_results=tuple(self.client_results),
            covers={name: frozenset({name, "company", "narrow" if name == "tight-1" else "wide"}) for name in KINDS},
            may_refuse=dict.fromkeys(TIGHT, frozenset({"budget_exhausted"}))
            | dict.fromkeys(COUNTED, frozenset({"rate_limit_exceeded"})),
            restricted=frozenset({RESTRICTED}),
            disruptions=tuple(self.disruptions),
            grounded=frozenset({GROUNDED}),
            limits=self.limits,
        )


def read_books(url: str) -> Books:
    """The database rows of an installation in one snapshot, since refused calls may still be shipped meanwhile."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        attempts, calls, charges, periods, audited, limit_minutes = (
            connection.execute(each).fetchall() for each in BOOKS
        )
    return Books(
        tuple(
            Attempt(call, n, state, outcome, from_decimal(cost), from_decimal(most), estimated, tuple(flags), tokens)
            for call, n, state, outcome, cost, most, estimated, flags, tokens in attempts
        ),
        tuple(
            Call(id, name, status, from_decimal(cost), cache, key or "", begun(id), float(at), sources)
            for id, name, status, cost, cache, key, at, sources in calls
        ),
        tuple(Charge(call, n, budget, p, from_decimal(cost)) for call, n, budget, p, cost in charges),
        tuple(Period(budget, p, from_decimal(most), from_decimal(granted)) for budget, p, most, granted in periods),
        tuple(str(id) for (id,) in audited),
        limit_minutes=tuple(LimitMinute(*row) for row in limit_minutes),
    )


def begun(call: str) -> float:
    """When a call began, in seconds since the epoch, as its UUIDv7 says."""
    return int(call.replace("-", "")[:12], 16) / 1000


NORMAL = {"mode": "ok", "tokens": TOKENS, "latency_ms": 15, "chunk_ms": 4}
BOOKS = (
    b"SELECT call_id::text, number, state, outcome, cost_usd, reserved_usd, estimated, flags,"
    b" coalesce((usage ->> 'input')::int, 0) + coalesce((usage ->> 'output')::int, 0) FROM attempt",
    b"SELECT id::text, workload, status, cost_usd, cache, key_id::text, extract(epoch FROM greatest(at,"
    b" (SELECT max(a.at) FROM attempt a WHERE a.call_id = call.id))),"
    b" CASE jsonb_typeof(detail -> 'sources') WHEN 'array' THEN jsonb_array_length(detail -> 'sources') ELSE 0 END"
    b" FROM call",
    b"SELECT call_id::text, attempt, budget, period, cost_usd FROM charge",
    b"SELECT budget, period, limit_usd, granted_usd FROM budget_period",
    b"SELECT id FROM audit_entry WHERE action = 'call'",
    b"SELECT name, span, amount, granted FROM limit_span WHERE span <> 'now'",
)
UNRECOVERED = """SELECT count(*) FROM gateway g LEFT JOIN shipped s USING (epoch)
    WHERE g.host <> 'batch' AND g.state <> 'live' AND NOT coalesce(s.done, false)"""


def _stack(folder: Path, workspace: Path, workers: int) -> Stack:
    return Stack(folder, workspace, workers, port=stable_port(), control_port=stable_port(), environment={})


def _restart(replica: Stack) -> None:
    """Start a replica; retried while a process that a killed `up` had started still holds the port."""
    for remaining in range(9, -1, -1):
        try:
            replica.start()
            return
        except AssertionError as error:
            if "port_in_use" not in str(error) or not remaining:
                raise
            time.sleep(1.0)


def stable_port() -> int:
    """A free port below the range that Linux assigns to outgoing connections, so that it stays free across restarts."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(lowest // 2, lowest)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextlib.contextmanager
def run_replicas(folder: Path, tight: float) -> Iterator[ChaosInstallation]:
    upstreams = {name: Upstream(folder / name) for name in ("one", "two")}
    workspace = declare(folder / "workspace", upstreams, tight)
    database = Home(folder / "server")
    database.create()
    replicas = (_stack(folder / "first", workspace, 2), _stack(folder / "second", workspace, 1))
    with EmbeddedPostgres(database) as postgres:
        installation = ChaosInstallation(folder, postgres, upstreams, replicas)
        try:
            installation.start(tight)
            yield installation
        finally:
            installation.stop()
            for upstream in upstreams.values():
                upstream.stop()


UndoAction = Callable[[], None]


@dataclass
class Chaos:
    """Disrupts at most one process of each part at a time, and undoes it a little later.

    Only one of the upstreams (`victim`) is disrupted: without both of them no fallback can answer.
    """

    installation: ChaosInstallation
    chance: random.Random
    victim: str
    story: list[str] = field(default_factory=list)
    _active: dict[str, tuple[float, Disruption, UndoAction]] = field(default_factory=dict)
    """Part -> when to undo its disruption, the disruption, how to undo it."""
    _current: tuple[str, str] = ("", "")

    def run(self, seconds: float) -> None:
        """Disrupt for so many seconds, then undo everything."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._undo_due(time.monotonic())
            part = self.chance.choice(("upstream", "upstream", "database", "first", "second"))
            if part not in self._active:
                begin = time.monotonic()
                undo = self._disrupt(part)
                now = time.monotonic()
                done = Disruption(part, *self._current, begin, begin, (now, now))
                self._active[part] = (time.monotonic() + self.chance.uniform(0.2, 1.6), done, undo)
            time.sleep(self.chance.uniform(0.1, 0.7))
        self._undo_due(float("inf"))

    def _undo_due(self, now: float) -> None:
        for part in [part for part, (due, _, _) in self._active.items() if due <= now]:
            self._undo(part)

    def _undo(self, part: str) -> None:
        """Undo the disruption of a part, if there is one, and record when it ended."""
        active = self._active.pop(part, None)
        if active is not None:
            _, done, undo = active
            since, until = done.away[0] if done.away else 0.0, time.monotonic()
            undo()
            if undo is undone_by_itself:
                self.installation.disruptions.append(replace(done, away=None))
            else:
                self.installation.disruptions.append(replace(done, end=time.monotonic(), away=(since, until)))

    def _disrupt(self, part: str) -> UndoAction:
        if part == "upstream":
            return self._disrupt_upstream()
        if part == "database":
            return self._disrupt_database()
        return self._disrupt_replica(self.installation.replica(part), part)

    def _record(self, way: str, what: str, where: str) -> None:
        self.story.append(f"{way} {what} {where}")
        self._current = (way, SHORT_NAMES.get(what, what))

    def _disrupt_upstream(self) -> UndoAction:
        name, upstream = self.victim, self.installation.upstreams[self.victim]
        way = self.chance.choice(("kill", "pause", "error", "stall", "cut", "stall_late", "malformed", "no_finish"))
        self._record(way, "upstream", name)
        assert upstream.process is not None
        if way == "kill":
            upstream.stop()

            def undo() -> None:
                upstream.start()
                upstream.control(**NORMAL)

            return undo
        if way == "pause":
            return pause_processes([upstream.process.pid])
        upstream.control(**{**NORMAL, "mode": way})
        return lambda: upstream.control(**NORMAL)

    def _disrupt_database(self) -> UndoAction:
        postgres, way = self.installation.postgres, self.chance.choice(("kill", "pause", "cut"))
        pid = postgres.pid
        self._record(way, "server", "of the database")
        if way == "cut" or pid is None:
            with contextlib.suppress(psycopg.Error):
                self.installation.administer(
                    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{LOGIN}'"
                )
            return undone_by_itself
        if way == "pause":
            os.kill(pid, signal.SIGSTOP)  # before the others are looked up: it starts no more of them
            return pause_processes([pid, *descendants(pid)])
        os.kill(pid, signal.SIGKILL)

        def undo() -> None:
            postgres.stop()
            postgres.start()

        return undo

    def _disrupt_replica(self, replica: Stack, name: str) -> UndoAction:
        assert replica.process is not None
        way = self.chance.choices(("kill", "pause", "up"), (5, 4, 1))[0]
        if way == "up":
            self._record("kill", "up", f"of {name}")
            replica.process.kill()
            replica.process.wait()

            def undo() -> None:
                self._undo("database")  # `up` does not start without it
                _restart(replica)

            return undo
        victim = self.chance.choice((WORKER, WORKER, WORKER, SHIPPER, CONTROL, SEARCH))
        if victim == SEARCH:
            way = "pause"  # killed, it takes longer to be back than a search is waited for
        pids = replica.pids(victim)
        self._record(way, victim, f"of {name}")
        if not pids:
            self._current = ("miss", victim)
            return undone_by_itself
        if way == "pause":
            return pause_processes([self.chance.choice(pids)])
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.chance.choice(pids), signal.SIGKILL)
        return undone_by_itself


def undone_by_itself() -> None:
    """Nothing to undo: the part recovers by itself."""


def pause_processes(pids: list[int]) -> UndoAction:
    """Stop these processes; returns the function that lets them go on."""

    def send_signal(number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    send_signal(signal.SIGSTOP)
    return lambda: send_signal(signal.SIGCONT)
