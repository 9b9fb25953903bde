"""What is new: shapes of growth from few days of history, with totals that are right and intervals that hold."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from benchmarks.forecast_young import SHAPES, evaluate_shape, generate_series

from groundplan.economics.forecast.model import DAY, Launch, Series
from groundplan.economics.forecast.predict import forecast
from groundplan.economics.forecast.short_runway import forecast_short_series
from groundplan.economics.forecast.short_series import METHOD, MOST

START = datetime(2026, 1, 5, tzinfo=UTC)


def days(values: list[float], **more: object) -> Series:
    return Series(START, DAY, tuple(values), **more)  # type: ignore[arg-type]


def growing(count: int, a_day: float = 1.2) -> list[float]:
    return [20 * a_day**place for place in range(count)]


@pytest.mark.parametrize(
    ("shape", "low", "high"),
    [
        ("saturating", 0.6, 1.3),
        ("ramp", 0.75, 1.2),
        ("slowing", 0.85, 1.15),
        ("launched", 0.85, 1.15),
        ("piloted", 0.5, 1.2),
    ],
)
@pytest.mark.parametrize("seen", [10, 14, 28])
def test_totals_of_what_grows_are_neither_half_nor_twice(shape: str, low: float, high: float, seen: int) -> None:
    """They were 0.3 to 0.8 of what came, and of intervals that should hold 80 % of ten days hardly any did."""
    row = evaluate_shape(shape, seen, range(24))
    assert low < row["said"] < high, row
    assert row["held"] >= 0.65, row


@pytest.mark.parametrize("shape", ["flat", "wandering", "monthly"])
def test_what_is_steady_is_forecast_as_before(shape: str) -> None:
    known = [generate_series(shape, seen, seed)[:seen] for seen in (10, 14, 21) for seed in range(20)]
    assert sum(forecast(days(list(each)), 28).method == METHOD for each in known) <= 4


def test_days_that_differ_much_have_their_mean_and_a_wide_interval() -> None:
    row = evaluate_shape("bursty", 14, range(24))
    assert 0.8 < row["said"] < 1.3 and row["held"] >= 0.65


def test_growth_is_told_with_what_it_would_be_without() -> None:
    made = forecast(days(growing(12)), 28)
    (note,) = made.notes
    assert note.startswith("there is ") and "times as much as a week ago" in note
    assert "12 days do not tell how long that goes on: if it ended today, the total would be " in note
    still = 28 * 20 * 1.2**11
    assert made.total > 1.5 * still, "it goes on for a while"
    share = float(note.rpartition("be ")[2].partition("%")[0]) / 100
    assert share * made.total == pytest.approx(still, rel=0.15)
    assert still < made.total_low and made.total_high > 2 * made.total_low, "nobody knows when it ends"
    assert made.error is None and made.middle[0] == pytest.approx(20 * 1.2**12, rel=0.15)


def test_a_declared_growth_begins_where_it_is_now_and_replaces_what_is_seen() -> None:
    made = forecast(days(growing(12), growth_per_month=0.3), 28)
    now = 20 * 1.2**11
    assert made.middle[0] == pytest.approx(now, rel=0.15)
    assert made.middle[27] / made.middle[0] == pytest.approx(1.3 ** (27 / 30), rel=0.02)
    assert not any("how long" in note for note in made.notes)


def test_two_weeks_of_growth_make_no_season() -> None:
    """Each Sunday is busier than the Monday before it, and the Monday after it is busier still."""
    made = forecast(days(growing(14, 1.15)), 14)
    assert all(after > 0.97 * before for before, after in zip(made.middle, made.middle[1:], strict=False))


def test_a_weekend_within_growth_is_one() -> None:
    values = [value * (0.2 if place % 7 > 4 else 1.0) for place, value in enumerate(growing(14, 1.1))]
    made = forecast(days(values), 14)
    assert made.middle[5] < 0.4 * made.middle[4] and made.middle[7] > 2.5 * made.middle[6]
    holiday = (START + 15 * DAY).date().isoformat()
    assert forecast(days(values, holidays=frozenset({holiday})), 14).middle[1] < 0.4 * made.middle[1]


def test_launches_that_are_declared_explain_their_part() -> None:
    values = [100.0] * 6 + [300.0] * 6
    launches = (Launch(START + 6 * DAY, 3.0), Launch(START + 19 * DAY, 2.0))
    made = forecast(days(values, launches=launches), 14)
    assert made.middle[0] == pytest.approx(300, rel=0.1) and made.middle[7] == pytest.approx(600, rel=0.1)
    assert made.method != METHOD and not any("declare" in note for note in made.notes)
    grown = [value * (3.0 if place > 5 else 1.0) for place, value in enumerate(growing(12, 1.1))]
    (before, after) = (forecast(days(grown, launches=launches[:part]), 14) for part in (1, 2))
    assert after.middle[7] == pytest.approx(2 * before.middle[7], rel=0.02) and after.middle[6] == before.middle[6]


def test_what_fades_is_not_forecast_to_stay() -> None:
    values = [1000 * math.exp(-place / 5) for place in range(14)]
    made = forecast(days(values), 28)
    assert made.total < 14 * values[-1] + 1000 and "of a week ago" in made.notes[0]


def test_a_step_of_few_days_is_named_by_its_day() -> None:
    made = forecast(days([20.0] * 8 + [100.0] * 6), 28)
    assert made.total == pytest.approx(2800, rel=0.1)
    assert made.notes[0].startswith("since 2026-01-13 there is ") and "declare launches that end" in made.notes[0]


def test_what_has_been_there_for_longer_looks_back() -> None:
    assert forecast(days(growing(MOST, 1.02)), 28).method == METHOD
    assert forecast(days(growing(MOST + 1, 1.02)), 28).method != METHOD


def test_days_without_any_before_it_began_to_grow_do_not_come_again() -> None:
    made = forecast(days([1.0, 0.0, 2.0, 0.0, 3.0, *growing(9)]), 14)
    assert made.method == METHOD and made.middle[0] > 0.6 * 20 * 1.2**9
    gaps = [0.0 if place % 3 == 1 else value for place, value in enumerate(growing(14))]
    assert any("as many such days are expected" in note for note in forecast(days(gaps), 14).notes)


@pytest.mark.parametrize("shape", SHAPES)
def test_generated_histories_are_of_counts_and_the_same_again(shape: str) -> None:
    values = generate_series(shape, 14, 3)
    assert values == generate_series(shape, 14, 3) and all(value >= 0 and value == int(value) for value in values)
    assert np.isfinite(forecast(days(list(values[:14])), 400).total)


@pytest.mark.parametrize("week", [[100, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 50, 60], [100, 50, 20, 80, 10, 0, 0]])
def test_what_differs_by_the_weekday_has_not_changed(week: list[float]) -> None:
    made = forecast(days(week * 3), 28)
    assert made.method != METHOD and made.total == pytest.approx(4 * sum(week), rel=0.05)


@pytest.mark.parametrize("a_day", [1.15, 1.3, 1.5])
def test_the_next_day_of_what_grows_steeply_is_about_as_much_more(a_day: float) -> None:
    made = forecast(days(growing(14, a_day)), 14)
    assert made.middle[0] == pytest.approx(20 * a_day**14, rel=0.3) and made.total_high > 1.4 * made.total_low


def test_a_ramp_after_days_of_nothing_begins_where_it_is() -> None:
    for before in ([0.0] * 8, [1.0] + [0.0] * 7):
        made = forecast(days([*before, 10, 20, 30, 40, 50, 60]), 14)
        assert 55 < made.middle[0] < 100 and made.total_low > 0.8 * 14 * 60


def of_few_days(shape: str, seen: int, seeds: range) -> tuple[float, float]:
    """(median of how far off the next 14 days are, share of the intervals that held)."""
    off, held = [], []
    for seed in seeds:
        values = generate_series(shape, seen, seed)
        made, came = forecast_short_series(days(list(values[:seen])), 14), sum(values[seen : seen + 14])
        off.append(abs(math.log(made.total / came)))
        held.append(made.total_low <= came <= made.total_high)
    return float(np.median(off)), float(np.mean(held))


@pytest.mark.parametrize(("shape", "most"), [("ramp", 0.35), ("slowing", 0.3), ("launched", 0.3)])
def test_when_a_budget_ends_is_told_by_how_a_week_changes(shape: str, most: float) -> None:
    """By their mean it was 0.9, 0.5 and 0.6 off, and of intervals 15, 88 and 60 % held."""
    off, held = of_few_days(shape, 7, range(30))
    assert off < most and held > 0.65


@pytest.mark.parametrize("seen", [5, 6, 7])
@pytest.mark.parametrize("shape", ["flat", "weekly", "wandering"])
def test_days_that_do_not_surely_change_are_told_by_their_mean(shape: str, seen: int) -> None:
    known = [generate_series(shape, seen, seed)[:seen] for seed in range(30)]
    assert sum(forecast_short_series(days(list(each)), 14).method == METHOD for each in known if any(each)) <= 6


def test_four_days_tell_nothing_but_their_mean() -> None:
    assert forecast_short_series(days(growing(4, 2.0)), 7).method == "mean of 4 days"
    assert forecast_short_series(days(growing(5, 2.0)), 7).method == METHOD
    assert forecast_short_series(days([0.0] * 6), 7).total == 0
