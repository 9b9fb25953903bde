"""Slices of limits against a real PostgreSQL: filled exactly by two workers, returned once, forgotten with their
window; concurrent calls come back only by release or fencing."""

from __future__ import annotations

import asyncio
import statistics
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.integration.test_lease_client import disconnect, patience, until

from groundplan.blueprint.model import Budget
from groundplan.core.ids import new_id
from groundplan.gateway.budgets import grant_store, idle_limits
from groundplan.gateway.budgets.account import REFILL_WAIT_S, Account
from groundplan.gateway.budgets.grant_connection import Need
from groundplan.gateway.budgets.lease_client import LeaseClient
from groundplan.gateway.budgets.leases import CONCURRENT, COST, REQUESTS, TOKENS, Quota, Slices
from groundplan.gateway.budgets.periods import key_at
from groundplan.gateway.journal import ledger_store
from groundplan.gateway.journal.journal import Journal
from groundplan.ledger.model import Charge
from groundplan.testing.database import Database


def quota(kind: str, most: int, period: str = "minute") -> Quota:
    return Quota(f"{kind}/test", kind, most, period, "test", "company")


@dataclass
class Wall:
    """A clock that the test moves."""

    at: datetime

    def now(self) -> datetime:
        return self.at

    def seconds(self) -> float:
        return self.at.timestamp()

    def monotonic(self) -> float:
        return self.at.timestamp()


@dataclass
class Worker:
    epoch: UUID
    counters: Slices
    leases: LeaseClient
    wall: Wall

    def span(self, asked: Quota) -> str:
        return key_at(asked.period, "", "UTC", self.wall.now())

    async def take(self, asked: Quota, amount: int, used: int, seconds: float = 0.0) -> bool:
        token = (new_id().bytes, -1)
        charges = [Charge(asked.name, self.span(asked), amount)]
        if await self.leases.acquire(token, charges, [asked], 1) is not None:
            return False
        await asyncio.sleep(seconds)
        self.counters.settle_charges(token, [used])
        return True


@asynccontextmanager
async def worker(database: Database, root: Path, wall: Wall) -> AsyncIterator[Worker]:
    epoch, counters = new_id(), Slices()
    journal = Journal.open(root / str(epoch), epoch, asyncio.get_running_loop(), 1 << 18)
    leases = LeaseClient(database.urls["gateway"], journal, Slices(), home=root, clock=wall, counters=counters)
    await leases.start()
    try:
        yield Worker(epoch, counters, leases, wall)
    finally:
        await leases.close()
        await journal.close()


@pytest.fixture
def wall() -> Wall:
    """It stands in the middle of this minute: what a test does is on one side of each border."""
    return Wall(datetime.now(UTC).replace(second=30, microsecond=0))


def row(database: Database, statement: str, *parameters: Any) -> tuple[Any, ...] | None:
    with psycopg.connect(database.urls["owner"], autocommit=True) as conn:
        return conn.execute(statement.encode(), parameters).fetchone()


def granted(database: Database, asked: Quota) -> int:
    found = row(database, "SELECT coalesce(sum(granted), 0)::int FROM limit_span WHERE name = %s", asked.name)
    assert found is not None
    return int(found[0])


async def test_a_limit_is_not_polled_after_its_grant_arrived(database: Database, tmp_path: Path, wall: Wall) -> None:
    """Of requests nothing is ever given back, so their watch would last, and each later call would pay for it."""
    asked = quota(REQUESTS, 100)
    async with worker(database, tmp_path, wall) as one:
        assert await one.take(asked, 1, 1)
        await until(lambda: not one.counters.watched)
        assert await one.take(asked, 1, 1) and not one.counters.watched


@pytest.mark.parametrize("seconds", [0.0, 0.02])
async def test_two_workers_fill_a_window_exactly(
    database: Database, tmp_path: Path, wall: Wall, seconds: float
) -> None:
    asked = quota(REQUESTS, 100)
    async with worker(database, tmp_path, wall) as one, worker(database, tmp_path, wall) as two:
        calls = [w.take(asked, 1, 1, seconds) for _ in range(100) for w in (one, two)]
        with patience(3.0):
            assert sum(await asyncio.gather(*calls)) == 100
        assert one.leases.remaining((asked.name, one.span(asked)), asked.limit) == 0
        took = list[float]()
        for _ in range(20):
            began = asyncio.get_running_loop().time()
            assert not await one.take(asked, 1, 1)
            took.append(asyncio.get_running_loop().time() - began)
        assert statistics.median(took) < REFILL_WAIT_S / 2, "nobody waits for what is known to be empty"


