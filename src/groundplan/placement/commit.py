"""Which commitments to sign for units that are needed for months: the cheapest mix of on-demand and reserved terms.

A commitment of T months signed in month m covers one unit in the months m to m + T - 1 and is paid to its end, even
beyond the horizon: no later use is assumed. The mix is a linear program whose matrix has consecutive ones in each
column, so its optimum is integral (Veinott and Wagner, "Optimal Capacity Scheduling", Operations Research 10(4), 1962).
Nothing is bought here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundplan.placement.solve.backends import solve_highs


@dataclass(frozen=True, slots=True)
class Commitment:
    """Units committed to in one month for one term."""

    month: int
    """of the horizon, from 0"""
    term: int
    """months"""
    units: int
    price: float
    """USD a month and unit"""


@dataclass(frozen=True, slots=True)
class CommitmentPlan:
    """The commitments to sign, and the cost with them and with renting all units on demand, in USD over the horizon."""

    commitments: tuple[Commitment, ...]
    usd: float
    on_demand_usd: float


def plan_commitments(needed: Sequence[int], on_demand: float, terms: Sequence[tuple[float, float]]) -> CommitmentPlan:
    """The cheapest commitments. `needed`: units in each month; `terms`: (months, USD a month and unit); `on_demand` in
    USD a month and unit."""
    months, plain = len(needed), float(sum(needed)) * on_demand
    kinds = [(max(1, round(length)), price) for length, price in terms if price < on_demand]
    columns = [(start, length, price) for length, price in kinds for start in range(months)]
    if not columns or not any(needed):
        return CommitmentPlan((), plain, plain)
    price = [on_demand] * months + [p * length for _, length, p in columns]
    spans = [range(month, month + 1) for month in range(months)]
    spans += [range(start, min(start + length, months)) for start, length, _ in columns]
    at = [(month, column) for column, span in enumerate(spans) for month in span]
    rows, numbers = np.array([month for month, _ in at]), np.array([column for _, column in at])
    answer = solve_highs(
        np.array(price), np.full(len(price), float(max(needed))), np.array(needed, dtype=np.float64),
        np.full(months, np.inf), [(rows, numbers, np.ones(len(at)))],
    )  # fmt: skip
    if answer is None:
        return CommitmentPlan((), plain, plain)
    value, units, _ = answer
    found = [
        Commitment(start, length, round(float(bought)), p)
        for (start, length, p), bought in zip(columns, units[months:], strict=True)
        if round(float(bought)) > 0
    ]
    return CommitmentPlan(tuple(sorted(found, key=lambda each: (each.month, each.term))), value, plain)
