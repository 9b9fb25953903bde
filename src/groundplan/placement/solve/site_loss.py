"""The placement after the loss of a site: everything that ran there is placed anew, and nothing else moves unless it
must.

First only the lost parts are placed, at the least cost with all others in place. Where that is impossible, others move
too: as few as possible, with a lower bound on how many. Parts of one workload that are tied together count separately.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from groundplan.placement.problem import Certificate, Flags, Ints, Problem, Solution, WorkLimit
from groundplan.placement.solve import certify
from groundplan.placement.solve.arrays import Arrays, build_arrays
from groundplan.placement.solve.local_search import LocalSearch
from groundplan.placement.solve.neighbourhoods import Plan, build_plan
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.solve.submodel import Effort, solve_submodel

LOST = "the site is lost"
_EFFORT = 0.4
_SEARCH_BELOW = 4_000


@dataclass(frozen=True, slots=True, eq=False)
class SiteLossResult:
    """The placement after the loss of a site."""

    problem: Problem
    """without the site"""
    solution: Solution
    parts_at_site: int
    """how many parts ran at the lost site"""
    moved_parts: int
    """how many parts take another option than before"""
    min_moved_parts: int
    """a lower bound: no placement moves fewer parts"""


def without_site(problem: Problem, site: int) -> Problem:
    """The same problem with every option at a site excluded by one more rule."""
    options = problem.options
    excluded = np.flatnonzero(options.site == site)
    counts = np.diff(options.rule_start)
    counts[excluded] += 1
    start = np.append(0, np.cumsum(counts)).astype(np.int64)
    rule = np.full(int(start[-1]), len(problem.rules), dtype=np.int32)
    keeper = np.repeat(np.arange(len(options.part)), np.diff(options.rule_start))
    offset = np.arange(len(options.rule)) - options.rule_start[keeper]
    rule[start[keeper] + offset] = options.rule
    name = f"{problem.sites.names[site]}: {LOST}"
    return replace(problem, options=replace(options, rule_start=start, rule=rule), rules=(*problem.rules, name))


def solve_site_loss(problem: Problem, before: Solution, site: int, limit: WorkLimit | None = None) -> SiteLossResult:
    """Place anew what ran at `site`, moving as few other parts as possible.

    The bound of the answer is that of its multipliers on the smaller problem. `limit` applies where others must move.
    """
    reduced_problem = without_site(problem, site)
    data = build_arrays(reduced_problem)
    parts_at_site = np.flatnonzero(problem.options.site[before.choice] == site)
    certificate = _certificate(data, before.certificate)
    empty = Solution(before.choice[:0], before.units * 0, 0, certificate, "infeasible", 0)
    if len(data.empty_parts()):
        return SiteLossResult(reduced_problem, empty, len(parts_at_site), 0, 0)
    local = _local_choice(data, before.choice.astype(np.int64))
    is_lost = local < 0
    start = np.where(is_lost, data.part_start[:-1], local)
    plan, complete = _place_lost_parts(data, start, np.flatnonzero(is_lost))
    if plan is not None:
        return SiteLossResult(
            reduced_problem,
            _solution(data, plan, certificate),
            len(parts_at_site),
            int(is_lost.sum()),
            int(is_lost.sum()),
        )
    min_moved_parts = int(is_lost.sum()) + int(complete)
    return _move_others(reduced_problem, data, local, certificate, min_moved_parts, limit, len(parts_at_site))


def _certificate(data: Arrays, certificate: Certificate) -> Certificate:
    """The same multipliers, valued on the problem without the site."""
    part = certificate.part / certificate.scale
    return certify.linear_certificate(data, part, certificate.row / certificate.scale)


def _local_choice(data: Arrays, choice: Ints) -> Ints:
    """[P] the problem's option indices as indices of `Arrays`, -1 where an option is excluded."""
    at = np.searchsorted(data.index, choice)
    at = np.minimum(at, len(data.index) - 1)
    found: Ints = np.where(data.index[at] == choice, at, -1)
    return found


def _place_lost_parts(data: Arrays, start: Ints, lost: Ints) -> tuple[Plan | None, bool]:
    """Move only the lost parts. Returns also whether it is proven that this is impossible."""
    keep: Flags = np.ones(len(data.index), dtype=np.bool_)
    movable: Flags = np.zeros(data.part_count, dtype=np.bool_)
    movable[lost] = True
    local_search = LocalSearch(data, start, data.price, keep & movable[data.part])
    for part in np.flatnonzero(~movable):
        local_search.tabu_until[part] = 2**40
    found = build_plan(data, local_search.choice) if local_search.repair(60 * len(lost) + 100) else None
    complete = False
    if int((data.part_start[lost + 1] - data.part_start[lost]).sum()) <= _SEARCH_BELOW:
        answer = solve_submodel(data, lost, keep, start if found is None else found.choice, Effort(_EFFORT, 0.5))
        complete = answer.complete
        better = None if answer.choice is None else build_plan(data, answer.choice)
        if better is not None and (found is None or better.cost < found.cost):
            found = better
    return found, complete and found is None


def _move_others(
    reduced_problem: Problem,
    data: Arrays,
    local: Ints,
    certificate: Certificate,
    min_moved_parts: int,
    limit: WorkLimit | None,
    parts_at_site: int,
) -> SiteLossResult:
    """Let other parts move, as few as possible: an option costs 1 where it differs from before, else 0."""
    stays = np.isin(data.index, data.index[local[local >= 0]])
    terms = np.ones((len(reduced_problem.options.part), 1), dtype=np.int64)
    terms[data.index[stays]] = 0
    moves = replace(
        reduced_problem,
        options=replace(reduced_problem.options, terms=terms),
        terms=("moves",),
        sites=replace(reduced_problem.sites, opening=np.zeros_like(reduced_problem.sites.opening)),
        tiers=replace(reduced_problem.tiers, price=np.zeros_like(reduced_problem.tiers.price)),
    )
    counted = optimise(moves, limit or WorkLimit(seconds=10.0))
    least = max(min_moved_parts, counted.bound)
    if not counted.is_found:
        empty = Solution(counted.choice, counted.units, 0, certificate, counted.stop_reason, counted.work)
        return SiteLossResult(reduced_problem, empty, parts_at_site, 0, least)
    plan = build_plan(data, _local_choice(data, counted.choice.astype(np.int64)))
    assert plan is not None
    return SiteLossResult(
        reduced_problem, _solution(data, plan, certificate), parts_at_site, counted.cost, min(least, counted.cost)
    )


def _solution(data: Arrays, plan: Plan, certificate: Certificate) -> Solution:
    return Solution(
        choice=data.index[plan.choice].astype(np.int32),
        units=plan.units,
        cost=plan.cost,
        certificate=certificate,
        stop_reason="optimal" if plan.cost == certificate.bound else "work",
        work=1,
    )
