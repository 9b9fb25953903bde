"""What several levers save together: each acts on what the others left, so that no dollar is saved twice. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from groundplan.economics.levers.model import Looked
from groundplan.economics.replay.opportunities import Opportunity, Spent, month

BESIDE: Final = frozenset({"idle capacity", "logs nobody reads"})
"""Levers in what is allocated, of which no call is a part."""
_Place = tuple[str, str]
"""(workload, deployment)"""


def monthly(spent: Sequence[Spent], looked: Looked) -> dict[_Place, Decimal]:
    """What the calls of each workload cost a month at each deployment, US dollars."""
    found: dict[_Place, Decimal] = {}
    for row in spent:
        place = row.workload, row.deployment
        found[place] = found.get(place, Decimal(0)) + row.cost_usd * month(row.workload, looked.days, looked.seen)
    return found


def together(found: Sequence[Opportunity], calls: Mapping[_Place, Decimal]) -> Decimal:
    """US dollars a month if every lever worked on every call, never more than these `calls` cost and what is allocated
    beside them. Of several cheaper models for the same calls one can be taken: the best."""
    left = dict(calls)
    for each in _one_of_each(found):
        places = [place for place in calls if _about(each, place)]
        whole = sum((calls[place] for place in places), Decimal(0))
        mine = {place[0] for place in places}
        saves = each.saves_usd * len(mine) / max(1, len(each.about))
        if whole > 0:
            share = min(Decimal(1), saves / whole)
            left |= {place: left[place] * (1 - share) for place in places}
    saved = sum(calls.values(), Decimal(0)) - sum(left.values(), Decimal(0))
    return saved + sum((each.saves_usd for each in found if each.lever in BESIDE), Decimal(0))


def _one_of_each(found: Sequence[Opportunity]) -> list[Opportunity]:
    best: dict[object, Opportunity] = {}
    for place, each in enumerate(found):
        if each.lever not in BESIDE:
            key = (each.workload, each.deployment) if each.candidate else place
            best[key] = max(best.get(key, each), each, key=lambda one: one.saves_usd)
    return list(best.values())


def _about(each: Opportunity, place: _Place) -> bool:
    return place[0] in each.about and each.deployment in ("", place[1])
