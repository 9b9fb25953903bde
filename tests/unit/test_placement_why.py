"""Why there is no plan is confirmed by solving again."""

from __future__ import annotations

from itertools import combinations

import pytest
from benchmarks.placement_instances.random_company import random_company

from groundplan.placement.assemble import Choice, Job, Piece, Place, Quota, assemble
from groundplan.placement.conflict import find_conflict, relaxable_rules, without_rules
from groundplan.placement.problem import Problem, WorkLimit
from groundplan.placement.solve.optimise import optimise


def confirm_conflict(problem: Problem) -> None:
    """What is named admits no placement beside nothing else; without any one of it there is one."""
    stated = find_conflict(problem, WorkLimit(work=1))
    assert stated is not None
    named = [each.rule for each in stated.rules]
    others = [rule for rule in relaxable_rules(problem) if rule not in named]
    assert not optimise(without_rules(problem, others), WorkLimit(work=1)).is_found
    for rule in named:
        assert optimise(without_rules(problem, [*others, rule]), WorkLimit(work=1)).is_found
    for each in stated.rules:
        again = optimise(without_rules(problem, [each.rule]), WorkLimit(work=1))
        assert (again.cost if again.is_found else None) == each.cost


def confirmed(seeds: range) -> int:
    """How many of these companies have no plan, each for the reason stated."""
    conflicts = 0
    for seed in seeds:
        problem = random_company(seed, 12, 8, shared=seed % 4 == 0).problem
        solution = optimise(problem, WorkLimit(work=1))
        if not solution.is_found:
            assert solution.stop_reason == "infeasible"
            confirm_conflict(problem)
            conflicts += 1
    return conflicts


def test_why_random_companies_have_no_plan_is_confirmed_by_solving_again() -> None:
    assert confirmed(range(1, 26)) > 1


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_why_hundreds_of_random_companies_have_no_plan_is_confirmed_by_solving_again() -> None:
    assert confirmed(range(1, 2001)) >= 500


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
    found = find_conflict(assemble(places, jobs))
    assert found is not None and found.smallest
    prices = {each.rule: each.cost for each in found.rules}
    assert prices == {"finance: residency EU": 7, "research: residency EU": 7, "eu gpu": 10}


def test_a_smaller_conflict_beside_a_larger_one_is_preferred() -> None:
    places = [Place("a", "one", {"gpu": 1}), Place("b", "two", {"gpu": 1})]
    tight = tuple(Choice(site, {}, {"gpu": 1}) for site in "ab")
    never = (Choice("a", {}, rules=("licence",)), Choice("b", {}, rules=("licence",)))
    jobs = [*(Job(f"w{at}", (Piece(tight),)) for at in range(3)), Job("x", (Piece(never),))]
    found = find_conflict(assemble(places, jobs))
    assert found is not None
    assert [(each.rule, each.cost) for each in found.rules] == [("x: licence", None)]


def test_a_smaller_conflict_of_others_is_found_beside_one_that_a_workload_has_alone() -> None:
    places = [Place(site, site, {"gpu": 9}) for site in "abc"]
    ruled = tuple(Choice(site, {}, {"gpu": 1}, rules=(f"rule {site}",)) for site in "abc")
    both = tuple(Choice(site, {}, {"gpu": 1, "tokens": 2}) for site in "abc")
    jobs = [Job("alone", (Piece(ruled),)), Job("y", (Piece(both),)), Job("z", (Piece(both),))]
    found = find_conflict(assemble(places, jobs, [Quota("tokens", 3)]))
    assert found is not None and found.smallest
    assert [(each.rule, each.cost) for each in found.rules] == [("tokens", None)]
    fits = find_conflict(assemble(places, jobs, [Quota("tokens", 4)]))
    assert fits is not None and fits.smallest and len(fits.rules) == 3


def test_several_workloads_that_only_together_have_no_place_are_found() -> None:
    places = [Place("a", "a", {"gpu": 5}), Place("b", "b", {"gpu": 5})]
    jobs = [Job(f"w{at}", (Piece(tuple(Choice(site, {}, {"gpu": 2}) for site in "ab")),)) for at in range(5)]
    found = find_conflict(assemble(places, jobs))
    assert found is not None and found.smallest
    assert [each.rule for each in found.rules] == ["a gpu", "b gpu"] and all(each.cost == 0 for each in found.rules)


def test_where_there_is_a_placement_there_is_no_conflict() -> None:
    problem = assemble([Place("a", "a")], [Job("w", (Piece((Choice("a", {"compute": 1}),)),))], [Quota("q", 1)])
    assert find_conflict(problem) is None
    assert all(
        find_conflict(without_rules(problem, [*pair])) is None for pair in combinations(relaxable_rules(problem), 1)
    )
