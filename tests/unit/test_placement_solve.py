"""The solver: published formats, proofs, the same answer for the same input, losses, fleets, random companies."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from benchmarks.placement_divided import solve_divided
from benchmarks.placement_instances.assignment import assignment, read_assignments
from benchmarks.placement_instances.companies import large_company
from benchmarks.placement_instances.fleet import Machine, fleet_problem
from benchmarks.placement_instances.random_company import find_breaches, random_company
from benchmarks.placement_random import run
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.core.errors import Invalid
from groundplan.placement.assemble import Choice, Job, Piece, Place, assemble
from groundplan.placement.problem import POOL, Problem, Solution, WorkLimit, validate
from groundplan.placement.solve import certify
from groundplan.placement.solve.arrays import build_arrays
from groundplan.placement.solve.knapsacks import build_knapsacks
from groundplan.placement.solve.labels import solve_by_labels
from groundplan.placement.solve.objective import cheapest_units
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.solve.relax import relax
from groundplan.placement.solve.site_loss import solve_site_loss
from groundplan.placement.verify import proven_bound, verify


def instance(seed: int, agents: int, jobs: int) -> Problem:
    """Costs that fall as uses rise, which makes it hard (type d of the published ones)."""
    draw = np.random.Generator(np.random.PCG64(seed))
    use = draw.integers(1, 101, (agents, jobs))
    cost = 111 - use + draw.integers(-10, 11, (agents, jobs))
    return assignment(cost, use, np.full(agents, int(0.8 * use.sum() / agents / agents)))


def same(one: Solution, other: Solution) -> bool:
    arrays_same = all(
        a.tobytes() == b.tobytes()
        for a, b in (
            (one.choice, other.choice),
            (one.units, other.units),
            (one.certificate.part, other.certificate.part),
            (one.certificate.row, other.certificate.row),
        )
    )
    return arrays_same and (one.cost, one.bound, one.stop_reason, one.work) == (
        other.cost,
        other.bound,
        other.stop_reason,
        other.work,
    )


def test_an_instance_is_proven_optimal_and_verified() -> None:
    problem = instance(3, 4, 14)
    solution = optimise(problem, WorkLimit(work=40))
    assert solution.stop_reason == "optimal"
    assert verify(problem, solution).is_verified
    assert solution.gap == 0


@pytest.mark.parametrize(
    "make", [lambda: instance(1, 4, 14), lambda: large_company(40, 8), lambda: random_company(3, 12, 8).problem]
)
def test_the_same_input_gives_the_same_answer_byte_for_byte(make: object) -> None:
    assert callable(make)
    one, other = (optimise(make(), WorkLimit(work=1, threads=2)) for _ in range(2))
    assert one.is_found
    assert same(one, other)
    assert one.stop_reason in ("work", "optimal")


def test_one_stopped_by_the_clock_says_so_and_is_bounded() -> None:
    problem = instance(1, 10, 60)
    for seconds in (0.3, 1.0, 4.0):  # on a busy machine the first may not be enough for a bound
        solution = optimise(problem, WorkLimit(seconds=seconds))
        assert solution.stop_reason == "clock"
        if solution.is_found and solution.bound > 0:
            break
    assert solution.is_found
    assert 0 < solution.bound <= solution.cost
    assert verify(problem, solution).is_verified


def test_a_large_company_is_placed_within_two_percent() -> None:
    problem = large_company(800, 40)
    solution = optimise(problem, WorkLimit(gap=0.02, work=10))
    assert verify(problem, solution).is_verified
    assert solution.stop_reason == "gap"
    assert solution.gap is not None and solution.gap <= Fraction(2, 100)


def test_capacity_priced_exactly_bounds_better_than_the_relaxation() -> None:
    for problem in (instance(5, 6, 24), large_company(60, 10)):
        data = build_arrays(problem)
        relaxation, sets = relax(data), build_knapsacks(data)
        assert relaxation is not None and sets is not None
        certificate = certify.knapsack_certificate(sets, relaxation.part, relaxation.row, 4000)
        assert certificate.method == "knapsack"
        assert certificate.value > certify.linear_certificate(data, relaxation.part, relaxation.row).value
        proven = proven_bound(problem, certificate)
        assert proven is not None and proven >= certificate.value


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_labels_find_the_least_that_trying_everything_finds(seed: int) -> None:
    draw = np.random.Generator(np.random.PCG64(seed))
    part = np.sort(draw.integers(0, 5, 9))
    value, use = draw.integers(-20, 6, 9), draw.integers(0, 9, (9, 2))
    capacity, price = draw.integers(0, 20, 2), draw.integers(0, 4, 2)
    taken = solve_by_labels(part, value, use, capacity, price)
    best = 0
    for mask in range(2**9):
        chosen = [at for at in range(9) if mask >> at & 1]
        once = len({int(part[at]) for at in chosen}) == len(chosen)
        if once and (use[chosen].sum(axis=0) <= capacity).all():
            best = min(best, int(value[chosen].sum()))
    assert (taken.value, taken.bound) == (best, best)
    assert value[taken.options].sum() == best


def test_few_labels_still_prove_a_bound() -> None:
    draw = np.random.Generator(np.random.PCG64(1))
    value, use = draw.integers(-99, -40, 30), draw.integers(20, 60, (30, 3))
    capacity = np.array([200, 220, 210])
    whole = solve_by_labels(np.arange(30), value, use, capacity, np.array([1, 1, 0]))
    narrow = solve_by_labels(np.arange(30), value, use, capacity, np.array([1, 1, 0]), 20)
    assert whole.bound == whole.value
    assert narrow.bound <= whole.value <= narrow.value


def test_published_files_are_read_single_and_many(tmp_path: Path) -> None:
    one = "2 3\n 1 2 3\n 4 5 6\n 1 1 1\n 2 2 2\n 2 4\n"
    (tmp_path / "one").write_text(one)
    (tmp_path / "many").write_text(f" 2\n{one}{one}")
    assert len(read_assignments(tmp_path / "one")) == 1
    problems = read_assignments(tmp_path / "many")
    assert [len(problem.workloads) for problem in problems] == [3, 3]
    # two of the jobs fit the cheap agent
    assert optimise(problems[0], WorkLimit(work=20)).cost == 1 + 2 + 6


@pytest.mark.parametrize(
    "text", ["", "2 3\n1 2", "x y", "2 2\n1.5 2 3 4 1 1 1 1 2 2", "-1 4\n1 2 3", "9 2 3 1 2", "nan"]
)
def test_a_file_of_another_format_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "instance"
    path.write_text(text)
    with pytest.raises(Invalid, match="instance"):
        read_assignments(path)
    with pytest.raises(Invalid):
        read_assignments(tmp_path / "absent")


def test_a_lost_site_moves_only_what_ran_there() -> None:
    problem = large_company(150, 8, tightness=0.6)
    before = optimise(problem, WorkLimit(work=1))
    counts = np.bincount(problem.options.site[before.choice], minlength=8)
    site = int(np.argmin(np.where(counts > 0, counts, 999)))
    loss = solve_site_loss(problem, before, site)
    there = problem.options.site[before.choice] == site
    assert loss.solution.is_found
    assert verify(loss.problem, loss.solution).is_verified
    assert ((loss.solution.choice != before.choice) == there).all()
    assert loss.moved_parts == loss.min_moved_parts == loss.parts_at_site == there.sum() > 0


def test_where_others_must_move_the_fewest_do() -> None:
    places = [Place("a", "a", {"gpu": 4}), Place("b", "b", {"gpu": 4}), Place("c", "c", {"gpu": 3})]
    anywhere = tuple(Choice(site, {"compute": cost}, {"gpu": 3}) for site, cost in (("a", 1), ("c", 9)))
    problem = assemble(
        places,
        [
            Job("small", (Piece((Choice("a", {"compute": 9}, {"gpu": 3}), Choice("b", {"compute": 1}, {"gpu": 3}))),)),
            Job("either", (Piece(anywhere),)),
        ],
    )
    before = optimise(problem, WorkLimit(work=20))
    assert before.cost == 2
    loss = solve_site_loss(problem, before, 1)
    assert (loss.parts_at_site, loss.moved_parts, loss.min_moved_parts) == (1, 2, 2)
    assert verify(loss.problem, loss.solution).is_verified


def test_a_loss_that_leaves_a_workload_nowhere_is_told() -> None:
    problem = assemble([Place("a", "a")], [Job("w", (Piece((Choice("a", {"compute": 1}),)),))])
    before = optimise(problem, WorkLimit(work=2))
    assert solve_site_loss(problem, before, 0).solution.stop_reason == "infeasible"


def melange(slices: int) -> Problem:
    """Mélange's published example: prices in cents an hour, requests a second, throughputs of two types of machine."""
    machines = {
        "A10G": Machine(101, tuple(map(Fraction, (2, 1, 5, 2)))),
        "A100-80GB": Machine(367, tuple(map(Fraction, (20, 20, 40, 20)))),
    }
    return fleet_problem(machines, [Fraction(share) * 30 for share in ("0.2", "0.1", "0.5", "0.2")], slices)


