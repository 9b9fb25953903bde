"""Own hardware of some days beside paying by the token: reads what was made and what it cost, and asks economics."""

from __future__ import annotations

from datetime import date
from typing import Any

from psycopg import Connection

from groundplan.api.cost import rules as cost_rules
from groundplan.api.cost import use as cost_use
from groundplan.api.cost.book import Days
from groundplan.api.cost.rules import Declared
from groundplan.blueprint.model import Blueprint
from groundplan.core.money import format_usd
from groundplan.economics.allocate.divide import capacity_of, spent
from groundplan.economics.forecast.breakeven import BreakEven, Own, break_even
from groundplan.economics.prices.reprice import priced
from groundplan.ledger import rollup_store


def rows(conn: Connection[Any], blueprint: Blueprint, days: Days) -> list[dict[str, Any]]:
    """Each deployment with a declared capacity, at what its rules cost on the days on which they were in force."""
    counts, users = _made(conn, days)
    answers = rollup_store.answers_by(conn, ["deployment"], cost_use.wanted(days.first, days.last))
    in_force = cost_rules.on(conn, days.first, days.last)
    covered = {rule.covers for declared in in_force.values() for rule in declared.allocations if rule.capacity}
    found = []
    for covers in sorted(covered):
        name = covers.partition("/")[2]
        mine = counts.get(name, {})
        cost = sum(_cost(declared, covers, day) for day, declared in in_force.items())
        possible = sum(capacity_of(declared.allocations, covers, day) for day, declared in in_force.items())
        own = Own(name, cost, possible, sum(mine.values()))
        asked = {**mine, "requests": answers.get((name,), 0)}
        found.append(_json(break_even(own, _elsewhere(blueprint, name, users.get(name, set()), asked))))
    return found


def _cost(declared: Declared, covers: str, day: date) -> int:
    """Picodollars of every rule of a deployment on a day."""
    rules = (rule for rule in declared.allocations if rule.covers == covers)
    return sum(spent(rule, day, day, declared.currencies) for rule in rules)


def _made(conn: Connection[Any], days: Days) -> tuple[dict[str, dict[str, int]], dict[str, set[str]]]:
    """(deployment -> class -> tokens of attempts, deployment -> workloads that used it)"""
    counts: dict[str, dict[str, int]] = {}
    users: dict[str, set[str]] = {}
    wanted = cost_use.wanted(days.first, days.last)
    for row in rollup_store.parts_by(conn, ["deployment", "workload", "part"], wanted):
        if row["part"] not in cost_use.NOT_TOKENS and row["count"]:
            mine = counts.setdefault(row["deployment"], {})
            mine[row["part"]] = mine.get(row["part"], 0) + int(row["count"])
            users.setdefault(row["deployment"], set()).add(row["workload"])
    return counts, users


def _elsewhere(blueprint: Blueprint, own: str, users: set[str], counts: dict[str, int]) -> dict[str, int]:
    """What the same calls cost at each deployment of the same type that every one of these workloads may use: nobody
    chats at what embeds."""
    kind = next((place.kind for place in blueprint.deployments if place.name == own), "chat")
    allowed = [set(w.places) for w in blueprint.workloads if w.name in users]
    names = set.intersection(*allowed) - {own} if allowed else set()
    places = (place for place in blueprint.deployments if place.name in names and place.kind == kind)
    return {place.name: priced(counts, place.rates) for place in places}


def _json(found: BreakEven) -> dict[str, Any]:
    def usd(amount: int | None) -> str | None:
        return None if amount is None else format_usd(amount)

    return {
        "deployment": found.deployment, "cost_usd": usd(found.cost), "used": round(found.used, 6),
        "each_usd": usd(found.each), "other": found.other, "other_usd": usd(found.other_cost),
        "other_each_usd": usd(found.other_each), "needed": None if found.needed is None else round(found.needed, 6),
        "told": found.told,
    }  # fmt: skip
