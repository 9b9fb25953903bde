"""Hardware that workloads share over the hours of a week: own units that are held, rented ones to commit to.

Peaks at different hours fit beside each other. An own pool has a row for each hour that may be the fullest one (hours
in which nobody takes more than in another one say nothing new), a committed pool one for each part of the week by which
units are rented. How much is held, or signed for, is one decision that gives the same to all rows of its pool, at its
price a month; what is rented by the hour on top widens single rows. Where own units can be extended by rented ones of
their type, those are one more decision that gives to the same rows, in whole units for whole months, and only once all
own ones are held: a row of its own says so. Pure; the rows become part of the problem in `company`.

What stands for the fullest hour is paid once, not by each peak (peak-load pricing: M. Boiteux, "La tarification des
demandes en pointe", Revue generale de l'electricite 58, 1949).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np

from groundplan.placement.terms.candidates import Candidate, Offered
from groundplan.placement.terms.capacity import hold_usd
from groundplan.placement.terms.curve import WEEK
from groundplan.placement.terms.facts import HOURS, HardwareFacts, SiteFacts, WorkloadFacts
from groundplan.placement.terms.rentals import BLOCKS, HOURLY, row

MILLI = 1000
MOST_UNITS = 10**6
"""Where no number of units would do"""
MOST_ROWS = 8
"""Hours of one pool; more are joined with their neighbours, each at the most that any of them takes"""
BITS = 10
"""What is held is the sum of so many amounts that double, each held or not: steps of a thousandth of what is there"""
BEYOND = 5
"""Amounts above what is there, so that a conflict can say what more of it would cost"""
MOST_COMMITTED = 200
MOST_RENTED = 64
"""Numbers of units that may be rented beyond own ones; where more can be had, in larger steps"""
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class Pool:
    """One decision for all rows."""

    name: str
    site: str
    type: str
    rows: tuple[str, ...]
    """names of its rows"""
    hours: tuple[tuple[int, ...], ...]
    """of an own pool: the hours of the week of each row"""
    amounts: tuple[int, ...]
    """thousandths of units of which each may be held: in all what is there, or what a provider lets one commit to"""
    beyond: tuple[int, ...]
    """thousandths that are not there, so that a conflict can say what more would cost"""
    price: float
    """USD a month and unit"""
    months: float = 0.0
    """of a commitment; 0: own units"""
    group: int = 1
    """units that are held together"""
    order: str = ""
    """the row that lets more be rented only once all own ones are held"""
    waits: int = 0
    """of rented units beyond own ones: the amounts of the own pool, all of which are held before any of these"""
    rentable: int = 0
    """of own units: thousandths that can be rented beyond them"""

    @property
    def there(self) -> int:
        """Thousandths in all."""
        return self.amounts[-1] if self.waits else sum(self.amounts)

    @property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """Of each amount: not held, or held; and of what is beyond. Of rented units beyond own ones: so many."""
        if self.waits:
            return ((0, *self.amounts),)
        more = ((0, *self.beyond),) if self.beyond else ()
        return (*((0, amount) for amount in self.amounts), *more)

    @property
    def own(self) -> bool:
        return not self.months and not self.waits

    @property
    def room(self) -> str:
        """What there is of own units, in words."""
        more = f" and {self.rentable / MILLI:g} can be rented" if self.rentable else ""
        return f"{self.there / MILLI:g} are there{more}"


def pools(offers: Offered) -> dict[str, Pool]:
    """By name. An own pool is there only where not everybody's fullest hour is the same one."""
    found: dict[str, Pool] = {}
    for _, site in sorted(offers.company.sites.items()):
        for hardware in site.hardware:
            takers = list(_takers(offers, site, hardware))
            if hardware.count:
                longest = offers.company.policy.commit_months
                found |= {each.name: each for each in _own(site, hardware, takers, longest)}
            elif hardware.on_demand is not None and hardware.terms:
                terms = [each for each in hardware.terms if each[0] <= offers.company.policy.commit_months]
                found |= {each.name: each for each in _committed(site, hardware, terms, takers)}
    return found


def _takers(
    offers: Offered, site: SiteFacts, hardware: HardwareFacts
) -> Iterator[tuple[WorkloadFacts, list[Candidate]]]:
    """Workloads with their allowed candidates on this hardware."""
    for name, candidates in offers.by_workload.items():
        mine = [c for c in candidates if c.allowed and c.site == site.name and c.hardware == hardware.type]
        if mine:
            yield offers.company.workloads[name], mine


def _own(
    site: SiteFacts,
    hardware: HardwareFacts,
    takers: Sequence[tuple[WorkloadFacts, list[Candidate]]],
    longest: float,
) -> Iterator[Pool]:
    """The units that are there, and those that can be rented beyond them; `longest`: months of a term."""
    there, hours = hardware.count * MILLI, fullest([w.curve for w, _ in takers])
    if len(hours) < 2:
        return
    name = f"{site.name} {hardware.type}"
    lacking = max(0, sum(max(_most(c) for c in mine) for _, mine in takers) - there)
    way = rents(hardware, longest)
    rented = 0 if way is None else min(hardware.most, ceil(lacking / MILLI))
    lacking = max(0, lacking - rented * MILLI)
    own = Pool(
        name, site.name, hardware.type, tuple(f"{name}, peak of {_told(each)}" for each in hours), hours,
        doubling(there, max(1, ceil(there / 2**BITS))),
        tuple(ceil(lacking * at / BEYOND) for at in range(1, BEYOND + 1)) if lacking else (),
        hold_usd(site, hardware), order=f"{name}: all are held before more are rented" if rented else "",
        rentable=rented * MILLI,
    )  # fmt: skip
    yield own
    if rented and way is not None:
        price, how, months = way
        step = ceil(rented / MOST_RENTED)
        amounts = tuple(min(each, rented) * MILLI for each in range(step, rented + step, step))
        yield Pool(
            f"{name} {how}", site.name, hardware.type, own.rows, hours, amounts, (), price * HOURS, months,
            order=own.order, waits=len(own.amounts),
        )  # fmt: skip


