"""What each workload did on each day, read from kept sums: the weights by which declared costs are divided. No call is
read, and nothing is divided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

from psycopg import Connection

from groundplan.api.cost import store as cost_store
from groundplan.api.cost.declared_costs import REVIEW_HOUR, TOOL_USES, Declared, processor
from groundplan.api.served_blueprint import current_or_none
from groundplan.api.watch import storage_samples
from groundplan.blueprint.model import Allocation
from groundplan.core.money import from_decimal
from groundplan.economics.allocate.divide import OF_CALLS, STORED
from groundplan.economics.allocate.model import NOBODY, Day, LookedUp, Use
from groundplan.economics.allocate.storage import kept_on
from groundplan.ledger import kept_bytes_store, rollup_store, semantic_store
from groundplan.ledger.kept_bytes_store import Kind

NOT_TOKENS: Final = (
    "attempt", "bound", "whole", "requests", "images", "searches", "images_made", "characters", "seconds",
)  # fmt: skip
"""Parts of an attempt that count something else."""
_KINDS: Final[dict[str, Kind]] = {"gigabyte of documents": "documents", "gigabyte of content": "content"}
_PLACED: Final = ("day", "workload", "deployment", "site")
MINUTES: Final = 60
TOOLS: Final = rollup_store.TOOLS
_NOTHING: Final = Declared(0)
_Units = dict[str, Decimal]
"""workload -> how many"""


@dataclass(slots=True)
class _Done:
    """Of one workload on one day."""

    team: str = ""
    calls: int = 0
    cost: int = 0
    tokens: int = 0
    by_deployment: dict[str, int] = field(default_factory=dict)
    by_site: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)


_Days = dict[date, dict[str, _Done]]


def days(conn: Connection[Any], in_force: Mapping[date, Declared], first: date, last: date) -> list[Day]:
    """Each day with the rules that were in force on it. Without any rule there are look-ups by meaning alone."""
    rules = [rule for declared in _different(in_force.values()) for rule in declared.allocations]
    done = _done(conn, first, last, rules) if rules else {}
    measured = _Measured(conn, first, last, rules)
    looked = _looked(conn, in_force, first, last)
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
        for day in _span(first, last)
        if (declared := in_force.get(day, _NOTHING)).allocations or day in looked
    ]


def wanted(first: date, last: date) -> dict[str, Any]:
    """For sums of every call of those days."""
    since, until = (datetime.combine(day, time(), UTC) for day in (first, last))
    return {
        "since": since, "until": until + timedelta(days=1), "workload": None, "status": None, "deployment": None,
        "demo": None,
    }  # fmt: skip


def _done(conn: Connection[Any], first: date, last: date, rules: Iterable[Allocation]) -> _Days:
    asked = wanted(first, last)
    found: _Days = {}
    for row in rollup_store.calls_by(conn, ["day", "workload", "team"], asked):
        mine = _of(found, row)
        mine.team = row["team"] or mine.team
        mine.calls += int(row["calls"] or 0)
        mine.cost += from_decimal(row["cost_usd"])
        mine.tokens += int(row["prompt_tokens"] + row["completion_tokens"])
        _add(mine.written, "company", int(row["completion_tokens"]))
    placed = [rule for rule in rules if rule.covers.startswith(("deployment/", "site/"))]
    if placed:
        _made_at(conn, asked, sorted({rule.covers for rule in placed}), found)
    if any(rule.per in OF_CALLS for rule in placed):
        _asked_at(conn, asked, found)
    return found


def _made_at(conn: Connection[Any], asked: dict[str, Any], places: list[str], found: _Days) -> None:
    """Tokens of all attempts there."""
    for row in rollup_store.tokens_by(conn, _PLACED, asked, NOT_TOKENS, places):
        if count := int(row["tokens"] or 0):
            mine = _of(found, row)
            _add(mine.by_deployment, row["deployment"], count)
            _add(mine.by_site, row["site"], count)


def _asked_at(conn: Connection[Any], asked: dict[str, Any], found: _Days) -> None:
    """Calls and answers at the place that answered, without those of a cache."""
    for row in rollup_store.calls_by(conn, _PLACED, asked):
        mine, calls = _of(found, row), int(row["calls"] or 0) - int(row["cached"] or 0)
        for place in (f"deployment/{row['deployment']}", f"site/{row['site']}"):
            _add(mine.asked, place, calls)
            _add(mine.written, place, int(row["completion_tokens"]))


def _uses(
    declared: Declared, done: Mapping[str, _Done], units: dict[str, _Units], nearest: frozenset[str], said: _Units
) -> list[Use]:
    """What is served does its part, also where it did nothing: it carries equal shares all the same. What is kept of
    workloads that are gone, or of none, is of nobody."""
    names = sorted({*done, *declared.teams})
    found = []
    for name in names:
        mine = done.get(name) or _Done()
        own = {unit: values[name] for unit, values in units.items() if name in values}
        team = declared.teams.get(name) or mine.team
        found.append(
            Use(name, team, mine.calls, mine.cost, mine.tokens, mine.by_deployment, mine.by_site, own, nearest,
                mine.written, mine.asked, {REVIEW_HOUR: said[name]} if name in said else {})
        )  # fmt: skip
    left = {unit: sum((v for n, v in values.items() if n not in names), Decimal(0)) for unit, values in units.items()}
    if any(left.values()):
        found.append(Use(NOBODY, units=left, nearest=nearest))
    return found


class _Measured:
    """What rules are paid by, of each day."""

    def __init__(self, conn: Connection[Any], first: date, last: date, rules: Iterable[Allocation]) -> None:
        asked = {rule.per for rule in rules if rule.rate is not None}
        self._hours: dict[date, _Units] | None = None
        self._said: dict[date, _Units] = {}
        if REVIEW_HOUR in asked:
            self._hours, self._said = _hours(conn, first, last)
        self._uses = _tool_uses(conn, first, last) if TOOL_USES in asked else None
        self._kept = {
            unit: kept_bytes_store.samples(conn, _KINDS[unit], first, last) for unit in STORED if unit in asked
        }
        self._now = {unit: _now(conn, unit) for unit, samples in self._kept.items() if not samples}
        self._known = {unit: sorted(samples) for unit, samples in self._kept.items()}

    def on(self, day: date) -> tuple[dict[str, _Units], frozenset[str], _Units]:
        """(unit -> workload -> how many, units of which that day has no sample of its own, hours of review that are
        only said)"""
        found = {} if self._hours is None else {REVIEW_HOUR: self._hours.get(day, {})}
        if self._uses is not None:
            found[TOOL_USES] = self._uses.get(day, {})
        nearest = set()
        for unit, samples in self._kept.items():
            kept, own = (self._now[unit], False) if unit in self._now else kept_on(samples, self._known[unit], day)
            found[unit] = {workload: Decimal(count) / 10**9 for workload, count in kept.items()}
            nearest |= set() if own else {unit}
        return found, frozenset(nearest), self._said.get(day, {})


def _hours(conn: Connection[Any], first: date, last: date) -> tuple[dict[date, _Units], dict[date, _Units]]:
    """Of each day, and the part of them that reviewers said."""
    span = wanted(first, last)
    found: tuple[dict[date, _Units], dict[date, _Units]] = ({}, {})
    for row in cost_store.review_minutes(conn, span["since"], span["until"]):
        for hours, minutes in zip(found, (row["minutes"], row["said"]), strict=True):
            hours.setdefault(row["day"], {})[row["workload"]] = minutes / MINUTES
    return found


def _tool_uses(conn: Connection[Any], first: date, last: date) -> dict[date, _Units]:
    """Of each day, in thousands: what was used of MCP servers."""
    found: dict[date, _Units] = {}
    for row in rollup_store.calls_by(conn, ["day", "workload", "endpoint"], wanted(first, last)):
        if row["endpoint"] == TOOLS:
            found.setdefault(row["day"], {})[row["workload"]] = Decimal(int(row["calls"] or 0)) / 1000
    return found


def _now(conn: Connection[Any], unit: str) -> dict[str, int]:
    """workload -> bytes that are kept now, until the first sample is there."""
    blueprint = current_or_none(conn)
    if _KINDS[unit] == "content":
        kept = storage_samples.content(conn)
    else:
        kept = iter(()) if blueprint is None else storage_samples.documents(conn, blueprint)
    found: dict[str, int] = {}
    for each in kept:
        _add(found, each.workload, each.bytes)
    return found


def _looked(
    conn: Connection[Any], in_force: Mapping[date, Declared], first: date, last: date
) -> dict[date, dict[str, LookedUp]]:
    """Day -> workload -> what it looked up by meaning, at the price that was declared for the processor."""
    found: dict[date, dict[str, LookedUp]] = {}
    for row in semantic_store.spent(conn, first, last):
        declared, name = in_force.get(row["day"], _NOTHING), row["workload"]
        one = LookedUp(name, int(row["spent_us"]), processor(declared, name), declared.teams.get(name, ""))
        found.setdefault(row["day"], {})[name] = one
    return found


def _of(found: _Days, row: dict[str, Any]) -> _Done:
    return found.setdefault(row["day"], {}).setdefault(row["workload"], _Done())


def _add(counts: dict[str, int], key: str, more: int) -> None:
    counts[key] = counts.get(key, 0) + more


def _different(declared: Iterable[Declared]) -> list[Declared]:
    return list({each.number: each for each in declared}.values())


def _span(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=n) for n in range((last - first).days + 1))
