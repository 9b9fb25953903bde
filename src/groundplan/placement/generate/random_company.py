"""Small random companies with every rule on, from a seed, and a second reading of their rules from the declarations.

Up to 60 workloads and 15 sites: residency, sensitivity, certifications, licences of weights, latency, capacity, quotas,
spread, fallbacks in other failure domains, bursts, units to buy, openings, moves. Some have no placement at all.
`breaches` looks only at what was declared here, not at the arrays that were made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from groundplan.placement.assemble import Choice, Job, Offer, Piece, Place, Quota, Spread, assemble
from groundplan.placement.problem import BURST, FALLBACK, PRIMARY, Problem, Solution

_DOLLAR = 10**12
_JURISDICTIONS = ("EU", "US", "CH")
_CERTIFICATES = ("iso27001", "soc2", "c5")
_RULES = ("residency", "sensitivity", "certification", "licence", "latency")


@dataclass(frozen=True, slots=True)
class Ground:
    """A declared site."""

    name: str
    domain: int
    jurisdiction: str
    holds: int
    """the most sensitive data: 0 public to 3 restricted"""
    certificates: frozenset[str]
    licensed: frozenset[int]
    """models whose weights it may hold"""
    latency: tuple[int, ...]
    """milliseconds from each region"""
    price: float
    gpus: int
    opening: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A declared workload."""

    name: str
    residency: frozenset[str]
    """empty: anywhere"""
    sensitivity: int
    certificates: frozenset[str]
    model: int
    region: int
    latency: int
    load: int
    """thousandths of a GPU"""
    tokens: int
    fallback: bool
    burst: bool
    critical: bool
    current: int | None


@dataclass(frozen=True, slots=True)
class Company:
    """What was declared, and the problem made of it."""

    sites: tuple[Ground, ...]
    workloads: tuple[Asked, ...]
    token_quota: int
    most_critical: int
    """critical workloads in one failure domain"""
    problem: Problem


def random_company(seed: int, workloads: int = 60, sites: int = 15) -> Company:
    """One company of at most this size."""
    draw = np.random.Generator(np.random.PCG64(seed))
    places = tuple(_site(draw, at) for at in range(int(draw.integers(min(8, sites), sites + 1))))
    asked = tuple(_workload(draw, at, len(places)) for at in range(int(draw.integers(2, workloads + 1))))
    tokens = sum(each.tokens for each in asked)
    quota = round(tokens * float(draw.uniform(0.4, 1.6)))
    critical = sum(each.critical for each in asked)
    most = max(1, round(critical * float(draw.uniform(0.3, 0.8))))
    room = 2.2 * sum(each.load * (2 if each.fallback else 1) for each in asked) / sum(site.gpus for site in places)
    problem = assemble(
        [_place(draw, site, room) for site in places],
        [_job(each, places) for each in asked],
        [Quota("tokens", quota)],
        [Spread("critical workloads", tuple(each.name for each in asked if each.critical), most)],
    )
    return Company(places, asked, quota, most, problem)


def _some(draw: np.random.Generator, of: tuple[str, ...], chance: float) -> frozenset[str]:
    return frozenset(each for each in of if draw.random() < chance)


def _site(draw: np.random.Generator, at: int) -> Ground:
    return Ground(
        name=f"site-{at}",
        domain=int(draw.integers(0, 6)),
        jurisdiction=_JURISDICTIONS[min(2, int(draw.integers(0, 5)) % 3)],
        holds=int(draw.integers(1, 4)),
        certificates=_some(draw, _CERTIFICATES, 0.85),
        licensed=frozenset(model for model in range(4) if draw.random() < 0.95),
        latency=tuple(int(each) for each in draw.integers(5, 250, 3)),
        price=float(np.exp(draw.normal(0, 0.4))),
        gpus=int(draw.integers(2, 12)),
        opening=int(draw.integers(0, 3)) * 150,
    )


def _workload(draw: np.random.Generator, at: int, sites: int) -> Asked:
    return Asked(
        name=f"workload-{at}",
        residency=frozenset({_JURISDICTIONS[at % 2]}) if draw.random() < 0.5 else frozenset(),
        sensitivity=int(draw.integers(0, 4)) if draw.random() < 0.08 else int(draw.integers(0, 2)),
        certificates=_some(draw, _CERTIFICATES, 0.03),
        model=int(draw.integers(0, 4)),
        region=int(draw.integers(0, 3)),
        latency=int(draw.integers(200, 900)),
        load=int(1000 * np.exp(draw.normal(-1.0, 0.7))) + 1,
        tokens=int(draw.integers(1, 1000)),
        fallback=bool(draw.random() < 0.4),
        burst=bool(draw.random() < 0.25),
        critical=bool(draw.random() < 0.2),
        current=int(draw.integers(0, sites)) if draw.random() < 0.5 else None,
    )


