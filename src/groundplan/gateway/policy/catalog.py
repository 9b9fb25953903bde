"""What a worker knows of a blueprint, as immutable values that are swapped whole. Pure: no clock, no I/O.

What it knows of live policy is in `snapshot`. A request keeps the values that it started with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from math import inf
from typing import TYPE_CHECKING, Any

from msgspec import structs

from groundplan.blueprint.model import Blueprint, Budget, Deployment, Ramp, Site, Workload
from groundplan.core.clock import end_of
from groundplan.gateway.budgets.limit_book import LimitBook, build_limit_book
from groundplan.gateway.budgets.periods import DatedBudgets
from groundplan.gateway.policy.client_address import Network, networks
from groundplan.gateway.policy.snapshot import LEASE_SECONDS
from groundplan.governance.guardrails.guard import Guard
from groundplan.placement.guard import is_allowed

if TYPE_CHECKING:
    from groundplan.gateway.policy.approved import Approved
    from groundplan.gateway.policy.gate import Gate

RUNNING = ("experiment", "pilot", "production")
"""Stages in which a workload is served."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One workload with what it refers to, resolved once for each blueprint."""

    workload: Workload
    budgets: tuple[Budget, ...]
    names: dict[str, tuple[Deployment, ...]]
    """What `model` may say, with the deployments that it allows, in order."""
    guard: Guard | None = None
    """Its guardrails; None: it has none."""
    until: float = inf
    """When an experiment or a pilot is over, in seconds since the epoch."""
    ramp: Ramp | None = None
    """How its calls go over to another place; None: they do not."""

    told: dict[str, Any] = field(default_factory=dict, compare=False)
    """What answers say of it and each deployment, kept by `answers` from the first one on."""
    confirmed_s: float = field(init=False, compare=False)
    """How long ago live policy may have been confirmed: its lease and the workload's grace."""
    runs_until: float = field(init=False, compare=False)
    """`until`, and the beginning of time where its stage lets nothing run."""
    dated: DatedBudgets = field(init=False, compare=False)
    """Its budgets with their periods."""
    _kinds: dict[tuple[str, str], tuple[Deployment, ...]] = field(init=False, compare=False, repr=False)
    """`names` by kind."""

    def __post_init__(self) -> None:
        kinds = {
            (name, d.kind): tuple(each for each in found if each.kind == d.kind)
            for name, found in self.names.items()
            for d in found
        }
        workload = self.workload
        grace = 0 if workload.sensitivity == "restricted" else workload.grace_ms / 1000
        object.__setattr__(self, "confirmed_s", LEASE_SECONDS + grace)
        object.__setattr__(self, "runs_until", self.until if workload.stage in RUNNING else -inf)
        object.__setattr__(self, "dated", DatedBudgets(self.budgets))  # frozen, and made of other fields
        object.__setattr__(self, "_kinds", kinds)

    def allowed(self, model: str, kind: str) -> tuple[Deployment, ...]:
        """Deployments of a kind for what the caller asked for; empty when the workload has no such model."""
        return self._kinds.get((model, kind), ())


def bare(plan: Plan) -> Plan:
    """As whoever judges an answer is asked: without the workload's prompt and documents, which are for who answers."""
    workload = plan.workload
    if workload.system_prompt is None and workload.grounding is None:
        return plan
    return replace(plan, workload=structs.replace(workload, system_prompt=None, prompt=None, grounding=None))


@dataclass(frozen=True, slots=True)
class Catalog:
    """One blueprint, indexed."""

    number: int
    blueprint: Blueprint
    plans: dict[str, Plan]
    key_budgets: dict[str, tuple[Budget, ...]] = field(default_factory=dict)
    """Budgets that cover single keys, by key id."""
    limits: LimitBook | None = None
    proxies: tuple[Network, ...] = ()
    """Of which X-Forwarded-For is believed."""
    granted: frozenset[str] = frozenset()
    """Workloads with grants."""
    gate: Gate | None = None
    """The company's rules about calls; None: there are none."""
    approved: Approved | None = None
    """What production uses and who has approved it; None: nothing is in production."""
    prices_until: float = inf
    """When a price with a date is the next to begin, in seconds since the epoch."""
    later: dict[float, Catalog] = field(default_factory=dict, compare=False, repr=False)
    """The same at the prices that have begun since, kept by `dated_prices.at`."""


def index(blueprint: Blueprint) -> Catalog:
    """Resolve the names in a blueprint. A name that it lacks is left out: the blueprint was checked when it was
    made."""
    deployments = {d.name: d for d in blueprint.deployments}
    budgets = {b.name: b for b in blueprint.budgets}
    sites = {s.name: s for s in blueprint.sites}
    ramps = {p.workload: p.ramp for p in blueprint.placements if p.ramp is not None}
    plans = {w.name: _plan(w, deployments, budgets, sites, ramps.get(w.name)) for w in blueprint.workloads}
    by_key: dict[str, tuple[Budget, ...]] = {}
    for budget in blueprint.budgets:
        kind, _, name = budget.covers.partition("/")
        if kind == "key":
            by_key[name] = (*by_key.get(name, ()), budget)
    return Catalog(
        number=blueprint.number,
        blueprint=blueprint,
        plans=plans,
        key_budgets=by_key,
        limits=build_limit_book(blueprint.limits, blueprint.deployments, blueprint.workloads),
        proxies=networks(blueprint.trusted_proxies),
        granted=frozenset(w.name for w in blueprint.workloads if w.use or w.act_for_others),
        prices_until=min((begins(d.rates.then_from) for d in blueprint.deployments), default=inf),
    )


def begins(day: str) -> float:
    """Seconds since the epoch at the start of a day, UTC; never, where there is none."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() if day else inf


def _plan(
    workload: Workload,
    deployments: dict[str, Deployment],
    budgets: dict[str, Budget],
    sites: dict[str, Site],
    ramp: Ramp | None,
) -> Plan:
    places = tuple(d for d in _known(workload.places, deployments) if is_allowed(workload, d, sites))
    places = tuple(sorted(places, key=lambda d: d.weight <= 0))  # asked when the others fail, in whichever order
    names: dict[str, tuple[Deployment, ...]] = {}
    for deployment in places:
        for name in {deployment.model, deployment.name}:
            names[name] = (*names.get(name, ()), deployment)
    for name in ("auto", workload.name, *workload.aliases):
        names[name] = places
    for name in {d.upstream_model for d in places} - set(names):  # as callers know it who come from its provider
        names[name] = tuple(d for d in places if d.upstream_model == name)
    covering = tuple(budgets[name] for name in workload.budgets if name in budgets)
    guard = None if workload.guardrails is None else Guard.of(workload.guardrails)
    return Plan(workload=workload, budgets=covering, names=names, until=_until(workload), guard=guard, ramp=ramp)


def _until(workload: Workload) -> float:
    if not workload.expires or workload.stage == "production":
        return inf
    return end_of(date.fromisoformat(workload.expires)).timestamp()


def _known(names: Iterable[str], deployments: dict[str, Deployment]) -> tuple[Deployment, ...]:
    return tuple(deployments[name] for name in names if name in deployments)
