"""Combined savings of several levers: each applies to what the others leave, so that no dollar is saved twice. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from groundplan.economics.levers.model import Observations
from groundplan.economics.replay.opportunities import Opportunity, Spent, month

ALLOCATED_LEVERS: Final = frozenset({"idle capacity", "logs nobody reads"})
"""Levers in allocated costs, which no call is part of."""
_Place = tuple[str, str]
"""(workload, deployment)"""


def monthly_costs(spent: Sequence[Spent], looked: Observations) -> dict[_Place, Decimal]:
    """Monthly cost of each workload's calls at each deployment, US dollars."""
    found: dict[_Place, Decimal] = {}
    for row in spent:
        place = row.workload, row.deployment
        found[place] = found.get(place, Decimal(0)) + row.cost_usd * month(row.workload, looked.days, looked.seen)
    return found


def combined_savings(found: Sequence[Opportunity], calls: Mapping[_Place, Decimal]) -> Decimal:
    """US dollars a month if every lever worked on every call, at most the cost of `calls` plus allocated costs. Of
    several cheaper models for the same calls only the best counts."""
    left = dict(calls)
    for each in _best_of_each(found):
        places = [place for place in calls if _concerns(each, place)]
        total = sum((calls[place] for place in places), Decimal(0))
        workloads = {place[0] for place in places}
        saves = each.saves_usd * len(workloads) / max(1, len(each.about))
        if total > 0:
            share = min(Decimal(1), saves / total)
            left |= {place: left[place] * (1 - share) for place in places}
    saved = sum(calls.values(), Decimal(0)) - sum(left.values(), Decimal(0))
    return saved + sum((each.saves_usd for each in found if each.lever in ALLOCATED_LEVERS), Decimal(0))


def _best_of_each(found: Sequence[Opportunity]) -> list[Opportunity]:
    best: dict[object, Opportunity] = {}
    for place, each in enumerate(found):
        if each.lever not in ALLOCATED_LEVERS:
            key = (each.workload, each.deployment) if each.candidate else place
            best[key] = max(best.get(key, each), each, key=lambda one: one.saves_usd)
    return list(best.values())


def _concerns(each: Opportunity, place: _Place) -> bool:
    return place[0] in each.about and each.deployment in ("", place[1])
