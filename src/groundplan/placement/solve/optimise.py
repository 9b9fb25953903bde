"""One company's problem in, a placement with its price and its proven bound out.

Deterministic under a work limit: the same problem, limit and seed give the same answer byte for byte. With a clock the
answer is the best at that moment, and says so. Nobody should show an answer that `placement.verify` has not passed.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Certificate, Indices, Ints, Problem, Solution, Stop, WorkLimit
from groundplan.placement.solve import certify
from groundplan.placement.solve.arrays import Arrays, arrays
from groundplan.placement.solve.neighbourhoods import Plan
from groundplan.placement.solve.search import place
from groundplan.placement.solve.work_limit import Budget


def optimise(problem: Problem, limit: WorkLimit | None = None, start: Indices | None = None) -> Solution:
    """Place everything. `stopped` says why the search ended; with `infeasible` there is no placement at all. `start`
    [P] is a choice to begin from, such as the best one of a simpler problem; what breaks a rule is not taken."""
    budget = Budget(limit or WorkLimit())
    data = arrays(problem)
    if not data.parts:
        return _answer(problem, data, None, certify.nothing(problem), "optimal", budget)
    if len(data.empty_parts()):
        return _answer(problem, data, None, certify.nothing(problem), "infeasible", budget)
    plan, certificate, impossible = place(data, budget, None if start is None else _local(data, start))
    return _answer(problem, data, plan, certificate, "infeasible" if impossible else None, budget)


def _local(data: Arrays, choice: Indices) -> Ints | None:
    """[P] options of the problem as those of the arrays; None where one of them is excluded."""
    at = np.minimum(np.searchsorted(data.index, choice), len(data.index) - 1)
    found: Ints = at.astype(np.int64)
    return found if bool((data.index[found] == choice).all()) else None


def _answer(
    problem: Problem, data: Arrays, plan: Plan | None, certificate: Certificate, stop: Stop | None, budget: Budget
) -> Solution:
    choice: Ints = np.zeros(0, dtype=np.int64)
    units: Ints = np.zeros(len(problem.tiers.row), dtype=np.int64)
    cost = 0
    if plan is not None:
        choice, units, cost = data.index[plan.choice], plan.units, plan.cost
    return Solution(
        choice=choice.astype(np.int32),
        units=units,
        cost=cost,
        certificate=certificate,
        stop_reason=stop or _why(plan, certificate, budget),
        work=budget.done,
    )


def _why(plan: Plan | None, certificate: Certificate, budget: Budget) -> Stop:
    if plan is not None and plan.cost == certificate.bound:
        return "optimal"
    gap = budget.limit.gap
    if plan is not None and gap > 0 and plan.cost - certificate.bound <= gap * max(1, certificate.bound):
        return "gap"
    return "clock" if budget.clocked else "work"
