"""The candidates of workloads: declared deployments, and models that could be built on hardware; each with its times,
hardware, cost by term and every hard rule that forbids it.

Nothing is pruned: forbidden candidates are included with their rules. Pure; `solve` chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from groundplan.placement.terms import network, rules
from groundplan.placement.terms.availability import is_sufficient
from groundplan.placement.terms.capacity import SizedHardware, size_hardware
from groundplan.placement.terms.facts import (
    Company,
    DeploymentFacts,
    HardwareFacts,
    ModelFacts,
    SiteFacts,
    Times,
    WorkloadFacts,
)
from groundplan.placement.terms.network import ServedModel
from groundplan.placement.terms.rentals import SPOT, Lease, leases, size_lease

TOKENS_WH = 0.0004
"""Watt-hours of one token of a hosted model, where nothing better is known: 0.4 Wh for a thousand"""
MAX_USD = 2_000_000.0
"""Most USD a month of one workload at one place: beyond it, picodollars do not fit into 64 bits"""
PICO_TOKEN = 1e-18
"""USD for a token of a rate in picodollars for a million tokens"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run one workload. `terms` are USD a month at its whole load."""

    workload: str
    site: str
    config: str
    kind: str
    """deployment | build"""
    model: str
    times: Times
    availability: float
    terms: Mapping[str, float]
    hardware: str | None = None
    units: float = 0.0
    """units of hardware at the peak, with headroom"""
    quota: float = 0.0
    """tokens a minute at the peak, if the provider limits them"""
    carbon_kg: float = 0.0
    people_hours: float = 0.0
    """of people a month"""
    rules: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    unit_month: float = 0.0
    """USD a month and unit of its hardware"""
    lease: str = ""
    """how its units are rented if not for whole months: by the hour, spot"""
    units_by_block: Mapping[str, float] = field(default_factory=dict)
    """of a lease: part of the week -> units; '' is the whole week"""
    group: int = 1
    """units of one replica"""
    min_units: float = 0.0
    """units that it needs at any load, for its memory"""

    @property
    def is_allowed(self) -> bool:
        return not self.rules

    @property
    def usd(self) -> float:
        """USD a month, all terms."""
        return sum(self.terms.values())


@dataclass(frozen=True, slots=True)
class CandidateSet:
    """All candidates by workload, in the order of names."""

    company: Company
    by_workload: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)


def build_candidates(company: Company) -> CandidateSet:
    """All candidates of all workloads."""
    found = {name: tuple(workload_candidates(company, w)) for name, w in sorted(company.workloads.items())}
    found = {name: _check_availability(company, company.workloads[name], each) for name, each in found.items()}
    return CandidateSet(company, {name: tuple(_limit_cost(each) for each in these) for name, these in found.items()})


def _limit_cost(candidate: Candidate) -> Candidate:
    """Forbid a candidate that costs more than `MAX_USD`; one that is forbidden already keeps its rules."""
    if not candidate.is_allowed or candidate.usd <= MAX_USD:
        return candidate
    return replace(candidate, rules=(f"more than ${MAX_USD:,.0f} a month, the most that is counted",))


def can_be_fallback(w: WorkloadFacts, candidate: Candidate) -> bool:
    """Whether a candidate may be the fallback: one of the declared fallbacks if there are any, else any declared
    deployment. Never leased units: a fallback must be available when the primary is not."""
    if candidate.lease:
        return False
    if candidate.kind != "deployment":
        return not w.declared and not w.declared_fallbacks
    return not w.declared_fallbacks or candidate.config in w.declared_fallbacks or candidate.config in w.declared


