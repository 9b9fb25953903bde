"""What becomes of a plan when a site is lost: everything that ran there is placed anew, and nothing else moves unless
it must.

First only the lost parts are placed, at the least cost beside all others. Where that is impossible, others may move
too: the fewest, with a lower bound on how many. Parts of one workload that are tied together count each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from groundplan.placement.problem import Certificate, Flags, Ints, Problem, Solution, WorkLimit
from groundplan.placement.solve import certify
from groundplan.placement.solve.arrays import Arrays, arrays
from groundplan.placement.solve.local_search import Shift
from groundplan.placement.solve.neighbourhoods import Plan, plan_of
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.solve.submodel import Effort, search

LOST = "the site is lost"
_EFFORT = 0.4
_SEARCH_BELOW = 4_000


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """The placement after a loss."""

    problem: Problem
    """without the site"""
    solution: Solution
    there: int
    """parts that ran at the lost site"""
    moved: int
    """parts that take another option than before"""
    fewest: int
    """no placement moves fewer parts"""


def without_site(problem: Problem, site: int) -> Problem:
    """The same problem with every option at a site excluded by one more rule."""
    options = problem.options
    gone = np.flatnonzero(options.site == site)
    counts = np.diff(options.rule_start)
    counts[gone] += 1
    start = np.append(0, np.cumsum(counts)).astype(np.int64)
    rule = np.full(int(start[-1]), len(problem.rules), dtype=np.int32)
    keeper = np.repeat(np.arange(len(options.part)), np.diff(options.rule_start))
    offset = np.arange(len(options.rule)) - options.rule_start[keeper]
    rule[start[keeper] + offset] = options.rule
    name = f"{problem.sites.names[site]}: {LOST}"
    return replace(problem, options=replace(options, rule_start=start, rule=rule), rules=(*problem.rules, name))


def after_loss(problem: Problem, before: Solution, site: int, limit: WorkLimit | None = None) -> Loss:
    """Place anew what ran at `site`, moving as little else as possible.

    The bound of the answer is that of its multipliers on the smaller problem. `limit` is for the case that others must
    move.
    """
    left = without_site(problem, site)
    data = arrays(left)
    there = np.flatnonzero(problem.options.site[before.choice] == site)
    certificate = _certificate(data, before.certificate)
    empty = Solution(before.choice[:0], before.units * 0, 0, certificate, "infeasible", 0)
    if len(data.empty_parts()):
        return Loss(left, empty, len(there), 0, 0)
    local = _local(data, before.choice.astype(np.int64))
    lost = local < 0
    start = np.where(lost, data.first[:-1], local)
    plan, complete = _placed_beside(data, start, np.flatnonzero(lost))
    if plan is not None:
        return Loss(left, _solution(data, plan, certificate), len(there), int(lost.sum()), int(lost.sum()))
    fewest = int(lost.sum()) + int(complete)
    return _moving_others(left, data, local, certificate, fewest, limit, len(there))


def _certificate(data: Arrays, certificate: Certificate) -> Certificate:
    """The same multipliers, valued on the problem without the site."""
    part = certificate.part / certificate.scale
    return certify.linear(data, part, certificate.row / certificate.scale)


def _local(data: Arrays, choice: Ints) -> Ints:
    """[P] options of the problem -> options of the arrays, -1 where they are gone."""
    at = np.searchsorted(data.index, choice)
    at = np.minimum(at, len(data.index) - 1)
    found: Ints = np.where(data.index[at] == choice, at, -1)
    return found


def _placed_beside(data: Arrays, start: Ints, lost: Ints) -> tuple[Plan | None, bool]:
    """Only the lost parts move. Also whether it is proven that they cannot be placed alone."""
    keep: Flags = np.ones(len(data.index), dtype=np.bool_)
    movable: Flags = np.zeros(data.parts, dtype=np.bool_)
    movable[lost] = True
    shift = Shift(data, start, data.price, keep & movable[data.part])
    for part in np.flatnonzero(~movable):
        shift.rest[part] = 2**40
    found = plan_of(data, shift.choice) if shift.mend(60 * len(lost) + 100) else None
    complete = False
    if int((data.first[lost + 1] - data.first[lost]).sum()) <= _SEARCH_BELOW:
        answer = search(data, lost, keep, start if found is None else found.choice, Effort(_EFFORT, 0.5))
        complete = answer.complete
        better = None if answer.choice is None else plan_of(data, answer.choice)
        if better is not None and (found is None or better.cost < found.cost):
            found = better
    return found, complete and found is None


def _moving_others(
    left: Problem, data: Arrays, local: Ints, certificate: Certificate, fewest: int, limit: WorkLimit | None, there: int
) -> Loss:
    """Others must move: the cost of an option is now 1 where it differs from before, 0 where it does not."""
    stays = np.isin(data.index, data.index[local[local >= 0]])
    terms = np.ones((len(left.options.part), 1), dtype=np.int64)
    terms[data.index[stays]] = 0
    moves = replace(
        left,
        options=replace(left.options, terms=terms),
        terms=("moves",),
        sites=replace(left.sites, opening=np.zeros_like(left.sites.opening)),
        tiers=replace(left.tiers, price=np.zeros_like(left.tiers.price)),
    )
    counted = optimise(moves, limit or WorkLimit(seconds=10.0))
    least = max(fewest, counted.bound)
    if not counted.is_found:
        empty = Solution(counted.choice, counted.units, 0, certificate, counted.stop_reason, counted.work)
        return Loss(left, empty, there, 0, least)
    plan = plan_of(data, _local(data, counted.choice.astype(np.int64)))
    assert plan is not None
    return Loss(left, _solution(data, plan, certificate), there, counted.cost, min(least, counted.cost))


def _solution(data: Arrays, plan: Plan, certificate: Certificate) -> Solution:
    return Solution(
        choice=data.index[plan.choice].astype(np.int32),
        units=plan.units,
        cost=plan.cost,
        certificate=certificate,
        stop_reason="optimal" if plan.cost == certificate.bound else "work",
        work=1,
    )
