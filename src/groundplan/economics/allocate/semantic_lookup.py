"""What looking up answers in the semantic cache costs, as a term of its own, counted once. Pure.

The processor that looks up is part of the platform. So what a workload's look-ups came to is taken out of what it
carries of the platform, under the same rules, and every sum stays what was spent; what no allocation of the platform
carries is beside it. Exact look-ups are in the worker's memory: no time of theirs is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from groundplan.core.money import short_usd
from groundplan.economics.allocate.model import LookedUp, Part

LOOKUP: Final = "cache_lookup"
PLATFORM: Final = "platform"


def apart(parts: Sequence[Part], looked: Mapping[str, LookedUp]) -> list[Part]:
    """A day's parts with those of look-ups told apart. `looked`: workload -> its look-ups."""
    left = {name: each.cost for name, each in looked.items()}
    found: list[Part] = []
    for part in parts:
        taken = min(left.get(part.workload, 0), part.amount) if part.term == PLATFORM else 0
        if not taken:
            found.append(part)
            continue
        left[part.workload] -= taken
        if part.amount > taken:
            found.append(part._replace(amount=part.amount - taken))
        one = looked[part.workload]
        found.append(_part(one, taken, f", part of what is carried {part.rule}", part.team, part.version))
    beside = ", which no allocation of the platform carries"
    return found + [_part(looked[name], rest, beside, looked[name].team, 0) for name, rest in left.items() if rest]


def _part(one: LookedUp, amount: int, of: str, team: str, version: int) -> Part:
    return Part(
        term=LOOKUP,
        workload=one.workload,
        team=team,
        basis="estimated",
        rule=f"s of look-ups x {short_usd(one.hour)} an hour{of}",
        source=f"the time that was measured, and cache.semantic.processor of {one.workload}",
        deployment="",
        site="",
        allocation="",
        version=version,
        amount=amount,
        units=Decimal(one.spent_us) * amount / one.cost / 10**6,
    )
