"""A company's plan: rules hold, each place is for its reason, and every explanation is confirmed by solving again."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit import placement_rig as rig

from groundplan.core.errors import Conflict, Invalid
from groundplan.placement.company import frame_problem
from groundplan.placement.explain.plan_summary import compare, exclusion_matrix, find_moves, summary_json
from groundplan.placement.explain.why import candidates_at_load, explain_placement, to_json
from groundplan.placement.explain.words import explanation_sentences
from groundplan.placement.planner import DEFAULT_LIMIT, plan_candidates, plan_company, units_used
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.terms import curve, queue, site_defaults
from groundplan.placement.terms.candidates import Candidate, build_candidates
from groundplan.placement.terms.facts import Company, OwnSpeed, PolicyFacts
from groundplan.placement.verify.plan import verify


def test_the_cheapest_allowed_place_is_taken_and_says_what_the_rule_costs() -> None:
    plan = plan_company(rig.company(rig.workload("chat", calls_month=1000.0)))
    found = explain_placement(plan, "chat")
    assert found.placement.primary.config == "gpt"
    assert found.binding.startswith("outside EU: cheap would cost $")
    assert dict(found.excluded) == {"far": ("outside EU",)}
    text = " ".join(explanation_sentences(found))
    assert "Not at far: outside EU." in text and "runner-up" in text


def test_restricted_data_goes_to_the_private_site() -> None:
    plan = plan_company(rig.company(rig.workload("ledger", sensitivity="restricted", calls_month=1000.0)))
    assert plan.placements["ledger"].primary.site == "rack"
    assert "restricted data" in explain_placement(plan, "ledger").binding


def test_a_call_with_a_picture_goes_where_the_picture_is() -> None:
    edge = rig.site("line", "edge", hardware=(rig.hardware("jetson-orin", 2),), bandwidth_kbit=20_000.0)
    detector = replace(rig.LLAMA, name="detector", per_call_ms=35.0, memory_gb=0.3)
    company = rig.company(
        rig.workload(
            "inspect", prompt=0.0, output=0.0, complete=120.0, models=("detector",), data_site="line", data_gb=0.004
        )
    )
    company = replace(company, sites={**company.sites, "line": edge}, models={"detector": detector})
    plan = plan_company(company)
    assert plan.placements["inspect"].primary.site == "line"
    rules = dict(explain_placement(plan, "inspect").excluded)["rack"]
    assert any(rule.startswith("whole answer") for rule in rules)


def busy(**changes: object) -> object:
    return rig.workload("papers", calls_month=2e6, peak=6.0, curve=curve.weekly_curve("burst", 6.0), **changes)


def test_a_peak_bursts_where_own_hardware_is_too_small() -> None:
    own = rig.deployment("own", "rack", 0.0, hardware="h100-sxm", units=2.0, concurrent=16)
    company = rig.company(busy(declared=("own", "gpt")))  # type: ignore[arg-type]
    plan = plan_company(replace(company, models={}, deployments={**company.deployments, "own": own}))
    decided = plan.placements["papers"]
    assert decided.primary.config == "own" and decided.level > 0 and decided.burst is not None
    assert decided.burst.config == "gpt"
    used, room = units_used(plan)["rack h100-sxm"]
    assert used <= room == 2.0


def test_a_wanted_fallback_is_in_another_domain_and_a_required_one_has_room() -> None:
    company = rig.company(rig.workload("chat", fallback="required", calls_month=1000.0))
    second = rig.site("cloud-2", domain="cloud")
    third = rig.site("cloud-3")
    company = replace(
        company,
        sites={**company.sites, "cloud-2": second, "cloud-3": third},
        deployments={
            **company.deployments,
            "b": rig.deployment("b", "cloud-2", 2.1),
            "c": rig.deployment("c", "cloud-3", 9.0),
        },
    )
    decided = plan_company(company).placements["chat"]
    assert decided.fallback is not None
    domains = {company.sites[each.site].domain for each in (decided.primary, decided.fallback)}
    assert len(domains) == 2


def test_whoever_has_no_place_is_told_and_the_others_are_placed() -> None:
    plan = plan_company(rig.company(rig.workload("chat"), rig.workload("swiss", residency=("CH",))))
    assert set(plan.placements) == {"chat"} and "outside CH" in plan.unplaceable["swiss"]
    assert exclusion_matrix(plan)["chat"]["far"] == ("outside EU",)


def test_a_plan_does_not_flap_for_a_small_gain() -> None:
    company = rig.company(rig.workload("chat", calls_month=1000.0, current_site="dear"))
    dear = {**company.deployments, "slightly": rig.deployment("slightly", "dear", 2.2)}
    company = replace(company, sites={**company.sites, "dear": rig.site("dear")}, deployments=dear)
    assert plan_company(company).placements["chat"].primary.site == "dear"
    quick = replace(company, policy=PolicyFacts(payback_months=1e6))
    moved = plan_company(quick)
    assert moved.placements["chat"].primary.site == "cloud"
    assert find_moves(moved)[0]["from"] == "dear"


def test_the_same_company_gives_the_same_plan_and_the_verifier_passes_it() -> None:
    company = rig.company(rig.workload("a"), rig.workload("b", sensitivity="restricted"), busy())  # type: ignore[arg-type]
    one, two = plan_company(company), plan_company(company)
    assert one.solution.choice.tolist() == two.solution.choice.tolist() and one.usd == two.usd
    report = verify(one.framed.problem, one.solution)
    assert report.is_verified and report.cost == one.solution.cost
    summary = summary_json(one, compare(one))
    assert summary["verified"] and summary["terms"]["sites"] > 0 and len(summary["compared"]) == 4
    assert round(sum(summary["terms"].values()), 0) == round(summary["usd_month"] - one.rounding_usd, 0)


COMPANIES = {
    "calls": st.floats(10, 3e6),
    "price": st.floats(0.05, 20),
    "peak": st.floats(1, 20),
    "sensitivity": st.sampled_from(["public", "confidential"]),
}


def confirm(calls: float, price: float, peak: float, sensitivity: str) -> None:
    """What is said of a plan holds when it is solved again."""
    company = rig.company(
        rig.workload(
            "w", calls_month=calls, peak=peak, curve=curve.weekly_curve("spiky", peak), sensitivity=sensitivity
        ),
        deployments={"gpt": rig.deployment("gpt", "cloud", price)},
    )
    plan = plan_company(company)
    found = explain_placement(plan, "w")
    chosen = plan.placements["w"].primary
    if found.runner_up is not None:
        again = plan_candidates(build_candidates(company), banned=frozenset({("w", chosen.config)}))
        assert again.placements["w"].primary.config == found.runner_up.config
        assert found.runner_up.extra_usd == pytest.approx(again.usd - plan.usd) and found.runner_up.extra_usd > -0.01
    if found.break_even is not None:
        factor = found.break_even.calls_month / calls
        for side, winner in ((0.98, found.break_even.below), (1.02, found.break_even.above)):
            allowed = [c for c in candidates_at_load(plan, company.workloads["w"], factor * side) if c.is_allowed]
            best = min(allowed, key=lambda c: c.usd)
            assert best.config.split(" on ")[0] == winner.split(" on ")[0]
    assert to_json(found, [])["usd_month"] == round(found.placement.usd, 2)


@given(**COMPANIES)
@settings(max_examples=12, deadline=None)
def test_runner_up_and_break_even_hold_when_solved_again(
    calls: float, price: float, peak: float, sensitivity: str
) -> None:
    confirm(calls, price, peak, sensitivity)


@pytest.mark.soak
@given(**COMPANIES)
@settings(max_examples=1000, deadline=None)
def test_a_thousand_explanations_hold_when_solved_again(
    calls: float, price: float, peak: float, sensitivity: str
) -> None:
    confirm(calls, price, peak, sensitivity)


@given(st.sampled_from(["steady", "business-hours", "spiky", "campaign", "burst"]), st.floats(1, 30))
def test_a_week_has_mean_one_and_no_negative_hour(name: str, peak: float) -> None:
    shape = curve.weekly_curve(name, peak)
    assert len(shape) == 168 and min(shape) >= 0 and sum(shape) / 168 == pytest.approx(1, abs=1e-6)
    assert max(shape) <= peak + 1e-6
    assert curve.share_above_level(shape, 1.0) == 0 and curve.share_above_level(shape, 0.5) >= 0


def test_a_trace_is_read_and_a_wrong_one_told_by_line() -> None:
    shape = curve.curve_from_trace("calls\n" + "\n".join(["1"] * 23 + ["25"]), "t.csv")
    assert max(shape) == pytest.approx(12.5)
    for text, place in (("calls\n1\nmany\n", "t.csv:3"), ("calls\n-4\n", "t.csv:2"), ("calls\n1\n", "t.csv")):
        with pytest.raises(Invalid) as refused:
            curve.curve_from_trace(text, "t.csv")
        assert str(refused.value.where) == place


def test_own_traffic_sets_the_speed_of_what_is_to_build() -> None:
    """Twice as slow as predicted: twice the times, and half of what a unit bears."""
    company = rig.company(rig.workload("w", calls_month=3e7))

    def built(facts: Company) -> Candidate:
        return next(c for c in build_candidates(facts).by_workload["w"] if c.site == "rack")

    plain = built(company)
    slow = built(replace(company, speeds={(rig.LLAMA.name, "h100-sxm"): OwnSpeed(2.0, 2.0, 1.2)}))
    assert slow.units == pytest.approx(2 * plain.units)
    assert slow.times.per_token == pytest.approx(2 * plain.times.per_token)
    assert (slow.times.basis, slow.times.spread) == ("own traffic", 1.2) and not slow.assumed
    other = built(replace(company, speeds={("another", "h100-sxm"): OwnSpeed(9.0, 9.0, 1.2)}))
    assert other == plain


def test_waiting_follows_erlang() -> None:
    assert queue.wait_probability(2, 1.0) == pytest.approx(1 / 3)  # published tables: C(2, 1) = 0.3333
    assert queue.wait_probability(5, 4.0) == pytest.approx(0.5541, abs=1e-4)
    assert queue.wait_seconds(1, 2.0, 1.0) == inf
    servers = queue.servers_for(10.0, 1.0, 0.05)
    assert queue.wait_seconds(servers, 10.0, 1.0) <= 0.05 < queue.wait_seconds(servers - 1, 10.0, 1.0)


def test_reference_facts_fill_what_is_left_out() -> None:
    near = rig.site("s", area=site_defaults.area_of("azure:swedencentral"))
    assert site_defaults.round_trip(near, "eu-north") == 19.0
    far = site_defaults.round_trip(near, "us-east")
    assert far is not None and far > 80 and site_defaults.round_trip(near, "atlantis") is None
    assert site_defaults.carbon("gcp:europe-north1", "FI") < site_defaults.carbon("gcp:europe-central2", "PL")
    assert site_defaults.prices("nebius:eu-north1", "h100-sxm")[0] == 2.95


def test_contradictory_rules_are_told_in_words_with_what_relaxing_each_costs() -> None:
    small = rig.site("rack", "private", hardware=(rig.hardware(count=1),))
    own = rig.deployment("own", "rack", 0.0, hardware="h100-sxm", units=1.0, concurrent=4)
    names = ("a", "b")
    company = rig.company(
        *(rig.workload(name, sensitivity="restricted", calls_month=7e5) for name in names),
        sites={"rack": small, "cloud": rig.site("cloud")},
        deployments={"own": own, "gpt": rig.deployment("gpt", "cloud")},
        models={},
    )
    with pytest.raises(Conflict) as refused:
        plan_company(company)
    assert refused.value.code == "placement_conflict"
    assert "rack h100-sxm" in refused.value.message and "a month in all" in refused.value.message


def test_what_is_to_rent_and_what_budgets_and_objectives_will_not_bear_is_said() -> None:
    rented = rig.hardware(count=0, on_demand=2.0, reserved=1.4)
    company = rig.company(
        rig.workload("chat", calls_month=1e6, budget_usd=100.0, availability=0.9999),
        rig.workload("ledger", sensitivity="restricted"),
        sites={"cloud": rig.site("cloud"), "rented": rig.site("rented", "private", hardware=(rented,))},
        deployments={"gpt": rig.deployment("gpt", "cloud", 0.01)},
    )
    plan = plan_company(company)
    assert plan.bought == {"rented h100-sxm reserved": 1} and plan.placements["ledger"].primary.site == "rented"
    summary = summary_json(plan, ())["words"]
    assert "rented h100-sxm reserved: 1 to rent." in summary
    dear = replace(company, deployments={"gpt": rig.deployment("gpt", "cloud", 0.2)}, models={})
    only = plan_company(replace(dear, workloads={"chat": dear.workloads["chat"]}))
    assert any("more than its budget of $100.00" in line for line in summary_json(only, ())["words"])
    assert any("99.99% are asked" in doubt for doubt in explain_placement(only, "chat").doubts)


@pytest.mark.parametrize("declared", [(), ("dear", "gpt")])
def test_what_rules_forbid_is_no_option_and_changes_no_plan(declared: tuple[str, ...]) -> None:
    company = rig.company(rig.workload("chat", calls_month=1000.0, fallback="wanted", declared=declared))
    company = replace(company, deployments={**company.deployments, "dear": rig.deployment("dear", "cloud", 9.0)})
    offers = build_candidates(company)
    whole, less = frame_problem(offers), frame_problem(offers, include_forbidden=False)
    assert len(less.options) < len(whole.options)
    assert all(taken.candidate is None or taken.candidate.is_allowed for taken in less.options)
    found = [
        [kind.options[option] for option in optimise(kind.problem, DEFAULT_LIMIT).choice] for kind in (whole, less)
    ]
    assert [(each.role, each.candidate) for each in found[0]] == [(each.role, each.candidate) for each in found[1]]
