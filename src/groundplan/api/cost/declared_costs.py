"""What blueprints declared of costs, and which of them was in force on a day. It divides nothing.

The one of a day is the newest that was released on it or before it. Days before the first one count as its day; of
those before anything was asked, too, only what says `from` is spent: a cost without it begins with the company.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from psycopg import Connection

from groundplan.api import store
from groundplan.blueprint import artifact
from groundplan.blueprint.model import Allocation, Blueprint, Rates, Semantic
from groundplan.catalog.loader import load_served
from groundplan.core.errors import Invalid
from groundplan.economics.allocate.divide import holds
from groundplan.economics.prices.currency import DatedCurrencyRates, rate_on, to_usd
from groundplan.ledger import rollup_store

REVIEW_HOUR: Final = "review hour"
TOOL_USES: Final = "1000 tool uses"
_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Declared:
    """Of one blueprint."""

    number: int
    allocations: tuple[Allocation, ...] = ()
    currencies: DatedCurrencyRates = field(default_factory=dict)
    teams: dict[str, str] = field(default_factory=dict)
    """workload -> its team"""
    sites: dict[str, str] = field(default_factory=dict)
    """deployment -> its site"""
    kinds: dict[str, str] = field(default_factory=dict)
    """deployment -> what it is asked for"""
    prices: dict[str, str] = field(default_factory=dict)
    """deployment -> where its price is from"""
    processors: dict[str, int] = field(default_factory=dict)
    """workload -> picodollars of an hour of looking up by meaning, where it says one"""
    cost_centers: dict[str, str] = field(default_factory=dict)
    """team -> its cost center"""
    workflows: dict[str, str] = field(default_factory=dict)
    """workload -> its workflow"""
    rates: dict[str, Rates] = field(default_factory=dict)
    """deployment -> its price"""
    contexts: dict[str, int] = field(default_factory=dict)
    """deployment -> tokens of prompt and answer together"""


_KEPT: Final[dict[str, Declared]] = {}
"""By digest, of at most `_MOST` blueprints."""
_FLOWS: Final[dict[str, dict[str, str]]] = {}
"""By digest of the files, of as many."""


def of(blueprint: Blueprint) -> Declared:
    places = blueprint.deployments
    return Declared(
        blueprint.number,
        tuple(blueprint.allocations),
        blueprint.currencies,
        {workload.name: workload.team or "" for workload in blueprint.workloads},
        {place.name: place.site for place in places},
        {place.name: place.kind for place in places},
        {place.name: place.rates.source for place in places},
        {w.name: w.cache.semantic.hour for w in blueprint.workloads if w.cache and w.cache.semantic},
        blueprint.cost_centers,
        {workload: flow.name for flow in blueprint.workflows for workload in flow.workloads},
        {place.name: place.rates for place in places},
        {place.name: place.context_tokens for place in places},
    )


def by_number(conn: Connection[Any], numbers: Iterable[int]) -> dict[int, Declared]:
    """Those that are there, each decoded once."""
    digests = store.blueprint_digests(conn, sorted(set(numbers)))
    found = {number: _KEPT[digest] for number, digest in digests.items() if digest in _KEPT}
    if missing := [number for number in digests if number not in found]:
        if len(_KEPT) + len(missing) > _MOST:
            _KEPT.clear()
        for digest, body in store.blueprint_bodies(conn, missing):
            made = of(artifact.decode(bytes(body)))
            found[made.number] = _KEPT[digest] = made
    return found


def workflows(conn: Connection[Any], numbers: Iterable[int]) -> dict[int, dict[str, str]]:
    """Number of a blueprint -> workload -> its workflow; 0 is the newest. Of blueprints that were made before they had
    workflows the files say it, as far as they can still be read."""
    newest = store.current_number(conn)
    asked = {number: number or newest or 0 for number in numbers}
    declared = by_number(conn, asked.values())
    before = [number for number, each in declared.items() if not each.workflows]
    found = {number: each.workflows for number, each in declared.items()} | _of_files(conn, before)
    return {number: found.get(of, {}) for number, of in asked.items()}


def _of_files(conn: Connection[Any], numbers: list[int]) -> dict[int, dict[str, str]]:
    digests = store.blueprint_file_digests(conn, numbers)
    for number, digest in digests.items():
        if digest not in _FLOWS:
            if len(_FLOWS) >= _MOST:
                _FLOWS.clear()
            _FLOWS[digest] = _flows(store.blueprint(conn, number)["sources"])
    return {number: _FLOWS[digest] for number, digest in digests.items()}


def _flows(files: dict[str, str]) -> dict[str, str]:
    try:
        declared = load_served(files).workloads
    except Invalid:
        return {}
    return {name: doc.workflow for name, doc in declared.items() if doc.workflow}


def on(conn: Connection[Any], first: date, last: date) -> dict[date, Declared]:
    """Day -> what was in force on it; nothing without a blueprint."""
    known = store.blueprint_days(conn)
    if not known:
        return {}
    begun = [row["day"] for row in known]
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    numbers = {day: known[max(0, bisect_right(begun, day) - 1)]["number"] for day in days}
    declared = by_number(conn, numbers.values())
    found = {day: declared[number] for day, number in numbers.items()}
    if first >= begun[0]:
        return found
    since = _began(conn, begun[0])
    return {day: each if day >= since else _dated(each) for day, each in found.items()}


def _began(conn: Connection[Any], genesis: date) -> date:
    """The day of the first blueprint, or of a call before it."""
    until = datetime.combine(genesis, time(), UTC)
    wanted = {"since": None, "until": until, "workload": None, "status": None, "deployment": None, "demo": None}
    return min((row["day"] for row in rollup_store.calls_by(conn, ["day"], wanted)), default=genesis)


def _dated(declared: Declared) -> Declared:
    """With what says when it begins alone."""
    return replace(declared, allocations=tuple(rule for rule in declared.allocations if rule.since))


def wage(declared: Declared, day: date, workload: str) -> int | None:
    """Picodollars of an hour of review of that workload: by the rules that cover it, else its team, else the company;
    those of one of them add up. None where no allocation says it. Raises `Invalid` without a rate of its currency."""
    rules = [r for r in declared.allocations if r.per == REVIEW_HOUR and r.rate is not None and holds(r, day)]
    team = declared.teams.get(workload, "")
    for covers in (f"workload/{workload}", f"team/{team}", "company"):
        if mine := [rule for rule in rules if rule.covers == covers]:
            return sum(_usd(rule, declared, day) for rule in mine)
    return None


def processor(declared: Declared, workload: str) -> int:
    """Picodollars of an hour of looking up."""
    return declared.processors.get(workload, Semantic().hour)


def _usd(rule: Allocation, declared: Declared, day: date) -> int:
    return to_usd(rule.rate or 0, rate_on(declared.currencies, rule.currency, day))
