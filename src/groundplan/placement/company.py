"""Frame the candidates of a company as a problem for the solver, and map its options back to their meaning.

Each workload has a primary; a fallback in another failure domain where one is wanted and possible; and, where it may
burst from own or rented hardware into hosted deployments, a burst level: 0 everything at the primary, 1 and 2 a base
of 75 or 50 % of the peak there and the rest elsewhere. Whole units of rented hardware are tiers that workloads share.
Pure; `planner` solves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite

from groundplan.core.money import PICO
from groundplan.placement.assemble import Choice, Job, Piece, Place, Quota, SpreadRule, UnitOffer, assemble
from groundplan.placement.pools import Pool, build_pools, own_pool, pool_row_name, pool_use
from groundplan.placement.problem import BURST, FALLBACK, POOL, PRIMARY, Problem
from groundplan.placement.terms.availability import availability_gain, required_gain
from groundplan.placement.terms.candidates import MAX_USD, Candidate, CandidateSet, can_be_fallback
from groundplan.placement.terms.capacity import unit_price
from groundplan.placement.terms.curve import share_above_level
from groundplan.placement.terms.facts import HOURS, Company, SiteFacts, WorkloadFacts
from groundplan.placement.terms.rentals import HOURLY, lease_row_name, leases

MILLI = 1000
"""Hardware is counted in thousandths of a unit"""
BURST_LEVELS = (1.0, 0.75, 0.5)
"""Share of the peak that the primary serves at each burst level"""
MOVES_QUOTA = "moves of one plan"
FALLBACK_SHARE = 0.005
"""Share of the calls that a fallback is assumed to answer"""


@dataclass(frozen=True, slots=True)
class OptionMeaning:
    """The meaning of one option of the problem."""

    role: int
    level: int
    candidate: Candidate | None
    """None: nothing to burst"""
    pool: str = ""
    amount: int = 0
    """of a pool: thousandths of units"""


@dataclass(frozen=True, slots=True)
class FramedProblem:
    """The problem, with the meaning of its options."""

    candidates: CandidateSet
    problem: Problem
    options: tuple[OptionMeaning, ...]
    notes: tuple[str, ...] = ()
    pools: Mapping[str, Pool] = field(default_factory=dict)


def frame_problem(
    offered: CandidateSet,
    *,
    with_wanted_fallbacks: bool = True,
    banned: frozenset[tuple[str, str]] = frozenset(),
    share_hardware: bool = True,
    include_forbidden: bool = True,
) -> FramedProblem:
    """The problem of a company.

    `with_wanted_fallbacks` False leaves out fallbacks that are only wanted. `banned` are (workload, config) that may
    not be the primary, for finding a runner-up. `share_hardware` False adds up the peaks on own hardware and commits to
    nothing, with the same options of workloads in the same order. `include_forbidden` False leaves out forbidden
    candidates where any is allowed: with hundreds of deployments these are most, and only explanations of conflicts
    need them.
    """
    company, pools = offered.company, build_pools(offered) if share_hardware else {}
    jobs: list[Job] = []
    meanings: list[OptionMeaning] = []
    for name, candidates in offered.by_workload.items():
        workload = company.workloads[name]
        pieces = list(
            _pieces(
                _PieceContext(offered, pools, with_wanted_fallbacks, banned, include_forbidden), workload, candidates
            )
        )
        jobs.append(Job(name, tuple(piece for piece, _ in pieces)))
        for _, meant in sorted(pieces, key=lambda each: each[0].role):
            meanings += meant
    production = tuple(w.name for _, w in sorted(company.workloads.items()) if w.stage == "production")
    most = company.policy.spread
    spreads = (SpreadRule(f"at most {most} in one failure domain", production, most),) if most and production else ()
    jobs += [_pool_job(pool) for pool in pools.values()]
    meanings += [
        OptionMeaning(POOL, 0, None, pool.name, held)
        for pool in pools.values()
        for each in pool.choices
        for held in each
    ]
    quotas = (*_quotas(company), *_availability_quotas(offered), *_pool_quotas(pools))
    places = [_place(offered, pools, site) for _, site in sorted(company.sites.items())]
    return FramedProblem(offered, assemble(places, jobs, quotas, spreads), tuple(meanings), company.notes, pools)


def _pool_job(pool: Pool) -> Job:
    """A job that decides how much a pool holds: it is placed nowhere and adds to the pool's rows."""
    within = len(pool.amounts)
    rule = (pool.capacity_words,)
    return Job(
        pool.name,
        tuple(
            Piece(tuple(_pool_choice(pool, held, rule if held and at >= within else ()) for held in each), POOL)
            for at, each in enumerate(pool.choices)
        ),
    )


