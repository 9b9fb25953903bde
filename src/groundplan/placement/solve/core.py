"""The core: the search for a plan within a target cost, only among the options that such a plan can use.

The bounds of `fixing` decide which these are, so no plan within the target is lost: where a complete search of the core
finds none, there is none, and the bound is above the target. Low targets make small cores, which HiGHS branches over;
larger cores are searched by CP-SAT. For problems without units to buy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Flags, Ints
from groundplan.placement.solve.arrays import Arrays, Floats, subset
from groundplan.placement.solve.backends import branch
from groundplan.placement.solve.submodel import Effort, solve_submodel

_NODES_PER_WORK = 100
"""branch-and-bound nodes of HiGHS per unit of work, about a second of computing"""
_MAX_BRANCHED = 1_500
"""options that HiGHS may branch over"""
_MAX_PRICE = 1e6


@dataclass(frozen=True, slots=True)
class CoreResult:
    """The result of searching a core."""

    choice: Ints | None
    is_target_unreachable: bool
    """it is proven that no plan is within the target"""
    work: float


def branch_core(data: Arrays, keep: Flags, target: int, effort: Effort) -> CoreResult | None:
    """Branch over the kept options [O] by HiGHS for a plan within the target.

    None: too many options, sites that cost to open, or prices too large for exact floats.
    """
    kept = np.flatnonzero(keep)
    if len(kept) > _MAX_BRANCHED or data.opening.any() or float(np.abs(data.price).max(initial=0.0)) > _MAX_PRICE:
        return None
    core = subset(data, kept)
    if len(core.empty_parts()):
        return CoreResult(None, True, 0.0)
    columns = np.arange(len(kept))
    entries = [(core.part, columns, np.ones(len(kept)))]
    for k in range(core.row.shape[1]):
        real = np.flatnonzero(core.row[:, k] < core.row_count)
        entries.append((core.part_count + core.row[real, k], real, core.use[real, k].astype(np.float64)))
    last = core.part_count + core.row_count
    entries.append((np.full(len(kept), last), columns, core.price))
    lower = np.concatenate([np.ones(core.part_count), np.full(core.row_count + 1, -np.inf)])
    upper = np.concatenate([np.ones(core.part_count), core.capacity[:-1].astype(np.float64), [float(target)]])
    nodes = max(1, round(effort.work * _NODES_PER_WORK))
    answer = branch(core.price, np.ones(len(kept)), lower, upper, entries, nodes=nodes, seconds=effort.seconds)
    choice = None if answer.values is None else _options_taken(core, answer.values, kept)
    return CoreResult(choice, answer.complete and choice is None, answer.nodes / _NODES_PER_WORK)


def _options_taken(core: Arrays, values: Floats, kept: Ints) -> Ints | None:
    """[P] the options taken; None where a part does not have exactly one."""
    taken = np.flatnonzero(values > 0.5)
    is_complete = len(taken) == core.part_count and bool((core.part[taken] == np.arange(core.part_count)).all())
    return kept[taken] if is_complete else None


def search_core(data: Arrays, keep: Flags, choice: Ints, max_cost: int, effort: Effort) -> CoreResult:
    """Search the kept options by CP-SAT for the best plan of at most `max_cost`, starting from the present one."""
    if (np.bincount(data.part[keep], minlength=data.part_count) == 0).any():
        return CoreResult(None, True, 0.0)
    answer = solve_submodel(data, np.arange(data.part_count), keep, choice, effort, max_cost)
    return CoreResult(answer.choice, answer.complete, answer.work)
