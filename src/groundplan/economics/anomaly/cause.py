"""Finds the cause of an anomaly: the value of a dimension that accounts for most of the excess. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from groundplan.core.money import PICO, short_usd
from groundplan.core.words import quantity
from groundplan.economics.anomaly.model import Alarm

DIMENSIONS: Final = ("prompt", "model", "team", "caller", "feature", "endpoint")
MIN_SHARE: Final = 0.5
"""Lowest share of the excess of a cause."""
MIN_RISE: Final = 0.05
"""By how much a cause's share of the excess must exceed its earlier share of everything."""
MIN_RATIO: Final = 1.25
"""Ratio to the usual value above which calls, tokens or prices are named."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Calls with the same values of all dimensions, before or during an anomaly."""

    values: Mapping[str, str]
    calls: int
    cost: int
    tokens: int


Weight = Callable[[Slice], float]


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause: calls whose `dimension` is `value` account for `share` of the excess."""

    dimension: str
    value: str
    share: float
    new: bool
    """The value did not occur before."""


@dataclass(frozen=True, slots=True)
class LargestCall:
    """The call that cost most, or had most tokens, during an anomaly."""

    id: str
    cost: int
    """picodollars"""
    tokens: int


def is_single_call(alarm: Alarm, during: Sequence[Slice], largest: LargestCall | None, hours: float) -> bool:
    """Whether one call accounts for most of the excess, so that a rate per hour or a mean per call would mislead."""
    if largest is None or alarm.kind not in ("spend", "tokens_per_call"):
        return False
    if alarm.kind == "spend":
        own_excess, excess = largest.cost / PICO, (alarm.seen - alarm.usual) * hours
    else:
        own_excess, excess = (
            largest.tokens - alarm.usual,
            (alarm.seen - alarm.usual) * sum(each.calls for each in during),
        )
    return excess > 0 and own_excess >= MIN_SHARE * excess


def seasonal_level(alarm: Alarm, before: Sequence[Slice], during: Sequence[Slice], hours: tuple[float, float]) -> float:
    """Ratio of the usual rate at this hour to the mean rate before, so that a team that is busiest at noon every day is
    no cause of an anomaly at noon. For spending the usual rate is the alarm's; for other kinds it is the present rate
    of calls. `hours`: (before, during)."""
    if alarm.kind == "spend":
        past, usual = sum(each.cost for each in before) / PICO, alarm.usual
    elif alarm.kind in ("tokens_per_call", "cache_rate", "mix"):
        past, usual = float(sum(each.calls for each in before)), sum(each.calls for each in during) / hours[1]
    else:
        return 1.0
    return usual * hours[0] / past if past > 0 else 1.0


def find_causes(
    before: Sequence[Slice],
    during: Sequence[Slice],
    hours_before: float,
    hours_during: float,
    seasonal_level: float = 1.0,
    model: str | None = None,
) -> list[Cause]:
    """The dimensions of which one value accounts for most of the excess cost per hour, strongest first.

    `seasonal_level`: ratio of the usual rate now to the rate before. `model`: for `mix` the model with more calls; its
    calls are the excess, since a move to a cheaper model costs less than before. A dimension with a single value
    explains nothing unless that value is new, and neither does a value whose share has not risen.
    """
    found = []
    weight = _calls_at(model) if model is not None else _weight([*before, *during])
    for dimension in DIMENSIONS:
        past = _rates(before, dimension, hours_before, weight)
        now = _rates(during, dimension, hours_during, weight)
        excess = {value: rate - seasonal_level * past.get(value, 0.0) for value, rate in now.items()}
        total_excess, total_before = sum(amount for amount in excess.values() if amount > 0), sum(past.values())
        if total_excess <= 0:
            continue
        value = max(excess, key=lambda name: (excess[name], name))
        new, share = value not in past and bool(past), excess[value] / total_excess
        has_risen = total_before <= 0 or share > past.get(value, 0.0) / total_before + MIN_RISE
        if value and share >= MIN_SHARE and has_risen and (len(past.keys() | now.keys()) > 1 or new):
            found.append(Cause(dimension, value, share, new))
    return sorted(found, key=lambda cause: (not cause.new, -cause.share, DIMENSIONS.index(cause.dimension)))


def spend_components(
    alarm: Alarm, before: Sequence[Slice], during: Sequence[Slice], hours: tuple[float, float], seasonal_level: float
) -> list[str]:
    """The components of higher spending, in words: calls, tokens per call, cost per token; small changes are left out.
    `hours` and `seasonal_level` as in `find_causes`."""
    if alarm.kind != "spend":
        return []
    (past, n, long), (cost, m, now) = (
        [sum(getattr(each, name) for each in of) for name in ("cost", "calls", "tokens")] for of in (before, during)
    )
    usual, seen = seasonal_level * n / hours[0], m / hours[1]
    found = [f"{quantity(round(seen), 'call')} an hour instead of {usual:,.0f}"] if seen > MIN_RATIO * usual else []
    if not (n and m):
        return found
    if now / m > MIN_RATIO * long / n:
        found.append(f"{now / m - long / n:+,.0f} tokens a call")
    if past and long and now and (dearer := (cost / now) / (past / long)) > MIN_RATIO:
        found.append(f"each token costs {dearer - 1:.0%} more")
    return found


def describe_alarm(
    alarm: Alarm, found: Sequence[Cause], single: LargestCall | None = None, made: Sequence[str] = ()
) -> str:
    """An alarm in one sentence: `since 14:05 +2,300 tokens a call: prompt faq@12 (new)`. `single`: the call that
    accounts for most of it; `made`: of `spend_components`."""
    amounts = {
        "spend": f"${alarm.seen:,.2f} an hour instead of ${alarm.usual:,.2f}",
        "tokens_per_call": f"{alarm.seen - alarm.usual:+,.0f} tokens a call",
        "cache_rate": f"{alarm.seen:.0%} of calls from the cache instead of {alarm.usual:.0%}",
        "mix": f"{alarm.seen:.0%} of calls at {alarm.subject} instead of {alarm.usual:.0%}",
        "new_caller": f"{alarm.subject} makes {alarm.seen:.0%} of calls and was never seen before",
        "runaway": f"{alarm.subject} makes {alarm.seen:,.0f} calls a minute, usually at most {alarm.usual:,.0f}",
    }
    names = [f"{cause.dimension} {cause.value}{' (new)' if cause.new else ''}" for cause in found[:3]]
    why = ", ".join([*names, *(made if single is None else ())])
    what = f"since {alarm.since:%H:%M} {amounts[alarm.kind]}"
    if single is not None:
        cost = short_usd(single.cost)
        what = f"since {alarm.since:%H:%M} one call of {single.tokens:,} tokens for {cost} is most of what is unusual"
    return what + (f": {why}" if why else "")


def _weight(slices: Sequence[Slice]) -> Weight:
    """The weight of a slice: its USD, or its calls if nothing has a cost."""
    if any(each.cost for each in slices):
        return lambda each: each.cost / PICO
    return lambda each: float(each.calls)


def _calls_at(model: str) -> Weight:
    return lambda each: float(each.calls) if each.values.get("model") == model else 0.0


def _rates(slices: Sequence[Slice], dimension: str, hours: float, weight: Weight) -> dict[str, float]:
    """value -> weight an hour"""
    found: dict[str, float] = {}
    for each in slices:
        value = each.values.get(dimension, "")
        found[value] = found.get(value, 0.0) + weight(each) / max(hours, 1e-9)
    return found
