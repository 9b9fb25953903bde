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
    usage = _usage_by_day(conn, first, last, rules) if rules else {}
    measured = _MeasuredUnits(conn, first, last, rules)
    lookups = _semantic_lookups(conn, in_force, first, last)
    return [
        Day(
            day,
            declared.number,
            declared.allocations,
            _uses(declared, usage.get(day, {}), *measured.on(day)),
            declared.currencies,
            lookups.get(day, {}),
            declared.sites,
        )
        for day in _each_day(first, last)
        if (declared := in_force.get(day, _NOTHING_DECLARED)).allocations or day in lookups
    ]


def all_calls_of(first: date, last: date) -> dict[str, Any]:
    """The query for sums of all calls of a period."""
    since, until = (datetime.combine(day, time(), UTC) for day in (first, last))
    return {
        "since": since, "until": until + timedelta(days=1), "workload": None, "status": None, "deployment": None,
        "demo": None,
    }  # fmt: skip


def _usage_by_day(conn: Connection[Any], first: date, last: date, rules: Iterable[Allocation]) -> _UsageByDay:
    """Usage of each workload on each day, with usage by deployment and site if a rule is for one of these."""
    query = all_calls_of(first, last)
    usage: _UsageByDay = {}
    for row in rollup_store.calls_by(conn, ["day", "workload", "team"], query):
        workload_day = _usage_of(usage, row)
        workload_day.team = row["team"] or workload_day.team
        workload_day.calls += int(row["calls"] or 0)
        workload_day.cost += from_decimal(row["cost_usd"])
        workload_day.tokens += int(row["prompt_tokens"] + row["completion_tokens"])
        _add(workload_day.answer_tokens, "company", int(row["completion_tokens"]))
    placed = [rule for rule in rules if rule.covers.startswith(("deployment/", "site/"))]
    if placed:
        _add_tokens_by_place(conn, query, sorted({rule.covers for rule in placed}), usage)
    if any(rule.per in CALL_UNITS for rule in placed):
        _add_answers_by_place(conn, query, usage)
    return usage


def _add_tokens_by_place(conn: Connection[Any], query: dict[str, Any], places: list[str], usage: _UsageByDay) -> None:
    """Add the tokens of all attempts at these deployments and sites."""
    for row in rollup_store.tokens_by(conn, _PLACED, query, NOT_TOKENS, places):
        if count := int(row["tokens"] or 0):
            workload_day = _usage_of(usage, row)
            _add(workload_day.by_deployment, row["deployment"], count)
            _add(workload_day.by_site, row["site"], count)


def _add_answers_by_place(conn: Connection[Any], query: dict[str, Any], usage: _UsageByDay) -> None:
    """Add calls and answered tokens to the deployment and site that answered, without calls that a cache answered."""
    for row in rollup_store.calls_by(conn, _PLACED, query):
        workload_day, calls = _usage_of(usage, row), int(row["calls"] or 0) - int(row["cached"] or 0)
        for place in (f"deployment/{row['deployment']}", f"site/{row['site']}"):
            _add(workload_day.calls_at, place, calls)
            _add(workload_day.answer_tokens, place, int(row["completion_tokens"]))


def _uses(
    declared: DeclaredCosts,
    usage: Mapping[str, _WorkloadDay],
    units: dict[str, _Units],
    nearest: frozenset[str],
    reported_hours: _Units,
) -> list[Use]:
    """The usage of each workload of a day. Served workloads are included without usage, too, since equal shares count
    them. Bytes kept for removed workloads, or for none, belong to `NOBODY`."""
    names = sorted({*usage, *declared.teams})
    uses = []
    for name in names:
        workload_day = usage.get(name) or _WorkloadDay()
        own_units = {unit: values[name] for unit, values in units.items() if name in values}
        team = declared.teams.get(name) or workload_day.team
        uses.append(
            Use(name, team, workload_day.calls, workload_day.cost, workload_day.tokens, workload_day.by_deployment,
                workload_day.by_site, own_units, nearest, workload_day.answer_tokens, workload_day.calls_at,
                {REVIEW_HOUR: reported_hours[name]} if name in reported_hours else {})
        )  # fmt: skip
    unassigned = {
        unit: sum((v for n, v in values.items() if n not in names), Decimal(0)) for unit, values in units.items()
    }
    if any(unassigned.values()):
        uses.append(Use(NOBODY, units=unassigned, nearest_sample_units=nearest))
    return uses


