"""What a settlement gives back is seen at once by whoever has to do with it, also while PostgreSQL is away."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID

import msgspec
import psycopg
import pytest

from groundplan.blueprint.model import Budget
from groundplan.core.errors import Unavailable
from groundplan.core.ids import new_id
from groundplan.gateway import ticks
from groundplan.gateway.budgets import grant_store, lease_client, recalls
from groundplan.gateway.budgets.account import Account, Declaration
from groundplan.gateway.budgets.grant_connection import Need
from groundplan.gateway.budgets.lease_client import LeaseClient
from groundplan.gateway.budgets.leases import Key, Quota, Slices, Token
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.stalls import patient
from groundplan.ledger.model import Charge, Release

BUDGET = Budget(name="all", covers="company", limit=100, period="total")
KEY = ("all", "total")


@dataclass
class Worker:
    """One that has all of a budget of 100, in two reservations of 50."""

    slices: Slices
    leases: LeaseClient
    held: list[Token]

    def acquire(self, amount: int, budget: Budget = BUDGET, blueprint: int = 1) -> asyncio.Task[Charge | None]:
        charges, token = [Charge(*KEY, amount)], (new_id().bytes, 0)
        self.held.append(token)
        return asyncio.create_task(self.leases.acquire(token, charges, [budget], blueprint))

    def free(self) -> None:
        """The first of the calls under way ends, and cost nothing."""
        self.slices.settle(self.held.pop(0), 0)


async def turns(number: int = 10) -> None:
    """So many of the loop, and far less time than until a worker looks again by itself."""
    for _ in range(number):
        await asyncio.sleep(0)


@asynccontextmanager
async def alone(folder: Path) -> AsyncIterator[Worker]:
    epoch, slices = new_id(), Slices()
    journal = Journal.open(folder / str(epoch), epoch, asyncio.get_running_loop(), 1 << 18)
    leases = LeaseClient("postgresql://127.0.0.1:1/none", journal, slices, home=folder)
    held: list[Token] = [(new_id().bytes, 0), (new_id().bytes, 0)]
    slices.add_grant(*KEY, 100)
    for token in held:
        slices.reserve(token, [Charge(*KEY, 50)])
    try:
        yield Worker(slices, leases, held)
    finally:
        await leases.close()
        await journal.close()


async def test_listening_is_retried_after_any_system_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the loop may watch no more connections for a moment."""
    asked = list[str]()

    async def failing(url: str) -> None:
        asked.append(url)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recalls, "connect", failing)
    async with alone(tmp_path) as one, asyncio.timeout(10):
        await one.leases.start()
        while len(asked) < 2:  # noqa: ASYNC110 -- it is tried again by the clock
            await asyncio.sleep(0.02)


async def test_a_waiting_call_continues_in_the_turn_of_a_release(tmp_path: Path) -> None:
    async with alone(tmp_path) as one:
        waiting = one.acquire(50)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        one.free()
        await turns()
        assert waiting.done() and await waiting is None


async def test_what_is_freed_elsewhere_while_postgresql_is_asked_is_asked_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_client, "_RETRY_S", 1000.0)  # no pause ends
    monkeypatch.setattr(lease_client, "REFILL_WAIT_S", 1000.0)
    async with alone(tmp_path) as one:
        asked = list[Key]()

        async def request_grant(key: Key, account: Account, *, recall: bool) -> bool:
            asked.append(key)
            await asyncio.sleep(0)
            if len(asked) == 1:
                one.leases._recalls._on_freed("all total")
                return False
            one.slices.add_grant(*KEY, 50)
            return True

        monkeypatch.setattr(one.leases, "_request_grant", request_grant)
        assert await asyncio.wait_for(one.acquire(50), 20) is None
        assert asked == [KEY, KEY]


class Noted(patient):
    """Whom the test calls before their time."""

    made: ClassVar[list[Noted]] = []

    async def __aenter__(self) -> None:
        await super().__aenter__()
        self.made.append(self)


@pytest.fixture
def alarms(monkeypatch: pytest.MonkeyPatch) -> list[Noted]:
    """Of callers, in the order in which they began to wait."""
    monkeypatch.setattr(lease_client, "patient", Noted)
    monkeypatch.setattr(Noted, "made", [])
    return Noted.made


