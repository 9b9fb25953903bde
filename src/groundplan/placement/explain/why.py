"""Why one workload is where it is: cost by term, what binds, the runner-up, exclusions, break-even, sensitivity.

The runner-up and its extra cost come from solving the whole company again without the chosen place; the break-even and
the factors come from pricing this workload's candidates again at other loads, with everything else as it is placed.
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
from groundplan.placement.terms.rules import TOLD

TERMS = {
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

WIDEST = 1000.0
"""Loads from a thousandth to a thousand times are looked at"""
STEPS = 40


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
    """configuration that wins above it"""
    below: str


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Factors at which the decision changes; None: within a thousandfold it does not."""

    demand_up: float | None
    demand_down: float | None
    price_up: float | None
    """of the chosen place, at which the runner-up is as cheap"""
    latency_left_ms: float | None
    """until an objective of time is broken"""


@dataclass(frozen=True, slots=True)
class Why:
    """Everything that explains one decision."""

    decided: WorkloadPlacement
    binding: str
    runner_up: RunnerUp | None
    excluded: tuple[tuple[str, tuple[str, ...]], ...]
    """(site, rules) of sites where nothing may run it"""
    break_even: BreakEven | None
    sensitivity: Sensitivity
    confidence: str
    """high | medium | low"""
    doubts: tuple[str, ...]


def why(plan: CompanyPlan, workload: str, limit: WorkLimit = DEFAULT_LIMIT) -> Why:
    """Explain one decision. Solves once more."""
    decided = plan.placements[workload]
    facts = plan.company.workloads[workload]
    candidates = plan.framed.candidates.by_workload[workload]
    second = runner_up(plan, workload, limit)
    sensitivity = _sensitivity(plan, facts, decided, second)
    doubts = tuple(_doubts(facts, decided, second))
    return Why(
        decided=decided,
        binding=binding(plan, decided, candidates),
        runner_up=second,
        excluded=excluded(candidates),
        break_even=break_even(plan, facts),
        sensitivity=sensitivity,
        confidence="high" if not doubts else "medium" if len(doubts) == 1 else "low",
        doubts=doubts,
    )


def runner_up(plan: CompanyPlan, workload: str, limit: WorkLimit = DEFAULT_LIMIT) -> RunnerUp | None:
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


