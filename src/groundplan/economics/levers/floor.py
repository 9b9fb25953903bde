"""Which models answer a workload surely below a floor of quality that it declares. Pure.

Judgements are outcomes whose label is the dimension. A few of them prove nothing: what is told was judged `LEAST`
times and is below the floor with 99 % confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from groundplan.economics.routing.watch.tradeoff import share

LEAST: Final = 20
"""Judgements of a model's answers in a dimension."""
_Z = NormalDist().inv_cdf(0.995)


@dataclass(frozen=True, slots=True)
class Judged:
    """What was said of one model's answers in one dimension. `refused`: ids of the newest that were not accepted."""

    model: str
    dimension: str
    accepted: int
    judged: int
    refused: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        return self.accepted / self.judged


@dataclass(frozen=True, slots=True)
class Below:
    """`low`, `high`: 99 % interval, Wilson's (1927)."""

    judged: Judged
    floor: float
    low: float
    high: float


def below(every: Sequence[Judged], floors: Mapping[str, float]) -> list[Below]:
    """Those of which the whole interval is below the floor of their dimension, the furthest first."""
    found = []
    for each in every:
        floor = floors.get(each.dimension)
        if floor is None or each.judged < LEAST:
            continue
        sure = share(each.accepted, each.judged, _Z)
        if sure.high < floor:
            found.append(Below(each, floor, sure.low, sure.high))
    return sorted(found, key=lambda each: (each.judged.share - each.floor, each.judged.model, each.judged.dimension))
