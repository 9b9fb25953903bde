"""The blueprint: the frozen, numbered, signed artifact that every runtime reads. Execution makes no choices beyond it.

Types only; compiling is `release`, signing and reading are `blueprint.artifact`. Amounts are picodollars (int), rates
are picodollars per million tokens (int), durations are milliseconds (int). Every list is sorted, so the same input
gives the same bytes.
"""

from __future__ import annotations

import msgspec

from groundplan.blueprint.calendar import Calendar, Launch
from groundplan.blueprint.content import (
    Connector,
    Governed,
    Grounding,
    Index,
    IndexEmbedding,
    Needs,
    Rerank,
    Source,
    Term,
)
from groundplan.blueprint.governance import ApprovalTerms, Described, Framework, PolicyRules, ToolServer
from groundplan.blueprint.guarding import CompanyEntity, Guardrails, Judge, Review
from groundplan.blueprint.limits import Budget, Caps, Grant, Limit
from groundplan.blueprint.money import Allocation, CurrencyRate
from groundplan.blueprint.placement import Alternative, Placement, Ramp, ToBuild
from groundplan.blueprint.places import Deployment, ProviderKey, ProviderTerms, Site, Tls
from groundplan.blueprint.prices import PriceWindow, RateDetails, Rates
from groundplan.blueprint.serving import Cache, Cascade, Hedge, Keep, Reliability, RouteRule, Routing, Semantic
from groundplan.blueprint.workflow import Workflow
from groundplan.blueprint.workload import Workload

__all__ = [
    "Allocation",
    "Alternative",
    "ApprovalTerms",
    "Blueprint",
    "Budget",
    "Cache",
    "Calendar",
    "Caps",
    "Cascade",
    "CompanyEntity",
    "Connector",
    "CurrencyRate",
    "Deployment",
    "Described",
    "Framework",
    "Governed",
    "Grant",
    "Grounding",
    "Guardrails",
    "Hedge",
    "Index",
    "IndexEmbedding",
    "Judge",
    "Keep",
    "Launch",
    "Limit",
    "Needs",
    "Placement",
    "PolicyRules",
    "PriceWindow",
    "ProviderKey",
    "ProviderTerms",
    "Ramp",
    "RateDetails",
    "Rates",
    "Reliability",
    "Rerank",
    "Review",
    "RouteRule",
    "Routing",
    "Semantic",
    "Site",
    "Source",
    "Term",
    "Tls",
    "ToBuild",
    "ToolServer",
    "Workflow",
    "Workload",
]


class Blueprint(msgspec.Struct, frozen=True, kw_only=True):
    format: int = 1
    number: int
    company: str
    separation: str
    """solo | enforced"""
    sites: list[Site]
    deployments: list[Deployment]
    sources: list[Source]
    workloads: list[Workload]
    budgets: list[Budget]
    placements: list[Placement]
    rollback_of: int | None = None
    demo: bool = False
    caps: Caps = Caps()
    limits: list[Limit] = []
    terms: list[Term] = []
    review_days: dict[str, int] = {}
    """Source -> days after which a document of it is to be looked at again; ends no approval when it changes."""
    trusted_proxies: list[str] = []
    """Networks (CIDR) of proxies in front of the gateways, whose X-Forwarded-For is believed."""
    owners: dict[str, list[str]] = {}
    """duty -> e-mail addresses for the company as a whole; they stand in where a workload names nobody"""
    allocations: list[Allocation] = []
    """Costs beside the calls, by name."""
    currencies: dict[str, list[CurrencyRate]] = {}
    """Dated rates of the currencies in which they may be, the oldest first."""
    policies: list[PolicyRules] = []
    described: dict[str, Described] = {}
    """Of workloads, where it is not the ordinary."""
    frameworks: list[Framework] = []
    tools: list[ToolServer] = []
    approved_parts: list[str] = []
    """Kinds (model, prompt, data) of what production uses that need an approval of their own."""
    approval_terms: ApprovalTerms | None = None
    """None: made before they were part of a blueprint; then the workspace's hold."""
    index: Index = Index()
    calendar: Calendar = Calendar()
    """Holidays and launches, for forecasts."""
    workflows: list[Workflow] = []
    """Of the workloads, by name."""
    may_cost: dict[str, int] = {}
    """Workload -> picodollars that an accepted outcome of it may cost, by its objectives."""
    cost_centers: dict[str, str] = {}
    """Team -> where finance books what it carries."""
