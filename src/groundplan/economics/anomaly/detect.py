"""Detects whether the last hour of a workload is unusual. Pure: minutes and past hours in, alarms out; no state.

For each kind a minute has a score: its excess over the usual amount and a band around it, in standard deviations. The
largest sum of scores over the newest 1 to 60 minutes is compared with a threshold (a CUSUM that forgets after an hour),
so a large change is found after a minute and a small one once it has lasted. The band is as wide as hours usually
differ from their hour of the week. Thresholds were chosen on generated traffic.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from statistics import median
from typing import Final

from groundplan.core.money import PICO
from groundplan.economics.anomaly.daylight_saving import align_to_daylight_saving
from groundplan.economics.anomaly.model import Alarm, Hour, Kind, Minute

WINDOW: Final = 60
"""Minutes that are judged."""
CACHED: Final = "cache"
"""Name among models of answers from the cache."""
THRESHOLDS: Final[dict[Kind, float]] = {"spend": 32.0, "tokens_per_call": 14.0, "cache_rate": 12.0, "mix": 13.0}
SLACK: Final = 0.35
"""Subtracted from every score, so that random deviations do not add up."""
BANDS: Final[dict[Kind, float]] = {"spend": 4.0, "tokens_per_call": 3.0, "cache_rate": 3.0, "mix": 3.0}
"""Width of the usual band in standard deviations of past hours."""
MIN_BAND: Final[dict[Kind, float]] = {"spend": 0.30, "tokens_per_call": 0.10, "cache_rate": 0.05, "mix": 0.05}
COST_DISPERSION: Final = 6.0
"""Mean square of a call's cost, as a multiple of the square of its mean; the next one of its tokens."""
TOKEN_DISPERSION: Final = 2.5
LEAST_HOURS: Final = 48
"""Hours of history below which only runaways are reported."""
WEEK_HOURS: Final = 7 * 24
"""Hours of history below which any hour may be as busy as the busiest one so far."""
LEAST_CALLS: Final = 20
NEW_CALLS: Final = 30
NEW_SHARE: Final = 0.03
"""A caller that was never seen is reported from NEW_CALLS calls and this share of all calls on."""
LOOP_FACTOR: Final = 8.0
LOOP_MIN_RATE: Final = 20.0
"""A caller is in a loop from so many calls a minute on, and LOOP_FACTOR times its busiest usual minute."""
LOOP_UNKNOWN_RATE: Final = LOOP_MIN_RATE * LOOP_FACTOR
"""The same for a caller without usual values: the rate of a new application is unknown."""
LOOP_MINUTES: Final = 3


@dataclass(frozen=True, slots=True)
class Usual:
    """Usual values of a minute; bands are relative (of shares: absolute)."""

    calls: float
    cost: float
    each: float
    """picodollars of a call; 0 if none has cost anything yet"""
    tokens_per_call: float
    cached: float
    mix: dict[str, float]
    bands: dict[Kind, float]


