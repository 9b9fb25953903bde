"""The cost declarations of blueprints, and which of them were in force on a day. Nothing is divided here.

The blueprint of a day is the newest that was released by its end. Days before the first blueprint use the first one; on
days that are also before the first call, only costs with `from` count: others begin with the first day of use.
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
from groundplan.economics.allocate.divide import is_in_force
from groundplan.economics.prices.currency import DatedCurrencyRates, rate_on, to_usd
from groundplan.ledger import rollup_store

REVIEW_HOUR: Final = "review hour"
TOOL_USES: Final = "1000 tool uses"
_MAX_CACHED: Final = 1000


@dataclass(frozen=True, slots=True)
class DeclaredCosts:
    """Cost declarations of one blueprint."""

    number: int
    allocations: tuple[Allocation, ...] = ()
    currencies: DatedCurrencyRates = field(default_factory=dict)
    teams: dict[str, str] = field(default_factory=dict)
    """workload -> its team"""
    sites: dict[str, str] = field(default_factory=dict)
    """deployment -> its site"""
    kinds: dict[str, str] = field(default_factory=dict)
    """deployment -> its type"""
    prices: dict[str, str] = field(default_factory=dict)
    """deployment -> where its price is from"""
    processors: dict[str, int] = field(default_factory=dict)
    """workload -> picodollars of an hour of semantic look-up, where it is declared"""
    cost_centers: dict[str, str] = field(default_factory=dict)
    """team -> its cost center"""
    workflows: dict[str, str] = field(default_factory=dict)
    """workload -> its workflow"""
    rates: dict[str, Rates] = field(default_factory=dict)
    """deployment -> its price"""
    contexts: dict[str, int] = field(default_factory=dict)
    """deployment -> tokens of prompt and answer together"""


_CACHE: Final[dict[str, DeclaredCosts]] = {}
"""By digest of the blueprint; at most `_MAX_CACHED`."""
_WORKFLOW_CACHE: Final[dict[str, dict[str, str]]] = {}
"""By digest of the declared files; at most `_MAX_CACHED`."""


def declared_costs(blueprint: Blueprint) -> DeclaredCosts:
    deployments = blueprint.deployments
    return DeclaredCosts(
        blueprint.number,
        tuple(blueprint.allocations),
        blueprint.currencies,
        {workload.name: workload.team or "" for workload in blueprint.workloads},
        {deployment.name: deployment.site for deployment in deployments},
        {deployment.name: deployment.kind for deployment in deployments},
        {deployment.name: deployment.rates.source for deployment in deployments},
        {w.name: w.cache.semantic.hour for w in blueprint.workloads if w.cache and w.cache.semantic},
        blueprint.cost_centers,
        {workload: flow.name for flow in blueprint.workflows for workload in flow.workloads},
        {deployment.name: deployment.rates for deployment in deployments},
        {deployment.name: deployment.context_tokens for deployment in deployments},
    )


def costs_by_blueprint(conn: Connection[Any], numbers: Iterable[int]) -> dict[int, DeclaredCosts]:
    """The declarations of the blueprints that exist among `numbers`, each decoded once."""
    digests = store.blueprint_digests(conn, sorted(set(numbers)))
    by_number = {number: _CACHE[digest] for number, digest in digests.items() if digest in _CACHE}
    if missing := [number for number in digests if number not in by_number]:
        if len(_CACHE) + len(missing) > _MAX_CACHED:
            _CACHE.clear()
        for digest, body in store.blueprint_bodies(conn, missing):
            costs = declared_costs(artifact.decode(bytes(body)))
            by_number[costs.number] = _CACHE[digest] = costs
    return by_number


def workflows_by_blueprint(conn: Connection[Any], numbers: Iterable[int]) -> dict[int, dict[str, str]]:
    """Number of a blueprint -> workload -> its workflow; 0 is the newest. Blueprints from before workflows were part of
    them are answered from their declared files, as far as these can still be read."""
    newest = store.current_number(conn)
    numbers_by_alias = {number: number or newest or 0 for number in numbers}
    declared = costs_by_blueprint(conn, numbers_by_alias.values())
    before = [number for number, costs in declared.items() if not costs.workflows]
    workflows = {number: costs.workflows for number, costs in declared.items()} | _workflows_from_files(conn, before)
    return {number: workflows.get(of, {}) for number, of in numbers_by_alias.items()}


def _workflows_from_files(conn: Connection[Any], numbers: list[int]) -> dict[int, dict[str, str]]:
    digests = store.blueprint_file_digests(conn, numbers)
    for number, digest in digests.items():
        if digest not in _WORKFLOW_CACHE:
            if len(_WORKFLOW_CACHE) >= _MAX_CACHED:
                _WORKFLOW_CACHE.clear()
            _WORKFLOW_CACHE[digest] = _declared_workflows(store.blueprint(conn, number)["sources"])
    return {number: _WORKFLOW_CACHE[digest] for number, digest in digests.items()}


def _declared_workflows(files: dict[str, str]) -> dict[str, str]:
    try:
        declared = load_served(files).workloads
    except Invalid:
        return {}
    return {name: doc.workflow for name, doc in declared.items() if doc.workflow}


def costs_in_force(conn: Connection[Any], first: date, last: date) -> dict[date, DeclaredCosts]:
    """Day -> the declarations in force on it; empty without a blueprint."""
    blueprint_days = store.blueprint_days(conn)
    if not blueprint_days:
        return {}
    begun = [row["day"] for row in blueprint_days]
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    numbers = {day: blueprint_days[max(0, bisect_right(begun, day) - 1)]["number"] for day in days}
    declared = costs_by_blueprint(conn, numbers.values())
    in_force = {day: declared[number] for day, number in numbers.items()}
    if first >= begun[0]:
        return in_force
    since = _first_day(conn, begun[0])
    return {day: costs if day >= since else _only_dated(costs) for day, costs in in_force.items()}


def _first_day(conn: Connection[Any], genesis: date) -> date:
    """The day of the first blueprint, or of the first call, if that is earlier."""
    until = datetime.combine(genesis, time(), UTC)
    query = {"since": None, "until": until, "workload": None, "status": None, "deployment": None, "demo": None}
    return min((row["day"] for row in rollup_store.calls_by(conn, ["day"], query)), default=genesis)


def _only_dated(declared: DeclaredCosts) -> DeclaredCosts:
    """The declarations with only those allocations that say when they begin."""
    return replace(declared, allocations=tuple(rule for rule in declared.allocations if rule.since))


def hourly_review_cost(declared: DeclaredCosts, day: date, workload: str) -> int | None:
    """Picodollars of an hour of review of a workload: the sum of the rules that cover the workload, else its team, else
    the company. None if no allocation has one. Raises `Invalid` without a rate of the currency."""
    rules = [r for r in declared.allocations if r.per == REVIEW_HOUR and r.rate is not None and is_in_force(r, day)]
    team = declared.teams.get(workload, "")
    for covers in (f"workload/{workload}", f"team/{team}", "company"):
        if covering := [rule for rule in rules if rule.covers == covers]:
            return sum(_usd(rule, declared, day) for rule in covering)
    return None


def hourly_lookup_cost(declared: DeclaredCosts, workload: str) -> int:
    """Picodollars of an hour of semantic look-up."""
    return declared.processors.get(workload, Semantic().hour)


def _usd(rule: Allocation, declared: DeclaredCosts, day: date) -> int:
    return to_usd(rule.rate or 0, rate_on(declared.currencies, rule.currency, day))
