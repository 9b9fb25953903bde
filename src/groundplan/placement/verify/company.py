"""Verify the plan of a company against its facts: what each workload requires of its places.

`verify.plan` checks the arrays that the solver was given, and so would miss that they were filled wrongly. This module
reads only facts and decisions, uses neither the arrays nor the solver nor the rules that made the candidates, and
prices nothing: it adds up the prices of the candidates again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, prod

from groundplan.placement.model import EEA, EU
from groundplan.placement.terms.candidates import Candidate
from groundplan.placement.terms.facts import HOURS, SENSITIVITIES, Company, WorkloadFacts
from groundplan.placement.verify.plan import Violation

TOLERANCE = 1e-6
RENTAL_KINDS = ("on demand", "reserved")
UNIT_TOLERANCE = 0.002
"""tolerance in units: amounts were rounded to thousandths for the solver"""


@dataclass(frozen=True, slots=True)
class PlacedWorkload:
    """Where the plan places one workload."""

    primary: Candidate
    share: float = 1.0
    """share of the peak that the primary serves"""
    burst: Candidate | None = None
    fallback: Candidate | None = None
    usd: float = 0.0
    origin: Candidate | None = None
    """the place that it moves from in steps"""
    ramp: tuple[float, ...] = ()
    """share of the calls that have moved after each step"""


@dataclass(frozen=True, slots=True)
class SharedUnits:
    """Units that workloads share over the hours of a week."""

    site: str
    type: str
    units: float
    usd: float
    """a month, of all of them"""
    months: float = 0.0
    """the term of a commitment; 0: own units"""
    rows: tuple[str, ...] = ()
    """of a commitment: the rows that it adds to, `SITE WHAT`"""


@dataclass(frozen=True, slots=True)
class PlanClaim:
    """What a plan claims, to be verified."""

    placed: Mapping[str, PlacedWorkload]
    opened: frozenset[str]
    bought: Mapping[str, int]
    """rented units by `SITE WHAT`"""
    usd: float
    """a month, of everything"""
    may_stay: frozenset[str] = frozenset()
    """workloads that may stay where they run: only their moves count against the limit of moves"""
    shared_hardware: Mapping[str, SharedUnits] = field(default_factory=dict)
    hardware_usd: float = 0.0
    """a month, the workloads' shares of hardware"""


def find_violations(company: Company, claim: PlanClaim) -> tuple[Violation, ...]:
    """All violations of a plan; empty if it is valid."""
    found: list[Violation] = []
    for name, placed in sorted(claim.placed.items()):
        w = company.workloads[name]
        for role, each in (("primary", placed.primary), ("burst", placed.burst), ("fallback", placed.fallback)):
            if each is not None:
                found += [
                    Violation(kind, f"{name}, {role}: {what}") for kind, what in _place_violations(company, w, each)
                ]
        if all(each is None or each.site in company.sites for each in (placed.primary, placed.fallback)):
            found += [Violation(kind, f"{name}: {what}") for kind, what in _combination_violations(company, w, placed)]
        found += [Violation(kind, f"{name}: {what}") for kind, what in _ramp_violations(company, w, placed)]
    if not any(each.kind == "site" for each in found):
        found += [
            *_capacity_violations(company, claim),
            *_company_violations(company, claim),
            *_sharing_violations(company, claim),
        ]
    found += _cost_violations(claim)
    return tuple(found)


def _place_violations(company: Company, w: WorkloadFacts, c: Candidate) -> Iterator[tuple[str, str]]:
    """(kind, message) of each requirement of the workload that a place violates."""
    site = company.sites.get(c.site)
    if site is None:
        yield "site", f"{c.site} is not declared"
        return
    if w.residency and not _is_inside(site.jurisdiction, w.residency):
        yield "residency", f"{site.name} is in {site.jurisdiction}, outside {' and '.join(w.residency)}"
    if SENSITIVITIES.index(site.holds) < SENSITIVITIES.index(w.sensitivity):
        yield "sensitivity", f"{site.name} holds at most {site.holds} data"
    model = company.models.get(c.model)
    for name, allowed in ((site.name, site.purposes), (c.model, model.purposes if model else frozenset())):
        if allowed and (not w.purposes or set(w.purposes) - allowed):
            yield "purposes", f"{name} is for {', '.join(sorted(allowed))} only"
    if w.offline and site.type != "edge" and site.name != w.data_site:
        yield "offline", f"{site.name} cannot be reached without a connection"
    yield from _serving_violations(company, w, c)
    yield from _limit_violations(company, w, c)
    limits = ((w.first_token, c.times.first_token), (w.per_token, c.times.per_token), (w.complete, c.times.complete))
    for most, expected in limits:
        if most is not None and expected > most + TOLERANCE:
            yield "latency", f"{expected:.0f} ms of {most:.0f} at {c.config}"


