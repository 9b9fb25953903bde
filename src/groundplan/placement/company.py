"""From a company's candidates to the problem of the solver, and from its answer back to named choices.

Each workload has its primary; its fallback in another failure domain where one is wanted and possible; and, where it
may burst from own or rented hardware into hosted deployments, a level: 0 everything at the primary, 1 and 2 a base of
75 or 50 % of the peak there and the rest elsewhere. Whole units of rented hardware are tiers that workloads share.
Pure; solving is `planner`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite

from groundplan.core.money import PICO
from groundplan.placement.assemble import Choice, Job, Offer, Piece, Place, Quota, Spread, assemble
from groundplan.placement.pools import Pool, at_site, pools, shared, taken
from groundplan.placement.problem import BURST, FALLBACK, POOL, PRIMARY, Problem
from groundplan.placement.terms.availability import gained, needed
from groundplan.placement.terms.candidates import DEAREST, Candidate, Offered, stands_in
from groundplan.placement.terms.capacity import unit_month
from groundplan.placement.terms.curve import above
from groundplan.placement.terms.facts import HOURS, Company, SiteFacts, WorkloadFacts
from groundplan.placement.terms.rentals import HOURLY, leases, row

MILLI = 1000
"""Hardware is counted in thousandths of a unit"""
LEVELS = (1.0, 0.75, 0.5)
"""Part of the peak that the primary bears at each burst level"""
MOVES = "moves of one plan"
FAILING = 0.005
"""Share of the calls that a fallback is taken to answer"""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one option of the problem means."""

    role: int
    level: int
    candidate: Candidate | None
    """None: nothing to burst"""
    pool: str = ""
    held: int = 0
    """of a pool: thousandths of units"""


@dataclass(frozen=True, slots=True)
class Framed:
    """The problem with the meaning of its options."""

    offered: Offered
    problem: Problem
    options: tuple[Taken, ...]
    notes: tuple[str, ...] = ()
    pools: Mapping[str, Pool] = field(default_factory=dict)


def frame(
    offered: Offered,
    *,
    wanted: bool = True,
    banned: frozenset[tuple[str, str]] = frozenset(),
    pooled: bool = True,
    forbidden: bool = True,
) -> Framed:
    """The problem of a company. `wanted` False leaves out fallbacks that are only wanted; `banned` are (workload,
    config) that may not be the primary, for asking what comes next; `pooled` False adds up peaks of own hardware and
    commits to nothing, with the same options of workloads in the same order. `forbidden` False leaves out what a rule
    forbids where anything else is allowed: with hundreds of deployments that is most of it, and explains conflicts
    alone."""
    company, found = offered.company, pools(offered) if pooled else {}
    jobs: list[Job] = []
    meanings: list[Taken] = []
    for name, candidates in offered.by_workload.items():
        workload = company.workloads[name]
        pieces = list(_pieces(_Asked(offered, found, wanted, banned, forbidden), workload, candidates))
        jobs.append(Job(name, tuple(piece for piece, _ in pieces)))
        for _, meant in sorted(pieces, key=lambda each: each[0].role):
            meanings += meant
    production = tuple(w.name for _, w in sorted(company.workloads.items()) if w.stage == "production")
    most = company.policy.spread
    spreads = (Spread(f"at most {most} in one failure domain", production, most),) if most and production else ()
    jobs += [_holding(pool) for pool in found.values()]
    meanings += [
        Taken(POOL, 0, None, pool.name, held) for pool in found.values() for each in pool.choices for held in each
    ]
    quotas = (*_quotas(company), *_promised(offered), *_given(found))
    places = [_place(offered, found, site) for _, site in sorted(company.sites.items())]
    return Framed(offered, assemble(places, jobs, quotas, spreads), tuple(meanings), company.notes, found)


def _holding(pool: Pool) -> Job:
    """How much a pool holds, as something that is placed nowhere and gives to its rows."""
    within = len(pool.amounts)
    rule = (pool.room,)
    return Job(
        pool.name,
        tuple(
            Piece(tuple(_amount(pool, held, rule if held and at >= within else ()) for held in each), POOL)
            for at, each in enumerate(pool.choices)
        ),
    )


def _amount(pool: Pool, held: int, rules: tuple[str, ...]) -> Choice:
    cost = pico(held / MILLI * pool.price)
    uses = dict.fromkeys(pool.rows, -held) if held else {}
    if pool.waits and not held:
        uses = {pool.order: -pool.waits}
    elif pool.order and pool.own and held and not rules:
        uses[pool.order] = -1
    return Choice(None, {"idle" if pool.own else "compute": cost}, uses, f"{held / MILLI:g}", 0, rules)


