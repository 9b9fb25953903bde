"""Prices by time of day, UTC: the day in windows with exact rates, and the dearest of each class around them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from groundplan.blueprint.model import PriceWindow, RateDetails, Rates

HOUR = 60
DAY = 24 * HOUR
"""Minutes."""
_CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio", "request")
_FINE = tuple(name for name in RateDetails.__struct_fields__ if name != "search")


def at_time(rates: Rates, at_ms: int) -> Rates:
    """The rates of a call that is sent then (milliseconds since the epoch)."""
    minute = at_ms // 60_000 % DAY
    for window in rates.windows:
        if window.start <= minute < window.end:
            return window.rates
    return rates


def in_hour(rates: Rates, hour: int) -> list[tuple[int, Rates]]:
    """(minutes, the rates in them) of an hour of the day, UTC."""
    if not rates.windows:
        return [(HOUR, rates)]
    first, last = hour * HOUR, (hour + 1) * HOUR
    there = [(min(last, each.end) - max(first, each.start), each.rates) for each in rates.windows]
    return [(minutes, each) for minutes, each in there if minutes > 0]


def by_time(base: Rates, windows: Sequence[tuple[int, int, Rates]]) -> Rates:
    """`base` with what is cheaper or dearer in `windows` (start, end in minutes, the first one wins where two meet; one
    that ends before it starts goes over midnight)."""
    if not windows:
        return base
    edges = sorted({0, DAY, *(edge % DAY for start, end, _ in windows for edge in (start, end))})
    made: list[PriceWindow] = []
    for start, end in pairwise(edges):
        rates = next((rates for first, last, rates in windows if _within(start, first, last)), base)
        if made and made[-1].rates == rates:
            made[-1] = PriceWindow(start=made[-1].start, end=end, rates=rates)
        else:
            made.append(PriceWindow(start=start, end=end, rates=rates))
    if len(made) == 1:
        return made[0].rates
    return msgspec.structs.replace(dearest([window.rates for window in made]), windows=made)


def _within(minute: int, start: int, end: int) -> bool:
    return start <= minute < end if start < end else minute >= start or minute < end


def dearest(several: Sequence[Rates]) -> Rates:
    """Of several rates the highest of each class; a class without a rate of its own costs as its parent there."""
    first = several[0]
    highest = {name: _highest(several, name) for name in _CLASSES}
    fine = [each.details for each in several if each.details is not None]
    details = None
    if fine:
        parts = {
            name: max((v for each in fine if (v := getattr(each, name)) is not None), default=None) for name in _FINE
        }
        details = RateDetails(**parts, search=max(each.search for each in fine))
    long = [each.long for each in several if each.long is not None]
    return msgspec.structs.replace(
        first,
        **highest,
        details=details,
        long=dearest([each.long or each for each in several]) if long else None,
        long_above=min((each.long_above for each in several if each.long is not None), default=0),
        batch=_of_class(several, "batch"),
        priority=_of_class(several, "priority"),
        flex=_of_class(several, "flex"),
        windows=[],
    )


def _highest(several: Sequence[Rates], name: str) -> int | None:
    if all(getattr(each, name) is None for each in several):
        return None
    parent = "output" if name in ("reasoning", "output_audio") else "input"
    return max(int(getattr(each, parent) if (own := getattr(each, name)) is None else own) for each in several)


def _of_class(several: Sequence[Rates], name: str) -> Rates | None:
    if all(getattr(each, name) is None for each in several):
        return None
    return dearest(
        [getattr(each, name) or msgspec.structs.replace(each, batch=None, priority=None, flex=None) for each in several]
    )
