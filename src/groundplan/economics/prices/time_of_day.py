"""Prices by time of day, UTC: windows of the day with exact rates, inside rates that are the highest of each class.
Pure."""

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


def rates_at(rates: Rates, at_ms: int) -> Rates:
    """Rates of a call that is sent at this time (milliseconds since the epoch)."""
    minute = at_ms // 60_000 % DAY
    for window in rates.windows:
        if window.start <= minute < window.end:
            return window.rates
    return rates


def rates_in_hour(rates: Rates, hour: int) -> list[tuple[int, Rates]]:
    """(minutes, the rates in force during them) of an hour of the day, UTC."""
    if not rates.windows:
        return [(HOUR, rates)]
    first, last = hour * HOUR, (hour + 1) * HOUR
    overlaps = [(min(last, each.end) - max(first, each.start), each.rates) for each in rates.windows]
    return [(minutes, each) for minutes, each in overlaps if minutes > 0]


def with_windows(base: Rates, windows: Sequence[tuple[int, int, Rates]]) -> Rates:
    """Add prices by time of day to `base`: `windows` are (start, end, rates) in minutes of the day.

    Where two windows overlap the first one wins; one that ends before it starts crosses midnight.
    """
    if not windows:
        return base
    edges = sorted({0, DAY, *(edge % DAY for start, end, _ in windows for edge in (start, end))})
    merged: list[PriceWindow] = []
    for start, end in pairwise(edges):
        rates = next((rates for first, last, rates in windows if _is_in_window(start, first, last)), base)
        if merged and merged[-1].rates == rates:
            merged[-1] = PriceWindow(start=merged[-1].start, end=end, rates=rates)
        else:
            merged.append(PriceWindow(start=start, end=end, rates=rates))
    if len(merged) == 1:
        return merged[0].rates
    return msgspec.structs.replace(highest_rates([window.rates for window in merged]), windows=merged)


def _is_in_window(minute: int, start: int, end: int) -> bool:
    return start <= minute < end if start < end else minute >= start or minute < end


def highest_rates(several: Sequence[Rates]) -> Rates:
    """Combine several rates into the highest of each class; a class without a rate of its own counts as its parent."""
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
        long=highest_rates([each.long or each for each in several]) if long else None,
        long_above=min((each.long_above for each in several if each.long is not None), default=0),
        batch=_highest_of_service(several, "batch"),
        priority=_highest_of_service(several, "priority"),
        flex=_highest_of_service(several, "flex"),
        windows=[],
    )


def _highest(several: Sequence[Rates], name: str) -> int | None:
    if all(getattr(each, name) is None for each in several):
        return None
    parent = "output" if name in ("reasoning", "output_audio") else "input"
    return max(int(getattr(each, parent) if (own := getattr(each, name)) is None else own) for each in several)


def _highest_of_service(several: Sequence[Rates], name: str) -> Rates | None:
    if all(getattr(each, name) is None for each in several):
        return None
    return highest_rates(
        [getattr(each, name) or msgspec.structs.replace(each, batch=None, priority=None, flex=None) for each in several]
    )
