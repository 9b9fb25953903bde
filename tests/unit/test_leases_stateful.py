"""Slices, journal and grants as one state machine, with a crash after any record: a budget is never exceeded, nothing
is lost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from groundplan.blueprint.model import Budget
from groundplan.core.errors import Conflict
from groundplan.core.ids import new_id
from groundplan.gateway.budgets.leases import Slices, Token
from groundplan.gateway.journal.records import Record
from groundplan.ledger.model import Charge, Finish, Release, Reservation, Settlement, Usage
from groundplan.testing.journal import replay

LIMITS = {"company": 1000, "team": 700, "assistant": 400}
PERIOD = "2026-11"
RARELY = st.integers(0, 19).map(lambda number: number == 19)
"""Workers live for some steps: one that dies at every second step never has two calls open."""


@dataclass
class Books:
    """The database: what is granted of each budget, slices by worker, movements already applied, what was really
    billed."""

    granted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LIMITS, 0))
    slices: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    applied: set[bytes] = field(default_factory=set)
    billed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LIMITS, 0))
    """By the provider, never more than the bound of the attempt."""
    charged: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LIMITS, 0))
    """By recovered epochs."""
    settled: dict[tuple[int, str], int] = field(default_factory=dict)
    """What settlements of each worker say."""

    def grant(self, worker: int, budget: str, amount: int) -> bool:
        if self.granted[budget] + amount > LIMITS[budget]:
            return False
        self.granted[budget] += amount
        self.slices.setdefault((worker, budget), [0, 0])[0] += amount
        return True

    def release(self, worker: int, record: Release) -> None:
        if record.id in self.applied:
            return
        self.applied.add(record.id)
        self.granted[record.budget] -= record.amount
        self.slices[worker, record.budget][1] += record.amount


@dataclass
class Worker:
    """One gateway process: memory is lost in a crash, the journal is not."""

    number: int
    slices: Slices = field(default_factory=Slices)
    journal: list[Record] = field(default_factory=list)


def reservation(token: Token, bound: int, charges: Sequence[Charge]) -> Reservation:
    return Reservation(token[0], token[1], 0, "w", "", "k", "/v1", "d", "s", "m", 1, bound, charges)


def settlement(token: Token, cost: int, outcome: str) -> Settlement:
    return Settlement(token[0], token[1], 0, cost, outcome, 200, Usage(), False, [], 1)


class LeaseMachine(RuleBasedStateMachine):
    """Two workers over one database."""

    attempts = Bundle("attempts")

    @initialize()
    def start(self) -> None:
        self.books = Books()
        self.next_worker = 2
        self.workers = {0: Worker(0), 1: Worker(1)}
        self.open: dict[Token, tuple[int, int, list[str], int]] = {}
        for slot, budget in itertools.product(self.workers, sorted(LIMITS)):
            self.grant(slot, budget, 100)

    @rule(slot=st.integers(0, 1), budget=st.sampled_from(sorted(LIMITS)), amount=st.integers(1, 300))
    def grant(self, slot: int, budget: str, amount: int) -> None:
        worker = self.workers[slot]
        if self.books.grant(worker.number, budget, amount):
            worker.slices.add_grant(budget, PERIOD, amount)

    @rule(slot=st.integers(0, 1), budget=st.sampled_from(sorted(LIMITS)), amount=st.integers(1, 300))
    def grant_whose_answer_is_lost(self, slot: int, budget: str, amount: int) -> None:
        self.books.grant(self.workers[slot].number, budget, amount)

    @rule(
        target=attempts,
        slot=st.integers(0, 1),
        bound=st.integers(1, 60),
        budgets=st.sets(st.sampled_from(sorted(LIMITS)), min_size=1),
        crash=RARELY,
    )
    def reserve(self, slot: int, bound: int, budgets: set[str], crash: bool) -> object:
        worker, token = self.workers[slot], (new_id().bytes, 0)
        charges = [Charge(budget, PERIOD, bound) for budget in sorted(budgets)]
        short = worker.slices.reserve(token, charges)
        if short is not None:
            assert worker.slices.available(short.budget, PERIOD) < bound
            return multiple()
        worker.journal.append(reservation(token, bound, worker.slices.reserved_charges(token)))
        self.open[token] = (slot, bound, sorted(budgets), bound)
        if crash:
            self.crash(slot)
        return token

    @rule(token=consumes(attempts), share=st.floats(0, 1), crash_before=RARELY, crash_after=RARELY)
    def settle(self, token: Token, share: float, crash_before: bool, crash_after: bool) -> None:
        if token not in self.open:
            return
        slot, bound, budgets, _ = self.open[token]
        cost = int(bound * share)
        for budget in budgets:
            self.books.billed[budget] += cost
        if crash_before:
            self.crash(slot)
            return
        worker = self.workers[slot]
        worker.journal.append(settlement(token, cost, "ok"))
        for budget in budgets:
            by = (worker.number, budget)
            self.books.settled[by] = self.books.settled.get(by, 0) + cost
        if not crash_after:
            worker.slices.settle(token, cost)
        del self.open[token]
        if crash_after:
            self.crash(slot)

    @rule(
        target=attempts,
        token=consumes(attempts),
        share=st.floats(0.1, 1),
        crash=st.sampled_from(["", "", "", "", "between", "after"]),
    )
    def retry(self, token: Token, share: float, crash: str) -> object:
        """The attempt was certainly not billed: the next one, of another price, inherits its reservation."""
        if token not in self.open:
            return multiple()
        slot, _, budgets, held = self.open.pop(token)
        worker, following = self.workers[slot], (token[0], token[1] + 1)
        bound = max(1, int(held * share))
        worker.journal.append(settlement(token, 0, "not_billed"))
        if crash == "between":
            self.crash(slot)
            return multiple()
        worker.journal.append(reservation(following, bound, [Charge(budget, PERIOD, 0) for budget in budgets]))
        worker.slices.transfer_reservation(token, following)
        self.open[following] = (slot, bound, budgets, held)
        if crash == "after":
            self.crash(slot)
        return following

    @rule(
        slot=st.integers(0, 1),
        budget=st.sampled_from(sorted(LIMITS)),
        keep=st.integers(0, 50),
        told=st.sampled_from([1, 1, 1, 2, 2, 0]),
    )
    def release(self, slot: int, budget: str, keep: int, told: int) -> None:
        """`told`: how often the database hears of it (0: the process dies before)."""
        worker = self.workers[slot]
        amount = worker.slices.release(budget, PERIOD, keep)
        if not amount:
            return
        record = Release(new_id().bytes, budget, PERIOD, amount)
        worker.journal.append(record)
        for _ in range(told):
            self.books.release(worker.number, record)
        if not told:
            self.crash(slot)

    @rule(slot=st.integers(0, 1))
    def crash(self, slot: int) -> None:
        """The process dies; its journal is recovered and its epoch fenced; a new worker starts."""
        dead = self.workers[slot]
        state = replay(dead.journal)
        for record in state.releases.values():
            self.books.release(dead.number, record)
        state.settle_crashed()
        for (number, budget), (granted, released) in self.books.slices.items():
            if number == dead.number:
                spent = state.spent.get((budget, PERIOD), 0)
                opened = sum(
                    bound for where, bound, names, _ in self.open.values() if where == slot and budget in names
                )
                assert spent == self.books.settled.get((number, budget), 0) + opened, "what is open costs its bound"
                back = granted - released - spent
                assert back >= 0
                self.books.granted[budget] -= back
                self.books.charged[budget] += spent
        self.books.slices = {key: value for key, value in self.books.slices.items() if key[0] != dead.number}
        lost = [token for token, (where, *_) in self.open.items() if where == slot]
        for token in lost:
            del self.open[token]
        self.workers[slot] = Worker(self.next_worker)
        self.next_worker += 1

    @precondition(lambda self: hasattr(self, "books"))
    @invariant()
    def nothing_is_exceeded_lost_or_doubled(self) -> None:
        for budget, limit in LIMITS.items():
            live = sum(g - r for (_, name), (g, r) in self.books.slices.items() if name == budget)
            assert self.books.granted[budget] == live + self.books.charged[budget] <= limit
            assert self.books.billed[budget] <= limit
            in_memory = 0
            for worker in self.workers.values():
                slices, key = worker.slices, (budget, PERIOD)
                assert slices.available(*key) >= 0
                in_memory += slices.available(*key) + slices.reserved_by_key().get(key, 0) + slices.spent(*key)
                assert replay(worker.journal).spent.get(key, 0) == slices.spent(*key)
            assert in_memory <= live


TestLeaseMachine = LeaseMachine.TestCase
TestLeaseMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_short_budget_takes_nothing_from_the_others() -> None:
    slices = Slices()
    slices.add_grant("a", PERIOD, 10)
    slices.add_grant("b", PERIOD, 5)
    assert slices.reserve((b"1", 0), [Charge("a", PERIOD, 6), Charge("b", PERIOD, 6)]) == Charge("b", PERIOD, 6)
    assert (slices.available("a", PERIOD), slices.available("b", PERIOD), slices.open_reservations) == (10, 5, 0)
    assert slices.reserve((b"1", 0), [Charge("a", PERIOD, 6), Charge("a", PERIOD, 6)]) == Charge("a", PERIOD, 6)
    assert slices.available("a", PERIOD) == 10


def test_an_attempt_is_settled_once_and_reserved_once() -> None:
    slices = Slices()
    slices.add_grant("a", PERIOD, 10)
    slices.reserve((b"1", 0), [Charge("a", PERIOD, 6)])
    with pytest.raises(Conflict):
        slices.reserve((b"1", 0), [])
    assert slices.reserved_charges((b"1", 0)) == [Charge("a", PERIOD, 6)]
    slices.reserve((b"2", 0), [Charge("a", PERIOD, 1)])
    with pytest.raises(Conflict):
        slices.transfer_reservation((b"1", 0), (b"2", 0))
    slices.settle((b"2", 0), 0)
    slices.settle((b"1", 0), 2)
    with pytest.raises(Conflict):
        slices.settle((b"1", 0), 2)
    with pytest.raises(Conflict):
        slices.reserved_charges((b"1", 0))
    with pytest.raises(Conflict):
        slices.transfer_reservation((b"1", 0), (b"1", 1))
    assert slices.available("a", PERIOD) == 8


def test_a_provider_that_bills_more_than_its_bound_is_owed_from_the_next_grant() -> None:
    slices = Slices()
    slices.add_grant("a", PERIOD, 10)
    slices.reserve((b"1", 0), [Charge("a", PERIOD, 10)])
    slices.settle((b"1", 0), 13)
    assert slices.available("a", PERIOD) == -3
    assert slices.release("a", PERIOD) == slices.release("new", PERIOD) == slices.spent("new", PERIOD) == 0
    slices.add_grant("a", PERIOD, 5)
    assert slices.reserve((b"2", 0), [Charge("a", PERIOD, 3)]) == Charge("a", PERIOD, 3)
    assert slices.reserve((b"2", 0), [Charge("a", PERIOD, 2)]) is None
    slices.settle((b"2", 0), 4)
    free = Charge("a", PERIOD, 0)
    assert slices.reserve((b"3", 0), [free]) == free, "what is owed refuses what costs nothing, too"
    assert slices.reserve((b"3", 0), [Charge("new", PERIOD, 0)]) is None, "for which nothing has to be granted"


def test_who_watches_a_budget_is_told_what_is_given_back_of_it_and_nobody_else_is() -> None:
    slices, told = Slices(), list[tuple[str, str]]()
    slices.on_freed = told.append
    for name in ("a", "b"):
        slices.add_grant(name, PERIOD, 30)
    charges = [Charge("a", PERIOD, 5), Charge("b", PERIOD, 5)]
    for number in range(6):
        slices.reserve((b"1", number), charges[: 1 if number == 4 else 2])
    slices.settle((b"1", 0), 3)
    assert told == [], "nobody asked"
    assert slices.recently_used == (both := {("a", PERIOD), ("b", PERIOD)})
    slices.watched.add(("b", PERIOD))
    slices.settle((b"1", 1), 5)
    slices.settle_charges((b"1", 2), [3, 5])
    slices.settle((b"1", 4), 0)
    assert told == [], "nothing was left of it"
    slices.settle((b"1", 3), 4)
    slices.recently_used.clear()
    slices.settle_charges((b"1", 5), [5, 4])
    assert told == [("b", PERIOD)] * 2 and slices.recently_used == both
    assert slices.drop_ended([("b", PERIOD)]) == [("b", PERIOD)] and not slices.watched
    assert slices.recently_used == {("a", PERIOD)}


def test_the_parts_of_a_reservation_are_settled_apart() -> None:
    slices, call, attempt = Slices(), (b"1", -1), (b"1", -2)
    charges = [Charge(name, PERIOD, 5) for name in ("requests/a", "tokens/a", "cost/a")]
    for charge in charges:
        slices.add_grant(charge.budget, PERIOD, 10)
    slices.reserve(call, charges)
    slices.split_reservation(call, charges[:1], attempt, charges[1:])
    with pytest.raises(ValueError, match="as many"):
        slices.settle_charges(attempt, [1])
    slices.reserve(attempt, charges[1:])
    slices.settle_charges(attempt, [3, 4])
    slices.settle_charges(call, [1])
    assert [slices.spent(charge.budget, PERIOD) for charge in charges] == [1, 3, 4]
    assert [slices.available(charge.budget, PERIOD) for charge in charges] == [9, 2, 1]


def test_what_costs_nothing_keeps_its_period_until_it_is_settled() -> None:
    slices, token = Slices(), (b"1", 0)
    slices.add_grant("tokens/a", PERIOD, 10)
    slices.reserve(token, [Charge("tokens/a", PERIOD, 0)])
    assert slices.drop_ended([("tokens/a", PERIOD)]) == []
    slices.settle_charges(token, [3])
    assert (slices.available("tokens/a", PERIOD), slices.spent("tokens/a", PERIOD)) == (7, 3)
    assert slices.drop_ended([("tokens/a", PERIOD)]) == [("tokens/a", PERIOD)]


def test_a_soft_budget_is_never_short_and_what_it_owes_comes_out_of_the_next_grant() -> None:
    slices = Slices()
    slices.add_grant("hard", PERIOD, 10)
    charges = [Charge("soft", PERIOD, 6), Charge("hard", PERIOD, 6)]
    assert slices.reserve((b"1", 0), charges, {"soft"}) is None
    assert (slices.available("soft", PERIOD), slices.available("hard", PERIOD)) == (-6, 4)
    short = slices.reserve((b"2", 0), charges, {"soft"})
    assert short is not None and short.budget == "hard"
    assert slices.available("soft", PERIOD) == -6
    slices.settle((b"1", 0), 4)
    slices.add_grant("soft", PERIOD, 5)
    assert (slices.available("soft", PERIOD), slices.spent("soft", PERIOD)) == (1, 4)


def test_each_charge_is_settled_at_what_it_was_and_an_ended_period_is_forgotten_when_nothing_is_open() -> None:
    slices = Slices()
    slices.add_grant("requests/a", PERIOD, 2)
    slices.add_grant("tokens/a", PERIOD, 100)
    slices.reserve((b"1", -1), [Charge("requests/a", PERIOD, 1), Charge("tokens/a", PERIOD, 60)])
    assert slices.drop_ended([("tokens/a", PERIOD)]) == []
    slices.settle_charges((b"1", -1), [1, 20])
    assert (slices.available("requests/a", PERIOD), slices.available("tokens/a", PERIOD)) == (1, 80)
    assert slices.drop_ended([("tokens/a", PERIOD)]) == [("tokens/a", PERIOD)]
    assert slices.granted_keys() == [("requests/a", PERIOD)]


def test_what_a_retry_inherits_is_set_aside_once_also_where_one_between_is_free() -> None:
    first, free, second = ((b"c" * 16, number) for number in range(3))
    state = replay(
        [
            reservation(first, 10, [Charge("a", PERIOD, 10)]),
            settlement(first, 0, "not_billed"),
            reservation(free, 0, [Charge("a", PERIOD, 0)]),
            settlement(free, 0, "not_billed"),
            reservation(second, 8, [Charge("a", PERIOD, 0)]),
        ]
    )
    assert state.spent.get(("a", PERIOD), 0) == 0
    (call,) = state.settle_crashed()
    assert state.spent["a", PERIOD] == 8
    assert (call.reserved, call.cost, call.attempts[2].inherits) == (10, 8, True)


def test_records_that_come_twice_count_once_and_strays_do_not() -> None:
    token = (b"c" * 16, 0)
    finish = Finish(token[0], 0, "w", "", "k", "/v1", "ok", 200, "", "d", "none", 1, 1, 1, [], [])
    release = Release(b"r" * 16, "a", PERIOD, 4)
    one: list[Record] = [reservation(token, 10, [Charge("a", PERIOD, 10)]), settlement(token, 3, "ok"), finish, release]
    state = replay([*one, *one, settlement((b"x" * 16, 0), 5, "ok")])
    assert state.spent == {("a", PERIOD): 3} and state.released == {("a", PERIOD): 4}
    assert state.calls[token[0]].has_ended
    state.drop_call(token[0])
    assert token[0] not in state.calls


@given(
    declared=st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=4),
    spent=st.dictionaries(st.integers(0, 3), st.integers(0, 100)),
    elsewhere=st.dictionaries(st.integers(0, 4), st.integers(0, 100)),
    first=st.booleans(),
)
def test_what_is_left_is_the_limit_less_what_is_spent_here_and_elsewhere(
    declared: list[tuple[int, bool]], spent: dict[int, int], elsewhere: dict[int, int], first: bool
) -> None:
    slices, others = Slices(), {(f"b{number}", PERIOD): amount for number, amount in elsewhere.items()}
    slices.set_spent_elsewhere(others if first else {("b0", PERIOD): 50, ("b1", PERIOD): 50})
    for number, amount in spent.items():
        slices.add_grant(f"b{number}", PERIOD, amount)
        slices.reserve((b"1", number), [Charge(f"b{number}", PERIOD, amount)])
        slices.settle((b"1", number), amount)
    if not first:
        slices.set_spent_elsewhere(others)
    budgets = [
        Budget(name=f"b{number}", covers="company", limit=limit, period="month", hard=hard)
        for number, (limit, hard) in enumerate(declared)
    ]
    lefts = [each.limit - spent.get(at, 0) - elsewhere.get(at, 0) for at, each in enumerate(budgets)]
    both = list(zip(budgets, lefts, strict=True))
    least, crossed = slices.remaining_budget([(each, PERIOD) for each in budgets])
    assert least == min((left for each, left in both if each.hard), default=None)
    assert list(crossed) == [each.name for each, left in both if not each.hard and left < 0]
    assert set(slices.granted_keys()) == {(f"b{number}", PERIOD) for number in spent}


def test_what_was_set_aside_covers_the_dearer_deployment_that_took_over() -> None:
    """Of a chain whose first deployment is free it was nothing, though the call was charged."""
    one, two, three = (b"c" * 16, 0), (b"c" * 16, 1), (b"c" * 16, 2)
    state = replay(
        [
            reservation(one, 0, [Charge("a", PERIOD, 0)]), settlement(one, 0, "not_billed"),
            reservation(two, 8, []), settlement(two, 8, "failed"),
            reservation(three, 5, [Charge("a", PERIOD, 5)]),
        ]
    )  # fmt: skip
    assert state.settle_crashed()[0].reserved == 13