def excluded(candidates: Sequence[Candidate]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Sites where nothing may run it, with the rules of the candidate there that breaks the fewest."""
    by_site: dict[str, list[Candidate]] = {}
    for each in candidates:
        by_site.setdefault(each.site, []).append(each)
    return tuple(
        (site, min((each.rules for each in found), key=len))
        for site, found in sorted(by_site.items())
        if not any(each.is_allowed for each in found)
    )


def binding(plan: CompanyPlan, decided: WorkloadPlacement, candidates: Sequence[Candidate]) -> str:
    """The constraint that decides: without it, another place would have been taken."""
    chosen = decided.primary
    facts = plan.company.workloads[decided.workload]
    allowed = [each for each in candidates if each.is_allowed]
    if len(allowed) == 1:
        rules = _common(candidates, chosen)
        return f"only one is allowed: {', '.join(rules)}" if rules else "no other is declared for it"
    if not facts.is_planned and facts.declared:
        return f"the declared order, {len(allowed)} of {len(candidates)} are allowed"
    if decided.burst is not None:
        used, room = units_used(plan).get(f"{chosen.site} {chosen.hardware}", (0.0, 0.0))
        return f"room at {chosen.site}: {used:.3g} of {room:.3g} {chosen.hardware} are used, the peaks burst"
    others = [each for each in allowed if each.config != chosen.config]
    best = min(others, key=lambda c: (c.usd, c.config))
    if best.usd < chosen.usd - 0.005:
        return f"shared cost and room: alone, {best.config} would cost ${chosen.usd - best.usd:,.2f} less"
    real = [c for c in candidates if c.usd < chosen.usd and c.rules and TOLD not in c.rules]
    if real:
        first = min(real, key=lambda c: (c.usd, c.config))
        return f"{first.rules[0]}: {first.config} would cost ${chosen.usd - first.usd:,.2f} less a month"
    return _dearer(chosen, best, len(allowed))


def _dearer(chosen: Candidate, other: Candidate, allowed: int) -> str:
    """Cost decides: by the term of which the next best has most more."""
    more = {term: usd - chosen.terms.get(term, 0.0) for term, usd in other.terms.items()}
    term = max(sorted(more), key=lambda name: more[name])
    return (
        f"cost: the cheapest of {allowed} allowed; {other.config} would pay ${more[term]:,.2f} more for {TERMS[term]}"
    )


def _common(candidates: Sequence[Candidate], chosen: Candidate) -> list[str]:
    """Rules in the order of how many they exclude; that something is not declared only where nothing else is said."""
    count: dict[str, int] = {}
    for each in candidates:
        for rule in each.rules if each is not chosen else ():
            count[rule] = count.get(rule, 0) + 1
    order = [rule for rule, _ in sorted(count.items(), key=lambda item: (-item[1], item[0]))]
    return ([rule for rule in order if rule != TOLD] or order)[:3]


def at_load(plan: CompanyPlan, facts: WorkloadFacts, factor: float) -> list[Candidate]:
    """Its candidates at another load, everything else as it is."""
    scaled = replace(facts, calls_month=facts.calls_month * factor)
    return list(workload_candidates(plan.company, scaled))


def _best(candidates: Sequence[Candidate]) -> Candidate | None:
    """The cheapest that is allowed; names break ties."""
    return min((c for c in candidates if c.is_allowed), key=lambda c: (c.usd, c.config), default=None)


def break_even(plan: CompanyPlan, facts: WorkloadFacts) -> BreakEven | None:
    """Where the cheapest with hardware and the cheapest by token cost the same; None where one always wins or is not
    there."""

    def difference(factor: float) -> tuple[float, Candidate, Candidate] | None:
        found = at_load(plan, facts, factor)
        own = _best([c for c in found if c.hardware is not None])
        hosted = _best([c for c in found if c.hardware is None])
        return None if own is None or hosted is None else (own.usd - hosted.usd, own, hosted)

    before: tuple[float, float] | None = None
    for step in range(-STEPS, STEPS + 1):
        factor = WIDEST ** (step / STEPS)
        here = difference(factor)
        if here is None:
            before = None
            continue
        if before is not None and (before[1] > 0) != (here[0] > 0):
            return _crossing(facts, difference, before[0], factor)
        before = (factor, here[0])
    return None


def _crossing(facts: WorkloadFacts, difference: Any, low: float, high: float) -> BreakEven | None:
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
    plan: CompanyPlan, facts: WorkloadFacts, decided: WorkloadPlacement, second: RunnerUp | None
) -> Sensitivity:
    chosen, now = decided.primary, _best(at_load(plan, facts, 1.0))
    stays = now.config if now is not None else chosen.config

    def flips(direction: int) -> float | None:
        for step in range(1, STEPS + 1):
            factor: float = WIDEST ** (direction * step / STEPS)
            best = _best(at_load(plan, facts, factor))
            if best is None or _name(best) != _plain(stays):
                return factor
        return None

    price = None
    paid = sum(usd for term, usd in decided.terms.items() if term in ("tokens", "compute", "idle", "egress"))
    if second is not None and second.extra_usd > 0 and paid > 0:
        price = 1 + second.extra_usd / paid
    left = [
        most - expected
        for most, expected in (
            (facts.first_token, chosen.times.first_token),
            (facts.per_token, chosen.times.per_token),
            (facts.complete, chosen.times.complete),
        )
        if most is not None
    ]
    return Sensitivity(flips(1), flips(-1), price, min(left) if left else None)


def _plain(config: str) -> str:
    """A configuration without how many units it takes, which change with the load."""
    model, found, rest = config.partition(" on ")
    return f"{model} on {rest.rpartition(' ')[2]}" if found else config


def _name(candidate: Candidate) -> str:
    return _plain(candidate.config)


def _doubts(facts: WorkloadFacts, decided: WorkloadPlacement, second: RunnerUp | None) -> Iterator[str]:
    """What the decision rests on that is not known well."""
    chosen = decided.primary
    if facts.assumed:
        yield f"assumed: {', '.join(facts.assumed)}"
    if chosen.times.basis == "not measured":
        yield "its hardware was never measured with such a model"
    if second is not None and 0 <= second.extra_usd < 0.05 * max(decided.usd, 0.01):
        yield f"the runner-up costs only ${second.extra_usd:,.2f} more"
    if facts.availability is not None and (there := expected_availability(decided)) < facts.availability:
        yield f"it is expected to be there {100 * there:.4g}% of the time, {100 * facts.availability:.4g}% are asked"
    limits = [(facts.first_token, chosen.times.first_token), (facts.complete, chosen.times.complete)]
    if any(most is not None and most < expected * chosen.times.spread for most, expected in limits):
        yield "the upper end of the expected time breaks an objective"


def expected_availability(decided: WorkloadPlacement) -> float:
    """Of the primary and, in another failure domain, its fallback, which fail apart from each other."""
    away = 1 - decided.primary.availability
    return 1 - away * (1 - decided.fallback.availability) if decided.fallback is not None else 1 - away


def to_json(found: Why, words: Sequence[str]) -> dict[str, Any]:
    """As the API and `why --json` show it. Money is USD a month."""
    decided, second, even, how = found.decided, found.runner_up, found.break_even, found.sensitivity
    return {
        "workload": decided.workload,
        "place": place_json(decided),
        "usd_month": round(decided.usd, 2),
        "terms": {term: round(usd, 2) for term, usd in sorted(decided.terms.items())},
        "binding": found.binding,
        "runner_up": None
        if second is None
        else {
            "config": second.config,
            "site": second.site,
            "extra_usd_month": round(second.extra_usd, 2),
            "proven": second.proven,
        },
        "excluded": [{"site": site, "rules": list(rules)} for site, rules in found.excluded],
        "break_even": None
        if even is None
        else {"tokens_day": round(even.tokens_day), "above": even.above, "below": even.below},
        "sensitivity": {
            "demand_up": _rounded(how.demand_up),
            "demand_down": _rounded(how.demand_down),
            "price_up": _rounded(how.price_up),
            "latency_left_ms": _rounded(how.latency_left_ms),
        },
        "confidence": found.confidence,
        "doubts": list(found.doubts),
        "words": list(words),
    }


def place_json(decided: WorkloadPlacement) -> dict[str, Any]:
    first = decided.primary
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
        "level": decided.level,
        "burst": decided.burst.config if decided.burst else None,
        "burst_site": decided.burst.site if decided.burst else None,
        "fallback": decided.fallback.config if decided.fallback else None,
        "fallback_site": decided.fallback.site if decided.fallback else None,
        **times,
        "basis": first.times.basis,
        "availability": round(expected_availability(decided), 7),
        "lease": first.lease,
        "units": {block: round(units, 3) for block, units in first.units_by_block.items()},
        "carbon_kg": round(first.carbon_kg, 2),
        "hours": round(first.people_hours, 1),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
