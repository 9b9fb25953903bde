"""How many units of hardware a load takes, their busy and idle cost, and their energy. Pure.

Units are shared by workloads of a site, so fractions count; a model that takes several units uses whole groups. An
owned unit costs its purchase over its life for each hour, used or not: the used share is `compute`, the rest of the
time and the headroom is `idle`. An idle unit is taken to draw 30 % of its power (planning assumption).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from groundplan.placement.terms.facts import HOURS, HardwareFacts, SiteFacts, WorkloadFacts
from groundplan.placement.terms.queue import servers_for, wait_seconds

IDLE_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class SizedHardware:
    """Hardware for one workload."""

    units: float
    busy_usd: float
    idle_usd: float
    unit_month: float
    kwh: float
    wait_ms: float
    label: str
    """the units in a configuration's name: `2x4`"""
    available: float
    """units that are owned or can be rented"""
    min_units: float = 0.0
    """units that it takes at any load"""


def unit_price(hardware: HardwareFacts) -> float:
    """USD a month of one unit without its energy: owned, else rented."""
    if hardware.count > 0 and hardware.owned_month is not None:
        return hardware.owned_month
    if hardware.rental_price is not None:
        return hardware.rental_price * HOURS
    return hardware.owned_month or 0.0


def holding_cost(site: SiteFacts, hardware: HardwareFacts) -> float:
    """USD a month of holding one own unit: its purchase and its idle energy."""
    idle = hardware.watts / 1000 * HOURS * site.pue * IDLE_SHARE * site.energy_usd_kwh if pays_for_energy(site) else 0.0
    return unit_price(hardware) + idle


def pays_for_energy(site: SiteFacts) -> bool:
    """Whether the company pays for the site's energy separately."""
    return site.type != "cloud"


def size_hardware(
    site: SiteFacts,
    hardware: HardwareFacts,
    w: WorkloadFacts,
    *,
    per_unit: float,
    headroom: float,
    group: int = 1,
    service: float = 0.0,
    min_units: float = 0.05,
) -> SizedHardware:
    """Units for the busiest hour. `per_unit`: calls a second of one unit at a sustainable load; `service`: seconds of a
    call where calls are served one by one; `min_units`: the fraction of a unit that its memory takes at any load."""
    if per_unit <= 0:
        return SizedHardware(inf, inf, 0.0, 0.0, 0.0, inf, "0", 0.0)
    peak, floor = w.peak_second, float(group) if group > 1 else min_units
    if service > 0:
        servers = servers_for(peak, service, max(service, 0.02)) if peak > 0 else 1
        units = floor = float(servers * group)
        waits = wait_seconds(servers, peak, service) * 1000 if peak > 0 else 0.0
    else:
        units = max(peak / per_unit / (1 - min(headroom, 0.9)), floor)
        waits = 0.0
    price = unit_price(hardware)
    busy = min(1.0, w.mean_second / per_unit / units) if units else 0.0
    kwh = units * hardware.watts / 1000 * HOURS * site.pue * (busy + (1 - busy) * IDLE_SHARE)
    energy = kwh * site.energy_usd_kwh if pays_for_energy(site) else 0.0
    cost = units * price + energy
    rentable = hardware.max_units if hardware.rental_price is not None else 0
    shown = f"{units / group:.2g}x{group}" if group > 1 else f"{units:.2g}"
    there = float(hardware.count + rentable)
    return SizedHardware(units, cost * busy, cost * (1 - busy), price, kwh, waits, shown, there, min(floor, units))
