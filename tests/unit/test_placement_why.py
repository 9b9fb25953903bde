"""What a plan says of itself is confirmed by solving again: runner-up, break-even, conflict."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest

from groundplan.placement.alternatives import BreakEven, RunnerUp, break_even, parts_of, runner_up
from groundplan.placement.assemble import Choice, Job, Piece, Place, Quota, assemble
from groundplan.placement.conflict import conflict, rules_of, without
from groundplan.placement.generate.random_company import random_company
from groundplan.placement.problem import PRIMARY, Problem, Solution, WorkLimit
from groundplan.placement.solve.arrays import arrays
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.solve.price import priced

GROWING = ("compute",)


def cost_of(problem: Problem, choice: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int | None:
    data = arrays(problem)
    local = np.searchsorted(data.index, choice)
    found = priced(data, local)
    return None if found is None else found[0]


def tried(problem: Problem, solution: Solution, workload: int) -> int | None:
    """The least cost of all plans that differ in this workload alone and run its primary load elsewhere."""
    data, mine = arrays(problem), parts_of(problem, workload)
    primary = {int(problem.options.site[solution.choice[p]]) for p in mine if problem.parts.role[p] == PRIMARY}
    ways = []
    for part in mine:
        options = [int(each) for each in data.index[data.first[part] : data.first[part + 1]]]
        if problem.parts.role[part] == PRIMARY:
            options = [each for each in options if int(problem.options.site[each]) not in primary]
        ways.append(options)
    best: int | None = None
    for way in product(*ways):
        choice = solution.choice.astype(np.int64)
        choice[mine] = way
        cost = cost_of(problem, choice)
        if cost is not None and (best is None or cost < best):
            best = cost
    return best


def confirm_runner_up(problem: Problem, solution: Solution, workload: int) -> RunnerUp | None:
    stated = runner_up(problem, solution, workload)
    best = tried(problem, solution, workload)
    assert (stated is None) == (best is None)
    if stated is not None:
        assert best is not None
        assert stated.extra == best - solution.cost
    return stated


def scaled(problem: Problem, workload: int, factor: Fraction) -> Problem:
    """The same problem with this workload's growing terms at another demand, in finer money."""
    terms = problem.options.terms.astype(object) * factor.denominator
    mine = np.isin(problem.options.part, parts_of(problem, workload))
    for at, name in enumerate(problem.terms):
        if name in GROWING:
            terms[mine, at] = problem.options.terms[mine, at].astype(object) * factor.numerator
    shrunk = np.array([[int(each) // 10**6 for each in row] for row in terms], dtype=np.int64)
    tiers = replace(problem.tiers, price=problem.tiers.price * factor.denominator // 10**6)
    sites = replace(problem.sites, opening=problem.sites.opening * factor.denominator // 10**6)
    return replace(problem, options=replace(problem.options, terms=shrunk), tiers=tiers, sites=sites)


def confirm_break_even(problem: Problem, solution: Solution, workload: int, other: RunnerUp) -> None:
    """On one side of the stated demand the plan is cheaper, on the other side the runner-up."""
    stated = break_even(problem, solution, workload, other, GROWING)
    choice = solution.choice.astype(np.int64)
    choice[parts_of(problem, workload)] = other.options
    factors = [Fraction(1, 2), Fraction(3)]
    if stated is not None:
        coarse = stated.factor.limit_denominator(1000)
        factors = [coarse * Fraction(9, 10), coarse * Fraction(11, 10)]
    wins = []
    for factor in factors:
        at = scaled(problem, workload, factor)
        there, here = cost_of(at, choice), cost_of(at, solution.choice.astype(np.int64))
        assert there is not None and here is not None
        wins.append(there < here - 1000)
    if stated is None:
        assert wins[0] == wins[1] or other.extra <= 0
    else:
        assert wins == ([False, True] if stated.above else [True, False])


def confirm_conflict(problem: Problem) -> None:
    """What is named admits no placement beside nothing else; without any one of it there is one."""
    stated = conflict(problem, WorkLimit(work=1))
    assert stated is not None
    named = [each.rule for each in stated.rules]
    others = [rule for rule in rules_of(problem) if rule not in named]
    assert not optimise(without(problem, others), WorkLimit(work=1)).found
    for rule in named:
        assert optimise(without(problem, [*others, rule]), WorkLimit(work=1)).found
    for each in stated.rules:
        again = optimise(without(problem, [each.rule]), WorkLimit(work=1))
        assert (again.cost if again.found else None) == each.cost


def confirm(seeds: range) -> tuple[int, int, int]:
    plans = turns = conflicts = 0
    for seed in seeds:
        company = random_company(seed, 12, 8, shared=seed % 4 == 0)
        solution = optimise(company.problem, WorkLimit(work=1))
        if not solution.found:
            assert solution.stopped == "infeasible"
            confirm_conflict(company.problem)
            conflicts += 1
            continue
        workload = seed % len(company.workloads)
        other = confirm_runner_up(company.problem, solution, workload)
        plans += 1
        if other is not None:
            confirm_break_even(company.problem, solution, workload, other)
            turns += break_even(company.problem, solution, workload, other, GROWING) is not None
    return plans, turns, conflicts


def test_what_random_plans_say_is_confirmed_by_solving_again() -> None:
    plans, turns, conflicts = confirm(range(1, 26))
    assert plans > 5
    assert turns > 1
    assert conflicts > 1


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_what_a_thousand_random_plans_say_is_confirmed_by_solving_again() -> None:
    plans, _, _ = confirm(range(1, 2001))
    assert plans >= 1000


def test_the_smallest_conflict_is_named_and_priced() -> None:
    places = [Place("eu", "one", {"gpu": 4}), Place("us", "two", {"gpu": 9})]
    outside = ("residency EU",)
    jobs = [
        Job(
            name,
            (
                Piece(
                    (Choice("eu", {"compute": 5}, {"gpu": 3}), Choice("us", {"compute": 2}, {"gpu": 3}, rules=outside))
                ),
            ),
        )
        for name in ("finance", "research")
    ]
    found = conflict(assemble(places, jobs))
    assert found is not None and found.smallest
    prices = {each.rule: each.cost for each in found.rules}
    assert prices == {"finance: residency EU": 7, "research: residency EU": 7, "eu gpu": 10}


def test_a_smaller_conflict_beside_a_larger_one_is_preferred() -> None:
    places = [Place("a", "one", {"gpu": 1}), Place("b", "two", {"gpu": 1})]
    tight = tuple(Choice(site, {}, {"gpu": 1}) for site in "ab")
    never = (Choice("a", {}, rules=("licence",)), Choice("b", {}, rules=("licence",)))
    jobs = [*(Job(f"w{at}", (Piece(tight),)) for at in range(3)), Job("x", (Piece(never),))]
    found = conflict(assemble(places, jobs))
    assert found is not None
    assert [(each.rule, each.cost) for each in found.rules] == [("x: licence", None)]


def test_a_smaller_conflict_of_others_is_found_beside_one_that_a_workload_has_alone() -> None:
    places = [Place(site, site, {"gpu": 9}) for site in "abc"]
    ruled = tuple(Choice(site, {}, {"gpu": 1}, rules=(f"rule {site}",)) for site in "abc")
    both = tuple(Choice(site, {}, {"gpu": 1, "tokens": 2}) for site in "abc")
    jobs = [Job("alone", (Piece(ruled),)), Job("y", (Piece(both),)), Job("z", (Piece(both),))]
    found = conflict(assemble(places, jobs, [Quota("tokens", 3)]))
    assert found is not None and found.smallest
    assert [(each.rule, each.cost) for each in found.rules] == [("tokens", None)]
    fits = conflict(assemble(places, jobs, [Quota("tokens", 4)]))
    assert fits is not None and fits.smallest and len(fits.rules) == 3


def test_several_workloads_that_only_together_have_no_place_are_found() -> None:
    places = [Place("a", "a", {"gpu": 5}), Place("b", "b", {"gpu": 5})]
    jobs = [Job(f"w{at}", (Piece(tuple(Choice(site, {}, {"gpu": 2}) for site in "ab")),)) for at in range(5)]
    found = conflict(assemble(places, jobs))
    assert found is not None and found.smallest
    assert [each.rule for each in found.rules] == ["a gpu", "b gpu"] and all(each.cost == 0 for each in found.rules)


def test_where_there_is_a_placement_there_is_no_conflict() -> None:
    problem = assemble([Place("a", "a")], [Job("w", (Piece((Choice("a", {"compute": 1}),)),))], [Quota("q", 1)])
    assert conflict(problem) is None
    assert all(conflict(without(problem, [*pair])) is None for pair in combinations(rules_of(problem), 1))


def test_own_hardware_wins_above_the_break_even() -> None:
    own = Choice("own", {"compute": 400, "people": 300, "tokens": 0})
    rented = Choice("cloud", {"compute": 0, "tokens": 350})
    problem = assemble([Place("own", "a"), Place("cloud", "b")], [Job("w", (Piece((own, rented)),))])
    solution = optimise(problem, WorkLimit(work=2))
    other = runner_up(problem, solution, 0)
    assert other == RunnerUp(sites=(0,), options=(0,), extra=350)
    assert break_even(problem, solution, 0, other) == BreakEven(Fraction(2), above=True)


def test_the_only_site_has_no_runner_up() -> None:
    problem = assemble([Place("a", "a")], [Job("w", (Piece((Choice("a", {"compute": 1}),)),))])
    assert runner_up(problem, optimise(problem, WorkLimit(work=2)), 0) is None