def _pool_choice(pool: Pool, amount: int, rules: tuple[str, ...]) -> Choice:
    cost = to_picodollars(amount / MILLI * pool.price)
    uses = dict.fromkeys(pool.rows, -amount) if amount else {}
    if pool.own_amounts_before and not amount:
        uses = {pool.order_row: -pool.own_amounts_before}
    elif pool.order_row and pool.is_own and amount and not rules:
        uses[pool.order_row] = -1
    return Choice(None, {"idle" if pool.is_own else "compute": cost}, uses, f"{amount / MILLI:g}", 0, rules)


def _pool_quotas(pools: Mapping[str, Pool]) -> Iterable[Quota]:
    """The rows that pools add to, and the rows that allow rented units only once all own ones are held."""
    for pool in pools.values():
        yield from (Quota(name, 0, "pool") for name in pool.rows if not pool.own_amounts_before)
        if pool.own_amounts_before:
            yield Quota(pool.order_row, -pool.own_amounts_before, "pool")


@dataclass(frozen=True, slots=True)
class _PieceContext:
    """What pieces are built from, besides their workload."""

    offered: CandidateSet
    pools: Mapping[str, Pool]
    with_wanted_fallbacks: bool
    banned: frozenset[tuple[str, str]]
    include_forbidden: bool

    def usable(self, w: WorkloadFacts, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates that become options."""
        if self.include_forbidden:
            return candidates
        return [c for c in candidates if c.is_allowed and (w.name, c.config) not in self.banned] or candidates


def _quotas(company: Company) -> Iterable[Quota]:
    """Quotas across sites: tokens of providers, and how many workloads one plan may move."""
    for _, d in sorted(company.deployments.items()):
        if d.quota_tokens_minute is not None:
            yield Quota(f"quota {d.name}", round(d.quota_tokens_minute))
    if company.policy.max_moves is not None:
        yield Quota(MOVES_QUOTA, company.policy.max_moves)


def _availability_quotas(offered: CandidateSet) -> Iterable[Quota]:
    """A quota for each workload with a required availability."""
    for name in offered.by_workload:
        w = offered.company.workloads[name]
        if w.requires_availability and w.availability is not None:
            yield Quota(_availability_row(w), -required_gain(w.availability), "availability")


def _availability_row(w: WorkloadFacts) -> str:
    return f"{w.name}: there {100 * (w.availability or 0.0):.6g}% of the time"


def opening_usd(offered: CandidateSet, site: SiteFacts) -> float:
    """USD a month of a site once anything runs there: people, rack, and setup spread over the payback time."""
    policy = offered.company.policy
    return site.burden_hours * policy.people_usd + site.rack_usd + site.setup_usd / policy.payback_months


def _place(offered: CandidateSet, pools: Mapping[str, Pool], site: SiteFacts) -> Place:
    capacity: dict[str, int] = {}
    offers: list[UnitOffer] = []
    for each in site.hardware:
        if own_pool(pools, site.name, each.type) is not None:
            continue
        capacity[each.type] = capacity.get(each.type, 0) + each.count * MILLI
        if each.rental_price is not None:
            extra = max(0.0, each.rental_price * HOURS - (unit_price(each) if each.count else 0.0))
            how = "reserved" if each.rental_price == each.reserved else "on demand"
            offers.append(UnitOffer(f"{each.type} {how}", each.type, MILLI, to_picodollars(extra), each.max_units))
    offers += _lease_offers(offered, pools, site) if site.hardware else ()
    for each in site.hardware if len(offers) else ():
        if next(leases(each), None) is not None and site.type == "cloud":
            capacity[_rental_limit_row(each.type)] = each.max_units * MILLI
    return Place(site.name, site.domain, capacity, to_picodollars(opening_usd(offered, site)), tuple(offers))


def _rental_limit_row(type_: str) -> str:
    return f"{type_} at once"


def _lease_offers(offered: CandidateSet, pools: Mapping[str, Pool], site: SiteFacts) -> list[UnitOffer]:
    """Offers of units by the hour for each part of the week, and of spot units, that some candidate could take."""
    pool_rows = _pool_row_names(pools)
    kinds = {h.type: (h, {each.name: each for each in leases(h)}) for h in site.hardware}
    found: dict[str, UnitOffer] = {}
    for c in (c for each in offered.by_workload.values() for c in each if c.lease and c.site == site.name):
        hardware, known = kinds[c.hardware or ""]
        lease = known[c.lease]
        for block, hours in lease.blocks:
            name = lease_row_name(hardware.type, lease.name, block, c.model, c.group)
            price = to_picodollars(lease.price * hours * c.group)
            target_row = pool_row_name(site.name, name) if pool_row_name(site.name, name) in pool_rows else name
            found[name] = UnitOffer(name, target_row, c.group * MILLI, price, hardware.max_units // c.group)
    return [found[name] for name in sorted(found)]


def _pool_row_names(pools: Mapping[str, Pool]) -> frozenset[str]:
    return frozenset(name for pool in pools.values() for name in pool.rows)


def pool_of(pools: Mapping[str, Pool], c: Candidate) -> Pool | None:
    """The pool that a candidate takes its units from, if any."""
    if not c.hardware or c.lease not in ("", HOURLY):
        return None
    if not c.lease:
        return own_pool(pools, c.site, c.hardware)
    return pools.get(f"{c.site} {c.hardware} committed" + (f", {c.group} for {c.model}" if c.group > 1 else ""))


def _pieces(
    context: _PieceContext, w: WorkloadFacts, candidates: tuple[Candidate, ...]
) -> Iterable[tuple[Piece, list[OptionMeaning]]]:
    offered, banned = context.offered, context.banned
    bursts = _can_burst(w, candidates)
    primary = context.usable(w, primary_candidates(w, candidates, banned, include_forbidden=context.include_forbidden))
    can_stay = offered.company.policy.max_moves is not None and any(
        c.is_allowed and c.site == w.current_site for c in primary
    )
    levels = range(len(BURST_LEVELS)) if bursts else range(1)
    options = [(c, level) for c in primary for level in levels if level == 0 or (c.hardware and c.lease != HOURLY)]
    choices = [
        _count_move(w, can_stay, _choice(context, w, c, PRIMARY, level, (w.name, c.config) in banned))
        for c, level in options
    ]
    yield Piece(tuple(choices), PRIMARY, w.current_site), [OptionMeaning(PRIMARY, level, c) for c, level in options]
    if bursts:
        bursting = [
            (c, level) for c in candidates for level in levels if level and c.kind == "deployment" and c.is_allowed
        ]
        meanings = [OptionMeaning(BURST, 0, None), *(OptionMeaning(BURST, level, c) for c, level in bursting)]
        nothing = Choice(None, config="nothing to burst")
        yield Piece((nothing, *(_choice(context, w, c, BURST, level) for c, level in bursting)), BURST), meanings
    needs_availability = w.requires_availability and w.availability is not None and w.fallback != "none"
    if (
        w.fallback == "required"
        or needs_availability
        or (context.with_wanted_fallbacks and _can_fall_back(offered, w, candidates))
    ):
        standby = [c for c in candidates if can_be_fallback(w, c)] or [c for c in candidates if not c.lease]
        standby = standby if context.include_forbidden else [c for c in standby if c.is_allowed] or standby
        fallbacks = [_choice(context, w, c, FALLBACK, 0) for c in standby]
        meant_by: list[Candidate | None] = list(standby)
        if needs_availability and w.fallback != "required":
            fallbacks.append(Choice(None, config="no fallback is needed"))
            meant_by.append(None)
        yield Piece(tuple(fallbacks), FALLBACK), [OptionMeaning(FALLBACK, 0, each) for each in meant_by]


def _count_move(w: WorkloadFacts, can_stay: bool, choice: Choice) -> Choice:
    """The choice, counted as a move where moves are limited and the workload could stay where it runs."""
    if not can_stay or choice.site == w.current_site:
        return choice
    return replace(choice, uses={**choice.uses, MOVES_QUOTA: 1})


def primary_candidates(
    w: WorkloadFacts,
    candidates: tuple[Candidate, ...],
    banned: frozenset[tuple[str, str]] = frozenset(),
    *,
    include_forbidden: bool = True,
) -> list[Candidate]:
    """The candidates for the primary. With a declared order, only the first allowed one of it: the others get a rule
    that says so, or are left out without `include_forbidden`."""
    if w.is_planned:
        return list(candidates)
    named = {c.config: c for c in candidates if c.kind == "deployment"}
    usable = [name for name in (*w.declared, *w.declared_fallbacks) if name in named and named[name].is_allowed]
    first = next((name for name in usable if (w.name, name) not in banned), None)
    if not include_forbidden and first is not None:
        return [named[first]]
    rule = "the declared order puts another first"
    return [c if c.config == first or c.rules else _with_rule(c, rule) for c in candidates]


def _with_rule(candidate: Candidate, rule: str) -> Candidate:
    return replace(candidate, rules=(*candidate.rules, rule))


def _can_burst(w: WorkloadFacts, candidates: tuple[Candidate, ...]) -> bool:
    own = any(c.is_allowed and c.hardware is not None for c in candidates)
    return (
        w.burst
        and w.is_planned
        and own
        and any(c.is_allowed and c.kind == "deployment" and not c.hardware for c in candidates)
    )


def _can_fall_back(offered: CandidateSet, w: WorkloadFacts, candidates: tuple[Candidate, ...]) -> bool:
    """Whether a wanted fallback is possible: two failure domains may serve the workload."""
    if w.fallback != "wanted":
        return False
    standby = [c for c in candidates if c.is_allowed and can_be_fallback(w, c)]
    domains = {offered.company.sites[c.site].domain for c in standby}
    first = {
        offered.company.sites[c.site].domain
        for c in primary_candidates(w, candidates, include_forbidden=False)
        if c.is_allowed
    }
    return bool(domains) and len(domains | first) > 1


def _choice(
    context: _PieceContext, w: WorkloadFacts, c: Candidate, role: int, level: int, is_banned: bool = False
) -> Choice:
    terms, units = price_role(w, c, role, level)
    uses = _uses(context, w, c, role, level)
    if c.quota:
        uses[f"quota {c.config}"] = round(c.quota * (BURST_LEVELS[level] if role == PRIMARY else 1))
    remaining = without_hardware_charge(terms, hardware_charge(context.offered, context.pools, c, terms, units))
    picodollars = {name: to_picodollars(min(value, MAX_USD)) for name, value in remaining.items()}
    rules = (*c.rules, "asked for what comes next") if is_banned else c.rules
    return Choice(c.site, picodollars, uses, c.config, level, rules)


def hardware_charge(
    offered: CandidateSet, pools: Mapping[str, Pool], c: Candidate, terms: Mapping[str, float], units: float
) -> float:
    """USD a month of its hardware that a tier or a pool charges, so that the option must not charge it again."""
    if c.lease:
        return terms.get("compute", 0.0) + terms.get("idle", 0.0)
    pool = pool_of(pools, c)
    return units * (_tier_price(offered, c) if pool is None else pool.price)


def _uses(context: _PieceContext, w: WorkloadFacts, c: Candidate, role: int, level: int) -> dict[str, int]:
    """Row -> amount that the choice uses: thousandths of units at its site, and its gain of availability."""
    uses: dict[str, int] = {}
    _, units = price_role(w, c, role, level)
    pool = pool_of(context.pools, c)
    if pool is not None and pool.is_own:
        uses = pool_use(pool, w, c, BURST_LEVELS[level] if role == PRIMARY else 1.0) if units else {}
    elif c.hardware:
        units = max(units, min(c.min_units, c.units)) if units and not c.lease else units
        amount = round(min(units, 10**6) * MILLI)
        share = units / c.units if c.units else 0.0
        uses = {
            _lease_row(context, c, block): round(min(each * share, 10**6) * MILLI)
            for block, each in c.units_by_block.items()
        } or {c.hardware: amount}
        uses[_rental_limit_row(c.hardware)] = amount
    if w.requires_availability and w.availability is not None and role != BURST:
        uses[_availability_row(w)] = -availability_gain(c.availability)
    return {name: use for name, use in uses.items() if use or name == c.hardware}


def _lease_row(context: _PieceContext, c: Candidate, block: str) -> str:
    """The row of units rented in one part of the week: the site's own, or the one that a commitment adds to."""
    name = lease_row_name(c.hardware or "", c.lease, block, c.model, c.group)
    return pool_row_name(c.site, name) if pool_of(context.pools, c) is not None else name


def _tier_price(offered: CandidateSet, c: Candidate) -> float:
    """USD a month that a tier charges for a unit of the candidate's hardware; 0 if none does."""
    found = next((h for h in offered.company.sites[c.site].hardware if h.type == c.hardware), None)
    return c.unit_month if found is not None and not found.count and found.rental_price is not None else 0.0


def without_hardware_charge(terms: Mapping[str, float], charge: float) -> dict[str, float]:
    paid = terms.get("compute", 0.0) + terms.get("idle", 0.0)
    keep = max(0.0, 1 - charge / paid) if paid else 1.0
    return {n: v * keep if n in ("compute", "idle") else v for n, v in terms.items()}


def price_role(w: WorkloadFacts, c: Candidate, role: int, level: int) -> tuple[dict[str, float], float]:
    """(cost terms in USD a month, units) of a candidate in a role: base load up to the burst level, the load above it,
    or a fallback on standby."""
    burst_share = share_above_level(w.curve, BURST_LEVELS[level])
    terms = dict(c.terms)
    if role == PRIMARY:
        if level == 0:
            return terms, c.units
        paid = (terms.get("compute", 0.0) + terms.get("idle", 0.0)) * BURST_LEVELS[level]
        busy = terms.get("compute", 0.0) * (1 - burst_share)
        scaled = {
            n: v * (1 - burst_share) if n in ("egress", "carbon", "penalty", "tokens") else v for n, v in terms.items()
        }
        return {**scaled, "compute": busy, "idle": max(0.0, paid - busy)}, c.units * BURST_LEVELS[level]
    if role == BURST:
        kept = ("tokens", "egress", "carbon", "penalty", "compute", "idle")
        return {n: v * (burst_share if n in kept else 1.0 if n == "people" else 0.0) for n, v in terms.items()}, c.units
    paid = terms.get("compute", 0.0) + terms.get("idle", 0.0)
    share = {
        "tokens": FALLBACK_SHARE,
        "egress": FALLBACK_SHARE,
        "carbon": 0.1,
        "penalty": FALLBACK_SHARE,
        "people": 1.0,
        "storage": 1.0,
    }
    standing = {n: v * share.get(n, 0.0) for n, v in terms.items()}
    if w.fallback == "required" or (w.requires_availability and w.availability is not None):
        return {**standing, "idle": paid}, c.units
    return standing, 0.0


def to_picodollars(usd: float) -> int:
    """USD in whole picodollars, limited to 0..`MAX_USD`; values that are not finite become `MAX_USD`."""
    return round(min(max(usd, 0.0), MAX_USD) * PICO) if isfinite(usd) else round(MAX_USD * PICO)
