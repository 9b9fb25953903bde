"""The book by what only calls know: features, versions of prompts, document sources, people, tags of keys; and by site,
where what is allocated follows the calls. Every sum is exactly the book's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from psycopg import Connection

from groundplan.api import served
from groundplan.api.cost_book import Days
from groundplan.api.cost_use import wanted
from groundplan.core.errors import NotFound
from groundplan.core.money import from_decimal
from groundplan.economics.allocate.model import Line
from groundplan.economics.allocate.spread import COMPANY, Weights, place_of, spread
from groundplan.ledger import days_store, rollup_store

DIMENSIONS: Final = ("feature", "prompt", "source", "person", "tag", "site")
_Row = tuple[str, str, Any, Any]
"""workload, key, USD, calls"""


def sums(conn: Connection[Any], lines: list[Line], days: Days, by: str) -> list[tuple[str, str, int, int]]:
    """(key, basis, picodollars, quantity) of lines of these days. By site only what says no site is spread."""
    placed = [line for line in lines if line.site] if by == "site" else []
    rest = [line for line in lines if not line.site] if by == "site" else lines
    found = [(line.site, str(line.basis), line.amount, line.quantity) for line in placed]
    weights, there = _weights(conn, days, by), _there(conn, days, by, {place_of(line) for line in rest})
    return found + [(key, basis, amount, 0) for key, basis, amount in spread(rest, weights, there)]


def _weights(conn: Connection[Any], days: Days, by: str) -> Weights:
    """What the calls of a workload cost; of one whose calls cost nothing, such as those of own hardware, how many."""
    rows = _rows(conn, days, by)
    costs = _summed((workload, key, from_decimal(cost)) for workload, key, cost, _ in rows)
    free = {workload for workload, mine in costs.items() if not any(mine.values())}
    return costs | _summed((workload, key, int(count or 0)) for workload, key, _, count in rows if workload in free)


def _summed(rows: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    """Of (workload, key, value)."""
    found: dict[str, dict[str, int]] = {}
    for workload, key, value in rows:
        mine = found.setdefault(workload, {})
        mine[key] = mine.get(key, 0) + value
    return found


def _there(conn: Connection[Any], days: Days, by: str, places: set[str]) -> dict[str, Weights]:
    """Of these deployments and sites: tokens of the calls that were answered there, calls where they had none."""
    if not (asked := places - {COMPANY}) or by in ("site", "tag"):
        return {}
    at: dict[str, list[tuple[str, str, Any, Any]]] = {place: [] for place in asked}
    for workload, key, deployment, site, count, called in _placed(conn, days, by, asked):
        for place in (f"deployment/{deployment}", f"site/{site}"):
            if place in asked:
                at[place].append((workload, key, count, called))
    found: dict[str, Weights] = {}
    for place, rows in at.items():
        tokens = _summed((workload, key, int(count or 0)) for workload, key, count, _ in rows)
        none = {workload for workload, mine in tokens.items() if not any(mine.values())}
        calls = _summed((workload, key, int(count or 0)) for workload, key, _, count in rows if workload in none)
        if tokens:
            found[place] = tokens | calls
    return found


def _placed(
    conn: Connection[Any], days: Days, by: str, places: set[str]
) -> Iterable[tuple[str, str, str, str, Any, Any]]:
    """(workload, key, deployment, site, tokens, calls)"""
    if by in ("source", "person"):
        return days_store.placed(conn, by, days.since, days.until, sorted(places))
    kept = "blueprint" if by == "prompt" else by
    rows = rollup_store.calls_by(conn, ["workload", kept, "deployment", "site"], wanted(days.first, days.last))
    numbers = {row["blueprint"] for row in rows} if by == "prompt" else set()
    prompts = {number: _prompts(conn, number) for number in numbers}
    return (
        (
            row["workload"],
            prompts[row[kept]].get(row["workload"], "") if by == "prompt" else row[kept],
            row["deployment"], row["site"], row["prompt_tokens"] + row["completion_tokens"],
            (row["calls"] or 0) - (row["cached"] or 0),
        )
        for row in rows
    )  # fmt: skip


def _rows(conn: Connection[Any], days: Days, by: str) -> list[_Row]:
    if by == "source":
        return days_store.sources_by_workload(conn, days.since, days.until)
    if by == "person":
        return days_store.people_by_workload(conn, days.since, days.until)
    if by == "tag":
        return days_store.tags_by_workload(conn, days.since, days.until)
    kept = "blueprint" if by == "prompt" else by
    rows = rollup_store.calls_by(conn, ["workload", kept], wanted(days.first, days.last))
    if by != "prompt":
        return [(row["workload"], row[kept], row["cost_usd"], row["calls"]) for row in rows]
    prompts = {number: _prompts(conn, number) for number in {row["blueprint"] for row in rows}}
    return [
        (row["workload"], prompts[row["blueprint"]].get(row["workload"], ""), row["cost_usd"], row["calls"])
        for row in rows
    ]


def _prompts(conn: Connection[Any], number: int) -> dict[str, str]:
    """workload -> name@version of its prompt under a blueprint."""
    try:
        blueprint = served.at(conn, number)
    except NotFound:
        return {}
    return {workload.name: workload.prompt or "" for workload in blueprint.workloads}
