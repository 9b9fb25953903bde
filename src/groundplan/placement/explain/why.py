"""Explains one workload's placement: cost by term, binding constraint, runner-up, exclusions, break-even, sensitivity.

The runner-up and its extra cost come from solving the whole company again without the chosen place; the break-even and
the factors come from pricing this workload's candidates again at other loads, with everything else unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import Any

from groundplan.core.errors import Conflict
from groundplan.placement.planner import DEFAULT_LIMIT, CompanyPlan, WorkloadPlacement, plan_candidates, units_used
from groundplan.placement.problem import WorkLimit
from groundplan.placement.terms.candidates import Candidate, workload_candidates
from groundplan.placement.terms.facts import WorkloadFacts
from groundplan.placement.terms.rules import NOT_DECLARED

TERM_LABELS = {
    "compute": "hardware at work",
    "idle": "hardware that waits for peaks",
    "tokens": "tokens",
    "egress": "data that leaves sites",
    "storage": "storage",
    "people": "people who run it",
    "carbon": "carbon at the company's price",
    "penalty": "waiting, at the company's worth of it",
    "move": "moving there, over the payback time",
}

MAX_LOAD_FACTOR = 1000.0
"""Loads from a thousandth to a thousand times today's are tried"""
LOAD_STEPS = 40


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """The best plan without the chosen place."""

    config: str
    site: str
    extra_usd: float
    """a month, of the whole company; negative where a declared order costs more than another would"""
    proven: bool
    """both plans are proven to their optimum"""


@dataclass(frozen=True, slots=True)
class BreakEven:
    """The load at which own or rented hardware and a price per token cost the same."""

    tokens_day: float
    calls_month: float
    above: str
    """the configuration that is cheaper above this load"""
    below: str


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Factors at which the decision changes; None: it does not within a factor of a thousand."""

    demand_up: float | None
    demand_down: float | None
    price_up: float | None
    """factor on the prices of the chosen place at which the runner-up costs the same"""
    latency_left_ms: float | None
    """until a latency objective is missed"""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation of one workload's placement."""

    placement: WorkloadPlacement
    binding: str
    runner_up: RunnerUp | None
    excluded: tuple[tuple[str, tuple[str, ...]], ...]
    """(site, rules) of sites where no candidate is allowed"""
    break_even: BreakEven | None
    sensitivity: Sensitivity
    confidence: str
    """high | medium | low"""
    doubts: tuple[str, ...]


def explain_placement(plan: CompanyPlan, workload: str, limit: WorkLimit = DEFAULT_LIMIT) -> Explanation:
    """Explain the placement of one workload. Solves the company once more for the runner-up."""
    placement = plan.placements[workload]
    facts = plan.company.workloads[workload]
    candidates = plan.framed.candidates.by_workload[workload]
    runner_up = find_runner_up(plan, workload, limit)
    sensitivity = _sensitivity(plan, facts, placement, runner_up)
    doubts = tuple(_find_doubts(facts, placement, runner_up))
    return Explanation(
        placement=placement,
        binding=binding_constraint(plan, placement, candidates),
        runner_up=runner_up,
        excluded=excluded_sites(candidates),
        break_even=find_break_even(plan, facts),
        sensitivity=sensitivity,
        confidence="high" if not doubts else "medium" if len(doubts) == 1 else "low",
        doubts=doubts,
    )


def find_runner_up(plan: CompanyPlan, workload: str, limit: WorkLimit = DEFAULT_LIMIT) -> RunnerUp | None:
    """The company without the chosen place of this workload; None where there is no other."""
    chosen = plan.placements[workload].primary
    try:
        other = plan_candidates(plan.framed.candidates, limit, frozenset({(workload, chosen.config)}))
    except Conflict:
        return None
    if workload not in other.placements:
        return None
    second = other.placements[workload].primary
    proven = all((each.gap or 0.0) < 1e-9 for each in (plan, other))
    return RunnerUp(second.config, second.site, other.usd - plan.usd, proven)