def _given(found: Mapping[str, Pool]) -> Iterable[Quota]:
    """Rows that pools give to, and that keep rented units waiting until all own ones are held."""
    for pool in found.values():
        yield from (Quota(name, 0, "pool") for name in pool.rows if not pool.waits)
        if pool.waits:
            yield Quota(pool.order, -pool.waits, "pool")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What pieces are made from, besides their workload."""

    offered: Offered
    pools: Mapping[str, Pool]
    wanted: bool
    banned: frozenset[tuple[str, str]]
    forbidden: bool

    def kept(self, w: WorkloadFacts, candidates: list[Candidate]) -> list[Candidate]:
        """What becomes an option."""
        if self.forbidden:
            return candidates
        return [c for c in candidates if c.allowed and (w.name, c.config) not in self.banned] or candidates


def _quotas(company: Company) -> Iterable[Quota]:
    """What holds across sites: tokens of providers, and how many workloads one plan moves."""
    for _, d in sorted(company.deployments.items()):
        if d.quota_tokens_minute is not None:
            yield Quota(f"quota {d.name}", round(d.quota_tokens_minute))
    if company.policy.moves is not None:
        yield Quota(MOVES, company.policy.moves)


def _promised(offered: Offered) -> Iterable[Quota]:
    """How available each workload has to be whose availability is a rule."""
    for name in offered.by_workload:
        w = offered.company.workloads[name]
        if w.available and w.availability is not None:
            yield Quota(_there(w), -needed(w.availability), "availability")


def _there(w: WorkloadFacts) -> str:
    return f"{w.name}: there {100 * (w.availability or 0.0):.6g}% of the time"


def opening_usd(offered: Offered, site: SiteFacts) -> float:
    """A month of a site once anything runs there: its people, its rack, and its setup over the payback time."""
    policy = offered.company.policy
    return site.burden_hours * policy.people_usd + site.rack_usd + site.setup_usd / policy.payback_months


def _place(offered: Offered, found: Mapping[str, Pool], site: SiteFacts) -> Place:
    capacity: dict[str, int] = {}
    offers: list[Offer] = []
    for each in site.hardware:
        if at_site(found, site.name, each.type) is not None:
            continue
        capacity[each.type] = capacity.get(each.type, 0) + each.count * MILLI
        if each.rented is not None:
            extra = max(0.0, each.rented * HOURS - (unit_month(each) if each.count else 0.0))
            how = "reserved" if each.rented == each.reserved else "on demand"
            offers.append(Offer(f"{each.type} {how}", each.type, MILLI, pico(extra), each.most))
    offers += _leases(offered, found, site) if site.hardware else ()
    for each in site.hardware if len(offers) else ():
        if next(leases(each), None) is not None and site.type == "cloud":
            capacity[_to_rent(each.type)] = each.most * MILLI
    return Place(site.name, site.domain, capacity, pico(opening_usd(offered, site)), tuple(offers))


def _to_rent(type_: str) -> str:
    return f"{type_} at once"


def _leases(offered: Offered, pooled: Mapping[str, Pool], site: SiteFacts) -> list[Offer]:
    """Units by the hour of each part of the week, and spot: of each kind that a candidate could take."""
    given = _rows_of(pooled)
    kinds = {h.type: (h, {each.name: each for each in leases(h)}) for h in site.hardware}
    found: dict[str, Offer] = {}
    for c in (c for each in offered.by_workload.values() for c in each if c.lease and c.site == site.name):
        hardware, known = kinds[c.hardware or ""]
        lease = known[c.lease]
        for block, hours in lease.blocks:
            name = row(hardware.type, lease.name, block, c.model, c.group)
            price = pico(lease.price * hours * c.group)
            to = shared(site.name, name) if shared(site.name, name) in given else name
            found[name] = Offer(name, to, c.group * MILLI, price, hardware.most // c.group)
    return [found[name] for name in sorted(found)]


def _rows_of(found: Mapping[str, Pool]) -> frozenset[str]:
    return frozenset(name for pool in found.values() for name in pool.rows)


def pool_of(found: Mapping[str, Pool], c: Candidate) -> Pool | None:
    """The pool that a candidate takes from."""
    if not c.hardware or c.lease not in ("", HOURLY):
        return None
    if not c.lease:
        return at_site(found, c.site, c.hardware)
    return found.get(f"{c.site} {c.hardware} committed" + (f", {c.group} for {c.model}" if c.group > 1 else ""))


def _pieces(asked: _Asked, w: WorkloadFacts, candidates: tuple[Candidate, ...]) -> Iterable[tuple[Piece, list[Taken]]]:
    offered, banned = asked.offered, asked.banned
    bursts = _may_burst(w, candidates)
    first = asked.kept(w, primaries(w, candidates, banned, forbidden=asked.forbidden))
    may_stay = offered.company.policy.moves is not None and any(c.allowed and c.site == w.today for c in first)
    levels = range(len(LEVELS)) if bursts else range(1)
    own = [(c, level) for c in first for level in levels if level == 0 or (c.hardware and c.lease != HOURLY)]
    choices = [
        _moving(w, may_stay, _choice(asked, w, c, PRIMARY, level, (w.name, c.config) in banned)) for c, level in own
    ]
    yield Piece(tuple(choices), PRIMARY, w.today), [Taken(PRIMARY, level, c) for c, level in own]
    if bursts:
        spill = [(c, level) for c in candidates for level in levels if level and c.kind == "deployment" and c.allowed]
        meant = [Taken(BURST, 0, None), *(Taken(BURST, level, c) for c, level in spill)]
        nothing = Choice(None, config="nothing to burst")
        yield Piece((nothing, *(_choice(asked, w, c, BURST, level) for c, level in spill)), BURST), meant
    promised = w.available and w.availability is not None and w.fallback != "none"
    if w.fallback == "required" or promised or (asked.wanted and _may_fall_back(offered, w, candidates)):
        standing = [c for c in candidates if stands_in(w, c)] or [c for c in candidates if not c.lease]
        standing = standing if asked.forbidden else [c for c in standing if c.allowed] or standing
        fallbacks = [_choice(asked, w, c, FALLBACK, 0) for c in standing]
        meant_by: list[Candidate | None] = list(standing)
        if promised and w.fallback != "required":
            fallbacks.append(Choice(None, config="no fallback is needed"))
            meant_by.append(None)
        yield Piece(tuple(fallbacks), FALLBACK), [Taken(FALLBACK, 0, each) for each in meant_by]


def _moving(w: WorkloadFacts, may_stay: bool, choice: Choice) -> Choice:
    """Counted as a move, where that is limited and the workload could stay where it runs."""
    if not may_stay or choice.site == w.today:
        return choice
    return replace(choice, uses={**choice.uses, MOVES: 1})


def primaries(
    w: WorkloadFacts,
    candidates: tuple[Candidate, ...],
    banned: frozenset[tuple[str, str]] = frozenset(),
    *,
    forbidden: bool = True,
) -> list[Candidate]:
    """What may come first: with a declared order, the first of it that is allowed; others say so, or are left out
    without `forbidden` where there is such a one."""
    if w.planned:
        return list(candidates)
    named = {c.config: c for c in candidates if c.kind == "deployment"}
    usable = [name for name in (*w.declared, *w.later) if name in named and named[name].allowed]
    first = next((name for name in usable if (w.name, name) not in banned), None)
    if not forbidden and first is not None:
        return [named[first]]
    rule = "the declared order puts another first"
    return [c if c.config == first or c.rules else _with_rule(c, rule) for c in candidates]


def _with_rule(candidate: Candidate, rule: str) -> Candidate:
    return replace(candidate, rules=(*candidate.rules, rule))


def _may_burst(w: WorkloadFacts, candidates: tuple[Candidate, ...]) -> bool:
    own = any(c.allowed and c.hardware is not None for c in candidates)
    return (
        w.burst
        and w.planned
        and own
        and any(c.allowed and c.kind == "deployment" and not c.hardware for c in candidates)
    )


def _may_fall_back(offered: Offered, w: WorkloadFacts, candidates: tuple[Candidate, ...]) -> bool:
    """A wanted fallback is asked for where two domains may serve, one of them without hardware of ours."""
    if w.fallback != "wanted":
        return False
    standing = [c for c in candidates if c.allowed and stands_in(w, c)]
    domains = {offered.company.sites[c.site].domain for c in standing}
    first = {offered.company.sites[c.site].domain for c in primaries(w, candidates, forbidden=False) if c.allowed}
    return bool(domains) and len(domains | first) > 1


def _choice(asked: _Asked, w: WorkloadFacts, c: Candidate, role: int, level: int, banned: bool = False) -> Choice:
    terms, units = priced(w, c, role, level)
    uses = _uses(asked, w, c, role, level)
    if c.quota:
        uses[f"quota {c.config}"] = round(c.quota * (LEVELS[level] if role == PRIMARY else 1))
    kept = without_units(terms, charged(asked.offered, asked.pools, c, terms, units))
    whole = {name: pico(min(value, DEAREST)) for name, value in kept.items()}
    rules = (*c.rules, "asked for what comes next") if banned else c.rules
    return Choice(c.site, whole, uses, c.config, level, rules)


def charged(
    offered: Offered, found: Mapping[str, Pool], c: Candidate, terms: Mapping[str, float], units: float
) -> float:
    """USD a month of its hardware that a tier or a pool charges, so that the option must not."""
    if c.lease:
        return terms.get("compute", 0.0) + terms.get("idle", 0.0)
    pool = pool_of(found, c)
    return units * (_rented(offered, c) if pool is None else pool.price)


def _uses(asked: _Asked, w: WorkloadFacts, c: Candidate, role: int, level: int) -> dict[str, int]:
    """Thousandths of units at its site, and what it brings to a promised availability."""
    uses: dict[str, int] = {}
    _, units = priced(w, c, role, level)
    pool = pool_of(asked.pools, c)
    if pool is not None and pool.own:
        uses = taken(pool, w, c, LEVELS[level] if role == PRIMARY else 1.0) if units else {}
    elif c.hardware:
        units = max(units, min(c.least, c.units)) if units and not c.lease else units
        amount = round(min(units, 10**6) * MILLI)
        share = units / c.units if c.units else 0.0
        uses = {
            _row_name(asked, c, block): round(min(each * share, 10**6) * MILLI) for block, each in c.blocks.items()
        } or {c.hardware: amount}
        uses[_to_rent(c.hardware)] = amount
    if w.available and w.availability is not None and role != BURST:
        uses[_there(w)] = -gained(c.availability)
    return {name: use for name, use in uses.items() if use or name == c.hardware}


def _row_name(asked: _Asked, c: Candidate, block: str) -> str:
    """Of what is rented in one part of the week: its site's own row, or the one that a commitment gives to."""
    name = row(c.hardware or "", c.lease, block, c.model, c.group)
    return shared(c.site, name) if pool_of(asked.pools, c) is not None else name