def _check_availability(company: Company, w: WorkloadFacts, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """Forbid candidates that do not reach a required availability, alone or with any fallback."""
    if not w.requires_availability or w.availability is None:
        return candidates
    fallbacks = [c for c in candidates if c.is_allowed and can_be_fallback(w, c)] if w.fallback != "none" else []
    checked: list[Candidate] = []
    for each in candidates:
        domain = company.sites[each.site].domain
        others = [c.availability for c in fallbacks if company.sites[c.site].domain != domain]
        if not is_sufficient(w.availability, each.availability, *([max(others)] if others else [])):
            rule = f"there {100 * each.availability:.8g}% of the time, {100 * w.availability:.8g}% are required"
            rule += " and no fallback makes up for it"
            checked.append(replace(each, rules=(*each.rules, rule)))
        else:
            checked.append(each)
    return tuple(checked)


@dataclass(frozen=True, slots=True)
class _SiteContext:
    """What holds for a workload at a site, whichever deployment or model serves it there."""

    travel: network.Travel
    terms: Mapping[str, float]
    rules: tuple[str, ...]


def _site_context(company: Company, w: WorkloadFacts, site: SiteFacts) -> _SiteContext:
    return _SiteContext(
        network.travel_times(company, w, site),
        network.network_costs(company, w, site),
        tuple(rules.site_rules(company, w, site)),
    )


def workload_candidates(company: Company, workload: WorkloadFacts) -> Iterator[Candidate]:
    """Candidates of a workload: declared deployments, then models to build; sites and models sorted by name."""
    contexts: dict[str, _SiteContext] = {}  # of hundreds of deployments many are at the same site
    for _, deployment in sorted(company.deployments.items()):
        context = contexts.get(deployment.site)
        if context is None:
            context = contexts[deployment.site] = _site_context(company, workload, company.sites[deployment.site])
        yield deployment_candidate(company, workload, deployment, context)
    for _, site in sorted(company.sites.items()):
        for hardware in site.hardware:
            for _, model in sorted(company.models.items()):
                if _is_buildable(company, workload, model):
                    yield from _build_candidates(company, workload, site, hardware, model)


def _is_buildable(company: Company, workload: WorkloadFacts, model: ModelFacts) -> bool:
    """Whether to consider building a model: it is named for the workload; or, if none is named, its size is known and
    the workload asks for text."""
    del company
    if workload.models:
        return model.name in workload.models
    return model.memory_gb is not None and model.per_call_ms is None and workload.output > 0


def deployment_candidate(
    company: Company, w: WorkloadFacts, d: DeploymentFacts, context: _SiteContext | None = None
) -> Candidate:
    """The candidate of a declared deployment. `context`: the workload at the deployment's site, if known already."""
    site, model = company.sites[d.site], company.models.get(d.model)
    context = context or _site_context(company, w, site)
    travel = context.travel
    first = travel.round_trip + travel.moved + d.first_token_ms
    times = Times(first, d.per_token_ms, first + w.output * d.per_token_ms, 1.6, "declared or seen")
    tokens = w.calls_month * ((w.prompt * d.input + w.output * d.output) * PICO_TOKEN + d.request * 1e-12)
    kwh = w.calls_month * (w.prompt * 0.1 + w.output) * TOKENS_WH / 1000
    is_own = d.hardware is not None
    sized = _own_units(company, w, d, site) if is_own else None
    terms = {**context.terms, **_people_cost(company, site, d.sharing)}
    terms["tokens"] = 0.0 if is_own else tokens
    kg = kwh * site.carbon_g_kwh / 1000
    if sized is not None:
        terms |= {"compute": sized.busy_usd, "idle": sized.idle_usd}
        kg = sized.kwh * site.carbon_g_kwh / 1000
    terms["carbon"] = kg / 1000 * company.policy.carbon_usd_tonne
    terms["penalty"] = company.policy.latency_usd * first / 1000 * w.calls_month / 1000
    quota = w.peak_second * 60 * (w.prompt + w.output) if d.quota_tokens_minute is not None else 0.0
    broken_rules = (
        *context.rules, *rules.model_rules(company, w, model), *rules.deployment_rules(w, d, model),
        *rules.latency_rules(w, times), *rules.budget_rules(w, terms["tokens"]),
    )  # fmt: skip
    terms["move"] = _move_cost(company, w, site, "deployment")
    return Candidate(
        w.name, site.name, d.name, "deployment", d.model, times, d.availability, terms,
        hardware=d.hardware, units=sized.units if sized else 0.0, quota=quota, carbon_kg=kg, rules=broken_rules,
        people_hours=site.model_hours, assumed=d.assumed, unit_month=sized.unit_month if sized else 0.0,
        min_units=sized.min_units if sized else 0.0,
    )  # fmt: skip


def _own_units(company: Company, w: WorkloadFacts, d: DeploymentFacts, site: SiteFacts) -> SizedHardware | None:
    """The units that the workload uses of a deployment on own hardware, by its calls at the peak."""
    hardware = next((each for each in site.hardware if each.type == d.hardware), None)
    if hardware is None:
        return None
    seconds = (d.first_token_ms + w.output * d.per_token_ms) / 1000
    at_once = (d.concurrent or 8) / max(d.units, 1.0)
    return size_hardware(site, hardware, w, per_unit=at_once / seconds, headroom=company.policy.headroom)


def _build_candidate(
    company: Company, w: WorkloadFacts, site: SiteFacts, hardware: HardwareFacts, model: ModelFacts
) -> Candidate | None:
    """The candidate of a model on hardware of a site; None where the model does not run on such hardware."""
    if model.hardware and hardware.type not in model.hardware:
        return None
    served = network.serving_performance(w, hardware, model, company.speeds.get((model.name, hardware.type)))
    if served is None:
        return None
    travel = network.travel_times(company, w, site)
    sized = size_hardware(
        site, hardware, w, per_unit=served.per_unit, headroom=company.policy.headroom, group=served.units,
        service=served.call_seconds, min_units=max(0.05, (model.memory_gb or 0.0) / hardware.memory_gb),
    )  # fmt: skip
    first = travel.round_trip + travel.moved + served.first_token + sized.wait_ms
    times = Times(first, served.per_token, first + w.output * served.per_token, served.spread, served.basis)
    kg = sized.kwh * site.carbon_g_kwh / 1000
    known = served.basis in ("measured", "own traffic")
    terms = network.network_costs(company, w, site) | _people_cost(company, site)
    terms |= {
        "compute": sized.busy_usd, "idle": sized.idle_usd, "carbon": kg / 1000 * company.policy.carbon_usd_tonne,
        "penalty": company.policy.latency_usd * first / 1000 * w.calls_month / 1000,
    }  # fmt: skip
    candidate = Candidate(
        w.name, site.name, f"{model.name} on {sized.label} {hardware.type}", "build", model.name, times,
        site.availability, terms, hardware=hardware.type, units=sized.units, carbon_kg=kg,
        people_hours=site.model_hours, assumed=() if known else (f"speed {served.basis}",), unit_month=sized.unit_month,
        min_units=sized.min_units,
    )  # fmt: skip
    return _with_rules(company, w, candidate, site, model, rules.build_rules(company, w, site, model, sized, hardware))


def _build_candidates(
    company: Company, w: WorkloadFacts, site: SiteFacts, hardware: HardwareFacts, model: ModelFacts
) -> Iterator[Candidate]:
    """Candidates of a model on hardware of a site: for whole months, and by each lease that the provider offers."""
    found = _build_candidate(company, w, site, hardware, model)
    if found is None:
        return
    yield found
    served = network.serving_performance(w, hardware, model, company.speeds.get((model.name, hardware.type)))
    for lease in leases(hardware) if site.type == "cloud" and served is not None and not served.call_seconds else ():
        assert served is not None
        yield _lease_candidate(company, w, found, lease, served)


def _lease_candidate(
    company: Company, w: WorkloadFacts, plain: Candidate, lease: Lease, served: ServedModel
) -> Candidate:
    """The candidate with its hardware on a lease."""
    site, model = company.sites[plain.site], company.models[plain.model]
    hardware = next(each for each in site.hardware if each.type == plain.hardware)
    least = max(0.05, (model.memory_gb or 0.0) / hardware.memory_gb)
    found = size_lease(
        w, lease, per_unit=served.per_unit, headroom=company.policy.headroom, group=served.units, least=least
    )
    top = max(found.units.values())
    broken_rules = [rule for rule in plain.rules if not rule.endswith("can be had")]
    if top > hardware.max_units:
        broken_rules.append(f"{top:.3g} {hardware.type} needed at the peak, {hardware.max_units} can be had")
    if lease.name == SPOT and not w.spot:
        broken_rules.append("it may not run on what its provider may take away")
    terms = {**plain.terms, "compute": found.usd * found.busy_share, "idle": found.usd * (1 - found.busy_share)}
    return replace(
        plain,
        config=f"{model.name} {lease.name} on {top / served.units:.2g}x{served.units} {hardware.type}",
        availability=plain.availability * lease.availability,
        terms=terms, units=top, unit_month=0.0, rules=tuple(broken_rules), lease=lease.name, units_by_block=found.units,
        group=served.units,
    )  # fmt: skip


def _people_cost(company: Company, site: SiteFacts, sharing: int = 1) -> dict[str, float]:
    """The cost term of people for one served model, shared by the workloads that name it."""
    return {"people": site.model_hours * company.policy.people_usd / sharing}


def _with_rules(
    company: Company,
    w: WorkloadFacts,
    candidate: Candidate,
    site: SiteFacts,
    model: ModelFacts | None,
    build_rules: tuple[str, ...],
) -> Candidate:
    """The candidate with every rule that forbids it, and the cost of moving there."""
    broken_rules = (
        *rules.site_rules(company, w, site), *rules.model_rules(company, w, model), *build_rules,
        *rules.latency_rules(w, candidate.times), *rules.budget_rules(w, candidate.terms.get("tokens", 0.0)),
    )  # fmt: skip
    move = _move_cost(company, w, site, candidate.kind)
    return replace(candidate, rules=broken_rules, terms={**candidate.terms, "move": move})


def _move_cost(company: Company, w: WorkloadFacts, site: SiteFacts, kind: str) -> float:
    """USD a month of moving to a site, spread over the payback time."""
    if w.current_site is None or w.current_site == site.name:
        return 0.0
    hours = w.move_hours * (1.5 if kind == "build" else 1.0)
    return hours * company.policy.people_usd / company.policy.payback_months
