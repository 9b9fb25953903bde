"""Hardware rented for less than whole months: by the hour, following the week, and interruptible spot units. Pure.

By the hour, each part of the week has its own replicas, so a configuration changes over time: units are rented for one
part alone, and shared by all workloads of the site whose calls come then. A model that takes several units is served by
whole replicas, shared by workloads that use the same model. The operator's scheduler must start replicas before a part
begins; nothing here starts one.

Spot units cost less and are interrupted with the declared probability in each hour; until another unit has loaded the
weights (`RESTART_HOURS`), their share of calls goes unanswered. That lowers the availability of the place and takes
proportionally more units. Only workloads with `placement.spot: allowed` use them, and nothing falls back to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from groundplan.placement.terms.curve import WEEK
from groundplan.placement.terms.facts import HOURS, HardwareFacts, WorkloadFacts

RESTART_HOURS = 0.2
"""time until a replica is back: a new machine, and loading tens of GB of weights (planning assumption)"""
WORKING = (8, 18)
BLOCKS = ("weekdays 8-18", "weekdays 18-8", "weekends")
HOURLY, SPOT = "by the hour", "spot"


@dataclass(frozen=True, slots=True)
class Lease:
    """A way to rent units: the price of a unit for the hours of each block of the week."""

    name: str
    blocks: tuple[tuple[str, float], ...]
    """(block, hours of a month)"""
    price: float
    """USD an hour and unit"""
    availability: float = 1.0
    """the availability of the units themselves"""


def leases(hardware: HardwareFacts) -> Iterator[Lease]:
    """The leases that the provider offers besides whole months, for types of which no units are owned."""
    if hardware.count:
        return
    if hardware.on_demand is not None:
        hours = [block_hours(block) / WEEK * HOURS for block in BLOCKS]
        yield Lease(HOURLY, tuple(zip(BLOCKS, hours, strict=True)), hardware.on_demand)
    if hardware.spot is not None:
        there = 1 - min(1.0, hardware.interruption * RESTART_HOURS)
        yield Lease(SPOT, (("", HOURS),), hardware.spot, there)


def block_hours(block: str) -> int:
    """The number of hours of a block in a week."""
    return sum(block_of(hour) == block for hour in range(WEEK))


def block_of(hour: int) -> str:
    """The block of an hour of the week, 0 is Monday 00:00."""
    day, of_day = divmod(hour, 24)
    if day >= 5:
        return BLOCKS[2]
    return BLOCKS[0] if WORKING[0] <= of_day < WORKING[1] else BLOCKS[1]


def block_peaks(curve: Sequence[float], lease: Lease) -> dict[str, float]:
    """The load of the busiest hour of each block, in multiples of the mean."""
    if lease.name != HOURLY:
        return {"": max(curve)}
    found = dict.fromkeys(BLOCKS, 0.0)
    for hour, value in enumerate(curve):
        block = block_of(hour)
        found[block] = max(found[block], value)
    return found


@dataclass(frozen=True, slots=True)
class LeasedUnits:
    """The units that one workload takes in each block, and the cost of its share."""

    units: dict[str, float]
    usd: float
    busy_share: float
    """the share of paid hours in which they compute"""


def size_lease(
    w: WorkloadFacts, lease: Lease, *, per_unit: float, headroom: float, group: int, least: float
) -> LeasedUnits:
    """The units of a workload on a lease. `per_unit`: calls a second of one unit; `least`: units at any load. Replicas
    of several units are shared, so fractions count."""
    floor = least if group == 1 else 0.001
    free = (1 - min(headroom, 0.9)) * lease.availability
    units = {
        block: max(floor, w.mean_second * top / per_unit / free) if top > 0 else 0.0
        for block, top in block_peaks(w.curve, lease).items()
    }
    hours = dict(lease.blocks)
    paid = sum(units[block] * hours[block] for block in units)
    used = w.mean_second / per_unit * HOURS
    return LeasedUnits(units, paid * lease.price, min(1.0, used / paid) if paid else 0.0)


def lease_row_name(type_: str, lease: str, block: str, model: str, group: int) -> str:
    """The name of a rented resource: `h100-sxm by the hour, weekends`; of a replica of several units with its model."""
    name = f"{type_} {lease}" + (f", {block}" if block else "")
    return name if group == 1 else f"{name}, {group} for {model}"
