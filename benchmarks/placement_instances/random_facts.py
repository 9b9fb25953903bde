"""Random companies as facts, from a seed: with features that the arrays of `random_company` do not cover.

Own units that workloads share hour by hour and that can be extended by rented ones, commitments beside units rented by
the hour, spot, moves in steps, purposes, required availability, budgets, quotas, moves, spread. Up to 60 workloads at
15 sites, mostly fewer. Numbers are drawn so that most rules bind somewhere; some companies cannot be placed. Nothing is
planned or verified here.
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
class _Dice:
    """One stream of draws."""

    draw: np.random.Generator

    def chance(self, share: float) -> bool:
        return bool(self.draw.random() < share)

    def number(self, low: int, high: int) -> int:
        """Both ends included."""
        return int(self.draw.integers(low, high + 1))

    def between(self, low: float, high: float) -> float:
        """Evenly by its logarithm."""
        return round(float(np.exp(self.draw.uniform(np.log(low), np.log(high)))), 4)

    def one(self, *of: str) -> str:
        return of[self.number(0, len(of) - 1)]

    def some(self, of: tuple[str, ...], share: float) -> tuple[str, ...]:
        return tuple(each for each in of if self.chance(share))


def random_facts(seed: int, workloads: int = 60, sites: int = 15) -> Company:
    """One company of at most this size."""
    dice = _Dice(np.random.Generator(np.random.PCG64([seed, 2])))
    count = min(sites, 2 + int((sites - 1) * dice.draw.random() ** 2))
    places = {each.name: each for each in (_site(dice, at) for at in range(count))}
    served = {each.name: each for site in places.values() for each in _deployments(dice, site)}
    asked = min(workloads, 2 + int((workloads - 1) * dice.draw.random() ** 2))
    found = (_workload(dice, at, places, served) for at in range(asked))
    policy = PolicyFacts(
        spread=dice.number(asked // 2 + 1, asked) if dice.chance(0.2) else None,
        max_moves=dice.number(0, asked) if dice.chance(0.3) else None,
        commit_months=36.5 if dice.chance(0.5) else 12.2,
        carbon_usd_tonne=100.0 if dice.chance(0.3) else 0.0,
        licences=frozenset({"community"}) if dice.chance(0.05) else frozenset(),
    )
    limited = frozenset(dice.some(_PURPOSES, 0.7)) if dice.chance(0.2) else frozenset[str]()
    models = {_SMALL.name: _SMALL, _LARGE.name: replace(_LARGE, purposes=limited)}
    return Company(places, models, served, {each.name: each for each in found}, policy)


def _site(dice: _Dice, at: int) -> SiteFacts:
    """The first two are a cloud and a rack in the EU, so that most companies have a place."""
    type_ = ("cloud", "private")[at] if at < 2 else dice.one("cloud", "cloud", "private", "edge")
    name = f"{type_}-{at}"
    kinds = [kind for kind in _TYPES if dice.chance(0.6)]
    hardware = tuple(_hardware(dice, type_, *kind) for kind in (kinds if at != 1 else _TYPES[:1]))
    return SiteFacts(
        name=name, type=type_, jurisdiction="EU" if at < 2 else dice.one("EU", "EU", "US", "CH"),
        holds="confidential" if type_ == "cloud" else "restricted", region=None, area="eu-north",
        domain=f"domain-{dice.number(0, 4)}" if dice.chance(0.3) else name,
        certifications=frozenset(dice.some(("c5", "iso27001"), 0.8)), hardware=hardware if type_ != "edge" else (),
        energy_usd_kwh=dice.between(0.05, 0.3), pue=1.3, carbon_g_kwh=dice.between(20, 500),
        egress_usd_gb=0.09 if type_ == "cloud" else 0.0, storage_usd_gb=0.02,
        availability=dice.between(0.99, 0.9999), bandwidth_kbit=None, offline_hours=0.0, latency_ms={},
        burden_hours=dice.between(1, 40), model_hours=dice.between(0.5, 8), rack_usd=float(dice.number(0, 500)),
        setup_usd=0.0,
        purposes=frozenset(dice.some(_PURPOSES, 0.7)) if at >= 2 and dice.chance(0.25) else frozenset(),
    )  # fmt: skip


def _hardware(dice: _Dice, site: str, type_: str, memory: float, watts: float) -> HardwareFacts:
    """Own units, mostly in private rooms, of which some can be extended; rented ones in clouds, often by terms too."""
    own = dice.number(1, 4) if dice.chance(0.9 if site == "private" else 0.2) else 0
    price = dice.between(1, 5)
    rents = dice.chance(0.5 if site == "private" else 0.9)
    terms = ((12.0, round(0.6 * price, 4)), (36.0, round(0.4 * price, 4))) if rents and dice.chance(0.6) else ()
    return HardwareFacts(
        type=type_, count=own, memory_gb=memory, watts=watts, owned_month=dice.between(200, 1500) if own else None,
        on_demand=price if rents else None, spot=round(0.3 * price, 4) if rents and dice.chance(0.3) else None,
        interruption=0.05, reserved=min((each for _, each in terms), default=None), max_units=dice.number(1, 24),
        terms=terms,
    )  # fmt: skip


def _deployments(dice: _Dice, site: SiteFacts) -> list[DeploymentFacts]:
    """Hosted ones in clouds; on own units elsewhere."""
    usd = round(dice.between(0.1, 5) * _MTOK)
    plain = DeploymentFacts(
        f"at-{site.name}", site.name, _SMALL.name, usd, 2 * usd, 0, dice.between(200, 900), dice.between(8, 40),
        site.availability, site.certifications, round(dice.between(1e6, 1e8)) if dice.chance(0.4) else None, None,
        dice.chance(0.1), None, 0.0, frozenset(),
    )  # fmt: skip
    if site.type == "cloud":
        return [plain]
    own = next((each for each in site.hardware if each.count), None)
    if own is None or dice.chance(0.3):
        return []
    return [
        DeploymentFacts(
            plain.name, site.name, _SMALL.name, 0, 0, 0, plain.first_token_ms, plain.per_token_ms, site.availability,
            site.certifications, None, 32, False, own.type, 1.0, frozenset(),
        )
    ]  # fmt: skip


def _workload(dice: _Dice, at: int, sites: dict[str, SiteFacts], served: dict[str, DeploymentFacts]) -> WorkloadFacts:
    shape = weekly_curve(dice.one(*_CURVES), dice.between(1.5, 12))
    later = dice.number(0, WEEK - 1)
    curve = tuple(shape[(hour - later) % WEEK] for hour in range(WEEK))
    before = dice.one(*sorted(served)) if served and dice.chance(0.6) else None
    today = served[before].site if before is not None else dice.one(*sorted(sites)) if dice.chance(0.3) else None
    promised = dice.chance(0.1)
    secret = dice.chance(0.06)
    return WorkloadFacts(
        name=f"workload-{at}", stage=dice.one("production", "pilot"),
        sensitivity="restricted" if secret else dice.one("public", "internal", "confidential"),
        residency=("EU",) if dice.chance(0.4) else (),
        calls_month=dice.between(1e3, 1e6 if secret else 4e7), prompt=800.0, output=200.0,
        curve=curve, peak=max(curve), growth=0.0, users={}, first_token=2500.0 if dice.chance(0.2) else None,
        per_token=None, complete=None, availability=dice.between(0.98, 0.9999) if promised else None,
        quality={"accuracy": 0.85} if dice.chance(0.05) else {},
        certifications=frozenset({"c5"}) if dice.chance(0.03) else frozenset(), needs=frozenset(),
        models=(dice.one(_SMALL.name, _LARGE.name),) if dice.chance(0.3) else (), upload_gb=0.0, data_site=None,
        data_gb=0.0, stored_gb=0.0, offline=False,
        fallback="required" if dice.chance(0.05) else dice.one("none", "wanted"),
        burst=dice.chance(0.5), current_site=today, move_hours=16.0, declared=(), declared_fallbacks=(),
        is_planned=True,
        budget_usd=dice.between(50, 50_000) if dice.chance(0.3) else None, spot=dice.chance(0.3),
        requires_availability=promised, requires_budget=dice.chance(0.3),
        ramp=(0.1, 0.5) if dice.chance(0.4) else (), current_deployment=before,
        purposes=dice.some(_PURPOSES, 0.4),
    )  # fmt: skip
