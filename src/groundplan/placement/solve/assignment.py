"""Problems where every site is one knapsack: generalised assignment, by columns, dives and neighbourhoods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Certificate, Flags
from groundplan.placement.solve import certify
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.budget import Budget
from groundplan.placement.solve.columns import Master, Point, Rest, Table, dive, generate
from groundplan.placement.solve.neighbourhoods import Bounds, Plan, improve, plan_of, promising
from groundplan.placement.solve.relax import Relaxation, relax
from groundplan.placement.solve.shift import Shift
from groundplan.placement.solve.submodel import Effort, search

_LEAVE = 35
"""parts that a dive leaves to CP-SAT"""
_AIM = 36
"""parts of a neighbourhood at first"""
_BATCH = 20
_DIVES = 5
_FIRST_ROUNDS = 8
_SHARE = 0.2
"""of the clock for the columns, and for each dive"""


@dataclass(slots=True)
class Run:
    """One run: what is known so far."""

    data: Arrays
    table: Table
    budget: Budget
    linear: Certificate
    reduced: Floats
    """[O] of the linear multipliers"""
    certificate: Certificate
    plan: Plan | None = None

    @property
    def done(self) -> bool:
        """Nothing more can or may be found."""
        return self.budget.over() or (self.plan is not None and self.plan.cost <= self.certificate.bound)

    def take(self, plan: Plan | None) -> None:
        """Keep the better plan."""
        if plan is not None and (self.plan is None or plan.cost < self.plan.cost):
            self.plan = plan

    def prove(self, certificate: Certificate) -> None:
        """Keep the better bound."""
        if certificate.bound > self.certificate.bound:
            self.certificate = certificate


def assign(data: Arrays, table: Table, budget: Budget) -> tuple[Plan | None, Certificate, bool]:
    """The best plan found, its bound, and whether it is proven that there is none."""
    relaxation = relax(data)
    if relaxation is None:
        return None, certify.nothing(data.problem), True
    linear = certify.linear(data, relaxation.part, relaxation.row)
    run = Run(data, table, budget, linear, data.reduced(relaxation.part, relaxation.row), linear)
    run.take(mended(data, relaxation, budget))
    impossible = run.plan is None and _settle(run, _FIRST)
    if not run.done and not impossible:
        _columns(run, relaxation)
    _finish(run)
    return run.plan, run.certificate, impossible and run.plan is None


_FIRST, _FULL = 5.0, 4.0


def mended(data: Arrays, relaxation: Relaxation, budget: Budget) -> Plan | None:
    """Every part where most of it is in the relaxation, moved until every row holds."""
    reduced = data.reduced(relaxation.part, relaxation.row)
    spread = float(np.abs(data.price).max(initial=1.0)) + 1.0
    start = data.cheapest(-relaxation.share + 1e-9 * (reduced - reduced.min(initial=0.0)) / spread)
    shift = Shift(data, start, reduced)
    if not shift.mend(400 + 4 * data.parts):
        return None
    plan = plan_of(data, shift.choice)
    shift.value = data.price
    shift.polish(10)
    polished = plan_of(data, shift.choice)
    budget.spend()
    return polished if plan is None or (polished is not None and polished.cost < plan.cost) else plan


def _columns(run: Run, relaxation: Relaxation) -> None:
    """Generate columns for a bound, then dive for plans, each followed by some neighbourhoods."""
    data, table, budget = run.data, run.table, run.budget
    run.take(_searched(run, _FIRST_ROUNDS, 0))
    if data.parts > 14 * data.sites or data.parts > 500 or run.done:
        return
    master = Master(table)
    everything = Rest(np.arange(data.sites), np.arange(data.parts), (), 0)
    point = generate(master, everything, relaxation.part, budget.share(_SHARE), 600)
    run.prove(certify.knapsack(data, table.cost, table.use, table.capacity, point.center))
    draw = np.random.Generator(np.random.PCG64(budget.limit.seed))
    for number in range(_DIVES):
        if run.done:
            return
        run.take(_dived(run, master, point, draw))
        budget.spend()
        run.take(_searched(run, _FIRST_ROUNDS, number + 1))


def _dived(run: Run, master: Master, point: Point, draw: np.random.Generator) -> Plan | None:
    """One dive; what it leaves is placed by CP-SAT, the fixed parts stay."""
    data, table = run.data, run.table
    leave = max(2, round(_LEAVE * data.sites / data.parts))
    placed, _ = dive(master, point.center, run.budget.share(_SHARE), draw, leave)
    fixed = placed >= 0
    choice = data.first[:-1].copy()
    options = table.option[np.maximum(placed, 0), np.arange(data.parts)]
    choice[fixed] = options[fixed]
    keep: Flags = np.ones(len(data.index), dtype=np.bool_)
    effort = Effort(2.0, run.budget.seconds_left, seed=run.budget.limit.seed)
    limit = None if run.plan is None else run.plan.cost - 1 - sum(data.cost[choice[fixed]].tolist())
    answer = search(data, np.flatnonzero(~fixed), keep, choice, effort, limit)
    return None if answer.choice is None else plan_of(data, answer.choice)


def _searched(run: Run, rounds: int, seed: int) -> Plan | None:
    if run.plan is None:
        return None
    bounds = Bounds(run.certificate.bound, run.linear.value, run.reduced)
    return improve(run.data, run.plan, bounds, run.budget, rounds, seed, _AIM)


def _finish(run: Run) -> None:
    """Neighbourhoods until the limit, with an attempt at the whole now and then."""
    batch, work = 0, _FULL
    while not run.done and run.plan is not None:
        if _settle(run, work):
            return
        work *= 2
        batch += 1
        for _ in range(3):
            batch += 1
            run.take(_searched(run, _BATCH, batch * 1000))


def _settle(run: Run, work: float) -> bool:
    """CP-SAT on the whole, over the options that may still matter; True where that was searched through."""
    data, plan = run.data, run.plan
    keep: Flags = np.ones(len(data.index), dtype=np.bool_)
    if plan is not None:
        keep = promising(data, run.reduced, run.linear.value, plan.cost)
        keep[plan.choice] = True
    if int(keep.sum()) > 6000:
        return False
    effort = Effort(work, run.budget.seconds_left, seed=run.budget.limit.seed, threads=run.budget.limit.threads)
    now, limit = (None, None) if plan is None else (plan.choice, plan.cost - 1)
    answer = search(data, np.arange(data.parts), keep, now, effort, limit)
    run.budget.spend()
    run.take(None if answer.choice is None else plan_of(data, answer.choice))
    if answer.complete and run.plan is not None:
        run.prove(claimed(run.certificate, run.plan.cost))
    return answer.complete


def claimed(certificate: Certificate, bound: int) -> Certificate:
    """The same multipliers beside a larger bound that only branching proves."""
    return Certificate(
        certificate.method, certificate.scale, certificate.part, certificate.row, certificate.value, bound
    )