class _MeasuredUnits:
    """Quantities other than calls and tokens that rules charge for, by day: review hours, tool uses, stored bytes."""

    def __init__(self, conn: Connection[Any], first: date, last: date, rules: Iterable[Allocation]) -> None:
        charged_units = {rule.per for rule in rules if rule.rate is not None}
        self._hours: dict[date, _Units] | None = None
        self._reported_hours: dict[date, _Units] = {}
        if REVIEW_HOUR in charged_units:
            self._hours, self._reported_hours = _review_hours(conn, first, last)
        self._uses = _tool_uses(conn, first, last) if TOOL_USES in charged_units else None
        self._samples = {
            unit: kept_bytes_store.samples(conn, _KINDS[unit], first, last)
            for unit in STORED_UNITS
            if unit in charged_units
        }
        self._now = {unit: _stored_bytes_now(conn, unit) for unit, samples in self._samples.items() if not samples}
        self._sampled_days = {unit: sorted(samples) for unit, samples in self._samples.items()}

    def on(self, day: date) -> tuple[dict[str, _Units], frozenset[str], _Units]:
        """(unit -> workload -> quantity, units without a sample of that day, review hours that reviewers only
        stated)"""
        quantities = {} if self._hours is None else {REVIEW_HOUR: self._hours.get(day, {})}
        if self._uses is not None:
            quantities[TOOL_USES] = self._uses.get(day, {})
        nearest = set()
        for unit, samples in self._samples.items():
            stored, is_sampled = (
                (self._now[unit], False)
                if unit in self._now
                else stored_bytes_on(samples, self._sampled_days[unit], day)
            )
            quantities[unit] = {workload: Decimal(count) / 10**9 for workload, count in stored.items()}
            nearest |= set() if is_sampled else {unit}
        return quantities, frozenset(nearest), self._reported_hours.get(day, {})


def _review_hours(conn: Connection[Any], first: date, last: date) -> tuple[dict[date, _Units], dict[date, _Units]]:
    """Review hours by day, and the part of them that reviewers stated instead of being measured."""
    span = all_calls_of(first, last)
    review_hours: tuple[dict[date, _Units], dict[date, _Units]] = ({}, {})
    for row in cost_store.review_minutes(conn, span["since"], span["until"]):
        for hours, minutes in zip(review_hours, (row["minutes"], row["said"]), strict=True):
            hours.setdefault(row["day"], {})[row["workload"]] = minutes / MINUTES
    return review_hours


def _tool_uses(conn: Connection[Any], first: date, last: date) -> dict[date, _Units]:
    """Uses of MCP servers by day, in thousands."""
    tool_uses: dict[date, _Units] = {}
    for row in rollup_store.calls_by(conn, ["day", "workload", "endpoint"], all_calls_of(first, last)):
        if row["endpoint"] == TOOLS:
            tool_uses.setdefault(row["day"], {})[row["workload"]] = Decimal(int(row["calls"] or 0)) / 1000
    return tool_uses


def _stored_bytes_now(conn: Connection[Any], unit: str) -> dict[str, int]:
    """Workload -> bytes stored now; used until there is a first sample."""
    blueprint = current_or_none(conn)
    if _KINDS[unit] == "content":
        stored = storage_samples.stored_content(conn)
    else:
        stored = iter(()) if blueprint is None else storage_samples.stored_documents(conn, blueprint)
    by_workload: dict[str, int] = {}
    for item in stored:
        _add(by_workload, item.workload, item.bytes)
    return by_workload


def _semantic_lookups(
    conn: Connection[Any], in_force: Mapping[date, DeclaredCosts], first: date, last: date
) -> dict[date, dict[str, LookupCost]]:
    """Day -> workload -> its semantic look-ups, at the declared price of processor time."""
    lookups: dict[date, dict[str, LookupCost]] = {}
    for row in semantic_store.lookup_time_by_day(conn, first, last):
        declared, name = in_force.get(row["day"], _NOTHING_DECLARED), row["workload"]
        lookup = LookupCost(
            name, int(row["spent_us"]), hourly_lookup_cost(declared, name), declared.teams.get(name, "")
        )
        lookups.setdefault(row["day"], {})[name] = lookup
    return lookups


def _usage_of(usage: _UsageByDay, row: dict[str, Any]) -> _WorkloadDay:
    """The usage of the row's workload on its day, added to `usage` if it is new."""
    return usage.setdefault(row["day"], {}).setdefault(row["workload"], _WorkloadDay())


def _add(counts: dict[str, int], key: str, more: int) -> None:
    counts[key] = counts.get(key, 0) + more


def _distinct(declared: Iterable[DeclaredCosts]) -> list[DeclaredCosts]:
    return list({costs.number: costs for costs in declared}.values())


def _each_day(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=n) for n in range((last - first).days + 1))