@pytest.mark.parametrize(("slices", "cents"), [(1, 670), (2, 569), (3, 468), (4, 569)])
def test_the_published_fleet_costs_what_was_published(slices: int, cents: int) -> None:
    problem = melange(slices)
    solution = optimise(problem, WorkLimit(work=40))
    assert (solution.cost, solution.stop_reason) == (cents, "optimal")
    assert verify(problem, solution).is_verified


def test_divided_at_will_the_fleet_has_no_headroom() -> None:
    found = solve_divided(melange(1))
    assert found is not None
    assert (found.cost, found.units.tolist()) == (468, [1, 1])
    assert found.headroom == {"A10G load": 0.0, "A100-80GB load": 0.0}


def test_units_cover_what_is_needed_for_the_least() -> None:
    problem = melange(1)
    tiers = replace(
        problem.tiers,
        row=np.array([0, 0], np.int32),
        size=np.array([10, 3]),
        price=np.array([9, 3]),
        max_units=np.array([2, 9]),
    )
    units = [cheapest_units(replace(problem, tiers=tiers), np.array([over, 0])) for over in (0, 3, 10, 12, 23, 47, 48)]
    assert [None if each is None else each.tolist() for each in units] == [
        [0, 0],
        [0, 1],
        [1, 0],
        [1, 1],
        [2, 1],
        [2, 9],
        None,
    ]


