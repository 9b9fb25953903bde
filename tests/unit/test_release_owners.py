"""An owner who has left: time to name another, then no change of that workload without one, and never an outage."""

from __future__ import annotations

from datetime import date, timedelta

from tests.unit.test_release_plan import BASE, TODAY, genesis

from groundplan.catalog.loader import load_files
from groundplan.release.model import Current, Plan
from groundplan.release.plan import plan

OTHER = """---
kind: workload
name: other
purpose: Translate
stage: pilot
sensitivity: internal
residency: [EU]
owners: {business: zoe@acme.example}
---
kind: budget
name: other
covers: workload/other
limit: 10 USD/month
"""
TEXT = BASE + OTHER
OVER = TODAY - timedelta(days=1)
CHANGED = TEXT.replace("purpose: Translate", "purpose: Translate letters")


def planned(text: str, served: Current, **left: date) -> Plan:
    gone = {f"{name}@acme.example": day for name, day in left.items()}
    return plan(load_files({"a.yaml": text}), served, today=TODAY, departed=gone)


def test_before_the_last_day_is_over_nothing_is_held_up() -> None:
    assert planned(CHANGED, genesis(TEXT), zoe=TODAY).refusals == ()


def test_then_the_workload_changes_only_with_a_new_owner() -> None:
    served = genesis(TEXT)
    (problem,) = planned(CHANGED, served, zoe=OVER).refusals
    assert problem.code == "owner_overdue" and problem.where is not None and problem.where.line > 0
    assert "zoe@acme.example" in problem.message and str(OVER) in problem.message
    for heir in ("ana", "new"):
        assert planned(CHANGED.replace("zoe@", f"{heir}@"), served, zoe=OVER).refusals == ()
        assert planned(TEXT.replace("zoe@", f"{heir}@"), served, zoe=OVER).refusals == ()
    both = CHANGED.replace("business: zoe@acme.example", "business: [zoe@acme.example, ana@acme.example]")
    assert planned(both, served, zoe=OVER).refusals == (), "one who is here is enough"


def test_somebody_who_has_left_too_is_no_new_owner() -> None:
    served = genesis(TEXT)
    found = planned(CHANGED.replace("zoe@", "ana@"), served, zoe=OVER, ana=TODAY + timedelta(days=20)).refusals
    assert [problem.code for problem in found] == ["owner_overdue"]


def test_it_goes_on_serving_and_others_change_and_it_can_be_taken_out() -> None:
    served = genesis(TEXT)
    same = planned(TEXT, served, zoe=OVER)
    assert same.refusals == () and same.blueprint is not None
    assert [item.name for item in same.blueprint.workloads] == ["assistant", "other"]
    assert planned(TEXT.replace("Answer staff", "Answer all staff"), served, zoe=OVER).refusals == ()
    out = planned(BASE, served, zoe=OVER)
    assert out.refusals == () and out.blueprint is not None and len(out.blueprint.workloads) == 1
    retired = planned(
        TEXT.replace("name: other\npurpose: Translate\nstage: pilot", "name: other\npurpose: T\nstage: retired"),
        served,
        zoe=OVER,
    )
    assert retired.refusals == ()


def test_the_time_counts_from_whoever_left_last() -> None:
    text = TEXT.replace("business: zoe@acme.example", "business: [zoe@acme.example, yan@acme.example]")
    change = text.replace("purpose: Translate", "purpose: T")
    served = genesis(text)
    assert planned(change, served, zoe=OVER).refusals == ()
    assert planned(change, served, zoe=OVER, yan=TODAY).refusals == ()
    assert [p.code for p in planned(change, served, zoe=OVER, yan=OVER).refusals] == ["owner_overdue"]


def test_leaving_the_duty_out_names_nobody() -> None:
    text = TEXT.replace("{business: zoe@acme.example}", "{business: ana@acme.example, data: zoe@acme.example}")
    gone = text.replace(", data: zoe@acme.example", "")
    (problem,) = planned(gone, genesis(text), zoe=OVER).refusals
    assert "for data by" in problem.message
