"""What a worker knows of the blueprint and of live policy, as immutable values that are swapped whole. Pure: no
clock, no I/O.

A request keeps the values that it started with; whoever must see a change looks at `live` again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Any

from msgspec import structs

from groundplan.blueprint.model import Blueprint, Budget, Deployment, Ramp, Site, Workload
from groundplan.economics.experiment.model import Experiment
from groundplan.gateway.budgets.limit_book import LimitBook, book_of
from groundplan.gateway.budgets.periods import Dated
from groundplan.gateway.policy.address import Network, networks
from groundplan.governance.guardrails.guard import Guard
from groundplan.governance.model import Given
from groundplan.placement.guard import may

if TYPE_CHECKING:
    from groundplan.gateway.guard.gate import Gate
    from groundplan.gateway.policy.approved import Approved

PEOPLE_DAYS = 90
"""Who asked in so many days is one of the people of an experiment or a pilot."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """An API key that exists. `expires` is seconds since the epoch."""

    id: str
    workload: str
    person: str
    """Id of its user, empty for an application's key."""
    acts_for_others: bool
    revoked: bool
    expires: float | None
    budget: Budget | None = None
    """Declared when it was made."""
    family: str = ""
    """Id of the first key of a line of rotated ones: their budget and limits are the same. Empty: its own."""
    line: tuple[str, ...] = ()
    """Ids of all keys of that line, where there are several: what is declared for one of them holds for all."""
    networks: tuple[Network, ...] = ()
    """From where it may be used; empty: from everywhere."""
    models: frozenset[str] = frozenset()
    """Models or deployments that it may use; empty: all of its workload."""
    purpose: str = ""
    """`replay`: made by the control process for replaying kept calls; empty: an ordinary key."""


@dataclass(frozen=True, slots=True)
class Excepted:
    """One rule does not hold for a workload, or for one person in it (e-mail address; empty: all), until then."""

    rule: str
    workload: str
    person: str
    until: float
    """seconds since the epoch"""


@dataclass(frozen=True, slots=True)
class Policy:
    """Live policy as of `number`."""

    number: int
    keys: dict[bytes, KeyEntry]
    """by SHA-256 of the key"""
    people: dict[str, str]
    """id of each active person by e-mail"""
    active: frozenset[str]
    """ids of active people"""
    kills: frozenset[str]
    """company | provider/N | model/N | workload/N | deployment/N | source/N | tool/N | key/ID | site/N"""
    cleared: dict[str, int] = field(default_factory=dict)
    """How often the cached answers of each workload were cleared."""
    groups: dict[str, str] = field(default_factory=dict)
    """By id of an active person a digest of all groups that they are in; only where answers are shared by them."""
    members: dict[str, frozenset[str]] = field(default_factory=dict)
    """By group or team the ids of the active people in it; only of those that grants or rules name."""
    exceptions: tuple[Excepted, ...] = ()
    """From company rules, approved and not yet over when this was read."""
    experiments: dict[str, Experiment] | None = None
    """What is tried on calls, by workload; None: nothing."""
    parts: dict[str, Given] = field(default_factory=dict)
    """Approvals of models, prompts and sources for a purpose, by the digest of what was declared."""
    severed: frozenset[str] = frozenset()
    """Those of the kills that end answers under way."""

    @property
    def tools_stopped(self) -> bool:
        """Whether a kill switch stops a tool."""
        return bool(self.kills) and any(scope.startswith("tool/") for scope in self.kills)


LEASE_SECONDS = 1.0
"""How long live policy holds without being confirmed."""
RUNNING = ("experiment", "pilot", "production")
"""Stages in which a workload is served."""
NOTHING = Policy(number=-1, keys={}, people={}, active=frozenset(), kills=frozenset())


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
    dated: Dated = field(init=False, compare=False)
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
        object.__setattr__(self, "dated", Dated(self.budgets))  # frozen, and made of other fields
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
    """The same at the prices that have begun since, kept by `begun.at`."""


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
        limits=book_of(blueprint.limits, blueprint.deployments, blueprint.workloads),
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
    places = tuple(d for d in _known(workload.places, deployments) if may(workload, d, sites))
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
    last = datetime.fromisoformat(workload.expires).replace(tzinfo=UTC)
    return (last + timedelta(days=1)).timestamp()


def _known(names: Iterable[str], deployments: dict[str, Deployment]) -> tuple[Deployment, ...]:
    return tuple(deployments[name] for name in names if name in deployments)
