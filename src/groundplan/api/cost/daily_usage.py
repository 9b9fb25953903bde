"""Usage of each workload on each day, read from stored sums: the weights by which declared costs are divided. No single
call is read, and nothing is divided here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

from psycopg import Connection

from groundplan.api.cost import store as cost_store
from groundplan.api.cost.declared_costs import REVIEW_HOUR, TOOL_USES, DeclaredCosts, hourly_lookup_cost
from groundplan.api.served_blueprint import current_or_none
from groundplan.api.watch import storage_samples
from groundplan.blueprint.model import Allocation
from groundplan.core.money import from_decimal
from groundplan.economics.allocate.divide import CALL_UNITS, STORED_UNITS
from groundplan.economics.allocate.model import NOBODY, Day, LookupCost, Use
from groundplan.economics.allocate.storage import stored_bytes_on
from groundplan.ledger import kept_bytes_store, rollup_store, semantic_store
from groundplan.ledger.kept_bytes_store import Kind

NOT_TOKENS: Final = (
    "attempt", "bound", "whole", "requests", "images", "searches", "images_made", "characters", "seconds",
)  # fmt: skip
"""Parts of an attempt that do not count tokens."""
_KINDS: Final[dict[str, Kind]] = {"gigabyte of documents": "documents", "gigabyte of content": "content"}
_PLACED: Final = ("day", "workload", "deployment", "site")
MINUTES: Final = 60
TOOLS: Final = rollup_store.TOOLS
_NOTHING_DECLARED: Final = DeclaredCosts(0)
_Units = dict[str, Decimal]
"""workload -> how many"""


@dataclass(slots=True)
class _WorkloadDay:
    """Usage of one workload on one day."""

    team: str = ""
    calls: int = 0
    cost: int = 0
    tokens: int = 0
    by_deployment: dict[str, int] = field(default_factory=dict)
    by_site: dict[str, int] = field(default_factory=dict)
    answer_tokens: dict[str, int] = field(default_factory=dict)
    calls_at: dict[str, int] = field(default_factory=dict)


_UsageByDay = dict[date, dict[str, _WorkloadDay]]


def daily_usage(conn: Connection[Any], in_force: Mapping[date, DeclaredCosts], first: date, last: date) -> list[Day]:
    """Each day of a period with the usage and the rules in force on it; days with neither rules nor semantic look-ups
    are left out."""
    rules = [rule for declared in _distinct(in_force.values()) for rule in declared.allocations]
    done = _usage_by_day(conn, first, last, rules) if rules else {}
    measured = _MeasuredUnits(conn, first, last, rules)
    looked = _semantic_lookups(conn, in_force, first, last)
    return [
        Day(
            day,
            declared.number,
            declared.allocations,
            _uses(declared, done.get(day, {}), *measured.on(day)),
            declared.currencies,
            looked.get(day, {}),
            declared.sites,
        )
        for day in _each_day(first, last)
        if (declared := in_force.get(day, _NOTHING_DECLARED)).allocations or day in looked
    ]


def all_calls_of(first: date, last: date) -> dict[str, Any]:
    """The query for sums of all calls of a period."""
    since, until = (datetime.combine(day, time(), UTC) for day in (first, last))
    return {
        "since": since, "until": until + timedelta(days=1), "workload": None, "status": None, "deployment": None,
        "demo": None,
    }  # fmt: skip


def _usage_by_day(conn: Connection[Any], first: date, last: date, rules: Iterable[Allocation]) -> _UsageByDay:
    asked = all_calls_of(first, last)
    found: _UsageByDay = {}
    for row in rollup_store.calls_by(conn, ["day", "workload", "team"], asked):
        mine = _usage_of(found, row)
        mine.team = row["team"] or mine.team
        mine.calls += int(row["calls"] or 0)
        mine.cost += from_decimal(row["cost_usd"])
        mine.tokens += int(row["prompt_tokens"] + row["completion_tokens"])
        _add(mine.answer_tokens, "company", int(row["completion_tokens"]))
    placed = [rule for rule in rules if rule.covers.startswith(("deployment/", "site/"))]
    if placed:
        _add_tokens_by_place(conn, asked, sorted({rule.covers for rule in placed}), found)
    if any(rule.per in CALL_UNITS for rule in placed):
        _add_answers_by_place(conn, asked, found)
    return found


def _add_tokens_by_place(conn: Connection[Any], asked: dict[str, Any], places: list[str], found: _UsageByDay) -> None:
    """Add the tokens of all attempts at these deployments and sites."""
    for row in rollup_store.tokens_by(conn, _PLACED, asked, NOT_TOKENS, places):
        if count := int(row["tokens"] or 0):
            mine = _usage_of(found, row)
            _add(mine.by_deployment, row["deployment"], count)
            _add(mine.by_site, row["site"], count)


def _add_answers_by_place(conn: Connection[Any], asked: dict[str, Any], found: _UsageByDay) -> None:
    """Add calls and answered tokens to the deployment and site that answered, without calls that a cache answered."""
    for row in rollup_store.calls_by(conn, _PLACED, asked):
        mine, calls = _usage_of(found, row), int(row["calls"] or 0) - int(row["cached"] or 0)
        for place in (f"deployment/{row['deployment']}", f"site/{row['site']}"):
            _add(mine.calls_at, place, calls)
            _add(mine.answer_tokens, place, int(row["completion_tokens"]))


def _uses(
    declared: DeclaredCosts,
    done: Mapping[str, _WorkloadDay],
    units: dict[str, _Units],
    nearest: frozenset[str],
    said: _Units,
) -> list[Use]:
    """The usage of each workload of a day. Served workloads are included without usage, too, since equal shares count
    them. Bytes kept for removed workloads, or for none, belong to `NOBODY`."""
    names = sorted({*done, *declared.teams})
    found = []
    for name in names:
        mine = done.get(name) or _WorkloadDay()
        own = {unit: values[name] for unit, values in units.items() if name in values}
        team = declared.teams.get(name) or mine.team
        found.append(
            Use(name, team, mine.calls, mine.cost, mine.tokens, mine.by_deployment, mine.by_site, own, nearest,
                mine.answer_tokens, mine.calls_at, {REVIEW_HOUR: said[name]} if name in said else {})
        )  # fmt: skip
    left = {unit: sum((v for n, v in values.items() if n not in names), Decimal(0)) for unit, values in units.items()}
    if any(left.values()):
        found.append(Use(NOBODY, units=left, nearest_sample_units=nearest))
    return found


class _MeasuredUnits:
    """Quantities, besides calls and tokens, that rules charge for, by day: review hours, tool uses, stored bytes."""

    def __init__(self, conn: Connection[Any], first: date, last: date, rules: Iterable[Allocation]) -> None:
        asked = {rule.per for rule in rules if rule.rate is not None}
        self._hours: dict[date, _Units] | None = None
        self._said: dict[date, _Units] = {}
        if REVIEW_HOUR in asked:
            self._hours, self._said = _review_hours(conn, first, last)
        self._uses = _tool_uses(conn, first, last) if TOOL_USES in asked else None
        self._kept = {
            unit: kept_bytes_store.samples(conn, _KINDS[unit], first, last) for unit in STORED_UNITS if unit in asked
        }
        self._now = {unit: _stored_bytes_now(conn, unit) for unit, samples in self._kept.items() if not samples}
        self._known = {unit: sorted(samples) for unit, samples in self._kept.items()}

    def on(self, day: date) -> tuple[dict[str, _Units], frozenset[str], _Units]:
        """(unit -> workload -> quantity, units without a sample of that day, review hours that reviewers only
        stated)"""
        found = {} if self._hours is None else {REVIEW_HOUR: self._hours.get(day, {})}
        if self._uses is not None:
            found[TOOL_USES] = self._uses.get(day, {})
        nearest = set()
        for unit, samples in self._kept.items():
            kept, own = (
                (self._now[unit], False) if unit in self._now else stored_bytes_on(samples, self._known[unit], day)
            )
            found[unit] = {workload: Decimal(count) / 10**9 for workload, count in kept.items()}
            nearest |= set() if own else {unit}
        return found, frozenset(nearest), self._said.get(day, {})


def _review_hours(conn: Connection[Any], first: date, last: date) -> tuple[dict[date, _Units], dict[date, _Units]]:
    """Review hours by day, and the part of them that reviewers stated instead of being measured."""
    span = all_calls_of(first, last)
    found: tuple[dict[date, _Units], dict[date, _Units]] = ({}, {})
    for row in cost_store.review_minutes(conn, span["since"], span["until"]):
        for hours, minutes in zip(found, (row["minutes"], row["said"]), strict=True):
            hours.setdefault(row["day"], {})[row["workload"]] = minutes / MINUTES
    return found


def _tool_uses(conn: Connection[Any], first: date, last: date) -> dict[date, _Units]:
    """Uses of MCP servers by day, in thousands."""
    found: dict[date, _Units] = {}
    for row in rollup_store.calls_by(conn, ["day", "workload", "endpoint"], all_calls_of(first, last)):
        if row["endpoint"] == TOOLS:
            found.setdefault(row["day"], {})[row["workload"]] = Decimal(int(row["calls"] or 0)) / 1000
    return found


def _stored_bytes_now(conn: Connection[Any], unit: str) -> dict[str, int]:
    """Workload -> bytes kept now; used until there is a first sample."""
    blueprint = current_or_none(conn)
    if _KINDS[unit] == "content":
        kept = storage_samples.stored_content(conn)
    else:
        kept = iter(()) if blueprint is None else storage_samples.stored_documents(conn, blueprint)
    found: dict[str, int] = {}
    for each in kept:
        _add(found, each.workload, each.bytes)
    return found


def _semantic_lookups(
    conn: Connection[Any], in_force: Mapping[date, DeclaredCosts], first: date, last: date
) -> dict[date, dict[str, LookupCost]]:
    """Day -> workload -> its semantic look-ups, at the declared price of processor time."""
    found: dict[date, dict[str, LookupCost]] = {}
    for row in semantic_store.lookup_time_by_day(conn, first, last):
        declared, name = in_force.get(row["day"], _NOTHING_DECLARED), row["workload"]
        one = LookupCost(name, int(row["spent_us"]), hourly_lookup_cost(declared, name), declared.teams.get(name, ""))
        found.setdefault(row["day"], {})[name] = one
    return found


def _usage_of(found: _UsageByDay, row: dict[str, Any]) -> _WorkloadDay:
    return found.setdefault(row["day"], {}).setdefault(row["workload"], _WorkloadDay())


def _add(counts: dict[str, int], key: str, more: int) -> None:
    counts[key] = counts.get(key, 0) + more


def _distinct(declared: Iterable[DeclaredCosts]) -> list[DeclaredCosts]:
    return list({each.number: each for each in declared}.values())


def _each_day(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=n) for n in range((last - first).days + 1))
