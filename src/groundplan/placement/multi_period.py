"""The plan over the coming months: loads grow as declared, placements follow in few moves, units are committed to.

The horizon is cut into periods, each planned for the load at its end. The plans considered are today's, a rolling
sequence in which each follows from the one before (within the policy on moves and payback), and the one for the last
load. Each is priced at every load with its places kept; the cheapest sequence of them, moves included, is a shortest
path. It is the best sequence of these plans, not of all possible ones; each is solved, bounded and verified. Growth is
what workloads declare: nothing is forecast here (`placement drift` shows where actual loads differ).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf
from typing import Any

from groundplan.core.errors import Conflict, Invalid
from groundplan.placement.commit import CommitmentPlan, plan_commitments
from groundplan.placement.explain.plan_summary import places_to_build
from groundplan.placement.explain.words import format_usd
from groundplan.placement.fixed_plan import pin_candidates, with_current_sites, workload_places
from groundplan.placement.planner import CompanyPlan, describe_proof, plan_candidates, plan_company, units_used
from groundplan.placement.problem import WorkLimit
from groundplan.placement.terms.facts import HOURS, Company, HardwareFacts
from groundplan.placement.terms.rentals import BLOCKS, HOURLY

MONTHS, STEP, MAX_MONTHS = 12, 3, 36
NEARLY_FULL = 0.8
"""fraction of own units used at the peak from which more should be ordered"""
START = -1
"""the index of the present state, before any plan"""
PLAN_LIMIT = WorkLimit(work=40, gap=1e-9)
"""the limit of each plan: about twenty are made"""
KEPT_PLACES_RULE = "the plan of these months keeps its places"


@dataclass(frozen=True, slots=True, eq=False)
class Period:
    """The months from `first` to `last` with the plan in force."""

    first: int
    last: int
    plan: CompanyPlan
    moved: tuple[tuple[str, str, str], ...]
    """(workload, from, to) at its beginning"""
    move_usd: float


@dataclass(frozen=True, slots=True, eq=False)
class MultiPeriodPlan:
    """The sequence of plans over the months."""

    periods: tuple[Period, ...]
    usd: float
    """over all periods, moves included"""
    today_usd: float | None
    """with today's places kept throughout; None: they do not suffice"""
    months_covered: int
    """months for which today's places suffice for the load"""
    infeasible_from: tuple[int, str] | None
    """(month, reason) from which on the company cannot be placed"""
    commitments: Mapping[str, CommitmentPlan]
    """by `SITE TYPE`"""


def with_growth(company: Company, months: int) -> Company:
    """The company after `months` months of declared growth."""
    workloads = {
        name: replace(w, calls_month=w.calls_month * (1 + w.growth) ** months) for name, w in company.workloads.items()
    }
    return replace(company, workloads=workloads)


def primary_sites(plan: CompanyPlan) -> dict[str, str]:
    return {name: each.primary.site for name, each in plan.placements.items()}


def plan_ahead(
    plan: CompanyPlan, months: int = MONTHS, step: int = STEP, limit: WorkLimit = PLAN_LIMIT
) -> MultiPeriodPlan:
    """The cheapest sequence of plans from today's through the months. Raises `Invalid` (`ahead_range`)."""
    if not 1 <= step <= months <= MAX_MONTHS or months % step:
        raise Invalid(
            f"{months} months in steps of {step} cannot be planned",
            code="ahead_range",
            hint=f"Up to {MAX_MONTHS} months, in steps that divide them: 12 in steps of 3.",
        )
    loads = [with_growth(plan.company, end) for end in range(step, months + 1, step)]
    rolling, infeasible_from = _rolling_plans(loads, step, limit)
    loads = loads[: len(rolling)]
    if not loads:
        return MultiPeriodPlan((), 0.0, None, 0, infeasible_from, {})
    plans = _distinct_plans([plan, *rolling, plan_company(loads[-1], limit)])
    planned = [[_plan_with_places(candidate, load, limit) for candidate in plans] for load in loads]
    chosen = _cheapest_path(plan, plans, planned, rolling, step)
    periods = tuple(_build_periods(plan, plans, planned, chosen, step))
    today = [each[0] for each in planned]
    months_covered = next((number for number, each in enumerate(today) if each is None), len(today)) * step
    total = sum(each.plan.usd * step + each.move_usd for each in periods)
    kept = sum(each.usd for each in today if each is not None) * step
    kept += _moves_cost(plan.company, _find_moves({}, plans[0], plan))
    return MultiPeriodPlan(
        periods,
        total,
        kept if None not in today else None,
        months_covered,
        infeasible_from,
        _commitments(periods, step),
    )


