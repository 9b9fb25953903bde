"""Which changes need whose approval: production, beyond the caps, raised budgets and caps; and what needs none."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.api.routes.changes import with_holders
from groundplan.blueprint.model import Caps
from groundplan.governance.decide import decide_budget, decide_company, decide_workload, excess_over_caps, lower_caps
from groundplan.governance.model import SENSITIVITY_ORDER, ApprovalStatus, Need, Terms

TODAY = date(2026, 11, 25)
CAPS = Caps()
NOTHING = ApprovalStatus()
PILOT = Terms(
    subject="workload/assistant",
    stage="pilot",
    sensitivity="internal",
    people=25,
    calls_per_day=1000,
    expires=TODAY + timedelta(days=90),
    sources=("handbook",),
    budget=200 * 10**12,
    digest="a",
)
PRODUCTION = dataclasses.replace(PILOT, stage="production", expires=None, people=None, calls_per_day=None, digest="p")


def duties(decision_needs: tuple[Need, ...]) -> list[str]:
    return [need.duty for need in decision_needs]


def test_a_pilot_within_the_caps_needs_nobody() -> None:
    assert decide_workload(None, PILOT, caps=CAPS, standing=NOTHING, today=TODAY).needs == ()


@pytest.mark.parametrize(
    "change",
    [
        {"people": 26},
        {"people": None},
        {"calls_per_day": 1001},
        {"calls_per_day": None},
        {"expires": TODAY + timedelta(days=91)},
        {"expires": None},
        {"sensitivity": "confidential"},
        {"sensitivity": "restricted"},
    ],
)
def test_a_pilot_beyond_one_cap_needs_approval(change: dict[str, object]) -> None:
    after = dataclasses.replace(PILOT, **change, digest="b")  # type: ignore[arg-type]
    expected = ["business", "security", "data", "finance"]
    assert duties(decide_workload(None, after, caps=CAPS, standing=NOTHING, today=TODAY).needs) == expected
    raised = decide_workload(PILOT, after, caps=CAPS, standing=NOTHING, today=TODAY)
    assert duties(raised.needs) == expected[:3], "the budget is not raised"
    (words,) = excess_over_caps(None, after, CAPS, TODAY)
    assert "cap" in words


def test_genesis_may_set_caps_otherwise_but_not_the_data() -> None:
    wide = dataclasses.replace(PILOT, people=None, calls_per_day=None, expires=None)
    assert decide_workload(None, wide, caps=CAPS, standing=NOTHING, today=TODAY, genesis=True).needs == ()
    secret = dataclasses.replace(PILOT, sensitivity="restricted")
    assert decide_workload(None, secret, caps=CAPS, standing=NOTHING, today=TODAY, genesis=True).needs


def test_what_genesis_allowed_may_stay_but_not_grow() -> None:
    had = dataclasses.replace(PILOT, people=100)
    same = dataclasses.replace(had, digest="b", budget=had.budget * 2)
    assert decide_workload(had, same, caps=CAPS, standing=NOTHING, today=TODAY).needs == ()
    more = dataclasses.replace(had, digest="c", people=101)
    assert decide_workload(had, more, caps=CAPS, standing=NOTHING, today=TODAY).needs


def test_production_needs_approval_until_exactly_this_content_has_it() -> None:
    needs = decide_workload(PILOT, PRODUCTION, caps=CAPS, standing=NOTHING, today=TODAY).needs
    assert duties(needs) == ["business", "security", "data"]
    approved = ApprovalStatus(approved=frozenset({("workload/assistant", "p")}))
    assert decide_workload(PILOT, PRODUCTION, caps=CAPS, standing=approved, today=TODAY).needs == ()
    other = dataclasses.replace(PRODUCTION, digest="q")
    assert decide_workload(PILOT, other, caps=CAPS, standing=approved, today=TODAY).needs
    assert decide_workload(PRODUCTION, PRODUCTION, caps=CAPS, standing=NOTHING, today=TODAY).needs == ()


def test_a_withdrawn_approval_is_not_carried_by_being_served() -> None:
    pair = frozenset({("workload/assistant", "p")})
    for standing in (ApprovalStatus(revoked=pair), ApprovalStatus(approved=pair, revoked=pair)):
        assert decide_workload(PRODUCTION, PRODUCTION, caps=CAPS, standing=standing, today=TODAY).needs


def test_without_sources_data_is_not_asked_and_without_a_raise_finance_is_not() -> None:
    after = dataclasses.replace(PRODUCTION, sources=(), budget=0)
    assert duties(decide_workload(None, after, caps=CAPS, standing=NOTHING, today=TODAY).needs) == [
        "business",
        "security",
    ]


@pytest.mark.parametrize("stage", ["proposed", "retired"])
def test_what_is_not_served_needs_nobody(stage: str) -> None:
    after = dataclasses.replace(PRODUCTION, stage=stage)
    assert decide_workload(None, after, caps=CAPS, standing=NOTHING, today=TODAY) == decide_workload(
        PRODUCTION, after, caps=CAPS, standing=NOTHING, today=TODAY
    )


def test_an_expired_pilot_is_refused() -> None:
    after = dataclasses.replace(PILOT, expires=TODAY - timedelta(days=1))
    (problem,) = decide_workload(None, after, caps=CAPS, standing=NOTHING, today=TODAY).refusals
    assert problem.code == "stage_expired"
    served = decide_workload(after, after, caps=CAPS, standing=NOTHING, today=TODAY)
    assert served.refusals == (), "gateways refuse its calls; it does not hold up other changes"


def test_raising_a_shared_budget_needs_finance() -> None:
    assert decide_budget("budget/all", "d", None, 5, standing=NOTHING).needs == ()
    assert decide_budget("budget/all", "d", 5, 4, standing=NOTHING).needs == ()
    assert decide_budget("budget/all", "d", 5, 6, standing=NOTHING).needs == (Need("company", "finance"),)
    approved = ApprovalStatus(approved=frozenset({("budget/all", "d")}))
    assert decide_budget("budget/all", "d", 5, 6, standing=approved).needs == ()


numbers = st.none() | st.integers(0, 10_000)
all_caps = st.builds(
    Caps, people=numbers, calls_per_day=numbers, days=numbers, sensitivity=st.sampled_from(SENSITIVITY_ORDER)
)


@given(all_caps, all_caps)
def test_caps_that_hold_meanwhile_are_never_above_either(before: Caps, after: Caps) -> None:
    lower = lower_caps(before, after)
    assert decide_company("d", before, lower, loosened=False, standing=NOTHING).needs == ()
    assert decide_company("d", after, lower, loosened=False, standing=NOTHING).needs == ()


def test_raising_a_cap_needs_business_and_security() -> None:
    raised = Caps(people=26)
    assert duties(decide_company("d", CAPS, raised, loosened=False, standing=NOTHING).needs) == [
        "business",
        "security",
    ]
    assert duties(decide_company("d", CAPS, Caps(days=None), loosened=False, standing=NOTHING).needs) == [
        "business",
        "security",
    ]
    assert duties(decide_company("d", CAPS, Caps(sensitivity="restricted"), loosened=False, standing=NOTHING).needs)
    assert decide_company("d", raised, CAPS, loosened=False, standing=NOTHING).needs == ()
    changed = decide_company("d", CAPS, CAPS, loosened=True, standing=NOTHING)
    assert duties(changed.needs) == ["business", "security"]
    assert decide_company("d", None, Caps(people=None), loosened=False, standing=NOTHING).needs == ()


def test_who_may_decide_about_hundreds_of_changes_is_read_at_once() -> None:
    rows = [(subject, "data", UUID(int=n), f"{n}@acme.example", f"p{n}") for n, subject in enumerate(("company", "a"))]
    asked: list[object] = []

    def execute(*query: object) -> SimpleNamespace:
        asked.append(query)
        return SimpleNamespace(fetchall=lambda: rows)

    conn: Any = SimpleNamespace(execute=execute)
    subjects = ("company", "a", "b", "source/c")
    changes = [{"waits_for": [{"subject": each, "duty": duty}]} for each in subjects for duty in ("data", "finance")]
    caller: Any = SimpleNamespace(person=UUID(int=1))
    found = with_holders(conn, caller, changes)
    told = [(need["people"], need["mine"]) for change in found for need in change["waits_for"]]
    nobody: tuple[list[str], bool] = ([], False)
    assert told == [(["p0"], False), nobody, (["p1"], True), nobody, (["p0"], False), nobody, (["p0"], False), nobody]
    assert len(asked) == 1
    rows.pop(0)
    anywhere = with_holders(conn, caller, [{"waits_for": [{"subject": "company", "duty": "data"}]}])
    assert anywhere[0]["waits_for"][0]["people"] == ["p1"], "of the company whoever holds it anywhere"
