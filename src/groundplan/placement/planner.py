"""Plan a company: frame the problem, solve and verify it, and return placements by name and cost.

Deterministic under a work limit. A placement that fails verification is never returned. `explain` explains a plan;
nothing is stored here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from groundplan.core.errors import Conflict, Invalid
from groundplan.core.money import PICO
from groundplan.placement.company import (
    BURST_LEVELS,
    FramedProblem,
    OptionMeaning,
    frame_problem,
    opening_usd,
    primary_candidates,
)
from groundplan.placement.cost_shares import (
    initial_choice,
    rented_beyond_own,
    share_factors,
    shared_terms,
    shared_units,
)
from groundplan.placement.pools import MILLI
from groundplan.placement.problem import BURST, DEFAULT_WORK, FALLBACK, POOL, PRIMARY, Solution, WorkLimit
from groundplan.placement.ramp import immediate_moves, ramp_origin
from groundplan.placement.terms.candidates import Candidate, CandidateSet, build_candidates
from groundplan.placement.terms.facts import Company, HardwareFacts, SiteFacts, WorkloadFacts
from groundplan.placement.verify.company import PlacedWorkload, PlanClaim, SharedUnits, find_violations
from groundplan.placement.verify.plan import verify


@dataclass(frozen=True, slots=True)
class WorkloadPlacement:
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

    framed: FramedProblem
    solution: Solution
    placements: Mapping[str, WorkloadPlacement]
    opened: Mapping[str, float]
    """site -> USD a month of having it open"""
    bought: Mapping[str, int]
    """rented units by `SITE TYPE unit`"""
    rounding_usd: float
    """USD a month of rented units that are whole while the loads are not"""
    notes: tuple[str, ...]
    unplaceable: Mapping[str, str]
    """workload -> why nowhere may run it"""
    shared_hardware: Mapping[str, SharedUnits] = field(default_factory=dict)
    """pool -> units that workloads share over the hours of a week: own ones that are held, rented ones to commit to"""
    immediate_moves: Mapping[str, str] = field(default_factory=dict)
    """workload -> why its change of place cannot be made in steps"""

    @property
    def company(self) -> Company:
        return self.framed.candidates.company

    @property
    def usd(self) -> float:
        """USD a month, as the verifier recomputed it."""
        return self.solution.cost / PICO

    @property
    def gap(self) -> float | None:
        found = self.solution.gap
        return None if found is None else float(found)

    @property
    def carbon_kg(self) -> float:
        return sum(each.primary.carbon_kg for each in self.placements.values())

    @property
    def hours(self) -> float:
        """Hours of people a month: of open sites, and of models by each workload's share of them."""
        sites, rate = self.company.sites, max(self.company.policy.people_usd, 1e-9)
        models = sum(each.terms.get("people", 0.0) for each in self.placements.values()) / rate
        return sum(sites[name].burden_hours for name in self.opened) + models


OPTIMAL_GAP = Fraction(1, 10**9)
"""A gap below a cent in ten million USD counts as optimal"""
DEFAULT_LIMIT = WorkLimit(work=DEFAULT_WORK, gap=1e-9)
SHARING_WORK = 12
"""units of work spent on sharing hardware over the week, after the plan without sharing"""


def plan_company(company: Company, limit: WorkLimit = DEFAULT_LIMIT) -> CompanyPlan:
    """Place all workloads of a company. Raises `Conflict` (`placement_conflict`) with the rules that contradict each
    other."""
    return plan_candidates(build_candidates(company), limit)


def plan_candidates(
    offers: CandidateSet, limit: WorkLimit = DEFAULT_LIMIT, banned: frozenset[tuple[str, str]] = frozenset()
) -> CompanyPlan:
    """Place all workloads, given their candidates. `banned`: (workload, config) that may not be the primary. Raises as
    `plan_company`."""
    unplaceable = find_unplaceable(offers, banned)
    offers = CandidateSet(offers.company, {n: c for n, c in offers.by_workload.items() if n not in unplaceable})
    if not offers.company.workloads:
        raise Conflict(
            "there is nothing to place: no workload asks a chat model",
            code="placement_empty",
            hint="Deployments of other types are used as they are named, under embeddings and also.",
        )
    if not offers.by_workload:
        raise Conflict(
            "no workload may run anywhere: " + "; ".join(f"{name} ({why})" for name, why in unplaceable.items())[:2000],
            code="placement_nowhere",
            hint="Relax one of these rules, or declare a site, a deployment or hardware that they allow.",
        )
    notes: list[str] = []
    framed, solution = _frame_and_solve(offers, limit, True, banned)
    wanted = True
    if not solution.is_found:
        without_wanted = frame_problem(offers, with_wanted_fallbacks=False, banned=banned, include_forbidden=False)
        if len(without_wanted.options) != len(framed.options):
            wanted = False
            framed, solution = _frame_and_solve(offers, limit, wanted, banned)
            notes.append("there is no room for fallbacks that are only wanted: they are left out")
    if not solution.is_found:
        raise _explain_conflict(frame_problem(offers, with_wanted_fallbacks=wanted, banned=banned), solution)
    report = verify(framed.problem, solution)
    if not report.is_verified:
        raise Invalid(
            f"the placement was refused by its verifier: {report.violations[0].message}",
            code="placement_unverified",
            hint="Nothing of it is shown or applied. Tell the maintainers; the last blueprint goes on.",
        )
    plan = _build_plan(framed, solution, tuple(notes), unplaceable)
    return _verify_claim(
        replace(plan, immediate_moves=immediate_moves(offers, build_claim(plan), permanent_units(plan)))
    )


