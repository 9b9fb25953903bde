"""Every way to run a workload: its declared deployments, and models that could be built on hardware; each with its
times, its needs of hardware, its cost by term and every hard rule that forbids it.

Nothing is pruned: what is forbidden comes along with its rules. Pure; choosing is `solve`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, inf

from groundplan.placement.terms import network, rules
from groundplan.placement.terms.capacity import Sized, size
from groundplan.placement.terms.facts import (
    Company,
    DeploymentFacts,
    HardwareFacts,
    ModelFacts,
    SiteFacts,
    Times,
    WorkloadFacts,
)

TOKENS_WH = 0.0004
"""Watt-hours of one token of a hosted model, where nothing better is known: 0.4 Wh for a thousand"""
TOKEN_BYTES = 4.0
PICO_TOKEN = 1e-18
"""USD for a token of a rate in picodollars for a million tokens"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run one workload. Terms are USD a month at its whole load."""

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
    """of hardware at the peak, with headroom"""
    quota: float = 0.0
    """tokens a minute at the peak, where its provider limits them"""
    carbon_kg: float = 0.0
    hours: float = 0.0
    """of people a month"""
    rules: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    unit_month: float = 0.0
    """USD a month and unit of its hardware"""

    @property
    def allowed(self) -> bool:
        return not self.rules

    @property
    def usd(self) -> float:
        """A month, all terms."""
        return sum(self.terms.values())


@dataclass(frozen=True, slots=True)
class Offered:
    """All candidates by workload, in the order of names."""

    company: Company
    by_workload: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)


def offered(company: Company) -> Offered:
    """Every candidate of every workload."""
    return Offered(company, {name: tuple(of_workload(company, w)) for name, w in sorted(company.workloads.items())})


def of_workload(company: Company, workload: WorkloadFacts) -> Iterator[Candidate]:
    """Declared deployments first, then what could be built; sites and models in the order of names."""
    for _, deployment in sorted(company.deployments.items()):
        yield hosted(company, workload, deployment)
    for _, site in sorted(company.sites.items()):
        for hardware in site.hardware:
            for _, model in sorted(company.models.items()):
                if _worth_building(company, workload, model):
                    found = _built(company, workload, site, hardware, model)
                    if found is not None:
                        yield found


def _worth_building(company: Company, workload: WorkloadFacts, model: ModelFacts) -> bool:
    """Named for the workload; else a model whose sizes are known and that writes text where text is asked for."""
    del company
    if workload.models:
        return model.name in workload.models
    return model.memory_gb is not None and model.per_call_ms is None and workload.output > 0


def hosted(company: Company, w: WorkloadFacts, d: DeploymentFacts) -> Candidate:
    """One declared deployment for one workload."""
    site, model = company.sites[d.site], company.models.get(d.model)
    travel = network.travel(company, w, site)
    first = travel.round_trip + travel.moved + d.first_token_ms
    times = Times(first, d.per_token_ms, first + w.output * d.per_token_ms, 1.6, "declared or seen")
    tokens = w.calls_month * ((w.prompt * d.input + w.output * d.output) * PICO_TOKEN + d.request * 1e-12)
    kwh = w.calls_month * (w.prompt * 0.1 + w.output) * TOKENS_WH / 1000
    own = d.hardware is not None
    sized = _own_units(company, w, d, site) if own else None
    terms = network.terms(company, w, site) | _people(company, site, d.sharing)
    terms["tokens"] = 0.0 if own else tokens
    kg = kwh * site.carbon_g_kwh / 1000
    if sized is not None:
        terms |= {"compute": sized.busy_usd, "idle": sized.idle_usd}
        kg = sized.kwh * site.carbon_g_kwh / 1000
    terms["carbon"] = kg / 1000 * company.policy.carbon_usd_tonne
    terms["penalty"] = company.policy.latency_usd * first / 1000 * w.calls_month / 1000
    quota = w.peak_second * 60 * (w.prompt + w.output) if d.quota_tokens_minute is not None else 0.0
    candidate = Candidate(
        w.name, site.name, d.name, "deployment", d.model, times, d.availability, terms,
        hardware=d.hardware, units=sized.units if sized else 0.0, quota=quota, carbon_kg=kg,
        hours=site.model_hours, assumed=d.assumed, unit_month=sized.unit_month if sized else 0.0,
    )  # fmt: skip
    return _judged(company, w, candidate, site, model, rules.of_deployment(w, d, model))


