"""Finds models whose answers are surely below a quality floor of their workload. Pure.

Judgements are outcomes whose label is the dimension. They are evaluated repeatedly, so the interval is the one of
experiments, which holds at all looks together; an ordinary interval would now and then exclude a floor that is kept.
When the history has been replaced by newer judgements, the next looks are another chance of an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from groundplan.economics.experiment.sequential import LEAST, Tally, mean_range

LEVEL: Final = 0.99
"""Confidence of the interval, at all looks together."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Judgements of one model's answers in one dimension. `refused`: ids of the newest that were not accepted."""

    model: str
    dimension: str
    accepted: int
    judged: int
    refused: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        return self.accepted / self.judged


@dataclass(frozen=True, slots=True)
class BelowFloor:
    """A model below a floor. `low`, `high`: interval of its accepted share."""

    judged: Judged
    floor: float
    low: float
    high: float


def find_below_floor(every: Sequence[Judged], floors: Mapping[str, float]) -> list[BelowFloor]:
    """Models whose whole interval is below the floor of a dimension, the furthest first; those with fewer than `LEAST`
    judgements are skipped."""
    found = []
    for each in every:
        floor = floors.get(each.dimension)
        if floor is None or each.judged < LEAST:
            continue
        sure = mean_range(Tally(each.judged, each.accepted, each.accepted), LEVEL)
        if sure.high < floor:
            found.append(BelowFloor(each, floor, sure.low, sure.high))
    return sorted(found, key=lambda each: (each.judged.share - each.floor, each.judged.model, each.judged.dimension))
