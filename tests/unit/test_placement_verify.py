"""The verifier catches every kind of wrong plan, and its bound is a bound."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from benchmarks.placement_instances.random_company import Company, random_company
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundplan.placement.assemble import Choice, Job, Piece, Place, Quota, SpreadRule, UnitOffer, assemble
from groundplan.placement.problem import BURST, FALLBACK, Certificate, Problem, Solution, WorkLimit
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.verify import proven_bound, verify
from groundplan.placement.verify.exact import as_python_ints, exact_group_sums, exact_sum


def placed(seed: int) -> tuple[Company, Solution]:
    """The first company from a seed on that has a placement."""
    for number in range(seed, seed + 200):
        company = random_company(number, 16, 8)
        solution = optimise(company.problem, WorkLimit(work=1))
        if solution.is_found and {FALLBACK, BURST} <= set(company.problem.parts.role.tolist()):
            assert verify(company.problem, solution).is_verified
            return company, solution
    raise AssertionError("no company has a placement")


@pytest.fixture(scope="module")
def example() -> tuple[Problem, Solution]:
    company, solution = placed(1)
    return company.problem, solution


def kinds(problem: Problem, solution: Solution) -> set[str]:
    return {each.kind for each in verify(problem, solution).violations}


def moved(problem: Problem, solution: Solution, part: int, option: int) -> Solution:
    """The same plan with one part elsewhere, at the right price and without a bound."""
    choice = solution.choice.copy()
    choice[part] = option
    return priced(problem, replace(solution, choice=choice))


def priced(problem: Problem, solution: Solution) -> Solution:
    sites = {int(site) for site in problem.options.site[solution.choice] if site >= 0}
    cost = sum(int(each) for option in solution.choice for each in problem.options.terms[option])
    cost += sum(int(problem.sites.opening[site]) for site in sites)
    cost += sum(int(n) * int(price) for n, price in zip(solution.units, problem.tiers.price, strict=True))
    blank = replace(solution.certificate, part=solution.certificate.part * 0, row=solution.certificate.row * 0)
    certificate = replace(blank, method="linear", value=0, claimed=None)
    return replace(solution, cost=cost, certificate=certificate, stop_reason="work")


def test_a_sound_plan_passes(example: tuple[Problem, Solution]) -> None:
    assert kinds(*example) == set()
    assert kinds(example[0], priced(*example)) == set()


def test_an_excluded_option_is_caught(example: tuple[Problem, Solution]) -> None:
    problem, solution = example
    option = int(np.flatnonzero(~problem.allowed)[0])
    assert "excluded" in kinds(problem, moved(problem, solution, int(problem.options.part[option]), option))


def test_the_option_of_another_part_is_caught(example: tuple[Problem, Solution]) -> None:
    problem, solution = example
    assert "choice" in kinds(problem, moved(problem, solution, 0, int(solution.choice[1])))
    short = replace(solution, choice=solution.choice[:-1])
    assert "choice" in kinds(problem, short)
    absent = solution.choice.copy()
    absent[0] = len(problem.options.part)
    assert "choice" in kinds(problem, replace(solution, choice=absent))


def test_a_wrong_price_is_caught(example: tuple[Problem, Solution]) -> None:
    problem, solution = example
    assert "cost" in kinds(problem, replace(solution, cost=solution.cost + 1))


def test_a_bound_that_is_not_proven_is_caught(example: tuple[Problem, Solution]) -> None:
    problem, solution = example
    higher = replace(solution.certificate, value=solution.certificate.value + 1)
    assert "bound" in kinds(problem, replace(solution, certificate=higher))
    above = replace(solution.certificate, claimed=solution.cost + 1)
    assert "bound" in kinds(problem, replace(solution, certificate=above))
    assert "bound" in kinds(problem, replace(solution, certificate=replace(solution.certificate, scale=0)))
    negative = replace(solution.certificate, row=solution.certificate.row - 10**9)
    assert "bound" in kinds(problem, replace(solution, certificate=negative))
    if solution.cost != solution.bound:
        assert "bound" in kinds(problem, replace(solution, stop_reason="optimal"))


def test_too_many_and_too_few_units_are_caught() -> None:
    place = Place("own", "a", {"gpu": 0}, 0, (UnitOffer("node", "gpu", 10, 5, 3),))
    job = Job("work", (Piece((Choice("own", {"compute": 7}, {"gpu": 15}),)),))
    problem = assemble([place], [job])
    solution = optimise(problem, WorkLimit(work=1))
    assert (solution.units.tolist(), solution.cost) == ([2], 17)
    assert verify(problem, solution).is_verified
    assert "row" in kinds(problem, priced(problem, replace(solution, units=np.array([1]))))
    assert "units" in kinds(problem, priced(problem, replace(solution, units=np.array([4]))))
    assert "units" in kinds(problem, priced(problem, replace(solution, units=np.array([-1]))))
    assert "units" in kinds(problem, replace(solution, units=np.array([2, 0])))


def test_capacity_quota_and_spread_are_caught() -> None:
    places = [Place("a", "one", {"gpu": 10}), Place("b", "two", {"gpu": 10})]
    jobs = [
        Job(f"w{at}", (Piece(tuple(Choice(site, {"compute": 1}, {"gpu": 4, "tokens": 3}) for site in "ab")),))
        for at in range(3)
    ]
    capacity = assemble(places, jobs)
    free = optimise(capacity, WorkLimit(work=1))
    crowded = priced(capacity, replace(free, choice=np.array([0, 2, 4], dtype=np.int32)))
    assert "row" in kinds(capacity, crowded)
    limited = assemble(places, jobs, [Quota("tokens", 8)])
    assert "row" in kinds(limited, priced(limited, free))
    spread = assemble(places, jobs, (), [SpreadRule("critical", ("w0", "w1"), 1)])
    together = np.array([0, 2, 5], dtype=np.int32)
    assert "row" in kinds(spread, priced(spread, replace(free, choice=together)))
    assert kinds(capacity, priced(capacity, replace(free, choice=together))) == set()


def test_a_fallback_in_the_same_domain_and_a_wrong_burst_are_caught() -> None:
    places = [Place("a", "one"), Place("b", "two")]
    primary = tuple(Choice(site, {"compute": 10 - 4 * level}, level=level) for level in (0, 1) for site in "ab")
    burst = (Choice(None), *(Choice(site, {"compute": 1}, level=1) for site in "ab"))
    fallback = tuple(Choice(site, {"compute": 1}) for site in "ab")
    problem = assemble(places, [Job("w", (Piece(primary), Piece(burst, BURST), Piece(fallback, FALLBACK)))])
    solution = optimise(problem, WorkLimit(work=2))
    assert (solution.cost, solution.stop_reason) == (8, "optimal")
    assert verify(problem, solution).is_verified
    primary_site = int(problem.options.site[solution.choice[0]])
    same = next(o for o in range(7, 9) if problem.options.site[o] == primary_site)
    assert "apart" in kinds(problem, moved(problem, solution, 2, same))
    assert "burst" in kinds(problem, moved(problem, solution, 1, 4))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.integers(1, 50), st.sampled_from(["linear", "knapsack"]))
def test_any_multipliers_prove_a_bound_below_every_plan(seed: int, scale: int, method: str) -> None:
    draw = np.random.Generator(np.random.PCG64(seed))
    problem = small(draw)
    multipliers = Certificate(
        "linear" if method == "linear" else "knapsack",
        scale,
        draw.integers(-50, 900, len(problem.parts.workload)) * scale // 10,
        draw.integers(0, 30, len(problem.rows.names)) * scale // 10,
        0,
    )
    bound = proven_bound(problem, multipliers)
    best = cheapest(problem)
    assert bound is not None
    assert best is None or bound <= best
    linear = proven_bound(problem, replace(multipliers, method="linear"))
    assert linear is not None and bound >= linear


def small(draw: np.random.Generator) -> Problem:
    """Two to four workloads, two or three sites, with something of everything."""
    sites = int(draw.integers(2, 4))
    offer = (UnitOffer("node", "gpu", int(draw.integers(2, 9)), int(draw.integers(5, 40)), 2),)
    places = [
        Place(
            f"s{at}",
            f"d{draw.integers(0, 3)}",
            {"gpu": int(draw.integers(0, 14)), "disk": int(draw.integers(4, 20))},
            int(draw.integers(0, 30)),
            offer if draw.random() < 0.3 else (),
        )
        for at in range(sites)
    ]
    jobs = []
    for number in range(int(draw.integers(2, 5))):
        choices = tuple(
            Choice(
                place.name,
                {"compute": int(draw.integers(-5, 90))},
                {"gpu": int(draw.integers(0, 9)), "disk": int(draw.integers(0, 9)), "tokens": int(draw.integers(0, 5))},
                rules=("residency",) if draw.random() < 0.15 else (),
            )
            for place in places
        )
        pieces = [Piece(choices)]
        if draw.random() < 0.3:
            pieces.append(Piece(choices, FALLBACK))
        jobs.append(Job(f"w{number}", tuple(pieces)))
    return assemble(places, jobs, [Quota("tokens", int(draw.integers(3, 14)))])


def cheapest(problem: Problem) -> int | None:
    """By trying everything: no code of the solver, and the verifier's only for feasibility."""
    parts = len(problem.parts.workload)
    options = [np.flatnonzero((problem.options.part == part) & problem.allowed).tolist() for part in range(parts)]
    units = [range(int(most) + 1) for most in problem.tiers.max_units]
    blank = Certificate("linear", 1, np.zeros(parts, np.int64), np.zeros(len(problem.rows.names), np.int64), -(10**6))
    best: int | None = None
    for choice in product(*options):
        for bought in product(*units):
            plan = Solution(np.array(choice, np.int32), np.array(bought, np.int64), 0, blank, "work", 0)
            plan = replace(priced(problem, plan), certificate=blank)
            if (best is None or plan.cost < best) and verify(problem, plan).is_verified:
                best = plan.cost
    return best


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 6, 7, 8])
def test_the_solver_finds_what_trying_everything_finds(seed: int) -> None:
    problem = small(np.random.Generator(np.random.PCG64(seed)))
    best = cheapest(problem)
    solution = optimise(problem, WorkLimit(work=60))
    assert verify(problem, solution).is_verified
    assert solution.is_found == (best is not None)
    if best is None:
        assert solution.stop_reason == "infeasible"
    else:
        assert (solution.cost, solution.stop_reason, solution.bound) == (best, "optimal", best)


def test_sums_are_exact_beyond_64_bits() -> None:
    values = np.array([2**62, 2**62, 2**62, -1, -(2**62)], dtype=np.int64)
    assert exact_sum(values) == exact_sum(as_python_ints(values)) == 2**63 - 1
    assert exact_group_sums(values, np.array([0, 0, 0, 1, 1]), 3) == [3 * 2**62, -1 - 2**62, 0]
