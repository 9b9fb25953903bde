"""Declared costs of some days, each by the rules that were in force on it. Pure.

A day's parts depend on that day alone, so any days cost what each of them costs, for every workload and team: two
halves of a month are the month, and what was told of a day that is over does not change with a rule. Days are added up
where rule, carrier and basis are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from groundplan.blueprint.model import Allocation
from groundplan.economics.allocate.divide import capacity_of, divide
from groundplan.economics.allocate.model import Day, Line, Part
from groundplan.economics.allocate.semantic_lookup import apart

_NOTHING: Final = Decimal(0)
_Key = tuple[object, ...]


class _Sum:
    """Of the parts of one line."""

    __slots__ = ("amount", "blueprints", "part", "site", "units")

    def __init__(self, part: Part, site: str) -> None:
        self.part, self.site = part, site
        self.amount = 0
        self.units = _NOTHING
        self.blueprints: set[int] = set()


def allocated(days: Sequence[Day]) -> list[Line]:
    """The lines of all rules, with look-ups by meaning told apart. Raises `Invalid` where the rate of a currency is
    missing."""
    since = _came(days)
    sums: dict[_Key, _Sum] = {}
    for day in days:
        for part in _parts(day, since):
            site = part.site or day.sites.get(part.deployment, "")
            key = (*part[:10], site)
            mine = sums.get(key)
            if mine is None:
                mine = sums[key] = _Sum(part, site)
            mine.amount += part.amount
            if part.units:
                mine.units += part.units
            if day.blueprint:
                mine.blueprints.add(day.blueprint)
    return [_line(mine) for mine in sums.values()]


def _parts(day: Day, since: dict[int, int]) -> Iterable[Part]:
    found: list[Part] = []
    for rule in day.rules:
        capacity = None if rule.capacity is None else capacity_of(day.rules, rule.covers, day.day)
        version = since[id(rule)]
        found += divide(rule, day.uses, day.day, day.currencies, capacity=capacity, version=version)
    return apart(found, day.looked) if day.looked else found


def _came(days: Sequence[Day]) -> dict[int, int]:
    """Each rule -> the blueprint with which it, as it is, came; a rule that did not change is the same one."""
    found: dict[int, int] = {}
    first: dict[bytes, int] = {}
    for day in days:
        for rule in day.rules:
            if id(rule) not in found:
                found[id(rule)] = first.setdefault(_said(rule), day.blueprint)
    return found


def _said(rule: Allocation) -> bytes:
    return msgspec.json.encode(rule)  # MessagePack has no amount above 18 million dollars


def _line(mine: _Sum) -> Line:
    part = mine.part
    return Line(
        term=part.term,
        workload=part.workload,
        team=part.team,
        amount=mine.amount,
        basis=part.basis,
        rule=f"{float(mine.units):.6g} {part.rule}" if mine.units else part.rule,
        source=part.source,
        deployment=part.deployment,
        site=mine.site,
        allocation=part.allocation,
        blueprints=tuple(sorted(mine.blueprints)),
    )
