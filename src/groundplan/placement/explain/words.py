"""Sentences that a leader reads, made from what `why` and `plan_summary` found. No number is computed here."""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.placement.company import BURST_LEVELS
from groundplan.placement.explain.why import TERMS, Why
from groundplan.placement.terms.candidates import Candidate
from groundplan.placement.terms.rentals import HOURLY


def usd(value: float) -> str:
    """`$1,204`, `$38.88`, `-$3.10`."""
    sign, value = "-" if value < 0 else "", round(value, 2)
    return f"{sign}${abs(value):,.0f}" if abs(value) >= 1000 else f"{sign}${abs(value):,.2f}"


def sentences(found: Why) -> Iterator[str]:
    """Why one workload is where it is."""
    decided = found.decided
    first = decided.primary
    how = "to build: " if first.kind == "build" else ""
    yield f"{decided.workload} runs at {first.site} on {how}{first.config} for {usd(decided.usd)} a month."
    yield from _leased(first)
    if decided.burst is not None:
        share = f"{100 * BURST_LEVELS[decided.level]:.0f}%"
        yield f"It bears {share} of the peak there; what is above bursts to {decided.burst.config}, which drains first."
    if decided.fallback is not None:
        yield f"When it fails, {decided.fallback.config} at {decided.fallback.site} takes over."
    terms = sorted(decided.terms.items(), key=lambda item: -item[1])
    yield "Cost a month: " + ", ".join(f"{TERMS.get(t, t)} {usd(v)}" for t, v in terms if abs(v) >= 0.005) + "."
    yield f"What decides: {found.binding}."
    yield _second(found)
    for site, rules in found.excluded:
        yield f"Not at {site}: {', '.join(rules)}."
    if found.break_even is not None:
        even = found.break_even
        yield (
            f"Above {tokens(even.tokens_day)} tokens a day {even.above} is the cheaper way, below it {even.below} "
            "(priced for this workload alone)."
        )
    yield from _how_sure(found)


def _leased(first: Candidate) -> Iterator[str]:
    """How it is rented, where not by the month."""
    if first.lease == HOURLY:
        each = ", ".join(f"{units / first.group:.2g} {block}" for block, units in first.units_by_block.items())
        yield f"Its replicas follow the week, headroom included: {each}; replicas are shared, so fractions count."
    elif first.lease:
        there = 100 * first.availability
        yield f"Its provider may take it away at any time: it is expected to be there {there:.4g}% of the time."


def _second(found: Why) -> str:
    second = found.runner_up
    if second is None:
        return "There is no other place that the rules allow."
    if second.extra_usd < 0:
        return f"{second.config} at {second.site} would cost the company {usd(-second.extra_usd)} a month less."
    return (
        f"The runner-up is {second.config} at {second.site}: the whole company would pay {usd(second.extra_usd)} a "
        "month more."
    )


def _how_sure(found: Why) -> Iterator[str]:
    how = found.sensitivity
    if how.demand_up is not None:
        yield f"With about {how.demand_up:,.3g} times the calls another place would be cheaper, or this one too small."
    if how.demand_down is not None:
        yield f"With about {how.demand_down:.3g} times the calls another place would be cheaper."
    if how.price_up is not None:
        yield f"Its prices may rise {how.price_up:.3g}-fold before the runner-up is as cheap."
    if how.latency_left_ms is not None:
        yield f"{how.latency_left_ms:,.0f} ms are left before a latency objective is missed."
    told = f"Confidence is {found.confidence}"
    yield told + (f": {'; '.join(found.doubts)}." if found.doubts else ".")


def tokens(count: float) -> str:
    """`41M`, `3.2k`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"
