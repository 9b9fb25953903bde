"""Baselines: plain CP-SAT and plain HiGHS on one model of a complete placement problem, using only our arrays.

Limits may be in CPU seconds over all threads, so that other load on the machine does not matter. Not a program: see
`placement_gap.py --baselines`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.problem import Problem, WorkLimit
from groundplan.placement.solve.arrays import Arrays, build_arrays
from groundplan.placement.solve.backends import import_solver
from groundplan.placement.solve.neighbourhoods import build_plan

POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class BaselineResult:
    """The result of one solver. The objective is exact: the choice is priced again in integers."""

    objective: int | None
    bound: float
    optimal: bool
    seconds: float
    cpu_seconds: float


def limit_check(limit: WorkLimit) -> Callable[[], bool]:
    """A function that returns whether the limit, counted from now, has run out."""
    now = time.process_time if limit.use_cpu_time else time.monotonic
    started = now()
    return lambda: limit.seconds is not None and now() - started >= limit.seconds


def solve_with_cp_sat(problem: Problem, limit: WorkLimit) -> BaselineResult:
    """Solve by CP-SAT with its default search."""
    lib, data = import_solver("ortools.sat.python.cp_model"), build_arrays(problem)
    model = lib.CpModel()
    chosen = [model.new_bool_var("") for _ in data.index]
    for first, end in zip(data.part_start[:-1], data.part_start[1:], strict=True):
        model.add_exactly_one(chosen[first:end])
    opened = [model.new_bool_var("") for _ in range(data.site_count)]
    for option, site in enumerate(data.site):
        if data.opening[site] > 0:
            model.add_implication(chosen[option], opened[site])
    units = [model.new_int_var(0, int(most), "") for most in problem.tiers.max_units]
    for terms, factors, bought, sizes, capacity in _used_rows(data):
        parts = [*(chosen[option] for option in terms), *(units[option] for option in bought)]
        model.add(lib.LinearExpr.weighted_sum(parts, [*factors, *(-size for size in sizes)]) <= capacity)
    prices = [*data.cost.tolist(), *data.opening[:-1].tolist(), *problem.tiers.price.tolist()]
    model.minimize(lib.LinearExpr.weighted_sum([*chosen, *opened, *units], prices))
    return _run_cp_sat(lib, model, data, chosen, limit)


def _run_cp_sat(lib: Any, model: Any, data: Arrays, chosen: list[Any], limit: WorkLimit) -> BaselineResult:
    solver = lib.CpSolver()
    solver.parameters.num_workers, solver.parameters.random_seed = limit.threads, limit.seed
    started, cpu_started, finished, is_over = (
        time.perf_counter(),
        time.process_time(),
        threading.Event(),
        limit_check(limit),
    )

    def watch() -> None:
        while not finished.wait(POLL_SECONDS):
            if is_over():
                solver.stop_search()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        status = solver.solve(model)
    finally:
        finished.set()
        watcher.join()
    chosen_options = (
        [option for option, variable in enumerate(chosen) if solver.boolean_value(variable)]
        if _has_solution(lib, status)
        else []
    )
    return _build_result(
        data,
        np.array(chosen_options),
        float(solver.best_objective_bound),
        status == lib.OPTIMAL,
        (started, cpu_started),
    )


def _has_solution(lib: Any, status: Any) -> bool:
    return status in (lib.OPTIMAL, lib.FEASIBLE)


def solve_with_highs(problem: Problem, limit: WorkLimit) -> BaselineResult:
    """Solve as a mixed-integer program by HiGHS with its defaults."""
    lib, data = import_solver("highspy"), build_arrays(problem)
    # the thread count is global to the process, and our solver set it to one: HiGHS would refuse to run with more
    lib.Highs.resetGlobalScheduler(True)
    solver = lib.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", limit.threads)
    solver.setOptionValue("mip_rel_gap", 0.0)
    solver.passModel(_build_highs_model(lib, data))
    started, cpu_started, is_over = time.perf_counter(), time.process_time(), limit_check(limit)

    def interrupt_at_limit(event: Any) -> None:
        if is_over():
            event.interrupt()

    solver.cbMipInterrupt += interrupt_at_limit
    solver.cbSimplexInterrupt += interrupt_at_limit
    run_status = solver.run()
    lib.Highs.resetGlobalScheduler(True)
    if run_status == lib.HighsStatus.kError:
        raise SystemExit("plain HiGHS did not run")
    info = solver.getInfo()
    values = np.array(solver.getSolution().col_value)[: len(data.index)]
    has_plan = info.primal_solution_status == 2
    optimal = solver.getModelStatus() == lib.HighsModelStatus.kOptimal
    chosen_options = np.flatnonzero(values > 0.5) if has_plan else np.zeros(0)
    return _build_result(data, chosen_options, float(info.mip_dual_bound), optimal, (started, cpu_started))


def _build_highs_model(lib: Any, data: Arrays) -> Any:
    problem, count = data.problem, len(data.index)
    tiers, model = problem.tiers, lib.HighsLp()
    entries: list[tuple[int, int, float]] = [(int(part), index, 1.0) for index, part in enumerate(data.part)]
    upper = [1.0] * data.part_count
    for terms, factors, bought, sizes, capacity in _used_rows(data):
        row = len(upper)
        entries += [(row, index, float(use)) for index, use in zip(terms, factors, strict=True)]
        entries += [
            (row, count + data.site_count + index, -float(size)) for index, size in zip(bought, sizes, strict=True)
        ]
        upper.append(float(capacity))
    lower = [1.0] * data.part_count + [-np.inf] * (len(upper) - data.part_count)
    for index in np.flatnonzero(data.opening[data.site] > 0):
        entries += [(len(upper), int(index), 1.0), (len(upper), count + int(data.site[index]), -1.0)]
        upper.append(0.0)
        lower.append(-np.inf)
    rows, columns, values = (np.array(each) for each in zip(*entries, strict=True))
    order, width = np.lexsort((rows, columns)), count + data.site_count + len(tiers.row)
    model.num_col_, model.num_row_ = width, len(upper)
    model.col_cost_ = np.concatenate([data.price, data.opening[:-1], tiers.price]).astype(float)
    model.col_lower_ = np.zeros(width)
    model.col_upper_ = np.concatenate([np.ones(count + data.site_count), tiers.max_units]).astype(float)
    model.row_lower_, model.row_upper_ = np.array(lower), np.array(upper)
    model.a_matrix_.format_ = lib.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.searchsorted(columns[order], np.arange(width + 1)).astype(np.int32)
    model.a_matrix_.index_, model.a_matrix_.value_ = rows[order].astype(np.int32), values[order].astype(float)
    model.integrality_ = [lib.HighsVarType.kInteger] * width
    return model


def _used_rows(data: Arrays) -> list[tuple[list[int], list[int], list[int], list[int], int]]:
    """(options, uses, tiers, sizes, capacity) of each row that is used."""
    option = np.repeat(np.arange(len(data.index)), data.row.shape[1])
    row, use, tiers = data.row.reshape(-1), data.use.reshape(-1), data.problem.tiers
    used_rows = []
    for number in range(data.row_count):
        positions = np.flatnonzero((row == number) & (use != 0))
        bought = np.flatnonzero(tiers.row == number)
        if len(positions):
            sizes = tiers.size[bought].tolist()
            used_rows.append(
                (
                    option[positions].tolist(),
                    use[positions].tolist(),
                    bought.tolist(),
                    sizes,
                    int(data.capacity[number]),
                )
            )
    return used_rows


def _build_result(
    data: Arrays, chosen_options: NDArray[Any], bound: float, optimal: bool, started: tuple[float, float]
) -> BaselineResult:
    seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    plan = build_plan(data, chosen_options.astype(np.int64)) if len(chosen_options) == data.part_count else None
    cost = None if plan is None else plan.cost
    return BaselineResult(cost, bound, optimal, round(seconds, 3), round(cpu, 3))
