"""The only access to the solvers HiGHS and CP-SAT. They are imported when first called, since that takes long.

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
"""fraction of the effort: six times HiGHS's default, since a first plan ends the search of a narrow target"""


def import_solver(name: str) -> Any:
    """Import a solver's module when it is first needed. Raises `Invalid` (`extra_missing`) if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Invalid(
            f"placing this company needs {name.partition('.')[0]}, which is not installed",
            code="extra_missing",
            hint="Install Groundplan with its dependencies again.",
        ) from error


def solve_highs(
    price: Floats,
    upper: Floats,
    row_lower: Floats,
    row_upper: Floats,
    entries: list[tuple[NDArray[Any], NDArray[Any], Floats]],
    *,
    simplex: bool = True,
    integer_columns: NDArray[Any] | None = None,
    seconds: float | None = None,
) -> tuple[float, Floats, Floats] | None:
    """Minimise price x subject to 0 <= x <= upper and the rows, on one thread, so that the same input gives the same
    answer. `integer_columns`: the columns that are integers.

    Returns value, columns and row duals; None where infeasible or stopped without an optimum.
    """
    lib = import_solver("highspy")
    model = _model(lib, price, upper, row_lower, row_upper, entries)
    if integer_columns is not None:
        kinds = [lib.HighsVarType.kContinuous] * len(price)
        for column in integer_columns:
            kinds[int(column)] = lib.HighsVarType.kInteger
        model.integrality_ = kinds
    solver = quiet_highs(lib)
    if integer_columns is None:
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
        np.array(answer.row_dual if integer_columns is None else np.zeros(len(row_lower))),
    )


@dataclass(frozen=True, slots=True, eq=False)
class BranchResult:
    """The result of branching over integer columns."""

    values: Floats | None
    """the best values of the columns; None where none were found"""
    complete: bool
    """the search was complete: `values` are optimal, or the model is infeasible"""
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
) -> BranchResult:
    """Minimise price x over integers 0 <= x <= upper within the rows, in at most `nodes` nodes. Prices are integers."""
    lib = import_solver("highspy")
    model = _model(lib, price, upper, row_lower, row_upper, entries)
    model.integrality_ = [lib.HighsVarType.kInteger] * len(price)
    solver = quiet_highs(lib)
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
    return BranchResult(np.array(solver.getSolution().col_value) if found else None, complete, int(info.mip_node_count))


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


def quiet_highs(lib: Any) -> Any:
    """A HiGHS that prints nothing and runs on one thread."""
    solver = lib.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    return solver