def _own_units(company: Company, w: WorkloadFacts, d: DeploymentFacts, site: SiteFacts) -> Sized | None:
    """A deployment on its site's own units: its share of them by the calls at its peak."""
    hardware = next((each for each in site.hardware if each.type == d.hardware), None)
    if hardware is None:
        return None
    seconds = (d.first_token_ms + w.output * d.per_token_ms) / 1000
    at_once = (d.concurrent or 8) / max(d.units, 1.0)
    return size(site, hardware, w, per_unit=at_once / seconds, headroom=company.policy.headroom)


def _built(
    company: Company, w: WorkloadFacts, site: SiteFacts, hardware: HardwareFacts, model: ModelFacts
) -> Candidate | None:
    """A model on hardware of a site; None where the model does not run on such hardware at all."""
    if model.hardware and hardware.type not in model.hardware:
        return None
    served = network.served(w, hardware, model)
    if served is None:
        return None
    travel = network.travel(company, w, site)
    sized = size(
        site, hardware, w, per_unit=served.per_unit, headroom=company.policy.headroom, group=served.units,
        service=served.call_seconds, least=max(0.05, (model.memory_gb or 0.0) / hardware.memory_gb),
    )  # fmt: skip
    first = travel.round_trip + travel.moved + served.first_token + sized.wait_ms
    times = Times(first, served.per_token, first + w.output * served.per_token, served.spread, served.basis)
    kg = sized.kwh * site.carbon_g_kwh / 1000
    terms = network.terms(company, w, site) | _people(company, site)
    terms |= {
        "compute": sized.busy_usd, "idle": sized.idle_usd, "carbon": kg / 1000 * company.policy.carbon_usd_tonne,
        "penalty": company.policy.latency_usd * first / 1000 * w.calls_month / 1000,
    }  # fmt: skip
    candidate = Candidate(
        w.name, site.name, f"{model.name} on {sized.shown} {hardware.type}", "build", model.name, times,
        site.availability, terms, hardware=hardware.type, units=sized.units, carbon_kg=kg, hours=site.model_hours,
        assumed=() if served.basis == "measured" else (f"speed {served.basis}",), unit_month=sized.unit_month,
    )  # fmt: skip
    return _judged(company, w, candidate, site, model, rules.of_build(w, site, model, sized, hardware))


def _people(company: Company, site: SiteFacts, sharing: int = 1) -> dict[str, float]:
    """Hours for one served model, shared by the workloads that name it."""
    return {"people": site.model_hours * company.policy.people_usd / sharing}


def _judged(
    company: Company,
    w: WorkloadFacts,
    candidate: Candidate,
    site: SiteFacts,
    model: ModelFacts | None,
    own: tuple[str, ...],
) -> Candidate:
    """With every rule that forbids it, and the price of moving there."""
    broken = (*rules.of_site(company, w, site), *rules.of_model(w, model), *own, *rules.of_times(w, candidate.times))
    move = 0.0
    if w.today is not None and w.today != site.name:
        hours = w.move_hours * (1.5 if candidate.kind == "build" else 1.0)
        move = hours * company.policy.people_usd / company.policy.payback_months
    values = {name: getattr(candidate, name) for name in candidate.__slots__}
    return Candidate(**{**values, "rules": broken, "terms": {**candidate.terms, "move": move}})


def whole_units(units: float) -> int:
    """Units that must be there for a load."""
    return 0 if units in (0.0, inf) else ceil(units)
