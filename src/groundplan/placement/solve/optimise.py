"""The solver's entry point: from a problem to a placement with its cost and its proven bound.

Deterministic under a work limit: the same problem, limit and seed give the same answer byte for byte. With a clock the
answer is the best at that moment, and says so. No answer should be shown that `placement.verify` has not passed.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Certificate, Indices, Ints, Problem, Solution, Stop, WorkLimit
from groundplan.placement.solve import certify
from groundplan.placement.solve.arrays import Arrays, build_arrays
from groundplan.placement.solve.neighbourhoods import Plan
from groundplan.placement.solve.search import find_plan
from groundplan.placement.solve.work_limit import WorkBudget


def optimise(problem: Problem, limit: WorkLimit | None = None, start: Indices | None = None) -> Solution:
    """Place all parts. `stop_reason` says why the search ended; with `infeasible` there is no placement at all. `start`
    [P] is a choice to begin from, such as the best one of a simpler problem; one that breaks a rule is ignored."""
    budget = WorkBudget(limit or WorkLimit())
    data = build_arrays(problem)
    if not data.part_count:
        return _solution(problem, data, None, certify.trivial_certificate(problem), "optimal", budget)
    if len(data.empty_parts()):
        return _solution(problem, data, None, certify.trivial_certificate(problem), "infeasible", budget)
    plan, certificate, impossible = find_plan(data, budget, None if start is None else _local_choice(data, start))
    return _solution(problem, data, plan, certificate, "infeasible" if impossible else None, budget)


def _local_choice(data: Arrays, choice: Indices) -> Ints | None:
    """[P] the problem's option indices as indices of `Arrays`; None where one of these options is excluded."""
    at = np.minimum(np.searchsorted(data.index, choice), len(data.index) - 1)
    found: Ints = at.astype(np.int64)
    return found if bool((data.index[found] == choice).all()) else None


def _solution(
    problem: Problem, data: Arrays, plan: Plan | None, certificate: Certificate, stop: Stop | None, budget: WorkBudget
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
        stop_reason=stop or _stop_reason(plan, certificate, budget),
        work=budget.work_done,
    )


def _stop_reason(plan: Plan | None, certificate: Certificate, budget: WorkBudget) -> Stop:
    if plan is not None and plan.cost == certificate.bound:
        return "optimal"
    gap = budget.limit.gap
    if plan is not None and gap > 0 and plan.cost - certificate.bound <= gap * max(1, certificate.bound):
        return "gap"
    return "clock" if budget.stopped_by_clock else "work"
