"""What if, stress, pilot to production, drift: the same company under other conditions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import placement_rig as rig

from groundplan.core.errors import Invalid
from groundplan.placement import drift, pilot, stress, whatif
from groundplan.placement.planner import plan_company


def plan() -> object:
    chat = rig.workload("chat", calls_month=10_000.0)
    return plan_company(rig.company(chat, rig.workload("ledger", sensitivity="restricted")))


def what_if(**given_: object) -> dict[str, object]:
    asked = {"sets": [], "drop_sites": [], "demand": [], "prices": [], **given_}
    return whatif.to_json(whatif.compare(plan(), whatif.parse_changes(**asked)))  # type: ignore[arg-type]


def test_a_dropped_site_moves_only_what_ran_there() -> None:
    found = what_if(drop_sites=["cloud"])
    assert [each["workload"] for each in found["flips"]] == ["chat"]  # type: ignore[attr-defined]
    assert any("chat moves from gpt at cloud" in line for line in found["words"])  # type: ignore[attr-defined]


def test_the_four_forms_of_a_question_at_once() -> None:
    support = rig.workload("support", calls_month=10_000.0, residency=())
    sites = {"eu-private": rig.site("eu-private", "private", hardware=(rig.hardware(),)), "aws-eu": rig.site("aws-eu"),
             "else": rig.site("else")}  # fmt: skip
    deployments = {"gpt-x": rig.deployment("gpt-x", "else", 3.0), "eu": rig.deployment("eu", "aws-eu", 1.0)}
    before = plan_company(rig.company(support, sites=sites, deployments=deployments))
    asked = whatif.parse_changes(["sites.eu-private.power_price=0.4"], ["aws-eu"], ["support=x3"], ["gpt-x=-30%"])
    found = whatif.compare(before, asked)
    company = found.after.company
    assert company.sites["eu-private"].energy_usd_kwh == 0.4 and "aws-eu" not in company.sites
    assert company.workloads["support"].calls_month == 30_000.0
    assert company.deployments["gpt-x"].input == round(0.7 * before.company.deployments["gpt-x"].input)
    assert [each["workload"] for each in found.flips] == ["support"] and found.before is before


def lost_company(rack: int) -> object:
    """Two clouds and a rack: what ran at the lost cloud may go to the rack, which others fill."""
    a = rig.workload("a", calls_month=2e6, declared=("one", "own"))
    b = rig.workload("b", calls_month=1.2e7, declared=("own", "two"))
    c = rig.workload("c", calls_month=2e6, declared=("two",))
    sites = {"first": rig.site("first"), "second": rig.site("second"),
             "rack": rig.site("rack", "private", hardware=(rig.hardware(count=rack, owned_month=5000.0),))}  # fmt: skip
    deployments = {
        "one": rig.deployment("one", "first", 0.01), "two": rig.deployment("two", "second", 5.0),
        "own": rig.deployment("own", "rack", 0.0, hardware="h100-sxm", units=1.0, concurrent=64),
    }  # fmt: skip
    facts = rig.company(*(replace(w, burst=False) for w in (a, b, c)), sites=sites, deployments=deployments, models={})
    return plan_company(facts)


def test_after_a_loss_only_what_ran_there_moves_and_where_that_is_impossible_the_fewest() -> None:
    roomy = lost_company(3)
    assert [roomy.placements[n].primary.config for n in "abc"] == ["one", "own", "two"]  # type: ignore[attr-defined]
    found = whatif.compare(roomy, whatif.Changes(drop_sites=("first",)))  # type: ignore[arg-type]
    assert [each["workload"] for each in found.flips] == ["a"] and found.others_moved == 0
    assert "Nothing else moves." in whatif.describe(found)
    full = lost_company(1)
    found = whatif.compare(full, whatif.Changes(drop_sites=("first",)))  # type: ignore[arg-type]
    assert {each["workload"] for each in found.flips} == {"a", "b"} and found.others_moved == 1
    assert "1 others must move too, with fewer nothing fits." in whatif.describe(found)


def test_more_demand_costs_more_and_a_lower_price_less() -> None:
    more, less = what_if(demand=["chat=x3"]), what_if(prices=["gpt=-50%"])
    assert more["difference_usd_month"] > 0 > less["difference_usd_month"]  # type: ignore[operator]
    same = what_if(sets=["sites.far.power_price=0.4"])
    assert same["difference_usd_month"] == 0 and same["words"][-1] == "No decision changes."  # type: ignore[index]


def test_a_steeper_peak_needs_more_hardware() -> None:
    found = what_if(sets=["workloads.ledger.peak=200"])
    assert found["difference_usd_month"] > 0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"sets": ["sites.nowhere.power_price=0.4"]}, "what_if_unknown"),
        ({"sets": ["sites.cloud.power_price=-1"]}, "what_if_value"),
        ({"sets": ["sites.cloud.power_price=cheap"]}, "what_if_value"),
        ({"sets": ["sites.cloud.weather=1"]}, "what_if_unknown"),
        ({"sets": ["sites.cloud.power_price"]}, "what_if_form"),
        ({"demand": ["chat=3"]}, "what_if_factor"),
        ({"demand": ["nobody=x3"]}, "what_if_unknown"),
        ({"prices": ["gpt=-130%"]}, "what_if_factor"),
        ({"drop_sites": ["moon"]}, "what_if_unknown"),
    ],
)
def test_a_change_that_names_nothing_or_is_absurd_is_refused(asked: dict[str, object], code: str) -> None:
    with pytest.raises(Invalid) as refused:
        what_if(**asked)
    assert refused.value.code == code and refused.value.hint


@given(st.floats(0, 1000, allow_nan=False))
def test_factors_are_read_as_they_are_written(value: float) -> None:
    assert whatif.parse_factor(f"x{value:.4f}") == pytest.approx(value, abs=1e-4)
    assert whatif.parse_factor(f"+{value:.2f}%") == pytest.approx(1 + round(value, 2) / 100)


def test_futures_are_the_same_for_a_seed_and_regret_is_never_negative() -> None:
    chat, own = rig.workload("chat", fallback="wanted"), rig.workload("b", sensitivity="restricted")
    placed = plan_company(rig.company(chat, own))
    spreads = stress.Spreads(futures=400, seed=7)
    one, two = (stress.report(placed, spreads) for _ in range(2))
    assert one == two and one != stress.report(placed, stress.Spreads(futures=400, seed=8))
    told = one["plan"]
    assert 0 <= told["regret"]["mean"] <= told["regret"]["p95"] <= told["regret"]["worst"]
    assert told["usd_month"]["median"] <= told["usd_month"]["p95"] <= told["usd_month"]["worst"]
    assert 0.9 < told["availability"]["b"] <= 1
    assert one["robust"]["extra_usd_month"] >= -0.01
    with pytest.raises(Invalid):
        stress.report(placed, stress.Spreads(futures=0))


def days(count: int, calls: int = 100, usd: float = 2.0) -> list[pilot.Day]:
    return [pilot.Day(f"2026-11-{n:02}", calls + n, usd, 100_000, 12, 300.0, 3.0) for n in range(1, count + 1)]


def test_a_pilot_tells_what_breaks_first() -> None:
    bounds = pilot.GrowthLimits(
        budget_usd_month=5000.0, calls_day=20_000, people=25, concurrent=40, first_token_ms=800.0
    )
    found = pilot.project("assistant", days(14), bounds)
    assert found.first_break is not None and found.first_break[1] == "its cap of 25 people"
    once, ten, hundred = found.scaled
    assert ten.usd_month[1] == pytest.approx(10 * once.usd_month[1])
    assert once.usd_month[0] < once.usd_month[1] < once.usd_month[2]
    assert "its budget of $5,000 a month" in hundred.broken_limits and not once.broken_limits
    text = pilot.to_json(found)["words"]
    assert any("breaks first is its cap of 25 people" in line for line in text)


def test_few_days_widen_and_none_are_refused() -> None:
    few, many = (pilot.project("a", days(count), pilot.GrowthLimits()).scaled[0].usd_month for count in (2, 20))
    assert few[2] - few[0] > many[2] - many[0]
    uneven = [replace(day, first_token_ms=300.0 + 40.0 * (number % 2)) for number, day in enumerate(days(20))]
    times = pilot.project("a", uneven, pilot.GrowthLimits())
    body = pilot.to_json(times)["scaled"][1]
    assert body["first_token_interval_ms"]["low"] < body["first_token_ms"] == 320.0
    assert any("first token then takes 320 ms (" in line for line in pilot.describe(times))
    with pytest.raises(Invalid):
        pilot.project("a", [], pilot.GrowthLimits())


def test_waiting_grows_with_the_load_on_own_hardware() -> None:
    found = pilot.project("a", days(10, calls=2000), pilot.GrowthLimits(concurrent=8, first_token_ms=500.0))
    first = [each.first_token_ms for each in found.scaled]
    assert first[0] is not None and first[1] is not None and first[1][1] > first[0][1]
    assert all(each is not None and each[0] <= each[1] <= each[2] for each in first)
    assert found.first_break is not None


def observed_days(factor: float, count: int = 8) -> list[dict[str, object]]:
    return [{"day": f"2026-11-{n:02}", "usd_day": 10 * factor * (1.02 if n % 2 else 0.98)} for n in range(1, count + 1)]


@pytest.mark.parametrize(("factor", "drifts"), [(1.0, False), (1.1, False), (1.6, True), (0.4, True)])
def test_drift_is_told_where_it_is_material(factor: float, drifts: bool) -> None:
    (found,) = drift.build_charts({"chat": {"usd_day": 10.0}}, {"chat": observed_days(factor)})
    assert found.has_drifted is drifts
    flips = [{"workload": name, "after": None} for name in ("chat", "search")]
    words = ["$1 a month becomes $2, $1 more.", "chat moves.", "chats moves."]
    replan = {"flips": flips, "words": words, "difference_usd_month": 1.0, "demand": {"chat": 0.4, "search": 2.0}}
    findings = drift.drift_findings([found], {"chat": "ana@acme.example"}, replan)
    assert len(findings) == drifts
    if findings:
        assert (
            findings[0].kind == "placement.drift"
            and findings[0].owner == "ana@acme.example"
            and "cost a day" in findings[0].message
        )
        assert findings[0].fix == {
            **replan,
            "flips": flips[:1],
            "words": words[:2],
            "demand": {"chat": 0.4},
        }  # of all: MB
        assert drift.to_json(found)["points"][-1]["day"] == "2026-11-08"
    assert bool(drift.matching_charts([found], "CHAT cost")) and not drift.matching_charts([found], "chat latency")


def test_one_bad_day_is_no_drift() -> None:
    rows = [*observed_days(1.0, 7), {"day": "2026-11-08", "usd_day": 19.0}]
    (found,) = drift.build_charts({"chat": {"usd_day": 10.0}}, {"chat": rows})
    assert not found.has_drifted
    (young,) = drift.build_charts({"chat": {"usd_day": 10.0}}, {"chat": observed_days(3.0, 2)})
    assert not young.has_drifted


def test_room_is_that_of_the_hardware_which_workloads_share() -> None:
    small = plan_company(rig.company(rig.workload("b", sensitivity="restricted", calls_month=1000.0)))
    full = plan_company(
        rig.company(
            rig.workload("b", sensitivity="restricted", calls_month=1000.0),
            rig.workload("c", sensitivity="restricted", calls_month=2.6e7),
        )
    )
    spreads = stress.Spreads(futures=300)
    few = stress.evaluate(small, stress.sample_futures(small.company, spreads)).missed["b"]
    found = stress.evaluate(full, stress.sample_futures(full.company, spreads)).missed
    assert few == 0 and 0 < found["b"] == found["c"] < 1