def _is_inside(jurisdiction: str, residency: tuple[str, ...]) -> bool:
    """Whether a jurisdiction is within the residency: a country is inside itself and the unions that it belongs to."""
    unions = {name for name, members in (("EU", EU), ("EEA", EEA)) if jurisdiction in members}
    return bool({jurisdiction, *unions} & set(residency))


def _serving_violations(company: Company, w: WorkloadFacts, c: Candidate) -> Iterator[tuple[str, str]]:
    """Violations by what serves there: certificates, weights, quality, data terms, leases."""
    site, model = company.sites[c.site], company.models.get(c.model)
    deployment = company.deployments.get(c.config) if c.kind == "deployment" else None
    if c.kind == "deployment" and (deployment is None or deployment.site != c.site):
        yield "deployment", f"no deployment {c.config} is at {c.site}"
        return
    held = site.certifications | (deployment.certifications if deployment is not None else frozenset())
    if not w.certifications <= held:
        yield "certification", f"{c.config} lacks {', '.join(sorted(w.certifications - held))}"
    if deployment is not None and deployment.trains and w.sensitivity in SENSITIVITIES[2:]:
        yield "terms", f"the provider of {c.config} may train on what it is sent"
    if c.kind == "build" and model is not None and model.sites and site.name not in model.sites:
        yield "weights", f"{model.name} may not lie at {site.name}"
    if model is not None:
        for task, floor in w.quality.items():
            if task in model.quality and model.quality[task] < floor:
                yield "quality", f"{model.name} reaches {model.quality[task]:g} of {floor:g} at {task}"
    if c.lease == "spot" and not w.spot:
        yield "spot", f"{c.config} may be taken away"


def _limit_violations(company: Company, w: WorkloadFacts, c: Candidate) -> Iterator[tuple[str, str]]:
    """Violations of limits: licences, context length, the workload's own budgets."""
    deployment = company.deployments.get(c.config) if c.kind == "deployment" else None
    if c.kind == "build" and company.policy.licences:
        model = company.models.get(c.model)
        licence = model.licence if model is not None else None
        if licence not in company.policy.licences:
            yield "licence", f"{c.model} is under {licence}"
    if deployment is not None and deployment.context is not None and w.prompt + w.output > deployment.context + 1:
        yield "context", f"{w.prompt + w.output:,.0f} tokens at once, {c.config} takes {deployment.context:,}"
    if w.requires_budget and w.budget_usd is not None and c.terms.get("tokens", 0.0) > w.budget_usd + 0.01:
        yield "budget", f"{c.terms['tokens']:,.2f} of tokens at {c.config}, its budget is {w.budget_usd:,.2f}"


def _combination_violations(company: Company, w: WorkloadFacts, placed: PlacedWorkload) -> Iterator[tuple[str, str]]:
    """Violations by the parts of one workload together: fallback, availability, burst."""
    first, second = placed.primary, placed.fallback
    places = [first.availability]
    if second is not None:
        if second.lease:
            yield "fallback", f"{second.config} does not stand by all the time"
        if company.sites[second.site].domain == company.sites[first.site].domain:
            yield "domain", f"it falls back to the failure domain of {first.site}"
        else:
            places.append(second.availability)
    elif w.fallback == "required":
        yield "fallback", "a fallback is required"
    if w.requires_availability and w.availability is not None:
        available = 1 - prod(1 - each for each in places)
        if available < w.availability - TOLERANCE / 10:
            yield "availability", f"there {100 * available:.6g}% of the time, {100 * w.availability:.6g}% are required"
    if (placed.burst is None) != (placed.share >= 1):
        yield "burst", f"its primary bears {placed.share:g} of the peak"


