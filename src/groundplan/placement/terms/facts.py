"""The input of a plan: sites, hardware, models, deployments and workloads, with every default filled in and noted.

Frozen types in plain units (USD a month, milliseconds, GB, grams); money becomes picodollars only in `problem`.
`from_workspace` fills them from a workspace, `site_defaults` from reference data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HOURS = 730.0
"""hours of a mean month"""
DAYS = 30.0
SENSITIVITIES = ("public", "internal", "confidential", "restricted")


@dataclass(frozen=True, slots=True)
class HardwareFacts:
    """Units of one type at a site. Prices in USD an hour and unit; None: not offered."""

    type: str
    count: int
    memory_gb: float
    watts: float
    owned_month: float | None
    """USD a month and unit: purchase over its life, power x PUE x tariff of an idle unit not included"""
    on_demand: float | None
    spot: float | None
    interruption: float
    reserved: float | None
    max_units: int
    """units that can be rented"""
    terms: tuple[tuple[float, float], ...] = ()
    """commitments: (months, USD an hour and unit)"""

    @property
    def rental_price(self) -> float | None:
        """The cheapest dependable price, USD an hour."""
        prices = [price for price in (self.on_demand, self.reserved) if price is not None]
        return min(prices) if prices else None


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """One site."""

    name: str
    type: str
    jurisdiction: str
    holds: str
    region: str | None
    area: str | None
    """the area of the reference latencies to which it belongs"""
    domain: str
    certifications: frozenset[str]
    hardware: tuple[HardwareFacts, ...]
    energy_usd_kwh: float
    pue: float
    carbon_g_kwh: float
    egress_usd_gb: float
    storage_usd_gb: float
    availability: float
    bandwidth_kbit: float | None
    offline_hours: float
    latency_ms: Mapping[str, float]
    """measured, by region of users"""
    burden_hours: float
    """hours of people a month once anything runs there"""
    model_hours: float
    """hours of people a month for each model served there"""
    rack_usd: float
    setup_usd: float
    egress_to: Mapping[str, float] = field(default_factory=dict)
    """USD a GB by site or region of users, where it differs"""
    egress_between: float | None = None
    """USD a GB to a site of the same provider"""
    purposes: frozenset[str] = frozenset()
    """for what it may be used; empty: anything"""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model that can be served on own or rented hardware."""

    name: str
    total: float | None
    active: float | None
    layers: int | None
    kv_bytes: float | None
    precision: str
    memory_gb: float | None
    sites: tuple[str, ...]
    hardware: tuple[str, ...]
    per_call_ms: float | None
    quality: Mapping[str, float]
    abilities: frozenset[str]
    licence: str | None = None
    purposes: frozenset[str] = frozenset()
    """for what it may be used; empty: anything"""


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """A declared deployment of type chat. Prices in picodollars for a million tokens, as its rates say."""

    name: str
    site: str
    model: str
    input: int
    output: int
    request: int
    first_token_ms: float
    per_token_ms: float
    availability: float
    certifications: frozenset[str]
    quota_tokens_minute: float | None
    concurrent: int | None
    trains: bool
    hardware: str | None
    units: float
    accepts: frozenset[str]
    assumed: tuple[str, ...] = ()
    """the figures that are defaults"""
    sharing: int = 1
    """number of workloads that name it, and share the hours of its upkeep"""
    context: int | None = None
    """the largest number of tokens of prompt and answer together"""


@dataclass(frozen=True, slots=True)
class WorkloadFacts:
    """One workload. Times in milliseconds, None: not demanded."""

    name: str
    stage: str
    sensitivity: str
    residency: tuple[str, ...]
    calls_month: float
    prompt: float
    output: float
    curve: tuple[float, ...]
    """168 hours of a week, mean 1"""
    peak: float
    growth: float
    users: Mapping[str, float]
    first_token: float | None
    per_token: float | None
    complete: float | None
    availability: float | None
    quality: Mapping[str, float]
    certifications: frozenset[str]
    needs: frozenset[str]
    models: tuple[str, ...]
    upload_gb: float
    data_site: str | None
    data_gb: float
    stored_gb: float
    offline: bool
    fallback: str
    burst: bool
    current_site: str | None
    move_hours: float
    declared: tuple[str, ...]
    declared_fallbacks: tuple[str, ...]
    """declared fallbacks"""
    is_planned: bool
    """whether the plan chooses the order of declared deployments"""
    budget_usd: float | None
    assumed: tuple[str, ...] = ()
    spot: bool = False
    requires_availability: bool = False
    """whether its availability objective is a rule"""
    requires_budget: bool = False
    """whether its budget is a rule"""
    ramp: tuple[float, ...] = ()
    """shares of its calls in the steps of a change of place; empty: all at once"""
    current_deployment: str | None = None
    """the deployment that serves it today"""
    purposes: tuple[str, ...] = ()

    @property
    def peak_second(self) -> float:
        """Calls a second in the busiest hour."""
        return self.calls_month / (HOURS * 3600) * self.peak

    @property
    def mean_second(self) -> float:
        return self.calls_month / (HOURS * 3600)

    @property
    def tokens_day(self) -> float:
        return self.calls_month * (self.prompt + self.output) / DAYS


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds as users see them, network and waiting included."""

    first_token: float
    per_token: float
    complete: float
    spread: float
    """high over middle of the 90 % interval of the serving part"""
    basis: str


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """The company's placement policy: prices of soft wishes, and limits."""

    people_usd: float = 75.0
    carbon_usd_tonne: float = 0.0
    payback_months: float = 6.0
    headroom: float = 0.2
    latency_usd: float = 0.0
    spread: int | None = None
    max_moves: int | None = None
    licences: frozenset[str] = frozenset()
    """of models that may be built; empty: any"""
    commit_months: float = 12.2
    """the longest term that a plan may sign for"""


@dataclass(frozen=True, slots=True)
class OwnSpeed:
    """The calibrated speed of a model on hardware, as factors on the predictions of the serving model."""

    first_token: float
    per_token: float
    spread: float
    """high over middle of the 90 % interval of days"""


@dataclass(frozen=True, slots=True)
class Company:
    """All input of one plan."""

    sites: Mapping[str, SiteFacts]
    models: Mapping[str, ModelFacts]
    deployments: Mapping[str, DeploymentFacts]
    workloads: Mapping[str, WorkloadFacts]
    policy: PolicyFacts
    notes: tuple[str, ...] = ()
    """reference data older than its validity"""
    where: Mapping[str, str] = field(default_factory=dict)
    """`workload/NAME` -> file:line; also `site/NAME` and `model/NAME` where purposes are declared"""
    speeds: Mapping[tuple[str, str], OwnSpeed] = field(default_factory=dict)
    """(model, type of hardware) -> its speed by the gateways' measurements"""