def _verify_claim(plan: CompanyPlan) -> CompanyPlan:
    """The plan, after verifying it against the declarations. Raises `Invalid` (`placement_unverified`)."""
    wrong = find_violations(plan.company, build_claim(plan))
    if wrong:
        raise Invalid(
            f"the placement was refused by its second verifier: {wrong[0].kind}: {wrong[0].message}",
            code="placement_unverified",
            hint="Nothing of it is shown or applied. Tell the maintainers; the last blueprint goes on.",
        )
    return plan


def build_claim(plan: CompanyPlan) -> PlanClaim:
    """The claim of a plan, as `verify.company` checks it."""
    offers = plan.framed.candidates.by_workload
    stays = frozenset(
        name
        for name, w in plan.company.workloads.items()
        if w.current_site is not None and _can_stay(offers.get(name, ()), w)
    )
    placed = {name: _placed_workload(plan, each) for name, each in plan.placements.items()}
    hardware = sum(each.terms.get(term, 0.0) for each in plan.placements.values() for term in ("compute", "idle"))
    return PlanClaim(placed, frozenset(plan.opened), plan.bought, plan.usd, stays, plan.shared_hardware, hardware)


def _placed_workload(plan: CompanyPlan, placement: WorkloadPlacement) -> PlacedWorkload:
    facts = plan.company.workloads[placement.workload]
    old_place = ramp_origin(facts, placement.primary, plan.framed.candidates.by_workload[placement.workload])
    if old_place is None or placement.workload in plan.immediate_moves:
        return PlacedWorkload(
            placement.primary, BURST_LEVELS[placement.level], placement.burst, placement.fallback, placement.usd
        )
    return PlacedWorkload(
        placement.primary,
        BURST_LEVELS[placement.level],
        placement.burst,
        placement.fallback,
        placement.usd,
        old_place,
        facts.ramp,
    )


def _can_stay(candidates: Iterable[Candidate], w: WorkloadFacts) -> bool:
    return any(
        c.is_allowed and c.site == w.current_site
        for c in primary_candidates(w, tuple(candidates), include_forbidden=False)
    )


def find_unplaceable(offers: CandidateSet, banned: frozenset[tuple[str, str]] = frozenset()) -> dict[str, str]:
    """Workload -> the rules that forbid its candidates, for workloads without an allowed candidate."""
    found = {}
    for name, candidates in offers.by_workload.items():
        if any(c.is_allowed and (name, c.config) not in banned for c in candidates):
            continue
        reasons = "; ".join(f"{c.config} at {c.site}: {', '.join(c.rules) or 'taken'}" for c in candidates[:8])
        found[name] = reasons or "no deployment and no model with hardware is declared"
    return found


def _frame_and_solve(
    offers: CandidateSet, limit: WorkLimit, with_wanted_fallbacks: bool, banned: frozenset[tuple[str, str]]
) -> tuple[FramedProblem, Solution]:
    """The framed problem and its solution. Where hardware can be shared over the week, the search starts from the best
    plan without sharing."""
    from groundplan.placement.solve.optimise import optimise  # noqa: PLC0415 -- numbers only where something is planned

    framed = frame_problem(offers, with_wanted_fallbacks=with_wanted_fallbacks, banned=banned, include_forbidden=False)
    if not framed.pools:
        return framed, optimise(framed.problem, limit)
    unshared = optimise(
        frame_problem(
            offers,
            with_wanted_fallbacks=with_wanted_fallbacks,
            banned=banned,
            share_hardware=False,
            include_forbidden=False,
        ).problem,
        limit,
    )
    if limit.work is not None:
        limit = replace(limit, work=min(limit.work, SHARING_WORK))
    return framed, optimise(
        framed.problem, limit, initial_choice(framed, unshared.choice) if unshared.is_found else None
    )


def _explain_conflict(framed: FramedProblem, solution: Solution) -> Conflict:
    """The error that names the smallest set of contradicting rules, with the cost of relaxing each."""
    sentence, relaxed = "no placement was found in time", ""
    if solution.stop_reason == "infeasible":
        from groundplan.placement.conflict import find_conflict  # noqa: PLC0415 -- only where nothing is feasible

        found = find_conflict(framed.problem)
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


