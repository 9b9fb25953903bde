"""What the last 30 days would have cost at other prices: what each deployment used, by the class in which it is priced.

Reads kept sums and prices them; changes no price, and tells nothing of days before those.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from psycopg import Connection

from groundplan.blueprint.model import Blueprint
from groundplan.core.money import short_usd
from groundplan.economics.prices.reprice import Repriced, repriced
from groundplan.ledger import rollup_store
from groundplan.release.priced import alone

MONTH: Final = timedelta(days=30)
Used = Mapping[str, Mapping[str, int]]
"""tier -> class -> how many"""


def used(conn: Connection[Any], today: date) -> Mapping[str, Used]:
    """Deployment -> what it used in the last 30 whole days."""
    until = datetime.combine(today, time(), UTC)
    wanted = {
        "since": until - MONTH, "until": until, "workload": None, "status": None, "deployment": None, "demo": None,
    }  # fmt: skip
    found: dict[str, dict[str, dict[str, int]]] = {}
    for row in rollup_store.parts_by(conn, ["deployment", "part", "tier"], wanted):
        found.setdefault(row["deployment"], {}).setdefault(row["tier"], {})[row["part"]] = int(row["count"])
    return found


def notes(conn: Connection[Any], served: Blueprint | None, new: Blueprint | None, today: date) -> tuple[str, ...]:
    """In words, of each deployment that is served at another price than it would be. Without such none is read."""
    if served is None or new is None:
        return ()
    before = {place.name: place.rates for place in served.deployments}
    other = [p for p in new.deployments if p.name in before and alone(before[p.name]) != alone(p.rates)]
    counts = used(conn, today) if other else {}
    made = ((place.name, repriced(counts.get(place.name, {}), before[place.name], place.rates)) for place in other)
    return tuple(_told(name, each) for name, each in made if each.difference)


def _told(name: str, made: Repriced) -> str:
    return (
        f"deployment/{name}: at the new price the last 30 days would have cost {short_usd(made.now)} instead of "
        f"{short_usd(made.then)}"
    )
