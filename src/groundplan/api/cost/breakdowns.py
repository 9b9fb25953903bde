"""The book by dimensions that only calls have: feature, prompt version, document source, person, tag of a key; and by
site, where allocated costs follow the calls. Every sum is exactly that of the book."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import compress
from typing import Any, Final

from psycopg import Connection

from groundplan.api import served_blueprint
from groundplan.api.cost.book import Days
from groundplan.api.cost.daily_usage import all_calls_of
from groundplan.core.errors import NotFound
from groundplan.core.money import from_decimal
from groundplan.economics.allocate.breakdown import NO_PLACE, Weights, place_of, spread
from groundplan.economics.allocate.model import Line
from groundplan.ledger import daily_attribution_store, rollup_store
from groundplan.ledger.daily_attribution_store import Columns

DIMENSIONS: Final = ("feature", "prompt", "source", "person", "tag", "site")


def breakdown(conn: Connection[Any], lines: list[Line], days: Days, by: str) -> Iterator[tuple[str, str, int, int]]:
    """Yield (key, basis, picodollars, quantity) of lines of a period. By site, only lines without one are spread."""
    placed = [line for line in lines if line.site] if by == "site" else []
    to_divide = [line for line in lines if not line.site] if by == "site" else lines
    weights, weights_at = _weights(conn, days, by), _weights_at(conn, days, by, {place_of(line) for line in to_divide})
    yield from ((line.site, str(line.basis), line.amount, line.quantity) for line in placed)
    for basis, amounts in spread(to_divide, weights, weights_at).items():
        yield from ((key, basis, amount, 0) for key, amount in amounts.items() if amount)


def _weights(conn: Connection[Any], days: Days, by: str) -> Weights:
    """Workload -> key -> cost of its calls, or their number if they cost nothing, as on own hardware."""
    if by == "person":
        return _weights_from(daily_attribution_store.people_by_workload(conn, days.since, days.until))
    rows = _cost_by_key(conn, days, by)
    return _weights_from(_columns((workload, key, from_decimal(cost), calls) for workload, key, cost, calls in rows))


def _columns(rows: Iterable[tuple[str, str, Any, Any]]) -> Columns:
    """Rows of (workload, key, measure, calls) as columns."""
    columns: Columns = ([], [], [], [])
    for workload, key, measure, calls in rows:
        columns[0].append(workload)
        columns[1].append(key)
        columns[2].append(int(measure or 0))
        columns[3].append(int(calls or 0))
    return columns


def _weights_from(columns: Columns) -> dict[str, dict[str, int]]:
    """Workload -> key -> measure; the number of calls for workloads whose measure is zero throughout."""
    weights: dict[str, dict[str, int]] = {}
    for workload, key, measure in zip(*columns[:3], strict=True):
        if (keys := weights.get(workload)) is None:
            keys = weights[workload] = {}
        keys[key] = keys.get(key, 0) + measure
    if none := {workload for workload, keys in weights.items() if not any(keys.values())}:
        for workload, key, calls in zip(columns[0], columns[1], columns[3], strict=True):
            if workload in none:
                weights[workload][key] += calls
    return weights


def _weights_at(conn: Connection[Any], days: Days, by: str, places: set[str]) -> dict[str, Weights]:
    """Deployment or site -> weights of the calls answered there: tokens, or the number of calls if they had no
    tokens."""
    if not (named_places := places - {NO_PLACE}) or by in ("site", "tag"):
        return {}
    if by == "person":
        deployments, sites, columns = daily_attribution_store.people_at_places(
            conn, days.since, days.until, sorted(named_places)
        )
    else:
        rows = list(_usage_at(conn, days, by, named_places))
        deployments, sites = [row[2] for row in rows], [row[3] for row in rows]
        columns = _columns((row[0], row[1], row[4], row[5]) for row in rows)
    weights: dict[str, Weights] = {}
    for place in named_places:
        kind, _, name = place.partition("/")
        is_here = [item_name == name for item_name in (deployments if kind == "deployment" else sites)]
        if any(is_here):
            weights[place] = _weights_from(_select_rows(columns, is_here))
    return weights


def _select_rows(columns: Columns, selected: list[bool]) -> Columns:
    workloads, keys, measures, calls = columns
    return (
        list(compress(workloads, selected)), list(compress(keys, selected)), list(compress(measures, selected)),
        list(compress(calls, selected)),
    )  # fmt: skip


def _usage_at(
    conn: Connection[Any], days: Days, by: str, places: set[str]
) -> Iterable[tuple[str, str, str, str, Any, Any]]:
    """Rows of (workload, key, deployment, site, tokens, calls)."""
    if by == "source":
        return daily_attribution_store.sources_at_places(conn, days.since, days.until, sorted(places))
    column = "blueprint" if by == "prompt" else by
    rows = rollup_store.calls_by(conn, ["workload", column, "deployment", "site"], all_calls_of(days.first, days.last))
    numbers = {row["blueprint"] for row in rows} if by == "prompt" else set()
    prompts = {number: _prompts(conn, number) for number in numbers}
    return (
        (
            row["workload"],
            prompts[row[column]].get(row["workload"], "") if by == "prompt" else row[column],
            row["deployment"], row["site"], row["prompt_tokens"] + row["completion_tokens"],
            (row["calls"] or 0) - (row["cached"] or 0),
        )
        for row in rows
    )  # fmt: skip


def _cost_by_key(conn: Connection[Any], days: Days, by: str) -> list[tuple[str, str, Decimal, Any]]:
    """Rows of (workload, key, USD, calls)."""
    if by == "source":
        return daily_attribution_store.sources_by_workload(conn, days.since, days.until)
    if by == "tag":
        return daily_attribution_store.tags_by_workload(conn, days.since, days.until)
    column = "blueprint" if by == "prompt" else by
    rows = rollup_store.calls_by(conn, ["workload", column], all_calls_of(days.first, days.last))
    if by != "prompt":
        return [(row["workload"], row[column], row["cost_usd"], row["calls"]) for row in rows]
    prompts = {number: _prompts(conn, number) for number in {row["blueprint"] for row in rows}}
    return [
        (row["workload"], prompts[row["blueprint"]].get(row["workload"], ""), row["cost_usd"], row["calls"])
        for row in rows
    ]


def _prompts(conn: Connection[Any], number: int) -> dict[str, str]:
    """Workload -> `name@version` of its prompt under a blueprint."""
    try:
        blueprint = served_blueprint.blueprint_at(conn, number)
    except NotFound:
        return {}
    return {workload.name: workload.prompt or "" for workload in blueprint.workloads}