def _place(draw: np.random.Generator, site: Ground, room: float) -> Place:
    """Most sites have a fixed capacity; at a third of them nodes are bought: reserved ones, then on demand."""
    if draw.random() < 0.35:
        node = round(250 * site.price) * _DOLLAR
        offers = (Offer("reserved", "gpu", 1000, node, 2), Offer("on demand", "gpu", 1000, 2 * node, site.gpus))
        return Place(site.name, f"domain-{site.domain}", {"gpu": 0}, site.opening * _DOLLAR, offers)
    capacity = round(site.gpus * room)
    return Place(site.name, f"domain-{site.domain}", {"gpu": capacity}, site.opening * _DOLLAR)


def _broken(asked: Asked, site: Ground) -> tuple[str, ...]:
    found = (
        bool(asked.residency) and site.jurisdiction not in asked.residency,
        asked.sensitivity > site.holds,
        not asked.certificates <= site.certificates,
        asked.model not in site.licensed,
        site.latency[asked.region] > asked.latency,
    )
    return tuple(rule for rule, broken in zip(_RULES, found, strict=True) if broken)


def _choice(
    asked: Asked, site: Ground, at: int, rules: tuple[str, ...], share: float, level: int, moves: bool
) -> Choice:
    load = max(1, round(asked.load * share))
    spent = round(load / 1000 * 300 * site.price * 100) * _DOLLAR // 100
    terms = {"compute": spent, "egress": site.latency[asked.region] * _DOLLAR // 10}
    if moves and asked.current is not None and asked.current != at:
        terms["move"] = 20 * _DOLLAR
    uses = {"gpu": load, "tokens": max(1, round(asked.tokens * share)) if site.jurisdiction == "US" else 0}
    uses = {name: amount for name, amount in uses.items() if amount}
    return Choice(site.name, terms, uses, level=level, rules=rules)


def _job(asked: Asked, sites: tuple[Ground, ...]) -> Job:
    judged = [(site, at, _broken(asked, site)) for at, site in enumerate(sites)]
    primary = [_choice(asked, *each, 1.0, 0, True) for each in judged]
    today = None if asked.current is None else sites[asked.current].name
    pieces: list[Piece] = []
    if asked.burst:
        primary += [_choice(asked, *each, 0.6, 1, True) for each in judged]
        above = [_choice(asked, *each, 0.4, 1, False) for each in judged]
        pieces.append(Piece((Choice(None), *above), BURST))
    if asked.fallback:
        pieces.append(Piece(tuple(_choice(asked, *each, 0.5, 0, False) for each in judged), FALLBACK))
    return Job(asked.name, (Piece(tuple(primary), PRIMARY, today), *pieces))


def breaches(company: Company, solution: Solution) -> Iterator[str]:
    """Hard rules that a placement breaks, read from the declarations alone."""
    problem = company.problem
    tokens = 0
    primary: dict[int, Ground] = {}
    critical: dict[int, int] = {}
    for part, option in enumerate(solution.choice):
        number = int(problem.parts.workload[part])
        asked, role = company.workloads[number], int(problem.parts.role[part])
        at = int(problem.options.site[option])
        if at < 0:
            continue
        site = company.sites[at]
        for rule in _broken(asked, site):
            yield f"{asked.name} at {site.name} against {rule}"
        level = int(problem.options.level[option])
        share = {PRIMARY: 0.6 if level else 1.0, BURST: 0.4, FALLBACK: 0.5}[role]
        tokens += max(1, round(asked.tokens * share)) if site.jurisdiction == "US" else 0
        if role == PRIMARY:
            primary[number] = site
            critical[site.domain] = critical.get(site.domain, 0) + asked.critical
        elif role == FALLBACK and primary[number].domain == site.domain:
            yield f"{asked.name} falls back within its failure domain"
    if tokens > company.token_quota:
        yield f"{tokens} tokens of {company.token_quota}"
    if max(critical.values(), default=0) > company.most_critical:
        yield "too many critical workloads in one failure domain"
