"""Small random companies with every rule on, from a seed, and a second reading of their rules from the declarations.

Up to 60 workloads and 15 sites: residency, sensitivity, certifications, licences of weights, latency, capacity, quotas,
spread, fallbacks in other failure domains, bursts, units to buy, openings, moves. `shared` ones hold the units of some
sites for all workloads over the hours of a day, and rent more only once all own ones are held. Some have no placement
at all. `breaches` looks only at what was declared here, not at the arrays that were made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from groundplan.placement.assemble import Choice, Job, Piece, Place, Quota, SpreadRule, UnitOffer, assemble
from groundplan.placement.problem import BURST, FALLBACK, POOL, PRIMARY, Problem, Solution

_DOLLAR = 10**12
_JURISDICTIONS = ("EU", "US", "CH")
_CERTIFICATES = ("iso27001", "soc2", "c5")
HOURS = 3
"""of a day, where hardware is shared"""
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
    own: tuple[int, ...] = ()
    """thousandths of GPUs of which each may be held for all, in all what is there; empty: nothing is shared"""
    more: int = 0
    """GPUs that can be rented beyond them"""


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
    hours: tuple[float, ...] = ()
    """share of its load in each hour of a day of three"""


@dataclass(frozen=True, slots=True)
class Company:
    """What was declared, and the problem made of it."""

    sites: tuple[Ground, ...]
    workloads: tuple[Asked, ...]
    token_quota: int
    most_critical: int
    """critical workloads in one failure domain"""
    problem: Problem


def random_company(seed: int, workloads: int = 60, sites: int = 15, *, shared: bool = False) -> Company:
    """One company of at most this size; the same workloads and rules whether it shares hardware or not."""
    draw = np.random.Generator(np.random.PCG64(seed))
    places = tuple(_site(draw, at) for at in range(int(draw.integers(min(8, sites), sites + 1))))
    asked = tuple(_workload(draw, at, len(places)) for at in range(int(draw.integers(2, workloads + 1))))
    tokens = sum(each.tokens for each in asked)
    quota = round(tokens * float(draw.uniform(0.4, 1.6)))
    critical = sum(each.critical for each in asked)
    most = max(1, round(critical * float(draw.uniform(0.3, 0.8))))
    room = 2.2 * sum(each.load * (2 if each.fallback else 1) for each in asked) / sum(site.gpus for site in places)
    made = [_place(draw, site, room) for site in places]
    if shared:
        places, asked = _sharing(seed, places, asked, room)
        made = [Place(p.name, p.domain, {}, p.opening) if s.own else p for p, s in zip(made, places, strict=True)]
    load = sum(2 * each.load for each in asked)
    problem = assemble(
        made,
        [*(_job(each, places) for each in asked), *(job for site in places for job in _held(site, load))],
        [Quota("tokens", quota), *(row for site in places for row in _rows(site))],
        [SpreadRule("critical workloads", tuple(each.name for each in asked if each.critical), most)],
    )
    return Company(places, asked, quota, most, problem)


def _sharing(
    seed: int, places: tuple[Ground, ...], asked: tuple[Asked, ...], room: float
) -> tuple[tuple[Ground, ...], tuple[Asked, ...]]:
    """Half of the sites hold their units for all; each workload has its fullest hour."""
    draw = np.random.Generator(np.random.PCG64([seed, 1]))
    found = []
    for site in places:
        there = max(1, round(site.gpus * room * float(draw.uniform(0.3, 0.8))))
        own = tuple(each for each in (there // 4, there // 4, there - 2 * (there // 4)) if each)
        more = int(draw.integers(0, 4)) if draw.random() < 0.6 else 0
        found.append(replace(site, own=own, more=more) if draw.random() < 0.5 else site)
    rows = draw.uniform(0.1, 1.0, (len(asked), HOURS))
    hours = rows / rows.max(axis=1, keepdims=True)
    shaped = (replace(each, hours=tuple(row.tolist())) for each, row in zip(asked, hours, strict=True))
    return tuple(found), tuple(shaped)


def _hour(site: Ground, hour: int) -> str:
    return f"{site.name} gpu in hour {hour}"


def _order(site: Ground) -> str:
    return f"{site.name} gpu: all are held before more are rented"


def _rows(site: Ground) -> Iterator[Quota]:
    if site.own:
        yield from (Quota(_hour(site, hour), 0, "pool") for hour in range(HOURS))
    if site.own and site.more:
        yield Quota(_order(site), -len(site.own), "pool")


def _held(site: Ground, load: int) -> Iterator[Job]:
    """How much of a site's own units is held, what of it is not there, and how many are rented beyond them."""
    if not site.own:
        return
    rule = (f"{sum(site.own) / 1000:g} are there",)
    first = {_order(site): -1} if site.more else {}
    pieces = [Piece((Choice(None), _gives(site, each, site.price, first)), POOL) for each in site.own]
    yield Job(site.name, (*pieces, Piece((Choice(None), _gives(site, load, site.price, {}, rule)), POOL)))
    if site.more:
        none = Choice(None, uses={_order(site): -len(site.own)})
        rented = (_gives(site, 1000 * each, 2 * site.price, {}) for each in range(1, site.more + 1))
        yield Job(f"{site.name} on demand", (Piece((none, *rented), POOL),))


