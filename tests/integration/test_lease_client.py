"""Slices against a real PostgreSQL: two workers fill a budget exactly, lost answers are found, ended periods return."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from tests.integration.gateway_stack import blueprint

from groundplan.blueprint.model import Budget
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway import database as gateway_database
from groundplan.gateway import ticks
from groundplan.gateway.budgets import grant_connection, grant_store, lease_client
from groundplan.gateway.budgets.account import Account
from groundplan.gateway.budgets.grant_connection import Need
from groundplan.gateway.budgets.lease_client import LeaseClient
from groundplan.gateway.budgets.leases import REQUESTS, Quota, Slices
from groundplan.gateway.budgets.periods import has_ended
from groundplan.gateway.journal import ledger_store
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.journal.records import segment_path
from groundplan.gateway.policy import remaining
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.live import LiveView
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.ledger.model import Charge, Release
from groundplan.testing.database import Database
from groundplan.testing.journal import read_segment

COST = 10**10
MONTH = "2026-11"
TO_COME = "2036-11"
"""Of a limit nothing is granted once its window is over."""


class FixedClock:
    """Always the same moment, until it is moved."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 25, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def advance_minute(self) -> bool:
        """By a minute."""
        self.moment += timedelta(minutes=1)
        return True

    def seconds(self) -> float:
        return self.now().timestamp()

    def monotonic(self) -> float:
        return 0.0


def budget_of(limit: int) -> Budget:
    return Budget(name="assistant", covers="workload/assistant", limit=limit, period="month")


@dataclass
class Worker:
    epoch: UUID
    slices: Slices
    journal: Journal
    leases: LeaseClient
    clock: FixedClock

    async def make_call(
        self, budget: Budget, bound: int, cost: int, seconds: float = 0.0, ends: asyncio.Event | None = None
    ) -> bool:
        """Whether it was made; it takes so long, or until it `ends`."""
        token = (new_id().bytes, 0)
        if await self.leases.acquire(token, [Charge(budget.name, MONTH, bound)], [budget]) is not None:
            return False
        await asyncio.sleep(seconds)
        if ends is not None:
            await ends.wait()
        self.slices.settle(token, cost)
        return True

    async def fill(self, budget: Budget, period: str = MONTH) -> bool:
        """Whether it could be granted what a call reserves; the call is not made."""
        token = (new_id().bytes, 0)
        if await self.leases.acquire(token, [Charge(budget.name, period, COST)], [budget]) is not None:
            return False
        self.slices.settle(token, 0)
        return True


@asynccontextmanager
async def worker(database: Database, root: Path, url: str = "") -> AsyncIterator[Worker]:
    epoch = new_id()
    journal = Journal.open(root / str(epoch), epoch, asyncio.get_running_loop(), 1 << 18)
    slices = Slices()
    clock = FixedClock()
    leases = LeaseClient(url or database.urls["gateway"], journal, slices, home=root, clock=clock)
    await leases.start()
    try:
        yield Worker(epoch, slices, journal, leases, clock)
    finally:
        await leases.close()
        await journal.close()


def granted(database: Database, budget: str, period: str = MONTH) -> int:
    with psycopg.connect(database.urls["owner"]) as conn:
        row = conn.execute(
            "SELECT granted_usd FROM budget_period WHERE budget = %s AND period = %s", (budget, period)
        ).fetchone()
        live = conn.execute(
            "SELECT coalesce(sum(granted_usd - released_usd), 0) FROM budget_slice WHERE budget = %s AND period = %s",
            (budget, period),
        ).fetchone()
    assert row is not None and live is not None and row[0] == live[0]
    return int(Decimal(row[0]) * 10**12)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.02)


