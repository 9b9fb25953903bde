"""Points come from evidence only, and everything unproven names its next step."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import Budget
from groundplan.core.money import PICO
from groundplan.maturity.model import AREAS, Evidence, SourceEvidence
from groundplan.maturity.score import score
from groundplan.release import units

NOTHING = Evidence(workload="assistant", stage="pilot", served=False, blueprint=None, duties_missing=("security",))
SERVED = dataclasses.replace(NOTHING, served=True, blueprint=3)
SOURCE = SourceEvidence("handbook", owner_present=True, indexed=True, open_findings=0)


def earned(evidence: Evidence) -> set[str]:
    return {point.name for point in score(evidence).points if point.points}


def test_without_evidence_nothing_is_earned_and_every_area_says_so() -> None:
    result = score(NOTHING)
    assert {result.score(area) for area in AREAS} == {"not measured yet"}
    assert all(point.evidence is None and point.next_step for point in result.points)
    assert result.next_step


@given(
    st.builds(
        Evidence,
        workload=st.just("assistant"),
        stage=st.sampled_from(["pilot", "production"]),
        served=st.booleans(),
        blueprint=st.none() | st.integers(1, 9),
        sources=st.lists(
            st.builds(SourceEvidence, st.just("s"), st.booleans(), st.booleans(), st.integers(0, 2)), max_size=2
        ).map(tuple),
        own_budget_usd=st.none() | st.floats(0, 100),
        own_hard_budget=st.booleans(),
        calls=st.integers(0, 200),
        ok=st.integers(0, 200),
        duties_missing=st.sampled_from([(), ("security",)]),
    )
)
def test_a_point_has_either_its_evidence_or_its_next_step(evidence: Evidence) -> None:
    for point in score(evidence).points:
        assert (point.points == 1) == (point.evidence is not None) == (point.next_step is None)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "runs where its rules allow"),
        ({"fallbacks": ("own",)}, "another deployment can take over"),
        ({"fallback_call": "c1"}, "a fallback has been exercised"),
        (
            {"calls": 100, "first_byte_p95_ms": 700.0, "first_token_objective_ms": 800},
            "meets its latency objective",
        ),
        ({"sources": (SOURCE,)}, "every source has an owner"),
        ({"sources": (SOURCE,)}, "its sources are indexed"),
        ({"sources": (SOURCE,)}, "no document has an open finding"),
        ({"sources": (SOURCE,), "grounded_call": "c1"}, "answers quote passages"),
        ({"own_budget_usd": 5.0, "own_hard_budget": True}, "a hard budget of its own"),
        ({"price_sources": ("declared a:1",)}, "the price of each deployment is known"),
        ({"calls": 1}, "its cost is measured"),
        ({"calls": 1, "cost_usd": 4.0, "own_budget_usd": 5.0}, "stays inside its budget"),
        ({"outcomes": 1}, "its outcomes are reported"),
        ({"calls": 1000, "ok": 995, "availability_objective": 0.995}, "meets its availability objective"),
        ({"support": "a.yaml:3"}, "support with a runbook is declared"),
        ({"duties_missing": (), "duties_held": frozenset({"security"})}, "an owner in every duty"),
        ({"approved_change": "c"}, "approved by somebody other than the requester"),
        ({"logged_call": "c1"}, "its calls are in the audit log"),
    ],
)
def test_each_point_is_earned_by_its_evidence(change: dict[str, object], name: str) -> None:
    assert name in earned(dataclasses.replace(SERVED, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"calls": 99, "first_byte_p95_ms": 1.0, "first_token_objective_ms": 800}, "meets its latency objective"),
        ({"calls": 1000, "ok": 994, "availability_objective": 0.995}, "meets its availability objective"),
        ({"calls": 1, "cost_usd": 6.0, "own_budget_usd": 5.0}, "stays inside its budget"),
        ({"own_budget_usd": 5.0}, "a hard budget of its own"),
        ({"sources": (dataclasses.replace(SOURCE, open_findings=1),)}, "no document has an open finding"),
        ({"sources": (dataclasses.replace(SOURCE, owner_present=False),)}, "every source has an owner"),
    ],
)
def test_what_misses_its_mark_earns_nothing_and_says_why(change: dict[str, object], name: str) -> None:
    result = score(dataclasses.replace(SERVED, **change))  # type: ignore[arg-type]
    (point,) = [point for point in result.points if point.name == name]
    assert point.points == 0 and point.next_step


def test_json_has_five_areas_with_score_and_points() -> None:
    value = score(dataclasses.replace(SERVED, fallbacks=("own",))).to_json()
    assert [area["area"] for area in value["areas"]] == list(AREAS)
    placement = value["areas"][0]
    assert (placement["score"], placement["earned"], placement["of"]) == ("2/4", 2, 4)
    assert placement["points"][0]["evidence"] == "/blueprints/3"


def steps(evidence: Evidence) -> dict[str, str | None]:
    return {point.name: point.next_step for point in score(evidence).points}


def test_what_is_declared_already_is_not_asked_for_again() -> None:
    """A workload that waits for approval is told to get it, and not to declare what stands in its file."""
    source = SourceEvidence("handbook", owner_present=False, indexed=False, open_findings=0)
    duties = ("business", "security")
    bare = dataclasses.replace(NOTHING, stage="production", sources=(source,), duties_missing=duties)
    whole = dataclasses.replace(bare, declares=frozenset({"fallbacks", "budget", *duties}))
    wait = "Get it served: see what its change waits for."
    for name in ("another deployment can take over", "a hard budget of its own", "an owner in every duty"):
        assert steps(whole)[name] == wait
        assert steps(bare)[name] != wait
    for name in ("every source has an owner", "its sources are indexed"):
        assert steps(whole)[name] == wait
    half = dataclasses.replace(whole, declares=frozenset({"business"}))
    assert steps(half)["an owner in every duty"] == "Name somebody for security."
    left = dataclasses.replace(whole, served=True, duties_missing=("security",))
    assert steps(left)["an owner in every duty"] == "Name somebody for security.", "declared, and has left"


def test_a_proposal_is_told_to_move_on_and_not_to_wait() -> None:
    proposed = dataclasses.replace(NOTHING, stage="proposed")
    assert steps(proposed)["runs where its rules allow"] == (
        "It is proposed: give it a stage that is served, such as experiment."
    )


def test_of_several_budgets_the_least_of_a_month_counts() -> None:
    """A call is charged to each of them in full."""
    daily, monthly = (
        Budget(name=period, covers="workload/assistant", limit=limit * PICO, period=period)
        for period, limit in (("day", 20), ("month", 200))
    )
    assert units.lowest_monthly_limit([daily, monthly]) == 200 * PICO
    assert units.lowest_monthly_limit([daily]) == 600 * PICO and units.lowest_monthly_limit([]) is None