class Baseline:
    """The past hours of one workload, up to the minutes that are judged. Stored in arrays: thousands of workloads have
    more than a million hours."""

    def __init__(self, hours: Iterable[Hour]) -> None:
        past = align_to_daylight_saving(sorted(hours, key=lambda hour: hour.at))
        self._at = array("q", [_hour_number(hour.at) for hour in past])
        self._calls = array("q", [hour.calls for hour in past])
        self._cost = array("d", [hour.cost for hour in past])
        self._usual_by_hour: dict[datetime, Usual] = {}
        self.has_history = len(past) >= LEAST_HOURS
        calls = sum(hour.calls for hour in past)
        self._each = sum(hour.cost for hour in past) / calls if calls else 0.0
        self._tokens = sum(hour.tokens for hour in past) / calls if calls else 0.0
        self._cached = sum(hour.cached for hour in past) / calls if calls else 0.0
        self._mix = _model_shares(past, calls)
        self._bands = self._measure_bands(past) if self.has_history else dict(MIN_BAND)

    def usual(self, at: datetime) -> Usual:
        """Usual values of a minute at that time; the same for all minutes of an hour."""
        hour = at.replace(minute=0, second=0, microsecond=0)
        if hour not in self._usual_by_hour:
            self._usual_by_hour[hour] = self._usual_in_hour(_hour_number(hour))
        return self._usual_by_hour[hour]

    def _usual_in_hour(self, at: int) -> Usual:
        similar = _SimilarHours(self._at)
        same, level = similar.like(at), self._level(at, similar)
        if self._at and len(self._at) < WEEK_HOURS:
            # busy days are not known yet: after a launch on a Friday the first Monday is not unusual
            same, level = [max(range(len(self._at)), key=self._cost.__getitem__)], 1.0
        calls, cost = (sum(values[place] for place in same) for values in (self._calls, self._cost))
        # few calls do not tell the cost of a call
        each = cost / calls if calls >= LEAST_CALLS and cost else self._each
        minute = level / (60 * max(1, len(same)))
        return Usual(calls * minute, cost * minute, each, self._tokens, self._cached, self._mix, self._bands)

    def _level(self, at: int, similar: _SimilarHours) -> float:
        """Ratio of the last day, or of the last week if that is higher, to the usual level: after a holiday an ordinary
        day is not unusual."""
        day, week = (
            [place for place in range(len(self._at))[-24 * days :] if at - self._at[place] <= 24 * days + 2]
            for days in (1, 7)
        )
        lately = max(self._ratio(day, similar), self._ratio(week, similar))
        return min(2.0, max(0.5, lately)) if lately > 0 else 1.0

    def _ratio(self, places: Sequence[int], similar: _SimilarHours) -> float:
        """Calls of these hours divided by their usual calls."""
        usual = sum(
            sum(self._calls[each] for each in like) / max(1, len(like))
            for place in places
            for like in [similar.like(self._at[place])]
        )
        return sum(self._calls[place] for place in places) / usual if usual > 0 else 0.0

    def _measure_bands(self, past: Sequence[Hour]) -> dict[Kind, float]:
        spend, tokens, cached, mixed = [], [], [], []
        similar = _SimilarHours(self._at)
        for hour, at in zip(past, self._at, strict=True):
            like = similar.like(at)
            usual = sum(self._cost[place] for place in like) / len(like)
            if usual and hour.calls >= LEAST_CALLS:
                spend.append(hour.cost / usual - 1)
            if hour.calls >= LEAST_CALLS:
                tokens.append(hour.tokens / hour.calls / self._tokens - 1 if self._tokens else 0.0)
                cached.append(hour.cached / hour.calls - self._cached)
                mixed.append(max((abs(hour.by_model.get(name, 0) / hour.calls - share)
                                  for name, share in self._mix.items()), default=0.0))  # fmt: skip
        seen: dict[Kind, list[float]] = {
            "spend": spend, "tokens_per_call": tokens, "cache_rate": cached, "mix": mixed,
        }  # fmt: skip
        return {kind: max(MIN_BAND[kind], BANDS[kind] * _deviation(values)) for kind, values in seen.items()}


class _SimilarHours:
    """Finds past hours that are comparable with another one. Built on demand: kept, it would need far more memory."""

    def __init__(self, hours: Sequence[int]) -> None:
        self._all = range(len(hours))
        self._by_week: dict[int, list[int]] = {}
        self._by_day: dict[int, list[int]] = {}
        for place, at in enumerate(hours):
            self._by_week.setdefault(at % WEEK_HOURS, []).append(place)
            self._by_day.setdefault(at % 24, []).append(place)

    def like(self, at: int) -> Sequence[int]:
        """Indexes of the same hour of the week if there are enough, else of the same hour of the day."""
        week = self._by_week.get(at % WEEK_HOURS, [])
        return week if len(week) >= 2 else self._by_day.get(at % 24, []) or self._all


def _hour_number(hour: datetime) -> int:
    """Hours since 1970; modulo a day or a week it is equal for the same hour of them."""
    return int(hour.timestamp()) // 3600


def detect(
    past: Baseline,
    minutes: Sequence[Minute],
    known: frozenset[str] = frozenset(),
    busiest: dict[str, float] | None = None,
) -> list[Alarm]:
    """Alarms at the last of consecutive `minutes`: at most one of each kind, and of `runaway` one for each caller.

    `known`: callers of the last weeks; `busiest`: calls of their busiest usual minute.
    """
    window = list(minutes)[-WINDOW:]
    if not window:
        return []
    found: list[Alarm | None] = [*_runaway(window, busiest or {})]
    if past.has_history:
        usual = [past.usual(minute.at) for minute in window]
        found += [_spend(window, usual), _tokens(window, usual), _cache(window, usual), _mix(window, usual)]
        found.append(_new_caller(window, known))
    return [alarm for alarm in found if alarm is not None]


def _spend(window: list[Minute], usual: list[Usual]) -> Alarm | None:
    now = max(minute.cost / max(minute.calls, 1) for minute in window)
    scores = []
    for minute, u in zip(window, usual, strict=True):
        each = u.each or now  # nothing has cost anything yet
        deviation = math.sqrt(COST_DISPERSION * max(each * u.cost, each * each * 0.2)) or 1.0
        scores.append((minute.cost - u.cost * (1 + u.bands["spend"])) / deviation)
    since, score = _largest_sum(scores, THRESHOLDS["spend"])
    if since is None:
        return None
    span = len(window) - since
    seen = sum(minute.cost for minute in window[since:]) / span * 60 / PICO
    return Alarm("spend", window[since].at, seen, sum(u.cost for u in usual[since:]) / span * 60 / PICO, score)


