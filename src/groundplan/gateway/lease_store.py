"""Where a worker's slices come from: grants of PostgreSQL, recalled from idle workers before anybody is refused.

Everything here runs beside the request path; a caller comes here only when its slice is empty. A grant is one
transaction on the row of its (budget, period), so the sum of all slices never exceeds the limit. A release is
journalled and durable before PostgreSQL hears of it, and counts once by its id, whoever tells it. A worker that is
fenced is granted nothing any more. Reserving itself is `leases`; taking back what a dead worker held is the shipper's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from groundplan.blueprint.model import Budget
from groundplan.core.clock import Clock, SystemClock
from groundplan.core.database import first_line
from groundplan.core.errors import Unavailable
from groundplan.core.ids import new_id
from groundplan.core.money import from_decimal, to_decimal
from groundplan.gateway.journal import Journal
from groundplan.gateway.leases import Key, Slices, Token
from groundplan.ledger.model import Charge, Release

log = logging.getLogger(__name__)

RECALL_CHANNEL = "groundplan_recall"
REFILL_S = 0.25
"""Longest that a caller waits for its budget."""
_RETRY_S = 0.015
"""After a fruitless try; up to four times as long when there were several."""
_TRIES_PER_RECALL = 3
_TICK_S = 0.05
_RECALL_S = 0.3
"""How long a worker keeps giving back what it frees after somebody asked."""
_CHECK_S = 0.5
_HEADROOM_CALLS = 16

LOST = (psycopg.Error, TimeoutError)
"""What a database that is away, restarted, or tired of us raises. It is logged and tried again; callers are refused."""

# A worker that is stopped (SIGSTOP, a frozen machine) in the middle of a transaction must not keep others from the row.
NO_IDLE_TRANSACTION = "SET idle_in_transaction_session_timeout = '250ms'"
GATEWAY_LIVE = "SELECT 1 FROM gateway WHERE epoch = %s AND state = 'live' FOR SHARE"
OPEN_PERIOD = """INSERT INTO budget_period AS p (budget, period, limit_usd) VALUES (%s, %s, %s)
    ON CONFLICT (budget, period) DO UPDATE SET limit_usd = EXCLUDED.limit_usd
    RETURNING p.limit_usd - p.granted_usd, coalesce(p.wanted_at > now() - interval '2 seconds', false)"""
TAKE = """UPDATE budget_period SET granted_usd = granted_usd + %s
    WHERE budget = %s AND period = %s AND granted_usd + %s <= limit_usd"""
ADD_SLICE = """INSERT INTO budget_slice AS s (epoch, budget, period, granted_usd) VALUES (%s, %s, %s, %s)
    ON CONFLICT (epoch, budget, period) DO UPDATE SET granted_usd = s.granted_usd + EXCLUDED.granted_usd"""
MOVE = """INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type) VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (id) DO NOTHING"""
LOCK_PERIOD = "SELECT 1 FROM budget_period WHERE budget = %s AND period = %s FOR UPDATE"
GIVE_BACK = "UPDATE budget_period SET granted_usd = granted_usd - %s WHERE budget = %s AND period = %s"
SHRINK_SLICE = """UPDATE budget_slice SET released_usd = released_usd + %s
    WHERE epoch = %s AND budget = %s AND period = %s"""


def grant_size(need: int, wanting: int, rest: int, headroom: int, contested: bool) -> int:
    """How much to take of the rest of a limit: enough for those who wait, and some for those who come next.

    `need` is the least that helps anybody, `wanting` what all who wait lack, `headroom` what the next second may need.
    Nothing is taken that helps nobody; a contested budget is taken to measure; else at most an eighth of the rest is
    taken ahead.
    """
    if rest < need or rest <= 0:
        return 0
    ahead = 0 if contested else min(rest // 8, headroom)
    return min(rest, max(need, wanting) + ahead)


def has_ended(period: str, today: str) -> bool:
    """Whether a period key is over on the UTC date `today` (`2026-11-25`). `total` never is, nor is a future one."""
    return period != "total" and period < today[: len(period)]


@dataclass(slots=True)
class _Demand:
    """Callers who wait for one (budget, period)."""

    budget: Budget
    waiters: list[tuple[int, asyncio.Future[bool]]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    promised: int = 0
    """Amounts of callers who were told to go on and have not run yet."""
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Use:
    """What is known of a budget that this worker uses."""

    budget: Budget
    rate: float = 0.0
    """Picodollars a second, lately."""
    spent: int = 0
    usual: int = 0
    """A need seen lately."""
    dry_until: float = 0.0
    """Loop time until which nothing is fetched ahead."""


class LeaseClient:
    """The lender's desk of one worker. `start` it when the worker's `gateway` row may be made; `close` returns
    everything."""

    def __init__(
        self, url: str, epoch: UUID, journal: Journal, slices: Slices, *, home: Path, clock: Clock | None = None
    ) -> None:
        self._url = url
        self._epoch = epoch
        self._journal = journal
        self._slices = slices
        self._home = home
        self._clock = clock or SystemClock()
        self._connection: AsyncConnection[tuple[Any, ...]] | None = None
        self._busy = asyncio.Lock()
        self._demands: dict[Key, _Demand] = {}
        self._uses: dict[Key, _Use] = {}
        self._granted: dict[Key, int] = {}
        self._pending: dict[bytes, Release] = {}
        self._recalled: dict[Key, float] = {}
        self._giving: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._checked = 0.0
        self._problem = ""
        slices.on_freed = self._freed

    @property
    def connected(self) -> bool:
        """Whether grants are possible at the moment."""
        return self._connection is not None and not self._connection.closed

    async def start(self) -> None:
        """Connect if the database is there, and begin to prefetch and to answer recalls."""
        with self._noted():
            async with self._busy:
                await self._connect()
        self._tasks = [asyncio.create_task(self._run_ticks()), asyncio.create_task(self._run_recalls())]

    async def close(self) -> None:
        """Return what is not spent and disconnect. What the database does not hear is in the journal."""
        self._closing = True
        running = [*self._tasks, *self._giving, *(d.task for d in self._demands.values() if d.task is not None)]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for budget, period in self._slices.granted_keys():
            await self._give_back((budget, period))
        if self._connection is not None:
            await self._connection.close()
        self._slices.on_freed = None

    async def acquire(self, token: Token, charges: Sequence[Charge], budgets: Mapping[str, Budget]) -> str | None:
        """Reserve, waiting at most 250 ms in all for budgets that are short. None, or the name of the budget that is.

        `budgets` has the declaration of each budget named in the charges.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REFILL_S
        while (short := self._slices.reserve(token, charges)) is not None:
            charge = next(charge for charge in charges if charge.budget == short)
            left = deadline - loop.time()
            if left <= 0 or not await self._wait_for(budgets[short], charge.period, charge.amount, left):
                return short
        return None

    async def refill(self, budget: Budget, period: str, need: int) -> bool:
        """Within 250 ms, whether the slice now has `need` (picodollars); reserve at once when it says so."""
        return await self._wait_for(budget, period, need, REFILL_S)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Log a failure of the database once, not at every try."""
        try:
            yield
        except LOST as error:
            problem = f"{error.__class__.__name__}: {first_line(error)}"
            if problem != self._problem:
                log.warning("budgets cannot be refilled or returned: %s", problem)
            self._problem = problem

    # callers who wait ----------------------------------------------------------------------------------------------

    async def _wait_for(self, budget: Budget, period: str, need: int, seconds: float) -> bool:
        if need > budget.limit or self._closing:
            return False
        key = (budget.name, period)
        demand = self._demands.get(key)
        if demand is None:
            demand = self._demands[key] = _Demand(budget)
        demand.budget = budget
        use = self._uses.setdefault(key, _Use(budget))
        use.budget, use.usual = budget, need
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiter = (need, future)
        demand.waiters.append(waiter)
        demand.changed.set()
        if demand.task is None or demand.task.done():
            demand.task = asyncio.create_task(self._serve(key, demand))
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return False
        finally:
            if waiter in demand.waiters:
                demand.waiters.remove(waiter)
            elif future.done() and not future.cancelled():
                demand.promised -= need

    async def _serve(self, key: Key, demand: _Demand) -> None:
        """Until nobody waits for this budget: hand out what is there, fetch more, ask the other workers."""
        loop = asyncio.get_running_loop()
        tries, next_try = 0, 0.0
        while self._offer(key, demand):
            if loop.time() >= next_try:
                if await self._fetch(key, demand, recall=tries % _TRIES_PER_RECALL == 0):
                    tries = 0
                    continue
                tries += 1
                next_try = loop.time() + min(tries, 4) * _RETRY_S
            demand.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_try - loop.time())):
                    await demand.changed.wait()
        demand.task = None

    async def _fetch(self, key: Key, demand: _Demand, *, recall: bool) -> bool:
        """Ask the database once for what those who wait lack. Whether anything came."""
        with self._noted():
            async with self._busy:
                lacking = self._lacking(key, demand)
                return lacking is None or await self._grant(key, demand.budget, *lacking, recall=recall) > 0
        return False

    def _offer(self, key: Key, demand: _Demand) -> bool:
        """Let those go on, in their order, for whom there is enough. Whether others still wait."""
        left = self._slices.available(*key) - demand.promised
        for waiter in list(demand.waiters):
            need, future = waiter
            if need > left:
                continue
            left -= need
            demand.waiters.remove(waiter)
            if not future.done():
                demand.promised += need
                future.set_result(True)
        return bool(demand.waiters)

    def _lacking(self, key: Key, demand: _Demand) -> tuple[int, int] | None:
        """What the least of those who wait lacks, and what all of them lack; None when nobody waits."""
        needs = [need for need, _ in demand.waiters]
        if not needs:
            return None
        have = self._slices.available(*key) - demand.promised
        return max(1, min(needs) - have), max(1, sum(needs) - have)

    def _freed(self, key: Key) -> None:
        demand = self._demands.get(key)
        if demand is not None and demand.waiters:
            self._offer(key, demand)
        elif key in self._recalled:
            self._start_giving(key)

    # grants --------------------------------------------------------------------------------------------------------

    async def _grant(self, key: Key, budget: Budget, need: int, wanting: int, *, recall: bool) -> int:
        """One transaction; the amount that the slice grew by. Holds `_busy`. Raises psycopg.OperationalError."""
        connection = await self._connect()
        name, period = key
        use = self._uses.setdefault(key, _Use(budget))
        async with asyncio.timeout(2.0), connection.transaction():
            if not await (await connection.execute(GATEWAY_LIVE, (self._epoch,))).fetchone():
                return 0
            row = await (await connection.execute(OPEN_PERIOD, (name, period, to_decimal(budget.limit)))).fetchone()
            assert row is not None
            rest, contested = from_decimal(row[0]), bool(row[1])
            headroom = max(int(use.rate), _HEADROOM_CALLS * use.usual)
            amount = grant_size(need, wanting, rest, headroom, contested)
            if amount:
                await self._take(connection, key, to_decimal(amount))
            elif recall:
                await connection.execute(
                    "UPDATE budget_period SET wanted_at = now() WHERE budget = %s AND period = %s", key
                )
                call = f"{name} {period} {self._epoch}"
                await connection.execute("SELECT pg_notify(%s, %s)", (RECALL_CHANNEL, call))
        if contested or not amount:
            use.dry_until = asyncio.get_running_loop().time() + 2.0
        self._booked(key, amount)
        return amount

    async def _take(self, connection: AsyncConnection[tuple[Any, ...]], key: Key, amount: Decimal) -> None:
        async with connection.pipeline():
            taken = await connection.execute(TAKE, (amount, *key, amount))
            await connection.execute(ADD_SLICE, (self._epoch, *key, amount))
            await connection.execute(MOVE, (new_id(), self._epoch, *key, amount, "grant"))
        if taken.rowcount != 1:
            # cannot be while the row is locked; the transaction is undone
            raise psycopg.OperationalError("the budget changed under its lock")

    def _booked(self, key: Key, amount: int) -> None:
        if amount:
            self._granted[key] = self._granted.get(key, 0) + amount
            self._slices.grant(*key, amount)

    async def _connect(self) -> AsyncConnection[tuple[Any, ...]]:
        """The connection; a new one first learns of grants whose answer was lost. Holds `_busy`."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = await AsyncConnection.connect(self._url, autocommit=True, connect_timeout=2)
        await connection.execute(NO_IDLE_TRANSACTION)
        await connection.execute(
            "INSERT INTO gateway (epoch, host, home, pid) VALUES (%s, %s, %s, %s) ON CONFLICT (epoch) DO NOTHING",
            (self._epoch, socket.gethostname(), str(self._home), os.getpid()),
        )
        cursor = await connection.execute(
            "SELECT budget, period, granted_usd FROM budget_slice WHERE epoch = %s", (self._epoch,)
        )
        for budget, period, granted in await cursor.fetchall():
            self._booked((budget, period), from_decimal(granted) - self._granted.get((budget, period), 0))
        self._connection, self._problem = connection, ""
        return connection

    # releases ------------------------------------------------------------------------------------------------------

    def _start_giving(self, key: Key) -> None:
        task = asyncio.create_task(self._give_back(key))
        self._giving.add(task)
        task.add_done_callback(self._giving.discard)

    async def _give_back(self, key: Key) -> None:
        """Release what is idle: journal, disk, database, in this order."""
        demand = self._demands.get(key)
        amount = self._slices.release(*key, keep=demand.promised if demand else 0)
        if not amount:
            return
        record = Release(new_id().bytes, *key, amount)
        try:
            sequence = self._journal.release(record)
        except Unavailable:
            return  # a failed journal ends this epoch: recovery finds the amount unspent and returns it
        self._pending[record.id] = record
        try:
            if (waiting := self._journal.durable(sequence)) is not None:
                await waiting
            async with self._busy:
                await self._tell_releases()
        except (*LOST, Unavailable):
            return  # told again by the next tick, or by the shipper from the journal

    async def _tell_releases(self) -> None:
        """Tell the database every durable release that it has not confirmed. Holds `_busy`."""
        connection = await self._connect()
        for record in list(self._pending.values()):
            key, amount = (record.budget, record.period), to_decimal(record.amount)
            async with asyncio.timeout(2.0), connection.transaction():
                await connection.execute(LOCK_PERIOD, key)
                moved = await connection.execute(MOVE, (UUID(bytes=record.id), self._epoch, *key, amount, "release"))
                if moved.rowcount == 1:
                    await connection.execute(GIVE_BACK, (amount, *key))
                    await connection.execute(SHRINK_SLICE, (amount, self._epoch, *key))
            self._pending.pop(record.id, None)

    # in the background ---------------------------------------------------------------------------------------------

    async def _run_recalls(self) -> None:
        while True:
            with self._noted():
                async with await AsyncConnection.connect(self._url, autocommit=True, connect_timeout=2) as listener:
                    await listener.execute(f"LISTEN {RECALL_CHANNEL}")
                    async for notice in listener.notifies():
                        self._recall(notice.payload)
            await asyncio.sleep(0.2)

    def _recall(self, payload: str) -> None:
        """Another worker is short. Of two that are, the one with the older epoch is served first."""
        parts = payload.rsplit(" ", 2)
        if len(parts) != 3 or parts[2] == str(self._epoch):
            return
        key = (parts[0], parts[1])
        demand = self._demands.get(key)
        if demand is not None and demand.waiters and str(self._epoch) < parts[2]:
            return
        self._recalled[key] = asyncio.get_running_loop().time() + _RECALL_S
        self._start_giving(key)

    async def _run_ticks(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            with self._noted():
                await self._tick(asyncio.get_running_loop().time())

    async def _tick(self, now: float) -> None:
        self._recalled = {key: until for key, until in self._recalled.items() if until > now}
        today = self._clock.now().date().isoformat()
        for key in self._slices.granted_keys():
            if has_ended(key[1], today) and self._slices.available(*key) > 0:
                await self._give_back(key)
        for key, use in self._uses.items():
            spent = self._slices.spent(*key)
            use.rate += ((spent - use.spent) / _TICK_S - use.rate) * 0.2
            use.spent = spent
        if self._pending or not self.connected or now > self._checked + _CHECK_S:
            self._checked = now
            async with self._busy:
                await (await self._connect()).execute("SELECT 1")  # a connection that died while idle says so only now
                await self._tell_releases()
        for key, use in list(self._uses.items()):
            if self._runs_low(key, use, now, today):
                async with self._busy:
                    await self._grant(key, use.budget, 1, 1, recall=False)

    def _runs_low(self, key: Key, use: _Use, now: float, today: str) -> bool:
        """Whether to fetch ahead: less than a quarter of a second's use is left and nobody else is short."""
        if now < use.dry_until or has_ended(key[1], today) or key in self._recalled:
            return False
        return use.rate > 0 and self._slices.available(*key) < use.rate / 4
