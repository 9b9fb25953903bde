"""From what happened to what will: the forecast of a series, its interval, and how right it would have been before.

The middle is the mean of the settings of `smooth` that were best at past origins, beside the median of the last
seasons. The interval is that of the errors at past origins (split conformal, by distance), so it needs no assumption
about them. Holidays are left out of what is learned and have their own factor; launches move the level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Final

import numpy as np

from groundplan.core.errors import Invalid
from groundplan.core.words import counted
from groundplan.economics.forecast import intermittent, short_series
from groundplan.economics.forecast.level_shift import Step
from groundplan.economics.forecast.level_shift import step as last_step
from groundplan.economics.forecast.model import DAY, HOUR, Forecast, Series
from groundplan.economics.forecast.outliers import usual
from groundplan.economics.forecast.smooth import SETTINGS, Floats, paths

LEAST: Final = 8
"""Values below which nothing is said."""
ORIGINS: Final = 14
MANY: Final = math.log(10)
"""Of a launch beside which what was before says nothing, not even of how days of the week differ."""
BEGUN: Final = 0.1
"""Of all that was, after which it has begun for good: days without any before that are of a pilot."""
QUICK: Final = 21
"""Values below which what is new counts most: whatever begins grows."""
BEST: Final = 5
"""Settings whose mean is taken."""
LEVEL: Final = 0.8
"""Share of the truth that intervals hold."""
_BUCKETS: Final = 4
_OFFSET: Final = 0.05
"""Of the mean, added before logarithms are taken: small values are not to weigh more than large ones."""
QUIET_DAYS: Final = 0.6
"""Share of the least other day below which two days are a weekend."""
_QUIET: Final = 0.8
"""Share of the median weekday below which one is a quiet one."""
_WIDEN: Final = 1.0
"""By how much intervals are wider than past errors; chosen on generated seasons whose seeds are below 1000."""
_FEW: Final = 2.0
"""By how much that of a sum is wider where few past sums had no day together."""


@dataclass(frozen=True, slots=True)
class _Past:
    """Logarithms of a series with what is left out, and how to go back."""

    logs: Floats
    values: Floats
    offset: float
    cycle: int
    jumps: dict[int, float]
    closed: Floats
    """1.0 for steps on holidays, future ones too."""
    whose: tuple[str, ...]
    """Of each step who has its holiday."""
    weekday: Floats
    """Logarithm of how much there is on the weekday of each step beside the median one, at most 0: a holiday on a
    Sunday takes nothing from it."""


def forecast(series: Series, horizon: int) -> Forecast:
    """The next `horizon` steps. Raises `Invalid` (`forecast_impossible`) for fewer than `LEAST` values or bad ones."""
    _check(series, horizon)
    if intermittent.is_rare(series):
        return intermittent.forecast(
            series, horizon, _growth(series, horizon), _origins(len(series.values), horizon, 7)
        )
    if (young_one := new(series, horizon)) is not None:
        return young_one
    series, once, again = usual(series, horizon)
    past = _past(series, horizon)
    begun = last_step(past.logs, past.cycle, past.jumps) if series.step == DAY else None
    noted, unsure = _noted(series, begun)
    if begun is not None and begun.size > MANY:
        series = replace(series, start=series.at(begun.place), values=series.values[begun.place :])
        past = _past(series, horizon)
    elif begun is not None:
        past.jumps[begun.place] = past.jumps.get(begun.place, 0.0) + begun.size
    count = len(past.values)
    origins = _origins(count, horizon, past.cycle)
    made = paths(past.logs, past.cycle, [*origins, count], horizon, past.jumps)
    made = {place: np.vstack([each, _seasons(past, place, horizon)]) for place, each in made.items()}
    effect = _holiday_effect(past, made, origins)
    growth = _growth(series, horizon)
    chosen = _chosen(past, made, origins, horizon, declared=series.growth_per_month is not None)
    errors = _errors(past, made, origins, chosen, effect)
    middle = made[count][chosen].mean(axis=0) + effect[count:]
    low, high = _interval(errors, horizon)
    low, high = np.minimum(low, -unsure * _thumb(horizon)), np.maximum(high, unsure * _thumb(horizon))
    back = [_back(middle + each, past.offset) * np.exp(growth) for each in (0.0, low, high)]
    total, total_low, total_high = _total(past, made, origins, chosen, effect, back)
    without = Forecast(
        start=series.at(count),
        step=series.step,
        middle=tuple(back[0].tolist()),
        low=tuple(back[1].tolist()),
        high=tuple(back[2].tolist()),
        total=total,
        total_low=min(total_low, total * math.exp(-0.35 * unsure)),
        total_high=max(total_high, total * math.exp(0.35 * unsure)),
        method=_told(chosen, past.cycle),
        error=_mase(past, made, origins, chosen, effect),
        notes=(*noted, *once, *_notes(past, origins, series)),
        detail={"holiday_factors": _factors(past, effect), "origins": len(origins), "cycle": past.cycle},
    )
    return without if again is None else again.left_in(without)


def _check(series: Series, horizon: int) -> None:
    values = series.values
    if len(values) < LEAST or not 1 <= horizon <= 2000 or not all(math.isfinite(v) and v >= 0 for v in values):
        unit = {DAY: "days", HOUR: "hours"}.get(series.step, "steps")
        raise Invalid(
            f"the next {horizon} {unit} cannot be forecast from {len(values)} {unit} of history",
            code="forecast_impossible",
            hint=f"Wait for {LEAST} {unit} of history."
            if len(values) < LEAST
            else f"Ask for 1 to 2000 {unit} ahead of values that are 0 or more.",
        )


def _past(series: Series, horizon: int) -> _Past:
    values = np.array(series.values, dtype=np.float64)
    count = len(values)
    cycle = series.cycle if count >= 2 * series.cycle or _weekend(series) else 1
    if cycle == 1 and series.cycle > 7 and count >= 3 * (series.cycle // 7):
        cycle = series.cycle // 7
    offset = max(float(values.mean()) * _OFFSET, 1e-9)
    dates = [series.at(place).date().isoformat() for place in range(count + horizon)]
    closed = np.array([float(day in series.holidays) for day in dates])
    if count - closed[:count].sum() < LEAST:
        closed[:] = 0  # nothing else is known than holidays
    logs = np.log(values + offset)
    logs[closed[:count] > 0] = np.nan
    jumps: dict[int, float] = {}
    for launch in series.launches:
        place = math.ceil((launch.at - series.start) / series.step)
        if 0 < place < count + horizon:
            jumps[place] = jumps.get(place, 0.0) + math.log(max(launch.factor, 1e-6))
    named = dict(series.whose)
    whose = tuple(named.get(day, "") if day in series.holidays else "" for day in dates)
    return _Past(logs, values, offset, cycle, jumps, closed, whose, _weekdays(values, cycle, count + horizon))


def _weekend(series: Series) -> bool:
    """Whether the last week had two quiet days side by side, as those before: the days of one week tell that much."""
    values = series.values
    if series.step != DAY or not LEAST <= len(values) < 2 * series.cycle:
        return False
    for first in range(7):
        quiet = {first, (first + 1) % 7}
        low = [value for place, value in enumerate(values) if place % 7 in quiet]
        rest = [value for place, value in enumerate(values) if place % 7 not in quiet]
        if max(low) < QUIET_DAYS * min(rest):
            return True
    return False


def _origins(count: int, horizon: int, cycle: int) -> list[int]:
    """Past places from which a whole horizon was seen, the newest last, and enough came before."""
    least = max(2 * cycle, LEAST)
    last = count - horizon
    if last < least:
        return []
    step = max(1, min(horizon // 2, (last - least) // ORIGINS or 1))
    return sorted(last - each * step for each in range(ORIGINS) if last - each * step >= least)


def _seasons(past: _Past, place: int, horizon: int) -> Floats:
    """Three forecasts from the last seasons alone: their median, the median of the last two, the last one smoothed."""
    cycle = past.cycle
    before = past.logs[:place]
    jumps = np.cumsum([past.jumps.get(place + step, 0.0) for step in range(horizon)])
    made = []
    for seasons in (6, 3, 2):
        steps = np.arange(horizon)
        back = place - cycle + steps % cycle
        seen = np.array([before[np.maximum(back - each * cycle, back % cycle)] for each in range(seasons)])
        if cycle == 1:
            seen = np.repeat(before[-4 * seasons :, None], horizon, axis=1)
        level = _median(before[-max(cycle, 4) :]) - _median(before[-max(cycle, 4) * seasons :])
        middle = np.where(np.isfinite(seen).any(axis=0), _nanmedian(seen), _median(before))
        made.append(middle + (level if np.isfinite(level) else 0.0) + jumps)
    found: Floats = np.array(made)
    return found


def _median(logs: Floats) -> float:
    """Of what is known; NaN where nothing is."""
    known = logs[np.isfinite(logs)]
    return float(np.median(known)) if len(known) else math.nan


def _nanmedian(seen: Floats) -> Floats:
    """Of what is known in each column; 0 where nothing is. NumPy's own takes ten times as long for so few."""
    known = np.isfinite(seen)
    ordered = np.sort(np.where(known, seen, np.inf), axis=0)
    count, columns = known.sum(axis=0), np.arange(seen.shape[1])
    middle = ordered[np.maximum(count - 1, 0) // 2, columns] + ordered[np.minimum(count // 2, len(seen) - 1), columns]
    made: Floats = np.where(count > 0, middle / 2, 0.0)
    return made


def _holiday_effect(past: _Past, made: dict[int, Floats], origins: list[int]) -> Floats:
    """Of each step what its holiday adds to the logarithm: what past ones of the same countries showed, together with
    those of all, and how a weekend compares."""
    count = len(past.values)
    seen: dict[str, list[float]] = {}
    for origin in origins:
        middle = np.median(made[origin], axis=0)
        for step in range(len(middle)):
            at = origin + step
            if at < count and past.closed[at] and past.weekday[at] == 0:  # a weekend hides what a holiday takes
                less = math.log(past.values[at] + past.offset) - float(middle[step])
                seen.setdefault(past.whose[at], []).append(less)
    every = _shrunk([less for each in seen.values() for less in each], float(past.weekday.min()), 2.0)
    levels = {who: _shrunk(seen.get(who, []), every, 0.5) for who in set(past.whose)}
    found: Floats = np.array([levels[who] for who in past.whose])
    return np.where(found < 0, np.minimum(found - past.weekday, 0.0), found) * past.closed


def _shrunk(seen: list[float], prior: float, worth: float) -> float:
    """Their median with what was known before, which is `worth` so many of them."""
    weight = min(len(seen), 8)
    return float((np.median(seen) * weight + worth * prior) / (weight + worth)) if seen else prior


def _factors(past: _Past, effect: Floats) -> dict[str, float]:
    """Who has a holiday -> how much there is on an ordinary weekday that is one, beside that weekday."""
    return {
        who: round(float(np.exp(effect[place])), 4)
        for place, who in enumerate(past.whose)
        if past.closed[place] and past.weekday[place] == 0
    }


def _weekdays(values: Floats, cycle: int, steps: int) -> Floats:
    """As `_Past.weekday`; 0 without seasons of a week."""
    if cycle % 7:
        return np.zeros(steps)
    per_day = cycle // 7
    whole = values[: len(values) // cycle * cycle].reshape(-1, 7, per_day).sum(axis=2).mean(axis=0)
    middle = float(np.median(whole))
    shares = np.maximum(whole / middle, 0.02) if middle else np.ones(7)
    quiet = np.where(shares < _QUIET, np.log(shares), 0.0)
    found: Floats = quiet[np.arange(steps) // per_day % 7]
    return found


def _growth(series: Series, horizon: int) -> Floats:
    if series.growth_per_month is None:
        return np.zeros(horizon)
    rate = math.log1p(max(series.growth_per_month, -0.99)) * (series.step / (30 * DAY))
    made: Floats = np.arange(1, horizon + 1, dtype=np.float64) * rate
    return made


def new(series: Series, horizon: int, least: int = LEAST) -> Forecast | None:
    """Of what has not been there for long, at `least` for so many days, and changes; None where days without any come
    again, also after it has begun."""
    if series.step != DAY or len(series.values) > short_series.MOST:
        return None
    whole, once, again = usual(series, horizon)
    if again is not None:
        begun = int(np.searchsorted(np.cumsum(series.values), BEGUN * sum(series.values)))
        if 0.0 in series.values[begun:]:
            return None
        whole = series
    past = _past(whole, horizon)
    unknown = past.closed.copy()
    unknown[: len(past.values)][past.values != np.array(series.values)] = 1.0
    made = short_series.forecast(whole, horizon, unknown, _levels(past), _growth(series, horizon), least)
    return None if made is None else replace(made, notes=(*made.notes, *once))


def _levels(past: _Past) -> Floats:
    """Of each step, coming ones too, what launches have added to the logarithm."""
    made: Floats = np.zeros(len(past.closed))
    for place, size in past.jumps.items():
        made[place:] += size
    return made


def _chosen(past: _Past, made: dict[int, Floats], origins: list[int], horizon: int, *, declared: bool) -> list[int]:
    """Settings that were best at past origins, newer ones weighing more; without any, careful ones."""
    allowed = [
        place for place in range(len(SETTINGS) + 3)
        if not declared or place >= len(SETTINGS) or SETTINGS[place][1] == 0.0
    ]  # fmt: skip
    if not origins:
        quick = (0.2, 0.45) if len(past.values) < QUICK else (0.08, 0.2)
        return [place for place in allowed if place < len(SETTINGS) and SETTINGS[place][0] in quick]
    scores: Floats = np.zeros(len(SETTINGS) + 3)
    for age, origin in enumerate(reversed(origins)):
        truth, back = past.values[origin : origin + horizon], _back(made[origin], past.offset)
        open_ = past.closed[origin : origin + horizon] == 0
        missed: Floats = np.abs(back - truth)[:, open_].sum(axis=1)
        scores = np.asarray(scores + 0.93**age * missed, dtype=np.float64)
    return sorted(sorted(allowed, key=lambda place: scores[place])[:BEST])


def _errors(
    past: _Past, made: dict[int, Floats], origins: list[int], chosen: list[int], effect: Floats
) -> list[Floats]:
    """Logarithmic errors at each past origin, by distance."""
    found = []
    for origin in origins:
        middle = made[origin][chosen].mean(axis=0)
        span = slice(origin, origin + len(middle))
        found.append(np.log(past.values[span] + past.offset) - middle - effect[span])
    return found


def _interval(errors: list[Floats], horizon: int) -> tuple[Floats, Floats]:
    """What is added to the middle for the lower and upper end, by distance."""
    if not errors:
        return -_thumb(horizon), _thumb(horizon)
    table = np.array(errors)
    low, high = np.zeros(horizon), np.zeros(horizon)
    edges = np.linspace(0, horizon, min(_BUCKETS, horizon) + 1).astype(int)
    for first, last in pairwise(edges.tolist()):
        seen = np.sort(table[:, first:last].ravel())
        tail = (1 - LEVEL) / 2 * (1 - 1 / (len(table) + 1))
        low[first:last], high[first:last] = np.quantile(seen, tail) * _WIDEN, np.quantile(seen, 1 - tail) * _WIDEN
    return np.minimum(low, 0.0), np.maximum(high, 0.0)


def _thumb(horizon: int) -> Floats:
    """Half of an interval of which nothing is known."""
    made: Floats = np.linspace(0.35, 0.7, horizon)
    return made


def _back(logs: Floats, offset: float) -> Floats:
    made: Floats = np.maximum(np.exp(np.minimum(logs, 60.0)) - offset, 0.0)
    return made


def _total(
    past: _Past, made: dict[int, Floats], origins: list[int], chosen: list[int], effect: Floats, back: list[Floats]
) -> tuple[float, float, float]:
    """The sum of all steps and its interval: as past sums compared with what would have been said of them. Sums from
    origins side by side are nearly the same one: they differ less than what is to come will."""
    said = float(back[0].sum())
    ratios = []
    for origin in origins:
        middle = made[origin][chosen].mean(axis=0)
        span = slice(origin, origin + len(middle))
        whole = float(_back(middle + effect[span], past.offset).sum())
        if whole > 0:
            ratios.append(float(past.values[span].sum()) / whole)
    if len(ratios) < 4:
        return said, float(back[1].sum()) * 0.5 + said * 0.5, float(back[2].sum()) * 0.5 + said * 0.5
    centre = float(np.clip(np.median(ratios), 0.8, 1.25))
    alike = _alike(origins, len(made[origins[0]][0]))
    alone = len(ratios) / (1 + (len(ratios) - 1) * alike)
    spread = max(float(np.std(ratios, ddof=1)) / math.sqrt(1 - alike), 0.01) * 1.28 * math.sqrt(1 + _FEW / alone)
    return said * centre, said * max(0.0, centre - spread), said * (centre + spread)


def _alike(origins: list[int], horizon: int) -> float:
    """How much two sums from past origins are of the same days, on average; at most 0.9."""
    shared = [max(0.0, 1 - (two - one) / horizon) for one, two in combinations(origins, 2)]
    return min(0.9, sum(shared) / len(shared))


def _mase(past: _Past, made: dict[int, Floats], origins: list[int], chosen: list[int], effect: Floats) -> float | None:
    scale = float(np.abs(past.values[past.cycle :] - past.values[: -past.cycle]).mean())
    if not origins or scale == 0:
        return None
    found = []
    for origin in origins:
        middle = made[origin][chosen].mean(axis=0)
        span = slice(origin, origin + len(middle))
        said = _back(middle + effect[span], past.offset)
        found.append(float(np.abs(said - past.values[span]).mean()))
    return round(float(np.mean(found)) / scale, 4)


def _told(chosen: list[int], cycle: int) -> str:
    smoothed = sum(place < len(SETTINGS) for place in chosen)
    season = f"seasons of {cycle} steps" if cycle > 1 else "no season"
    kinds = (
        (smoothed, "exponential smoothing", None),
        (len(chosen) - smoothed, "median of seasons", "medians of seasons"),
    )
    made = " and ".join(counted(number, *words) for number, *words in kinds if number)
    return f"mean of {made}, {season}"


def _noted(series: Series, begun: Step | None) -> tuple[tuple[str, ...], float]:
    """(what is said of a launch that nobody declared, how unsure it makes what comes)."""
    if begun is None:
        return (), 0.0
    day = series.at(begun.place).date().isoformat()
    told = f"since {day} there is {begun.told}, which is taken to stay: declare launches that end"
    return (told,), begun.unsure(len(series.values))


def _notes(past: _Past, origins: list[int], series: Series) -> tuple[str, ...]:
    found, count = [], len(past.values)
    if not origins:
        found.append("there is too little history to look back on: the interval is a rule of thumb")
    if not past.closed.any() and any(series.at(place).date().isoformat() in series.holidays for place in range(count)):
        found.append("nearly all of the history are holidays: they count as other days do")
    if past.cycle == 7 and len(past.values) < 14:
        found.append("the days of the week are those of one week")
    if past.cycle == 1 and series.cycle > 1:
        found.append("the history is shorter than two seasons: none is assumed")
    return tuple(found)
