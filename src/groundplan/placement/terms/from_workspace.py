"""Reads a plan's input from a workspace: declared values, else reference values, else stated defaults.

Pure: the prices of deployments, their observed figures, where workloads run today and the date are arguments. A trace
file is read through `texts`, so that nothing here opens files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from math import inf

from groundplan.blueprint.model import Deployment
from groundplan.catalog import model as doc
from groundplan.catalog.hosting import YEAR_MS, HardwareDoc, Owned
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Invalid
from groundplan.core.money import PICO
from groundplan.placement.serving.model import BYTES, find_hardware, find_shape
from groundplan.placement.terms import curve, site_defaults
from groundplan.placement.terms.facts import (
    DAYS,
    Company,
    DeploymentFacts,
    HardwareFacts,
    ModelFacts,
    PolicyFacts,
    SiteFacts,
    WorkloadFacts,
)

MONTH_MS = DAYS * 86_400_000
FIRST_TOKEN_MS = 600.0
PER_TOKEN_MS = 20.0
CALLS_MONTH = 3000.0
GB = 1e9
Texts = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class ObservedFacts:
    """Observed figures of a deployment: medians in milliseconds, and the share of attempts that did not fail."""

    first_token_ms: float | None = None
    per_token_ms: float | None = None
    availability: float | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """The input of a plan besides the declarations."""

    today: date
    current: Mapping[str, str] = field(default_factory=dict)
    """workload -> site where it runs"""
    serving: Mapping[str, str] = field(default_factory=dict)
    """workload -> deployment that serves it"""
    observed: Mapping[str, ObservedFacts] = field(default_factory=dict)
    """by deployment"""
    loads: Mapping[str, curve.ObservedLoad] = field(default_factory=dict)
    """by workload, of those whose curve is `observed`"""
    texts: Texts | None = None
    """the text of a file of the workspace; None: traces cannot be read"""


def read_company(workspace: Workspace, deployments: Sequence[Deployment], context: Context) -> Company:
    """All facts of a plan. Raises `Invalid` where a trace cannot be used."""
    policy = policy_facts(workspace.company)
    sites = {name: site_facts(item, policy.commit_months, context.today) for name, item in workspace.sites.items()}
    known = {item.name: item for item in deployments if item.kind == "chat"}
    served = {
        name: deployment_facts(workspace.deployments[name], item, sites[item.site], context.observed.get(name))
        for name, item in known.items()
        if name in workspace.deployments and item.site in sites
    }
    workloads = {
        name: workload_facts(workspace, item, context)
        for name, item in workspace.workloads.items()
        if item.stage != "retired" and (item.chats or served)
    }
    named = Counter(name for w in workloads.values() for name in {*w.declared, *w.declared_fallbacks})
    served = {name: replace(each, sharing=max(1, named[name])) for name, each in served.items()}
    return Company(
        sites=sites,
        models={name: model_facts(item) for name, item in workspace.models.items()},
        deployments=served,
        workloads=workloads,
        policy=policy,
        notes=site_defaults.stale_references(context.today),
        where={f"workload/{name}": str(workspace.where("workload", name, "name")) for name in workloads}
        | dict(_purpose_origins(workspace)),
    )


def _purpose_origins(workspace: Workspace) -> Iterator[tuple[str, str]]:
    """(`site/NAME` or `model/NAME`, file:line) of declared purposes."""
    for kind, names in (
        ("site", [name for name, item in workspace.sites.items() if item.purposes]),
        ("model", [name for name, item in workspace.models.items() if item.purposes]),
    ):
        for name in names:
            yield f"{kind}/{name}", str(workspace.where(kind, name, "purposes"))


def policy_facts(item: doc.CompanyDoc) -> PolicyFacts:
    rule = item.placement
    return PolicyFacts(
        people_usd=rule.people / PICO,
        carbon_usd_tonne=rule.carbon / PICO,
        payback_months=max(rule.payback / MONTH_MS, 1 / DAYS),
        headroom=rule.headroom,
        latency_usd=rule.latency,
        spread=rule.spread,
        max_moves=rule.moves,
        licences=frozenset(rule.licences),
        commit_months=rule.commit / MONTH_MS,
    )


def site_facts(item: doc.SiteDoc, max_term: float = inf, today: date | None = None) -> SiteFacts:
    """One site, with reference values and defaults by its type for what is left out; `max_term`: months of a term."""
    rule, load = item.hosting, item.hosting.burden
    new = site_defaults.new_skills_factor() if load.skills == "new" else 1.0
    power = rule.power
    tariff = site_defaults.tariff(item.jurisdiction) if power.tariff is None else power.tariff / PICO
    hours = site_defaults.burden("site", item.type) if load.hours is None else load.hours
    each = site_defaults.burden("model", item.type) if load.hours_per_deployment is None else load.hours_per_deployment
    storage = (0.023 if item.type == "cloud" else 0.0) if rule.storage is None else rule.storage / PICO
    return SiteFacts(
        name=item.name,
        type=item.type,
        jurisdiction=item.jurisdiction,
        holds=item.max_sensitivity,
        region=rule.region,
        area=site_defaults.area_of(rule.region),
        domain=rule.domain or item.name,
        certifications=frozenset(rule.certifications),
        hardware=merge_by_type([hardware_facts(one, rule.region, item.type, max_term, today) for one in rule.hardware]),
        energy_usd_kwh=tariff,
        pue=site_defaults.pue(item.type) if power.pue is None else power.pue,
        carbon_g_kwh=site_defaults.carbon(rule.region, item.jurisdiction) if rule.carbon is None else rule.carbon,
        egress_to={name: price / PICO for name, price in rule.egress_to.items()},
        egress_between=site_defaults.egress_between(rule.region) if rule.egress is None else None,
        egress_usd_gb=site_defaults.egress(rule.region, item.type) if rule.egress is None else rule.egress / PICO,
        storage_usd_gb=storage,
        availability=site_defaults.availability(item.type) if rule.availability is None else rule.availability,
        bandwidth_kbit=rule.connectivity.bandwidth,
        offline_hours=rule.connectivity.offline,
        latency_ms={name: float(ms) for name, ms in rule.connectivity.latency.items()},
        burden_hours=hours * new,
        model_hours=each * new,
        rack_usd=load.rack / PICO,
        setup_usd=load.setup / PICO,
        purposes=frozenset(item.purposes),
    )


def hardware_facts(
    item: HardwareDoc, region: str | None, site_type: str, max_term: float = inf, today: date | None = None
) -> HardwareFacts:
    """Units of one type. Units `bought` longer ago than their life are written off, and cost only their energy."""
    known = find_hardware(item.type)
    on_demand, spot, reserved = site_defaults.prices(region, item.type) if site_type == "cloud" else (None, None, None)
    terms = tuple((each.term / MONTH_MS, each.price / PICO) for each in item.reserved)
    if not terms and reserved is not None:
        terms = ((YEAR_MS / MONTH_MS, reserved),)
    terms = tuple(each for each in terms if each[0] <= max_term)
    return HardwareFacts(
        type=item.type,
        count=item.count,
        memory_gb=item.memory / GB if item.memory is not None else known.memory if known else 16.0,
        watts=item.power if item.power is not None else known.watts if known else 300.0,
        owned_month=_owned_price(item.owned, today) if item.owned else None,
        on_demand=on_demand if item.on_demand is None else item.on_demand / PICO,
        spot=spot if item.spot is None else item.spot / PICO,
        interruption=item.interruption,
        reserved=min((price for _, price in terms), default=None),
        max_units=item.most,
        terms=terms,
    )


def merge_by_type(declared: Sequence[HardwareFacts]) -> tuple[HardwareFacts, ...]:
    """One entry per type: own units of all entries at their mean price, and the cheapest rental beyond them."""
    found: dict[str, list[HardwareFacts]] = {}
    for each in declared:
        found.setdefault(each.type, []).append(each)
    return tuple(every[0] if len(every) == 1 else _merge_hardware(every) for every in found.values())


def _merge_hardware(every: Sequence[HardwareFacts]) -> HardwareFacts:
    own = [each for each in every if each.count]
    first = min(every, key=lambda each: inf if each.rental_price is None else each.rental_price)
    count = sum(each.count for each in own)
    owned = sum((each.owned_month or 0.0) * each.count for each in own) / count if count else None
    sized_like = own[0] if own else first
    return replace(first, count=count, owned_month=owned, memory_gb=sized_like.memory_gb, watts=sized_like.watts)


def _owned_price(item: Owned, today: date | None) -> float:
    """USD a month of one unit over its life; 0 once it is written off."""
    is_written_off = (
        item.bought is not None and today is not None and item.bought + timedelta(milliseconds=item.life) <= today
    )
    return 0.0 if is_written_off else item.purchase / PICO / (item.life / MONTH_MS)


def model_facts(item: doc.ModelDoc) -> ModelFacts:
    """A model; the sizes of well-known ones are filled in."""
    rule, known = item.weights, find_shape(item.name)
    total = rule.total if rule.total is not None else known.total if known else None
    active = rule.active if rule.active is not None else known.active if known else total
    width = BYTES[rule.precision]
    memory = rule.memory / GB if rule.memory is not None else None if total is None else total * width
    kv = float(rule.kv_per_token) if rule.kv_per_token is not None else known.kv * 2 if known else None
    return ModelFacts(
        name=item.name,
        total=total,
        active=active,
        layers=rule.layers if rule.layers is not None else known.layers if known else None,
        kv_bytes=kv,
        precision=rule.precision,
        memory_gb=memory,
        sites=rule.at,
        hardware=rule.hardware,
        per_call_ms=None if rule.per_call is None else float(rule.per_call),
        quality={each.task: each.score for each in item.quality},
        abilities=frozenset(item.able),
        licence=item.licence,
        purposes=frozenset(item.purposes),
    )


def deployment_facts(
    item: doc.DeploymentDoc, priced: Deployment, site: SiteFacts, seen: ObservedFacts | None
) -> DeploymentFacts:
    """A declared deployment: declared figures, else observed ones, else defaults that are noted."""
    rule, seen = item.hosted, seen or ObservedFacts()
    assumed: list[str] = []

    def or_default(declared: float | None, observed: float | None, default: float, what: str) -> float:
        if declared is not None:
            return float(declared)
        if observed is not None:
            return observed
        assumed.append(f"{what} {default:g}")
        return default

    quota = [rate.amount / {"minute": 1, "hour": 60, "day": 1440, "month": 43_200}[rate.period] for rate in rule.quota]
    return DeploymentFacts(
        name=item.name,
        site=item.site,
        model=item.model,
        input=priced.rates.input,
        output=priced.rates.output,
        request=priced.rates.request,
        first_token_ms=or_default(rule.first_token, seen.first_token_ms, FIRST_TOKEN_MS, "ms to the first token"),
        per_token_ms=or_default(rule.per_token, seen.per_token_ms, PER_TOKEN_MS, "ms a token"),
        availability=or_default(rule.availability, seen.availability, site.availability, "availability"),
        certifications=frozenset(rule.certifications) | site.certifications,
        quota_tokens_minute=min(quota) if quota else None,
        concurrent=item.limits.concurrent,
        trains=item.provider_terms is not None and item.provider_terms.training,
        hardware=rule.hardware,
        units=float(rule.units),
        accepts=frozenset(item.accepts),
        context=item.context,
        assumed=tuple(assumed),
    )


def workload_facts(workspace: Workspace, item: doc.WorkloadDoc, context: Context) -> WorkloadFacts:
    """A workload with its demand: from a trace, else by its curve."""
    rule, traffic, aims = item.placement, item.traffic, item.objectives
    assumed = [] if traffic else ["100 calls a day of 800 + 200 tokens"]
    peak = traffic.peak if traffic else 3.0
    load = context.loads.get(item.name) if rule.curve == "seen" and not rule.trace else None
    if rule.trace:
        shape = _curve_from_trace(workspace, item, context)
    elif load is not None:
        shape = load.curve
    else:
        shape = curve.weekly_curve("business-hours" if rule.curve == "seen" else rule.curve, peak)
        assumed += ["business hours, until seven days of calls were seen"] if rule.curve == "seen" else []
    calls = load.calls_month if load is not None and not traffic else CALLS_MONTH
    data = rule.data
    return WorkloadFacts(
        name=item.name,
        stage=item.stage,
        sensitivity=item.sensitivity,
        residency=item.residency,
        calls_month=float(traffic.calls.per_month) if traffic else calls,
        prompt=float(traffic.prompt_tokens if traffic else 800),
        output=float(traffic.completion_tokens if traffic else 200),
        curve=shape,
        peak=max(shape) if rule.trace or load is not None else peak,
        growth=traffic.growth_per_month if traffic else 0.0,
        users=dict(rule.users),
        first_token=_milliseconds(aims.first_token),
        per_token=_milliseconds(rule.per_token),
        complete=_milliseconds(aims.complete),
        availability=aims.availability,
        quality=dict(aims.quality),
        certifications=frozenset(rule.certifications),
        needs=frozenset(rule.needs),
        models=rule.models,
        upload_gb=rule.upload / GB,
        data_site=data.site if data else None,
        data_gb=data.per_call / GB if data else 0.0,
        stored_gb=data.stored / GB if data else 0.0,
        offline=rule.offline,
        fallback=rule.fallback,
        burst=rule.burst == "allowed",
        spot=rule.spot == "allowed",
        requires_availability=rule.availability == "required",
        current_site=rule.today or context.current.get(item.name),
        move_hours=rule.move,
        declared=item.deployments,
        declared_fallbacks=item.fallbacks,
        is_planned=rule.order == "planned" or not item.deployments,
        requires_budget=rule.budget == "required",
        ramp=rule.ramp.steps if rule.ramp else (),
        current_deployment=context.serving.get(item.name),
        purposes=item.needs.purposes,
        budget_usd=_monthly_budget(workspace, item.name),
        assumed=tuple(assumed),
    )


def _milliseconds(value: int | None) -> float | None:
    return None if value is None else float(value)


def _monthly_budget(workspace: Workspace, workload: str) -> float | None:
    """USD a month of the lowest of the workload's own hard budgets; None without one."""
    months = {"day": 30.0, "week": 30 / 7, "month": 1.0, "quarter": 1 / 3, "year": 1 / 12}
    found = [
        each.limit.amount / PICO * months[each.limit.period]
        for each in workspace.budgets.values()
        if each.covers == f"workload/{workload}" and each.hard and each.limit.period in months
    ]
    return min(found) if found else None


def _curve_from_trace(workspace: Workspace, item: doc.WorkloadDoc, context: Context) -> tuple[float, ...]:
    name = item.placement.trace or ""
    where = workspace.where("workload", item.name, "placement", "trace")
    try:
        text = context.texts(name) if context.texts else None
    except (OSError, UnicodeDecodeError):
        text = None
    if text is None:
        raise Invalid(
            f"the trace {name} cannot be read",
            code="placement_trace",
            hint="It is a CSV file in the workspace with a column calls.",
            where=where,
        )
    return curve.curve_from_trace(text, name)