@contextmanager
def patience(seconds: float = 5.0) -> Iterator[None]:
    """Callers wait longer than they do for what is to be granted: a busy PostgreSQL is none that has nothing left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease_client, "REFILL_WAIT_S", seconds)
        yield


@pytest.mark.parametrize("seconds", [0.0, 0.02])
async def test_200_concurrent_equal_calls_fill_a_budget_for_100_exactly_on_two_workers(
    database: Database, tmp_path: Path, seconds: float
) -> None:
    budget = budget_of(100 * COST)
    async with worker(database, tmp_path) as one, worker(database, tmp_path) as two:
        calls = [w.make_call(budget, COST, COST, seconds) for _ in range(100) for w in (one, two)]
        with patience(3.0):
            assert sum(await asyncio.gather(*calls)) == 100
        assert one.slices.spent("assistant", MONTH) + two.slices.spent("assistant", MONTH) == 100 * COST
        assert granted(database, "assistant") == 100 * COST


async def test_a_budget_is_exhausted_only_if_postgresql_said_so(database: Database, tmp_path: Path) -> None:
    budget = budget_of(COST)
    async with worker(database, tmp_path) as one, worker(database, tmp_path) as two:
        with patience():
            assert await one.make_call(budget, COST, COST)
        with psycopg.connect(database.superuser) as away:  # as a server that is paused: it answers nobody
            away.execute("LOCK TABLE budget_period IN ACCESS EXCLUSIVE MODE")
            assert not await two.make_call(budget, COST, COST)
            assert two.leases.connected and not two.leases.was_refused_lately("assistant", MONTH)
        async with asyncio.timeout(20):
            while not two.leases.was_refused_lately("assistant", MONTH):
                assert not await two.make_call(budget, COST, COST)


async def test_grants_for_the_next_moments_are_fetched_ahead(database: Database, tmp_path: Path) -> None:
    """So a database that is slow for less refuses nobody."""
    budget, loop = budget_of(100_000 * COST), asyncio.get_running_loop()
    least = 0.0
    async with worker(database, tmp_path) as one:
        for _ in range(3):  # others may slow this machine down
            left = list[int]()
            end = loop.time() + 2.5
            while loop.time() < end:
                assert await one.make_call(budget, COST, COST, 0.01)
                if loop.time() > end - 1.5:
                    left.append(one.slices.available("assistant", MONTH) // COST)
            least = max(least, min(left) / (len(left) / 1.5))
            if least > 0.5:
                break
    assert least > 0.5, f"calls of {least:.2f} s"


async def test_sequential_calls_on_both_workers_fill_the_budget_exactly(database: Database, tmp_path: Path) -> None:
    budget = budget_of(20 * COST + COST // 2)
    async with worker(database, tmp_path) as one, worker(database, tmp_path) as two:
        with patience():
            done = [await (one if number % 3 else two).make_call(budget, COST, COST) for number in range(20)]
        done += [await (one if number % 3 else two).make_call(budget, COST, COST) for number in range(20, 22)]
    assert done == [True] * 20 + [False] * 2


async def test_amounts_freed_by_settlements_serve_waiting_calls_on_both_workers(
    database: Database, tmp_path: Path
) -> None:
    budget = budget_of(10 * COST)
    async with worker(database, tmp_path) as one, worker(database, tmp_path) as two:
        with patience():
            first = [asyncio.create_task(one.make_call(budget, 2 * COST, COST // 2, 0.1)) for _ in range(5)]
            await until(lambda: one.slices.open_reservations == 5)
            assert await two.make_call(budget, 5 * COST, 5 * COST) is True
        assert all(await asyncio.gather(*first))
    assert granted(database, "assistant") == 5 * COST + 5 * (COST // 2)


async def test_mixed_costs_fill_nearly_all(database: Database, tmp_path: Path) -> None:
    budget = budget_of(100 * COST)
    async with worker(database, tmp_path) as one, worker(database, tmp_path) as two:
        costs = [COST * (1 + number % 5) for number in range(120)]
        calls = [(one, two)[n % 2].make_call(budget, cost, cost, 0.001) for n, cost in enumerate(costs)]
        with patience(3.0):
            await asyncio.gather(*calls)
        spent = one.slices.spent("assistant", MONTH) + two.slices.spent("assistant", MONTH)
        assert 95 * COST <= spent <= 100 * COST


async def test_a_clean_shutdown_returns_everything(database: Database, tmp_path: Path) -> None:
    budget = budget_of(1000 * COST)
    async with worker(database, tmp_path) as one:
        with patience():
            assert await one.make_call(budget, 3 * COST, COST)
        assert granted(database, "assistant") > COST
    assert granted(database, "assistant") == COST


async def test_an_amount_promised_to_a_caller_is_not_released(database: Database, tmp_path: Path) -> None:
    """It was told to go on, and runs in the next turn of the loop."""
    async with worker(database, tmp_path) as one:
        one.slices.add_grant("assistant", MONTH, 3 * COST)
        account = one.leases._account(budget_of(1000 * COST), MONTH, 1)
        account.promised = 2 * COST
        await one.leases._grants.give_back(("assistant", MONTH))
        assert one.slices.available("assistant", MONTH) == 2 * COST
        account.promised = 0


async def test_the_rest_of_an_ended_period_is_returned(database: Database, tmp_path: Path) -> None:
    budget = budget_of(1000 * COST)
    async with worker(database, tmp_path) as one:
        with patience():
            assert await one.fill(budget, "2026-10")
        await until(lambda: granted(database, "assistant", "2026-10") == 0)
        assert one.slices.available("assistant", "2026-10") == 0


async def test_long_ended_budgets_leave_no_rows_and_are_not_granted_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each key there may be one a day. What was granted is known as long as a batch may bring more of it."""
    monkeypatch.setattr(lease_client, "_TICK_S", 0.01)  # a hundred, until nothing is used any more
    day, keys = "2026-11-25", [f"key/{n}" for n in range(20)]
    async with worker(database, tmp_path) as one:
        leases, slices = one.leases, one.slices
        tokens = [(new_id().bytes, 0) for _ in keys]
        with patience():
            for name, token in zip(keys, tokens, strict=True):
                budget = Budget(name=name, covers=name, limit=10 * COST, period="day")
                assert await leases.acquire(token, [Charge(name, day, 3 * COST)], [budget]) is None
        for token in tokens[1:]:
            slices.settle(token, COST)
        one.clock.moment += timedelta(hours=12, minutes=30)
        await until(lambda: granted(database, keys[1], day) == COST)
        assert {("key/1", day), ("key/0", day)} <= leases._accounts.keys(), "calls of it may go on"
        one.clock.moment += timedelta(hours=1)
        await until(lambda: one.clock.advance_minute() and len(leases._accounts) == 1)
        assert [*leases._accounts] == slices.granted_keys() == [("key/0", day)], "one does"
        assert len(leases._grants.granted.amounts) == 20
        await leases.book_unrequested([(name, day) for name in keys])
        assert slices.granted_keys() == [("key/0", day)], "all of that was known"
        grown = "UPDATE budget_slice SET granted_usd = granted_usd + %s WHERE budget = 'key/2'"
        with psycopg.connect(database.superuser) as conn:
            conn.execute(grown, (Decimal(COST).scaleb(-12),))
            conn.execute(grown.replace("slice", "period"), (Decimal(COST).scaleb(-12),))
        await leases.book_unrequested([(name, day) for name in keys])
        assert slices.available("key/2", day) == COST, "as much as a line of a batch brings, and no more"
        one.clock.moment += timedelta(days=9)
        await until(lambda: one.clock.advance_minute() and [*leases._grants.granted.amounts] == [("key/0", day)])
        before = leases._grants._connection
        with psycopg.connect(database.superuser, autocommit=True) as conn:
            disconnect(conn)
        await until(lambda: leases.connected and leases._grants._connection is not before)
        assert slices.granted_keys() == [("key/0", day)], "that it is looked up brings nothing else of its day back"
        slices.settle(tokens[0], COST)
        await until(lambda: all(granted(database, name, day) == COST for name in keys))
        await until(lambda: one.clock.advance_minute() and not leases._grants.granted.amounts)
        assert not leases._accounts and not slices.granted_keys()
        await leases.book_unrequested([(name, day) for name in keys])
        assert not slices.granted_keys(), "nothing comes back that was spent and given back"
    assert all(granted(database, name, day) == COST for name in keys)


