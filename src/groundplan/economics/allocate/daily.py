"""Allocates declared costs day by day, each by the rules that were in force on it. Pure.

The parts of a day depend on that day alone, so a period costs the sum of its days, for every workload and team: two
halves of a month add up to the month, and a past day does not change when a rule does. Days are added up where rule,
carrier and basis are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from groundplan.blueprint.model import Allocation
from groundplan.economics.allocate.divide import capacity_of, divide
from groundplan.economics.allocate.model import Day, Line, Part
from groundplan.economics.allocate.semantic_lookup import separate_lookups

_ZERO: Final = Decimal(0)
_Key = tuple[object, ...]


class _Sum:
    """Sum of the parts of one line."""

    __slots__ = ("amount", "blueprints", "part", "site", "units")

    def __init__(self, part: Part, site: str) -> None:
        self.part, self.site = part, site
        self.amount = 0
        self.units = _ZERO
        self.blueprints: set[int] = set()


def allocate_days(days: Sequence[Day]) -> list[Line]:
    """The lines of all rules, with semantic look-ups as lines of their own. Raises `Invalid` if the rate of a currency
    is missing."""
    versions = _first_blueprints(days)
    sums: dict[_Key, _Sum] = {}
    for day in days:
        for part in _parts_of_day(day, versions):
            site = part.site or day.sites.get(part.deployment, "")
            key = (*part[:10], site)
            total = sums.get(key)
            if total is None:
                total = sums[key] = _Sum(part, site)
            total.amount += part.amount
            if part.units:
                total.units += part.units
            if day.blueprint:
                total.blueprints.add(day.blueprint)
    return [_line(total) for total in sums.values()]


def _parts_of_day(day: Day, versions: dict[int, int]) -> Iterable[Part]:
    found: list[Part] = []
    for rule in day.rules:
        capacity = None if rule.capacity is None else capacity_of(day.rules, rule.covers, day.day)
        version = versions[id(rule)]
        found += divide(rule, day.uses, day.day, day.currencies, capacity=capacity, version=version)
    return separate_lookups(found, day.lookups) if day.lookups else found


def _first_blueprints(days: Sequence[Day]) -> dict[int, int]:
    """id of each rule -> number of the first blueprint that has the rule in this form."""
    found: dict[int, int] = {}
    first: dict[bytes, int] = {}
    for day in days:
        for rule in day.rules:
            if id(rule) not in found:
                found[id(rule)] = first.setdefault(_rule_digest(rule), day.blueprint)
    return found


def _rule_digest(rule: Allocation) -> bytes:
    return msgspec.json.encode(rule)  # MessagePack has no amount above 18 million dollars


def _line(total: _Sum) -> Line:
    part = total.part
    return Line(
        term=part.term,
        workload=part.workload,
        team=part.team,
        amount=total.amount,
        basis=part.basis,
        rule=f"{float(total.units):.6g} {part.rule}" if total.units else part.rule,
        source=part.source,
        deployment=part.deployment,
        site=total.site,
        allocation=part.allocation,
        blueprints=tuple(sorted(total.blueprints)),
    )
