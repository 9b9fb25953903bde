"""What the benchmarks of placement stand on: plain solvers beside ours, limits in computing time, runs that go on."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from benchmarks.placement_baselines import solve_with_cp_sat, solve_with_highs
from benchmarks.placement_instances.companies import large_company
from benchmarks.placement_instances.random_company import random_company
from benchmarks.placement_random import run, source_digest

from groundplan.placement.problem import WorkLimit
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.solve.work_limit import WorkBudget


@pytest.mark.parametrize(("seed", "found"), [(1, False), (5, True), (13, True), (20, True)])
def test_plain_solvers_and_ours_agree_on_the_optimum(seed: int, found: bool) -> None:
    """Openings, units to buy, bursts and fallbacks included: all three solve the same problem."""
    problem = random_company(seed, 6, 4).problem
    ours, one, other = (
        optimise(problem),
        solve_with_cp_sat(problem, WorkLimit(seconds=20)),
        solve_with_highs(problem, WorkLimit(seconds=20)),
    )
    assert (ours.is_found, one.objective) == (found, ours.cost if found else None)
    if found:
        assert one.optimal and other.objective == pytest.approx(one.objective, rel=1e-6)


def test_plain_solvers_stop_when_their_computing_is_used_up() -> None:
    problem = large_company(150, 20, seed=1)
    for plain in (solve_with_cp_sat, solve_with_highs):
        found = plain(problem, WorkLimit(seconds=0.5, use_cpu_time=True))
        assert found.cpu_seconds < 3 and not found.optimal


def test_seconds_of_computing_are_not_those_of_the_clock() -> None:
    counted, clock = WorkBudget(WorkLimit(seconds=0.2, use_cpu_time=True)), WorkBudget(WorkLimit(seconds=0.2))
    time.sleep(0.25)
    assert clock.is_exhausted() and not counted.is_exhausted()
    assert counted.step_budget(0.5).limit.use_cpu_time
    while not counted.is_exhausted():
        np.linalg.inv(np.eye(60))
    assert counted.stopped_by_clock and (counted.wall_seconds_left or 0.0) <= 0.02


def test_little_computing_is_never_taken_for_an_impossible_company() -> None:
    for seconds in (0.01, 0.1, 0.4):
        solution = optimise(large_company(80, 12, seed=1), WorkLimit(seconds=seconds, use_cpu_time=True))
        assert solution.stop_reason != "infeasible" and solution.is_found


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    progress = tmp_path / "done.jsonl"
    first = run(1, 12, 1, progress=progress)
    with progress.open("a", encoding="utf-8") as file:
        file.write('{"first": 13, "compan')
    again = run(1, 12, 1, progress=progress)
    assert (first["taken_over"], again["taken_over"]) == (0, 12)
    assert {k: v for k, v in again.items() if k not in ("seconds", "taken_over")} == {
        k: v for k, v in first.items() if k not in ("seconds", "taken_over")
    }
    row = json.loads(progress.read_text(encoding="utf-8").splitlines()[0])
    assert source_digest() in row["mark"]
    progress.write_text(json.dumps({**row, "mark": "another solver"}) + "\n", encoding="utf-8")
    assert run(1, 12, 1, progress=progress)["taken_over"] == 0
