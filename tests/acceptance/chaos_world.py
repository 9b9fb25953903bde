"""Two replicas of one company on one PostgreSQL that neither of them runs, two upstreams, and all that can happen to
them.

Everything is a real process. What must hold afterwards is `chaos_books`; who calls is `chaos_traffic`.
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
from tests.acceptance.chaos_books import Attempt, Books, Call, Charge, Hurt, Limit, Period, Seen, Span
from tests.acceptance.chaos_workspace import (
    COUNTED,
    GROUNDED,
    KINDS,
    OWN,
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
NAMES = {WORKER: "worker", SHIPPER: "shipper", CONTROL: "control", SEARCH: "search"}


@dataclass
class World:
    """All processes of a few rounds."""

    folder: Path
    postgres: EmbeddedPostgres
    upstreams: dict[str, Upstream]
    replicas: tuple[Stack, Stack]
    keys: dict[str, str] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    seen: list[Seen] = field(default_factory=list)
    hurts: list[Hurt] = field(default_factory=list)
    """What was done to the database and the replicas, once it was mended."""

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
            self._key(name, name, **own, **({"user": "you@company.example"} if name == GROUNDED else {}))
        self._limit({name: self._key(name + OWN, name) for name in COUNTED})

    def _key(self, name: str, workload: str, **terms: str) -> str:
        """Make a key; its id."""
        made = self.replicas[0].control("POST", "/api/keys", {"workload": workload, **terms})
        assert made.status == 201, made.body
        self.keys[name] = made.body["key"]
        return str(made.body["id"])

    def _limit(self, owns: dict[str, str]) -> None:
        """Declare the limits and wait until every worker knows them; `owns`: ids of the keys that have their own."""
        first = self.replicas[0]
        self.limits = declare_limits(first.workspace / "limits.yaml", owns)
        number = first.cli("apply", "--workspace", str(first.workspace))["blueprint"]
        behind = f"SELECT count(*) FROM gateway WHERE state = 'live' AND (blueprint < {number} OR NOT ready)"
        wait_until(lambda: self.administer(behind) == [(0,)], 30, "every worker knows the limits")

    def together(self, what: Callable[[Stack], object]) -> None:
        """Do something with both replicas at the same time."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(what, self.replicas))

    def stop(self) -> None:
        """Stop the replicas, as an operator would."""
        self.together(Stack.stop)

    def counted(self) -> list[str]:
        return [name for upstream in self.upstreams.values() for name in upstream.counted()]

    def quiet(self) -> bool:
        """Whether every process is back and every journal is in the ledger."""
        with contextlib.suppress(psycopg.Error):
            ((live,),) = self.administer("SELECT count(*) FROM gateway WHERE state = 'live' AND ready")
            ((unrecovered,),) = self.administer(UNRECOVERED)
            ((unended,),) = self.administer(
                "SELECT count(*) FROM attempt a LEFT JOIN call c ON c.id = a.call_id"
                " WHERE c.id IS NULL OR a.state = 'open'"
            )
            rows = {f"{call}-{number}" for call, number in self.administer("SELECT call_id, number FROM attempt")}
            calls = {str(call) for (call,) in self.administer("SELECT id FROM call")}
            workers = sum(replica.workers for replica in self.replicas)
            mine = {seen.call for seen in self.seen if seen.status == 200}
            return live == workers and not unrecovered and not unended and rows >= set(self.counted()) and calls >= mine
        return False

    def books(self) -> Books:
        """All rows, what the upstreams counted and what the clients saw."""
        return replace(
            read_books(self.postgres.superuser_url(DATABASE)),
            counted=tuple(self.counted()),
            seen=tuple(self.seen),
            covers={name: frozenset({name, "company", "narrow" if name == "tight-1" else "wide"}) for name in KINDS},
            may_refuse=dict.fromkeys(TIGHT, frozenset({"budget_exhausted"}))
            | dict.fromkeys(COUNTED, frozenset({"rate_limit_exceeded"})),
            restricted=frozenset({RESTRICTED}),
            hurts=tuple(self.hurts),
            grounded=frozenset({GROUNDED}),
            limits=self.limits,
        )


def read_books(url: str) -> Books:
    """What the database of an installation says, all of one moment: refused calls may still be shipped meanwhile."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        attempts, calls, charges, periods, audited, spans = (connection.execute(each).fetchall() for each in BOOKS)
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
        spans=tuple(Span(*row) for row in spans),
    )


def begun(call: str) -> float:
    """When a call began, which its id says."""
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


def _replica(folder: Path, workspace: Path, workers: int) -> Stack:
    return Stack(folder, workspace, workers, port=steady_port(), control_port=steady_port(), environment={})


def _start_again(replica: Stack) -> None:
    """What a killed `up` had started may hold its port for a moment longer."""
    for left in range(9, -1, -1):
        try:
            replica.start()
            return
        except AssertionError as error:
            if "port_in_use" not in str(error) or not left:
                raise
            time.sleep(1.0)


def steady_port() -> int:
    """A free port that no client's end of a connection is given while nobody listens there."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(lowest // 2, lowest)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextlib.contextmanager