async def test_a_grant_in_the_turn_of_the_timeout_is_kept(tmp_path: Path, alarms: list[Noted]) -> None:
    """Else it is idle here, where others are refused for the want of it."""
    async with alone(tmp_path) as one:
        waiting = one.acquire(50)
        await asyncio.sleep(0.05)
        alarms[0]._over()
        one.free()
        assert await waiting is None and one.slices.available(*KEY) == 0
        assert one.leases._accounts[KEY].promised == 0


async def test_a_timed_out_call_takes_nothing_from_waiting_ones(tmp_path: Path, alarms: list[Noted]) -> None:
    async with alone(tmp_path) as one:
        first, second = one.acquire(50), one.acquire(50)
        await asyncio.sleep(0.05)
        alarms[0]._over()
        asyncio.get_running_loop().call_soon(one.free)  # before the first one knows
        await turns()
        assert second.done() and await second is None
        assert await first == Charge(*KEY, 50)
        account = one.leases._accounts[KEY]
        assert account.promised == 0 and not account.waiters


@pytest.mark.parametrize("when", ["lowered", "ended"])
async def test_no_call_whose_turn_comes_first_has_what_is_given_back_of_a_lowered_budget(
    tmp_path: Path, when: str
) -> None:
    """Which is idle as the budget is lowered, or as a call ends later."""
    low, charges = msgspec.structs.replace(BUDGET, limit=60), [Charge(*KEY, 40)]
    async with alone(tmp_path) as one:
        one.leases.apply_declarations([BUDGET], {}, 1)
        if when == "lowered":
            one.free()
        one.leases.apply_declarations([low], {}, 2)
        if when == "ended":
            one.free()
        assert one.slices.reserve((new_id().bytes, 0), charges) == charges[0], "this turn"
        await turns()
        assert one.slices.available(*KEY) == 0 and one.slices.released(*KEY) == 50


async def test_nothing_is_prefetched_while_calls_wait(tmp_path: Path) -> None:
    """They are asked for, and would wait for that, too."""
    async with alone(tmp_path) as one:
        waiting = one.acquire(50)
        await asyncio.sleep(0.05)
        account, now = one.leases._accounts[KEY], asyncio.get_running_loop().time()
        account.use_rate = 100.0
        assert not one.leases._should_prefetch(KEY, account, now, "2026-11-25T14:33")
        one.free()
        assert await waiting is None
        assert one.leases._should_prefetch(KEY, account, now, "2026-11-25T14:33")


async def test_of_two_workers_short_of_budget_the_older_one_is_served_first() -> None:
    done, (older, newer) = list[str](), sorted((new_id(), new_id()), key=str)

    async def gives(_: Key) -> None:
        done.append("gives")

    async def tells(_: Key) -> None:
        done.append("tells")

    grants: Any = SimpleNamespace(give_back=gives, report_open=tells, log_failures=nullcontext)

    async def heard(by: UUID, of: UUID, *, waits: bool) -> tuple[list[str], bool]:
        """What one does that hears that another one is short; whether it goes on with that."""
        account, tasks = Account(BUDGET, 1), list[asyncio.Task[None]]()
        account.waiters += [(1, asyncio.get_running_loop().create_future())] if waits else []
        listening = recalls.Recalls(
            "", by, grants, {KEY: account}, watch=lambda _: None,
            start=lambda work: tasks.append(asyncio.create_task(work)),
        )  # fmt: skip
        done.clear()
        listening.answer_recall(f"{KEY[0]} {KEY[1]} {of}")
        await asyncio.gather(*tasks)
        return list(done), KEY in listening

    assert await heard(older, older, waits=False) == ([], False)
    assert await heard(older, newer, waits=False) == (["gives", "tells"], True)
    assert await heard(older, newer, waits=True) == (["tells"], False)
    assert await heard(newer, older, waits=True) == (["gives", "tells"], True)


@pytest.mark.parametrize("by", ["whoever gives it back", "a tick meanwhile"])
async def test_a_release_is_sent_only_after_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    on_disk, told = asyncio.get_running_loop().create_future(), list[Key]()

    async def connected() -> None:
        return None

    async def tell(_connection: object, _epoch: UUID, records: list[Release]) -> None:
        told.extend((each.budget, each.period) for each in records)

    async with alone(tmp_path) as one:
        grants = one.leases._grants
        monkeypatch.setattr(Journal, "durable", lambda *_, **__: None if on_disk.done() else on_disk)
        monkeypatch.setattr(grants, "connect", connected)
        monkeypatch.setattr(grant_store, "report_releases", tell)
        one.free()
        giving = asyncio.create_task(grants.give_back(KEY))
        await turns()
        assert not told and one.slices.available(*KEY) == 0 and grants.unconfirmed_budgets() == {KEY}
        if by == "a tick meanwhile":
            ticking = asyncio.create_task(grants.report_releases())
            await turns()
            assert not told
            on_disk.set_result(None)
            await ticking
            assert told == [KEY] and not grants.has_unconfirmed
        else:
            on_disk.set_result(None)
        await giving
        assert told == [KEY] and not grants.has_unconfirmed


