"""Own hardware compared with paying by the token: reads tokens and costs of a period, and asks economics."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from psycopg import Connection

from groundplan.api.cost import daily_usage as cost_use
from groundplan.api.cost import declared_costs as cost_rules
from groundplan.api.cost.book import Days
from groundplan.api.cost.declared_costs import DeclaredCosts
from groundplan.blueprint.model import Blueprint
from groundplan.core.money import optional_usd
from groundplan.economics.allocate.divide import amount_spent, capacity_of
from groundplan.economics.forecast.breakeven import BreakEven, OwnCapacity, break_even
from groundplan.economics.prices.reprice import cost_of_hourly_counts
from groundplan.ledger import rollup_store

_Counts = dict[int | None, dict[str, int]]
"""Hour of the day (UTC; None: any) -> class of tokens, or `requests` -> count"""


def own_hardware_json(conn: Connection[Any], blueprint: Blueprint, days: Days) -> list[dict[str, Any]]:
    """The break-even of each deployment with a declared capacity, by the rules in force on each day."""
    hours = ["hour"] if any(deployment.rates.windows for deployment in blueprint.deployments) else []
    counts, users = _tokens_and_users(conn, days, hours)
    _add_requests(conn, days, hours, counts)
    in_force = cost_rules.costs_in_force(conn, days.first, days.last)
    covered = {rule.covers for declared in in_force.values() for rule in declared.allocations if rule.capacity}
    rows = []
    for covers in sorted(covered):
        name = covers.partition("/")[2]
        tokens_by_hour = counts.get(name, {})
        cost = sum(_cost(declared, covers, day) for day, declared in in_force.items())
        possible = sum(capacity_of(declared.allocations, covers, day) for day, declared in in_force.items())
        token_count = sum(
            count
            for counts_of_hour in tokens_by_hour.values()
            for part, count in counts_of_hour.items()
            if part != "requests"
        )
        elsewhere = _costs_elsewhere(blueprint, name, users.get(name, set()), tokens_by_hour)
        rows.append(_json(break_even(OwnCapacity(name, cost, possible, token_count), elsewhere)))
    return rows


def _cost(declared: DeclaredCosts, covers: str, day: date) -> int:
    """Picodollars of all rules of a deployment on a day."""
    rules = (rule for rule in declared.allocations if rule.covers == covers)
    return sum(amount_spent(rule, day, day, declared.currencies) for rule in rules)


def _tokens_and_users(
    conn: Connection[Any], days: Days, hours: list[str]
) -> tuple[dict[str, _Counts], dict[str, set[str]]]:
    """(deployment -> hour of the day -> class -> tokens of attempts, deployment -> workloads that used it)"""
    counts: dict[str, _Counts] = {}
    users: dict[str, set[str]] = {}
    query = cost_use.all_calls_of(days.first, days.last)
    for row in rollup_store.parts_by(conn, ["deployment", "workload", "part", *hours], query):
        if row["part"] not in cost_use.NOT_TOKENS and row["count"]:
            hour_counts = counts.setdefault(row["deployment"], {}).setdefault(
                rollup_store.hour_of_day(row.get("hour")), {}
            )
            hour_counts[row["part"]] = hour_counts.get(row["part"], 0) + int(row["count"])
            users.setdefault(row["deployment"], set()).add(row["workload"])
    return counts, users


def _add_requests(conn: Connection[Any], days: Days, hours: list[str], counts: Mapping[str, _Counts]) -> None:
    """Add the number of answered attempts, which a price per request counts."""
    answers = rollup_store.answers_by(conn, ["deployment", *hours], cost_use.all_calls_of(days.first, days.last))
    for (name, *at), count in answers.items():
        if name in counts:
            hour_counts = counts[name].setdefault(rollup_store.hour_of_day(*at), {})
            hour_counts["requests"] = hour_counts.get("requests", 0) + count


def _costs_elsewhere(blueprint: Blueprint, own: str, users: set[str], counts: _Counts) -> dict[str, int]:
    """Deployment -> picodollars of the same calls there, for each deployment of the same type that all these workloads
    may use."""
    kind = next((deployment.kind for deployment in blueprint.deployments if deployment.name == own), "chat")
    allowed = [set(w.all_deployments) for w in blueprint.workloads if w.name in users]
    names = set.intersection(*allowed) - {own} if allowed else set()
    alternatives = (
        deployment for deployment in blueprint.deployments if deployment.name in names and deployment.kind == kind
    )
    return {deployment.name: cost_of_hourly_counts(counts, deployment.rates) for deployment in alternatives}


def _json(break_even: BreakEven) -> dict[str, Any]:
    return {
        "deployment": break_even.deployment, "cost_usd": optional_usd(break_even.cost),
        "used": round(break_even.used, 6), "each_usd": optional_usd(break_even.each), "other": break_even.other,
        "other_usd": optional_usd(break_even.other_cost),
        "other_each_usd": optional_usd(break_even.other_each),
        "needed": None if break_even.needed is None else round(break_even.needed, 6), "told": break_even.verdict,
    }  # fmt: skip
