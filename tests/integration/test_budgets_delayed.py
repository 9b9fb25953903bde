"""Budgets of several workers whose PostgreSQL answers late, loses connections, and executes statements after their
sender gave up. Meanwhile workers die, budgets change, a day ends, and the shipper loses PostgreSQL, too.

In the end each worker knows all its grants, no slice is held, no budget was overspent, and the books balance.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from tests.integration.delayed_postgres import DelayedPostgres

from groundplan.blueprint.model import Budget
from groundplan.core.audit.keys import create_keys
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.budgets import grant_connection
from groundplan.gateway.budgets.lease_client import LeaseClient
from groundplan.gateway.budgets.leases import CONCURRENT, Quota, Slices
from groundplan.gateway.journal import ledger_store
from groundplan.gateway.journal.journal import SMALLEST_SEGMENT, Journal
from groundplan.gateway.journal.shipper import Shipper
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement, Usage
from groundplan.testing.clock import ManualClock
from groundplan.testing.database import Cluster, Database

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
COST: Final = 10**10
LIMIT: Final = 40 * COST
NAMES: Final = ("company", "aa", "a-b")
WORKERS: Final = 3
MAX_WAIT_SECONDS: Final = 3.0
"""Longest time that a call may wait for its budgets, on a busy machine."""
SLOTS: Final = Quota("concurrent/x", CONCURRENT, 30, "now", "x", "company")
UNRECOVERED: Final = (
    "SELECT count(*) FROM gateway g LEFT JOIN shipped s USING (epoch) WHERE NOT coalesce(s.done, false)"
)
BUDGETS: Final = """
SELECT p.budget, p.granted_usd, coalesce(s.usd, 0), coalesce(c.usd, 0) FROM budget_period p
  LEFT JOIN (SELECT budget, period, sum(granted_usd - released_usd) usd FROM budget_slice GROUP BY 1, 2) s
  USING (budget, period)
  LEFT JOIN (SELECT budget, period, sum(cost_usd) usd FROM charge GROUP BY 1, 2) c USING (budget, period)"""
INCONSISTENT_CALLS: Final = """
SELECT count(*) FROM call c FULL JOIN (SELECT call_id, sum(cost_usd) usd FROM attempt GROUP BY 1) a ON a.call_id = c.id
WHERE c.cost_usd IS DISTINCT FROM a.usd"""
COUNTS: Final = (
    "SELECT (SELECT count(*) FROM call), (SELECT count(*) FROM audit_entry WHERE action = 'call'),"
    " (SELECT coalesce(sum(granted), 0) FROM limit_span)"
)
GRANTED: Final = """
SELECT budget, period, (granted_usd * 1000000000000)::bigint FROM budget_slice WHERE epoch = %(epoch)s
UNION ALL SELECT name, span, granted FROM limit_slice WHERE epoch = %(epoch)s AND NOT closed"""


class Clock(ManualClock):
    """A clock whose dates the test sets and whose monotonic time is real."""

    def monotonic(self) -> float:
        return time.monotonic()


class World:
    """The state that all workers share, and the faults found."""

    def __init__(self, home: Home, urls: dict[Any, str], seed: int) -> None:
        self.home, self.urls, self.random = home, urls, random.Random(seed)
        self.clock = Clock(datetime(2036, 11, 29, 23, 58, tzinfo=UTC))
        self.number = 1
        self.limits = dict.fromkeys(NAMES, LIMIT)
        self.highest_limits = dict(self.limits)
        """The highest limit that each budget had."""
        self.served = 0
        self.faults: list[str] = []

    def budgets(self) -> list[Budget]:
        return [Budget(name=name, covers=f"workload/{name}", limit=self.limits[name], period="day") for name in NAMES]


class Worker:
    """The part of a gateway worker that requests grants and writes a journal; it can be killed."""

    def __init__(self, world: World) -> None:
        self.world, self.epoch, self.number = world, new_id(), world.number
        loop = asyncio.get_running_loop()
        self.journal = Journal.open(world.home.journal / str(self.epoch), self.epoch, loop, SMALLEST_SEGMENT)
        self.slices, self.counters = Slices(), Slices()
        self.leases = LeaseClient(
            world.urls["gateway"], self.journal, self.slices, home=world.home.root, clock=world.clock,
            counters=self.counters,
        )  # fmt: skip
        self.leases.apply_declarations(world.budgets(), {}, self.number)
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def make_call(self) -> None:
        """Make a call that is charged to some budgets and holds a concurrency slot."""
        call = new_id().bytes
        if await self.leases.acquire((call, -1), [Charge(SLOTS.name, "now", 1)], [SLOTS], self.number) is not None:
            return
        try:
            await self._make_charged_call(call)
        finally:
            self.counters.settle_charges((call, -1), [0])

    async def _make_charged_call(self, call: bytes) -> None:
        world, chance = self.world, self.world.random
        names = chance.sample(NAMES, chance.choice((1, 2, 3)))
        bound, began = chance.randrange(1, 2 * COST), time.monotonic()
        charges = [Charge(name, world.clock.now().strftime("%Y-%m-%d"), bound) for name in names]
        declared = [each for name in names for each in world.budgets() if each.name == name]
        short = await self.leases.acquire((call, 0), charges, declared, self.number)
        if (waited := time.monotonic() - began) > MAX_WAIT_SECONDS:
            world.faults.append(f"a call waited for {waited:.1f} s")
        if short is not None:
            return
        at = int(world.clock.seconds() * 1000)
        self.journal.reserve(Reservation(call, 0, at, "w", "", "k", "/v1", "d", "s", "m", 1, bound, charges))
        await asyncio.sleep(chance.choice((0, 0.01, 0.1, 0.8)))
        cost = chance.choice((0, bound // 3, bound))
        self.journal.settle(Settlement(call, 0, 2, cost, "ok", 200, Usage(input=1, output=1), False, [], 5000))
        self.journal.finish(Finish(call, at, "w", "", "k", "/v1", "ok", 200, "", "d", "none", 1, 9, 7, [], []))
        self.slices.settle((call, 0), cost)
        world.served += 1

    async def declare_later(self, seconds: float, number: int, budgets: list[Budget]) -> None:
        await asyncio.sleep(seconds)
        if number > self.number:
            self.leases.apply_declarations(budgets, {}, number)
            self.number = number

    async def die(self) -> None:
        """End as by SIGKILL: nothing is released, and what was written stays in the files."""
        leases = self.leases
        serving = [each.task for each in leases._accounts.values() if each.task is not None]
        every = [*self.tasks, *leases._tasks, *leases._background, *serving]
        for task in every:
            task.cancel()
        await asyncio.gather(*every, return_exceptions=True)
        if leases._grants._connection is not None:
            leases._grants._connection.pgconn.finish()
        self.journal._flush()
        fcntl.flock(self.journal._lock, fcntl.LOCK_UN)

    def grant_mismatches(self, admin: psycopg.Connection[Any]) -> list[str]:
        """A line for each grant on which this worker and the database disagree."""
        known = self.leases._grants.granted.amounts
        rows = admin.execute(GRANTED, {"epoch": self.epoch}).fetchall()
        return [
            f"{key} {period}: {known.get((key, period), 0)} of {granted}"
            for key, period, granted in rows
            if known.get((key, period), 0) != granted
        ]


class ShipperThread(threading.Thread):
    """Ships the journals; from time to time it drops its connection and starts over, like a killed process."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__(daemon=True)
        self.stopped = threading.Event()
        self._world, self._random = world, random.Random(seed)

    def run(self) -> None:
        while not self.stopped.is_set():
            with suppress(psycopg.Error):
                self._ship()
            self.stopped.wait(0.1)

    def _ship(self) -> None:
        with psycopg.connect(self._world.urls["shipper"], autocommit=True, connect_timeout=3) as conn:
            ledger_store.limit_idle_transactions(conn)
            shipper = Shipper(self._world.home)
            for _ in range(self._random.randrange(3, 20)):
                if not self.stopped.is_set():
                    shipper.run_round(conn)
                    self.stopped.wait(0.15)
            if self._random.random() < 0.5:
                conn.pgconn.finish()


