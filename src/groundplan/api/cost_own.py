"""Own hardware of some days beside paying by the token: reads what was made and what it cost, and asks economics."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from groundplan.api.cost_book import Days
from groundplan.blueprint.model import Blueprint
from groundplan.core.money import format_usd
from groundplan.economics.allocate.divide import spent
from groundplan.economics.forecast.breakeven import BreakEven, Own, break_even
from groundplan.economics.prices.reprice import priced
from groundplan.ledger import rollup_store

NOT_TOKENS = ("attempt", "bound", "whole", "requests", "images", "searches")


def rows(conn: Connection[Any], blueprint: Blueprint, days: Days) -> list[dict[str, Any]]:
    """Each deployment with a declared capacity."""
    counts, users = _made(conn, days)
    found = []
    for name in sorted({_covered(rule.covers) for rule in blueprint.allocations if rule.capacity}):
        rules = [rule for rule in blueprint.allocations if _covered(rule.covers) == name]
        capacity = sum(rule.capacity or 0 for rule in rules)
        cost = sum(spent(rule, days.first, days.last, blueprint.currencies) for rule in rules)
        mine = counts.get(name, {})
        count = (days.last - days.first).days + 1
        own = Own(name, cost, capacity * count, sum(mine.values()))
        found.append(_json(break_even(own, _elsewhere(blueprint, name, users.get(name, set()), mine))))
    return found


def _covered(covers: str) -> str:
    kind, _, name = covers.partition("/")
    return name if kind == "deployment" else ""


def _made(conn: Connection[Any], days: Days) -> tuple[dict[str, dict[str, int]], dict[str, set[str]]]:
    """(deployment -> class -> tokens, deployment -> workloads that used it)"""
    wanted = {
        "since": days.since, "until": days.until, "workload": None, "status": None, "deployment": None, "demo": None,
    }  # fmt: skip
    counts: dict[str, dict[str, int]] = {}
    users: dict[str, set[str]] = {}
    for row in rollup_store.parts_by(conn, ["deployment", "workload", "part"], wanted):
        if row["part"] not in NOT_TOKENS and row["count"]:
            mine = counts.setdefault(row["deployment"], {})
            mine[row["part"]] = mine.get(row["part"], 0) + int(row["count"])
            users.setdefault(row["deployment"], set()).add(row["workload"])
    return counts, users


def _elsewhere(blueprint: Blueprint, own: str, users: set[str], counts: dict[str, int]) -> dict[str, int]:
    """What the same tokens cost at each deployment that every one of these workloads may use."""
    allowed = [set(w.deployments) for w in blueprint.workloads if w.name in users]
    names = set.intersection(*allowed) - {own} if allowed else set()
    return {place.name: priced(counts, place.rates) for place in blueprint.deployments if place.name in names}


def _json(found: BreakEven) -> dict[str, Any]:
    def usd(amount: int | None) -> str | None:
        return None if amount is None else format_usd(amount)

    return {
        "deployment": found.deployment, "cost_usd": usd(found.cost), "used": round(found.used, 6),
        "each_usd": usd(found.each), "other": found.other, "other_usd": usd(found.other_cost),
        "other_each_usd": usd(found.other_each), "needed": None if found.needed is None else round(found.needed, 6),
        "told": found.told,
    }  # fmt: skip