def _rolling_plans(
    loads: Sequence[Company], step: int, limit: WorkLimit
) -> tuple[list[CompanyPlan], tuple[int, str] | None]:
    """One plan per period, each starting from the sites of the one before, the first from today's; ends where the
    company cannot be placed, with the month and the reason."""
    found: list[CompanyPlan] = []
    before: Mapping[str, str] = {}
    for number, load in enumerate(loads):
        try:
            found.append(plan_company(with_current_sites(load, before), limit))
        except Conflict as error:
            return found, (number * step, error.message)
        before = primary_sites(found[-1])
    return found, None


def _distinct_plans(plans: Sequence[CompanyPlan]) -> list[CompanyPlan]:
    """The plans in their order, without those whose places another one has already."""
    found: list[CompanyPlan] = []
    for plan in plans:
        if all(workload_places(plan) != workload_places(other) for other in found):
            found.append(plan)
    return found


def _plan_with_places(plan: CompanyPlan, load: Company, limit: WorkLimit) -> CompanyPlan | None:
    """The plan for another load with the same places; None where these do not suffice."""
    company = with_current_sites(load, primary_sites(plan))
    try:
        found = plan_candidates(pin_candidates(company, workload_places(plan), KEPT_PLACES_RULE), limit)
    except Conflict:
        return None
    return found if set(found.placements) >= set(plan.placements) else None


def _find_moves(before: Mapping[str, str], plan: CompanyPlan, start: CompanyPlan) -> tuple[tuple[str, str, str], ...]:
    """(workload, from, to) of sites that change; before the first period, from where workloads run today."""
    today = before or {
        name: w.current_site for name, w in start.company.workloads.items() if w.current_site is not None
    }
    return tuple(
        (name, today[name], site)
        for name, site in sorted(primary_sites(plan).items())
        if name in today and today[name] != site
    )


def _moves_cost(company: Company, moved: Sequence[tuple[str, str, str]]) -> float:
    """USD of these moves, once."""
    return sum(company.workloads[name].move_hours for name, _, _ in moved) * company.policy.people_usd


def _cheapest_path(
    plan: CompanyPlan,
    plans: Sequence[CompanyPlan],
    planned: Sequence[Sequence[CompanyPlan | None]],
    rolling: Sequence[CompanyPlan],
    step: int,
) -> list[int]:
    """The index of the plan in force in each period, at the least total cost. The rolling sequence is always allowed,
    whatever the limit of moves."""
    limit = plan.company.policy.max_moves
    number = [
        next(at for at, candidate in enumerate(plans) if workload_places(candidate) == workload_places(each))
        for each in rolling
    ]
    chain = {(START, 0), *zip([START, *number], number, strict=False)}
    best = {START: 0.0}
    back: list[dict[int, int]] = []
    for row in planned:
        reached: dict[int, tuple[float, int]] = {}
        for to, origin in product(range(len(plans)), best):
            priced = row[to]
            moved = _find_moves({} if origin == START else primary_sites(plans[origin]), plans[to], plan)
            few = limit is None or len(moved) <= limit or (origin, to) in chain
            if priced is not None and few:
                cost = best[origin] + _moves_cost(plan.company, moved) + priced.usd * step
                reached[to] = min(reached.get(to, (inf, START)), (cost, origin))
        best = {to: cost for to, (cost, _) in reached.items()}
        back.append({to: origin for to, (_, origin) in reached.items()})
    chosen = [min(best, key=lambda candidate: best[candidate])]
    for here in reversed(back[1:]):
        chosen.append(here[chosen[-1]])
    return chosen[::-1]


def _build_periods(
    plan: CompanyPlan,
    plans: Sequence[CompanyPlan],
    planned: Sequence[Sequence[CompanyPlan | None]],
    chosen: Sequence[int],
    step: int,
) -> Iterator[Period]:
    before: dict[str, str] = {}
    for number, index in enumerate(chosen):
        moved = _find_moves(before, plans[index], plan)
        there = planned[number][index]
        assert there is not None
        yield Period(number * step, (number + 1) * step, there, moved, _moves_cost(plan.company, moved))
        before = primary_sites(plans[index])


def _commitments(periods: Sequence[Period], step: int) -> dict[str, CommitmentPlan]:
    """`SITE TYPE` -> commitments to sign, for hardware that is rented on demand and offered for a term."""
    found: dict[str, CommitmentPlan] = {}
    for name, site in sorted(periods[0].plan.company.sites.items()):
        for hardware in site.hardware:
            if hardware.on_demand is None or not hardware.terms:
                continue
            needed = [_constant_units(each.plan, name, hardware) for each in periods for _ in range(step)]
            terms = [(length, price * HOURS) for length, price in hardware.terms]
            if any(needed):
                found[f"{name} {hardware.type}"] = plan_commitments(needed, hardware.on_demand * HOURS, terms)
    return found


