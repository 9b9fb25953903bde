"""Growth by the curve of adoption: fast at the beginning, slower near the ceiling, and never without an end."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.errors import Invalid
from groundplan.economics.forecast.adoption import LEAST, adoption


def curve(weeks: int, ceiling: float, rate: float, begin: float, seed: int = 0, noise: float = 0.0) -> list[int]:
    """People of each week of a logistic curve, with some noise."""
    dice, people, found = random.Random(seed), begin, []
    for _ in range(weeks):
        found.append(round(people * math.exp(dice.gauss(0, noise))))
        people *= math.exp(rate * (1 - people / ceiling))
    return found


def test_a_young_curve_grows_and_one_near_its_ceiling_hardly() -> None:
    young, old = adoption(curve(10, 1000, 0.3, 20)), adoption(curve(40, 1000, 0.3, 20))
    assert young.growth_per_month > 0.5 > 0.02 > old.growth_per_month >= -0.02
    assert young.ceiling == pytest.approx(1000, rel=0.1) and old.ceiling == pytest.approx(1000, rel=0.05)


def test_what_it_says_is_nearer_than_no_growth_and_than_the_last_growth_for_ever() -> None:
    missed = {"curve": 0.0, "none": 0.0, "last": 0.0}
    for seed in range(200):
        dice = random.Random(seed)
        seen = curve(dice.randint(14, 30), dice.uniform(200, 5000), dice.uniform(0.1, 0.4), 20, seed, 0.03)
        before, truth = seen[:-4], seen[-1]
        last = (before[-1] / before[-3]) ** 2
        said = {"curve": adoption(before).growth_per_month + 1, "none": 1.0, "last": last}
        for name, factor in said.items():
            missed[name] += abs(math.log(max(1, truth) / (before[-1] * factor)))
    assert missed["curve"] < 0.6 * min(missed["none"], missed["last"]), missed


@given(st.lists(st.integers(0, 10**6), min_size=LEAST, max_size=60))
def test_whatever_was_seen_a_month_at_most_doubles(weeks: list[int]) -> None:
    try:
        found = adoption(weeks)
    except Invalid as refused:
        assert refused.code == "adoption_unknown" and refused.hint
        return
    assert -0.5 - 1e-9 <= found.growth_per_month <= 1.0 + 1e-9
    assert found.ceiling is None or found.ceiling > 0


def test_too_few_weeks_are_refused() -> None:
    with pytest.raises(Invalid, match="no curve"):
        adoption([0, 0, 0, 4, 5, 6])
