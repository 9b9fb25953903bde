"""What runs beside the calls to look after slices: it goes on after an error that nobody expected, and expects of the
next period what the current one uses."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from tests.unit.test_leases_watched import BUDGET, KEY, alone

from groundplan.core.ids import new_id
from groundplan.gateway import failure_log
from groundplan.gateway.budgets import grant_store, lease_client, recalls
from groundplan.gateway.budgets.account import Account
from groundplan.gateway.budgets.grant_connection import BATCH_SIZE
from groundplan.gateway.budgets.leases import REQUESTS, Key, Quota
from groundplan.gateway.budgets.next_periods import accounts_to_renew
from groundplan.gateway.failure_log import ExceptionLog
from groundplan.ledger.model import Charge, Release


class Unexpected(Exception):
    """No error of a database."""


async def test_slices_are_looked_after_once_an_unexpected_error_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else nothing is fetched ahead, given back or forgotten any more for as long as the worker runs."""
    ticks, went_on = list[float](), asyncio.Event()

    async def tick(now: float) -> None:
        ticks.append(now)
        if len(ticks) < 3:
            raise Unexpected
        went_on.set()

    monkeypatch.setattr(lease_client, "_TICK_S", 0.005)
    async with alone(tmp_path) as one:
        monkeypatch.setattr(one.leases, "_tick", tick)
        await one.leases.start()
        async with asyncio.timeout(10):
            await went_on.wait()
    told = [each for each in caplog.records if each.name == lease_client.__name__]
    assert len(told) == 1 and told[0].exc_info, "once, with its traceback"


async def test_recalls_are_answered_once_an_unexpected_error_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, again = list[str](), asyncio.Event()

    async def failing(url: str) -> None:
        asked.append(url)
        if len(asked) > 1:
            again.set()
        raise Unexpected

    monkeypatch.setattr(recalls, "connect", failing)
    monkeypatch.setattr(recalls, "_PAUSE_S", 0.005)
    async with alone(tmp_path) as one, asyncio.timeout(10):
        await one.leases.start()
        await again.wait()


async def test_a_call_after_an_unexpected_error_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(_: Key) -> None:
        raise Unexpected

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # it is told of the error as of any that a task ends with
    async with alone(tmp_path) as one:
        with monkeypatch.context() as patched:
            patched.setattr(one.leases._batches, "send_batch_with", failing)
            assert await one.acquire(50) == Charge(*KEY, 50)
        account = one.leases._accounts[KEY]
        assert account.task is None and not one.leases._is_waited_for(KEY), "it may be forgotten"
        waiting = one.acquire(50)
        await asyncio.sleep(0)
        one.free()
        assert await waiting is None


def test_one_unexpected_error_a_minute_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    times = [0.0, 0.05, 59.0, 60.0, 61.0]
    monkeypatch.setattr(failure_log, "monotonic", iter(times).__next__)
    exceptions = ExceptionLog(logging.getLogger("any"))
    for _ in times:
        exceptions.record("it goes on")
    assert len(caplog.records) == 2


async def test_a_database_that_is_away_is_waited_for_once_for_all_that_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a worker is stopped, or a day ends, that holds something of thousands of keys."""
    tries, keys = list[int](), [(f"key/{number}", "2026-11-25") for number in range(3 * BATCH_SIZE)]

    async def away() -> None:
        tries.append(len(grants.unconfirmed_budgets()))
        raise TimeoutError

    async with alone(tmp_path) as one:
        grants = one.leases._grants
        monkeypatch.setattr(grants, "connect", away)
        for key in keys:
            one.slices.add_grant(*key, 1)
        await grants.give_back(*keys)
        assert tries == [BATCH_SIZE] and grants.unconfirmed_budgets() == {*keys}, "the shipper finds the rest"
        await one.leases._grants.give_back(*keys)
        assert len(tries) == 1, "there is nothing more"


async def test_a_call_that_waits_gets_the_connection_while_thousands_of_releases_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an outage over midnight: it waits a quarter of a second at most, and each commit takes its time."""
    done, keys = list[object](), [(f"key/{number}", "2026-11-25") for number in range(3 * BATCH_SIZE)]

    async def connected() -> None:
        """Nothing is asked of it."""

    async def tell(_connection: object, _epoch: UUID, records: list[Release]) -> None:
        await asyncio.sleep(0)
        done.append(len(records))

    async def call() -> None:
        async with grants.lock:
            done.append("a call")

    async with alone(tmp_path) as one:
        grants = one.leases._grants
        monkeypatch.setattr(grants, "connect", connected)
        monkeypatch.setattr(grant_store, "report_releases", tell)
        for key in keys:
            one.slices.add_grant(*key, 1)
            grants._release_key(key, 0)
        reporting = asyncio.create_task(grants.report_releases())
        await asyncio.sleep(0)
        await asyncio.gather(reporting, call())
        assert done == [BATCH_SIZE, "a call", BATCH_SIZE, BATCH_SIZE] and not grants.has_unconfirmed


async def test_what_was_used_of_a_period_long_ago_is_not_held_any_more(tmp_path: Path) -> None:
    """How much was granted is remembered for days. A line of a batch, which belongs to that period, would be tried
    until the batch expires, as if open calls might still give something back."""
    key, token = ("all", "2026-11-25"), (new_id().bytes, 0)
    async with alone(tmp_path) as one:
        one.leases._grants._book_grant(key, 60)
        one.slices.reserve(token, [Charge(*key, 50)])
        assert one.leases.unspent(*key) == 60
        one.slices.settle(token, 40)
        assert one.leases.unspent(*key) == 20
        one.slices.release(*key)
        assert one.leases.unspent(*key) == 0
        assert one.slices.drop_ended([key]) == [key] and one.leases.unspent(*key) == 0


MINUTE = Quota("requests/each", REQUESTS, 100, "minute", "each", "user")


@pytest.mark.parametrize(
    ("at", "following"),
    [
        ("14:32:30", []),
        ("14:33:30", ["2026-11-25T14:34"]),
        ("14:34:00", []),  # it may be used by itself by now, which says more
        ("14:34:01", []),
    ],
)
def test_a_period_that_is_over_says_nothing_of_the_next(at: str, following: list[str]) -> None:
    now = datetime.fromisoformat(f"2026-11-25T{at}").replace(tzinfo=UTC).timestamp()
    often = Account(MINUTE, 1, use_frequency=20.0)
    found = accounts_to_renew([((MINUTE.name, "2026-11-25T14:33"), often)], lambda _: now)
    assert [period for _, period in found] == following


def test_a_budget_without_an_end_is_not_renewed() -> None:
    assert not list(accounts_to_renew([(KEY, Account(BUDGET, 1, use_frequency=20.0))], lambda _: 0.0))
