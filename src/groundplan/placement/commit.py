"""Which commitments to sign for units that are needed for months: the cheapest cover by on-demand and reserved terms.

A commitment of T months bought in month m covers one unit in the months m to m + T - 1 and is paid to its end, also
where that lies beyond the horizon: nothing is taken for granted of what comes after. The cover is a linear program
whose matrix has consecutive ones in each column, so its optimum is whole units (Veinott and Wagner, "Optimal Capacity
Scheduling", Operations Research 10(4), 1962). Nothing is bought here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundplan.placement.solve.backends import solve_highs


@dataclass(frozen=True, slots=True)
class Signed:
    """Commitments of one kind, bought at once."""

    month: int
    """of the horizon, from 0"""
    term: int
    """months"""
    units: int
    price: float
    """USD a month and unit"""


@dataclass(frozen=True, slots=True)
class Cover:
    """How the months are covered, and what it costs beside renting all of it on demand. USD over the horizon."""

    signed: tuple[Signed, ...]
    usd: float
    on_demand_usd: float


def commit(needed: Sequence[int], on_demand: float, terms: Sequence[tuple[float, float]]) -> Cover:
    """`needed`: units in each month; `terms`: (months, USD a month and unit), `on_demand` in USD a month and unit."""
    months, plain = len(needed), float(sum(needed)) * on_demand
    kinds = [(max(1, round(length)), price) for length, price in terms if price < on_demand]
    columns = [(start, length, price) for length, price in kinds for start in range(months)]
    if not columns or not any(needed):
        return Cover((), plain, plain)
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
        return Cover((), plain, plain)
    value, units, _ = answer
    found = [
        Signed(start, length, round(float(bought)), p)
        for (start, length, p), bought in zip(columns, units[months:], strict=True)
        if round(float(bought)) > 0
    ]
    return Cover(tuple(sorted(found, key=lambda each: (each.month, each.term))), value, plain)
