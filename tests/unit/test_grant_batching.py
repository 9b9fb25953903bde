"""What one round of questions asks for, and who is told what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from groundplan.blueprint.model import Budget
from groundplan.gateway.budgets.account import Account
from groundplan.gateway.budgets.grant_batching import GrantBatches
from groundplan.gateway.budgets.grant_connection import Need
from groundplan.gateway.budgets.leases import REQUESTS, Key, Quota, Slices

FIRST, SECOND = ("requests/first", "2026-11"), ("requests/second", "2026-11")
MINE = ("key/mine", "2026-11")


class Lending:
    """Grants to each what is said here; `broken`: does not answer."""

    def __init__(self, *came: Key, broken: bool = False) -> None:
        self.slices, self.came, self.broken = Slices(), came, broken
        self.asked: list[Need] = []

    def slices_for(self, _: str) -> Slices:
        return self.slices

    async def request_limits(self, needs: Sequence[Need]) -> list[int]:
        self.asked += needs
        if self.broken:
            raise TimeoutError
        return [1 if each.key in self.came else 0 for each in needs]

    request_budgets = request_limits


def quota(key: Key) -> Account:
    name = key[0].partition("/")[2]
    declared: Any = Quota(key[0], REQUESTS, 10, "month", name, "company")
    return Account(declared, 1)


def rounds(lending: Lending, given: list[Key]) -> GrantBatches:
    made: Any = lending
    return GrantBatches(made, lambda *_: (1, 1), given.append)


async def test_what_another_limit_lacks_too_is_told_of_it() -> None:
    """Whoever is refused for it next is told that it is used up only where PostgreSQL said so."""
    for came in ((FIRST,), (FIRST, SECOND)):
        some, other = rounds(lending := Lending(*came), []), quota(SECOND)
        ask = some.enqueue(FIRST, quota(FIRST), recall=False)
        some.also_needed[SECOND] = (other, 3)
        await some.send_batch_with(FIRST)
        assert (ask.is_answered, ask.was_granted, ask.has_failed) == (True, True, False)
        assert [(each.key, each.least, each.wanting) for each in lending.asked] == [(FIRST, 1, 1), (SECOND, 3, 3)]
        assert other.was_refused_lately(asyncio.get_running_loop().time()) is (SECOND not in came)


async def test_what_there_is_by_now_what_is_asked_for_anyway_and_what_is_cut_is_not_asked_for_beside() -> None:
    some, cut = rounds(lending := Lending(), []), quota(SECOND)
    cut.is_shrinking = True
    lending.slices.add_grant("requests/third", "2026-11", 4)
    first = some.enqueue(FIRST, quota(FIRST), recall=False)
    some.also_needed |= {
        FIRST: (quota(FIRST), 5),
        SECOND: (cut, 5),
        ("requests/third", "2026-11"): (quota(("requests/third", "2026-11")), 4),
        ("requests/fourth", "2026-11"): (quota(("requests/fourth", "2026-11")), 1),
    }
    await some.send_batch_with(FIRST)
    assert not first.was_granted
    assert [(each.key[0], each.least) for each in lending.asked] == [("requests/first", 1), ("requests/fourth", 1)]
    assert not some.also_needed


async def test_a_round_without_an_answer_says_so_to_whoever_asked_and_to_those_who_wait() -> None:
    """But not to whom there was enough for by then: nobody had to answer."""
    made: Any = Lending(broken=True)
    some = GrantBatches(made, lambda key, _: None if key == SECOND else (1, 1), list[Key]().append)
    first, served = (some.enqueue(key, quota(key), recall=False) for key in (FIRST, SECOND))
    with pytest.raises(TimeoutError):
        await some.send_batch_with(FIRST)
    assert (first.is_answered, first.was_granted, first.has_failed) == (True, False, True)
    assert (served.is_answered, served.was_granted, served.has_failed) == (True, True, False)


async def test_what_comes_of_a_budget_that_was_lowered_meanwhile_goes_back() -> None:
    budget = Budget(name=MINE[0], covers="key/mine", limit=10, period="month")
    for cut, came in ((True, (MINE,)), (True, ()), (False, (MINE,))):
        account, given = Account(budget, 1), list[Key]()
        account.is_shrinking = cut
        found = await rounds(Lending(*came), given).request_grants([Need(MINE, account, 1, 1)])
        assert [amount for _, amount in found] == [len(came)]
        assert given == ([MINE] if cut and came else [])
