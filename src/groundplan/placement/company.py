"""From a company's candidates to the problem of the solver, and from its answer back to named choices.

Each workload has its primary; its fallback in another failure domain where one is wanted and possible; and, where it
may burst from own or rented hardware into hosted deployments, a level: 0 everything at the primary, 1 and 2 a base of
75 or 50 % of the peak there and the rest elsewhere. Whole units of rented hardware are tiers that workloads share.
Pure; solving is `planner`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

from groundplan.core.money import PICO
from groundplan.placement.assemble import Choice, Job, Offer, Piece, Place, Quota, Spread, assemble
from groundplan.placement.problem import BURST, FALLBACK, PRIMARY, Problem
from groundplan.placement.terms.candidates import Candidate, Offered
from groundplan.placement.terms.curve import above
from groundplan.placement.terms.facts import HOURS, HardwareFacts, SiteFacts, WorkloadFacts

MILLI = 1000
"""Hardware is counted in thousandths of a unit"""
DEAREST = 2_000_000.0
"""USD a month: what is beyond is never chosen, and forbidden anyway"""
LEVELS = (1.0, 0.75, 0.5)
"""Part of the peak that the primary bears at each burst level"""
FAILING = 0.005
"""Share of the calls that a fallback is taken to answer"""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one option of the problem means."""

    role: int
    level: int
    candidate: Candidate | None
    """None: nothing to burst"""


@dataclass(frozen=True, slots=True)
class Framed:
    """The problem with the meaning of its options."""

    offered: Offered
    problem: Problem
    options: tuple[Taken, ...]
    notes: tuple[str, ...] = ()


def frame(offered: Offered, *, wanted: bool = True, banned: frozenset[tuple[str, str]] = frozenset()) -> Framed:
    """The problem of a company. `wanted` False leaves out fallbacks that are only wanted; `banned` are (workload,
    config) that may not be the primary, for asking what comes next."""
    company = offered.company
    jobs: list[Job] = []
    meanings: list[Taken] = []
    for name, candidates in offered.by_workload.items():
        workload = company.workloads[name]
        pieces = list(_pieces(offered, workload, candidates, wanted, banned))
        jobs.append(Job(name, tuple(piece for piece, _ in pieces)))
        for _, meant in sorted(pieces, key=lambda each: each[0].role):
            meanings += meant
    production = tuple(w.name for _, w in sorted(company.workloads.items()) if w.stage == "production")
    most = company.policy.spread
    spreads = (Spread(f"at most {most} in one failure domain", production, most),) if most and production else ()
    quotas = tuple(
        Quota(f"quota {d.name}", round(d.quota_tokens_minute))
        for _, d in sorted(company.deployments.items())
        if d.quota_tokens_minute is not None
    )
    places = [_place(offered, site) for _, site in sorted(company.sites.items())]
    return Framed(offered, assemble(places, jobs, quotas, spreads), tuple(meanings), company.notes)


def opening_usd(offered: Offered, site: SiteFacts) -> float:
    """A month of a site once anything runs there: its people, its rack, and its setup over the payback time."""
    policy = offered.company.policy
    return site.burden_hours * policy.people_usd + site.rack_usd + site.setup_usd / policy.payback_months


def _place(offered: Offered, site: SiteFacts) -> Place:
    capacity: dict[str, int] = {}
    offers: list[Offer] = []
    for each in site.hardware:
        capacity[each.type] = capacity.get(each.type, 0) + each.count * MILLI
        if each.rented is not None:
            extra = max(0.0, each.rented * HOURS - (_sunk(each) if each.count else 0.0))
            how = "reserved" if each.rented == each.reserved else "on demand"
            offers.append(Offer(f"{each.type} {how}", each.type, MILLI, pico(extra), each.most))
    return Place(site.name, site.domain, capacity, pico(opening_usd(offered, site)), tuple(offers))


def _sunk(hardware: HardwareFacts) -> float:
    return hardware.owned_month or 0.0