async def test_unused_tokens_serve_other_calls_on_both_workers(database: Database, tmp_path: Path, wall: Wall) -> None:
    asked = quota(TOKENS, 1000)
    async with worker(database, tmp_path, wall) as one, worker(database, tmp_path, wall) as two:
        with patience():
            first = asyncio.create_task(one.take(asked, 1000, 100, 0.1))
            await until(lambda: one.counters.open_reservations == 1)
            assert await two.take(asked, 900, 900)
        assert await first
        assert not await two.take(asked, 1, 1)
    assert granted(database, asked) == 1000


async def test_a_busy_worker_holds_a_small_part_of_a_days_rest(database: Database, tmp_path: Path, wall: Wall) -> None:
    """What it holds counts as used when it is killed, so a burst must not bring it most of the day."""
    asked = quota(REQUESTS, 1000, "day")
    async with worker(database, tmp_path, wall) as one:
        span, ahead = one.span(asked), list[float]()
        with patience(3.0):
            for _ in range(600):
                assert await one.take(asked, 1, 1, 0.002)
                held = one.counters.available(asked.name, span)
                ahead.append(held / max(1, asked.limit - granted(database, asked) + held))
    assert max(ahead) <= 1 / 8 + 0.01


async def use_often(one: Worker, declared: Quota | Budget, times: int, reserved: int) -> int:
    """Use 1 of it every few milliseconds, of `reserved`; returns how often that was possible."""
    done = 0
    for _ in range(times):
        token, period = (new_id().bytes, -1), key_at(declared.period, "", "UTC", one.wall.now())
        if await one.leases.acquire(token, [Charge(declared.name, period, reserved)], [declared], 1) is None:
            (one.counters if isinstance(declared, Quota) else one.leases._slices).settle_charges(token, [1])
            done += 1
        await asyncio.sleep(0.005)
    return done


@pytest.mark.parametrize(
    ("declared", "second", "most_ahead", "reserved"),
    [
        (quota(REQUESTS, 1_000_000), 1, 125_000, 1),
        (quota(REQUESTS, 2_000, "hour"), 3599 - 30, 250, 1),
        (quota(TOKENS, 1_000_000), 1, 125_000, 2_000),
        (Budget(name="assistant", covers="workload/assistant", limit=1_000_000, period="day"), 86_399 - 30, 125_000, 1),
    ],
)
async def test_a_frequently_used_limit_is_served_in_its_next_period_without_postgresql(
    database: Database,
    tmp_path: Path,
    wall: Wall,
    declared: Quota | Budget,
    second: int,
    most_ahead: int,
    reserved: int,
) -> None:
    """Limits by the minute are the usual ones, and another PostgreSQL takes half a minute to take over."""
    wall.at = wall.at.replace(hour=0, minute=0, second=0) + timedelta(days=1, seconds=second)
    table, span, of = (
        ("limit_span", "span", "name") if isinstance(declared, Quota) else ("budget_period", "period", "budget")
    )
    async with worker(database, tmp_path, wall) as one:
        with patience():
            assert await use_often(one, declared, 300, reserved) == 300
        following = key_at(declared.period, "", "UTC", wall.at + timedelta(seconds=61))
        book = one.counters if isinstance(declared, Quota) else one.leases._slices
        held = book.available(declared.name, following)
        assert 0 < held <= most_ahead + 1, "an eighth of the rest, and the one use that it is fetched for"
        with psycopg.connect(database.superuser) as away:
            away.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            now_held = book.available(declared.name, key_at(declared.period, "", "UTC", wall.at))
            assert await use_often(one, declared, 20, reserved) == 20 and now_held > 20
            wall.at += timedelta(seconds=61)
            began = asyncio.get_running_loop().time()
            assert await use_often(one, declared, 20, reserved) == 20
            left = book.available(declared.name, following)
            assert held - 21 <= left <= held - 20, "the one use that it was fetched for goes back where it lies idle"
            assert asyncio.get_running_loop().time() - began < 5
    count = f"SELECT count(*)::int FROM {table} WHERE {of} = %s AND {span} > %s"
    assert row(database, count, declared.name, following) == (0,), "nothing of later periods"