def _ramp_violations(company: Company, w: WorkloadFacts, placed: PlacedWorkload) -> Iterator[tuple[str, str]]:
    """Violations of a move in steps: it must start from a place that may serve the workload, with rising shares."""
    if placed.origin is None and not placed.ramp:
        return
    if placed.origin is None:
        yield "ramp", "it goes over in steps from nowhere"
        return
    yield from (
        (kind, f"going over from {placed.origin.config}: {what}")
        for kind, what in _place_violations(company, w, placed.origin)
    )
    if placed.origin.kind != "deployment" or placed.origin.config == placed.primary.config:
        yield "ramp", f"it goes over in steps from {placed.origin.config} to {placed.primary.config}"
    rising = [0.0, *placed.ramp, 1.0]
    if any(later <= earlier for earlier, later in pairwise(rising)):
        yield "ramp", f"its steps {placed.ramp} do not rise to the end"


HardwareUse = tuple[WorkloadFacts, Candidate, float]


def _hardware_uses(company: Company, claim: PlanClaim) -> Iterator[HardwareUse]:
    """(workload, place, share of its peak) of everything that uses hardware, including moves in progress."""
    for name, placed in claim.placed.items():
        w = company.workloads[name]
        full = w.fallback == "required" or (w.requires_availability and w.availability is not None)
        left = 1 - placed.ramp[0] if placed.ramp else 0.0
        for c, share in (
            (placed.primary, placed.share), (placed.burst, 1.0), (placed.fallback, 1.0 if full else 0.0),
            (placed.origin, left),
        ):  # fmt: skip
            if c is not None and c.hardware is not None and share:
                yield w, c, share


def _capacity_violations(company: Company, claim: PlanClaim) -> Iterator[Violation]:
    """Violations of capacity: the units that all workloads use in each hour, against those owned or bought."""
    used: dict[tuple[str, str, str], list[float]] = {}
    for w, c, share in _hardware_uses(company, claim):
        for block, units in (c.units_by_block or {"": c.units}).items():
            kind = f"{c.lease}, {block}" if block else c.lease
            kind += f", {c.group} for {c.model}" if c.lease and c.group > 1 else ""
            hours = used.setdefault((c.site, c.hardware or "", kind), [0.0] * len(w.curve))
            follows = not c.lease and _owned_units(company, c.site, c.hardware or "") > 0
            for hour, calls in enumerate(w.curve):
                load = calls / max(w.curve) if follows else 1.0
                hours[hour] += max(min(units, c.min_units), units * min(load, share)) if follows else units * share
    for (site, type_, kind), every in sorted(used.items()):
        available, units = _available_units(company, claim, site, type_, kind), max(every)
        own = claim.shared_hardware.get(f"{site} {type_}") if not kind else None
        if units > available + UNIT_TOLERANCE * len(claim.placed):
            yield Violation("capacity", f"{units:.3f} {type_} {kind} at {site}, {available:g} are there or bought")
        rented = available - _owned_units(company, site, type_)
        if (
            own is not None
            and units > own.units + rented + UNIT_TOLERANCE * len(claim.placed)
            and not any(placed.origin is not None and placed.origin.site == site for placed in claim.placed.values())
        ):  # a move in steps needs units of its old place for some days only: these are not held by the month
            yield Violation("held", f"{units:.3f} {type_} are used at {site}, {own.units:g} are held")


def _owned_units(company: Company, site: str, type_: str) -> int:
    """Own units. On them, and on units rented beyond them, workloads that peak at different hours share."""
    return sum(h.count for h in company.sites[site].hardware if h.type == type_)


