"""What a worker knows of a blueprint, as immutable values that are replaced as a whole. Pure: no clock, no I/O.

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
from groundplan.core.clock import end_of_day
from groundplan.gateway.budgets.limit_book import LimitBook, build_limit_book
from groundplan.gateway.budgets.periods import DatedBudgets
from groundplan.gateway.policy.client_address import Network, networks
from groundplan.gateway.policy.snapshot import LEASE_SECONDS
from groundplan.governance.guardrails.guard import Guard
from groundplan.placement.guard import is_allowed

if TYPE_CHECKING:
    from groundplan.gateway.policy.approved import Approved
    from groundplan.gateway.policy.gate import Gate

RUNNING_STAGES = ("experiment", "pilot", "production")
"""Stages in which a workload is served."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One workload with what it refers to, resolved once for each blueprint."""

    workload: Workload
    budgets: tuple[Budget, ...]
    deployments_by_name: dict[str, tuple[Deployment, ...]]
    """The values that a request's `model` may have, with the deployments that each allows, in order."""
    guard: Guard | None = None
    """Its guardrails; None: it has none."""
    until: float = inf
    """When an experiment or a pilot is over, in seconds since the epoch."""
    ramp: Ramp | None = None
    """How its calls move to another deployment in steps; None: they do not."""

    answer_headers: dict[str, Any] = field(default_factory=dict, compare=False)
    """Header lines of answers, by deployment, cached by `answers`."""
    max_policy_age: float = field(init=False, compare=False)
    """Age in seconds up to which live policy may be used: its lease and the workload's grace."""
    runs_until: float = field(init=False, compare=False)
    """`until`, or minus infinity if its stage lets nothing run."""
    dated: DatedBudgets = field(init=False, compare=False)
    """Its budgets with their periods."""
    _deployments_by_kind: dict[tuple[str, str], tuple[Deployment, ...]] = field(init=False, compare=False, repr=False)
    """`deployments_by_name`, by (name, kind)."""

    def __post_init__(self) -> None:
        kinds = {
            (name, d.kind): tuple(each for each in found if each.kind == d.kind)
            for name, found in self.deployments_by_name.items()
            for d in found
        }
        workload = self.workload
        grace = 0 if workload.sensitivity == "restricted" else workload.grace_ms / 1000
        object.__setattr__(self, "max_policy_age", LEASE_SECONDS + grace)
        object.__setattr__(self, "runs_until", self.until if workload.stage in RUNNING_STAGES else -inf)
        object.__setattr__(self, "dated", DatedBudgets(self.budgets))  # frozen, and computed from other fields
        object.__setattr__(self, "_deployments_by_kind", kinds)

    def allowed(self, model: str, kind: str) -> tuple[Deployment, ...]:
        """Deployments of a kind for a requested model; empty if the workload has no such model."""
        return self._deployments_by_kind.get((model, kind), ())


def without_prompt(plan: Plan) -> Plan:
    """The plan for a call that judges an answer: without the workload's prompt and documents, which are for the answer
    itself."""
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
    """Proxies whose X-Forwarded-For is trusted."""
    granted_workloads: frozenset[str] = frozenset()
    """Workloads with grants."""
    gate: Gate | None = None
    """The company's rules about calls; None: there are none."""
    approved: Approved | None = None
    """What production uses, and its approvals; None: nothing is in production."""
    prices_until: float = inf
    """When the next dated price begins, in seconds since the epoch."""
    dated_catalogs: dict[float, Catalog] = field(default_factory=dict, compare=False, repr=False)
    """The catalog at prices that have begun since, cached by `dated_prices.catalog_at`."""


def index(blueprint: Blueprint) -> Catalog:
    """Resolve the names in a blueprint. Unknown names are left out: the blueprint was checked when it was made."""
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
        granted_workloads=frozenset(w.name for w in blueprint.workloads if w.use or w.act_for_others),
        prices_until=min((start_of_day(d.rates.then_from) for d in blueprint.deployments), default=inf),
    )


def start_of_day(day: str) -> float:
    """Seconds since the epoch at the start of a day, UTC; infinity for an empty `day`."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() if day else inf


def _plan(
    workload: Workload,
    deployments: dict[str, Deployment],
    budgets: dict[str, Budget],
    sites: dict[str, Site],
    ramp: Ramp | None,
) -> Plan:
    places = tuple(d for d in _known(workload.all_deployments, deployments) if is_allowed(workload, d, sites))
    places = tuple(sorted(places, key=lambda d: d.weight <= 0))  # fallbacks, in whatever order
    names: dict[str, tuple[Deployment, ...]] = {}
    for deployment in places:
        for name in {deployment.model, deployment.name}:
            names[name] = (*names.get(name, ()), deployment)
    for name in ("auto", workload.name, *workload.aliases):
        names[name] = places
    # the provider's own name of the model, which callers that come from it use
    for name in {d.upstream_model for d in places} - set(names):
        names[name] = tuple(d for d in places if d.upstream_model == name)
    covering = tuple(budgets[name] for name in workload.budgets if name in budgets)
    guard = None if workload.guardrails is None else Guard.of(workload.guardrails)
    return Plan(
        workload=workload, budgets=covering, deployments_by_name=names, until=_until(workload), guard=guard, ramp=ramp
    )


def _until(workload: Workload) -> float:
    if not workload.expires or workload.stage == "production":
        return inf
    return end_of_day(date.fromisoformat(workload.expires)).timestamp()


def _known(names: Iterable[str], deployments: dict[str, Deployment]) -> tuple[Deployment, ...]:
    return tuple(deployments[name] for name in names if name in deployments)