def _gives(site: Ground, units: int, price: float, uses: dict[str, int], rules: tuple[str, ...] = ()) -> Choice:
    cost = round(units / 1000 * 100 * price * 100) * _DOLLAR // 100
    given = {_hour(site, hour): -units for hour in range(HOURS)}
    return Choice(None, {"compute": cost}, {**given, **uses}, config=str(units), rules=rules)


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
        offers = (UnitOffer("reserved", "gpu", 1000, node, 2), UnitOffer("on demand", "gpu", 1000, 2 * node, site.gpus))
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


def _used(asked: Asked, share: float, hour: int) -> int:
    """Thousandths of a GPU in one hour."""
    return max(1, ceil(asked.load * share * asked.hours[hour]))


def _choice(
    asked: Asked, site: Ground, at: int, rules: tuple[str, ...], share: float, level: int, moves: bool
) -> Choice:
    load = max(1, round(asked.load * share))
    spent = round(load / 1000 * 300 * site.price * 100) * _DOLLAR // 100
    terms = {"compute": spent, "egress": site.latency[asked.region] * _DOLLAR // 10}
    if moves and asked.current is not None and asked.current != at:
        terms["move"] = 20 * _DOLLAR
    uses = {"gpu": load, "tokens": max(1, round(asked.tokens * share)) if site.jurisdiction == "US" else 0}
    if site.own:
        uses |= {"gpu": 0} | {_hour(site, hour): _used(asked, share, hour) for hour in range(HOURS)}
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
    used: dict[str, list[int]] = {}
    held: dict[str, int] = {}
    for part, option in enumerate(solution.choice):
        number, role = int(problem.parts.workload[part]), int(problem.parts.role[part])
        if role == POOL:
            name = problem.workloads[number]
            held[name] = held.get(name, 0) + int(problem.options.config[option] or 0)
            continue
        asked = company.workloads[number]
        at = int(problem.options.site[option])
        if at < 0:
            continue
        site = company.sites[at]
        for rule in _broken(asked, site):
            yield f"{asked.name} at {site.name} against {rule}"
        level = int(problem.options.level[option])
        share = {PRIMARY: 0.6 if level else 1.0, BURST: 0.4, FALLBACK: 0.5}[role]
        if site.own:
            hours = used.setdefault(site.name, [0] * HOURS)
            used[site.name] = [was + _used(asked, share, hour) for hour, was in enumerate(hours)]
        tokens += max(1, round(asked.tokens * share)) if site.jurisdiction == "US" else 0
        if role == PRIMARY:
            primary[number] = site
            critical[site.domain] = critical.get(site.domain, 0) + asked.critical
        elif role == FALLBACK and primary[number].domain == site.domain:
            yield f"{asked.name} falls back within its failure domain"
    yield from _sharing_breaches(company, used, held)
    if tokens > company.token_quota:
        yield f"{tokens} tokens of {company.token_quota}"
    if max(critical.values(), default=0) > company.most_critical:
        yield "too many critical workloads in one failure domain"


def _sharing_breaches(company: Company, used: dict[str, list[int]], held: dict[str, int]) -> Iterator[str]:
    """What is held of each site's units against what is there, and against the fullest hour."""
    for site in company.sites:
        own, rented = held.get(site.name, 0), held.get(f"{site.name} on demand", 0)
        if own > sum(site.own) or rented > 1000 * site.more:
            yield f"{own} and {rented} GPUs of {site.name} are held"
        if rented and own < sum(site.own):
            yield f"GPUs are rented at {site.name} before all of its own are held"
        if max(used.get(site.name, [0])) > own + rented:
            yield f"{max(used[site.name])} GPUs are used at {site.name}, {own + rented} are held"