async def test_a_release_during_a_reported_release_is_reported_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, told = ("requests/few", "2026-01-01"), list[int]()
    async with alone(tmp_path) as one:
        grants, counters = one.leases._grants, one.leases._counters

        async def connected() -> None:
            return None

        async def tell(_connection: object, _epoch: UUID, totals: dict[Key, int]) -> None:
            told.append(totals[key])
            grants._release_key(key, 0)

        monkeypatch.setattr(grants, "connect", connected)
        monkeypatch.setattr(grant_store, "report_returns", tell)
        counters.add_grant(*key, 2)
        grants._release_key(key, 1)
        for _ in range(3):
            await grants.report_releases()
        assert told == [1, 2]


async def test_an_empty_budget_is_not_empty_after_a_release(tmp_path: Path) -> None:
    async with alone(tmp_path) as one:
        assert await one.acquire(50) == Charge(*KEY, 50)
        account = one.leases._accounts[KEY]
        assert account.smallest_refused == 50
        one.free()
        assert account.smallest_refused == 0
        one.free()
        assert not one.slices.watched, "nothing is looked for any more"


async def test_a_recalled_slice_is_returned_as_it_is_freed(tmp_path: Path) -> None:
    async with alone(tmp_path) as one:
        one.leases._recalls.answer_recall(f"all total {new_id()}")
        await turns()
        assert one.slices.released(*KEY) == 0
        one.free()
        await turns()
        assert one.slices.released(*KEY) == 50


@pytest.mark.parametrize("by", ["a blueprint", "a call under it"])
async def test_slices_of_a_lowered_budget_are_returned_as_they_are_freed(tmp_path: Path, by: str) -> None:
    async with alone(tmp_path) as one:
        waiting = one.acquire(50)
        await turns()
        one.free()
        assert await waiting is None, "it is known from then on"
        one.free()
        assert not one.slices.watched
        smaller = msgspec.structs.replace(BUDGET, limit=60)
        if by == "a blueprint":
            one.leases.apply_declarations([smaller], {}, 2)
        else:
            assert await one.acquire(61, smaller, 2) == Charge(*KEY, 61)
        await turns()
        assert one.slices.released(*KEY) < 100
        one.free()
        await turns()
        assert one.slices.released(*KEY) == 100


SOFT = msgspec.structs.replace(BUDGET, hard=False)


@pytest.mark.parametrize(
    ("old", "new", "cut"),
    [
        ([BUDGET], [msgspec.structs.replace(BUDGET, limit=99)], True),
        ([SOFT], [BUDGET], True),  # of a soft one there may be any amount
        ([BUDGET], [BUDGET], False),
        ([BUDGET], [msgspec.structs.replace(BUDGET, limit=101)], False),
        ([BUDGET], [msgspec.structs.replace(SOFT, limit=60)], False),
        ([SOFT], [msgspec.structs.replace(SOFT, limit=60)], False),
        ([], [msgspec.structs.replace(BUDGET, limit=60)], False),
        ([BUDGET], [], False),
    ],
    ids=["smaller", "hard", "same", "larger", "soft", "soft still", "new", "gone"],
)
async def test_an_unused_slice_of_a_lowered_budget_is_returned(
    tmp_path: Path, old: list[Budget], new: list[Budget], cut: bool
) -> None:
    async with alone(tmp_path) as one:
        one.leases.apply_declarations(old, {}, 1)
        one.leases.apply_declarations(new, {}, 2)
        one.free()
        await turns()
        assert one.slices.released(*KEY) == (50 if cut else 0)


@pytest.mark.parametrize(
    ("declared", "total", "cut"), [([BUDGET], 101, True), ([BUDGET], 100, False), ([SOFT], 101, False), ([], 1, False)]
)
async def test_a_slice_granted_otherwise_is_returned_if_the_total_exceeds_the_limit(
    tmp_path: Path, declared: list[Budget], total: int, cut: bool
) -> None:
    async def learn(_: object) -> dict[Key, int]:
        return {KEY: total}

    async with alone(tmp_path) as one:
        one.leases.apply_declarations(declared, {}, 1)
        one.leases._grants.book_unrequested = learn  # type: ignore[method-assign, assignment]
        await one.leases.book_unrequested([KEY])
        one.free()
        await turns()
        assert one.slices.released(*KEY) == (50 if cut else 0)