async def test_a_rarely_used_limit_is_not_prefetched(database: Database, tmp_path: Path, wall: Wall) -> None:
    """Of each of many users there would be twice as many windows."""
    asked = quota(REQUESTS, 1_000_000)
    async with worker(database, tmp_path, wall) as one:
        with patience():
            assert await one.take(asked, 1, 1)
        await asyncio.sleep(1.2)
        assert await one.take(asked, 1, 1)
        await asyncio.sleep(1.2)
        assert one.counters.granted_keys() == [(asked.name, one.span(asked))]


@pytest.mark.parametrize(("kind", "used"), [(TOKENS, 5), (TOKENS, 0), (CONCURRENT, 0)])
async def test_unused_reservations_do_not_stay_with_their_worker(
    database: Database, tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, kind: str, used: int
) -> None:
    """It would be lost with that one, for the rest of the day, and everybody look as if they had used it."""
    monkeypatch.setattr(idle_limits, "_IDLE_S", 0.1)
    asked = quota(kind, 1000, "now" if kind == CONCURRENT else "day")
    async with worker(database, tmp_path, wall) as one:
        with patience(3.0):
            assert all(await asyncio.gather(*(one.take(asked, 100, used, 0.1) for _ in range(8))))
        spent, span = 8 * used, one.span(asked)
        await until(lambda: granted(database, asked) <= spent + (1000 - spent) // 8)
        assert spent + 100 <= granted(database, asked), "one more call has to ask nobody"
        assert one.leases.remaining((asked.name, span), asked.limit) == 1000 - spent
        assert one.counters.available(asked.name, span) >= 100
        with patience(3.0):
            assert await one.take(asked, 900, 900)


@pytest.mark.parametrize(("of_each", "most"), [("limits", 8), ("a budget", 3)])
async def test_many_callers_with_many_limits_wait_for_few_commits(
    database: Database, tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, of_each: str, most: int
) -> None:
    """Each of many users has limits of requests and of tokens, by the minute and by the day, or each of many keys a
    budget that begins at midnight: where a commit takes long, asking for one after the other would keep callers waiting
    longer than they do."""
    commits = list[str]()

    async def counted(name: str, found: Any, *asked: Any) -> Any:
        commits.append(name)
        await asyncio.sleep(0.02)
        return await found(*asked)

    for name in ("grant_budgets", "grant_limits"):
        monkeypatch.setattr(grant_store, name, partial(counted, name, getattr(grant_store, name)))
    async with worker(database, tmp_path, wall) as one_worker:
        charges = dict[int, tuple[list[Charge], list[Quota] | list[Budget]]]()
        for user in range(20):
            if of_each == "a budget":
                budget = Budget(name=f"key/{user}", covers=f"key/{user}", limit=1000, period="day")
                charges[user] = ([Charge(budget.name, f"{wall.now():%Y-%m-%d}", 1)], [budget])
                continue
            kinds = [(REQUESTS, "minute"), (REQUESTS, "day"), (CONCURRENT, "now"), (TOKENS, "minute"), (TOKENS, "day")]
            quotas = [Quota(f"{kind}/each/{user}", kind, 100, period, "each", "user") for kind, period in kinds]
            charges[user] = ([Charge(q.name, key_at(q.period, "", "UTC", wall.now()), 1) for q in quotas], quotas)
        with patience():
            taken = await asyncio.gather(
                *(one_worker.leases.acquire((new_id().bytes, -1), *each, 1) for each in charges.values())
            )
    assert taken == [None] * 20 and len(commits) <= most, commits


async def test_missing_amounts_of_several_limits_are_requested_together(
    database: Database, tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, grant = list[int](), grant_store.grant_limits

    async def counted(connection: Any, epoch: UUID, asks: Any) -> Any:
        asked.append(len(asks))
        return await grant(connection, epoch, asks)

    monkeypatch.setattr(grant_store, "grant_limits", counted)
    quotas = [quota(REQUESTS, 9), quota(TOKENS, 9), quota(REQUESTS, 9, "day")]
    async with worker(database, tmp_path, wall) as one:
        charges = [Charge(each.name, one.span(each), 1) for each in quotas]
        assert await one.leases.acquire((new_id().bytes, -1), charges, quotas, 1) is None
    assert asked[0] == len(quotas)


async def test_an_unanswered_request_does_not_mean_that_a_limit_is_used_up(
    database: Database, tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers are told 503 and not 429, whoever of them asked for all."""

    async def lost(*_: object) -> Any:
        await asyncio.sleep(0.1)  # so that others are asked for together meanwhile
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(grant_store, "grant_limits", lost)
    quotas = [Quota(f"requests/each/{user}", REQUESTS, 9, "minute", "each", "user") for user in range(4)]
    async with worker(database, tmp_path, wall) as one:
        charges = [Charge(each.name, one.span(each), 1) for each in quotas]
        asked = zip(charges, quotas, strict=True)
        calls = (one.leases.acquire((new_id().bytes, -1), [charge], [each], 1) for charge, each in asked)
        assert await asyncio.gather(*calls) == charges
        assert not any(one.leases.was_refused_lately(charge.budget, charge.period) for charge in charges)


async def test_a_lowered_limit_applies_at_once_to_idle_slices_and_open_calls(
    database: Database, tmp_path: Path, wall: Wall
) -> None:
    many, few = quota(CONCURRENT, 100, "now"), quota(CONCURRENT, 2, "now")
    async with worker(database, tmp_path, wall) as one:
        with patience():
            open_calls = [asyncio.create_task(one.take(many, 1, 0, 0.5)) for _ in range(10)]
            await until(lambda: one.counters.open_reservations == 10)
        assert one.counters.available(many.name, "now") > 2, "some are held ahead"
        one.leases.apply_declarations([], {(few.family, "now"): 2}, 2)
        await until(lambda: one.counters.available(many.name, "now") == 0)
        assert not await one.take(few, 1, 0), "more than two are open"
        assert all(await asyncio.gather(*open_calls))
        await until(lambda: granted(database, few) <= 2)
        await until(lambda: not one.leases._background)
        with patience(3.0):
            took = await asyncio.gather(*[one.take(few, 1, 0, 4.0) for _ in range(4)])
        assert sum(took) == 2


@pytest.mark.parametrize("all_of_it", [True, False])
async def test_concurrent_calls_are_recounted_if_the_database_lost_some(
    database: Database, tmp_path: Path, wall: Wall, all_of_it: bool
) -> None:
    """It was restored, or another one took over that lacks what was committed last."""
    asked, key = quota(CONCURRENT, 4, "now"), (f"{CONCURRENT}/test", "now")
    async with worker(database, tmp_path, wall) as one, worker(database, tmp_path, wall) as two:
        with patience():
            assert await one.take(asked, 1, 0)
            first = granted(database, asked)
            for _ in range(5):
                assert await one.take(asked, 4, 0)
                await one.leases._grants.give_back(key)
            open_call = (new_id().bytes, -1)
            assert await one.leases.acquire(open_call, [Charge(*key, 2)], [asked], 1) is None
        assert one.counters.released(*key) > 4
        with psycopg.connect(database.superuser) as conn:
            if all_of_it:
                conn.execute("DELETE FROM limit_slice; DELETE FROM limit_span")
            else:
                conn.execute("UPDATE limit_slice SET granted = %s, released = 1", (first + 1,))
                conn.execute("UPDATE limit_span SET granted = %s", (first,))
        with psycopg.connect(database.superuser, autocommit=True) as conn:
            disconnect(conn)
        await until(lambda: not one.leases.connected)
        await until(lambda: one.leases.connected and two.leases.connected)
        with patience():
            assert await one.take(asked, 1, 0), "it goes on"
        await one.leases._grants.give_back(key)
        assert granted(database, asked) == 2
        assert not await two.take(asked, 3, 0), "two are open"
        one.counters.settle_charges(open_call, [0])
        async with asyncio.timeout(20):
            while not await two.take(asked, 4, 0):  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.02)


async def test_a_lowered_limit_takes_back_prefetched_amounts(database: Database, tmp_path: Path, wall: Wall) -> None:
    much, little = quota(TOKENS, 1_000_000, "day"), quota(TOKENS, 1000, "day")
    mine = replace(much, name=f"{much.name}/somebody")
    async with worker(database, tmp_path, wall) as one:
        with patience():
            assert await one.take(mine, 5000, 500)
        assert one.counters.available(mine.name, one.span(mine)) > 1000
        one.leases.apply_declarations([], {(little.family, "day"): 1000}, 2)
        await until(lambda: granted(database, mine) <= 1000)  # some of it may be held ahead anew
        asked = replace(little, name=mine.name)
        with patience():
            assert await one.take(asked, 500, 500)
        assert not await one.take(asked, 1, 1)


async def test_amounts_freed_above_a_lowered_limit_do_not_serve_waiting_calls(
    database: Database, tmp_path: Path, wall: Wall
) -> None:
    many, few = quota(CONCURRENT, 100, "now"), quota(CONCURRENT, 2, "now")
    async with worker(database, tmp_path, wall) as one:
        calls = [(new_id().bytes, -1) for _ in range(4)]
        with patience(20.0):
            for token in calls:
                charges = [Charge(many.name, "now", 1)]
                assert await one.leases.acquire(token, charges, [many], 1) is None
            one.leases.apply_declarations([], {(few.family, "now"): 2}, 2)
            next_one = asyncio.create_task(one.take(few, 1, 0))
            await until(lambda: bool(one.leases._accounts[few.name, "now"].waiters))
            for token in calls[:2]:
                one.counters.settle_charges(token, [0])
            await until(lambda: granted(database, few) == 2)
            await asyncio.sleep(0.1)
            assert not next_one.done(), "two are open"
            one.counters.settle_charges(calls[2], [0])
            assert await next_one
        one.counters.settle_charges(calls[3], [0])


async def test_grants_requested_before_a_limit_was_lowered_are_returned_on_arrival(
    database: Database, tmp_path: Path, wall: Wall
) -> None:
    much = quota(TOKENS, 1_000_000, "day")
    async with worker(database, tmp_path, wall) as one:
        with patience():
            assert await one.take(much, 5000, 500)
        with psycopg.connect(database.urls["owner"]) as slow:
            slow.execute("SELECT 1 FROM limit_span WHERE name = %s FOR UPDATE", (much.name,))
            more = asyncio.create_task(one.take(much, 90_000, 90_000))
            await until(lambda: bool(one.leases._accounts[much.name, one.span(much)].waiters))
            await until(one.leases._grants.lock.locked)
            one.leases.apply_declarations([], {(much.family, "day"): 1000}, 2)
        assert not await more
        await until(lambda: granted(database, much) <= 1000)
        assert one.counters.available(much.name, one.span(much)) <= 500
        one.leases.apply_declarations([], {(much.family, "day"): 100}, 3)
        one.leases._grants._book_grant((much.name, one.span(much)), 7000)
        assert one.counters.available(much.name, one.span(much)) <= 0, "a call may begin before anything else runs"


async def test_a_first_call_under_an_older_blueprint_obeys_the_newest_limit(
    database: Database, tmp_path: Path, wall: Wall
) -> None:
    much = quota(TOKENS, 1_000_000, "day")
    async with worker(database, tmp_path, wall) as one:
        one.leases.apply_declarations([], {(much.family, "day"): 1000}, 2)
        assert not await one.take(much, 5000, 500)
        with patience():
            assert await one.take(much, 900, 900)
        assert granted(database, much) <= 1000


async def test_a_limit_of_which_any_amount_is_owed_fails_no_other_one(
    database: Database, tmp_path: Path, wall: Wall
) -> None:
    """As after usage that no provider can mean: all limits that are short are asked for together."""
    asked = [(quota(REQUESTS, 100), 1), (quota(COST, 10**12), 2**63 + 9)]
    async with worker(database, tmp_path, wall) as one:
        needs = [Need((each.name, one.span(each)), Account(each, 1), least, least) for each, least in asked]
        async with one.leases._grants.lock:
            assert await one.leases._grants.request_limits(needs) == [1, 0]


async def test_only_used_limits_are_polled(database: Database, tmp_path: Path, wall: Wall) -> None:
    """Twenty times a second: of ten thousand users with a limit each, few ask at the same time."""
    each = [replace(quota(TOKENS, 1000, "day"), name=f"{TOKENS}/test/{n}") for n in range(30)]
    async with worker(database, tmp_path, wall) as one:
        with patience():
            for asked in each:
                assert await one.take(asked, 10, 5)
        await until(lambda: not one.leases._active)
        assert len(one.leases._accounts) == len(each)
        token = (new_id().bytes, -1)
        charges = [Charge(each[7].name, one.span(each[7]), 10)]
        assert one.counters.reserve(token, charges) is None, "more was fetched ahead while it was used"
        one.counters.settle_charges(token, [10])
        await until(lambda: list(one.leases._active) == [(each[7].name, one.span(each[7]))])


async def test_a_clean_stop_returns_the_rest_once(database: Database, tmp_path: Path, wall: Wall) -> None:
    asked = quota(REQUESTS, 1000)
    async with worker(database, tmp_path, wall) as one:
        with patience():
            assert await one.take(asked, 1, 1)
        assert granted(database, asked) > 1
    assert granted(database, asked) == 1
    for _ in range(2):  # told again, it changes nothing
        row(database, "SELECT return_limit(%s, %s, %s, 5)", one.epoch, asked.name, one.span(asked))
    assert granted(database, asked) == 1


async def test_an_ended_window_is_forgotten_and_the_next_one_starts_empty(
    database: Database, tmp_path: Path, wall: Wall
) -> None:
    asked = quota(REQUESTS, 3)
    async with worker(database, tmp_path, wall) as one:
        for minute in range(2):
            before, wall.at = one.span(asked), wall.at + timedelta(minutes=minute)
            with patience():
                assert all([await one.take(asked, 1, 1) for _ in range(3)])
            assert not await one.take(asked, 1, 1)
        await until(lambda: (asked.name, before) not in one.counters.granted_keys())
        one.leases._grants._book_grant((asked.name, before), 1)  # an answer that was on its way meanwhile
        row(database, "UPDATE limit_span SET ends = now() - interval '2 hours' WHERE span = %s RETURNING 1", before)
        wall.at += timedelta(minutes=1)
        with patience():
            assert await one.take(asked, 1, 1)
        await until(lambda: (asked.name, before) not in one.counters.granted_keys())
    assert row(database, "SELECT count(*) FROM limit_span WHERE span = %s", before) == (0,)


async def test_a_window_ending_during_a_reconnection_stays_forgotten(
    database: Database, tmp_path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known anew it would be all there again, and what was used of it given back as idle."""
    asked, held = quota(TOKENS, 100), grant_store.limit_totals
    async with worker(database, tmp_path, wall) as one:
        grants = one.leases._grants
        with patience():
            assert await one.take(asked, 10, 10)

        async def slow(*given: Any) -> Any:
            found = await held(*given)
            wall.at += timedelta(minutes=1)
            one.leases._ended_quotas = list(one.leases._accounts)
            await one.leases._forget_ended_quotas()
            assert not one.counters.granted_keys()
            return found

        monkeypatch.setattr(grant_store, "limit_totals", slow)
        async with grants.lock:
            assert grants._connection is not None
            await grants._connection.close()
            await grants.connect()
    assert granted(database, asked) >= 10


async def test_windows_of_callers_that_never_return_are_forgotten_too(
    database: Database, tmp_path: Path, wall: Wall
) -> None:
    asked = quota(REQUESTS, 3)
    async with worker(database, tmp_path, wall) as one:
        for who in range(4):
            with patience():
                assert await one.take(replace(asked, name=f"{asked.name}/{who}"), 1, 1)
        row(database, "UPDATE limit_span SET ends = now() - interval '2 hours' WHERE name LIKE '%%/_' RETURNING 1")
        with psycopg.connect(database.urls["owner"]) as busy:
            busy.execute("SELECT 1 FROM limit_span WHERE name LIKE '%/3' FOR UPDATE")
            with patience():
                assert await one.take(replace(asked, name=f"{asked.name}/4"), 1, 1), "and it waits for none of them"
    assert row(database, "SELECT array_agg(name ORDER BY name) FROM limit_span") == (
        [f"{asked.name}/3", f"{asked.name}/4"],
    )
    assert row(database, "SELECT count(*) FROM limit_slice") == (2,)


@pytest.mark.parametrize(("period", "kept", "gone"), [("hour", 3, 4), ("day", 47, 49), ("month", 1415, 1500)])
async def test_a_database_clock_that_was_fast_grants_nothing_twice(
    database: Database, tmp_path: Path, wall: Wall, period: str, kept: int, gone: int
) -> None:
    """By one that is a day ahead for a moment today's windows have ended, whoever asks for another one then."""
    asked, other = quota(REQUESTS, 3, period), quota(REQUESTS, 3)
    ended = "UPDATE limit_span SET ends = now() - interval '%s hours' WHERE name = '%s' RETURNING 1"
    async with worker(database, tmp_path, wall) as one, worker(database, tmp_path, wall) as two:
        with patience():
            assert all([await one.take(asked, 1, 1) for _ in range(3)])
        for hours, left in ((kept - 0.1, 3), (gone, 0)):
            row(database, ended % (hours, asked.name))
            with patience():
                assert await two.take(replace(other, name=f"{other.name}/{hours}"), 1, 1)
            assert granted(database, asked) == left
            assert not left or not await two.take(asked, 1, 1)


async def test_a_window_that_ended_long_ago_is_not_granted_of(database: Database, tmp_path: Path, wall: Wall) -> None:
    wall.at -= timedelta(hours=1)
    async with worker(database, tmp_path, wall) as one:
        assert not await one.take(quota(REQUESTS, 3), 1, 1)


async def test_slots_of_a_dead_worker_return_only_with_its_fencing(
    database: Database, tmp_path: Path, wall: Wall
) -> None:
    slots, requests = quota(CONCURRENT, 2, "now"), quota(REQUESTS, 8)
    async with worker(database, tmp_path, wall) as one, worker(database, tmp_path, wall) as two:
        with patience():
            for _ in range(2):
                assert await one.leases.acquire(
                    (new_id().bytes, -1), [Charge(slots.name, "now", 1)], [slots], 1) is None  # fmt: skip
            assert await one.take(requests, 1, 1)
        held = granted(database, requests)
        wall.at += timedelta(days=2)  # time gives nothing back
        assert not await two.take(slots, 1, 0)
        busy = "SELECT 1 FROM limit_span WHERE name = %s FOR UPDATE"
        with (
            psycopg.connect(database.urls["owner"]) as other,
            psycopg.connect(database.urls["shipper"], autocommit=True) as conn,
        ):
            other.execute(busy, (requests.name,))  # another worker is granted of it
            conn.execute("SET lock_timeout = '2s'")
            for _ in range(2):
                with conn.transaction():
                    ledger_store.fence(conn, one.epoch)
                    ledger_store.return_unspent(conn, one.epoch, write_off=False)
        assert granted(database, requests) == held  # what it held of a window counts as used
        assert granted(database, slots) == 0
        async with asyncio.timeout(20):
            while not await two.take(slots, 1, 0):  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.02)
        assert not await one.take(quota(REQUESTS, 5, "day"), 1, 1)  # it is fenced


def test_last_reported_slots_of_a_dead_worker_return_once(database: Database) -> None:
    """Its statement goes on where it is, as on a disk that stands still, and is over only when its books are closed."""
    dead = new_id()
    with psycopg.connect(database.urls["owner"], autocommit=True) as conn, psycopg.connect(database.superuser) as told:
        conn.execute("INSERT INTO gateway (epoch, host, home, pid) VALUES (%s, 'h', '/', 1)", (dead,))
        conn.execute("INSERT INTO limit_span (name, span, amount, granted, ends) VALUES ('l', 'now', 5, 5, 'infinity')")
        conn.execute("INSERT INTO limit_slice (epoch, name, span, granted) VALUES (%s, 'l', 'now', 3)", (dead,))
        told.execute("SELECT return_limit(%s, 'l', 'now', 2)", (dead,))
        closing = threading.Thread(target=conn.execute, args=("SELECT close_limits(%s)", (dead,)))
        closing.start()
        with psycopg.connect(database.superuser, autocommit=True) as looking:
            waits = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
            while looking.execute(waits, (conn.info.backend_pid,)).fetchone() != ("Lock",):
                assert closing.is_alive()
        told.commit()
        closing.join()
        assert conn.execute("SELECT granted FROM limit_span").fetchone() == (2,)