def _sharing_violations(company: Company, claim: PlanClaim) -> Iterator[Violation]:
    """Violations by shared units: they must be owned, or within the terms that may be signed, and paid for."""
    beyond = 0.0
    for name, each in sorted(claim.shared_hardware.items()):
        hardware = [h for s in company.sites.values() if s.name == each.site for h in s.hardware if h.type == each.type]
        if not hardware:
            yield Violation("held", f"{name} is not declared")
            continue
        first, site = hardware[0], company.sites[each.site]
        if each.months:
            prices = [price for months, price in first.terms if months == each.months]
            most, least = first.max_units, min(prices, default=0.0) * HOURS
            if not prices or each.months > company.policy.commit_months:
                yield Violation("commitment", f"{name}: a term of {each.months:.3g} months may not be signed for")
        else:
            waiting = 0.0 if site.type == "cloud" else first.watts / 1000 * HOURS * site.pue * 0.3 * site.energy_usd_kwh
            most, least = sum(h.count for h in hardware), (first.owned_month or 0.0) + waiting
            rented = _available_units(company, claim, each.site, each.type, "") - most
            beyond += (
                sum(claim.bought.get(f"{name} {how}", 0) for how in RENTAL_KINDS) * (first.rental_price or 0.0) * HOURS
            )
            if rented and each.units < most - UNIT_TOLERANCE:
                yield Violation(
                    "held", f"{name}: {rented:g} are rented, and of {most} own ones {each.units:g} are held"
                )
        if each.units > most + UNIT_TOLERANCE:
            yield Violation("held", f"{name}: {each.units:g} of {most}")
        if each.usd < each.units * least - 0.01:
            yield Violation("held", f"{name}: {each.units:g} units cost {each.units * least:,.2f}, not {each.usd:,.2f}")
    paid = beyond + sum(each.usd for each in claim.shared_hardware.values())
    if paid > claim.hardware_usd + 0.01 * max(1, len(claim.placed)):
        yield Violation("cost", f"{paid:,.2f} of shared hardware is held, the workloads bear {claim.hardware_usd:,.2f}")


def _available_units(company: Company, claim: PlanClaim, site: str, type_: str, kind: str) -> float:
    """Units owned, bought by the plan (`SITE TYPE on demand`, or the name of a lease) and committed to."""
    owned = 0 if kind else _owned_units(company, site, type_)
    names = [f"{site} {type_} {kind}"] if kind else [f"{site} {type_} {how}" for how in RENTAL_KINDS]
    size = int(kind.rpartition(" for ")[0].rpartition(" ")[2]) if " for " in kind else 1
    committed = sum(
        each.units
        for each in claim.shared_hardware.values()
        if each.months and (each.site, each.type) == (site, type_) and (names[0] in each.rows if kind else owned)
    )
    return owned + committed + size * sum(claim.bought.get(name, 0) for name in names)


def _company_violations(company: Company, claim: PlanClaim) -> Iterator[Violation]:
    """Quotas of providers, spread over failure domains, moves."""
    tokens: dict[str, float] = {}
    domains: dict[str, int] = {}
    moved = 0
    for name, placed in claim.placed.items():
        w = company.workloads[name]
        left = 1 - placed.ramp[0] if placed.ramp else 0.0
        for c, share in (
            (placed.primary, placed.share), (placed.burst, 1.0), (placed.fallback, 1.0), (placed.origin, left)
        ):  # fmt: skip
            if c is not None and c.kind == "deployment":
                tokens[c.config] = tokens.get(c.config, 0.0) + w.peak_second * 60 * (w.prompt + w.output) * share
        domain = company.sites[placed.primary.site].domain
        domains[domain] = domains.get(domain, 0) + (w.stage == "production")
        moved += name in claim.may_stay and w.current_site != placed.primary.site
    for config, count in sorted(tokens.items()):
        limit = company.deployments[config].quota_tokens_minute if config in company.deployments else None
        if limit is not None and count > ceil(limit) + len(claim.placed):
            yield Violation("quota", f"{count:,.0f} tokens a minute at {config} of {limit:,.0f}")
    if company.policy.spread is not None and max(domains.values(), default=0) > company.policy.spread:
        yield Violation("spread", f"{max(domains.values())} production workloads in one failure domain")
    if company.policy.max_moves is not None and moved > company.policy.max_moves:
        yield Violation("moves", f"{moved} workloads move")


def _cost_violations(claim: PlanClaim) -> Iterator[Violation]:
    """Violations of cost: every used site is opened, and the total is at least the sum of its parts."""
    for name, placed in sorted(claim.placed.items()):
        for c in (placed.primary, placed.burst, placed.fallback):
            if c is not None and c.site not in claim.opened:
                yield Violation("opening", f"{name} runs at {c.site}, which is not opened")
    total = sum(each.usd for each in claim.placed.values())
    if total > claim.usd + 0.01 * max(1, len(claim.placed)):
        yield Violation("cost", f"its workloads cost {total:,.2f}, the plan says {claim.usd:,.2f}")
