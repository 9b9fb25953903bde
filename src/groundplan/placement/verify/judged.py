"""The plan of a company judged by its facts, in the words of its declarations: what each workload asks of its places.

`verify.plan` checks the arrays that a solver was given; whoever filled them wrongly would pass there. This reads the
facts and the decisions alone, knows neither arrays nor solver nor the rules that made candidates, and prices nothing:
prices are those of the candidates, which are added up again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, prod

from groundplan.catalog.workspace import within
from groundplan.placement.terms.candidates import Candidate
from groundplan.placement.terms.facts import SENSITIVITIES, Company, WorkloadFacts
from groundplan.placement.verify.plan import Violation

SLACK = 1e-6
UNIT = 0.002
"""of a unit: amounts were rounded to thousandths for the solver"""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where one workload goes, as the plan says it."""

    primary: Candidate
    share: float = 1.0
    """of the peak that the primary bears"""
    burst: Candidate | None = None
    fallback: Candidate | None = None
    usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A plan as it is shown."""

    placed: Mapping[str, Placed]
    opened: frozenset[str]
    bought: Mapping[str, int]
    """rented units by `SITE WHAT`"""
    usd: float
    """a month, of everything"""
    may_stay: frozenset[str] = frozenset()
    """workloads that may stay where they run: what moves of them counts as moved"""


def judged(company: Company, claim: Claim) -> tuple[Violation, ...]:
    """Everything that is wrong."""
    found: list[Violation] = []
    for name, placed in sorted(claim.placed.items()):
        w = company.workloads[name]
        for role, each in (("primary", placed.primary), ("burst", placed.burst), ("fallback", placed.fallback)):
            if each is not None:
                found += [Violation(kind, f"{name}, {role}: {what}") for kind, what in _place(company, w, each)]
        if all(each is None or each.site in company.sites for each in (placed.primary, placed.fallback)):
            found += [Violation(kind, f"{name}: {what}") for kind, what in _together(company, w, placed)]
    if not any(each.kind == "site" for each in found):
        found += [*_room(company, claim), *_across(company, claim)]
    found += _opened(claim)
    return tuple(found)


def _place(company: Company, w: WorkloadFacts, c: Candidate) -> Iterator[tuple[str, str]]:
    """One place against what the workload asks."""
    site = company.sites.get(c.site)
    if site is None:
        yield "site", f"{c.site} is not declared"
        return
    if not within(site.jurisdiction, w.residency):
        yield "residency", f"{site.name} is in {site.jurisdiction}, outside {' and '.join(w.residency)}"
    if SENSITIVITIES.index(site.holds) < SENSITIVITIES.index(w.sensitivity):
        yield "sensitivity", f"{site.name} holds at most {site.holds} data"
    if w.offline and site.type != "edge" and site.name != w.data_site:
        yield "offline", f"{site.name} cannot be reached without a connection"
    yield from _serving(company, w, c)
    limits = ((w.first_token, c.times.first_token), (w.per_token, c.times.per_token), (w.complete, c.times.complete))
    for most, expected in limits:
        if most is not None and expected > most + SLACK:
            yield "latency", f"{expected:.0f} ms of {most:.0f} at {c.config}"


def _serving(company: Company, w: WorkloadFacts, c: Candidate) -> Iterator[tuple[str, str]]:
    """What serves there: certificates, weights, quality, data terms, leases."""
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
    if c.kind == "build" and model is not None and model.at and site.name not in model.at:
        yield "weights", f"{model.name} may not lie at {site.name}"
    if model is not None:
        for task, floor in w.quality.items():
            if task in model.quality and model.quality[task] < floor:
                yield "quality", f"{model.name} reaches {model.quality[task]:g} of {floor:g} at {task}"
    if c.lease == "spot" and not w.spot:
        yield "spot", f"{c.config} may be taken away"


def _together(company: Company, w: WorkloadFacts, placed: Placed) -> Iterator[tuple[str, str]]:
    """The parts of one workload beside each other."""
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
    if w.available and w.availability is not None:
        there = 1 - prod(1 - each for each in places)
        if there < w.availability - SLACK / 10:
            yield "availability", f"there {100 * there:.6g}% of the time, {100 * w.availability:.6g}% are required"
    if (placed.burst is None) != (placed.share >= 1):
        yield "burst", f"its primary bears {placed.share:g} of the peak"


def _room(company: Company, claim: Claim) -> Iterator[Violation]:
    """What all workloads take of each site's units, beside what is there or bought."""
    used: dict[tuple[str, str, str], float] = {}
    for name, placed in claim.placed.items():
        w = company.workloads[name]
        full = w.fallback == "required" or (w.available and w.availability is not None)
        for c, share in (
            (placed.primary, placed.share), (placed.burst, 1.0), (placed.fallback, 1.0 if full else 0.0)
        ):  # fmt: skip
            if c is None or c.hardware is None:
                continue
            for block, units in (c.blocks or {"": c.units}).items():
                kind = f"{c.lease}, {block}" if block else c.lease
                kind += f", {c.group} for {c.model}" if c.lease and c.group > 1 else ""
                key = (c.site, c.hardware, kind)
                used[key] = used.get(key, 0.0) + units * share
    for (site, type_, kind), units in sorted(used.items()):
        there = _units(company, claim, site, type_, kind)
        if units > there + UNIT * len(claim.placed):
            yield Violation("capacity", f"{units:.3f} {type_} {kind} at {site}, {there:g} are there or bought")


