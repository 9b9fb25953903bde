"""Splits the usage of a call into parts with a rate, each token counted once at its finest class. Pure; the sum over
all parts is the token part of `economics.price.cost`."""

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
"""Class -> classes that include it; its tokens are subtracted from their counts."""


class UsagePart(NamedTuple):
    """`count` tokens (or searches) of one class at `rate` picodollars per million of them."""

    side: str
    """input | output | tools"""
    name: str
    count: int  # type: ignore[assignment]  # of tokens, instead of the method that every tuple has
    rate: int


def usage_parts(rates: Rates, usage: Usage) -> list[UsagePart]:
    """Split a usage into parts that count every token once.

    Where classes overlap, tokens are assigned to the most expensive class first, never beyond the reported total.
    `rates` are those of the call's tier and class of service. Counts of zero are left out, and so are finer classes
    without a rate of their own: their tokens stay in the class that includes them.
    """
    has_fine = usage.details is not None and rates.details is not None
    has_classes = usage.cache_read or usage.cache_write or usage.input_audio or usage.reasoning or usage.output_audio
    if not (has_fine or has_classes):  # the case of nearly every call
        plain = [UsagePart("input", "input", usage.input, rates.input)] if usage.input else []
        return [*plain, UsagePart("output", "output", usage.output, rates.output)] if usage.output else plain
    input_classes: _Classes = {
        "cache_read": (usage.cache_read, rates.cache_read),
        "cache_write": (usage.cache_write, rates.cache_write),
        "input_audio": (usage.input_audio, rates.input_audio),
    }
    output_classes: _Classes = {
        "reasoning": (usage.reasoning, rates.reasoning),
        "output_audio": (usage.output_audio, rates.output_audio),
    }
    tools: list[UsagePart] = []
    if usage.details is not None and rates.details is not None:
        tools = _add_fine_classes(input_classes, output_classes, usage.details, rates.details)
    return (
        _parts_of_side("input", usage.input, rates.input, input_classes)
        + _parts_of_side("output", usage.output, rates.output, output_classes)
        + tools
    )


def _add_fine_classes(
    input_classes: _Classes, output_classes: _Classes, fine: UsageDetails, price: RateDetails
) -> list[UsagePart]:
    """Add the finer classes that have a rate to both mappings; returns the parts that are not tokens (searches)."""
    input_classes |= {
        name: count_and_rate
        for name, count_and_rate in _fine_input_classes(fine, price).items()
        if count_and_rate[1] is not None
    }
    for name, parents in _NESTED.items():
        rate = getattr(price, name)
        if rate is None:
            continue
        present_parents = [parent for parent in parents if parent in input_classes]
        count = min(getattr(fine, name), *(input_classes[parent][0] for parent in present_parents))
        for parent in present_parents:
            input_classes[parent] = (input_classes[parent][0] - count, input_classes[parent][1])
        input_classes[name] = (count, rate)
    output_classes |= {
        name: count_and_rate
        for name, count_and_rate in _fine_output_classes(fine, price).items()
        if count_and_rate[1] is not None
    }
    if fine.searches and price.search:
        return [UsagePart("tools", "searches", fine.searches, price.search * MILLION)]
    return []


def _fine_input_classes(fine: UsageDetails, price: RateDetails) -> _Classes:
    return {"input_image": (fine.input_image, price.input_image), "input_video": (fine.input_video, price.input_video)}


def _fine_output_classes(fine: UsageDetails, price: RateDetails) -> _Classes:
    return {
        "output_image": (fine.output_image, price.output_image),
        "output_video": (fine.output_video, price.output_video),
        "citations": (fine.citations, price.citations),
    }


def _parts_of_side(side: str, total: int, base: int, classes: _Classes) -> list[UsagePart]:
    """Parts of input or output; `total` includes the classes, a class without a rate costs `base`."""
    if not any(count for count, _ in classes.values()):
        return [UsagePart(side, side, total, base)] if total else []
    remaining = max(total, *(count for count, _ in classes.values()))
    priced = [(name, count, base if rate is None else rate) for name, (count, rate) in classes.items() if count]
    parts: list[UsagePart] = []
    for name, count, rate in sorted(priced, key=lambda item: -item[2]):
        if part_count := min(count, remaining):
            parts.append(UsagePart(side, name, part_count, rate))
            remaining -= part_count
    return [UsagePart(side, side, remaining, base), *parts] if remaining else parts
