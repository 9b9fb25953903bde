"""Which models answer a workload surely below a floor of quality that it declares. Pure.

Judgements are outcomes whose label is the dimension. They are looked at again and again, so the interval is the one of
experiments that may be looked at any time: that of a single look would once in a while exclude a floor that is kept.
What leaves the history while others come is counted anew, so each time that the history has been renewed is another
chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from groundplan.economics.experiment.sequential import LEAST, Tally, mean_range

LEVEL: Final = 0.99
"""Of the interval, at all looks together."""


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
    """`low`, `high`: interval of the share that is accepted."""

    judged: Judged
    floor: float
    low: float
    high: float


def below(every: Sequence[Judged], floors: Mapping[str, float]) -> list[Below]:
    """Those of which the whole interval is below the floor of their dimension, the furthest first; of fewer than
    `LEAST` judgements nothing is told."""
    found = []
    for each in every:
        floor = floors.get(each.dimension)
        if floor is None or each.judged < LEAST:
            continue
        sure = mean_range(Tally(each.judged, each.accepted, each.accepted), LEVEL)
        if sure.high < floor:
            found.append(Below(each, floor, sure.low, sure.high))
    return sorted(found, key=lambda each: (each.judged.share - each.floor, each.judged.model, each.judged.dimension))
