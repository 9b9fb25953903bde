"""The plan over the coming months: loads grow as declared, places follow in few moves, units are committed to.

The horizon is cut into periods, each planned for the load at its end. Plans that may be in force are today's, those
that follow from one another period by period (each keeps to the policy on moves and on payback), and the one for the
last load. Each is priced at every load with its places kept; the cheapest way through them, moves included, is a
shortest path. It is the best of these plans, not of all that could be thought of; each is solved, bounded and verified.
Growth is what workloads declare: nothing is forecast here (`placement drift` says where it comes otherwise).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf
from typing import Any

from groundplan.core.errors import Conflict, Invalid
from groundplan.placement.commit import Cover, commit
from groundplan.placement.explain.plan_summary import to_build
from groundplan.placement.explain.words import usd
from groundplan.placement.fixed_plan import pin_candidates, with_current_sites, workload_places
from groundplan.placement.planner import CompanyPlan, describe_proof, plan_candidates, plan_company, units_used
from groundplan.placement.problem import WorkLimit
from groundplan.placement.terms.facts import HOURS, Company, HardwareFacts
from groundplan.placement.terms.rentals import BLOCKS, HOURLY

MONTHS, STEP, MOST = 12, 3, 36
FULL = 0.8
"""of own units at the peak: what comes next should be ordered"""
START = -1
"""where everything runs today, before any plan"""
EACH = WorkLimit(work=40, gap=1e-9)
"""of every plan on the way: there are some twenty of them"""
KEPT = "the plan of these months keeps its places"


@dataclass(frozen=True, slots=True, eq=False)
class Period:
    """Months from..to with the plan that is in force."""

    first: int
    last: int
    plan: CompanyPlan
    moved: tuple[tuple[str, str, str], ...]
    """(workload, from, to) at its beginning"""
    move_usd: float


@dataclass(frozen=True, slots=True, eq=False)
class Ahead:
    """The way through the months."""

    periods: tuple[Period, ...]
    usd: float
    """over all periods, moves included"""
    today_usd: float | None
    """with today's places kept throughout; None: they do not bear it"""
    holds: int
    """months for which today's places bear the load"""
    broken: tuple[int, str] | None
    """(month, why) from which on nothing can be placed"""
    commitments: Mapping[str, Cover]
    """by `SITE TYPE`"""


def grown(company: Company, months: int) -> Company:
    """The company after so many months of declared growth."""
    workloads = {
        name: replace(w, calls_month=w.calls_month * (1 + w.growth) ** months) for name, w in company.workloads.items()
    }
    return replace(company, workloads=workloads)


def sites_of(plan: CompanyPlan) -> dict[str, str]:
    return {name: each.primary.site for name, each in plan.placements.items()}


def ahead(plan: CompanyPlan, months: int = MONTHS, step: int = STEP, limit: WorkLimit = EACH) -> Ahead:
    """The way from today's plan through the months. Raises `Invalid` for an absurd horizon."""
    if not 1 <= step <= months <= MOST or months % step:
        raise Invalid(
            f"{months} months in steps of {step} cannot be planned",
            code="ahead_range",
            hint=f"Up to {MOST} months, in steps that divide them: 12 in steps of 3.",
        )
    loads = [grown(plan.company, end) for end in range(step, months + 1, step)]
    followers, broken = _followers(loads, step, limit)
    loads = loads[: len(followers)]
    if not loads:
        return Ahead((), 0.0, None, 0, broken, {})
    ways = _distinct([plan, *followers, plan_company(loads[-1], limit)])
    held = [[_held(way, load, limit) for way in ways] for load in loads]
    chosen = _path(plan, ways, held, followers, step)
    periods = tuple(_periods(plan, ways, held, chosen, step))
    today = [each[0] for each in held]
    holds = next((number for number, each in enumerate(today) if each is None), len(today)) * step
    total = sum(each.plan.usd * step + each.move_usd for each in periods)
    kept = sum(each.usd for each in today if each is not None) * step
    kept += _moves_usd(plan.company, _moved({}, ways[0], plan))
    return Ahead(periods, total, kept if None not in today else None, holds, broken, _commitments(periods, step))


