"""The blueprint: the frozen, numbered, signed artifact that every runtime reads. Runtimes make no choices beyond it.

Types only; `release` compiles blueprints, `blueprint.artifact` signs and reads them. Amounts are picodollars (int),
rates are picodollars per million tokens (int), durations are milliseconds (int). Every list is sorted, so the same
input gives the same bytes.
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
    """Source -> days after which each of its documents must be reviewed again; a change of it ends no approval."""
    trusted_proxies: list[str] = []
    """Networks (CIDR) of proxies in front of the gateways, whose X-Forwarded-For is trusted."""
    owners: dict[str, list[str]] = {}
    """duty -> e-mail addresses for the company; they apply where a workload names nobody"""
    allocations: list[Allocation] = []
    """Costs outside calls, by name."""
    currencies: dict[str, list[CurrencyRate]] = {}
    """Dated rates of the currencies in which allocations may be, the oldest first."""
    policies: list[PolicyRules] = []
    described: dict[str, Described] = {}
    """Descriptions of workloads, where they differ from the default."""
    frameworks: list[Framework] = []
    tools: list[ToolServer] = []
    approved_parts: list[str] = []
    """Kinds (model, prompt, data) of what production uses that need an approval of their own."""
    approval_terms: ApprovalTerms | None = None
    """None in blueprints older than this field; then those of the workspace apply."""
    index: Index = Index()
    calendar: Calendar = Calendar()
    """Holidays and launches, for forecasts."""
    workflows: list[Workflow] = []
    """Workflows of the workloads, by name."""
    may_cost: dict[str, int] = {}
    """Workload -> the most picodollars that an accepted outcome of it may cost, by its objectives."""
    cost_centers: dict[str, str] = {}
    """Team -> cost center to which finance books its costs."""