def _build_plan(
    framed: FramedProblem, solution: Solution, notes: tuple[str, ...], unplaceable: Mapping[str, str]
) -> CompanyPlan:
    problem, company = framed.problem, framed.candidates.company
    parts: dict[str, dict[int, OptionMeaning]] = {name: {} for name in framed.candidates.by_workload}
    amounts: dict[str, int] = {}
    for part, option in enumerate(solution.choice):
        taken = framed.options[int(option)]
        if taken.role == POOL:
            amounts[taken.pool] = amounts.get(taken.pool, 0) + taken.amount
        else:
            parts[problem.workloads[int(problem.parts.workload[part])]][taken.role] = taken
    shared = shared_units(framed, amounts)
    shares = share_factors(framed, amounts, parts, solution)
    decided = {name: _workload_placement(framed, name, roles, shares) for name, roles in parts.items()}
    sites = {c.site for each in decided.values() for c in (each.primary, each.burst, each.fallback) if c is not None}
    opened = {name: opening_usd(framed.candidates, company.sites[name]) for name in sorted(sites)}
    bought = rented_beyond_own(framed, amounts)
    for name, units in zip(problem.tiers.names, solution.units, strict=True):
        if units:
            bought[name] = bought.get(name, 0) + int(units)
    total = sum(each.usd for each in decided.values()) + sum(opened.values())
    return CompanyPlan(
        framed,
        solution,
        decided,
        opened,
        bought,
        solution.cost / PICO - total,
        (*framed.notes, *notes),
        unplaceable,
        shared,
    )


def _workload_placement(
    framed: FramedProblem, name: str, roles: Mapping[int, OptionMeaning], shares: Mapping[str, float]
) -> WorkloadPlacement:
    workload = framed.candidates.company.workloads[name]
    terms: dict[str, float] = {}
    for taken in roles.values():
        if taken.candidate is not None:
            for term, usd in shared_terms(framed, workload, taken, shares).items():
                terms[term] = terms.get(term, 0.0) + usd
    first = roles[PRIMARY]
    assert first.candidate is not None
    burst, fallback = roles.get(BURST), roles.get(FALLBACK)
    return WorkloadPlacement(
        name,
        first.candidate,
        first.level,
        burst.candidate if burst else None,
        fallback.candidate if fallback else None,
        {term: usd for term, usd in terms.items() if usd},
    )


def describe_proof(plan: CompanyPlan) -> str:
    """The proven quality in words: `proven optimal`, `within 0.4 % of the optimum (dual multipliers)`."""
    gap: Fraction | None = plan.solution.gap
    if gap is not None and gap < OPTIMAL_GAP:
        return "proven optimal"
    proof = plan.solution.certificate.proof
    return "no bound is proven" if gap is None else f"within {100 * float(gap):.2g} % of the optimum ({proof})"


def units_used(plan: CompanyPlan) -> dict[str, tuple[float, float]]:
    """`SITE TYPE` -> (units used in the busiest hour, units owned or bought), for the capacities of sites."""
    problem, solution = plan.framed.problem, plan.solution
    options, rows = problem.options, problem.rows
    used, added = np.zeros(len(rows.names)), np.zeros(len(rows.names))
    for option in solution.choice:
        low, high = options.row_start[option], options.row_start[option + 1]
        np.add.at(used, options.row[low:high], np.maximum(options.use[low:high], 0))
        np.add.at(added, options.row[low:high], np.maximum(-options.use[low:high], 0))
    available = rows.capacity.astype(np.float64) + added
    for tier, units in enumerate(solution.units):
        available[problem.tiers.row[tier]] += units * problem.tiers.size[tier]
    own = {name: pool for pool in plan.framed.pools.values() if pool.is_own for name in pool.rows}
    found: dict[str, tuple[float, float]] = {}
    for row in range(len(rows.names)):
        if rows.kind[row] in ("capacity", "pool") and used[row] > 0:
            pool = own.get(rows.names[row])
            name, there = rows.names[row], float(available[row])
            if pool is not None:
                idle = pool.capacity - MILLI * (
                    plan.shared_hardware[pool.name].units if pool.name in plan.shared_hardware else 0.0
                )
                name, there = pool.name, there + idle
            found[name] = (max(found.get(name, (0.0, 0.0))[0], float(used[row]) / MILLI), there / MILLI)
    return found


def permanent_units(plan: CompanyPlan) -> dict[tuple[str, str], float]:
    """(site, type) -> units available all the time: own ones, and those rented for whole months."""
    return {
        (site.name, h.type): h.count
        + sum(plan.bought.get(f"{site.name} {h.type} {how}", 0) for how in ("on demand", "reserved"))
        + sum(each.units for each in plan.shared_hardware.values() if h.count and _is_committed(each, site, h))
        for site in plan.company.sites.values()
        for h in site.hardware
    }


def _is_committed(each: SharedUnits, site: SiteFacts, hardware: HardwareFacts) -> bool:
    """Whether these are committed units of this hardware."""
    return bool(each.months) and (each.site, each.type) == (site.name, hardware.type)