def _followers(
    loads: Sequence[Company], step: int, limit: WorkLimit
) -> tuple[list[CompanyPlan], tuple[int, str] | None]:
    """Each period planned from where the one before left everything, the first from where it runs today; ends where
    nothing can be placed."""
    found: list[CompanyPlan] = []
    before: Mapping[str, str] = {}
    for number, load in enumerate(loads):
        try:
            found.append(plan_company(with_current_sites(load, before), limit))
        except Conflict as error:
            return found, (number * step, error.message)
        before = sites_of(found[-1])
    return found, None


def _distinct(plans: Sequence[CompanyPlan]) -> list[CompanyPlan]:
    """Today's first; of plans with the same places one."""
    found: list[CompanyPlan] = []
    for plan in plans:
        if all(workload_places(plan) != workload_places(other) for other in found):
            found.append(plan)
    return found


def _held(way: CompanyPlan, load: Company, limit: WorkLimit) -> CompanyPlan | None:
    """The places of a plan at another load; None where they do not bear it."""
    company = with_current_sites(load, sites_of(way))
    try:
        found = plan_candidates(pin_candidates(company, workload_places(way), KEPT), limit)
    except Conflict:
        return None
    return found if set(found.placements) >= set(way.placements) else None


def _moved(before: Mapping[str, str], way: CompanyPlan, start: CompanyPlan) -> tuple[tuple[str, str, str], ...]:
    """What changes its site; before the first period, from where it runs today."""
    today = before or {
        name: w.current_site for name, w in start.company.workloads.items() if w.current_site is not None
    }
    return tuple(
        (name, today[name], site)
        for name, site in sorted(sites_of(way).items())
        if name in today and today[name] != site
    )


def _moves_usd(company: Company, moved: Sequence[tuple[str, str, str]]) -> float:
    """Once, not by the month."""
    return sum(company.workloads[name].move_hours for name, _, _ in moved) * company.policy.people_usd


def _path(
    plan: CompanyPlan,
    ways: Sequence[CompanyPlan],
    held: Sequence[Sequence[CompanyPlan | None]],
    followers: Sequence[CompanyPlan],
    step: int,
) -> list[int]:
    """Which way is in force in each period, the least in all. Following period by period is always possible."""
    limit = plan.company.policy.max_moves
    number = [
        next(at for at, way in enumerate(ways) if workload_places(way) == workload_places(each)) for each in followers
    ]
    chain = {(START, 0), *zip([START, *number], number, strict=False)}
    best = {START: 0.0}
    back: list[dict[int, int]] = []
    for row in held:
        reached: dict[int, tuple[float, int]] = {}
        for to, origin in product(range(len(ways)), best):
            priced = row[to]
            moved = _moved({} if origin == START else sites_of(ways[origin]), ways[to], plan)
            few = limit is None or len(moved) <= limit or (origin, to) in chain
            if priced is not None and few:
                cost = best[origin] + _moves_usd(plan.company, moved) + priced.usd * step
                reached[to] = min(reached.get(to, (inf, START)), (cost, origin))
        best = {to: cost for to, (cost, _) in reached.items()}
        back.append({to: origin for to, (_, origin) in reached.items()})
    chosen = [min(best, key=lambda way: best[way])]
    for here in reversed(back[1:]):
        chosen.append(here[chosen[-1]])
    return chosen[::-1]


def _periods(
    plan: CompanyPlan,
    ways: Sequence[CompanyPlan],
    held: Sequence[Sequence[CompanyPlan | None]],
    chosen: Sequence[int],
    step: int,
) -> Iterator[Period]:
    before: dict[str, str] = {}
    for number, way in enumerate(chosen):
        moved = _moved(before, ways[way], plan)
        there = held[number][way]
        assert there is not None
        yield Period(number * step, (number + 1) * step, there, moved, _moves_usd(plan.company, moved))
        before = sites_of(ways[way])


def _commitments(periods: Sequence[Period], step: int) -> dict[str, Cover]:
    """For every type of hardware that is rented on demand and could be had for a term."""
    found: dict[str, Cover] = {}
    for name, site in sorted(periods[0].plan.company.sites.items()):
        for hardware in site.hardware:
            if hardware.on_demand is None or not hardware.terms:
                continue
            needed = [_always(each.plan, name, hardware) for each in periods for _ in range(step)]
            terms = [(length, price * HOURS) for length, price in hardware.terms]
            if any(needed):
                found[f"{name} {hardware.type}"] = commit(needed, hardware.on_demand * HOURS, terms)
    return found


