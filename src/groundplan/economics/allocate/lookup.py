"""What looking answers up by their meaning costs, as a term of its own, counted once. Pure.

The processor that looks up is part of the platform. So what a workload's look-ups came to is taken out of what it
carries of the platform, under the same rules, and every sum stays what was spent; what no allocation of the platform
carries is beside it. Exact look-ups are in the worker's memory: no time of theirs is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from groundplan.core.money import short_usd
from groundplan.economics.allocate.model import Line
from groundplan.economics.semantic.net import HOUR_US

LOOKUP: Final = "cache_lookup"
PLATFORM: Final = "platform"


@dataclass(frozen=True, slots=True)
class LookedUp:
    """Of one workload in some days: microseconds of all look-ups, and picodollars of an hour of the processor."""

    workload: str
    spent_us: int
    hour: int
    team: str = ""

    @property
    def cost(self) -> int:
        return self.spent_us * self.hour // HOUR_US


def apart(lines: Sequence[Line], looked: Mapping[str, LookedUp]) -> list[Line]:
    """The lines with those of look-ups told apart. `looked`: workload -> its look-ups."""
    left = {name: each.cost for name, each in looked.items()}
    found: list[Line] = []
    for line in lines:
        taken = min(left.get(line.workload, 0), line.amount) if line.term == PLATFORM else 0
        if not taken:
            found.append(line)
            continue
        left[line.workload] -= taken
        if line.amount > taken:
            found.append(replace(line, amount=line.amount - taken))
        found.append(_line(looked[line.workload], taken, f", part of what is carried {line.rule}", line))
    beside = ", which no allocation of the platform carries"
    return found + [_line(looked[name], rest, beside) for name, rest in left.items() if rest]


def _line(one: LookedUp, amount: int, of: str, carried: Line | None = None) -> Line:
    how = f"{one.spent_us / 1e6:.6g} s of look-ups x {short_usd(one.hour)} an hour"
    return Line(
        term=LOOKUP,
        workload=one.workload,
        team=one.team if carried is None else carried.team,
        amount=amount,
        basis="estimated",
        rule=f"{how}{of}",
        source=f"the time that was measured, and cache.semantic.processor of {one.workload}",
    )