async def test_an_old_refusal_by_postgresql_does_not_mean_that_the_budget_is_exhausted(tmp_path: Path) -> None:
    async with alone(tmp_path) as one:
        waiting = one.acquire(50)
        await turns()
        one.leases._accounts[KEY].refused_at = asyncio.get_running_loop().time()
        assert one.leases.was_refused_lately(*KEY)
        assert await waiting == Charge(*KEY, 50)
        assert not one.leases.was_refused_lately(*KEY)


async def test_a_release_that_the_journal_cannot_record_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may be full for a while: what cannot be written down as given back is for this worker's own calls."""
    async with alone(tmp_path) as worker:
        worker.free()
        grants = worker.leases._grants

        def full(record: Release) -> int:
            raise Unavailable("there is no room in the journal", code="journal_unavailable", hint="Free some.")

        with monkeypatch.context() as patch:
            patch.setattr(grants._journal, "release", full)
            await grants.give_back(KEY)
        assert (worker.slices.available(*KEY), worker.slices.released(*KEY)) == (50, 0) and not grants.has_unconfirmed
        await grants.give_back(KEY)
        assert (worker.slices.available(*KEY), worker.slices.released(*KEY)) == (0, 50) and grants.has_unconfirmed


async def test_a_recall_of_a_budget_not_held_here_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of limits come and go by the minute, of other workers' users too."""
    monkeypatch.setattr(recalls, "_RECALL_S", 0.01)

    async def over(one: Worker) -> None:
        await asyncio.sleep(0.02)
        with suppress(psycopg.OperationalError):  # there is none
            await one.leases._tick(asyncio.get_running_loop().time())

    async with alone(tmp_path) as one:
        counters = one.leases._counters
        for minute in range(60):
            one.leases._recalls.answer_recall(f"requests/each/ana 2026-11-25T14:{minute:02} {new_id()}")
        one.leases._recalls.answer_recall(f"all total {new_id()}")
        await over(one)
        assert not one.leases._recalls._active_until and not counters.watched and not one.slices.watched
        assert await one.acquire(50) == Charge(*KEY, 50)
        one.leases._recalls.answer_recall(f"all total {new_id()}")
        await over(one)
        assert one.slices.watched == {KEY}, "it is known to be empty until something is freed"


async def test_use_is_averaged_over_elapsed_time(tmp_path: Path) -> None:
    """At midnight what ended is given back for thousands of keys, which takes seconds, before it is looked again."""
    async with alone(tmp_path) as one:
        account = one.leases._account(BUDGET, "total", 1)
        one.leases._measure_use(100.0)
        one.slices.settle(one.held[0], 40)
        one.leases._measure_use(120.0)
        assert account.spent == 40 and account.use_rate <= 2, "two a second, and not eight hundred"


def quota(period: str) -> Quota:
    return Quota(f"requests/each/{period}", "requests", 10**6, period, "each", "user")