def _always(plan: CompanyPlan, site: str, hardware: HardwareFacts) -> int:
    """Units rented around the clock: whole months, commitments, and what the quietest part of the week takes."""
    lead = f"{site} {hardware.type} "
    signed = (
        each
        for each in plan.shared_hardware.values()
        if each.months and (each.site, each.type) == (site, hardware.type)
    )
    whole = round(sum(each.units for each in signed)) + sum(
        plan.bought.get(lead + how, 0) for how in ("on demand", "reserved")
    )
    kinds = {name.partition(BLOCKS[0])[2] for name in plan.bought if name.startswith(f"{lead}{HOURLY}, {BLOCKS[0]}")}
    for kind in kinds:
        size = int(kind.split()[1]) if " for " in kind else 1
        whole += size * min(plan.bought.get(f"{lead}{HOURLY}, {block}{kind}", 0) for block in BLOCKS)
    return whole


def full(plan: CompanyPlan) -> dict[str, tuple[float, float]]:
    """Own units of which nearly all are used at the peak."""
    owned = {f"{s.name} {h.type}" for s in plan.company.sites.values() for h in s.hardware if h.count}
    return {name: each for name, each in units_used(plan).items() if name in owned and each[0] >= FULL * each[1]}


def to_json(found: Ahead) -> dict[str, Any]:
    """Money is USD a month, `usd` and `move_usd` USD once or over all periods."""
    return {
        "periods": [
            {
                "from": each.first,
                "to": each.last,
                "usd_month": round(each.plan.usd, 2),
                "proven": describe_proof(each.plan),
                "moves": [{"workload": name, "from": old, "to": new} for name, old, new in each.moved],
                "move_usd": round(each.move_usd, 2),
                "places": sites_of(each.plan),
                "to_rent": dict(each.plan.bought),
                "to_build": to_build(each.plan),
                "full": {name: [round(used, 2), round(room, 2)] for name, (used, room) in full(each.plan).items()},
                "homeless": dict(each.plan.unplaceable),
            }
            for each in found.periods
        ],
        "usd": round(found.usd, 2),
        "today_usd": None if found.today_usd is None else round(found.today_usd, 2),
        "holds_months": found.holds,
        "broken": None if found.broken is None else {"month": found.broken[0], "because": found.broken[1]},
        "commitments": {
            name: {
                "usd": round(cover.usd, 2),
                "on_demand_usd": round(cover.on_demand_usd, 2),
                "sign": [
                    {"month": s.month, "term_months": s.term, "units": s.units, "usd_month": round(s.price, 2)}
                    for s in cover.signed
                ],
            }
            for name, cover in found.commitments.items()
        },
        "words": list(words(found)),
    }


def words(found: Ahead) -> Iterator[str]:
    """The months in sentences."""
    if not found.periods:
        yield f"The growth that is declared cannot be placed: {found.broken[1] if found.broken else 'nothing runs'}"
        return
    last = found.periods[-1].last
    yield f"{last} months cost {usd(found.usd)} in all, growth as declared."
    if found.holds >= last:
        yield "Today's placement covers all of it."
    else:
        yield f"Today's places bear it for {found.holds} months."
    yield from _months(found)
    if found.broken is not None:
        yield f"From month {found.broken[0] + 1} on nothing fits any more: {found.broken[1]}"
    for name, cover in found.commitments.items():
        yield from _signed(name, cover)


def _months(found: Ahead) -> Iterator[str]:
    """What changes in which period; what goes on is told once."""
    told: set[str] = set()
    for each in found.periods:
        for name, old, new in each.moved:
            yield f"Month {each.first + 1}: {name} moves from {old} to {new}."
        for name, (used, room) in full(each.plan).items():
            if name not in told:
                yield f"{name} is nearly full from month {each.first + 1} on: {used:.3g} of {room:.3g} units."
        for name, why in each.plan.unplaceable.items():
            if name not in told:
                yield f"{name} has no place from month {each.first + 1} on: {why}."
        told |= {*full(each.plan), *each.plan.unplaceable}


def _signed(name: str, cover: Cover) -> Iterator[str]:
    for each in cover.signed:
        yield (
            f"Sign {each.units} {name} for {each.term} months in month {each.month + 1}, at {usd(each.price)} a month "
            "each."
        )
    if cover.signed:
        yield f"Commitments for {name} save {usd(cover.on_demand_usd - cover.usd)} against renting on demand."
    else:
        yield f"No commitment for {name} pays back within what is known."
