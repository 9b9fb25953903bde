"""What the last 30 days would have cost at other prices: usage of each deployment by price class, priced again.

Reads stored sums of these 30 days only, and changes no price.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from psycopg import Connection

from groundplan.blueprint.model import Blueprint, Rates
from groundplan.core.money import short_usd
from groundplan.economics.prices.reprice import RepricedUsage, UsageCounts, reprice
from groundplan.ledger import rollup_store
from groundplan.release.compile.pricing import without_successors

MONTH: Final = timedelta(days=30)


def usage_by_deployment(conn: Connection[Any], today: date, prices: Iterable[Rates]) -> Mapping[str, UsageCounts]:
    """Deployment -> usage in the last 30 whole days, by hour of the day where one of the `prices` depends on it."""
    until = datetime.combine(today, time(), UTC)
    wanted = {
        "since": until - MONTH, "until": until, "workload": None, "status": None, "deployment": None, "demo": None,
    }  # fmt: skip
    hours = ["hour"] if any(rates.windows for rates in prices) else []
    found: dict[str, dict[tuple[str, int | None], dict[str, int]]] = {}
    for row in rollup_store.parts_by(conn, ["deployment", "part", "tier", *hours], wanted):
        mine = found.setdefault(row["deployment"], {}).setdefault(
            (row["tier"], rollup_store.hour_of_day(row.get("hour"))), {}
        )
        mine[row["part"]] = mine.get(row["part"], 0) + int(row["count"])
    paid = {(name, *key) for name, each in found.items() for key, counts in each.items() if "requests" in counts}
    for (name, tier, *hour), count in rollup_store.answers_by(conn, ["deployment", "tier", *hours], wanted).items():
        key = (tier, rollup_store.hour_of_day(*hour))
        if (name, *key) not in paid:
            found[name][key]["requests"] = found[name][key].get("requests", 0) + count
    return found


def price_change_notes(
    conn: Connection[Any], served: Blueprint | None, new: Blueprint | None, today: date
) -> tuple[str, ...]:
    """Sentences on each deployment whose price changes now or from a day on. Usage is read only where one does."""
    if served is None or new is None:
        return ()
    before = {place.name: place.rates for place in served.deployments}
    changes = [
        (place.name, *each)
        for place in new.deployments
        if (old := before.get(place.name)) is not None
        for each in _price_changes(old, place.rates)
    ]
    counts = (
        usage_by_deployment(conn, today, [rates for *_, then, now in changes for rates in (then, now)])
        if changes
        else {}
    )
    made = ((name, when, reprice(counts.get(name, {}), then, now)) for name, when, then, now in changes)
    return tuple(_price_change_note(name, when, each) for name, when, each in made if each.difference)


def _price_changes(before: Rates, new: Rates) -> Iterator[tuple[str, Rates, Rates]]:
    """Yield (when, price before, price after) of each change of price."""
    if without_successors(before) != without_successors(new):
        yield "at the new price", before, new
    if new.then is not None and (before.then, before.then_from) != (new.then, new.then_from):
        yield f"at the price from {new.then_from} on", new, new.then


def _price_change_note(name: str, when: str, repriced: RepricedUsage) -> str:
    return (
        f"deployment/{name}: {when} the last 30 days would have cost {short_usd(repriced.new_cost)} instead of "
        f"{short_usd(repriced.old_cost)}"
    )
