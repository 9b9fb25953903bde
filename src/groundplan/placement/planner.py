"""The plan of a company: framed, solved, verified, and told in names and money. Deterministic under a work limit.

A placement that the verifier does not pass is never returned. Explaining it is `explain`; nothing is stored here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from groundplan.core.errors import Conflict, Invalid
from groundplan.core.money import PICO
from groundplan.placement.company import LEVELS, Framed, Taken, frame, opening_usd, primaries
from groundplan.placement.cost_shares import factors, held, rented, shared_terms, started
from groundplan.placement.pools import MILLI
from groundplan.placement.problem import BURST, DEFAULT_WORK, FALLBACK, POOL, PRIMARY, Solution, WorkLimit
from groundplan.placement.ramp import at_once, origin
from groundplan.placement.terms.candidates import Candidate, Offered, offered
from groundplan.placement.terms.facts import Company, HardwareFacts, SiteFacts, WorkloadFacts
from groundplan.placement.verify.company import Claim, Held, Placed, judged
from groundplan.placement.verify.plan import verify


@dataclass(frozen=True, slots=True)
class Decided:
    """Where one workload goes."""

    workload: str
    primary: Candidate
    level: int
    """burst level: 0 nothing bursts"""
    burst: Candidate | None
    fallback: Candidate | None
    terms: Mapping[str, float]
    """USD a month of all its parts, rented units by its share"""

    @property
    def usd(self) -> float:
        return sum(self.terms.values())


@dataclass(frozen=True, slots=True, eq=False)
class CompanyPlan:
    """A verified placement of a whole company."""

    framed: Framed
    solution: Solution
    decided: Mapping[str, Decided]
    opened: Mapping[str, float]
    """site -> USD a month of having it open"""
    bought: Mapping[str, int]
    """rented units by `SITE TYPE unit`"""
    rounding_usd: float
    """USD a month of rented units that are whole while the loads are not"""
    notes: tuple[str, ...]
    homeless: Mapping[str, str]
    """workload -> why nowhere may run it"""
    held: Mapping[str, Held] = field(default_factory=dict)
    """units that are shared over the hours of a week: own ones that are held, rented ones to commit to; by pool"""
    at_once: Mapping[str, str] = field(default_factory=dict)
    """workload -> why its change of place cannot go over in steps"""

    @property
    def company(self) -> Company:
        return self.framed.offered.company

    @property
    def usd(self) -> float:
        """A month, as the verifier recomputed it."""
        return self.solution.cost / PICO

    @property
    def gap(self) -> float | None:
        found = self.solution.gap
        return None if found is None else float(found)

    @property
    def carbon_kg(self) -> float:
        return sum(each.primary.carbon_kg for each in self.decided.values())

    @property
    def hours(self) -> float:
        """Of people a month: for sites that are open, and for models by what each workload bears of them."""
        sites, rate = self.company.sites, max(self.company.policy.people_usd, 1e-9)
        models = sum(each.terms.get("people", 0.0) for each in self.decided.values()) / rate
        return sum(sites[name].burden_hours for name in self.opened) + models


CLOSED = Fraction(1, 10**9)
"""A gap of less than a cent in ten million USD is none"""
LIMIT = WorkLimit(work=DEFAULT_WORK, gap=1e-9)
SHARING = 12
"""units of work for what sharing hardware over the week can still gain"""


def plan_company(company: Company, limit: WorkLimit = LIMIT) -> CompanyPlan:
    """Place everything. Raises `Conflict` (`placement_conflict`) with the rules that contradict each other."""
    return plan_offered(offered(company), limit)


def plan_offered(
    offers: Offered, limit: WorkLimit = LIMIT, banned: frozenset[tuple[str, str]] = frozenset()
) -> CompanyPlan:
    """As `plan_company` for candidates that are made already."""
    nowhere = homeless(offers, banned)
    offers = Offered(offers.company, {n: c for n, c in offers.by_workload.items() if n not in nowhere})
    if not offers.company.workloads:
        raise Conflict(
            "there is nothing to place: no workload asks a chat model",
            code="placement_empty",
            hint="Deployments of other types are used as they are named, under embeddings and also.",
        )
    if not offers.by_workload:
        raise Conflict(
            "no workload may run anywhere: " + "; ".join(f"{name} ({why})" for name, why in nowhere.items())[:2000],
            code="placement_nowhere",
            hint="Relax one of these rules, or declare a site, a deployment or hardware that they allow.",
        )
    notes: list[str] = []
    framed, solution = _solved(offers, limit, True, banned)
    wanted = True
    if not solution.found:
        again = frame(offers, wanted=False, banned=banned, forbidden=False)
        if len(again.options) != len(framed.options):
            wanted = False
            framed, solution = _solved(offers, limit, wanted, banned)
            notes.append("there is no room for fallbacks that are only wanted: they are left out")
    if not solution.found:
        raise _conflict(frame(offers, wanted=wanted, banned=banned), solution)
    report = verify(framed.problem, solution)
    if not report.verified:
        raise Invalid(
            f"the placement was refused by its verifier: {report.violations[0].what}",
            code="placement_unverified",
            hint="Nothing of it is shown or applied. Tell the maintainers; the last blueprint goes on.",
        )
    plan = _told(framed, solution, tuple(notes), nowhere)
    return _checked(replace(plan, at_once=at_once(offers, claim(plan), units_there(plan))))


def _checked(plan: CompanyPlan) -> CompanyPlan:
    """The plan, judged once more by what was declared. Raises `Invalid` where it breaks any of it."""
    wrong = judged(plan.company, claim(plan))
    if wrong:
        raise Invalid(
            f"the placement was refused by its second verifier: {wrong[0].kind}: {wrong[0].what}",
            code="placement_unverified",
            hint="Nothing of it is shown or applied. Tell the maintainers; the last blueprint goes on.",
        )
    return plan


def claim(plan: CompanyPlan) -> Claim:
    """What is judged of a plan."""
    offers = plan.framed.offered.by_workload
    stays = frozenset(
        name for name, w in plan.company.workloads.items() if w.today is not None and _stays(offers.get(name, ()), w)
    )
    placed = {name: _placed(plan, each) for name, each in plan.decided.items()}
    hardware = sum(each.terms.get(term, 0.0) for each in plan.decided.values() for term in ("compute", "idle"))
    return Claim(placed, frozenset(plan.opened), plan.bought, plan.usd, stays, plan.held, hardware)


def _placed(plan: CompanyPlan, each: Decided) -> Placed:
    facts = plan.company.workloads[each.workload]
    before = origin(facts, each.primary, plan.framed.offered.by_workload[each.workload])
    if before is None or each.workload in plan.at_once:
        return Placed(each.primary, LEVELS[each.level], each.burst, each.fallback, each.usd)
    return Placed(each.primary, LEVELS[each.level], each.burst, each.fallback, each.usd, before, facts.ramp)


def _stays(candidates: Iterable[Candidate], w: WorkloadFacts) -> bool:
    return any(c.allowed and c.site == w.today for c in primaries(w, tuple(candidates), forbidden=False))


def homeless(offers: Offered, banned: frozenset[tuple[str, str]] = frozenset()) -> dict[str, str]:
    """Workloads of which no candidate is allowed, with the rules of each."""
    found = {}
    for name, candidates in offers.by_workload.items():
        if any(c.allowed and (name, c.config) not in banned for c in candidates):
            continue
        told = "; ".join(f"{c.config} at {c.site}: {', '.join(c.rules) or 'taken'}" for c in candidates[:8])
        found[name] = told or "no deployment and no model with hardware is declared"
    return found


def _solved(
    offers: Offered, limit: WorkLimit, wanted: bool, banned: frozenset[tuple[str, str]]
) -> tuple[Framed, Solution]:
    """The problem and its answer; where hardware is shared over the week, begun from the best plan that shares none."""
    from groundplan.placement.solve.optimise import optimise  # noqa: PLC0415 -- numbers only where something is planned

    framed = frame(offers, wanted=wanted, banned=banned, forbidden=False)
    if not framed.pools:
        return framed, optimise(framed.problem, limit)
    plain = optimise(frame(offers, wanted=wanted, banned=banned, pooled=False, forbidden=False).problem, limit)
    if limit.work is not None:
        limit = replace(limit, work=min(limit.work, SHARING))
    return framed, optimise(framed.problem, limit, started(framed, plain.choice) if plain.found else None)


def _conflict(framed: Framed, solution: Solution) -> Conflict:
    """The smallest set of rules that cannot hold together, with what relaxing each would cost."""
    sentence, relaxed = "no placement was found in time", ""
    if solution.stopped == "infeasible":
        from groundplan.placement.conflict import conflict  # noqa: PLC0415 -- only where nothing is feasible

        found = conflict(framed.problem)
        sentence = "rules, capacities and fallbacks contradict each other"
        if found is not None:
            sentence = f"these cannot hold together: {'; '.join(each.rule for each in found.rules)}"
            priced = [f"{r.rule}: ${r.cost / PICO:,.2f} a month in all" for r in found.rules if r.cost is not None]
            relaxed = f" Without one of them: {'; '.join(priced)}." if priced else ""
    return Conflict(
        f"the workloads cannot all be placed: {sentence}.{relaxed}",
        code="placement_conflict",
        hint="Relax a rule or add capacity; `groundplan placement what-if` tries it.",
    )


def _told(framed: Framed, solution: Solution, notes: tuple[str, ...], nowhere: Mapping[str, str]) -> CompanyPlan:
    problem, company = framed.problem, framed.offered.company
    parts: dict[str, dict[int, Taken]] = {name: {} for name in framed.offered.by_workload}
    amounts: dict[str, int] = {}
    for part, option in enumerate(solution.choice):
        taken = framed.options[int(option)]
        if taken.role == POOL:
            amounts[taken.pool] = amounts.get(taken.pool, 0) + taken.held
        else:
            parts[problem.workloads[int(problem.parts.workload[part])]][taken.role] = taken
    kept = held(framed, amounts)
    shares = factors(framed, amounts, parts, solution)
    decided = {name: _decided(framed, name, roles, shares) for name, roles in parts.items()}
    sites = {c.site for each in decided.values() for c in (each.primary, each.burst, each.fallback) if c is not None}
    opened = {name: opening_usd(framed.offered, company.sites[name]) for name in sorted(sites)}
    bought = rented(framed, amounts)
    for name, units in zip(problem.tiers.names, solution.units, strict=True):
        if units:
            bought[name] = bought.get(name, 0) + int(units)
    total = sum(each.usd for each in decided.values()) + sum(opened.values())
    return CompanyPlan(
        framed, solution, decided, opened, bought, solution.cost / PICO - total, (*framed.notes, *notes), nowhere, kept
    )


def _decided(framed: Framed, name: str, roles: Mapping[int, Taken], shares: Mapping[str, float]) -> Decided:
    workload = framed.offered.company.workloads[name]
    terms: dict[str, float] = {}
    for taken in roles.values():
        if taken.candidate is not None:
            for term, usd in shared_terms(framed, workload, taken, shares).items():
                terms[term] = terms.get(term, 0.0) + usd
    first = roles[PRIMARY]
    assert first.candidate is not None
    burst, fallback = roles.get(BURST), roles.get(FALLBACK)
    return Decided(
        name,
        first.candidate,
        first.level,
        burst.candidate if burst else None,
        fallback.candidate if fallback else None,
        {term: usd for term, usd in terms.items() if usd},
    )


def proven(plan: CompanyPlan) -> str:
    """How good it is, in words: `proven optimal`, `within 0.4 % of the optimum (dual multipliers)`."""
    gap: Fraction | None = plan.solution.gap
    if gap is not None and gap < CLOSED:
        return "proven optimal"
    proof = plan.solution.certificate.proof
    return "no bound is proven" if gap is None else f"within {100 * float(gap):.2g} % of the optimum ({proof})"


def units_used(plan: CompanyPlan) -> dict[str, tuple[float, float]]:
    """`SITE TYPE` -> (units used in the fullest hour, units there or bought), of what is a site's capacity."""
    problem, solution = plan.framed.problem, plan.solution
    options, rows = problem.options, problem.rows
    used, given = np.zeros(len(rows.names)), np.zeros(len(rows.names))
    for option in solution.choice:
        low, high = options.row_start[option], options.row_start[option + 1]
        np.add.at(used, options.row[low:high], np.maximum(options.use[low:high], 0))
        np.add.at(given, options.row[low:high], np.maximum(-options.use[low:high], 0))
    room = rows.capacity.astype(np.float64) + given
    for tier, units in enumerate(solution.units):
        room[problem.tiers.row[tier]] += units * problem.tiers.size[tier]
    own = {name: pool for pool in plan.framed.pools.values() if pool.own for name in pool.rows}
    found: dict[str, tuple[float, float]] = {}
    for row in range(len(rows.names)):
        if rows.kind[row] in ("capacity", "pool") and used[row] > 0:
            pool = own.get(rows.names[row])
            name, there = rows.names[row], float(room[row])
            if pool is not None:
                idle = pool.there - MILLI * (plan.held[pool.name].units if pool.name in plan.held else 0.0)
                name, there = pool.name, there + idle
            found[name] = (max(found.get(name, (0.0, 0.0))[0], float(used[row]) / MILLI), there / MILLI)
    return found


def units_there(plan: CompanyPlan) -> dict[tuple[str, str], float]:
    """(site, type) -> units that stand there all the time: own ones, and those that are rented for whole months."""
    return {
        (site.name, h.type): h.count
        + sum(plan.bought.get(f"{site.name} {h.type} {how}", 0) for how in ("on demand", "reserved"))
        + sum(each.units for each in plan.held.values() if h.count and _signed(each, site, h))
        for site in plan.company.sites.values()
        for h in site.hardware
    }


def _signed(each: Held, site: SiteFacts, hardware: HardwareFacts) -> bool:
    """Whether these are units of its type that a term is signed for."""
    return bool(each.months) and (each.site, each.type) == (site.name, hardware.type)
