"""Separates the cost of look-ups in the semantic cache into a term of its own, counted once. Pure.

Look-ups use the platform's processors. So their cost is taken out of the workload's share of the platform's cost, and
sums do not change; what exceeds that share, or has no allocation of the platform, is added. Look-ups in the exact cache
are in the worker's memory and have no cost of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from groundplan.core.money import short_usd
from groundplan.economics.allocate.model import LookupCost, Part

LOOKUP: Final = "cache_lookup"
PLATFORM: Final = "platform"


def separate_lookups(parts: Sequence[Part], lookups_by_workload: Mapping[str, LookupCost]) -> list[Part]:
    """A day's parts, with look-ups as parts of their own."""
    remaining = {name: each.cost for name, each in lookups_by_workload.items()}
    found: list[Part] = []
    for part in parts:
        share = min(remaining.get(part.workload, 0), part.amount) if part.term == PLATFORM else 0
        if not share:
            found.append(part)
            continue
        remaining[part.workload] -= share
        if part.amount > share:
            found.append(part._replace(amount=part.amount - share))
        lookups = lookups_by_workload[part.workload]
        found.append(_part(lookups, share, f", part of what is carried {part.rule}", part.team, part.version))
    note = ", which no allocation of the platform carries"
    return found + [
        _part(lookups_by_workload[name], amount, note, lookups_by_workload[name].team, 0)
        for name, amount in remaining.items()
        if amount
    ]


def _part(lookups: LookupCost, amount: int, note: str, team: str, version: int) -> Part:
    return Part(
        term=LOOKUP,
        workload=lookups.workload,
        team=team,
        basis="estimated",
        rule=f"s of look-ups x {short_usd(lookups.hourly_price)} an hour{note}",
        source=f"the time that was measured, and cache.semantic.processor of {lookups.workload}",
        deployment="",
        site="",
        allocation="",
        version=version,
        amount=amount,
        units=Decimal(lookups.spent_us) * amount / lookups.cost / 10**6,
    )
