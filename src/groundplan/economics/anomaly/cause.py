"""Why something is unusual: which value of which dimension holds most of what is more than before. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from groundplan.core.money import PICO, short_usd
from groundplan.core.words import quantity
from groundplan.economics.anomaly.model import Alarm

DIMENSIONS: Final = ("prompt", "model", "team", "caller", "feature", "endpoint")
LEAST: Final = 0.5
"""Part of the excess that a cause has to hold."""
RISEN: Final = 0.05
"""By how much a cause has to hold more of the excess than it held of everything before."""
MORE: Final = 1.25
"""Times what is usual, from which on calls, tokens or prices are named."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Calls with the same values of all dimensions: before, or while it is unusual."""

    values: Mapping[str, str]
    calls: int
    cost: int
    tokens: int


Weight = Callable[[Slice], float]


@dataclass(frozen=True, slots=True)
class Cause:
    """`share` of the excess is of calls whose `dimension` is `value`."""

    dimension: str
    value: str
    share: float
    new: bool
    """It was not there before."""


@dataclass(frozen=True, slots=True)
class Single:
    """The call that cost most, or had most tokens, while it is unusual."""

    id: str
    cost: int
    """picodollars"""
    tokens: int


def alone(alarm: Alarm, during: Sequence[Slice], most: Single | None, hours: float) -> bool:
    """Whether one call holds most of what is more than usual, so that an hour of it, or the mean of calls, would say
    something else than what happened."""
    if most is None or alarm.kind not in ("spend", "tokens_per_call"):
        return False
    if alarm.kind == "spend":
        mine, excess = most.cost / PICO, (alarm.seen - alarm.usual) * hours
    else:
        mine, excess = most.tokens - alarm.usual, (alarm.seen - alarm.usual) * sum(each.calls for each in during)
    return excess > 0 and mine >= LEAST * excess


def level(alarm: Alarm, before: Sequence[Slice], during: Sequence[Slice], hours: tuple[float, float]) -> float:
    """How many times what there was an hour before there usually is at this hour: a team that asks most at noon every
    day is no cause of what is unusual at noon. Of spending it is what the alarm calls usual; where calls are otherwise
    than before, as many as there are. `hours`: (before, during)."""
    if alarm.kind == "spend":
        past, usual = sum(each.cost for each in before) / PICO, alarm.usual
    elif alarm.kind in ("tokens_per_call", "cache_rate", "mix"):
        past, usual = float(sum(each.calls for each in before)), sum(each.calls for each in during) / hours[1]
    else:
        return 1.0
    return usual * hours[0] / past if past > 0 else 1.0


def causes(
    before: Sequence[Slice],
    during: Sequence[Slice],
    hours_before: float,
    hours_during: float,
    level: float = 1.0,
    model: str | None = None,
) -> list[Cause]:
    """The dimensions of which one value holds most of the excess cost an hour, the strongest first. `level`: how many
    times what was before is usual now. `model`: of a mix the one that answers more, whose calls are the excess: what
    went to a cheaper one costs less than before.

    A dimension that has one value only explains nothing, and is left out unless that value is new; neither does a value
    that holds no more of the excess than it held before of everything.
    """
    found = []
    weight = _calls_at(model) if model is not None else _weight([*before, *during])
    for dimension in DIMENSIONS:
        past = _rates(before, dimension, hours_before, weight)
        now = _rates(during, dimension, hours_during, weight)
        excess = {value: rate - level * past.get(value, 0.0) for value, rate in now.items()}
        whole, held = sum(amount for amount in excess.values() if amount > 0), sum(past.values())
        if whole <= 0:
            continue
        value = max(excess, key=lambda name: (excess[name], name))
        new, share = value not in past and bool(past), excess[value] / whole
        more = held <= 0 or share > past.get(value, 0.0) / held + RISEN
        if value and share >= LEAST and more and (len(past.keys() | now.keys()) > 1 or new):
            found.append(Cause(dimension, value, share, new))
    return sorted(found, key=lambda cause: (not cause.new, -cause.share, DIMENSIONS.index(cause.dimension)))


def made_of(
    alarm: Alarm, before: Sequence[Slice], during: Sequence[Slice], hours: tuple[float, float], level: float
) -> list[str]:
    """What more spending is made of: calls, tokens in each, what a token costs; what is hardly more is left out.
    `hours` and `level` as of `causes`."""
    if alarm.kind != "spend":
        return []
    (past, n, long), (cost, m, now) = (
        [sum(getattr(each, name) for each in of) for name in ("cost", "calls", "tokens")] for of in (before, during)
    )
    usual, seen = level * n / hours[0], m / hours[1]
    found = [f"{quantity(round(seen), 'call')} an hour instead of {usual:,.0f}"] if seen > MORE * usual else []
    if not (n and m):
        return found
    if now / m > MORE * long / n:
        found.append(f"{now / m - long / n:+,.0f} tokens a call")
    if past and long and now and (dearer := (cost / now) / (past / long)) > MORE:
        found.append(f"each token costs {dearer - 1:.0%} more")
    return found


def told(alarm: Alarm, found: Sequence[Cause], single: Single | None = None, made: Sequence[str] = ()) -> str:
    """One sentence: since when, what, how much and why: `since 14:05 +2,300 tokens a call: prompt faq@12 (new)`.
    `single`: the call that is most of it; `made`: what more spending is made of."""
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
    """What a slice counts: its USD; where nothing costs anything, its calls."""
    if any(each.cost for each in slices):
        return lambda each: each.cost / PICO
    return lambda each: float(each.calls)


def _calls_at(model: str) -> Weight:
    return lambda each: float(each.calls) if each.values.get("model") == model else 0.0


def _rates(slices: Sequence[Slice], dimension: str, hours: float, weight: Weight) -> dict[str, float]:
    """What there is in an hour, by value."""
    found: dict[str, float] = {}
    for each in slices:
        value = each.values.get(dimension, "")
        found[value] = found.get(value, 0.0) + weight(each) / max(hours, 1e-9)
    return found