def excluded_sites(candidates: Sequence[Candidate]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(site, rules) of sites without an allowed candidate; the rules are those of the candidate that breaks fewest."""
    by_site: dict[str, list[Candidate]] = {}
    for each in candidates:
        by_site.setdefault(each.site, []).append(each)
    return tuple(
        (site, min((each.rules for each in found), key=len))
        for site, found in sorted(by_site.items())
        if not any(each.is_allowed for each in found)
    )


def binding_constraint(plan: CompanyPlan, placement: WorkloadPlacement, candidates: Sequence[Candidate]) -> str:
    """The constraint that decides the placement: without it, another place would have been taken."""
    chosen = placement.primary
    facts = plan.company.workloads[placement.workload]
    allowed = [each for each in candidates if each.is_allowed]
    if len(allowed) == 1:
        rules = _common_rules(candidates, chosen)
        return f"only one is allowed: {', '.join(rules)}" if rules else "no other is declared for it"
    if not facts.is_planned and facts.declared:
        return f"the declared order, {len(allowed)} of {len(candidates)} are allowed"
    if placement.burst is not None:
        used, room = units_used(plan).get(f"{chosen.site} {chosen.hardware}", (0.0, 0.0))
        return f"room at {chosen.site}: {used:.3g} of {room:.3g} {chosen.hardware} are used, the peaks burst"
    others = [each for each in allowed if each.config != chosen.config]
    best = min(others, key=lambda c: (c.usd, c.config))
    if best.usd < chosen.usd - 0.005:
        return f"shared cost and room: alone, {best.config} would cost ${chosen.usd - best.usd:,.2f} less"
    real = [c for c in candidates if c.usd < chosen.usd and c.rules and NOT_DECLARED not in c.rules]
    if real:
        first = min(real, key=lambda c: (c.usd, c.config))
        return f"{first.rules[0]}: {first.config} would cost ${chosen.usd - first.usd:,.2f} less a month"
    return _describe_cost_difference(chosen, best, len(allowed))


def _describe_cost_difference(chosen: Candidate, other: Candidate, allowed: int) -> str:
    """Cost decides: names the term in which the next best candidate costs most more."""
    more = {term: usd - chosen.terms.get(term, 0.0) for term, usd in other.terms.items()}
    term = max(sorted(more), key=lambda name: more[name])
    label = TERM_LABELS[term]
    return f"cost: the cheapest of {allowed} allowed; {other.config} would pay ${more[term]:,.2f} more for {label}"


def _common_rules(candidates: Sequence[Candidate], chosen: Candidate) -> list[str]:
    """The three rules that exclude most other candidates; "not declared" is left out if there are other rules."""
    count: dict[str, int] = {}
    for each in candidates:
        for rule in each.rules if each is not chosen else ():
            count[rule] = count.get(rule, 0) + 1
    order = [rule for rule, _ in sorted(count.items(), key=lambda item: (-item[1], item[0]))]
    return ([rule for rule in order if rule != NOT_DECLARED] or order)[:3]


def candidates_at_load(plan: CompanyPlan, facts: WorkloadFacts, factor: float) -> list[Candidate]:
    """The workload's candidates at `factor` times its calls, everything else unchanged."""
    scaled = replace(facts, calls_month=facts.calls_month * factor)
    return list(workload_candidates(plan.company, scaled))


def _cheapest_allowed(candidates: Sequence[Candidate]) -> Candidate | None:
    """The cheapest allowed candidate; names break ties."""
    return min((c for c in candidates if c.is_allowed), key=lambda c: (c.usd, c.config), default=None)


def find_break_even(plan: CompanyPlan, facts: WorkloadFacts) -> BreakEven | None:
    """The load at which the cheapest candidate with hardware and the cheapest by token cost the same; None where one
    is always cheaper or there is none."""

    def difference(factor: float) -> tuple[float, Candidate, Candidate] | None:
        found = candidates_at_load(plan, facts, factor)
        own = _cheapest_allowed([c for c in found if c.hardware is not None])
        hosted = _cheapest_allowed([c for c in found if c.hardware is None])
        return None if own is None or hosted is None else (own.usd - hosted.usd, own, hosted)

    before: tuple[float, float] | None = None
    for step in range(-LOAD_STEPS, LOAD_STEPS + 1):
        factor = MAX_LOAD_FACTOR ** (step / LOAD_STEPS)
        here = difference(factor)
        if here is None:
            before = None
            continue
        if before is not None and (before[1] > 0) != (here[0] > 0):
            return _bisect_break_even(facts, difference, before[0], factor)
        before = (factor, here[0])
    return None


def _bisect_break_even(facts: WorkloadFacts, difference: Any, low: float, high: float) -> BreakEven | None:
    sign = difference(low)[0] > 0
    for _ in range(30):
        middle = exp((log(low) + log(high)) / 2)
        found = difference(middle)
        if found is None:
            return None
        low, high = (middle, high) if (found[0] > 0) == sign else (low, middle)
    _, own, hosted = difference(high)
    above, below = (own.config, hosted.config) if sign else (hosted.config, own.config)
    return BreakEven(facts.tokens_day * high, facts.calls_month * high, above, below)


def _sensitivity(
    plan: CompanyPlan, facts: WorkloadFacts, placement: WorkloadPlacement, runner_up: RunnerUp | None
) -> Sensitivity:
    chosen, now = placement.primary, _cheapest_allowed(candidates_at_load(plan, facts, 1.0))
    stays = now.config if now is not None else chosen.config

    def first_change(direction: int) -> float | None:
        for step in range(1, LOAD_STEPS + 1):
            factor: float = MAX_LOAD_FACTOR ** (direction * step / LOAD_STEPS)
            best = _cheapest_allowed(candidates_at_load(plan, facts, factor))
            if best is None or _name(best) != _without_units(stays):
                return factor
        return None

    price = None
    paid = sum(usd for term, usd in placement.terms.items() if term in ("tokens", "compute", "idle", "egress"))
    if runner_up is not None and runner_up.extra_usd > 0 and paid > 0:
        price = 1 + runner_up.extra_usd / paid
    left = [
        most - expected
        for most, expected in (
            (facts.first_token, chosen.times.first_token),
            (facts.per_token, chosen.times.per_token),
            (facts.complete, chosen.times.complete),
        )
        if most is not None
    ]
    return Sensitivity(first_change(1), first_change(-1), price, min(left) if left else None)


def _without_units(config: str) -> str:
    """A configuration's name without its number of units, which changes with the load."""
    model, found, rest = config.partition(" on ")
    return f"{model} on {rest.rpartition(' ')[2]}" if found else config


def _name(candidate: Candidate) -> str:
    return _without_units(candidate.config)


def _find_doubts(facts: WorkloadFacts, placement: WorkloadPlacement, runner_up: RunnerUp | None) -> Iterator[str]:
    """Reasons to doubt the decision: assumptions, missing measurements, near misses."""
    chosen = placement.primary
    if facts.assumed:
        yield f"assumed: {', '.join(facts.assumed)}"
    if chosen.times.basis == "not measured":
        yield "its hardware was never measured with such a model"
    if runner_up is not None and 0 <= runner_up.extra_usd < 0.05 * max(placement.usd, 0.01):
        yield f"the runner-up costs only ${runner_up.extra_usd:,.2f} more"
    if facts.availability is not None and (there := expected_availability(placement)) < facts.availability:
        yield f"it is expected to be there {100 * there:.4g}% of the time, {100 * facts.availability:.4g}% are asked"
    limits = [(facts.first_token, chosen.times.first_token), (facts.complete, chosen.times.complete)]
    if any(most is not None and most < expected * chosen.times.spread for most, expected in limits):
        yield "the upper end of the expected time breaks an objective"


def expected_availability(placement: WorkloadPlacement) -> float:
    """The availability of primary and fallback together, which fail independently of each other."""
    away = 1 - placement.primary.availability
    return 1 - away * (1 - placement.fallback.availability) if placement.fallback is not None else 1 - away


def to_json(found: Explanation, words: Sequence[str]) -> dict[str, Any]:
    """The explanation as the API and `why --json` show it. Money is USD a month."""
    placement, runner_up, break_even, sensitivity = (
        found.placement,
        found.runner_up,
        found.break_even,
        found.sensitivity,
    )
    return {
        "workload": placement.workload,
        "place": place_json(placement),
        "usd_month": round(placement.usd, 2),
        "terms": {term: round(usd, 2) for term, usd in sorted(placement.terms.items())},
        "binding": found.binding,
        "runner_up": None
        if runner_up is None
        else {
            "config": runner_up.config,
            "site": runner_up.site,
            "extra_usd_month": round(runner_up.extra_usd, 2),
            "proven": runner_up.proven,
        },
        "excluded": [{"site": site, "rules": list(rules)} for site, rules in found.excluded],
        "break_even": None
        if break_even is None
        else {"tokens_day": round(break_even.tokens_day), "above": break_even.above, "below": break_even.below},
        "sensitivity": {
            "demand_up": _rounded(sensitivity.demand_up),
            "demand_down": _rounded(sensitivity.demand_down),
            "price_up": _rounded(sensitivity.price_up),
            "latency_left_ms": _rounded(sensitivity.latency_left_ms),
        },
        "confidence": found.confidence,
        "doubts": list(found.doubts),
        "words": list(words),
    }


def place_json(placement: WorkloadPlacement) -> dict[str, Any]:
    first = placement.primary
    times: Mapping[str, float] = {
        "first_token_ms": round(first.times.first_token, 1),
        "per_token_ms": round(first.times.per_token, 2),
        "complete_ms": round(first.times.complete, 1),
    }
    return {
        "site": first.site,
        "config": first.config,
        "kind": first.kind,
        "model": first.model,
        "level": placement.level,
        "burst": placement.burst.config if placement.burst else None,
        "burst_site": placement.burst.site if placement.burst else None,
        "fallback": placement.fallback.config if placement.fallback else None,
        "fallback_site": placement.fallback.site if placement.fallback else None,
        **times,
        "basis": first.times.basis,
        "availability": round(expected_availability(placement), 7),
        "lease": first.lease,
        "units": {block: round(units, 3) for block, units in first.units_by_block.items()},
        "carbon_kg": round(first.carbon_kg, 2),
        "hours": round(first.people_hours, 1),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
