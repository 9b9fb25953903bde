"""The book by what only calls know: features, versions of prompts, document sources, people; exactly its sums."""

from __future__ import annotations

from typing import Any, Final

from psycopg import Connection

from groundplan.api import served
from groundplan.api.cost_book import Days
from groundplan.core.errors import NotFound
from groundplan.core.money import from_decimal
from groundplan.economics.allocate.model import Line
from groundplan.economics.allocate.spread import Weights, spread
from groundplan.ledger import rollup_store

DIMENSIONS: Final = ("feature", "prompt", "source", "person")


def sums(conn: Connection[Any], lines: list[Line], days: Days, by: str) -> list[tuple[str, str, int]]:
    """(key, basis, picodollars) of lines of these days."""
    return [(key, basis, amount) for key, basis, amount in spread(lines, _weights(conn, days, by))]


def _weights(conn: Connection[Any], days: Days, by: str) -> Weights:
    found: dict[str, dict[str, int]] = {}
    for workload, key, cost in _rows(conn, days, by):
        mine = found.setdefault(workload, {})
        mine[key] = mine.get(key, 0) + from_decimal(cost)
    return found


def _rows(conn: Connection[Any], days: Days, by: str) -> list[tuple[str, str, Any]]:
    if by == "source":
        return rollup_store.sources_by_workload(conn, days.since, days.until)
    if by == "person":
        return rollup_store.people_by_workload(conn, days.since, days.until)
    wanted = {
        "since": days.since, "until": days.until, "workload": None, "status": None, "deployment": None, "demo": None,
    }  # fmt: skip
    kept = "feature" if by == "feature" else "blueprint"
    rows = rollup_store.calls_by(conn, ["workload", kept], wanted)
    if by == "feature":
        return [(row["workload"], row["feature"], row["cost_usd"]) for row in rows]
    prompts = {number: _prompts(conn, number) for number in {row["blueprint"] for row in rows}}
    return [(row["workload"], prompts[row["blueprint"]].get(row["workload"], ""), row["cost_usd"]) for row in rows]


def _prompts(conn: Connection[Any], number: int) -> dict[str, str]:
    """workload -> name@version of its prompt under a blueprint."""
    try:
        blueprint = served.at(conn, number)
    except NotFound:
        return {}
    return {workload.name: workload.prompt or "" for workload in blueprint.workloads}