def rents(hardware: HardwareFacts, longest: float) -> tuple[float, str, float] | None:
    """(USD an hour, how, months to sign for or 0) of the cheapest unit for whole months; None: none can be had."""
    ways = [(price, "committed", months) for months, price in hardware.terms if months <= longest]
    if hardware.reserved is not None and not hardware.terms:
        ways.append((hardware.reserved, "reserved", 0.0))
    if hardware.on_demand is not None:
        ways.append((hardware.on_demand, "on demand", 0.0))
    return min(ways, key=lambda way: (way[0], way[2]), default=None)


def doubling(total: int, least: int) -> tuple[int, ...]:
    """Amounts of which some add up to any multiple of the least one up to the total, and all of them to the total."""
    found: list[int] = []
    left, amount = total, least
    while left > amount:
        found.append(amount)
        left, amount = left - amount, amount * 2
    return (*found, left)


def _most(c: Candidate) -> int:
    return ceil(c.units * MILLI) if c.units < MOST_UNITS else 0


def _told(hours: Sequence[int]) -> str:
    day, hour = divmod(hours[0], 24)
    return f"{DAYS[day]} {hour:02}:00" + (f" and {len(hours) - 1} h more" if len(hours) > 1 else "")


def fullest(curves: Sequence[Sequence[float]]) -> tuple[tuple[int, ...], ...]:
    """Hours of a week in which the sum of some amounts of these curves may be the largest; joined where these are
    many. An hour in which nobody takes more than in another one is left out."""
    if not curves:
        return ()
    shape = np.array([[round(value / max(each), 9) for value in each] for each in curves]).T
    distinct, first = np.unique(shape, axis=0, return_index=True)
    keep = [
        int(first[at])
        for at in range(len(distinct))
        if not any(other != at and (distinct[other] >= distinct[at]).all() for other in range(len(distinct)))
    ]
    keep.sort()
    size = ceil(len(keep) / MOST_ROWS)
    return tuple(tuple(keep[at : at + size]) for at in range(0, len(keep), size))


def _committed(
    site: SiteFacts,
    hardware: HardwareFacts,
    terms: Sequence[tuple[float, float]],
    takers: Sequence[tuple[WorkloadFacts, list[Candidate]]],
) -> Iterator[Pool]:
    """One for each family of rows that is rented by the hour: a model in replicas of several units has its own."""
    months, price = min(terms, key=lambda each: (each[1], each[0]), default=(0.0, inf))
    if hardware.on_demand is None or price >= hardware.on_demand:
        return
    families: dict[tuple[str, int], dict[str, float]] = {}
    for w, mine in takers:
        for c in (c for c in mine if c.lease == HOURLY):
            family = families.setdefault((c.model if c.group > 1 else "", c.group), {})
            family[w.name] = max(family.get(w.name, 0.0), *c.blocks.values())
    for (model, group), taken in sorted(families.items()):
        most = min(hardware.most // group, ceil(sum(taken.values()) / group), MOST_COMMITTED)
        rows = tuple(shared(site.name, row(hardware.type, HOURLY, block, model, group)) for block in BLOCKS)
        name = f"{site.name} {hardware.type} committed" + (f", {group} for {model}" if model else "")
        if most:
            amounts = tuple(each * group * MILLI for each in doubling(most, 1))
            yield Pool(name, site.name, hardware.type, rows, (), amounts, (), price * HOURS, months, group)


def shared(site: str, resource: str) -> str:
    """The name of a row that a pool gives to."""
    return f"{site} {resource}"


def taken(pool: Pool, w: WorkloadFacts, c: Candidate, share: float) -> dict[str, int]:
    """Thousandths in each row of an own pool of a candidate that bears `share` of the peak."""
    return {
        name: ceil(max(units_at(w, c, share, hour) for hour in hours) * MILLI - 1e-6)
        for name, hours in zip(pool.rows, pool.hours, strict=True)
    }


def units_at(w: WorkloadFacts, c: Candidate, share: float, hour: int) -> float:
    """Units in one hour of the week: as the load is, and never less than its memory takes."""
    return max(c.least, min(c.units, MOST_UNITS) * min(w.curve[hour] / max(w.curve), share))


def week_of(parts: Iterable[tuple[WorkloadFacts, Candidate, float]]) -> tuple[float, ...]:
    """Units that these (workload, candidate, share) take together in each hour of a week."""
    total = [0.0] * WEEK
    for w, c, share in parts:
        for hour in range(WEEK):
            total[hour] += units_at(w, c, share, hour)
    return tuple(total)


def at_site(found: Mapping[str, Pool], site: str, type_: str) -> Pool | None:
    """The own pool of this hardware."""
    each = found.get(f"{site} {type_}")
    return each if each is not None and each.own else None
