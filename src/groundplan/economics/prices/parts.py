"""The tokens of a call, each counted once at its finest class, with the rate that it has. Pure; the whole of it is the
token side of `economics.price.cost`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from groundplan.blueprint.model import RateDetails, Rates
from groundplan.ledger.model import Usage, UsageDetails

MILLION: Final = 1_000_000
_Classes = dict[str, tuple[int, int | None]]
"""class -> (tokens, rate)"""
_NESTED: Final = {
    "cache_write_1h": ("cache_write",),
    "cache_read_audio": ("cache_read", "input_audio"),
    "cache_read_image": ("cache_read", "input_image"),
}
"""Classes that are parts of others, which have so many tokens less."""


class Part(NamedTuple):
    """`count` tokens (or searches) of one class at `rate` picodollars per million of them."""

    side: str
    """input | output | tools"""
    name: str
    count: int  # type: ignore[assignment]  # of tokens, instead of the method that every tuple has
    rate: int


def parts(rates: Rates, usage: Usage) -> list[Part]:
    """Every token once: classes that overlap are filled from the dearest on, never beyond the reported total.

    `rates` are those of the call's tier and class of service. Counts that are zero are left out, and finer classes
    without a rate of their own, whose tokens are in the class around them.
    """
    fine = usage.details is not None and rates.details is not None
    inner = usage.cache_read or usage.cache_write or usage.input_audio or usage.reasoning or usage.output_audio
    if not (fine or inner):  # as nearly every call has them
        plain = [Part("input", "input", usage.input, rates.input)] if usage.input else []
        return [*plain, Part("output", "output", usage.output, rates.output)] if usage.output else plain
    into: _Classes = {
        "cache_read": (usage.cache_read, rates.cache_read),
        "cache_write": (usage.cache_write, rates.cache_write),
        "input_audio": (usage.input_audio, rates.input_audio),
    }
    out: _Classes = {
        "reasoning": (usage.reasoning, rates.reasoning),
        "output_audio": (usage.output_audio, rates.output_audio),
    }
    tools: list[Part] = []
    if usage.details is not None and rates.details is not None:
        tools = _refine(into, out, usage.details, rates.details)
    return _side("input", usage.input, rates.input, into) + _side("output", usage.output, rates.output, out) + tools


def _refine(into: _Classes, out: _Classes, fine: UsageDetails, price: RateDetails) -> list[Part]:
    """Add the finer classes that have a rate; returns what is beside tokens."""
    into |= {name: own for name, own in _fine_input(fine, price).items() if own[1] is not None}
    for name, parents in _NESTED.items():
        rate = getattr(price, name)
        if rate is None:
            continue
        within = [parent for parent in parents if parent in into]
        count = min(getattr(fine, name), *(into[parent][0] for parent in within))
        for parent in within:
            into[parent] = (into[parent][0] - count, into[parent][1])
        into[name] = (count, rate)
    out |= {name: own for name, own in _fine_output(fine, price).items() if own[1] is not None}
    if fine.searches and price.search:
        return [Part("tools", "searches", fine.searches, price.search * MILLION)]
    return []


def _fine_input(fine: UsageDetails, price: RateDetails) -> _Classes:
    return {"input_image": (fine.input_image, price.input_image), "input_video": (fine.input_video, price.input_video)}


def _fine_output(fine: UsageDetails, price: RateDetails) -> _Classes:
    return {
        "output_image": (fine.output_image, price.output_image),
        "output_video": (fine.output_video, price.output_video),
        "citations": (fine.citations, price.citations),
    }


def _side(side: str, total: int, base: int, classes: _Classes) -> list[Part]:
    """`total` includes the classes; a class without a rate costs `base`."""
    if not any(count for count, _ in classes.values()):
        return [Part(side, side, total, base)] if total else []
    rest = max(total, *(count for count, _ in classes.values()))
    priced = [(name, count, base if rate is None else rate) for name, (count, rate) in classes.items() if count]
    found: list[Part] = []
    for name, count, rate in sorted(priced, key=lambda item: -item[2]):
        if taken := min(count, rest):
            found.append(Part(side, name, taken, rate))
            rest -= taken
    return [Part(side, side, rest, base), *found] if rest else found
