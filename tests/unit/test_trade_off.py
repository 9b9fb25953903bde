"""Points of the trade-off: intervals hold what they say, the frontier is what none beats, today's choice is marked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.console.trade_off import trade_off_chart
from groundplan.economics.routing.watch.tradeoff import AnsweredCall, Point, mean_interval, points, share_interval


def calls(model: str, route: str, count: int, cost: float, accepted: int | None, ms: float = 100) -> list[AnsweredCall]:
    return [
        AnsweredCall(model, route, cost * (1 + 0.1 * (i % 3)), ms + i, None if accepted is None else i < accepted)
        for i in range(count)
    ]


def named(found: list[Point]) -> dict[str, Point]:
    return {point.name: point for point in found}


def test_models_and_routes_are_points_and_the_dominated_is_off_the_frontier() -> None:
    seen = [
        *calls("large", "strongest", 40, 0.01, 38),
        *calls("small", "learned", 60, 0.001, 54),
        *calls("bad", "", 20, 0.02, 10),
        *calls("rare", "", 4, 0.02, 4),
    ]
    found = named(points(seen, {}, {"small": "low", "bad": "severe"}, calls("small", "learned", 5, 0.001, None)))
    assert set(found) == {"large", "small", "bad", "strongest", "learned"}
    assert {name for name, point in found.items() if point.frontier} >= {"large", "small"}
    assert not found["bad"].frontier
    assert {name for name, point in found.items() if point.today} == {"small", "learned"}
    small = found["small"]
    assert (small.kind, small.calls, small.quality_from, small.risk) == ("model", 60, "accepted", "low")
    assert small.quality is not None
    assert small.quality.low < 0.9 < small.quality.high
    assert small.cost.low < small.cost.mean < small.cost.high
    assert small.p50_ms < small.p95_ms
    assert small.p95.low < small.p95.mean == small.p95_ms < small.p95.high


def test_a_point_that_is_quicker_or_less_risky_than_a_better_one_is_unbeaten() -> None:
    seen = [
        *calls("best", "", 40, 0.01, 38), *calls("quick", "", 40, 0.02, 30, 20), *calls("calm", "", 40, 0.03, 30, 400),
        *calls("slow", "", 40, 0.04, 29, 500), *calls("unknown", "", 40, 0.05, None, 1),
    ]  # fmt: skip
    found = named(points(seen, {}, {"best": "high", "quick": "high", "calm": "low", "slow": "low"}))
    assert {name for name, point in found.items() if point.frontier} == {"best"}
    assert {name for name, point in found.items() if point.unbeaten} == {"best", "quick", "calm"}


def test_the_interval_of_the_slowest_holds_it() -> None:
    dice = np.random.default_rng(9)
    true = float(np.quantile(dice.gamma(2.0, 50.0, 400_000), 0.95))
    seen = [[AnsweredCall("m", "", 1.0, float(ms), None) for ms in dice.gamma(2.0, 50.0, 150)] for _ in range(300)]
    found = [points(each, {}, {})[0].p95 for each in seen]
    assert 0.92 <= np.mean([each.low <= true <= each.high for each in found]) <= 0.99


def test_quality_is_declared_where_nobody_spoke_and_else_not_known() -> None:
    found = named(points([*calls("m", "", 10, 0.1, None), *calls("n", "", 10, 0.2, None)], {"m": 0.8}, {}))
    assert (found["m"].quality_from, found["n"].quality_from) == ("declared", "unknown")
    assert found["n"].quality is None and not found["n"].frontier
    assert points([], {}, {}) == []


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_of_a_share_holds_it_and_stays_within_bounds(pair: tuple[int, int]) -> None:
    found = share_interval(*pair)
    assert 0.0 <= found.low <= found.mean + 1e-12 and found.mean - 1e-12 <= found.high <= 1.0


def test_intervals_cover_what_they_are_about() -> None:
    dice = np.random.default_rng(4)
    shares = [share_interval(int(dice.binomial(60, 0.85)), 60) for _ in range(500)]
    assert 0.92 <= np.mean([each.low <= 0.85 <= each.high for each in shares]) <= 0.99
    means = [mean_interval(dice.gamma(2.0, 1.0, 80).tolist()) for _ in range(500)]
    assert 0.91 <= np.mean([each.low <= 2.0 <= each.high for each in means]) <= 0.98
    assert mean_interval([3.0]).low == pytest.approx(3.0)


def test_the_picture_has_every_known_point_and_nothing_to_draw_is_empty() -> None:
    made = points([*calls("acme/large", "", 10, 0.1, 9), *calls("acme/mini", "", 10, 0.01, 8)], {}, {})
    rows = [
        {**{name: getattr(p, name) for name in Point.__dataclass_fields__},
         "cost": vars_of(p.cost), "quality": vars_of(p.quality)} for p in made
    ]  # fmt: skip
    svg = trade_off_chart(rows)
    assert svg.startswith("<svg") and "acme/large" in svg and "acme/mini" in svg
    assert trade_off_chart([{**row, "quality": None} for row in rows]) == ""


def vars_of(interval: object) -> dict[str, float]:
    return {name: getattr(interval, name) for name in ("mean", "low", "high")}


def test_the_interval_of_all_or_none_holds_it() -> None:
    for count in range(1, 200):
        for good in (0, count):
            found = share_interval(good, count)
            assert found.low <= found.mean <= found.high and found.low < found.high
