"""Pictures of a plan: every one is a drawing of its figures, names cannot break out of it."""

from __future__ import annotations

from tests.unit import placement_rig as rig

from groundplan.placement import drift, pictures
from groundplan.placement.explain.pareto_front import pareto_points
from groundplan.placement.explain.plan_summary import summary_json
from groundplan.placement.planner import plan_company


def test_the_map_has_a_room_for_each_site_and_a_tile_for_each_workload() -> None:
    plan = summary_json(
        plan_company(rig.company(rig.workload("chat"), rig.workload("b", sensitivity="restricted"))), ()
    )
    drawn = pictures.site_map(plan["sites"], plan["workloads"])
    assert drawn.count('class="r') == 3 and drawn.count('class="t"') == 2 and "not used" in drawn
    hostile = {**plan["sites"][0], "site": "<script>alert(1)</script>"}
    assert "<script>" not in pictures.site_map([hostile], [])


def test_charts_are_drawn_from_figures_and_empty_ones_are_none() -> None:
    assert pictures.cost_waterfall({}) == "" and "whole" in pictures.cost_waterfall({"tokens": 3.0, "people": 40.0})
    week = [1.0] * 160 + [6.0] * 8
    assert pictures.load_curve("w", week, None).startswith("<svg") and pictures.load_curve("w", week, 3.0).startswith(
        "<svg"
    )
    chart = drift.build_chart("w", "usd_day", 10.0, [(f"2026-11-{n:02}", 10.0 + n) for n in range(1, 9)])
    assert pictures.control_chart(drift.to_json(chart)).startswith("<svg")
    assert pictures.control_chart(drift.to_json(drift.build_chart("w", "usd_day", 10.0, []))) == ""


def test_nothing_on_the_front_is_beaten() -> None:
    points = pareto_points(plan_company(rig.company(rig.workload("chat"), rig.workload("b", sensitivity="restricted"))))
    best = [point for point in points if point["front"] == "on the front"]
    assert best and points[0]["name"].startswith("the plan")
    axes = ("usd_month", "first_token_ms", "carbon_kg", "hours")
    assert not any(all(a[x] < b[x] for x in axes) for a in points for b in best)
    assert pictures.alternatives_chart(points).startswith("<svg") and pictures.alternatives_chart([]) == ""
