"""Forecast for the runway of a budget with too few days for `predict`: by their trend if five or more surely have one,
else by their mean, between half and twice of it. Pure."""

from __future__ import annotations

from groundplan.core.words import quantity
from groundplan.economics.forecast import short_series
from groundplan.economics.forecast.intermittent import levels
from groundplan.economics.forecast.model import Forecast, Series
from groundplan.economics.forecast.predict import MIN_VALUES, forecast_new

__all__ = ["MIN_VALUES", "forecast_short_series"]


def forecast_short_series(series: Series, horizon: int) -> Forecast:
    """Of one day at least."""
    changing = forecast_new(series, horizon, short_series.FEWEST) if len(series.values) >= short_series.FEWEST else None
    return _mean_of(series, horizon) if changing is None else changing


def _mean_of(series: Series, horizon: int) -> Forecast:
    count = len(series.values)
    level = levels(series, horizon)
    mean = sum(value / level[place] for place, value in enumerate(series.values)) / count
    middle, low, high = (tuple((mean * times * level[count:]).tolist()) for times in (1.0, 0.5, 2.0))
    return Forecast(
        series.at(count), series.step, middle, low, high, sum(middle), sum(low), sum(high),
        f"mean of {quantity(count, 'day')}", None,
    )  # fmt: skip
