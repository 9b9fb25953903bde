"""Companies of any shape: prices of capacity, the relaxation, a plan mended from it, then neighbourhoods.

Large problems are relaxed over the options that matter at those prices; the bound is taken over all options. What the
relaxation proves impossible is impossible; what the mending does not find is asked of CP-SAT, if it is small enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Certificate, Flags, Ints
from groundplan.placement.solve import certify, warm
from groundplan.placement.solve.arrays import Arrays, Floats, subset
from groundplan.placement.solve.assignment import claimed, mended
from groundplan.placement.solve.budget import Budget
from groundplan.placement.solve.neighbourhoods import Bounds, Plan, improve, plan_of, promising
from groundplan.placement.solve.relax import Relaxation, relax
from groundplan.placement.solve.shift import Shift
from groundplan.placement.solve.submodel import Effort, search

_ALL_BELOW = 12_000
"""options; above, the relaxation begins with the nearest ones"""
_NEAR, _NEARER = 12, 3
_ROUGH, _FINER = 30, 150
_WHOLE_BELOW = 8_000
"""options with which CP-SAT is asked for the whole"""
_AIM = 24
_BATCH = 25


@dataclass(slots=True)
class Run:
    """What is known so far."""

    data: Arrays
    budget: Budget
    certificate: Certificate
    linear: Certificate
    reduced: Floats
    plan: Plan | None = None
    impossible: bool = False

    def take(self, plan: Plan | None) -> None:
        """Keep the better plan."""
        if plan is not None and (self.plan is None or plan.cost < self.plan.cost):
            self.plan = plan

    def prove(self, certificate: Certificate, part: Floats, row: Floats) -> None:
        """Keep the better multipliers."""
        if certificate.value > self.linear.value:
            self.linear = self.certificate = certificate
            self.reduced = self.data.reduced(part, row)

    @property
    def done(self) -> bool:
        """Nothing more can or may be found, or it is near enough."""
        if self.impossible or self.budget.over():
            return True
        if self.plan is None:
            return False
        bound = self.certificate.bound
        return self.plan.cost - bound <= self.budget.limit.gap * max(0, bound)


def place(data: Arrays, budget: Budget) -> tuple[Plan | None, Certificate, bool]:
    """The best plan found, its bound, and whether it is proven that there is none."""
    nothing = certify.nothing(data.problem)
    run = Run(data, budget, nothing, nothing, data.price)
    kept = _prices(run)
    relaxation = _relaxed(run, kept)
    if relaxation is not None and not run.done:
        run.take(mended(data, relaxation, budget))
    if run.plan is None and not run.impossible:
        run.take(_rough(run))
    if run.plan is None and not run.impossible:
        run.impossible = _whole(run, 20.0)
    _search(run)
    return run.plan, run.certificate, run.impossible and run.plan is None


def _prices(run: Run) -> Ints | None:
    """The options to relax over (None: all), after rough prices that already prove something."""
    data, budget = run.data, run.budget
    if len(data.index) < _ALL_BELOW:
        return None
    prices = warm.row_prices(data, _ROUGH, budget.share(0.15))
    near = warm.nearest(data, prices, _NEAR)
    prices = warm.row_prices(subset(data, near), _FINER, budget.share(0.2), prices, 0.02)
    part = np.minimum.reduceat(data.reduced(np.zeros(data.parts), prices), data.first[:-1])
    run.prove(certify.linear(data, part, prices), part, prices)
    return warm.nearest(data, prices, _NEARER)


def _relaxed(run: Run, kept: Ints | None) -> Relaxation | None:
    """The relaxation; where it was over few options, its multipliers are lowered to hold for all."""
    data, left = run.data, run.budget.seconds_left
    relaxation = relax(data, kept, seconds=None if left is None else max(0.2, left * 0.7))
    if relaxation is None:
        run.impossible = kept is None and not run.budget.over(0.05 * (run.budget.limit.seconds or 0.0))
        return None
    part = relaxation.part
    if kept is not None:
        outside: Flags = np.ones(len(data.index), dtype=np.bool_)
        outside[kept] = False
        part = part.copy()
        priced = data.reduced(np.zeros(data.parts), relaxation.row)
        np.minimum.at(part, data.part[outside], priced[outside])
    run.prove(certify.linear(data, part, relaxation.row), part, relaxation.row)
    return relaxation


def _rough(run: Run) -> Plan | None:
    """Without a relaxation: every part where it is cheapest at the best prices known, mended."""
    data = run.data
    shift = Shift(data, data.cheapest(run.reduced), run.reduced)
    if not shift.mend(2000 + 4 * data.parts):
        return None
    run.budget.spend()
    return plan_of(data, shift.choice)


def _search(run: Run) -> None:
    """Neighbourhoods until the limit, with attempts at the whole that grow."""
    batch, work = 0, 2.0
    while not run.done and run.plan is not None:
        bounds = Bounds(run.certificate.bound, run.linear.value, run.reduced)
        run.take(improve(run.data, run.plan, bounds, run.budget, _BATCH, 1000 * batch, _AIM))
        batch += 1
        if not run.done and _whole(run, work):
            return
        work *= 2


def _whole(run: Run, work: float) -> bool:
    """CP-SAT over all options that may still matter. True where it was searched through."""
    data, plan, budget = run.data, run.plan, run.budget
    keep: Flags = np.ones(len(data.index), dtype=np.bool_)
    if plan is not None:
        keep = promising(data, run.reduced, run.linear.value, plan.cost)
        keep[plan.choice] = True
    if int(keep.sum()) > _WHOLE_BELOW:
        return False
    effort = Effort(work, budget.seconds_left, seed=budget.limit.seed, threads=budget.limit.threads)
    answer = search(data, np.arange(data.parts), keep, None if plan is None else plan.choice, effort)
    budget.spend()
    run.take(None if answer.choice is None else plan_of(data, answer.choice))
    if answer.bound is not None and run.plan is not None:
        above = answer.bound if plan is None else min(answer.bound, plan.cost)
        if above > run.certificate.bound:
            run.certificate = claimed(run.certificate, min(above, run.plan.cost))
    return answer.complete
