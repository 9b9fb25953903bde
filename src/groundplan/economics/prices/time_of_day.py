"""Prices by time of day, UTC: windows with their exact rates, inside `Rates` with the highest rate of each class.
Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from groundplan.blueprint.model import PriceWindow, RateDetails, Rates

MINUTES_PER_HOUR = 60
MINUTES_PER_DAY = 24 * MINUTES_PER_HOUR
"""Minutes."""
_CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio", "request")
_DETAIL_CLASSES = tuple(name for name in RateDetails.__struct_fields__ if name != "search")


def rates_at(rates: Rates, at_ms: int) -> Rates:
    """Rates of a call that is sent at this time (milliseconds since the epoch)."""
    minute = at_ms // 60_000 % MINUTES_PER_DAY
    for window in rates.windows:
        if window.start <= minute < window.end:
            return window.rates
    return rates


def rates_in_hour(rates: Rates, hour: int) -> list[tuple[int, Rates]]:
    """(minutes, rates in force during them) within one hour of the day, UTC."""
    if not rates.windows:
        return [(MINUTES_PER_HOUR, rates)]
    first, last = hour * MINUTES_PER_HOUR, (hour + 1) * MINUTES_PER_HOUR
    overlaps = [(min(last, each.end) - max(first, each.start), each.rates) for each in rates.windows]
    return [(minutes, each) for minutes, each in overlaps if minutes > 0]


def with_windows(base: Rates, windows: Sequence[tuple[int, int, Rates]]) -> Rates:
    """Add prices by time of day to `base`: `windows` are (start, end, rates) in minutes of the day.

    Where two windows overlap, the first one applies; a window that ends before it starts crosses midnight.
    """
    if not windows:
        return base
    edges = sorted(
        {0, MINUTES_PER_DAY, *(edge % MINUTES_PER_DAY for start, end, _ in windows for edge in (start, end))}
    )
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


def highest_rates(candidates: Sequence[Rates]) -> Rates:
    """Combine several rates into the highest of each class; a class without a rate of its own counts as its parent."""
    first = candidates[0]
    highest = {name: _highest(candidates, name) for name in _CLASSES}
    details_list = [each.details for each in candidates if each.details is not None]
    details = None
    if details_list:
        parts = {
            name: max((v for each in details_list if (v := getattr(each, name)) is not None), default=None)
            for name in _DETAIL_CLASSES
        }
        details = RateDetails(**parts, search=max(each.search for each in details_list))
    long = [each.long for each in candidates if each.long is not None]
    return msgspec.structs.replace(
        first,
        **highest,
        details=details,
        long=highest_rates([each.long or each for each in candidates]) if long else None,
        long_above=min((each.long_above for each in candidates if each.long is not None), default=0),
        batch=_highest_of_service(candidates, "batch"),
        priority=_highest_of_service(candidates, "priority"),
        flex=_highest_of_service(candidates, "flex"),
        windows=[],
    )


def _highest(candidates: Sequence[Rates], name: str) -> int | None:
    if all(getattr(each, name) is None for each in candidates):
        return None
    parent = "output" if name in ("reasoning", "output_audio") else "input"
    return max(int(getattr(each, parent) if (rate := getattr(each, name)) is None else rate) for each in candidates)


def _highest_of_service(candidates: Sequence[Rates], name: str) -> Rates | None:
    if all(getattr(each, name) is None for each in candidates):
        return None
    return highest_rates(
        [
            getattr(each, name) or msgspec.structs.replace(each, batch=None, priority=None, flex=None)
            for each in candidates
        ]
    )
