"""The book by what only calls know: features, versions of prompts, document sources, people, tags of keys; and by site,
where what is allocated follows the calls. Every sum is exactly the book's."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
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
_Row = tuple[str, str, int, Any]
"""workload, key, picodollars, calls"""


def sums(conn: Connection[Any], lines: list[Line], days: Days, by: str) -> list[tuple[str, str, int, int]]:
    """(key, basis, picodollars, quantity) of lines of these days. By site only what says no site is spread."""
    placed = [line for line in lines if line.site] if by == "site" else []
    rest = [line for line in lines if not line.site] if by == "site" else lines
    found = [(line.site, str(line.basis), line.amount, line.quantity) for line in placed]
    weights, there = _weights(conn, days, by), _there(conn, days, by, {place_of(line) for line in rest})
    return found + [(key, basis, amount, 0) for key, basis, amount in spread(rest, weights, there)]


def _weights(conn: Connection[Any], days: Days, by: str) -> Weights:
    """What the calls of a workload cost; of one whose calls cost nothing, such as those of own hardware, how many."""
    return _measured([(workload, key, cost, int(count or 0)) for workload, key, cost, count in _rows(conn, days, by)])


def _measured(rows: list[tuple[str, str, int, int]]) -> dict[str, dict[str, int]]:
    """workload -> key -> what was measured, of (workload, key, that, calls); calls where it is nothing."""
    found: dict[str, dict[str, int]] = {}
    for workload, key, measure, _ in rows:
        if (mine := found.get(workload)) is None:
            mine = found[workload] = {}
        mine[key] = mine.get(key, 0) + measure
    if none := {workload for workload, mine in found.items() if not any(mine.values())}:
        for workload, key, _, calls in rows:
            if workload in none:
                found[workload][key] += calls
    return found


def _there(conn: Connection[Any], days: Days, by: str, places: set[str]) -> dict[str, Weights]:
    """Of these deployments and sites: tokens of the calls that were answered there, calls where they had none."""
    if not (asked := places - {COMPANY}) or by in ("site", "tag"):
        return {}
    at: dict[str, list[tuple[str, str, int, int]]] = {place: [] for place in asked}
    for workload, key, deployment, site, tokens, calls in _placed(conn, days, by, asked):
        for place in (f"deployment/{deployment}", f"site/{site}"):
            if place in asked:
                at[place].append((workload, key, int(tokens or 0), int(calls or 0)))
    return {place: _measured(rows) for place, rows in at.items() if rows}


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
    if by == "person":
        return days_store.people_by_workload(conn, days.since, days.until)
    return [(workload, key, from_decimal(cost), calls) for workload, key, cost, calls in _paid(conn, days, by)]


def _paid(conn: Connection[Any], days: Days, by: str) -> list[tuple[str, str, Decimal, Any]]:
    """(workload, key, USD, calls)"""
    if by == "source":
        return days_store.sources_by_workload(conn, days.since, days.until)
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
