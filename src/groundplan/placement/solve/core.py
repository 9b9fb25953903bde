"""The core: a plan within a target is sought only among the options that such a plan can use.

The least that a plan with an option costs decides that (`fixing`), so nothing within the target is lost: where the core
was searched through without a plan, there is none, and the bound is above the target. Low targets make small cores that
HiGHS branches through; higher ones are searched by CP-SAT. For problems without units to buy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Flags, Ints
from groundplan.placement.solve.arrays import Arrays, Floats, subset
from groundplan.placement.solve.backends import branch
from groundplan.placement.solve.submodel import Effort, search

_NODES = 100
"""of HiGHS for one unit of work, about a second of computing"""
_MOST_BRANCHED = 1_500
"""options that HiGHS is asked to branch over"""
_DEAREST = 1e6


@dataclass(frozen=True, slots=True)
class Found:
    """What the search of a core says."""

    choice: Ints | None
    above: bool
    """no plan is within the target"""
    work: float


def branched(data: Arrays, keep: Flags, target: int, effort: Effort) -> Found | None:
    """HiGHS over kept options [O] for a plan within the target.

    None: too many options, sites that cost to open, or prices that floats do not tell apart.
    """
    kept = np.flatnonzero(keep)
    if len(kept) > _MOST_BRANCHED or data.opening.any() or float(np.abs(data.price).max(initial=0.0)) > _DEAREST:
        return None
    core = subset(data, kept)
    if len(core.empty_parts()):
        return Found(None, True, 0.0)
    columns = np.arange(len(kept))
    entries = [(core.part, columns, np.ones(len(kept)))]
    for k in range(core.row.shape[1]):
        real = np.flatnonzero(core.row[:, k] < core.rows)
        entries.append((core.parts + core.row[real, k], real, core.use[real, k].astype(np.float64)))
    last = core.parts + core.rows
    entries.append((np.full(len(kept), last), columns, core.price))
    lower = np.concatenate([np.ones(core.parts), np.full(core.rows + 1, -np.inf)])
    upper = np.concatenate([np.ones(core.parts), core.capacity[:-1].astype(np.float64), [float(target)]])
    nodes = max(1, round(effort.work * _NODES))
    answer = branch(core.price, np.ones(len(kept)), lower, upper, entries, nodes=nodes, seconds=effort.seconds)
    choice = None if answer.values is None else _chosen(core, answer.values, kept)
    return Found(choice, answer.complete and choice is None, answer.nodes / _NODES)


def _chosen(core: Arrays, values: Floats, kept: Ints) -> Ints | None:
    """[P] the options that are taken; None where a part does not have exactly one."""
    taken = np.flatnonzero(values > 0.5)
    whole = len(taken) == core.parts and bool((core.part[taken] == np.arange(core.parts)).all())
    return kept[taken] if whole else None


def searched(data: Arrays, keep: Flags, choice: Ints, most: int, effort: Effort) -> Found:
    """CP-SAT over kept options for the best plan of at most `most`, beginning near the present one."""
    if (np.bincount(data.part[keep], minlength=data.parts) == 0).any():
        return Found(None, True, 0.0)
    answer = search(data, np.arange(data.parts), keep, choice, effort, most)
    return Found(answer.choice, answer.complete, answer.work)
