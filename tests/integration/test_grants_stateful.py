"""The SQL of budgets and limits as one state machine on a real PostgreSQL: workers are granted slices, reserve, settle
(also above a bound), hedge, try again, give back, die and are recovered. The database equals a plain model at every
step: no grant goes beyond a hard limit, and everything comes back exactly once.

Slices in memory and their journal are `test_leases_stateful`'s and `test_limits_stateful`'s.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, settings
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
    run_state_machine_as_test,
)

from groundplan.blueprint.model import Budget
from groundplan.core.ids import new_id
from groundplan.core.money import from_decimal
from groundplan.gateway.budgets import grant_store
from groundplan.gateway.budgets.grant_store import Grant, RequestedAmounts
from groundplan.gateway.budgets.leases import Key, Quota, Slices, Token
from groundplan.gateway.database import Connection
from groundplan.gateway.journal import ledger_store
from groundplan.gateway.journal.ledger_rows import attempt_row, charge_rows
from groundplan.gateway.journal.records import Record
from groundplan.ledger.model import Charge, Release, Reservation, Settlement, Usage
from groundplan.testing.database import Database
from groundplan.testing.journal import replay

UNIT = 10**9 + 7
"""Picodollars; no round number, so that every decimal counts."""
BUDGETS = {"company": 1000 * UNIT, "team": 400 * UNIT, "soft": 100 * UNIT}
QUOTAS = {"requests": 12, "tokens": 900, "concurrent": 3}
MONTH, MINUTE, NOW = "2036-11", "2036-11-25T14:33", "now"
AT = 1_790_000_000_000
EXAMPLES, STEPS = 20, 40
_runs = itertools.count()


@dataclass
class Span:
    """A budget or a limit in its period."""

    most: int
    blueprint: int
    granted: int = 0


@dataclass
class Slice:
    granted: int = 0
    released: int = 0
    closed: bool = False


@dataclass
class Model:
    """What the database should say, from the words of the contract."""

    spans: dict[str, Span] = field(default_factory=dict)
    slices: dict[tuple[UUID, str], Slice] = field(default_factory=dict)
    spent: Counter[tuple[UUID, str]] = field(default_factory=Counter)
    peak: Counter[str] = field(default_factory=Counter)
    """The highest limit that was ever declared."""
    beyond: Counter[str] = field(default_factory=Counter)
    """What providers billed beyond the slices of the dead."""
    wanted: set[str] = field(default_factory=set)
    """Of which somebody was refused and called it back."""
    fenced: set[UUID] = field(default_factory=set)
    releases: set[bytes] = field(default_factory=set)

    def grant(
        self, epoch: UUID, name: str, most: int, blueprint: int, wish: RequestedAmounts, *, contested: bool
    ) -> Grant:
        if epoch in self.fenced:
            return Grant(0, 0, False)
        span = self.spans.setdefault(name, Span(most, blueprint))
        if blueprint >= span.blueprint:
            span.most, span.blueprint = most, blueprint
        self.peak[name] = max(self.peak[name], span.most)
        rest, wanting = span.most - span.granted, max(wish.need, wish.wanting)
        if name.startswith("soft"):
            amount = wanting + wish.headroom
        elif rest < wish.need or rest <= 0:
            amount = 0
        else:
            amount = min(rest, wanting + (0 if contested else max(0, min(rest // 8, wish.headroom))))
        if amount:
            span.granted += amount
            self.slices.setdefault((epoch, name), Slice()).granted += amount
        elif wish.recall:
            self.wanted.add(name)
        return Grant(amount, rest - amount, contested)

    def release(self, epoch: UUID, record: Release) -> None:
        """Counts once, whoever tells it how often."""
        if record.id not in self.releases:
            self.releases.add(record.id)
            self.slices[epoch, record.budget].released += record.amount
            self.spans[record.budget].granted -= record.amount

    def give(self, epoch: UUID, name: str, total: int) -> None:
        """All that a worker ever gave back of a limit."""
        slice = self.slices.get((epoch, name))
        if slice is not None and not slice.closed and total > slice.released:
            self.spans[name].granted -= total - slice.released
            slice.released = total

    def bury(self, epoch: UUID, budgets: set[str]) -> int:
        """The worker is dead: what it did not spend comes back; of a window of a limit nothing, its calls are over."""
        self.fenced.add(epoch)
        for name in budgets:
            spent = self.spent[epoch, name]
            if spent and (epoch, name) not in self.slices:  # a budget that only warns was never asked
                self.spans.setdefault(name, Span(spent, 0)).granted += spent
                self.slices[epoch, name] = Slice(spent)
        returned = 0
        for (holder, name), slice in self.slices.items():
            if holder != epoch or slice.closed:
                continue
            slice.closed, kept = True, name not in budgets and not name.startswith("concurrent/")
            back = 0 if kept else slice.granted - slice.released - self.spent[epoch, name]
            slice.released += back
            self.spans[name].granted -= back
            if name in budgets:
                self.beyond[name] += max(0, -back)
                returned += back
        for key in [key for key in self.slices if key[0] == epoch and key[1].startswith("concurrent/")]:
            del self.slices[key]  # they have no window that ends
        return returned


@dataclass
class Worker:
    """One gateway process: memory is lost in a crash, the journal is not."""

    epoch: UUID
    connection: Connection
    blueprint: int
    slices: Slices = field(default_factory=Slices)
    counters: Slices = field(default_factory=Slices)
    journal: list[Record] = field(default_factory=list)
    booked: Counter[str] = field(default_factory=Counter)
    """What it knows to be granted."""


@dataclass
class Open:
    """An attempt that is not settled; `held` is what its reservation took, as picodollars of each budget."""

    slot: int
    bound: int
    held: int
    budgets: list[str]


@dataclass
class Ground:
    """What all runs share: the loop of the asynchronous connections, and two more that are not."""

    loop: asyncio.AbstractEventLoop
    database: Database
    home: Path
    shipper: psycopg.Connection[Any]
    reader: psycopg.Connection[Any]


class GrantMachine(RuleBasedStateMachine):
    """Two workers at a time on names of their own."""

    attempts, calls = Bundle("attempts"), Bundle("calls")
    worker, share = st.integers(0, 1), st.floats(0, 1)
    budget, quota = st.sampled_from(sorted(BUDGETS)), st.sampled_from(sorted(QUOTAS))

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self.ground = ground
        self.workers: list[Worker] = []

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.ground.loop.run_until_complete(work)

    @initialize()
    def start(self) -> None:
        run = next(_runs)
        self.of = {name: f"{name}-{run}" for name in BUDGETS} | {name: f"{name}/l{run}" for name in QUOTAS}
        self.budgets = {self.of[name] for name in BUDGETS}
        self.declared = [{**BUDGETS, **QUOTAS}]
        self.model = Model()
        self.open: dict[Token, Open] = {}
        self.taken: dict[Token, tuple[int, list[Charge]]] = {}
        self.tries: Counter[bytes] = Counter()
        self.dead: list[Worker] = []
        self.workers = [self._born(), self._born()]
        for slot, name in itertools.product(range(2), (*BUDGETS, *QUOTAS)):  # else hardly a call is ever made
            self.grant(slot, name, (0.5, 0.0, 0.0), recall=False, lost=False)

    def _born(self) -> Worker:
        epoch = new_id()
        connection = self._run(grant_store.connect(self.ground.database.urls["gateway"], epoch, self.ground.home, 10.0))
        return Worker(epoch, connection, len(self.declared) - 1)

    def _key(self, name: str) -> Key:
        return self.of[name], {"concurrent": NOW}.get(name, MINUTE) if name in QUOTAS else MONTH

    def _ask(self, worker: Worker, name: str, wish: RequestedAmounts) -> Grant:
        """Ask the database and the model."""
        known, most = self.of[name], self.declared[worker.blueprint][name]
        found: Grant
        asking = (self.workers[0].connection, worker.epoch)
        span, number = self._key(name)[1], worker.blueprint
        if name in QUOTAS:
            quota = Quota(known, name, most, "now" if name == "concurrent" else "minute", "l", "company")
            (found,) = self._run(grant_store.grant_limits(*asking, [(quota, span, number, wish)]))
        else:
            budget = Budget(name=known, covers="company", limit=most, period="month", hard=name != "soft")
            (found,) = self._run(grant_store.grant_budgets(*asking, [(budget, span, number, wish)]))
        assert not found.contested or known in self.model.wanted
        assert found == self.model.grant(worker.epoch, known, most, number, wish, contested=found.contested)
        assert not found.amount or name == "soft" or found.unallocated >= 0, "beyond a hard limit nothing is granted"
        return found

    # grants ---------------------------------------------------------------------------------------------------------

    @rule(slot=worker, name=budget | quota, sizes=st.tuples(share, share, share), recall=st.booleans(),
          lost=st.booleans())  # fmt: skip
    def grant(self, slot: int, name: str, sizes: tuple[float, float, float], recall: bool, lost: bool) -> None:
        """`lost`: the worker does not hear of it."""
        worker, most = self.workers[slot], ({**BUDGETS, **QUOTAS})[name]
        need, wanting, headroom = (max(1, int(most * size / 2)) for size in sizes)
        found = self._ask(worker, name, RequestedAmounts(need, wanting, headroom, recall))
        if not lost:
            self._book(worker, name, found.amount)

    def _book(self, worker: Worker, name: str, amount: int) -> None:
        (worker.counters if name in QUOTAS else worker.slices).add_grant(*self._key(name), amount)
        worker.booked[name] += amount

    @rule(slot=worker)
    def connect_again(self, slot: int) -> None:
        """It learns of what was granted and not heard, once."""
        worker = self.workers[slot]
        limits = self._run(grant_store.limit_totals(worker.connection, worker.epoch))
        found = self._run(grant_store.granted_totals(worker.connection, worker.epoch, lambda _: False, 10.0))
        found |= {k: one[0] for k, one in limits.items()}
        slices = {name: s for (epoch, name), s in self.model.slices.items() if epoch == worker.epoch and not s.closed}
        assert {name: amount for (name, _), amount in found.items()} == {n: s.granted for n, s in slices.items()}
        for name in (*BUDGETS, *QUOTAS):
            self._book(worker, name, found.get(self._key(name), 0) - worker.booked[name])

    @rule(slot=worker, name=budget | quota, factor=st.sampled_from((0.5, 0.8, 1.5)))
    def declare(self, slot: int, name: str, factor: float) -> None:
        """A new blueprint, which one worker has first; what the other asks brings no old limit back."""
        self.declared.append({**self.declared[-1], name: max(1, int(self.declared[-1][name] * factor))})
        self.take_up(slot)
        for each in (slot, 1 - slot):
            self._book(
                self.workers[each], name, self._ask(self.workers[each], name, RequestedAmounts(1, 1, 1, False)).amount
            )

    @rule(slot=worker)
    def take_up(self, slot: int) -> None:
        self.workers[slot].blueprint = len(self.declared) - 1

    # calls ----------------------------------------------------------------------------------------------------------

    @rule(target=attempts, slot=worker, size=share, names=st.sets(budget, min_size=1))
    def reserve(self, slot: int, size: float, names: set[str]) -> object:
        return self._reserve(slot, new_id().bytes, max(1, int(60 * UNIT * size)), sorted(names))

    @rule(target=attempts, token=attempts)
    def hedge(self, token: Token) -> object:
        """Another attempt of the same call, beside the first, with a reservation of its own."""
        one = self.open.get(token)
        return multiple() if one is None else self._reserve(one.slot, token[0], one.bound, one.budgets)

    def _reserve(self, slot: int, call: bytes, bound: int, names: list[str]) -> object:
        worker, token = self.workers[slot], (call, self.tries[call])
        charges = [Charge(*self._key(name), bound) for name in names]
        short = worker.slices.reserve(token, charges, {self.of["soft"]})
        if short is not None:
            assert worker.slices.available(short.budget, MONTH) < bound
            return multiple()
        self._journal(worker, token, bound, charges)
        self.open[token] = Open(slot, bound, bound, names)
        return token

    def _journal(self, worker: Worker, token: Token, bound: int, charges: list[Charge]) -> None:
        self.tries[token[0]] = token[1] + 1
        worker.journal.append(Reservation(*token, AT, "w", "", "k", "/v1", "d", "s", "m", 1, bound, charges))

    @rule(token=consumes(attempts), share=st.floats(0, 1) | st.floats(1, 3))
    def settle(self, token: Token, share: float) -> None:
        """Above 1 the provider bills more than the bound that it was given."""
        if token in self.open:
            one = self.open.pop(token)
            cost = int(one.bound * share)
            self._settled(self.workers[one.slot], token, one, cost, "ok")
            self.workers[one.slot].slices.settle(token, cost)

    def _settled(self, worker: Worker, token: Token, one: Open, cost: int, outcome: str) -> None:
        worker.journal.append(Settlement(*token, AT, cost, outcome, 200, Usage(), False, [], 1))
        for name in one.budgets:
            self.model.spent[worker.epoch, self.of[name]] += cost

    @rule(target=attempts, token=consumes(attempts), size=st.floats(0.1, 1))
    def try_again(self, token: Token, size: float) -> object:
        """The attempt was certainly not billed: the next one, of another price, inherits its reservation."""
        if token not in self.open:
            return multiple()
        one = self.open.pop(token)
        worker, following = self.workers[one.slot], (token[0], self.tries[token[0]])
        self._settled(worker, token, one, 0, "not_billed")
        bound = max(1, int(one.held * size))
        self._journal(worker, following, bound, [Charge(*self._key(name), 0) for name in one.budgets])
        worker.slices.transfer_reservation(token, following)
        self.open[following] = Open(one.slot, bound, one.held, one.budgets)
        return following

    @rule(target=calls, slot=worker, names=st.sets(quota, min_size=1), tokens=st.integers(1, 300))
    def begin(self, slot: int, names: set[str], tokens: int) -> object:
        """A call takes of limits."""
        token = (new_id().bytes, -1)
        charges = [Charge(*self._key(name), tokens if name == "tokens" else 1) for name in sorted(names)]
        if self.workers[slot].counters.reserve(token, charges) is not None:
            return multiple()
        self.taken[token] = (slot, charges)
        return token

    @rule(token=consumes(calls), share=st.floats(0, 2))
    def end(self, token: Token, share: float) -> None:
        if token in self.taken:
            slot, charges = self.taken.pop(token)
            used = [0 if c.period == NOW else int(c.amount * share) for c in charges]
            self.workers[slot].counters.settle_charges(token, used)

    # what comes back ------------------------------------------------------------------------------------------------

    @rule(slot=worker, name=budget, keep=share, told=st.integers(0, 2))
    def release(self, slot: int, name: str, keep: float, told: int) -> None:
        """`told`: how often the database hears of it before the worker dies."""
        worker, key = self.workers[slot], self._key(name)
        amount = worker.slices.release(*key, keep=int(max(0, worker.slices.available(*key)) * keep / 2))
        if amount:
            record = Release(new_id().bytes, *key, amount)
            worker.journal.append(record)
            for _ in range(told):
                self._run(grant_store.report_releases(worker.connection, worker.epoch, [record]))
                self.model.release(worker.epoch, record)

    @rule(slot=worker, name=quota, told=st.integers(0, 2))
    def give_back(self, slot: int, name: str, told: int) -> None:
        worker, key = self.workers[slot], self._key(name)
        worker.counters.release(*key)
        total = worker.counters.released(*key)
        for _ in range(told):
            self._run(grant_store.report_returns(worker.connection, worker.epoch, {key: total}))
            self.model.give(worker.epoch, key[0], total)

    @rule(slot=worker, dies=st.sampled_from((False, False, True)))
    def die(self, slot: int, dies: bool) -> None:
        """Its journal is taken over, its epoch fenced; a new worker starts."""
        if dies:
            self._bury(slot)
            self.workers[slot] = self._born()

    def _bury(self, slot: int) -> None:
        worker = self.workers[slot]
        for token in [token for token, one in self.open.items() if one.slot == slot]:
            one = self.open.pop(token)
            for name in one.budgets:
                self.model.spent[worker.epoch, self.of[name]] += one.bound
        self.taken = {token: each for token, each in self.taken.items() if each[0] != slot}
        for record in worker.journal:
            if isinstance(record, Release):
                self.model.release(worker.epoch, record)
        assert self._recover(worker) == self.model.bury(worker.epoch, self.budgets)
        assert self._recover(worker) == 0, "nothing comes back twice"
        self._run(worker.connection.close())
        self.dead.append(worker)

    def _recover(self, worker: Worker) -> int:
        """As the shipper does."""
        conn, state = self.ground.shipper, replay(worker.journal)
        with conn.transaction():
            ledger_store.apply_releases(conn, worker.epoch, state.releases.values())
        state.settle_crashed()
        attempts = [attempt for call in state.calls.values() for attempt in call.attempts.values()]
        with conn.transaction():
            ledger_store.fence(conn, worker.epoch)
            rows = [attempt_row(attempt, worker.epoch) for attempt in attempts]
            ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, rows)
            charges = [row for attempt in attempts for row in charge_rows(attempt)]
            ledger_store.insert_rows(conn, ledger_store.INSERT_CHARGES, charges)
            return ledger_store.return_unspent(conn, worker.epoch, write_off=False)

    @precondition(lambda self: self.dead)
    @rule(name=budget, quota=quota, most=st.integers(1, 1000))
    def wake(self, name: str, quota: str, most: int) -> None:
        """One that was only stopped: it is granted nothing any more, and what it says changes nothing."""
        ghost, connection = self.dead[-1], self.workers[0].connection
        assert self._ask(ghost, name, RequestedAmounts(1, 1, 1, True)) == Grant(0, 0, False)
        assert self._ask(ghost, quota, RequestedAmounts(1, 1, 1, True)) == Grant(0, 0, False)
        self._run(grant_store.report_returns(connection, ghost.epoch, {self._key(quota): most}))
        for record in ghost.journal:
            if isinstance(record, Release):
                self._run(grant_store.report_releases(connection, ghost.epoch, [record]))

    # what holds -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.workers)
    @invariant()
    def the_database_is_as_the_model(self) -> None:
        money = self._rows("budget, limit_usd, blueprint, granted_usd FROM budget_period WHERE budget")
        counts = self._rows("name, amount, blueprint, granted FROM limit_span WHERE name")
        spans = {name: Span(from_decimal(most), number, from_decimal(had)) for name, most, number, had in money}
        spans |= {name: Span(most, number, had) for name, most, number, had in counts}
        assert spans == self.model.spans
        money = self._rows("epoch, budget, granted_usd, released_usd, closed FROM budget_slice WHERE budget")
        counts = self._rows("epoch, name, granted, released, closed FROM limit_slice WHERE name")
        slices = {(who, name): Slice(from_decimal(g), from_decimal(r), closed) for who, name, g, r, closed in money}
        slices |= {(who, name): Slice(g, r, closed) for who, name, g, r, closed in counts}
        assert slices == self.model.slices

    def _rows(self, what: str) -> list[tuple[Any, ...]]:
        """Of this run's names."""
        statement = f"SELECT {what} = ANY(%s)".encode()
        return self.ground.reader.execute(statement, (list(self.of.values()),)).fetchall()

    @precondition(lambda self: self.workers)
    @invariant()
    def no_slice_is_above_a_limit(self) -> None:
        for name, span in self.model.spans.items():
            if not name.startswith("soft"):
                assert 0 <= span.granted <= self.model.peak[name] + self.model.beyond[name]
        for worker in self.workers:
            for name in (*BUDGETS, *QUOTAS):
                book, key = worker.counters if name in QUOTAS else worker.slices, self._key(name)
                had = self.model.slices.get((worker.epoch, key[0]), Slice())
                held = book.available(*key) + book.reserved_by_key().get(key, 0) + book.spent(*key)
                assert held + book.released(*key) == worker.booked[name] <= had.granted
                if name in BUDGETS:
                    assert book.spent(*key) == self.model.spent[worker.epoch, key[0]]

    def teardown(self) -> None:
        """All die: of the budgets is granted what was spent, and no call is open."""
        if not self.workers:
            return
        for slot in range(2):
            self._bury(slot)
        spent: Counter[str] = Counter()
        for (_, name), cost in self.model.spent.items():
            spent[name] += cost
        granted = self._rows("budget, granted_usd FROM budget_period WHERE budget")
        assert {name: from_decimal(had) for name, had in granted} == {
            name: spent[name] for name in self.model.spans if name in self.budgets
        }
        running = dict(self._rows("name, granted FROM limit_span WHERE name")).get(self.of["concurrent"], 0)
        assert running == 0


def test_the_database_equals_its_model(database: Database, tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    try:
        with (
            psycopg.connect(database.urls["shipper"], autocommit=True) as shipper,
            psycopg.connect(database.superuser, autocommit=True) as reader,
        ):
            ground = Ground(loop, database, tmp_path, shipper, reader)

            class Here(GrantMachine):
                def __init__(self) -> None:
                    super().__init__(ground)

            run_state_machine_as_test(
                Here,
                settings=settings(
                    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )  # fmt: skip
    finally:
        loop.close()
