"""Hardware that workloads share over the hours of a week: own units that are held, rented ones to commit to.

Peaks at different hours can use the same units. An own pool has a row for each hour that may be the fullest one (an
hour in which no workload uses more than in some other hour is redundant), a committed pool one for each part of the
week by which units are rented. How much is held, or committed to, is one decision that adds the same amount to all rows
of its pool, at its price a month; units rented by the hour widen single rows. Where own units can be extended by rented
ones of their type, these are one more decision that adds to the same rows, in whole units for whole months, and only
once all own units are held: a separate row ensures that. Pure; the rows become part of the problem in `company`.

Units held for the fullest hour are paid once, not by each peak (peak-load pricing: M. Boiteux, "La tarification des
demandes en pointe", Revue generale de l'electricite 58, 1949).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np

from groundplan.placement.terms.candidates import Candidate, CandidateSet
from groundplan.placement.terms.capacity import holding_cost
from groundplan.placement.terms.curve import WEEK
from groundplan.placement.terms.facts import HOURS, HardwareFacts, SiteFacts, WorkloadFacts
from groundplan.placement.terms.rentals import BLOCKS, HOURLY, lease_row_name

MILLI = 1000
MAX_UNITS = 10**6
"""A candidate with this many units or more cannot be served by any number of them"""
MAX_ROWS = 8
"""Rows of one pool; more hours than this are merged with their neighbours, at the most that any of them needs"""
AMOUNT_BITS = 10
"""The held amount is a sum of this many doubling amounts, each held or not: steps of a thousandth of the capacity"""
MISSING_STEPS = 5
"""Amounts above the capacity, so that a conflict can say what more of it would cost"""
MAX_COMMITTED = 200
MAX_RENTED = 64
"""Choices for the number of units rented beyond own ones; if more can be rented, the steps are larger"""
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class Pool:
    """Units of one type at a site that workloads share: one decision adds the same amount to all rows of the pool."""

    name: str
    site: str
    type: str
    rows: tuple[str, ...]
    """names of its rows"""
    hours: tuple[tuple[int, ...], ...]
    """of an own pool: the hours of the week of each row"""
    amounts: tuple[int, ...]
    """thousandths of units, each held or not: in total the own units, or the most that a provider lets one commit to"""
    missing_amounts: tuple[int, ...]
    """thousandths beyond the capacity, so that a conflict can say what more would cost"""
    price: float
    """USD a month and unit"""
    months: float = 0.0
    """the term of a commitment; 0: own units"""
    group: int = 1
    """units that can only be held together"""
    order_row: str = ""
    """the row that allows renting more only once all own units are held"""
    own_amounts_before: int = 0
    """of a pool of units rented beyond own ones: how many amounts of the own pool must be held before any of these"""
    rentable: int = 0
    """of own units: thousandths that can be rented beyond them"""

    @property
    def capacity(self) -> int:
        """Thousandths of units in total."""
        return self.amounts[-1] if self.own_amounts_before else sum(self.amounts)

    @property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """For each decision of the pool, its possible amounts: 0 or the amount; for rented units beyond own ones, one
        decision with all amounts."""
        if self.own_amounts_before:
            return ((0, *self.amounts),)
        more = ((0, *self.missing_amounts),) if self.missing_amounts else ()
        return (*((0, amount) for amount in self.amounts), *more)

    @property
    def is_own(self) -> bool:
        return not self.months and not self.own_amounts_before

    @property
    def capacity_words(self) -> str:
        """The capacity in words, as a rule names it."""
        more = f" and {self.rentable / MILLI:g} can be rented" if self.rentable else ""
        return f"{self.capacity / MILLI:g} are there{more}"


def build_pools(offers: CandidateSet) -> dict[str, Pool]:
    """All pools by name. Own units form a pool only where workloads do not all peak in the same hour."""
    pools: dict[str, Pool] = {}
    for _, site in sorted(offers.company.sites.items()):
        for hardware in site.hardware:
            takers = list(_hardware_users(offers, site, hardware))
            if hardware.count:
                longest = offers.company.policy.commit_months
                pools |= {each.name: each for each in _own_pools(site, hardware, takers, longest)}
            elif hardware.on_demand is not None and hardware.terms:
                terms = [each for each in hardware.terms if each[0] <= offers.company.policy.commit_months]
                pools |= {each.name: each for each in _committed_pools(site, hardware, terms, takers)}
    return pools


def _hardware_users(
    offers: CandidateSet, site: SiteFacts, hardware: HardwareFacts
) -> Iterator[tuple[WorkloadFacts, list[Candidate]]]:
    """(workload, its allowed candidates on this hardware)."""
    for name, candidates in offers.by_workload.items():
        on_hardware = [c for c in candidates if c.is_allowed and c.site == site.name and c.hardware == hardware.type]
        if on_hardware:
            yield offers.company.workloads[name], on_hardware


def _own_pools(
    site: SiteFacts,
    hardware: HardwareFacts,
    users: Sequence[tuple[WorkloadFacts, list[Candidate]]],
    longest: float,
) -> Iterator[Pool]:
    """The pool of own units, and the pool of those that can be rented beyond them; `longest`: most months of a term."""
    available, hours = hardware.count * MILLI, peak_hours([w.curve for w, _ in users])
    if len(hours) < 2:
        return
    name = f"{site.name} {hardware.type}"
    missing = max(0, sum(max(_max_amount(c) for c in on_hardware) for _, on_hardware in users) - available)
    rental = cheapest_rental(hardware, longest)
    rented = 0 if rental is None else min(hardware.max_units, ceil(missing / MILLI))
    missing = max(0, missing - rented * MILLI)
    own = Pool(
        name, site.name, hardware.type, tuple(f"{name}, peak of {_hours_words(each)}" for each in hours), hours,
        doubling_amounts(available, max(1, ceil(available / 2**AMOUNT_BITS))),
        tuple(ceil(missing * at / MISSING_STEPS) for at in range(1, MISSING_STEPS + 1)) if missing else (),
        holding_cost(site, hardware), order_row=f"{name}: all are held before more are rented" if rented else "",
        rentable=rented * MILLI,
    )  # fmt: skip
    yield own
    if rented and rental is not None:
        price, how, months = rental
        step = ceil(rented / MAX_RENTED)
        amounts = tuple(min(each, rented) * MILLI for each in range(step, rented + step, step))
        yield Pool(
            f"{name} {how}", site.name, hardware.type, own.rows, hours, amounts, (), price * HOURS, months,
            order_row=own.order_row, own_amounts_before=len(own.amounts),
        )  # fmt: skip


def cheapest_rental(hardware: HardwareFacts, longest: float) -> tuple[float, str, float] | None:
    """(USD an hour, how, months of the term or 0) of the cheapest unit for whole months; None: none can be rented."""
    ways = [(price, "committed", months) for months, price in hardware.terms if months <= longest]
    if hardware.reserved is not None and not hardware.terms:
        ways.append((hardware.reserved, "reserved", 0.0))
    if hardware.on_demand is not None:
        ways.append((hardware.on_demand, "on demand", 0.0))
    return min(ways, key=lambda way: (way[0], way[2]), default=None)


def doubling_amounts(total: int, least: int) -> tuple[int, ...]:
    """Doubling amounts that sum up to `total`; their subsets give every multiple of `least` below it."""
    found: list[int] = []
    left, amount = total, least
    while left > amount:
        found.append(amount)
        left, amount = left - amount, amount * 2
    return (*found, left)


def _max_amount(c: Candidate) -> int:
    return ceil(c.units * MILLI) if c.units < MAX_UNITS else 0


def _hours_words(hours: Sequence[int]) -> str:
    day, hour = divmod(hours[0], 24)
    return f"{DAYS[day]} {hour:02}:00" + (f" and {len(hours) - 1} h more" if len(hours) > 1 else "")


def peak_hours(curves: Sequence[Sequence[float]]) -> tuple[tuple[int, ...], ...]:
    """Groups of the hours of a week in which a weighted sum of these curves may peak. An hour is left out if every
    curve is at least as high in some other hour; many hours are merged into `MAX_ROWS` groups."""
    if not curves:
        return ()
    shape = np.array([[round(value / max(each), 9) for value in each] for each in curves]).T
    distinct, first = np.unique(shape, axis=0, return_index=True)
    keep = [
        int(first[index])
        for index in range(len(distinct))
        if not any(other != index and (distinct[other] >= distinct[index]).all() for other in range(len(distinct)))
    ]
    keep.sort()
    size = ceil(len(keep) / MAX_ROWS)
    return tuple(tuple(keep[index : index + size]) for index in range(0, len(keep), size))


def _committed_pools(
    site: SiteFacts,
    hardware: HardwareFacts,
    terms: Sequence[tuple[float, float]],
    users: Sequence[tuple[WorkloadFacts, list[Candidate]]],
) -> Iterator[Pool]:
    """One pool of committed units for each family of rows rented by the hour; a model with replicas of several units
    has its own."""
    months, price = min(terms, key=lambda each: (each[1], each[0]), default=(0.0, inf))
    if hardware.on_demand is None or price >= hardware.on_demand:
        return
    families: dict[tuple[str, int], dict[str, float]] = {}
    for w, on_hardware in users:
        for c in (c for c in on_hardware if c.lease == HOURLY):
            family = families.setdefault((c.model if c.group > 1 else "", c.group), {})
            family[w.name] = max(family.get(w.name, 0.0), *c.units_by_block.values())
    for (model, group), taken in sorted(families.items()):
        most = min(hardware.max_units // group, ceil(sum(taken.values()) / group), MAX_COMMITTED)
        rows = tuple(
            pool_row_name(site.name, lease_row_name(hardware.type, HOURLY, block, model, group)) for block in BLOCKS
        )
        name = f"{site.name} {hardware.type} committed" + (f", {group} for {model}" if model else "")
        if most:
            amounts = tuple(each * group * MILLI for each in doubling_amounts(most, 1))
            yield Pool(name, site.name, hardware.type, rows, (), amounts, (), price * HOURS, months, group)


def pool_row_name(site: str, resource: str) -> str:
    """The name of a row that a pool adds to."""
    return f"{site} {resource}"


def pool_use(pool: Pool, w: WorkloadFacts, c: Candidate, share: float) -> dict[str, int]:
    """Row -> thousandths of units that a candidate uses of an own pool when it serves `share` of the peak."""
    return {
        name: ceil(max(units_at(w, c, share, hour) for hour in hours) * MILLI - 1e-6)
        for name, hours in zip(pool.rows, pool.hours, strict=True)
    }


def units_at(w: WorkloadFacts, c: Candidate, share: float, hour: int) -> float:
    """Units that a candidate uses in one hour of the week: proportional to the load, at least what its memory needs."""
    return max(c.min_units, min(c.units, MAX_UNITS) * min(w.curve[hour] / max(w.curve), share))


def weekly_units(parts: Iterable[tuple[WorkloadFacts, Candidate, float]]) -> tuple[float, ...]:
    """Total units that these (workload, candidate, share of peak) use in each hour of a week."""
    total = [0.0] * WEEK
    for w, c, share in parts:
        for hour in range(WEEK):
            total[hour] += units_at(w, c, share, hour)
    return tuple(total)


def own_pool(pools: Mapping[str, Pool], site: str, type_: str) -> Pool | None:
    """The pool of own units of this hardware, if there is one."""
    each = pools.get(f"{site} {type_}")
    return each if each is not None and each.is_own else None