async def test_remaining_amounts_are_looked_up_for_current_periods_and_those_in_use(
    database: Database, tmp_path: Path
) -> None:
    """Each second in each worker: not of years of periods, nor with a walk over all open calls for each."""
    budgets = [Budget(name=f"b{n}", covers="company", limit=10 * COST, period="month") for n in range(3)]
    declared = msgspec.structs.replace(blueprint(1, [], []), budgets=budgets)
    periods = [f"{year}-{month:02}" for year in (2024, 2025, 2026) for month in range(1, 13)][:-1]
    with psycopg.connect(database.urls["owner"]) as conn, conn.cursor() as cursor:
        rows = [(budget.name, period, "1", "0.03") for budget in budgets for period in periods]
        cursor.executemany("INSERT INTO budget_period VALUES (%s, %s, %s, %s)", rows)
    slices, token = Slices(), (new_id().bytes, 0)
    live = LiveView(database.urls["gateway"], Home(tmp_path), new_id(), FixedClock(), slices)
    live.catalog, slices_of = index(declared), [(budget.name, MONTH) for budget in budgets]
    async with await psycopg.AsyncConnection.connect(database.urls["gateway"], autocommit=True) as connection:
        slices.add_grant("b0", "2026-10", COST)
        slices.reserve(token, [Charge("b0", "2026-10", COST // 2)])
        await live.remaining_budgets.refresh(connection, budgets, {}, 1.0)
        assert sorted(live.remaining_budgets.taken_elsewhere) == sorted(slices_of)
        live.remaining_budgets.taken_elsewhere["b0", "2026-10"] = 0  # it was present when the call was admitted
        await live.remaining_budgets.refresh(connection, budgets, {}, 1.0)
        assert sorted(live.remaining_budgets.taken_elsewhere) == sorted([*slices_of, ("b0", "2026-10")])
        assert live.remaining(budgets[0], "2026-10") == 10 * COST - (3 * COST - COST)
        slices.settle(token, COST // 4)
        await live.remaining_budgets.refresh(connection, budgets, {}, 1.0)
        assert sorted(live.remaining_budgets.taken_elsewhere) == sorted(slices_of)
        assert live.remaining(budgets[1], MONTH) == 7 * COST


async def test_of_many_key_budgets_some_and_all_used_ones_are_looked_up_each_second(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remaining, "BUDGETS_PER_REFRESH", 4)
    monkeypatch.setattr(ticks, "TURN", 3)
    names = [f"key/{n}" for n in range(10)]
    each = [Budget(name=name, covers=name, limit=10 * COST, period="month") for name in names]
    keys = {b.name.encode(): KeyEntry(b.name, "assistant", "", False, False, None, budget=b) for b in each}
    with psycopg.connect(database.urls["owner"]) as conn, conn.cursor() as cursor:
        rows = [(name, span, "1", "0.03") for name in names for span in (MONTH, "2026-10")]
        cursor.executemany("INSERT INTO budget_period VALUES (%s, %s, %s, %s)", rows)
    slices, clock = Slices(), FixedClock()
    found = remaining.RemainingBudgets(slices, clock)
    seen: list[set[str]] = []
    async with await psycopg.AsyncConnection.connect(database.urls["gateway"], autocommit=True) as connection:
        for turn in range(4):
            if turn == 1:
                slices.add_grant(names[9], MONTH, COST)
            await found.refresh(connection, [], keys, 1.0)
            seen.append({name for name, _ in found.taken_elsewhere})
        assert seen == [{*names[:4]}, {*names[:8], names[9]}, {*names}, {*names}]
        assert set(found.taken_elsewhere) == {(name, MONTH) for name in names}
        assert found.taken_elsewhere[names[9], MONTH] == 2 * COST and found.taken_elsewhere[names[0], MONTH] == 3 * COST
        for name in names:
            slices.add_grant(name, MONTH, 0)
        await found.refresh(connection, [], keys, 1.0)
        assert [slices.remaining_budget([(budget, MONTH)])[0] for budget in each] == [7 * COST] * 9 + [8 * COST]
        clock.moment += timedelta(days=31)
        for _ in range(6):
            await found.refresh(connection, [], keys, 1.0)
        assert not found.taken_elsewhere, "nothing of a month that is over"


def test_ended_keys_and_keys_of_one_rotation_line_add_no_budgets() -> None:
    """A key that is rotated every hour has thousands in its line: others would wait until these are looked up."""
    budget = budget_of(10 * COST)
    living = {b"%d" % n: KeyEntry(f"{n}", "assistant", "", False, False, 9.0 + n, budget=budget) for n in range(3)}
    other = Budget(name="key/o", covers="key/o", limit=COST, period="day")
    revoked = KeyEntry("r", "assistant", "", False, True, None, budget=other)
    expired = KeyEntry("e", "assistant", "", False, False, 8.0, budget=other)
    assert remaining._active_key_budgets({**living, b"r": revoked, b"e": expired}, 8.0) == [budget]


async def test_a_grant_whose_answer_was_lost_is_found_after_reconnecting(database: Database, tmp_path: Path) -> None:
    budget = budget_of(10 * COST)
    async with worker(database, tmp_path) as one:
        with patience():
            assert await one.fill(budget)
        with psycopg.connect(database.superuser, autocommit=True) as conn:
            conn.execute("UPDATE budget_period SET granted_usd = limit_usd")
            conn.execute("UPDATE budget_slice SET granted_usd = %s", (Decimal(10 * COST).scaleb(-12),))
            disconnect(conn)
        await until(lambda: one.slices.available("assistant", MONTH) == 10 * COST)


def disconnect(conn: psycopg.Connection[Any]) -> None:
    """Everybody else."""
    conn.execute(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    )


@pytest.mark.parametrize("all_of_it", [True, False])
async def test_use_of_grants_that_the_database_lost_is_booked_and_not_granted_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, all_of_it: bool
) -> None:
    """It was restored to before this worker began, or to its first call; or another one took over that lacks that, and
    has no peace yet."""
    owe, broken = grant_store.book_debts, list[Any]()

    async def broken_off(*asked: Any) -> Any:
        if not broken:
            broken.append(asked)
            raise psycopg.OperationalError
        return await owe(*asked)

    monkeypatch.setattr(grant_store, "book_debts", broken_off)
    budget, token, key = budget_of(100 * COST), (new_id().bytes, 0), ("assistant", MONTH)
    async with worker(database, tmp_path) as one:
        with patience():
            assert await one.make_call(budget, COST, COST)
            first = granted(database, "assistant")
            assert await one.make_call(budget, 60 * COST, 20 * COST)
            assert await one.leases.acquire(token, [Charge(*key, 9 * COST)], [budget]) is None
        await one.leases._grants.give_back(key)
        given_back = one.slices.released(*key)
        assert given_back >= 30 * COST
        with psycopg.connect(database.superuser) as conn:
            conn.execute("DELETE FROM budget_movement")
            if all_of_it:
                conn.execute("DELETE FROM budget_slice; DELETE FROM budget_period; DELETE FROM gateway")
            else:
                usd = Decimal(first).scaleb(-12)
                conn.execute("UPDATE budget_slice SET granted_usd = %s, released_usd = 0", (usd,))
                conn.execute("UPDATE budget_period SET granted_usd = %s", (usd,))
        with psycopg.connect(database.superuser, autocommit=True) as conn:
            disconnect(conn)
        await until(lambda: not one.leases.connected)
        await until(lambda: one.leases.connected)

        def booked() -> int:
            return granted(database, "assistant") - one.slices.available(*key)

        await until(lambda: booked() == 30 * COST + given_back)
        path = segment_path(one.journal.folder, 1)
        releases = [each.record for each in read_segment(path)[0] if isinstance(each.record, Release)]
        with psycopg.connect(database.urls["shipper"]) as conn:
            ledger_store.apply_releases(conn, one.epoch, releases)
        await until(lambda: booked() == 30 * COST)
        with patience():
            assert await one.make_call(budget, 70 * COST, 70 * COST), "it goes on"
        assert not await one.make_call(budget, COST, COST), "and no further than its budget"
        one.slices.settle(token, 9 * COST)
    assert granted(database, "assistant") == 100 * COST


async def test_a_read_only_server_is_left_for_the_writable_one(database: Database, tmp_path: Path) -> None:
    """After a failover a connection may stay with the one that was the first before."""
    budget = budget_of(1000 * COST)
    async with worker(database, tmp_path) as one:
        connection = one.leases._grants._connection
        assert connection is not None
        await connection.execute("SET default_transaction_read_only = on")
        with patience():
            assert await one.make_call(budget, COST, COST)


@asynccontextmanager
async def suspendable_server(port: int, statement: bytes = b"") -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """A port of the server at `port`, and what suspends it, as a `statement` does: open connections stay open and
    nothing comes over them."""
    running, tasks = asyncio.Event(), set[asyncio.Task[None]]()
    running.set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if statement and statement in data:
                suspend()
            await running.wait()
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", port)
        tasks.update(asyncio.create_task(pump(*ends)) for ends in ((reader, inner[1]), (inner[0], writer)))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)

    def suspend() -> None:
        running.clear()
        listening.close()

    try:
        yield listening.sockets[0].getsockname()[1], suspend
    finally:
        running.set()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        listening.close()


@pytest.mark.parametrize("statement", [b"INSERT INTO gateway", b"WITH RECURSIVE every", b"FROM limit_slice"])
async def test_a_worker_leaves_a_server_that_is_suspended_while_it_connects(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: bytes
) -> None:
    monkeypatch.setattr(grant_connection, "_RECONCILE_STATEMENT_S", 0.5)
    parts = conninfo_to_dict(database.urls["gateway"])
    async with suspendable_server(int(str(parts["port"])), statement) as (port, _):
        twice = {name: f"{parts[name]},{parts[name]}" for name in ("host", "hostaddr") if parts.get(name)}
        url = make_conninfo(database.urls["gateway"], port=f"{port},{parts['port']}", **twice)
        async with asyncio.timeout(15), worker(database, tmp_path, url) as one:
            with patience(10):
                assert await one.make_call(budget_of(10 * COST), COST, COST)


async def test_a_statement_that_a_suspended_server_never_answers_ends_with_its_connection(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_database, "MAX_STATEMENT_SECONDS", 0.5)
    parts = conninfo_to_dict(database.urls["gateway"])
    async with suspendable_server(int(str(parts["port"]))) as (port, suspend):
        url = make_conninfo(database.urls["gateway"], port=str(port))
        async with asyncio.timeout(20), await gateway_database.connect(url) as connection:
            async for _ in connection.notifies():
                raise AssertionError("nobody notifies")
            assert not connection.closed, "to wait for a notification is no statement"
            suspend()
            with pytest.raises(psycopg.OperationalError):
                await connection.execute("SELECT 1")
            assert connection.closed


async def test_a_worker_answers_recalls_after_its_server_was_suspended_and_replaced(
    database: Database, tmp_path: Path
) -> None:
    budget, parts = budget_of(10 * COST), conninfo_to_dict(database.urls["gateway"])
    async with suspendable_server(int(str(parts["port"]))) as (port, suspend), worker(database, tmp_path) as other:
        twice = {name: f"{parts[name]},{parts[name]}" for name in ("host", "hostaddr") if parts.get(name)}
        url = make_conninfo(database.urls["gateway"], port=f"{port},{parts['port']}", **twice)
        async with worker(database, tmp_path, url) as one:
            with patience():
                token = (new_id().bytes, 0)
                assert await one.leases.acquire(token, [Charge(budget.name, MONTH, 9 * COST)], [budget]) is None
            one.slices.settle(token, 0)
            before = one.leases._grants._connection
            suspend()
            await until(lambda: one.leases.connected and one.leases._grants._connection is not before)
            with patience():
                assert await other.make_call(budget, 2 * COST, COST)


async def test_a_fenced_worker_is_granted_nothing(database: Database, tmp_path: Path) -> None:
    budget = budget_of(10 * COST)
    async with worker(database, tmp_path) as one:
        with psycopg.connect(database.urls["owner"]) as conn:
            conn.execute("UPDATE gateway SET state = 'fenced' WHERE epoch = %s", (one.epoch,))
        assert not await one.fill(budget)
        assert one.slices.available("assistant", MONTH) == 0


async def test_without_a_database_a_request_is_refused_in_time(database: Database, tmp_path: Path) -> None:
    budget = budget_of(10 * COST)
    epoch = new_id()
    journal = Journal.open(tmp_path / str(epoch), epoch, asyncio.get_running_loop(), 1 << 18)
    leases = LeaseClient("postgresql://127.0.0.1:1/none", journal, Slices(), home=tmp_path)
    await leases.start()
    loop, took = asyncio.get_running_loop(), list[float]()
    while len(took) < 3 and min(took, default=1.0) >= 0.4:  # the best of three: the machine may be busy
        began = loop.time()
        charges = [Charge("assistant", MONTH, COST)]
        assert await leases.acquire((new_id().bytes, 0), charges, [budget]) == charges[0]
        took.append(loop.time() - began)
    assert min(took) < 0.4, took
    assert not leases.connected
    await leases.close()
    await journal.close()


@pytest.mark.parametrize("before", [True, False])
async def test_grants_received_in_a_batch_are_returned_if_the_budget_is_lowered(
    database: Database, tmp_path: Path, before: bool
) -> None:
    budget, low = budget_of(10 * COST), budget_of(2 * COST)
    async with worker(database, tmp_path) as one:
        one.leases.apply_declarations([budget], {}, 1)
        if before:
            one.leases.apply_declarations([low], {}, 2)
        with psycopg.connect(database.urls["owner"]) as conn:  # as a batch that hands over what it holds
            span = ("assistant", MONTH, Decimal(10 * COST).scaleb(-12))
            conn.execute(
                "INSERT INTO budget_period (budget, period, limit_usd, granted_usd) VALUES (%s, %s, 1, %s)", span
            )
            conn.execute(
                "INSERT INTO budget_slice (epoch, budget, period, granted_usd) VALUES (%s, %s, %s, %s)",
                (one.epoch, *span),
            )
        await one.leases.book_unrequested([(budget.name, MONTH)])
        lines = [(new_id().bytes, 0) for _ in range(3)]
        for line in lines:
            assert one.slices.reserve(line, [Charge("assistant", MONTH, COST)]) is None
        if not before:
            one.leases.apply_declarations([low], {}, 2)
        await until(lambda: granted(database, "assistant") == 3 * COST)
        for line in lines:
            one.slices.settle(line, 0)
        await until(lambda: granted(database, "assistant") == 0)
        with patience():
            assert await one.make_call(low, COST, COST)


async def test_a_refused_call_knows_what_open_calls_hold(database: Database, tmp_path: Path) -> None:
    budget, ends = budget_of(3 * COST), asyncio.Event()
    async with worker(database, tmp_path) as one, worker(database, tmp_path) as two:
        with patience():
            calls = [
                asyncio.create_task(each.make_call(budget, COST, COST // 2, ends=ends)) for each in (one, one, two)
            ]
            await until(lambda: one.slices.open_reservations + two.slices.open_reservations == 3)
        for each in (one, two):
            async with asyncio.timeout(20):
                while each.leases.unspent(budget.name, MONTH) < 3 * COST:
                    assert not await each.make_call(budget, COST, COST)
        ends.set()
        assert all(await asyncio.gather(*calls))
        with patience():
            assert await two.make_call(budget, COST, COST)
        for each in (one, two):
            assert not await each.make_call(budget, COST, COST)
            async with asyncio.timeout(20):
                while each.leases.unspent(budget.name, MONTH) >= COST:  # what it heard of others is a moment old
                    await asyncio.sleep(0.1)
                    assert not await each.make_call(budget, COST, COST)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    need=st.integers(1, 100),
    more=st.integers(0, 300),
    rest=st.integers(-5, 500),
    headroom=st.integers(0, 300),
    contested=st.booleans(),
)
def test_a_grant_covers_the_need_or_is_zero(
    database: Database, need: int, more: int, rest: int, headroom: int, contested: bool
) -> None:
    with psycopg.connect(database.urls["gateway"]) as conn:
        row = conn.execute(
            "SELECT grant_size(%s, %s, %s, %s, %s, 0)", (need, need + more, rest, headroom, contested)
        ).fetchone()
    assert row is not None
    size = int(row[0])
    assert size == 0 if rest < need else need <= size <= rest
    assert size <= need + more + max(rest, 0) // 8
    if contested:
        assert size <= need + more


async def test_the_rest_of_a_settled_call_serves_the_next_one_on_the_other_worker(
    database: Database, tmp_path: Path
) -> None:
    budget = budget_of(2 * COST)
    async with worker(database, tmp_path) as one, worker(database, tmp_path) as two:
        for _ in range(5):
            ends = asyncio.Event()
            with patience():
                held = asyncio.create_task(two.make_call(budget, 2 * COST, 0, ends=ends))
                await until(lambda: two.slices.open_reservations == 1)
            async with asyncio.timeout(20):
                while not one.leases.was_refused_lately("assistant", MONTH):
                    assert not await one.make_call(budget, COST, COST)
            ends.set()
            assert await held
            with patience():
                # right after the other one's end: it is not refused for what was true before
                assert await one.make_call(budget, COST, 0)
                assert await two.make_call(budget, COST, 0)


async def test_callers_of_an_empty_budget_are_refused_at_once_until_there_is_room(
    database: Database, tmp_path: Path
) -> None:
    loop, budget = asyncio.get_running_loop(), budget_of(2 * COST)
    async with worker(database, tmp_path) as one, worker(database, tmp_path) as two:
        ends, seen = asyncio.Event(), list[tuple[int, bool]]()
        with patience():
            held = asyncio.create_task(two.make_call(budget, 2 * COST, COST, ends=ends))
            await until(lambda: two.slices.open_reservations == 1)
        while len(seen) < 3 and (1, True) not in seen:  # the best of three: the machine may be busy
            assert not await one.make_call(budget, COST, COST)  # waits for the whole time
            began = loop.time()
            calls = [asyncio.create_task(one.make_call(budget, COST, COST)) for _ in range(50)]
            _, waiting = await asyncio.wait(calls, timeout=0.05)
            assert not any(await asyncio.gather(*calls))
            seen.append((len(waiting), loop.time() - began < 0.5))
        assert (1, True) in seen, "one of them asks again, and only for so long as a call that comes first"
        ends.set()
        assert await held  # gives half of it back, which is heard of
        with patience():
            assert await one.make_call(budget, COST, COST)
        assert not await one.make_call(budget, COST, COST)
    assert granted(database, "assistant") == 2 * COST


async def test_a_raised_limit_is_served_at_once_and_an_older_blueprint_does_not_lower_it(
    database: Database, tmp_path: Path
) -> None:
    low, high = budget_of(COST), budget_of(2 * COST)
    token = (new_id().bytes, 0)
    async with worker(database, tmp_path) as one, worker(database, tmp_path) as two:
        charges = [Charge("assistant", MONTH, COST)]
        with patience():
            assert await one.leases.acquire(token, charges, [low], 1) is None
        assert await one.leases.acquire((new_id().bytes, 0), charges, [low], 1) == charges[0]
        with patience():
            assert await one.leases.acquire((new_id().bytes, 0), charges, [high], 2) is None
        assert await two.leases.acquire((new_id().bytes, 0), charges, [low], 1) == charges[0]
        with psycopg.connect(database.urls["owner"]) as conn:
            row = conn.execute("SELECT limit_usd, blueprint FROM budget_period").fetchone()
        assert row == (Decimal(2 * COST).scaleb(-12), 2)


async def test_the_rest_of_an_open_call_is_not_spent_above_a_lowered_budget(database: Database, tmp_path: Path) -> None:
    high, low = budget_of(100 * COST), budget_of(2 * COST)
    async with worker(database, tmp_path) as one:
        ends = asyncio.Event()
        with patience():
            held = asyncio.create_task(one.make_call(high, 50 * COST, COST, ends=ends))
            await until(lambda: one.slices.open_reservations == 1)
        one.leases.apply_declarations([low], {}, 2)
        ends.set()
        assert await held
        charges = [Charge("assistant", MONTH, COST)]
        assert await one.leases.acquire((new_id().bytes, 0), charges, [low], 2) in (None, charges[0])
        assert one.slices.available("assistant", MONTH) <= COST, "the other one was spent before"
        await until(lambda: granted(database, "assistant") <= 2 * COST)


async def test_a_budget_that_becomes_hard_is_enforced_at_once(database: Database, tmp_path: Path) -> None:
    hard = budget_of(3 * COST)
    soft = msgspec.structs.replace(hard, hard=False)
    async with worker(database, tmp_path) as one:
        assert all([await one.make_call(soft, COST, COST) for _ in range(5)])
        await until(lambda: one.slices.available("assistant", MONTH) > 0)
        one.leases.apply_declarations([hard], {}, 1)
        await until(lambda: one.slices.available("assistant", MONTH) == 0)
        assert not await one.make_call(hard, COST, COST)


async def test_a_soft_budget_refuses_nothing_and_counts_everything(database: Database, tmp_path: Path) -> None:
    soft = msgspec.structs.replace(budget_of(3 * COST), hard=False)
    async with worker(database, tmp_path) as one:
        assert all([await one.make_call(soft, COST, COST) for _ in range(10)])
        await until(lambda: one.slices.available("assistant", MONTH) >= 0)
        assert one.slices.spent("assistant", MONTH) == 10 * COST
    assert granted(database, "assistant") == 10 * COST


@pytest.mark.parametrize(
    ("period", "ended"),
    [
        ("2026-11-24", True),
        ("2026-11-25", False),
        ("2026-11-26", False),
        ("2026-10", True),
        ("2026-11", False),
        ("2025", True),
        ("2026", False),
        ("total", False),
        ("now", False),
        ("2026-11-24T23:59", True),
        ("2026-11-16..2026-11-23", True),
        ("2026-11-18..2026-11-25", True),
        ("2026-11-25..2026-12-02", False),
    ],
)
def test_has_ended_recognises_past_periods_of_every_kind(period: str, ended: bool) -> None:
    assert has_ended(period, "2026-11-25") is ended


async def test_a_grant_whose_answer_came_too_late_is_found_soon(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a PostgreSQL that stood still: it makes the grant as it goes on, and nobody waits for it any more."""
    budget, grant = budget_of(10 * COST), grant_store.grant_budgets

    async def late(*asked: Any) -> list[grant_store.Grant]:
        granted = await grant(*asked)
        await asyncio.sleep(5)
        return granted

    async with worker(database, tmp_path) as one:
        with monkeypatch.context() as patch:
            patch.setattr(grant_store, "grant_budgets", late)
            patch.setattr(grant_connection, "_STATEMENT_S", 0.5)
            assert not await one.fill(budget)
            await until(lambda: not one.leases._accounts["assistant", MONTH].task)
        held = granted(database, "assistant")
        assert held > 0
        await until(lambda: one.slices.available("assistant", MONTH) == granted(database, "assistant"))


async def test_received_grants_are_known_although_their_confirmation_was_lost(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two budgets that are asked for together one is short, and PostgreSQL stands still after their grant."""
    each = [Budget(name=f"key/{n}", covers=f"key/{n}", limit=COST, period="month") for n in range(2)]
    asked = [
        Need((b.name, MONTH), Account(b, 1), least, least) for b, least in zip(each, (COST, COST + 1), strict=True)
    ]

    async def silent(*_: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(grant_store, "open_amounts_elsewhere", silent)
    async with worker(database, tmp_path) as one:
        async with one.leases._grants.lock:
            with pytest.raises(TimeoutError):
                await one.leases._grants.request_budgets(asked)
        assert one.slices.available("key/0", MONTH) == granted(database, "key/0") == COST


async def test_releases_of_a_limit_are_sent_while_a_worker_stops(database: Database, tmp_path: Path) -> None:
    """Else it would count as used until its window is over."""
    quota = Quota("requests/test", REQUESTS, 100, "month", "test", "company")
    async with worker(database, tmp_path) as one:
        token, leases = (new_id().bytes, -1), one.leases
        with patience():
            assert await leases.acquire(token, [Charge(quota.name, TO_COME, 1)], [quota], 1) is None
        async with leases._grants.lock:
            leases._start_giving_back((quota.name, TO_COME))
            await asyncio.sleep(0.05)  # it is taken out of the slice, and waits for the connection
            for task in leases._background:
                task.cancel()
            await asyncio.sleep(0)
    with psycopg.connect(database.urls["owner"]) as conn:
        row = conn.execute("SELECT granted FROM limit_span WHERE name = %s", (quota.name,)).fetchone()
    assert row is not None and row[0] == 1


async def test_the_shipper_locks_no_budget_for_releases_that_their_holder_reported(
    database: Database, tmp_path: Path
) -> None:
    """It runs after everybody else, and workers that wait for the budget would wait for it."""
    budget, key = budget_of(1000 * COST), ("assistant", MONTH)
    async with worker(database, tmp_path) as one:
        with patience():
            assert await one.make_call(budget, COST, COST)
        held = one.slices.available(*key)
        told = Release(new_id().bytes, *key, held // 2)
        untold = Release(new_id().bytes, *key, held // 4)
        for record in (told, untold):
            one.slices.release(*key, keep=one.slices.available(*key) - record.amount)
        async with one.leases._grants.lock:
            await grant_store.report_releases(await one.leases._grants.connect(), one.epoch, [told])
        before = granted(database, "assistant")
        with (
            psycopg.connect(database.urls["shipper"], autocommit=True) as shipper,
            psycopg.connect(database.superuser) as busy,
        ):
            shipper.execute("SET lock_timeout = 100")
            busy.execute("SELECT 1 FROM budget_period FOR UPDATE")
            with shipper.transaction():
                ledger_store.apply_releases(shipper, one.epoch, [told])
                waits = shipper.execute("SHOW idle_in_transaction_session_timeout").fetchone()
                assert waits == ("1s",), "stopped just here it would keep workers from their budgets"
            busy.rollback()
            for _ in range(2):
                with shipper.transaction():
                    ledger_store.apply_releases(shipper, one.epoch, [told, untold])
        assert granted(database, "assistant") == before - untold.amount


def test_slices_of_a_dead_worker_are_returned_in_few_statements(database: Database) -> None:
    """Each of thousands of keys may have a budget; until the last one is returned, workers wait for the first."""
    epoch, keys = new_id(), [("company", MONTH), *((f"key/{n}", "2026-11-25") for n in range(50))]

    class Counted(psycopg.Connection[tuple[Any, ...]]):
        statements = 0

        def execute(self, *asked: Any, **more: Any) -> psycopg.Cursor[tuple[Any, ...]]:
            self.statements += 1
            return super().execute(*asked, **more)

    with psycopg.connect(database.urls["owner"]) as conn, conn.cursor() as cursor:
        cursor.execute("INSERT INTO gateway (epoch, host, home, pid) VALUES (%s, '', '', 1)", (epoch,))
        cursor.executemany("INSERT INTO budget_period VALUES (%s, %s, 1, 0.5)", keys)
        cursor.executemany(
            "INSERT INTO budget_slice (epoch, budget, period, granted_usd, released_usd) VALUES (%s, %s, %s, 0.5, 0.1)",
            [(epoch, *key) for key in keys],
        )
    with Counted.connect(database.urls["shipper"], autocommit=True) as shipper:
        for back in (len(keys) * 4 * 10**11, 0):
            with shipper.transaction():
                ledger_store.fence(shipper, epoch)
                assert ledger_store.return_unspent(shipper, epoch, write_off=False) == back
        rows = shipper.execute("SELECT granted_usd FROM budget_period UNION SELECT released_usd FROM budget_slice")
        assert sorted(rows.fetchall()) == [(Decimal("0.1"),), (Decimal("0.5"),)]
        moved = shipper.execute("SELECT count(*), sum(amount_usd) FROM budget_movement WHERE type = 'recovered'")
        assert moved.fetchone() == (len(keys), Decimal("20.4"))
    assert shipper.statements < 30


async def test_of_many_periods_of_many_keys_only_changeable_ones_are_read(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of a batch bring what it holds of few budgets; whoever connects again learns of those of the last days."""
    read, understood = list[int](), grant_store._amounts_by_key

    def granted_of(rows: Sequence[tuple[Any, ...]]) -> dict[tuple[str, str], int]:
        read.append(len(rows))
        return understood(rows)

    days = [f"{FixedClock().moment - timedelta(days=n):%Y-%m-%d}" for n in range(30)]
    async with worker(database, tmp_path) as one:
        with psycopg.connect(database.urls["owner"]) as conn, conn.cursor() as cursor:
            held = [(f"key/{n:03}", day) for n in range(20) for day in days]
            cursor.executemany("INSERT INTO budget_period VALUES (%s, %s, 1, 0.5)", held)
            cursor.executemany(
                "INSERT INTO budget_slice (epoch, budget, period, granted_usd) VALUES (%s, %s, %s, 0.5)",
                [(one.epoch, *each) for each in held],
            )
        monkeypatch.setattr(grant_store, "_amounts_by_key", granted_of)
        await one.leases.book_unrequested([("key/003", days[0])])
        assert one.slices.granted_keys() == [("key/003", days[0])] and sum(read) == 2
        read.clear()
        with psycopg.connect(database.superuser, autocommit=True) as conn:
            disconnect(conn)
        await until(lambda: not one.leases.connected)
        await until(lambda: one.leases.connected)
        assert len(one.slices.granted_keys()) == sum(read) == 20 * 10


async def test_simultaneously_ended_periods_are_released_in_few_messages(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each key may have a budget a day. One that was told before holds none of the others up."""
    day, keys, messages = "2026-11-25", [f"key/{n:03}" for n in range(200)], list[int]()
    tell = grant_store.report_releases

    async def told(connection: gateway_database.Connection, epoch: UUID, records: Sequence[Release]) -> None:
        messages.append(len(records))
        if len(messages) == 1:
            await tell(connection, epoch, records[7:8])
        await tell(connection, epoch, records)

    async with worker(database, tmp_path) as one:
        with psycopg.connect(database.urls["owner"]) as conn, conn.cursor() as cursor:
            cursor.executemany("INSERT INTO budget_period VALUES (%s, %s, 1, 0.5)", [(name, day) for name in keys])
            cursor.executemany(
                "INSERT INTO budget_slice (epoch, budget, period, granted_usd) VALUES (%s, %s, %s, 0.5)",
                [(one.epoch, name, day) for name in keys],
            )
        await one.leases.book_unrequested([(name, day) for name in keys])
        monkeypatch.setattr(grant_store, "report_releases", told)
        one.clock.moment += timedelta(days=1)
        await until(lambda: not any(one.slices.available(name, day) for name in keys))
        await until(lambda: not one.leases._grants.has_unconfirmed)
        together = [number for number in messages if number > 1]  # the first ones once more, one by one
        assert sum(together) == len(keys) and len(together) <= 8
    assert {granted(database, name, day) for name in keys} == {0}