def _units(company: Company, claim: Claim, site: str, type_: str, kind: str) -> float:
    """There, and bought by the plan: `SITE TYPE on demand`, or what a lease is called."""
    owned = sum(h.count for h in company.sites[site].hardware if h.type == type_) if not kind else 0
    names = [f"{site} {type_} {kind}"] if kind else [f"{site} {type_} {how}" for how in ("on demand", "reserved")]
    size = int(kind.rpartition(" for ")[0].rpartition(" ")[2]) if " for " in kind else 1
    return owned + size * sum(claim.bought.get(name, 0) for name in names)


def _across(company: Company, claim: Claim) -> Iterator[Violation]:
    """Quotas of providers, spread over failure domains, moves."""
    tokens: dict[str, float] = {}
    domains: dict[str, int] = {}
    moved = 0
    for name, placed in claim.placed.items():
        w = company.workloads[name]
        for c, share in ((placed.primary, placed.share), (placed.burst, 1.0), (placed.fallback, 1.0)):
            if c is not None and c.kind == "deployment":
                tokens[c.config] = tokens.get(c.config, 0.0) + w.peak_second * 60 * (w.prompt + w.output) * share
        domain = company.sites[placed.primary.site].domain
        domains[domain] = domains.get(domain, 0) + (w.stage == "production")
        moved += name in claim.may_stay and w.today != placed.primary.site
    for config, count in sorted(tokens.items()):
        limit = company.deployments[config].quota_tokens_minute
        if limit is not None and count > ceil(limit) + len(claim.placed):
            yield Violation("quota", f"{count:,.0f} tokens a minute at {config} of {limit:,.0f}")
    if company.policy.spread is not None and max(domains.values(), default=0) > company.policy.spread:
        yield Violation("spread", f"{max(domains.values())} production workloads in one failure domain")
    if company.policy.moves is not None and moved > company.policy.moves:
        yield Violation("moves", f"{moved} workloads move")


def _opened(claim: Claim) -> Iterator[Violation]:
    """What runs somewhere has its site opened and paid, and the whole is the sum of its parts."""
    for name, placed in sorted(claim.placed.items()):
        for c in (placed.primary, placed.burst, placed.fallback):
            if c is not None and c.site not in claim.opened:
                yield Violation("opening", f"{name} runs at {c.site}, which is not opened")
    total = sum(each.usd for each in claim.placed.values())
    if total > claim.usd + 0.01 * max(1, len(claim.placed)):
        yield Violation("cost", f"its workloads cost {total:,.2f}, the plan says {claim.usd:,.2f}")
