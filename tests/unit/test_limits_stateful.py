"""Limits as one state machine: workers take, settle, give back, are recalled and crash; windows pass. Nothing is ever
exceeded, and concurrent calls come back by release or by fencing, never by time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from groundplan.core.ids import new_id
from groundplan.gateway.budgets.leases import CONCURRENT, COST, MEASURED, REQUESTS, TOKENS, Slices, Token
from groundplan.ledger.model import Charge

MOST = {f"{REQUESTS}/a": 12, f"{TOKENS}/a": 900, f"{COST}/a": 700, f"{CONCURRENT}/a": 3, f"{REQUESTS}/b": 7}
SPANS = ("2026-11-25T14:33", "2026-11-25T14:34")
Span = tuple[str, str]
RARELY = st.sampled_from([False] * 5 + [True])


@dataclass
class Books:
    """The database: what is granted of each span, and to whom. A closed slice is granted no more and gives nothing."""

    granted: dict[Span, int] = field(default_factory=dict)
    slices: dict[tuple[int, Span], list[int]] = field(default_factory=dict)

    def grant(self, worker: int, span: Span, amount: int) -> bool:
        if self.granted.get(span, 0) + amount > MOST[span[0]]:
            return False
        self.granted[span] = self.granted.get(span, 0) + amount
        self.slices.setdefault((worker, span), [0, 0])[0] += amount
        return True

    def returned(self, worker: int, span: Span, total: int) -> None:
        held = self.slices.get((worker, span))
        if held is not None and total > held[1]:
            self.granted[span] -= total - held[1]
            held[1] = total

    def fence(self, worker: int) -> None:
        for (number, span), (granted, released) in list(self.slices.items()):
            if number == worker:
                if span[1] == "now":
                    self.granted[span] -= granted - released
                del self.slices[number, span]


@dataclass
class Worker:
    number: int
    counters: Slices = field(default_factory=Slices)
    got: dict[Span, int] = field(default_factory=dict)
    """All that it heard to be granted, and has not forgotten."""


class LimitMachine(RuleBasedStateMachine):
    """Two workers over one database; the reference counts what really happened."""

    calls = Bundle("calls")

    @initialize()
    def start(self) -> None:
        self.books, self.minute = Books(), 0
        self.workers = {0: Worker(0), 1: Worker(1)}
        self.next_worker = 2
        self.used: dict[Span, int] = {}
        self.open: dict[Token, tuple[int, list[Charge]]] = {}
        for slot, name in itertools.product(self.workers, sorted(MOST)):
            self.grant(slot, name, 3, lost=False)

    def span(self, name: str) -> Span:
        return name, "now" if name.startswith(CONCURRENT) else SPANS[self.minute]

    @rule(slot=st.integers(0, 1), name=st.sampled_from(sorted(MOST)), part=st.integers(2, 9), lost=RARELY)
    def grant(self, slot: int, name: str, part: int, lost: bool) -> None:
        worker, span = self.workers[slot], self.span(name)
        amount = max(1, MOST[name] // part)
        if self.books.grant(worker.number, span, amount) and not lost:
            worker.counters.add_grant(*span, amount)
            worker.got[span] = worker.got.get(span, 0) + amount

    @rule(
        target=calls,
        slot=st.integers(0, 1),
        names=st.sets(st.sampled_from(sorted(MOST)), min_size=1),
        tokens=st.integers(1, 120),
    )
    def take(self, slot: int, names: set[str], tokens: int) -> object:
        worker, token = self.workers[slot], (new_id().bytes, -1)
        charges = [
            Charge(*self.span(name), tokens if name.partition("/")[0] in MEASURED else 1) for name in sorted(names)
        ]
        before = [worker.counters.available(c.budget, c.period) for c in charges]
        short = worker.counters.reserve(token, charges)
        if short is not None:
            assert before == [worker.counters.available(c.budget, c.period) for c in charges]
            return multiple()
        self.open[token] = (slot, charges)
        return token

    @rule(target=calls, token=consumes(calls), at=st.integers(1, 2))
    def part(self, token: Token, at: int) -> object:
        """What an attempt uses is held apart from what its call does."""
        if token not in self.open:
            return multiple()
        slot, charges = self.open[token]
        if len(charges) <= at:
            return token
        other = (new_id().bytes, -2)
        self.workers[slot].counters.split_reservation(token, charges[:at], other, charges[at:])
        self.open[token], self.open[other] = (slot, charges[:at]), (slot, charges[at:])
        return multiple(token, other)

    @rule(token=consumes(calls), share=st.floats(0, 1), sent=st.booleans())
    def end(self, token: Token, share: float, sent: bool) -> None:
        if token not in self.open:
            return
        slot, charges = self.open.pop(token)
        used = [0 if c.budget.startswith(CONCURRENT) or not sent else self._used(c, share) for c in charges]
        for charge, amount in zip(charges, used, strict=True):
            span = (charge.budget, charge.period)
            self.used[span] = self.used.get(span, 0) + amount
        self.workers[slot].counters.settle_charges(token, used)

    @staticmethod
    def _used(charge: Charge, share: float) -> int:
        return 1 if charge.budget.startswith(REQUESTS) else int(charge.amount * share)

    @rule(
        slot=st.integers(0, 1),
        name=st.sampled_from(sorted(MOST)),
        told=st.integers(0, 2),
        keep=st.sampled_from((0, 0, 1, 50)),
    )
    def give_back(self, slot: int, name: str, told: int, keep: int) -> None:
        """`told`: how often the database hears of it; what it never hears counts as used. `keep`: what is not idle."""
        worker, span = self.workers[slot], self.span(name)
        had = worker.counters.available(*span)
        assert worker.counters.release(*span, keep=keep) == max(0, had - keep)
        for _ in range(told):
            self.books.returned(worker.number, span, worker.counters.released(*span))

    @rule(slot=st.integers(0, 1), happens=RARELY)
    def crash(self, slot: int, happens: bool) -> None:
        if not happens:
            return
        self.books.fence(self.workers[slot].number)
        for token in [token for token, (where, _) in self.open.items() if where == slot]:
            for charge in self.open.pop(token)[1]:  # what was in flight may have been used in full
                if not charge.budget.startswith(CONCURRENT):
                    span = (charge.budget, charge.period)
                    self.used[span] = self.used.get(span, 0) + charge.amount
        self.workers[slot] = Worker(self.next_worker)
        self.next_worker += 1

    @rule(happens=RARELY)
    def the_next_minute(self, happens: bool) -> None:
        if self.minute == 0 and happens:
            self.minute = 1
            for slot, worker in self.workers.items():
                for span in ((name, SPANS[0]) for name in MOST):
                    own = [c for where, charges in self.open.values() if where == slot for c in charges]
                    waiting = any((c.budget, c.period) == span for c in own)
                    assert worker.counters.drop_ended([span]) == ([] if waiting else [span])
                    if not waiting:
                        worker.got.pop(span, None)

    @invariant()
    def nothing_is_exceeded(self) -> None:
        if not hasattr(self, "books"):
            return
        running: dict[Span, int] = {}
        for _, charges in self.open.values():
            for charge in charges:
                span = (charge.budget, charge.period)
                running[span] = running.get(span, 0) + charge.amount
        for span in {*self.used, *running, *self.books.granted}:
            assert self.used.get(span, 0) + running.get(span, 0) <= MOST[span[0]]
            assert 0 <= self.books.granted.get(span, 0) <= MOST[span[0]]

    @invariant()
    def what_came_is_there_held_used_or_given_back(self) -> None:
        for worker in self.workers.values() if hasattr(self, "books") else ():
            counters, held = worker.counters, worker.counters.reserved_by_key()
            for span, got in worker.got.items():
                left = counters.available(*span) + held.get(span, 0) + counters.spent(*span)
                assert left == got - counters.released(*span)

    @invariant()
    def slots_of_the_dead_are_free(self) -> None:
        if not hasattr(self, "books"):
            return
        span = (f"{CONCURRENT}/a", "now")
        live = sum(g - r for (_, each), (g, r) in self.books.slices.items() if each == span)
        assert self.books.granted.get(span, 0) == live


TestLimitMachine = LimitMachine.TestCase
TestLimitMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
