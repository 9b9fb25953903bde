"""Explanations in sentences, for people who answer for a workload. No number is computed here."""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.placement.company import BURST_LEVELS
from groundplan.placement.explain.why import TERM_LABELS, Explanation
from groundplan.placement.terms.candidates import Candidate
from groundplan.placement.terms.rentals import HOURLY


def format_usd(value: float) -> str:
    """`$1,204`, `$38.88`, `-$3.10`."""
    sign, value = "-" if value < 0 else "", round(value, 2)
    return f"{sign}${abs(value):,.0f}" if abs(value) >= 1000 else f"{sign}${abs(value):,.2f}"


def explanation_sentences(found: Explanation) -> Iterator[str]:
    """Why one workload is where it is, in sentences."""
    placement = found.placement
    first = placement.primary
    how = "to build: " if first.kind == "build" else ""
    yield f"{placement.workload} runs at {first.site} on {how}{first.config} for {format_usd(placement.usd)} a month."
    yield from _lease_sentences(first)
    if placement.burst is not None:
        share = f"{100 * BURST_LEVELS[placement.level]:.0f}%"
        burst = placement.burst.config
        yield f"It bears {share} of the peak there; what is above bursts to {burst}, which drains first."
    if placement.fallback is not None:
        yield f"When it fails, {placement.fallback.config} at {placement.fallback.site} takes over."
    terms = sorted(placement.terms.items(), key=lambda item: -item[1])
    yield (
        "Cost a month: "
        + ", ".join(f"{TERM_LABELS.get(t, t)} {format_usd(v)}" for t, v in terms if abs(v) >= 0.005)
        + "."
    )
    yield f"What decides: {found.binding}."
    yield _runner_up_sentence(found)
    for site, rules in found.excluded:
        yield f"Not at {site}: {', '.join(rules)}."
    if found.break_even is not None:
        break_even = found.break_even
        yield (
            f"Above {format_tokens(break_even.tokens_day)} tokens a day {break_even.above} is the cheaper way, "
            f"below it {break_even.below} (priced for this workload alone)."
        )
    yield from _sensitivity_sentences(found)


def _lease_sentences(first: Candidate) -> Iterator[str]:
    """How its hardware is rented, where not by the month."""
    if first.lease == HOURLY:
        each = ", ".join(f"{units / first.group:.2g} {block}" for block, units in first.units_by_block.items())
        yield f"Its replicas follow the week, headroom included: {each}; replicas are shared, so fractions count."
    elif first.lease:
        there = 100 * first.availability
        yield f"Its provider may take it away at any time: it is expected to be there {there:.4g}% of the time."


def _runner_up_sentence(found: Explanation) -> str:
    runner_up = found.runner_up
    if runner_up is None:
        return "There is no other place that the rules allow."
    if runner_up.extra_usd < 0:
        saved = format_usd(-runner_up.extra_usd)
        return f"{runner_up.config} at {runner_up.site} would cost the company {saved} a month less."
    return (
        f"The runner-up is {runner_up.config} at {runner_up.site}: the whole company would pay "
        f"{format_usd(runner_up.extra_usd)} a month more."
    )


def _sensitivity_sentences(found: Explanation) -> Iterator[str]:
    sensitivity = found.sensitivity
    if sensitivity.demand_up is not None:
        times = f"{sensitivity.demand_up:,.3g} times"
        yield f"With about {times} the calls another place would be cheaper, or this one too small."
    if sensitivity.demand_down is not None:
        yield f"With about {sensitivity.demand_down:.3g} times the calls another place would be cheaper."
    if sensitivity.price_up is not None:
        yield f"Its prices may rise {sensitivity.price_up:.3g}-fold before the runner-up is as cheap."
    if sensitivity.latency_left_ms is not None:
        yield f"{sensitivity.latency_left_ms:,.0f} ms are left before a latency objective is missed."
    line = f"Confidence is {found.confidence}"
    yield line + (f": {'; '.join(found.doubts)}." if found.doubts else ".")


def format_tokens(count: float) -> str:
    """`41M`, `3.2k`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"