def world(folder: Path, tight: float) -> Iterator[World]:
    upstreams = {name: Upstream(folder / name) for name in ("one", "two")}
    workspace = declare(folder / "workspace", upstreams, tight)
    database = Home(folder / "server")
    database.create()
    replicas = (_replica(folder / "first", workspace, 2), _replica(folder / "second", workspace, 1))
    with EmbeddedPostgres(database) as postgres:
        made = World(folder, postgres, upstreams, replicas)
        try:
            made.start(tight)
            yield made
        finally:
            made.stop()
            for upstream in upstreams.values():
                upstream.stop()


Undo = Callable[[], None]


@dataclass
class Chaos:
    """Hurts one thing of each part at a time, and mends it a little later.

    Only one of the upstreams: where both are gone no fallback can answer.
    """

    world: World
    chance: random.Random
    victim: str
    story: list[str] = field(default_factory=list)
    _hurt: dict[str, tuple[float, Hurt, Undo]] = field(default_factory=dict)
    """Part -> when to mend it, what was done, how it is mended."""
    _doing: tuple[str, str] = ("", "")

    def run(self, seconds: float) -> None:
        """Hurt for so long, then mend everything."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._mend(time.monotonic())
            part = self.chance.choice(("upstream", "upstream", "database", "first", "second"))
            if part not in self._hurt:
                begin = time.monotonic()
                undo = self._act(part)
                now = time.monotonic()
                done = Hurt(part, *self._doing, begin, begin, (now, now))
                self._hurt[part] = (time.monotonic() + self.chance.uniform(0.2, 1.6), done, undo)
            time.sleep(self.chance.uniform(0.1, 0.7))
        self._mend(float("inf"))

    def _mend(self, now: float) -> None:
        for part in [part for part, (due, _, _) in self._hurt.items() if due <= now]:
            self._undo(part)

    def _undo(self, part: str) -> None:
        """Mend a part, if it is hurt, and write down until when it was."""
        found = self._hurt.pop(part, None)
        if found is not None:
            _, done, undo = found
            since, until = done.away[0] if done.away else 0.0, time.monotonic()
            undo()
            if undo is nothing:
                self.world.hurts.append(replace(done, away=None))
            else:
                self.world.hurts.append(replace(done, end=time.monotonic(), away=(since, until)))

    def _act(self, part: str) -> Undo:
        if part == "upstream":
            return self._hurt_upstream()
        if part == "database":
            return self._hurt_database()
        return self._hurt_replica(self.world.replica(part), part)

    def _tell(self, way: str, what: str, where: str) -> None:
        self.story.append(f"{way} {what} {where}")
        self._doing = (way, NAMES.get(what, what))

    def _hurt_upstream(self) -> Undo:
        name, upstream = self.victim, self.world.upstreams[self.victim]
        way = self.chance.choice(("kill", "pause", "error", "stall", "cut", "stall_late", "malformed", "no_finish"))
        self._tell(way, "upstream", name)
        assert upstream.process is not None
        if way == "kill":
            upstream.stop()

            def again() -> None:
                upstream.start()
                upstream.control(**NORMAL)

            return again
        if way == "pause":
            return paused([upstream.process.pid])
        upstream.control(**{**NORMAL, "mode": way})
        return lambda: upstream.control(**NORMAL)

    def _hurt_database(self) -> Undo:
        postgres, way = self.world.postgres, self.chance.choice(("kill", "pause", "cut"))
        pid = postgres.pid
        self._tell(way, "server", "of the database")
        if way == "cut" or pid is None:
            with contextlib.suppress(psycopg.Error):
                self.world.administer(
                    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{LOGIN}'"
                )
            return nothing
        if way == "pause":
            os.kill(pid, signal.SIGSTOP)  # before the others are looked up: it starts no more of them
            return paused([pid, *descendants(pid)])
        os.kill(pid, signal.SIGKILL)

        def again() -> None:
            postgres.stop()
            postgres.start()

        return again

    def _hurt_replica(self, replica: Stack, name: str) -> Undo:
        assert replica.process is not None
        way = self.chance.choices(("kill", "pause", "up"), (5, 4, 1))[0]
        if way == "up":
            self._tell("kill", "up", f"of {name}")
            replica.process.kill()
            replica.process.wait()

            def again() -> None:
                self._undo("database")  # `up` does not start without it
                _start_again(replica)

            return again
        victim = self.chance.choice((WORKER, WORKER, WORKER, SHIPPER, CONTROL, SEARCH))
        if victim == SEARCH:
            way = "pause"  # killed, it takes longer to be back than a search is waited for
        pids = replica.pids(victim)
        self._tell(way, victim, f"of {name}")
        if not pids:
            self._doing = ("miss", victim)
            return nothing
        if way == "pause":
            return paused([self.chance.choice(pids)])
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.chance.choice(pids), signal.SIGKILL)
        return nothing


def nothing() -> None:
    """It mends itself."""


def paused(pids: list[int]) -> Undo:
    """Stop these processes; returns what lets them go on."""

    def send(number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    send(signal.SIGSTOP)
    return lambda: send(signal.SIGCONT)