def test_random_companies_break_no_rule() -> None:
    placed = 0
    for seed in range(100, 300):
        company = random_company(seed, 24, 10, shared=seed % 8 == 0)
        solution = optimise(company.problem, WorkLimit(work=1))
        assert verify(company.problem, solution).violations == ()
        if solution.is_found:
            placed += 1
            assert list(find_breaches(company, solution)) == []
    assert placed > 90


def test_the_second_reading_sees_a_broken_rule() -> None:
    company = random_company(3)
    solution = optimise(company.problem, WorkLimit(work=1))
    excluded = np.flatnonzero(~company.problem.allowed)
    choice = solution.choice.copy()
    choice[company.problem.options.part[excluded]] = excluded
    assert list(find_breaches(company, replace(solution, choice=choice)))


def test_the_second_reading_adds_up_what_is_shared() -> None:
    company = random_company(100, 24, 10, shared=True)
    problem, solution = company.problem, optimise(company.problem, WorkLimit(work=1))
    assert verify(problem, solution).violations == () and list(find_breaches(company, solution)) == []
    held = np.flatnonzero((problem.parts.role == POOL) & (solution.choice != problem.part_start[:-1]))
    assert len(held)
    told = set()
    for part in held:
        choice = solution.choice.copy()
        choice[part] = problem.part_start[part]
        told |= {
            each.partition(" at ")[0].split()[-1] for each in find_breaches(company, replace(solution, choice=choice))
        }
    assert "used" in told, "units that are used and not held"


def test_a_company_without_workloads_is_placed_at_once() -> None:
    problem = assemble([Place("a", "a", {"gpu": 3})], [])
    solution = optimise(problem)
    assert (solution.stop_reason, solution.cost, len(solution.choice)) == ("optimal", 0, 0)
    assert verify(problem, solution).is_verified


def test_absurd_numbers_are_refused() -> None:
    job = Job("w", (Piece((Choice("a", {"compute": 2**70}, {"gpu": 1}),)),))
    with pytest.raises(Invalid, match=r"2\.3 million USD"):
        assemble([Place("a", "a", {"gpu": 1})], [job])
    with pytest.raises(Invalid, match="negative"):
        assemble([Place("a", "a", {"gpu": -1})], [])
    problem = melange(1)
    with pytest.raises(Invalid, match="another site"):
        validate(replace(problem, rows=replace(problem.rows, site=problem.rows.site[::-1].copy())))


def test_neither_the_command_nor_a_gateway_loads_a_solver() -> None:
    code = (
        "import sys, groundplan.cli.main, groundplan.release.compile.draft, groundplan.gateway.app;"
        "print(sorted({'ortools', 'highspy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.soak
def test_a_hundred_thousand_random_companies_break_no_rule() -> None:
    found = run(10_000, 100_000, work=1, processes=os.cpu_count() or 1)
    assert found["violations"] == 0, found["first_violations"]
    assert found["companies"] == 100_000 and found["placed"] > 50_000
