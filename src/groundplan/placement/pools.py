"""Hardware that workloads share over the hours of a week: own units that are held, rented ones to commit to.

Peaks at different hours fit beside each other. An own pool has a row for each hour that may be the fullest one (hours
in which nobody takes more than in another one say nothing new), a committed pool one for each part of the week by which
units are rented. How much is held, or signed for, is one decision that gives the same to all rows of its pool, at its
price a month; what is rented by the hour on top widens single rows. Own units that may be extended by rented ones are
no pool: for them peaks are added. Pure; the rows become part of the problem in `company`.

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
from groundplan.placement.terms.leases import BLOCKS, HOURLY, row

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

    @property
    def there(self) -> int:
        """Thousandths in all."""
        return sum(self.amounts)

    @property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """Of each amount: not held, or held; and of what is beyond."""
        more = ((0, *self.beyond),) if self.beyond else ()
        return (*((0, amount) for amount in self.amounts), *more)

    @property
    def own(self) -> bool:
        return not self.months


def pools(offers: Offered) -> dict[str, Pool]:
    """By name. An own pool is there only where not everybody's fullest hour is the same one."""
    found: dict[str, Pool] = {}
    for _, site in sorted(offers.company.sites.items()):
        for hardware in site.hardware:
            takers = list(_takers(offers, site, hardware))
            if hardware.count and hardware.rented is None:
                each = _own(site, hardware, takers)
                found |= {} if each is None else {each.name: each}
            elif not hardware.count and hardware.on_demand is not None and hardware.terms:
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
    site: SiteFacts, hardware: HardwareFacts, takers: Sequence[tuple[WorkloadFacts, list[Candidate]]]
) -> Pool | None:
    there = sum(each.count for each in site.hardware if each.type == hardware.type) * MILLI
    hours = fullest([w.curve for w, _ in takers])
    if len(hours) < 2:
        return None
    name = f"{site.name} {hardware.type}"
    total = sum(max(_most(c) for c in mine) for _, mine in takers)
    beyond = tuple(ceil((total - there) * at / BEYOND) for at in range(1, BEYOND + 1)) if total > there else ()
    return Pool(
        name, site.name, hardware.type, tuple(f"{name}, peak of {_told(each)}" for each in hours), hours,
        doubling(there, max(1, ceil(there / 2**BITS))), beyond, hold_usd(site, hardware),
    )  # fmt: skip


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
