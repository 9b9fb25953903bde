"""Random companies as facts, from a seed: with features that the arrays of `random_company` do not cover.

Own units that workloads share hour by hour and that rented ones can extend, commitments and units rented by the hour,
spot, moves in steps, purposes, required availability, budgets, quotas, moves, spread. Up to 60 workloads at 15 sites,
mostly fewer. Numbers are drawn so that most rules bind somewhere; some companies cannot be placed. Nothing is planned
or verified here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from groundplan.placement.terms.curve import WEEK, weekly_curve
from groundplan.placement.terms.facts import (
    Company,
    DeploymentFacts,
    HardwareFacts,
    ModelFacts,
    PolicyFacts,
    SiteFacts,
    WorkloadFacts,
)

_MTOK = 10**12
_PURPOSES = ("support", "research", "hiring")
_CURVES = ("steady", "business-hours", "spiky", "campaign", "burst")
_TYPES = (("h100-sxm", 80.0, 700.0), ("l40s", 48.0, 350.0))
_SMALL = ModelFacts("llama-3.1-8b", 8.03, 8.03, 32, 131072.0, "fp8", 8.03, (), (), None, {"accuracy": 0.8}, frozenset())
_LARGE = ModelFacts(
    "llama-3.1-70b", 70.6, 70.6, 80, 327680.0, "fp8", 70.6, (), (), None, {"accuracy": 0.9}, frozenset(), "community"
)


@dataclass(frozen=True, slots=True)
class _Random:
    """A stream of random draws."""

    generator: np.random.Generator

    def chance(self, share: float) -> bool:
        return bool(self.generator.random() < share)

    def number(self, low: int, high: int) -> int:
        """A random integer, both ends included."""
        return int(self.generator.integers(low, high + 1))

    def between(self, low: float, high: float) -> float:
        """A random number whose logarithm is uniform."""
        return round(float(np.exp(self.generator.uniform(np.log(low), np.log(high)))), 4)

    def choice(self, *names: str) -> str:
        return names[self.number(0, len(names) - 1)]

    def subset(self, names: tuple[str, ...], share: float) -> tuple[str, ...]:
        return tuple(name for name in names if self.chance(share))


def random_facts(seed: int, workloads: int = 60, sites: int = 15) -> Company:
    """A random company of at most this size."""
    rng = _Random(np.random.Generator(np.random.PCG64([seed, 2])))
    count = min(sites, 2 + int((sites - 1) * rng.generator.random() ** 2))
    places = {item.name: item for item in (_site(rng, index) for index in range(count))}
    served = {item.name: item for site in places.values() for item in _deployments(rng, site)}
    workload_count = min(workloads, 2 + int((workloads - 1) * rng.generator.random() ** 2))
    workload_facts = (_workload(rng, index, places, served) for index in range(workload_count))
    policy = PolicyFacts(
        spread=rng.number(workload_count // 2 + 1, workload_count) if rng.chance(0.2) else None,
        max_moves=rng.number(0, workload_count) if rng.chance(0.3) else None,
        commit_months=36.5 if rng.chance(0.5) else 12.2,
        carbon_usd_tonne=100.0 if rng.chance(0.3) else 0.0,
        licences=frozenset({"community"}) if rng.chance(0.05) else frozenset(),
    )
    purposes = frozenset(rng.subset(_PURPOSES, 0.7)) if rng.chance(0.2) else frozenset[str]()
    models = {_SMALL.name: _SMALL, _LARGE.name: replace(_LARGE, purposes=purposes)}
    return Company(places, models, served, {item.name: item for item in workload_facts}, policy)


def _site(rng: _Random, index: int) -> SiteFacts:
    """A random site. The first two are a cloud and a rack in the EU, so that most companies have a place."""
    type_ = ("cloud", "private")[index] if index < 2 else rng.choice("cloud", "cloud", "private", "edge")
    name = f"{type_}-{index}"
    kinds = [kind for kind in _TYPES if rng.chance(0.6)]
    hardware = tuple(_hardware(rng, type_, *kind) for kind in (kinds if index != 1 else _TYPES[:1]))
    return SiteFacts(
        name=name, type=type_, jurisdiction="EU" if index < 2 else rng.choice("EU", "EU", "US", "CH"),
        holds="confidential" if type_ == "cloud" else "restricted", region=None, area="eu-north",
        domain=f"domain-{rng.number(0, 4)}" if rng.chance(0.3) else name,
        certifications=frozenset(rng.subset(("c5", "iso27001"), 0.8)), hardware=hardware if type_ != "edge" else (),
        energy_usd_kwh=rng.between(0.05, 0.3), pue=1.3, carbon_g_kwh=rng.between(20, 500),
        egress_usd_gb=0.09 if type_ == "cloud" else 0.0, storage_usd_gb=0.02,
        availability=rng.between(0.99, 0.9999), bandwidth_kbit=None, offline_hours=0.0, latency_ms={},
        burden_hours=rng.between(1, 40), model_hours=rng.between(0.5, 8), rack_usd=float(rng.number(0, 500)),
        setup_usd=0.0,
        purposes=frozenset(rng.subset(_PURPOSES, 0.7)) if index >= 2 and rng.chance(0.25) else frozenset(),
    )  # fmt: skip


def _hardware(rng: _Random, site: str, type_: str, memory: float, watts: float) -> HardwareFacts:
    """Own units, mostly in private rooms, some of which can be extended; rented ones in clouds, often with terms."""
    own = rng.number(1, 4) if rng.chance(0.9 if site == "private" else 0.2) else 0
    price = rng.between(1, 5)
    rents = rng.chance(0.5 if site == "private" else 0.9)
    terms = ((12.0, round(0.6 * price, 4)), (36.0, round(0.4 * price, 4))) if rents and rng.chance(0.6) else ()
    return HardwareFacts(
        type=type_, count=own, memory_gb=memory, watts=watts, owned_month=rng.between(200, 1500) if own else None,
        on_demand=price if rents else None, spot=round(0.3 * price, 4) if rents and rng.chance(0.3) else None,
        interruption=0.05, reserved=min((each for _, each in terms), default=None), max_units=rng.number(1, 24),
        terms=terms,
    )  # fmt: skip


def _deployments(rng: _Random, site: SiteFacts) -> list[DeploymentFacts]:
    """The deployments of a site: hosted ones in clouds; on own units elsewhere."""
    usd = round(rng.between(0.1, 5) * _MTOK)
    deployment = DeploymentFacts(
        f"at-{site.name}", site.name, _SMALL.name, usd, 2 * usd, 0, rng.between(200, 900), rng.between(8, 40),
        site.availability, site.certifications, round(rng.between(1e6, 1e8)) if rng.chance(0.4) else None, None,
        rng.chance(0.1), None, 0.0, frozenset(),
    )  # fmt: skip
    if site.type == "cloud":
        return [deployment]
    own_hardware = next((hardware for hardware in site.hardware if hardware.count), None)
    if own_hardware is None or rng.chance(0.3):
        return []
    return [
        DeploymentFacts(
            deployment.name, site.name, _SMALL.name, 0, 0, 0, deployment.first_token_ms, deployment.per_token_ms,
            site.availability, site.certifications, None, 32, False, own_hardware.type, 1.0, frozenset(),
        )
    ]  # fmt: skip


def _workload(
    rng: _Random, index: int, sites: dict[str, SiteFacts], served: dict[str, DeploymentFacts]
) -> WorkloadFacts:
    shape = weekly_curve(rng.choice(*_CURVES), rng.between(1.5, 12))
    offset = rng.number(0, WEEK - 1)
    curve = tuple(shape[(hour - offset) % WEEK] for hour in range(WEEK))
    current = rng.choice(*sorted(served)) if served and rng.chance(0.6) else None
    current_site = (
        served[current].site if current is not None else rng.choice(*sorted(sites)) if rng.chance(0.3) else None
    )
    requires_availability = rng.chance(0.1)
    is_restricted = rng.chance(0.06)
    return WorkloadFacts(
        name=f"workload-{index}", stage=rng.choice("production", "pilot"),
        sensitivity="restricted" if is_restricted else rng.choice("public", "internal", "confidential"),
        residency=("EU",) if rng.chance(0.4) else (),
        calls_month=rng.between(1e3, 1e6 if is_restricted else 4e7), prompt=800.0, output=200.0,
        curve=curve, peak=max(curve), growth=0.0, users={}, first_token=2500.0 if rng.chance(0.2) else None,
        per_token=None, complete=None, availability=rng.between(0.98, 0.9999) if requires_availability else None,
        quality={"accuracy": 0.85} if rng.chance(0.05) else {},
        certifications=frozenset({"c5"}) if rng.chance(0.03) else frozenset(), needs=frozenset(),
        models=(rng.choice(_SMALL.name, _LARGE.name),) if rng.chance(0.3) else (), upload_gb=0.0, data_site=None,
        data_gb=0.0, stored_gb=0.0, offline=False,
        fallback="required" if rng.chance(0.05) else rng.choice("none", "wanted"),
        burst=rng.chance(0.5), current_site=current_site, move_hours=16.0, declared=(), declared_fallbacks=(),
        is_planned=True,
        budget_usd=rng.between(50, 50_000) if rng.chance(0.3) else None, spot=rng.chance(0.3),
        requires_availability=requires_availability, requires_budget=rng.chance(0.3),
        ramp=(0.1, 0.5) if rng.chance(0.4) else (), current_deployment=current,
        purposes=rng.subset(_PURPOSES, 0.4),
    )  # fmt: skip