async def traffic(world: World, workers: list[Worker], seconds: float) -> None:
    """Make calls while limits change, workers die and, once, midnight passes."""
    chance, end, same_day = world.random, time.monotonic() + seconds, True
    while time.monotonic() < end:
        what, worker = chance.random(), chance.choice(workers)
        if what < 0.93:
            worker.spawn(worker.make_call())
        elif what < 0.96:
            name, world.number = chance.choice(NAMES), world.number + 1
            world.limits[name] = int(chance.choice((0.3, 0.6, 1, 1.5)) * LIMIT)
            world.highest_limits[name] = max(world.highest_limits[name], world.limits[name])
            for each in workers:
                each.spawn(each.declare_later(chance.random() / 2, world.number, world.budgets()))
        elif what < 0.97:
            await worker.die()
            workers.remove(worker)
            workers.append(Worker(world))
            await workers[-1].leases.start()
        elif what < 0.972 and same_day:
            same_day = False
            world.clock.set_now(world.clock.now() + timedelta(minutes=5))
        await asyncio.sleep(chance.random() * 0.03)
    running = [task for worker in workers for task in worker.tasks]
    if running and (await asyncio.wait(running, timeout=10))[1]:
        world.faults.append("calls hang")


async def wait_until_first_served(world: World, workers: list[Worker]) -> bool:
    """Something was spent, however little is served from now on."""
    end = time.monotonic() + 15
    while world.served == 0 and time.monotonic() < end:
        await workers[0].make_call()
    return world.served > 0