def _rented(offered: Offered, c: Candidate) -> float:
    """USD a month of a unit that a tier charges."""
    found = next((h for h in offered.company.sites[c.site].hardware if h.type == c.hardware), None)
    return c.unit_month if found is not None and not found.count and found.rented is not None else 0.0


def without_units(terms: Mapping[str, float], charged: float) -> dict[str, float]:
    paid = terms.get("compute", 0.0) + terms.get("idle", 0.0)
    keep = max(0.0, 1 - charged / paid) if paid else 1.0
    return {n: v * keep if n in ("compute", "idle") else v for n, v in terms.items()}


def priced(w: WorkloadFacts, c: Candidate, role: int, level: int) -> tuple[dict[str, float], float]:
    """(terms in USD a month, units) of a candidate in a role: base load below the level, what bursts above it, or a
    fallback that stands by."""
    over = above(w.curve, LEVELS[level])
    terms = dict(c.terms)
    if role == PRIMARY:
        if level == 0:
            return terms, c.units
        paid = (terms.get("compute", 0.0) + terms.get("idle", 0.0)) * LEVELS[level]
        busy = terms.get("compute", 0.0) * (1 - over)
        scaled = {n: v * (1 - over) if n in ("egress", "carbon", "penalty", "tokens") else v for n, v in terms.items()}
        return {**scaled, "compute": busy, "idle": max(0.0, paid - busy)}, c.units * LEVELS[level]
    if role == BURST:
        kept = ("tokens", "egress", "carbon", "penalty", "compute", "idle")
        return {n: v * (over if n in kept else 1.0 if n == "people" else 0.0) for n, v in terms.items()}, c.units
    paid = terms.get("compute", 0.0) + terms.get("idle", 0.0)
    share = {"tokens": FAILING, "egress": FAILING, "carbon": 0.1, "penalty": FAILING, "people": 1.0, "storage": 1.0}
    standing = {n: v * share.get(n, 0.0) for n, v in terms.items()}
    if w.fallback == "required" or (w.available and w.availability is not None):
        return {**standing, "idle": paid}, c.units
    return standing, 0.0


def pico(usd: float) -> int:
    """Whole picodollars; what is not finite is the dearest."""
    return round(min(max(usd, 0.0), DEAREST) * PICO) if isfinite(usd) else round(DEAREST * PICO)
