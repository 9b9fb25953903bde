"""Limits that blueprints raise and lower while calls begin, wait and end on two workers, against a plain count: nobody
is let in above what the newest blueprint says, and in the end all of it can be used."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.test_lease_client import patience
from tests.integration.test_limit_leases import Wall, Worker, worker

from groundplan.core.ids import new_id
from groundplan.gateway.budgets.leases import CONCURRENT, Quota, Token
from groundplan.ledger.model import Charge
from groundplan.testing.database import Database

steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 1)),
        st.tuples(st.just("begin"), st.integers(0, 1)),
        st.tuples(st.just("end"), st.integers(0, 20)),
        st.tuples(st.just("declare"), st.integers(1, 6)),
        st.tuples(st.just("pause"), st.integers(0, 60)),
    ),
    min_size=10,
    max_size=40,
)
_runs = itertools.count()


@dataclass
class Count:
    """What two workers admit, and what they may."""

    workers: tuple[Worker, Worker]
    declared: Quota
    number: int = 1
    open: list[tuple[Worker, Token]] = field(default_factory=list)
    above: list[str] = field(default_factory=list)
    told: int = 0
    """Calls that were told to go on before the newest blueprint, and had not run."""
    waiting: set[asyncio.Task[bool]] = field(default_factory=set)

    async def begin(self, one: Worker) -> bool:
        token: Token = (new_id().bytes, -1)
        asked = self.declared
        charges = [Charge(asked.name, "now", 1)]
        if await one.leases.acquire(token, charges, [asked], self.number) is not None:
            return False
        self.open.append((one, token))
        if len(self.open) > self.declared.limit and self.told <= 0:
            self.above.append(f"{len(self.open)} of {self.declared.limit}")
        self.told -= 1
        return True

    def end(self, place: int) -> None:
        if self.open:
            one, token = self.open.pop(place % len(self.open))
            one.counters.settle_charges(token, [0])

    def declare(self, most: int) -> None:
        self.number += 1
        self.declared = Quota(self.declared.name, CONCURRENT, most, "now", "test", "company")
        accounts = [each.leases._accounts.get((self.declared.name, "now")) for each in self.workers]
        self.told = sum(account.promised for account in accounts if account is not None)
        for each in self.workers:
            each.leases.apply_declarations([], {(self.declared.family, "now"): most}, self.number)


async def _follow(database: Database, root: Path, run: list[tuple[str, int]]) -> None:
    wall = Wall(datetime.now(UTC))
    mine = f"concurrent/declared{next(_runs)}"
    async with worker(database, root, wall) as one, worker(database, root, wall) as two:
        count = Count((one, two), Quota(mine, CONCURRENT, 4, "now", "test", "company"))
        count.declare(4)
        for what, value in run:
            if what == "begin":
                count.waiting.add(asyncio.create_task(count.begin(count.workers[value])))
            elif what == "end":
                count.end(value)
            elif what == "declare":
                count.declare(value)
            await asyncio.sleep(value / 1000 if what == "pause" else 0)
        await asyncio.gather(*count.waiting)
        assert not count.above
        while count.open:
            count.end(0)
        most = count.declared.limit
        async with asyncio.timeout(20.0):
            while sum(each.counters.available(mine, "now") for each in (one, two)) > most:  # noqa: ASYNC110 -- from outside
                await asyncio.sleep(0.01)  # what ended above the limit goes back
            with patience(20.0):  # all of it can be used, once the other worker has said what it gave back
                for _ in range(most):
                    while not await count.begin(one):  # noqa: ASYNC110 -- as a caller does
                        await asyncio.sleep(0.05)
        assert not await count.begin(two)
        while count.open:
            count.end(0)


async def test_no_more_calls_are_admitted_than_the_newest_blueprint_allows(database: Database, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(steps)
    def each(run: list[tuple[str, int]]) -> None:
        asyncio.run_coroutine_threadsafe(_follow(database, tmp_path, run), loop).result(120)

    await asyncio.to_thread(each)
