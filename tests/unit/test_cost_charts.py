"""Charts of Cost show what they are for: each term on those before it, a budget's line, what was unusual, and of the
trade-off each point with its interval, what none beats, and today's choice."""

from __future__ import annotations

import re
from typing import Any

from groundplan.console import charts, cost_charts, trade_off
from groundplan.console.render import templates

MARK = re.compile(r'aria-label="([^"]*)"[^>]* aria-roledescription="([^"]*)"')


def marks(svg: str, kind: str) -> list[str]:
    """What marks of a kind say to whoever hears the picture, axes and legends left out."""
    return [told for told, described in MARK.findall(svg) if described == kind]


def test_a_waterfall_puts_each_term_on_those_before_it_up_to_the_total() -> None:
    svg = cost_charts.cost_waterfall([{"key": "output", "cost_usd": "3"}, {"key": "", "cost_usd": "1.5"}])
    assert marks(svg, "bar") == [
        "USD: 0; term: output; to: 3; kind: term", "USD: 3; term: none; to: 4.5; kind: term",
        "USD: 0; term: total; to: 4.5; kind: total",
    ]  # fmt: skip
    many = cost_charts.cost_waterfall([{"key": f"t{n}", "cost_usd": "1"} for n in range(12)])
    assert "USD: 8; term: the rest; to: 12; kind: term" in marks(many, "bar")
    assert cost_charts.cost_waterfall([]) == ""
    (long, *_) = marks(cost_charts.cost_waterfall([{"key": f"feature-{'x' * 40}-7", "cost_usd": "1"}]), "bar")
    assert long == "USD: 0; term: feature-xxxxxxxxxx\u2026xxxxxxx-7; to: 1; kind: term"


def test_a_forecast_has_its_interval_and_the_line_of_its_budget() -> None:
    made = {
        "what": "cost",
        "past": [{"day": f"2026-11-2{n}", "value": "2"} for n in range(5)],
        "days": [{"day": f"2026-12-0{n}", "middle": n, "low": n - 0.5, "high": n + 0.5} for n in range(1, 6)],
    }
    without, within = cost_charts.forecast_chart(made, None), cost_charts.forecast_chart(made, 3.25)
    for svg in (without, within):
        assert len(marks(svg, "area mark")) == 1 and len(marks(svg, "line mark")) == 2
    assert marks(within, "rule mark") == ["limit: 3.25"] and marks(without, "rule mark") == []
    far = cost_charts.forecast_chart(made, 17.0)
    assert marks(far, "rule mark") == [] and not cost_charts.is_within(made, 17.0), "the days would lie flat beside it"


def test_what_was_unusual_stands_above_its_day() -> None:
    days = [{"day": f"2026-11-0{n}", "workload": "w", "cost_usd": "1"} for n in (1, 2)]
    unusual = [{"day": "2026-11-02", "message": "since 14:05"}, {"day": "2026-10-01", "message": "long ago"}]
    assert marks(charts.cost_by_day(days, unusual), "point") == ["since 14:05"]
    assert marks(charts.cost_by_day(days), "point") == []


def test_of_many_workloads_those_that_cost_most_have_a_colour_of_their_own() -> None:
    """And amounts on the axis are written out, however large or small."""
    days = [{"day": "2026-11-01", "workload": f"w{n:03d}", "cost_usd": f"{n}000000000"} for n in range(150)]
    svg = charts.cost_by_day(days)
    named = {told.partition("workload: ")[2] for told in marks(svg, "bar")}
    assert named == {"the rest", *(f"w{n}" for n in range(144, 150))}
    assert "day: 2026-11-01; USD: 10,296,000,000,000; workload: the rest" in marks(svg, "bar")
    few = charts.cost_by_day(days[:7])
    assert {told.partition("workload: ")[2] for told in marks(few, "bar")} == {f"w{n:03d}" for n in range(7)}
    assert charts.cost_by_day([]) == ""
    for drawn in (svg, charts.cost_by_day([{**days[0], "cost_usd": "0.0000000004"}])):
        assert not re.search(r">[\d.]+e[+\u2212-]?\d+<", drawn)


def test_the_trade_off_draws_intervals_the_frontier_and_today_s_choice() -> None:
    def around(mean: float, width: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - width, "high": mean + width}

    def point(name: str, cost: float, quality: float, **more: Any) -> dict[str, Any]:
        known = {"name": name, "kind": "model", "risk": "low", "p95_ms": 900, "today": False, "frontier": False}
        return {**known, "cost": around(cost, cost / 10), "quality": around(quality, 0.05), **more}

    svg = trade_off.trade_off_chart(
        [point("large", 0.01, 0.9, frontier=True, today=True), point("mini", 0.001, 0.8, frontier=True),
         point("legal", 0.02, 0.5, kind="route")]
    )  # fmt: skip
    (line,) = re.findall(
        r'<path aria-label="[^"]*" role="graphics-symbol" aria-roledescription="line mark" d="([^"]*)"', svg
    )
    assert line.count("L") == 2, "a step between both of the frontier, and nobody else"
    assert "USD for 1,000 calls: 10; quality: 0.85; quality_high: 0.95" in marks(svg, "rule mark")
    assert "cost_low: 18; quality: 50%; cost_high: 22" in marks(svg, "rule mark")
    assert len(marks(svg, "rule mark")) == 6
    shown = [told for told in marks(svg, "point") if "risk" in told]
    assert len(shown) == 3 and "p95, seconds: 0.9; kind: route" in shown[2]
    assert [told for told in marks(svg, "point") if "risk" not in told] == ["USD for 1,000 calls: 10; quality: 90%"]


def test_many_digits_are_in_groups_and_limits_of_money_are_money() -> None:
    row = {"limit": "x_per_day", "who": "company", "per": "day", "near": False, "share": 0.5, "frees_at": None}
    limits = [
        {**row, "counts": "requests", "taken": 1_234_567, "most": 20_000_000},
        {**row, "counts": "cost", "taken": "1.500000000000", "most": "1234.000000000000"},
    ]
    page = templates.get_template("limits_part.html").render(limits=limits)
    shown = re.findall(r'data-label="(?:Used|Maximum)">([^<]*)<', page)
    assert shown == ["1,234,567", "20,000,000", "$1.50", "$1,234.00"]
    many = templates.get_template("limits_part.html").render(limits=limits * 600)
    assert many.count('data-label="Used"') == 100 and "1,100 more rows, none nearer to its maximum" in many
