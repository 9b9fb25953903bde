"""Forecast of a series with its interval, and its error at past origins.

The middle is the mean of the settings of `smooth` that were best at past origins, and of the medians of the last
seasons. The interval is that of the errors at past origins (split conformal, by distance), so it needs no assumption
about their distribution. Holidays are excluded from learning and have their own factor; launches shift the level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Final

import numpy as np

from groundplan.core.errors import Invalid
from groundplan.core.words import quantity
from groundplan.economics.forecast import intermittent, short_series
from groundplan.economics.forecast.level_shift import LevelShift
from groundplan.economics.forecast.level_shift import find_level_shift as last_step
from groundplan.economics.forecast.model import DAY, HOUR, Forecast, Series
from groundplan.economics.forecast.outliers import remove_outliers
from groundplan.economics.forecast.smooth import SETTINGS, Floats, smoothed_paths

MIN_VALUES: Final = 8
"""Fewest values that are forecast."""
MAX_ORIGINS: Final = 14
MANY_LOG: Final = math.log(10)
"""Log size of a launch after which earlier values tell nothing, not even how weekdays differ."""
BEGUN: Final = 0.1
"""Share of the total after which use has begun for good: empty days before that belong to a pilot."""
QUICK: Final = 21
"""Number of values below which recent ones weigh most, since new use grows."""
BEST_SETTINGS: Final = 5
"""Number of settings that are averaged."""
INTERVAL_LEVEL: Final = 0.8
"""Share of true values that intervals contain."""
_BUCKETS: Final = 4
_OFFSET: Final = 0.05
"""Share of the mean added before taking logarithms, so that small values do not weigh more than large ones."""
QUIET_DAYS: Final = 0.6
"""Share of the least other day below which two days are a weekend."""
_QUIET: Final = 0.8
"""Share of the median weekday below which one is a quiet one."""
_WIDEN: Final = 1.0
"""Factor of intervals over past errors; chosen on generated seasons whose seeds are below 1000."""
_FEW: Final = 2.0
"""Widens the interval of a sum where few past sums had no day in common."""


@dataclass(frozen=True, slots=True)
class _History:
    """Logarithms of a series without its holidays, and what is needed to convert back."""

    logs: Floats
    values: Floats
    offset: float
    cycle: int
    jumps: dict[int, float]
    closed: Floats
    """1.0 for steps on holidays, future ones too."""
    whose: tuple[str, ...]
    """Countries whose holiday each step is."""
    weekday: Floats
    """Logarithm of each step's weekday level relative to the median weekday, at most 0: a holiday on a Sunday lowers
    nothing."""


def forecast(series: Series, horizon: int) -> Forecast:
    """Forecast the next `horizon` steps. Raises `Invalid` (`forecast_impossible`) for fewer than `MIN_VALUES` values or
    invalid ones."""
    _check(series, horizon)
    if intermittent.is_rare(series):
        return intermittent.forecast(
            series, horizon, _growth_logs(series, horizon), _past_origins(len(series.values), horizon, 7)
        )
    if (young_one := forecast_new(series, horizon)) is not None:
        return young_one
    series, once, again = remove_outliers(series, horizon)
    past = _prepare_history(series, horizon)
    begun = last_step(past.logs, past.cycle, past.jumps) if series.step == DAY else None
    noted, unsure = _launch_note(series, begun)
    if begun is not None and begun.size > MANY_LOG:
        series = replace(series, start=series.at(begun.place), values=series.values[begun.place :])
        past = _prepare_history(series, horizon)
    elif begun is not None:
        past.jumps[begun.place] = past.jumps.get(begun.place, 0.0) + begun.size
    count = len(past.values)
    origins = _past_origins(count, horizon, past.cycle)
    made = smoothed_paths(past.logs, past.cycle, [*origins, count], horizon, past.jumps)
    made = {place: np.vstack([each, _seasonal_forecasts(past, place, horizon)]) for place, each in made.items()}
    effect = _holiday_effect(past, made, origins)
    growth = _growth_logs(series, horizon)
    chosen = _best_settings(past, made, origins, horizon, declared=series.growth_per_month is not None)
    errors = _past_errors(past, made, origins, chosen, effect)
    middle = made[count][chosen].mean(axis=0) + effect[count:]
    low, high = _interval(errors, horizon)
    low, high = (
        np.minimum(low, -unsure * _default_half_width(horizon)),
        np.maximum(high, unsure * _default_half_width(horizon)),
    )
    back = [_from_logs(middle + each, past.offset) * np.exp(growth) for each in (0.0, low, high)]
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
        method=_method_text(chosen, past.cycle),
        error=_mase(past, made, origins, chosen, effect),
        notes=(*noted, *once, *_notes(past, origins, series)),
        detail={"holiday_factors": _holiday_factors(past, effect), "origins": len(origins), "cycle": past.cycle},
    )
    return without if again is None else again.apply_to(without)


def _check(series: Series, horizon: int) -> None:
    values = series.values
    if len(values) < MIN_VALUES or not 1 <= horizon <= 2000 or not all(math.isfinite(v) and v >= 0 for v in values):
        unit = {DAY: "days", HOUR: "hours"}.get(series.step, "steps")
        raise Invalid(
            f"the next {horizon} {unit} cannot be forecast from {len(values)} {unit} of history",
            code="forecast_impossible",
            hint=f"Wait for {MIN_VALUES} {unit} of history."
            if len(values) < MIN_VALUES
            else f"Ask for 1 to 2000 {unit} ahead of values that are 0 or more.",
        )


def _prepare_history(series: Series, horizon: int) -> _History:
    values = np.array(series.values, dtype=np.float64)
    count = len(values)
    cycle = series.cycle if count >= 2 * series.cycle or _has_weekend(series) else 1
    if cycle == 1 and series.cycle > 7 and count >= 3 * (series.cycle // 7):
        cycle = series.cycle // 7
    offset = max(float(values.mean()) * _OFFSET, 1e-9)
    dates = [series.at(place).date().isoformat() for place in range(count + horizon)]
    closed = np.array([float(day in series.holidays) for day in dates])
    if count - closed[:count].sum() < MIN_VALUES:
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
    return _History(logs, values, offset, cycle, jumps, closed, whose, _weekdays(values, cycle, count + horizon))


def _has_weekend(series: Series) -> bool:
    """Whether each week so far had two adjacent quiet days: even the days of one week tell that much."""
    values = series.values
    if series.step != DAY or not MIN_VALUES <= len(values) < 2 * series.cycle:
        return False
    for first in range(7):
        quiet = {first, (first + 1) % 7}
        low = [value for place, value in enumerate(values) if place % 7 in quiet]
        rest = [value for place, value in enumerate(values) if place % 7 not in quiet]
        if max(low) < QUIET_DAYS * min(rest):
            return True
    return False


def _past_origins(count: int, horizon: int, cycle: int) -> list[int]:
    """Past positions with enough history before them and a whole horizon after them, the newest last."""
    least = max(2 * cycle, MIN_VALUES)
    last = count - horizon
    if last < least:
        return []
    step = max(1, min(horizon // 2, (last - least) // MAX_ORIGINS or 1))
    return sorted(last - each * step for each in range(MAX_ORIGINS) if last - each * step >= least)


def _seasonal_forecasts(past: _History, place: int, horizon: int) -> Floats:
    """Three forecasts from the last seasons alone: the medians of the last six, three and two, with their level."""
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
    """Median of the finite values; NaN without any."""
    known = logs[np.isfinite(logs)]
    return float(np.median(known)) if len(known) else math.nan


def _nanmedian(seen: Floats) -> Floats:
    """Median of the finite values of each column; 0 without any. NumPy's own takes ten times as long for so few."""
    known = np.isfinite(seen)
    ordered = np.sort(np.where(known, seen, np.inf), axis=0)
    count, columns = known.sum(axis=0), np.arange(seen.shape[1])
    middle = ordered[np.maximum(count - 1, 0) // 2, columns] + ordered[np.minimum(count // 2, len(seen) - 1), columns]
    made: Floats = np.where(count > 0, middle / 2, 0.0)
    return made


def _holiday_effect(past: _History, made: dict[int, Floats], origins: list[int]) -> Floats:
    """What each step's holiday adds to the logarithm: as past holidays of the same countries showed, shrunk towards
    those of all countries and the level of a weekend."""
    count = len(past.values)
    seen: dict[str, list[float]] = {}
    for origin in origins:
        middle = np.median(made[origin], axis=0)
        for step in range(len(middle)):
            at = origin + step
            if at < count and past.closed[at] and past.weekday[at] == 0:  # a weekend hides what a holiday takes
                less = math.log(past.values[at] + past.offset) - float(middle[step])
                seen.setdefault(past.whose[at], []).append(less)
    every = _shrunk_median([less for each in seen.values() for less in each], float(past.weekday.min()), 2.0)
    levels = {who: _shrunk_median(seen.get(who, []), every, 0.5) for who in set(past.whose)}
    found: Floats = np.array([levels[who] for who in past.whose])
    return np.where(found < 0, np.minimum(found - past.weekday, 0.0), found) * past.closed


def _shrunk_median(seen: list[float], prior: float, worth: float) -> float:
    """Median of `seen`, shrunk towards `prior`, which weighs as much as `worth` values."""
    weight = min(len(seen), 8)
    return float((np.median(seen) * weight + worth * prior) / (weight + worth)) if seen else prior


def _holiday_factors(past: _History, effect: Floats) -> dict[str, float]:
    """Countries of a holiday -> level of a weekday that is one, relative to an ordinary weekday."""
    return {
        who: round(float(np.exp(effect[place])), 4)
        for place, who in enumerate(past.whose)
        if past.closed[place] and past.weekday[place] == 0
    }


def _weekdays(values: Floats, cycle: int, steps: int) -> Floats:
    """Values of `_History.weekday`; 0 without weekly seasons."""
    if cycle % 7:
        return np.zeros(steps)
    per_day = cycle // 7
    whole = values[: len(values) // cycle * cycle].reshape(-1, 7, per_day).sum(axis=2).mean(axis=0)
    middle = float(np.median(whole))
    shares = np.maximum(whole / middle, 0.02) if middle else np.ones(7)
    quiet = np.where(shares < _QUIET, np.log(shares), 0.0)
    found: Floats = quiet[np.arange(steps) // per_day % 7]
    return found


def _growth_logs(series: Series, horizon: int) -> Floats:
    if series.growth_per_month is None:
        return np.zeros(horizon)
    rate = math.log1p(max(series.growth_per_month, -0.99)) * (series.step / (30 * DAY))
    made: Floats = np.arange(1, horizon + 1, dtype=np.float64) * rate
    return made


def forecast_new(series: Series, horizon: int, least: int = MIN_VALUES) -> Forecast | None:
    """Forecast of a young, changing series of at least `least` days; None where empty days come again after it has
    begun."""
    if series.step != DAY or len(series.values) > short_series.MOST:
        return None
    whole, once, again = remove_outliers(series, horizon)
    if again is not None:
        begun = int(np.searchsorted(np.cumsum(series.values), BEGUN * sum(series.values)))
        if 0.0 in series.values[begun:]:
            return None
        whole = series
    past = _prepare_history(whole, horizon)
    unknown = past.closed.copy()
    unknown[: len(past.values)][past.values != np.array(series.values)] = 1.0
    made = short_series.forecast(whole, horizon, unknown, _launch_levels(past), _growth_logs(series, horizon), least)
    return None if made is None else replace(made, notes=(*made.notes, *once))


def _launch_levels(past: _History) -> Floats:
    """What launches have added to the logarithm at each step, future ones included."""
    made: Floats = np.zeros(len(past.closed))
    for place, size in past.jumps.items():
        made[place:] += size
    return made


def _best_settings(
    past: _History, made: dict[int, Floats], origins: list[int], horizon: int, *, declared: bool
) -> list[int]:
    """Settings that were best at past origins, recent ones weighing more; cautious ones without origins."""
    allowed = [
        place for place in range(len(SETTINGS) + 3)
        if not declared or place >= len(SETTINGS) or SETTINGS[place][1] == 0.0
    ]  # fmt: skip
    if not origins:
        quick = (0.2, 0.45) if len(past.values) < QUICK else (0.08, 0.2)
        return [place for place in allowed if place < len(SETTINGS) and SETTINGS[place][0] in quick]
    scores: Floats = np.zeros(len(SETTINGS) + 3)
    for age, origin in enumerate(reversed(origins)):
        truth, back = past.values[origin : origin + horizon], _from_logs(made[origin], past.offset)
        open_ = past.closed[origin : origin + horizon] == 0
        missed: Floats = np.abs(back - truth)[:, open_].sum(axis=1)
        scores = np.asarray(scores + 0.93**age * missed, dtype=np.float64)
    return sorted(sorted(allowed, key=lambda place: scores[place])[:BEST_SETTINGS])


def _past_errors(
    past: _History, made: dict[int, Floats], origins: list[int], chosen: list[int], effect: Floats
) -> list[Floats]:
    """Logarithmic errors at each past origin, by distance."""
    found = []
    for origin in origins:
        middle = made[origin][chosen].mean(axis=0)
        span = slice(origin, origin + len(middle))
        found.append(np.log(past.values[span] + past.offset) - middle - effect[span])
    return found


def _interval(errors: list[Floats], horizon: int) -> tuple[Floats, Floats]:
    """Offsets of the lower and upper end from the middle, by distance."""
    if not errors:
        return -_default_half_width(horizon), _default_half_width(horizon)
    table = np.array(errors)
    low, high = np.zeros(horizon), np.zeros(horizon)
    edges = np.linspace(0, horizon, min(_BUCKETS, horizon) + 1).astype(int)
    for first, last in pairwise(edges.tolist()):
        seen = np.sort(table[:, first:last].ravel())
        tail = (1 - INTERVAL_LEVEL) / 2 * (1 - 1 / (len(table) + 1))
        low[first:last], high[first:last] = np.quantile(seen, tail) * _WIDEN, np.quantile(seen, 1 - tail) * _WIDEN
    return np.minimum(low, 0.0), np.maximum(high, 0.0)


def _default_half_width(horizon: int) -> Floats:
    """Half width of an interval without past errors: a rule of thumb."""
    made: Floats = np.linspace(0.35, 0.7, horizon)
    return made


def _from_logs(logs: Floats, offset: float) -> Floats:
    made: Floats = np.maximum(np.exp(np.minimum(logs, 60.0)) - offset, 0.0)
    return made


def _total(
    past: _History, made: dict[int, Floats], origins: list[int], chosen: list[int], effect: Floats, back: list[Floats]
) -> tuple[float, float, float]:
    """The sum of all steps and its interval, from the ratios of past sums to their forecasts. Sums from neighbouring
    origins overlap, so they differ less than future sums will."""
    said = float(back[0].sum())
    ratios = []
    for origin in origins:
        middle = made[origin][chosen].mean(axis=0)
        span = slice(origin, origin + len(middle))
        whole = float(_from_logs(middle + effect[span], past.offset).sum())
        if whole > 0:
            ratios.append(float(past.values[span].sum()) / whole)
    if len(ratios) < 4:
        return said, float(back[1].sum()) * 0.5 + said * 0.5, float(back[2].sum()) * 0.5 + said * 0.5
    centre = float(np.clip(np.median(ratios), 0.8, 1.25))
    alike = _origin_overlap(origins, len(made[origins[0]][0]))
    alone = len(ratios) / (1 + (len(ratios) - 1) * alike)
    spread = max(float(np.std(ratios, ddof=1)) / math.sqrt(1 - alike), 0.01) * 1.28 * math.sqrt(1 + _FEW / alone)
    return said * centre, said * max(0.0, centre - spread), said * (centre + spread)


def _origin_overlap(origins: list[int], horizon: int) -> float:
    """Average share of days that two sums from past origins have in common; at most 0.9."""
    shared = [max(0.0, 1 - (two - one) / horizon) for one, two in combinations(origins, 2)]
    return min(0.9, sum(shared) / len(shared))


def _mase(
    past: _History, made: dict[int, Floats], origins: list[int], chosen: list[int], effect: Floats
) -> float | None:
    scale = float(np.abs(past.values[past.cycle :] - past.values[: -past.cycle]).mean())
    if not origins or scale == 0:
        return None
    found = []
    for origin in origins:
        middle = made[origin][chosen].mean(axis=0)
        span = slice(origin, origin + len(middle))
        said = _from_logs(middle + effect[span], past.offset)
        found.append(float(np.abs(said - past.values[span]).mean()))
    return round(float(np.mean(found)) / scale, 4)


def _method_text(chosen: list[int], cycle: int) -> str:
    smoothed = sum(place < len(SETTINGS) for place in chosen)
    season = f"seasons of {cycle} steps" if cycle > 1 else "no season"
    kinds = (
        (smoothed, "exponential smoothing", None),
        (len(chosen) - smoothed, "median of seasons", "medians of seasons"),
    )
    made = " and ".join(quantity(number, *words) for number, *words in kinds if number)
    return f"mean of {made}, {season}"


def _launch_note(series: Series, begun: LevelShift | None) -> tuple[tuple[str, ...], float]:
    """(notes about an undeclared launch, the uncertainty that it adds)."""
    if begun is None:
        return (), 0.0
    day = series.at(begun.place).date().isoformat()
    told = f"since {day} there is {begun.text}, which is taken to stay: declare launches that end"
    return (told,), begun.unsure(len(series.values))


def _notes(past: _History, origins: list[int], series: Series) -> tuple[str, ...]:
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