@pytest.mark.parametrize(
    ("declared", "rest", "low", "most"),
    [
        (BUDGET, 10**6, 600, 900),
        (msgspec.structs.replace(BUDGET, hard=False), -10, 600, 900),
        (quota("day"), 10**6, 600, 900),
        (BUDGET, 1600, 100, 900),  # PostgreSQL gives an eighth of the rest at most
        (quota("day"), 1600, 100, 200),
        (BUDGET, 0, 10, 900),
        (quota("minute"), 10**6, 600, 900),
        (quota("minute"), 1600, 100, 200),
        (quota("hour"), 10**6, 600, 900),
    ],
)
def test_enough_for_a_minute_is_held_while_budget_is_plentiful(
    declared: Declaration, rest: int, low: int, most: int
) -> None:
    """So that while another PostgreSQL takes over nobody is refused who goes on as before."""
    account, is_quota = Account(declared, 1, unallocated=rest), isinstance(declared, Quota)
    for tick in range(5000):
        account.record_use(tick // 2, 0.05, tick * 0.05)  # ten a second
    assert account.refill_threshold(quota=is_quota) == pytest.approx(low, rel=0.15)
    assert account.prefetch_amount(30, quota=is_quota, available=0) == pytest.approx(most, rel=0.05)
    account.record_use(2500, 0.05, 250 + 240)
    assert account.refill_threshold(quota=is_quota) < 12, "nobody used it since"


def test_what_is_used_often_is_held_although_calls_use_little_of_what_they_reserve() -> None:
    """Such as tokens: most calls generate far fewer than they may."""
    account = Account(quota("minute"), 1, unallocated=10**6, usual_amount=2000)
    for tick in range(600):  # one call a second, which uses 20 of 2,000
        account.record_use(20 * (tick // 20), 0.05, tick * 0.05)
        if tick > 100:
            assert account.is_in_use(tick * 0.05) == (tick % 20 <= 11) or tick % 20 == 12
    assert account.refill_threshold(quota=True) == pytest.approx(20 * 60 * 0.63 + 2000, rel=0.05)
    assert not account.is_in_use(600 * 0.05 + 1)


async def test_who_waits_gets_the_connection_between_what_is_fetched_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each budget is a commit of its own, and a caller waits for a quarter of a second."""
    async with alone(tmp_path) as one:
        grants, order = one.leases._grants, list[str]()

        async def request(needs: Sequence[Need]) -> list[int]:
            order.append(needs[0].key[0])
            await asyncio.sleep(0)
            return [1] * len(needs)

        async def wait_for_connection() -> None:
            async with grants.lock:
                order.append("caller")

        monkeypatch.setattr(grants, "request_budgets", request)
        monkeypatch.setattr(grants, "request_limits", request)
        limit = quota("minute")
        keys = [("company", "total"), (limit.name, "2026-11-25T12:01"), ("team", "total"), ("key/1", "total")]
        needs = [Need(key, Account(limit if key[0] == limit.name else BUDGET, 1), 1, 1) for key in keys]
        fetching = asyncio.create_task(one.leases._fetch_ahead(needs))
        await asyncio.sleep(0)
        await wait_for_connection()
        await fetching
        assert order == [limit.name, "caller", "key/1", "company", "team"]


async def test_remaining_amounts_of_limits_are_looked_up_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call asks it of its caller's, and there may be tens of thousands of callers a minute."""
    monkeypatch.setattr(lease_client, "_REFRESHED_AT_ONCE", 2)
    async with alone(tmp_path) as one:
        leases, now = one.leases, asyncio.get_running_loop().time()
        quotas = [Quota(f"requests/each/{n}", "requests", 9, "day", "each", "user") for n in range(3)]
        keys = [(each.name, "2026-11-25") for each in quotas]
        for each, (_, period) in zip(quotas, keys, strict=True):
            leases._account(each, period, 1)
            assert leases.remaining((each.name, period), each.limit) == 9
        assert [leases._recently_queried(now) for _ in range(3)] == [keys[:2], [keys[2], keys[0]], keys[1:]]
        assert [leases._recently_queried(now + 61) for _ in range(3)] == [[], [], []] and not leases._queried


async def test_ended_periods_are_forgotten_without_blocking_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of fifty thousand users who called within a minute there are a hundred thousand windows of it."""
    monkeypatch.setattr(ticks, "TURN", 2)
    async with alone(tmp_path) as one:
        leases, others = one.leases, list[int]()
        for n in range(7):
            quota = Quota(f"requests/each/{n}", "requests", 9, "minute", "each", "user")
            leases._counters.add_grant(quota.name, "2026-11-25T12:01", 1)
            leases._account(quota, "2026-11-25T12:01", 1)
        leases._ended_quotas = [*leases._accounts]

        async def call() -> None:
            while leases._ended_quotas:
                others.append(len(leases._accounts))
                await asyncio.sleep(0)

        await asyncio.gather(leases._forget_ended_quotas(), call())
        assert others[:4] == [5, 3, 1, 0] and not leases._accounts


async def test_a_budget_used_by_one_call_is_soon_left_alone(tmp_path: Path) -> None:
    """Of thousands of keys that each make a call now and then: twenty times a second all of these are looked at."""
    async with alone(tmp_path) as one:
        account, ticks = one.leases._account(BUDGET, "total", 1), 0
        account.usual_amount = 50
        one.slices.settle(one.held[0], 40)
        one.leases._measure_use(100.0)
        while one.leases._active and ticks < 100:
            ticks += 1
            one.leases._measure_use(100.0 + ticks * 0.05)
        assert ticks < 12 and account.use_rate == 0