def _constant_units(plan: CompanyPlan, site: str, hardware: HardwareFacts) -> int:
    """Units rented around the clock: for whole months, committed, and those of the quietest part of the week."""
    lead = f"{site} {hardware.type} "
    committed = (
        each
        for each in plan.shared_hardware.values()
        if each.months and (each.site, each.type) == (site, hardware.type)
    )
    constant_units = round(sum(each.units for each in committed)) + sum(
        plan.bought.get(lead + how, 0) for how in ("on demand", "reserved")
    )
    kinds = {name.partition(BLOCKS[0])[2] for name in plan.bought if name.startswith(f"{lead}{HOURLY}, {BLOCKS[0]}")}
    for kind in kinds:
        size = int(kind.split()[1]) if " for " in kind else 1
        constant_units += size * min(plan.bought.get(f"{lead}{HOURLY}, {block}{kind}", 0) for block in BLOCKS)
    return constant_units


def nearly_full_hardware(plan: CompanyPlan) -> dict[str, tuple[float, float]]:
    """`SITE TYPE` -> (units used, units there) of own units that are nearly all used at the peak."""
    owned = {f"{s.name} {h.type}" for s in plan.company.sites.values() for h in s.hardware if h.count}
    return {name: each for name, each in units_used(plan).items() if name in owned and each[0] >= NEARLY_FULL * each[1]}


def to_json(found: MultiPeriodPlan) -> dict[str, Any]:
    """The plan as JSON. `usd_month` is USD a month; `usd` and `move_usd` are USD over all periods or once."""
    return {
        "periods": [
            {
                "from": each.first,
                "to": each.last,
                "usd_month": round(each.plan.usd, 2),
                "proven": describe_proof(each.plan),
                "moves": [{"workload": name, "from": old, "to": new} for name, old, new in each.moved],
                "move_usd": round(each.move_usd, 2),
                "places": primary_sites(each.plan),
                "to_rent": dict(each.plan.bought),
                "to_build": places_to_build(each.plan),
                "full": {
                    name: [round(used, 2), round(room, 2)]
                    for name, (used, room) in nearly_full_hardware(each.plan).items()
                },
                "homeless": dict(each.plan.unplaceable),
            }
            for each in found.periods
        ],
        "usd": round(found.usd, 2),
        "today_usd": None if found.today_usd is None else round(found.today_usd, 2),
        "holds_months": found.months_covered,
        "broken": None
        if found.infeasible_from is None
        else {"month": found.infeasible_from[0], "because": found.infeasible_from[1]},
        "commitments": {
            name: {
                "usd": round(cover.usd, 2),
                "on_demand_usd": round(cover.on_demand_usd, 2),
                "sign": [
                    {"month": s.month, "term_months": s.term, "units": s.units, "usd_month": round(s.price, 2)}
                    for s in cover.commitments
                ],
            }
            for name, cover in found.commitments.items()
        },
        "words": list(describe(found)),
    }


def describe(found: MultiPeriodPlan) -> Iterator[str]:
    """The plan in sentences."""
    if not found.periods:
        reason = found.infeasible_from[1] if found.infeasible_from else "nothing runs"
        yield f"The growth that is declared cannot be placed: {reason}"
        return
    last = found.periods[-1].last
    yield f"{last} months cost {format_usd(found.usd)} in all, growth as declared."
    if found.months_covered >= last:
        yield "Today's placement covers all of it."
    else:
        yield f"Today's places bear it for {found.months_covered} months."
    yield from _describe_changes(found)
    if found.infeasible_from is not None:
        yield f"From month {found.infeasible_from[0] + 1} on nothing fits any more: {found.infeasible_from[1]}"
    for name, cover in found.commitments.items():
        yield from _describe_commitments(name, cover)


def _describe_changes(found: MultiPeriodPlan) -> Iterator[str]:
    """Changes by period; a lasting state is mentioned once."""
    mentioned: set[str] = set()
    for each in found.periods:
        for name, old, new in each.moved:
            yield f"Month {each.first + 1}: {name} moves from {old} to {new}."
        for name, (used, room) in nearly_full_hardware(each.plan).items():
            if name not in mentioned:
                yield f"{name} is nearly full from month {each.first + 1} on: {used:.3g} of {room:.3g} units."
        for name, why in each.plan.unplaceable.items():
            if name not in mentioned:
                yield f"{name} has no place from month {each.first + 1} on: {why}."
        mentioned |= {*nearly_full_hardware(each.plan), *each.plan.unplaceable}


def _describe_commitments(name: str, cover: CommitmentPlan) -> Iterator[str]:
    for each in cover.commitments:
        yield (
            f"Sign {each.units} {name} for {each.term} months in month {each.month + 1}, at {format_usd(each.price)} "
            "a month each."
        )
    if cover.commitments:
        yield f"Commitments for {name} save {format_usd(cover.on_demand_usd - cover.usd)} against renting on demand."
    else:
        yield f"No commitment for {name} pays back within what is known."