def _tokens(window: list[Minute], usual: list[Usual]) -> Alarm | None:
    scores = []
    for minute, u in zip(window, usual, strict=True):
        mean = u.tokens_per_call or 1.0
        expected = minute.calls * mean * (1 + u.bands["tokens_per_call"])
        scores.append((minute.tokens - expected) / (mean * math.sqrt(TOKEN_DISPERSION * max(minute.calls, 1))))
    since, score = _largest_sum(scores, THRESHOLDS["tokens_per_call"])
    calls = _calls(window, since)
    if since is None or calls < LEAST_CALLS:
        return None
    seen = sum(minute.tokens for minute in window[since:]) / calls
    return Alarm("tokens_per_call", window[since].at, seen, usual[-1].tokens_per_call, score)


def _cache(window: list[Minute], usual: list[Usual]) -> Alarm | None:
    share = usual[-1].cached
    if share < 0.1:
        return None
    scores = [
        ((share - u.bands["cache_rate"]) * m.calls - m.cached) / math.sqrt(max(m.calls, 1) * share * (1 - share) + 0.5)
        for m, u in zip(window, usual, strict=True)
    ]
    since, score = _largest_sum(scores, THRESHOLDS["cache_rate"])
    calls = _calls(window, since)
    if since is None or calls < LEAST_CALLS:
        return None
    return Alarm("cache_rate", window[since].at, sum(m.cached for m in window[since:]) / calls, share, score)


def _calls(window: list[Minute], since: int | None) -> int:
    """Calls of the minutes from `since` on; 0 for None."""
    return 0 if since is None else sum(minute.calls for minute in window[since:])


def _mix(window: list[Minute], usual: list[Usual]) -> Alarm | None:
    """A larger share of calls goes to a model. More answers from the cache are no alarm; fewer are `_cache`'s."""
    best: Alarm | None = None
    for model in sorted({name for minute in window for name in minute.by_model} - {CACHED}):
        share = usual[-1].mix.get(model, 0.0)
        spread = max(share * (1 - share), 0.03)
        scores = [
            (m.by_model.get(model, 0) - m.calls * (share + u.bands["mix"])) / math.sqrt(max(m.calls, 1) * spread + 0.5)
            for m, u in zip(window, usual, strict=True)
        ]
        since, score = _largest_sum(scores, THRESHOLDS["mix"])
        calls = _calls(window, since)
        if since is not None and calls >= LEAST_CALLS and (best is None or score > best.score):
            seen = sum(m.by_model.get(model, 0) for m in window[since:]) / calls
            best = Alarm("mix", window[since].at, seen, share, score, model)
    return best


def _new_caller(window: list[Minute], known: frozenset[str]) -> Alarm | None:
    calls = sum(sum(minute.by_caller.values()) for minute in window)
    counts: dict[str, int] = {}
    for minute in window:
        for caller, count in minute.by_caller.items():
            if caller not in known:
                counts[caller] = counts.get(caller, 0) + count
    most = max(counts, key=lambda name: counts[name], default=None)
    if most is None or counts[most] < max(NEW_CALLS, NEW_SHARE * calls):
        return None
    since = next(minute.at for minute in window if minute.by_caller.get(most))
    return Alarm("new_caller", since, counts[most] / calls, 0.0, counts[most] / NEW_CALLS, most)


def _runaway(window: list[Minute], busiest: dict[str, float]) -> list[Alarm]:
    """Callers far above their own busiest usual minute, for `LOOP_MINUTES` in a row."""
    recent = window[-LOOP_MINUTES:]
    if len(recent) < LOOP_MINUTES:
        return []
    found = []
    for caller in recent[-1].by_caller:
        rate = min(minute.by_caller.get(caller, 0) for minute in recent)
        usual = busiest.get(caller, 0.0)
        least = max(LOOP_MIN_RATE, LOOP_FACTOR * usual)
        if rate >= least:
            since = recent[0].at
            for minute in reversed(window):
                if minute.by_caller.get(caller, 0) < least:
                    break
                since = minute.at
            found.append(Alarm("runaway", since, float(rate), usual, rate / least, caller))
    return found


def _largest_sum(scores: list[float], threshold: float) -> tuple[int | None, float]:
    """(index where the largest sum up to the last minute begins, or None if below the threshold; sum / threshold)"""
    if not scores:
        return None, 0.0
    sums = list(accumulate(score - SLACK for score in reversed(scores)))
    most = max(sums)
    if most < threshold:
        return None, most / threshold
    return len(scores) - 1 - sums.index(most), most / threshold


def _model_shares(hours: Sequence[Hour], calls: int) -> dict[str, float]:
    counts: dict[str, int] = {}
    for hour in hours:
        for name, count in hour.by_model.items():
            counts[name] = counts.get(name, 0) + count
    return {name: count / calls for name, count in counts.items()} if calls else {}


def _deviation(values: list[float]) -> float:
    """Robust standard deviation, from the median absolute deviation."""
    if len(values) < 8:
        return 0.0
    middle = median(values)
    return 1.4826 * median(abs(value - middle) for value in values)
