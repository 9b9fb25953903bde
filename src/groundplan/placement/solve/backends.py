"""The solvers HiGHS and CP-SAT, used through this module alone: they are imported when called, since that takes long.

highspy is held at 1.14.0: 1.15 cannot be loaded beside ortools 9.15, and 1.16.0 answers one small problem with a wrong
optimum (benchmarks/placement_published.py asks it).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.core.errors import Invalid
from groundplan.placement.solve.arrays import Floats

_TO_HEURISTICS = 0.3
"""of the computing: six times as much as HiGHS itself takes, since a first plan ends the search of a narrow target"""


def module(name: str) -> Any:
    """A solver, or `Invalid` with how to get it: it is imported when it is needed, not when we start."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Invalid(
            f"placing this company needs {name.partition('.')[0]}, which is not installed",
            code="extra_missing",
            hint="Install Groundplan with its dependencies again.",
        ) from error


def highs(
    price: Floats,
    upper: Floats,
    row_lower: Floats,
    row_upper: Floats,
    entries: list[tuple[NDArray[Any], NDArray[Any], Floats]],
    *,
    simplex: bool = True,
    whole: NDArray[Any] | None = None,
    seconds: float | None = None,
) -> tuple[float, Floats, Floats] | None:
    """Minimise price x within 0 <= x <= upper and the rows. `whole`: columns that are integers.

    Returns value, columns and row duals; None where infeasible or stopped without an optimum. One thread, so that the
    same input gives the same answer.
    """
    lib = module("highspy")
    model = _model(lib, price, upper, row_lower, row_upper, entries)
    if whole is not None:
        kinds = [lib.HighsVarType.kContinuous] * len(price)
        for column in whole:
            kinds[int(column)] = lib.HighsVarType.kInteger
        model.integrality_ = kinds
    solver = quiet(lib)
    if whole is None:
        solver.setOptionValue("solver", "simplex" if simplex else "ipm")
    if seconds is not None:
        solver.setOptionValue("time_limit", max(0.1, seconds))
    solver.passModel(model)
    solver.run()
    if solver.getModelStatus() != lib.HighsModelStatus.kOptimal:
        return None
    answer = solver.getSolution()
    return (
        float(solver.getInfo().objective_function_value),
        np.array(answer.col_value),
        np.array(answer.row_dual if whole is None else np.zeros(len(row_lower))),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Branched:
    """What branching over whole columns found."""

    values: Floats | None
    """the best columns, None where none were found"""
    complete: bool
    """it was searched through: they are the best, or there are none"""
    nodes: int


def branch(
    price: Floats,
    upper: Floats,
    row_lower: Floats,
    row_upper: Floats,
    entries: list[tuple[NDArray[Any], NDArray[Any], Floats]],
    *,
    nodes: int,
    seconds: float | None = None,
) -> Branched:
    """Minimise price x over whole 0 <= x <= upper within the rows, in so many nodes. Prices are whole numbers."""
    lib = module("highspy")
    model = _model(lib, price, upper, row_lower, row_upper, entries)
    model.integrality_ = [lib.HighsVarType.kInteger] * len(price)
    solver = quiet(lib)
    solver.setOptionValue("mip_max_nodes", nodes)
    solver.setOptionValue("mip_rel_gap", 0.0)
    solver.setOptionValue("mip_abs_gap", 0.99)
    solver.setOptionValue("mip_heuristic_effort", _TO_HEURISTICS)
    if seconds is not None:
        solver.setOptionValue("time_limit", max(0.1, seconds))
    solver.passModel(model)
    solver.run()
    info, status = solver.getInfo(), solver.getModelStatus()
    found = info.primal_solution_status == 2
    complete = status in (lib.HighsModelStatus.kOptimal, lib.HighsModelStatus.kInfeasible)
    return Branched(np.array(solver.getSolution().col_value) if found else None, complete, int(info.mip_node_count))


def _model(
    lib: Any,
    price: Floats,
    upper: Floats,
    row_lower: Floats,
    row_upper: Floats,
    entries: list[tuple[NDArray[Any], NDArray[Any], Floats]],
) -> Any:
    rows = np.concatenate([np.asarray(row, dtype=np.int64) for row, _, _ in entries])
    columns = np.concatenate([np.asarray(column, dtype=np.int64) for _, column, _ in entries])
    values = np.concatenate([value for _, _, value in entries])
    order = np.lexsort((rows, columns))
    model = lib.HighsLp()
    model.num_col_, model.num_row_ = len(price), len(row_lower)
    model.col_cost_, model.col_lower_, model.col_upper_ = price, np.zeros(len(price)), upper
    model.row_lower_, model.row_upper_ = row_lower, row_upper
    model.a_matrix_.format_ = lib.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.searchsorted(columns[order], np.arange(len(price) + 1)).astype(np.int32)
    model.a_matrix_.index_ = rows[order].astype(np.int32)
    model.a_matrix_.value_ = values[order]
    return model


def quiet(lib: Any) -> Any:
    """A HiGHS that prints nothing and runs on one thread."""
    solver = lib.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    return solver
