"""Small random companies with all rules, from a seed, and an independent check of plans against their declarations.

Up to 60 workloads and 15 sites: residency, sensitivity, certifications, licences of weights, latency, capacity, quotas,
spread, fallbacks in other failure domains, bursts, units to buy, openings, moves. `shared` companies share the units of
some sites between workloads over the hours of a day, and rent more only once all own ones are held. Some companies have
no placement. `find_breaches` uses only the declarations here, not the arrays made from them.
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
"""hours of a day, where hardware is shared"""
_RULES = ("residency", "sensitivity", "certification", "licence", "latency")


@dataclass(frozen=True, slots=True)
class DeclaredSite:
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
    """thousandths of GPUs, each amount held or not, in total the site's own GPUs; empty: nothing is shared"""
    rentable: int = 0
    """GPUs that can be rented beyond them"""


@dataclass(frozen=True, slots=True)
class DeclaredWorkload:
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
    """The declarations, and the problem made from them."""

    sites: tuple[DeclaredSite, ...]
    workloads: tuple[DeclaredWorkload, ...]
    token_quota: int
    most_critical: int
    """critical workloads in one failure domain"""
    problem: Problem


def random_company(seed: int, workloads: int = 60, sites: int = 15, *, shared: bool = False) -> Company:
    """A random company of at most this size; the workloads and rules are the same whether it shares hardware or not."""
    rng = np.random.Generator(np.random.PCG64(seed))
    declared_sites = tuple(_site(rng, index) for index in range(int(rng.integers(min(8, sites), sites + 1))))
    declared_workloads = tuple(
        _workload(rng, index, len(declared_sites)) for index in range(int(rng.integers(2, workloads + 1)))
    )
    tokens = sum(workload.tokens for workload in declared_workloads)
    token_quota = round(tokens * float(rng.uniform(0.4, 1.6)))
    critical = sum(workload.critical for workload in declared_workloads)
    max_critical = max(1, round(critical * float(rng.uniform(0.3, 0.8))))
    capacity_factor = (
        2.2
        * sum(workload.load * (2 if workload.fallback else 1) for workload in declared_workloads)
        / sum(site.gpus for site in declared_sites)
    )
    places = [_place(rng, site, capacity_factor) for site in declared_sites]
    if shared:
        declared_sites, declared_workloads = _share_hardware(seed, declared_sites, declared_workloads, capacity_factor)
        places = [
            Place(place.name, place.domain, {}, place.opening) if declared_site.own else place
            for place, declared_site in zip(places, declared_sites, strict=True)
        ]
    load = sum(2 * workload.load for workload in declared_workloads)
    problem = assemble(
        places,
        [
            *(_job(workload, declared_sites) for workload in declared_workloads),
            *(job for site in declared_sites for job in _pool_jobs(site, load)),
        ],
        [Quota("tokens", token_quota), *(row for site in declared_sites for row in _pool_rows(site))],
        [
            SpreadRule(
                "critical workloads",
                tuple(workload.name for workload in declared_workloads if workload.critical),
                max_critical,
            )
        ],
    )
    return Company(declared_sites, declared_workloads, token_quota, max_critical, problem)


