"""A small company for tests of placement, built without files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from groundplan.placement.terms.curve import weekly_curve
from groundplan.placement.terms.facts import (
    Company,
    DeploymentFacts,
    HardwareFacts,
    ModelFacts,
    PolicyFacts,
    SiteFacts,
    WorkloadFacts,
)

MTOK = 10**12


def site(name: str, type_: str = "cloud", **changes: Any) -> SiteFacts:
    plain = SiteFacts(
        name=name, type=type_, jurisdiction="EU", holds="confidential" if type_ == "cloud" else "restricted",
        region=None, area="eu-north", domain=name, certifications=frozenset(), hardware=(), energy_usd_kwh=0.1,
        pue=1.5, carbon_g_kwh=50.0, egress_usd_gb=0.09 if type_ == "cloud" else 0.0, storage_usd_gb=0.02,
        availability=0.999, bandwidth_kbit=None, offline_hours=0.0, latency_ms={}, burden_hours=1.0, model_hours=1.0,
        rack_usd=0.0, setup_usd=0.0,
    )  # fmt: skip
    return replace(plain, **changes)


def hardware(type_: str = "h100-sxm", count: int = 2, **changes: Any) -> HardwareFacts:
    plain = HardwareFacts(type_, count, 80.0, 700.0, 600.0 if count else None, None, None, 0.05, None, 8)
    return replace(plain, **changes)


def deployment(name: str, site_: str, usd: float = 1.0, **changes: Any) -> DeploymentFacts:
    price = round(usd * MTOK)
    plain = DeploymentFacts(
        name, site_, "m", price, price, 0, 300.0, 15.0, 0.999, frozenset(), None, None, False, None, 0.0, frozenset()
    )
    return replace(plain, **changes)


def workload(name: str, **changes: Any) -> WorkloadFacts:
    plain = WorkloadFacts(
        name=name, stage="production", sensitivity="internal", residency=("EU",), calls_month=100_000.0, prompt=1000.0,
        output=200.0, curve=weekly_curve("business-hours", 3.0), peak=3.0, growth=0.0, users={}, first_token=None,
        per_token=None, complete=None, availability=None, quality={}, certifications=frozenset(), needs=frozenset(),
        models=(), upload_gb=0.0, data_site=None, data_gb=0.0, stored_gb=0.0, offline=False, fallback="none",
        burst=True, current_site=None, move_hours=16.0, declared=(), declared_fallbacks=(), is_planned=True,
        budget_usd=None,
    )  # fmt: skip
    return replace(plain, **changes)


LLAMA = ModelFacts("llama-3.1-8b", 8.03, 8.03, 32, 131072.0, "fp8", 8.03, (), (), None, {"accuracy": 0.9}, frozenset())


def company(*workloads: WorkloadFacts, **changes: Any) -> Company:
    plain = Company(
        sites={
            "cloud": site("cloud"),
            "far": site("far", jurisdiction="US"),
            "rack": site("rack", "private", hardware=(hardware(),), model_hours=4.0),
        },
        models={LLAMA.name: LLAMA},
        deployments={"gpt": deployment("gpt", "cloud", 2.0), "cheap": deployment("cheap", "far", 0.1)},
        workloads={each.name: each for each in workloads},
        policy=PolicyFacts(),
    )
    return replace(plain, **changes)