def _pieces(
    offered: Offered,
    w: WorkloadFacts,
    candidates: tuple[Candidate, ...],
    wanted: bool,
    banned: frozenset[tuple[str, str]],
) -> Iterable[tuple[Piece, list[Taken]]]:
    bursts = _may_burst(w, candidates)
    first = primaries(w, candidates, banned)
    levels = range(len(LEVELS)) if bursts else range(1)
    own = [(c, level) for c in first for level in levels if level == 0 or c.hardware is not None]
    choices = [_choice(offered, w, c, PRIMARY, level, (w.name, c.config) in banned) for c, level in own]
    yield Piece(tuple(choices), PRIMARY, w.today), [Taken(PRIMARY, level, c) for c, level in own]
    if bursts:
        spill = [(c, level) for c in candidates for level in levels if level and c.kind == "deployment" and c.allowed]
        meant = [Taken(BURST, 0, None), *(Taken(BURST, level, c) for c, level in spill)]
        nothing = Choice(None, config="nothing to burst")
        yield Piece((nothing, *(_choice(offered, w, c, BURST, level) for c, level in spill)), BURST), meant
    if w.fallback == "required" or (wanted and _may_fall_back(offered, w, candidates)):
        standing = [c for c in candidates if _stands_in(w, c)] or list(candidates)
        yield (
            Piece(tuple(_choice(offered, w, c, FALLBACK, 0) for c in standing), FALLBACK),
            [Taken(FALLBACK, 0, c) for c in standing],
        )


def primaries(
    w: WorkloadFacts, candidates: tuple[Candidate, ...], banned: frozenset[tuple[str, str]] = frozenset()
) -> list[Candidate]:
    """What may come first: with a declared order, the first of it that is allowed; others say so."""
    if w.planned:
        return list(candidates)
    named = {c.config: c for c in candidates if c.kind == "deployment"}
    usable = [name for name in (*w.declared, *w.later) if name in named and named[name].allowed]
    first = next((name for name in usable if (w.name, name) not in banned), None)
    rule = "the declared order puts another first"
    return [c if c.config == first or c.rules else _with_rule(c, rule) for c in candidates]


def _with_rule(candidate: Candidate, rule: str) -> Candidate:
    values = {name: getattr(candidate, name) for name in candidate.__slots__}
    return Candidate(**{**values, "rules": (*candidate.rules, rule)})


def _may_burst(w: WorkloadFacts, candidates: tuple[Candidate, ...]) -> bool:
    own = any(c.allowed and c.hardware is not None for c in candidates)
    return (
        w.burst
        and w.planned
        and own
        and any(c.allowed and c.kind == "deployment" and not c.hardware for c in candidates)
    )


def _stands_in(w: WorkloadFacts, candidate: Candidate) -> bool:
    """With declared fallbacks these, else whatever is declared."""
    if candidate.kind != "deployment":
        return not w.declared and not w.later
    return not w.later or candidate.config in w.later or candidate.config in w.declared


def _may_fall_back(offered: Offered, w: WorkloadFacts, candidates: tuple[Candidate, ...]) -> bool:
    """A wanted fallback is asked for where two domains may serve, one of them without hardware of ours."""
    if w.fallback != "wanted":
        return False
    standing = [c for c in candidates if c.allowed and _stands_in(w, c)]
    domains = {offered.company.sites[c.site].domain for c in standing}
    first = {offered.company.sites[c.site].domain for c in primaries(w, candidates) if c.allowed}
    return bool(domains) and len(domains | first) > 1


def _choice(offered: Offered, w: WorkloadFacts, c: Candidate, role: int, level: int, banned: bool = False) -> Choice:
    terms, units = priced(w, c, role, level)
    uses = {c.hardware: round(min(units, 10**6) * MILLI)} if c.hardware else {}
    if c.quota:
        uses[f"quota {c.config}"] = round(c.quota * (LEVELS[level] if role == PRIMARY else 1))
    rented = _rented(offered, c)
    whole = {name: pico(min(value, DEAREST)) for name, value in _without_units(terms, units * rented).items()}
    rules = (*c.rules, "asked for what comes next") if banned else c.rules
    return Choice(c.site, whole, uses, c.config, level, rules)


def _rented(offered: Offered, c: Candidate) -> float:
    """USD a month of a unit that a tier charges already, so that the option must not."""
    found = next((h for h in offered.company.sites[c.site].hardware if h.type == c.hardware), None)
    return c.unit_month if found is not None and not found.count and found.rented is not None else 0.0


def _without_units(terms: Mapping[str, float], charged: float) -> dict[str, float]:
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
    if w.fallback == "required":
        return {**standing, "idle": paid}, c.units
    return standing, 0.0


def pico(usd: float) -> int:
    """Whole picodollars; what is not finite is the dearest."""
    return round(min(max(usd, 0.0), DEAREST) * PICO) if isfinite(usd) else round(DEAREST * PICO)