def _share_hardware(
    seed: int, sites: tuple[DeclaredSite, ...], workloads: tuple[DeclaredWorkload, ...], capacity_factor: float
) -> tuple[tuple[DeclaredSite, ...], tuple[DeclaredWorkload, ...]]:
    """Let half of the sites share their units between workloads, and give each workload a load by hour."""
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    shared_sites = []
    for site in sites:
        available = max(1, round(site.gpus * capacity_factor * float(rng.uniform(0.3, 0.8))))
        own = tuple(
            workload for workload in (available // 4, available // 4, available - 2 * (available // 4)) if workload
        )
        rentable = int(rng.integers(0, 4)) if rng.random() < 0.6 else 0
        shared_sites.append(replace(site, own=own, rentable=rentable) if rng.random() < 0.5 else site)
    rows = rng.uniform(0.1, 1.0, (len(workloads), HOURS))
    hours = rows / rows.max(axis=1, keepdims=True)
    shaped = (replace(workload, hours=tuple(row.tolist())) for workload, row in zip(workloads, hours, strict=True))
    return tuple(shared_sites), tuple(shaped)


def _hour_row(site: DeclaredSite, hour: int) -> str:
    return f"{site.name} gpu in hour {hour}"


def _order_row(site: DeclaredSite) -> str:
    return f"{site.name} gpu: all are held before more are rented"


def _pool_rows(site: DeclaredSite) -> Iterator[Quota]:
    if site.own:
        yield from (Quota(_hour_row(site, hour), 0, "pool") for hour in range(HOURS))
    if site.own and site.rentable:
        yield Quota(_order_row(site), -len(site.own), "pool")


def _pool_jobs(site: DeclaredSite, load: int) -> Iterator[Job]:
    """The decisions of a site's pool: own units held, missing units (forbidden by a rule), and units rented."""
    if not site.own:
        return
    rule = (f"{sum(site.own) / 1000:g} are there",)
    first = {_order_row(site): -1} if site.rentable else {}
    pieces = [Piece((Choice(None), _pool_choice(site, each, site.price, first)), POOL) for each in site.own]
    yield Job(site.name, (*pieces, Piece((Choice(None), _pool_choice(site, load, site.price, {}, rule)), POOL)))
    if site.rentable:
        none = Choice(None, uses={_order_row(site): -len(site.own)})
        rented = (_pool_choice(site, 1000 * each, 2 * site.price, {}) for each in range(1, site.rentable + 1))
        yield Job(f"{site.name} on demand", (Piece((none, *rented), POOL),))


def _pool_choice(
    site: DeclaredSite, units: int, price: float, uses: dict[str, int], rules: tuple[str, ...] = ()
) -> Choice:
    cost = round(units / 1000 * 100 * price * 100) * _DOLLAR // 100
    pool_uses = {_hour_row(site, hour): -units for hour in range(HOURS)}
    return Choice(None, {"compute": cost}, {**pool_uses, **uses}, config=str(units), rules=rules)


def _random_subset(rng: np.random.Generator, names: tuple[str, ...], chance: float) -> frozenset[str]:
    return frozenset(each for each in names if rng.random() < chance)


def _site(rng: np.random.Generator, index: int) -> DeclaredSite:
    return DeclaredSite(
        name=f"site-{index}",
        domain=int(rng.integers(0, 6)),
        jurisdiction=_JURISDICTIONS[min(2, int(rng.integers(0, 5)) % 3)],
        holds=int(rng.integers(1, 4)),
        certificates=_random_subset(rng, _CERTIFICATES, 0.85),
        licensed=frozenset(model for model in range(4) if rng.random() < 0.95),
        latency=tuple(int(each) for each in rng.integers(5, 250, 3)),
        price=float(np.exp(rng.normal(0, 0.4))),
        gpus=int(rng.integers(2, 12)),
        opening=int(rng.integers(0, 3)) * 150,
    )


def _workload(rng: np.random.Generator, index: int, sites: int) -> DeclaredWorkload:
    return DeclaredWorkload(
        name=f"workload-{index}",
        residency=frozenset({_JURISDICTIONS[index % 2]}) if rng.random() < 0.5 else frozenset(),
        sensitivity=int(rng.integers(0, 4)) if rng.random() < 0.08 else int(rng.integers(0, 2)),
        certificates=_random_subset(rng, _CERTIFICATES, 0.03),
        model=int(rng.integers(0, 4)),
        region=int(rng.integers(0, 3)),
        latency=int(rng.integers(200, 900)),
        load=int(1000 * np.exp(rng.normal(-1.0, 0.7))) + 1,
        tokens=int(rng.integers(1, 1000)),
        fallback=bool(rng.random() < 0.4),
        burst=bool(rng.random() < 0.25),
        critical=bool(rng.random() < 0.2),
        current=int(rng.integers(0, sites)) if rng.random() < 0.5 else None,
    )


def _place(rng: np.random.Generator, site: DeclaredSite, capacity_factor: float) -> Place:
    """The place of a site. Most have a fixed capacity; at a third of them nodes are bought: reserved ones, then on
    demand."""
    if rng.random() < 0.35:
        node = round(250 * site.price) * _DOLLAR
        offers = (UnitOffer("reserved", "gpu", 1000, node, 2), UnitOffer("on demand", "gpu", 1000, 2 * node, site.gpus))
        return Place(site.name, f"domain-{site.domain}", {"gpu": 0}, site.opening * _DOLLAR, offers)
    capacity = round(site.gpus * capacity_factor)
    return Place(site.name, f"domain-{site.domain}", {"gpu": capacity}, site.opening * _DOLLAR)


def _broken_rules(declared: DeclaredWorkload, site: DeclaredSite) -> tuple[str, ...]:
    breaches = (
        bool(declared.residency) and site.jurisdiction not in declared.residency,
        declared.sensitivity > site.holds,
        not declared.certificates <= site.certificates,
        declared.model not in site.licensed,
        site.latency[declared.region] > declared.latency,
    )
    return tuple(rule for rule, broken in zip(_RULES, breaches, strict=True) if broken)


def _units_in_hour(declared: DeclaredWorkload, share: float, hour: int) -> int:
    """Thousandths of a GPU that the workload needs in one hour."""
    return max(1, ceil(declared.load * share * declared.hours[hour]))


def _choice(
    declared: DeclaredWorkload,
    site: DeclaredSite,
    index: int,
    rules: tuple[str, ...],
    share: float,
    level: int,
    moves: bool,
) -> Choice:
    load = max(1, round(declared.load * share))
    cost = round(load / 1000 * 300 * site.price * 100) * _DOLLAR // 100
    terms = {"compute": cost, "egress": site.latency[declared.region] * _DOLLAR // 10}
    if moves and declared.current is not None and declared.current != index:
        terms["move"] = 20 * _DOLLAR
    uses = {"gpu": load, "tokens": max(1, round(declared.tokens * share)) if site.jurisdiction == "US" else 0}
    if site.own:
        uses |= {"gpu": 0} | {_hour_row(site, hour): _units_in_hour(declared, share, hour) for hour in range(HOURS)}
    uses = {name: amount for name, amount in uses.items() if amount}
    return Choice(site.name, terms, uses, level=level, rules=rules)


def _job(declared: DeclaredWorkload, sites: tuple[DeclaredSite, ...]) -> Job:
    sites_with_rules = [(site, index, _broken_rules(declared, site)) for index, site in enumerate(sites)]
    primary = [_choice(declared, *candidate, 1.0, 0, True) for candidate in sites_with_rules]
    current = None if declared.current is None else sites[declared.current].name
    pieces: list[Piece] = []
    if declared.burst:
        primary += [_choice(declared, *candidate, 0.6, 1, True) for candidate in sites_with_rules]
        above = [_choice(declared, *candidate, 0.4, 1, False) for candidate in sites_with_rules]
        pieces.append(Piece((Choice(None), *above), BURST))
    if declared.fallback:
        pieces.append(
            Piece(tuple(_choice(declared, *candidate, 0.5, 0, False) for candidate in sites_with_rules), FALLBACK)
        )
    return Job(declared.name, (Piece(tuple(primary), PRIMARY, current), *pieces))


def find_breaches(company: Company, solution: Solution) -> Iterator[str]:
    """The hard rules that a placement breaks, checked against the declarations alone."""
    problem = company.problem
    tokens = 0
    primary: dict[int, DeclaredSite] = {}
    critical: dict[int, int] = {}
    used: dict[str, list[int]] = {}
    held: dict[str, int] = {}
    for part, option in enumerate(solution.choice):
        number, role = int(problem.parts.workload[part]), int(problem.parts.role[part])
        if role == POOL:
            name = problem.workloads[number]
            held[name] = held.get(name, 0) + int(problem.options.config[option] or 0)
            continue
        declared = company.workloads[number]
        site_index = int(problem.options.site[option])
        if site_index < 0:
            continue
        site = company.sites[site_index]
        for rule in _broken_rules(declared, site):
            yield f"{declared.name} at {site.name} against {rule}"
        level = int(problem.options.level[option])
        share = {PRIMARY: 0.6 if level else 1.0, BURST: 0.4, FALLBACK: 0.5}[role]
        if site.own:
            hours = used.setdefault(site.name, [0] * HOURS)
            used[site.name] = [units + _units_in_hour(declared, share, hour) for hour, units in enumerate(hours)]
        tokens += max(1, round(declared.tokens * share)) if site.jurisdiction == "US" else 0
        if role == PRIMARY:
            primary[number] = site
            critical[site.domain] = critical.get(site.domain, 0) + declared.critical
        elif role == FALLBACK and primary[number].domain == site.domain:
            yield f"{declared.name} falls back within its failure domain"
    yield from _sharing_breaches(company, used, held)
    if tokens > company.token_quota:
        yield f"{tokens} tokens of {company.token_quota}"
    if max(critical.values(), default=0) > company.most_critical:
        yield "too many critical workloads in one failure domain"


def _sharing_breaches(company: Company, used: dict[str, list[int]], held: dict[str, int]) -> Iterator[str]:
    """Violations of sharing: units held against own ones, and against the use in the fullest hour."""
    for site in company.sites:
        own_held, rented = held.get(site.name, 0), held.get(f"{site.name} on demand", 0)
        if own_held > sum(site.own) or rented > 1000 * site.rentable:
            yield f"{own_held} and {rented} GPUs of {site.name} are held"
        if rented and own_held < sum(site.own):
            yield f"GPUs are rented at {site.name} before all of its own are held"
        if max(used.get(site.name, [0])) > own_held + rented:
            yield f"{max(used[site.name])} GPUs are used at {site.name}, {own_held + rented} are held"