async def until(done: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.1)
    return True


def faults(world: World, admin: psycopg.Connection[Any]) -> list[str]:
    """What does not add up once nobody is there any more."""
    found = []
    for name, granted, sliced, spent in admin.execute(BUDGETS).fetchall():
        if not granted == sliced == spent:
            found.append(f"{name}: granted {granted}, of slices {sliced}, spent {spent}")
        if int(spent * 10**12) > world.highest_limits[name]:
            found.append(f"{name}: spent {spent} of at most {world.highest_limits[name]}")
    ((calls, entries, places),) = admin.execute(COUNTS).fetchall()
    ((differing,),) = admin.execute(INCONSISTENT_CALLS).fetchall()
    if (entries, places, differing) != (calls, 0, 0):
        found.append(f"{calls} calls, {entries} entries; {places} places held; {differing} differ from their attempts")
    return found


async def one_round(folder: Path, database: Database, port: int, seed: int, seconds: float) -> None:
    home = Home(folder / str(seed))
    home.create()
    create_keys(home)
    home.journal.mkdir(exist_ok=True)
    with (
        DelayedPostgres(port, seed) as network,
        psycopg.connect(database.superuser, autocommit=True) as admin,
    ):
        world = World(home, {role: network.url(url) for role, url in database.urls.items()}, seed)
        workers, shipping = [Worker(world) for _ in range(WORKERS)], ShipperThread(world, seed)
        for worker in workers:
            await worker.leases.start()
        assert await wait_until_first_served(world, workers)
        network.is_faulty = True
        shipping.start()
        await traffic(world, workers, seconds)
        network.is_faulty = False
        if not await until(lambda: not any(worker.grant_mismatches(admin) for worker in workers), 15):
            world.faults += [
                f"unknown to a worker: {each}" for worker in workers for each in worker.grant_mismatches(admin)
            ]
        for worker in workers:
            await worker.leases.close()
            await worker.journal.close()
        if not await until(lambda: admin.execute(UNRECOVERED).fetchall() == [(0,)], 30):
            world.faults.append("journals are not recovered")
        shipping.stopped.set()
        await asyncio.to_thread(shipping.join, 20)
        found = world.faults + faults(world, admin)
        assert found == [], f"seed {seed}:\n" + "\n".join(found[:20])


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Statements are given up soon, so that very many are. Who is killed closes no connection, nor one half made."""
    monkeypatch.setattr(grant_connection, "_STATEMENT_S", 0.4)
    monkeypatch.setattr(grant_connection, "_UNANSWERED_S", 8.0)
    yield
    gc.collect()


async def test_books_close_behind_a_network_that_delays_and_cuts(postgres_cluster: Cluster, tmp_path: Path) -> None:
    with postgres_cluster.database() as one, postgres_cluster.database() as other:
        async with asyncio.TaskGroup() as both:
            for seed, database in enumerate((one, other)):
                both.create_task(one_round(tmp_path, database, postgres_cluster.port, seed, 0.7))


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3, 7, 1102, 1108, 1111])
async def test_books_close_after_a_longer_while(postgres_cluster: Cluster, tmp_path: Path, seed: int) -> None:
    with postgres_cluster.database() as database:
        await one_round(tmp_path, database, postgres_cluster.port, seed, 7)
