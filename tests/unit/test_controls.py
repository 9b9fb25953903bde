"""Controls: shipped frameworks, checks of facts, standings from evidence, and the classes of the EU AI Act."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.catalog.frameworks import FrameworkDoc
from groundplan.catalog.people import DUTIES
from groundplan.catalog.risk import EuAiActAnswers, RiskRule
from groundplan.core.errors import Invalid
from groundplan.core.ids import new_id
from groundplan.governance.controls import service
from groundplan.governance.controls.assess import assess, coverage, evidence_findings, select_decisive
from groundplan.governance.controls.checks import CHECKS
from groundplan.governance.controls.drift import corrective_action, drift
from groundplan.governance.controls.model import (
    DOCUMENT,
    Amendment,
    AppliedFramework,
    Control,
    Evidence,
    Facts,
    Framework,
    SourceFacts,
)
from groundplan.governance.controls.oscal import oscal_token
from groundplan.governance.controls.shipped import NAMES, apply_framework, shipped
from groundplan.governance.risk.eu_ai_act import applies_from, classify

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
RISK = RiskRule(
    impact="high", likelihood="possible", harms=("A wrong answer is believed.",), controls=("Passages are shown.",),
    residual="low", accepted_by="sam@acme.example", until=date(2027, 6, 30), notice="Said above the input.",
    eu_ai_act=EuAiActAnswers(role="deployer"),
)  # fmt: skip
GOOD = Facts(
    workload="assistant", blueprint=3, served=True, purpose="Answer", value="Fewer tickets", regimes=("GDPR",),
    risk=RISK,
    accepted_by_active=True,
    duties=frozenset(DUTIES),
    fallbacks=("b",), fallback_call="c", hard_budgets=("assistant",), calls=500, outcomes=40, first_token=True,
    sources=(SourceFacts("handbook", True, 0),), quality=("accuracy",), enforced_guardrails=("input",),
    reviewed_share=0.05,
    support="desk", runbook="https://x", lifted_kill="k", approved_change="d", rules=("models",), log_verified_at=NOW,
    log_size=9, log_complete=True,
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_need_of_a_shipped_control_can_be_shown(name: str) -> None:
    framework = shipped(name)
    assert framework.controls and framework.source and framework.as_of
    assert len({oscal_token(each.id) for each in framework.controls}) == len(framework.controls), (
        "OSCAL tells them apart"
    )
    for control in framework.controls:
        assert control.needs and set(control.needs) <= {*CHECKS, DOCUMENT}, control.id


def test_the_ai_rmf_has_its_72_subcategories_and_the_profiles_of_its_community() -> None:
    framework = shipped("nist-ai-rmf")
    assert len(framework.controls) == 72
    assert {name: len(ids) for name, ids in framework.profiles.items()} == {"tier-1": 18, "tier-2": 55}


@pytest.mark.parametrize("name", [name for name, check in CHECKS.items() if check.judge is not None])
def test_a_check_holds_for_good_facts_and_says_what_it_saw(name: str) -> None:
    judge = CHECKS[name].judge
    assert judge is not None
    verdict = judge(GOOD, NOW.date())
    assert verdict.holds, verdict.says
    assert verdict.says and verdict.link


BAD: dict[str, dict[str, object]] = {
    "owner.business": {"duties": frozenset({"security"})},
    "owners.all_duties": {"duties": GOOD.duties - {"data"}},
    "purpose.declared": {"value": ""},
    "law.regimes": {"regimes": ()},
    "risk.assessed": {"risk": RISK.model_copy(update={"harms": ()})},
    "risk.accepted": {"risk": RISK.model_copy(update={"until": date(2026, 11, 24)})},
    "risk.classified": {"risk": RISK.model_copy(update={"eu_ai_act": EuAiActAnswers(prohibited="social-scoring")})},
    "approval.stands": {"approved_change": None},
    "placement.lawful": {"served": False},
    "budget.hard": {"hard_budgets": ()},
    "fallback.worked": {"fallback_call": None},
    "data.owned": {"sources": (SourceFacts("handbook", True, 1),)},
    "privacy.minimised": {"keeps": "full", "approved_change": None},
    "retention.logs": {"log_complete": False},
    "monitoring.calls": {"calls": 99},
    "quality.objectives": {"quality": ()},
    "feedback.outcomes": {"outcomes": 29},
    "oversight.review": {"effect": "decides", "reviewed_share": 0.0},
    "oversight.stop": {"lifted_kill": None},
    "support.runbook": {"runbook": None},
    "transparency.notice": {"risk": RISK.model_copy(update={"notice": None})},
    "supplier.terms": {"undeclared_terms": ("gpt",)},
    "register.complete": {"models_without_terms": ("x",)},
    "guardrails.on": {"enforced_guardrails": ()},
    "access.keys_expire": {"stale_keys": ("gp_x",)},
    "policy.rules": {"rules": ()},
    "audit.verified": {"log_verified_at": NOW - timedelta(days=8)},
    "findings.none_critical": {"grave_findings": 1},
}


def test_every_check_of_facts_has_a_case_that_fails() -> None:
    assert set(BAD) == {name for name, check in CHECKS.items() if check.judge is not None}


@pytest.mark.parametrize(("name", "change"), BAD.items())
def test_a_check_fails_where_one_fact_is_missing(name: str, change: dict[str, object]) -> None:
    judge = CHECKS[name].judge
    assert judge is not None
    verdict = judge(dataclasses.replace(GOOD, **change), NOW.date())  # type: ignore[arg-type]
    assert not verdict.holds and verdict.says


def evidence(
    what: str,
    *,
    holds: bool = True,
    days: float = 7,
    ago: float = 1,
    by: str = "groundplan",
    subject: str = "workload/a",
    counts: bool = True,
) -> Evidence:
    at = NOW - timedelta(days=ago)
    return Evidence(
        id=new_id(), what=what, subject=subject, type="query", collector=by, at=at,
        valid_until=at + timedelta(days=days), holds=holds, says="so", digest="0" * 64, audit_entry=UUID(int=1),
        counts=counts,
    )  # fmt: skip


def own_framework(*needs: str, excluded: dict[str, str] | None = None) -> AppliedFramework:
    control = Control("C1", "A control", needs)
    framework = Framework("own", "Own", "declared", NOW.date(), "", (control,))
    return AppliedFramework(framework, "cora@acme.example", (control,), ("a",), excluded or {})


def state(applied_: AppliedFramework, *known: Evidence) -> str:
    (standing,) = assess(applied_, select_decisive(known), NOW)["a"]
    return standing.state


def test_all_needs_together_satisfy_a_control() -> None:
    two = own_framework("owner.business", DOCUMENT)
    assert state(two) == "open"
    assert state(two, evidence("owner.business")) == "open"
    assert state(two, evidence("owner.business"), evidence("own/C1")) == "satisfied"
    assert state(two, evidence("owner.business", holds=False), evidence("own/C1")) == "open"
    assert state(two, evidence("owner.business", days=0.5), evidence("own/C1")) == "expired"
    assert state(two, evidence("owner.business"), evidence("own/C1", subject="company")) == "satisfied"
    assert state(two, evidence("owner.business"), evidence("own/C1", subject="workload/b")) == "open"
    assert state(own_framework("owner.business", excluded={"C1": "not ours"})) == "excluded"


def test_figures_that_grow_by_themselves_are_no_new_evidence() -> None:
    """Each collection of it is in the log, whose entries it counts: there was more each ten minutes."""
    later, at = NOW + timedelta(minutes=10), "workload/assistant"
    grown = dataclasses.replace(
        GOOD, calls=900, outcomes=50, log_size=900, log_verified_at=later + timedelta(days=1), fallback_call="d"
    )
    fewer = dataclasses.replace(GOOD, calls=1, outcomes=1, log_complete=False, log_verified_at=None, fallback_call=None)
    new = set()
    for check in CHECKS.values():
        if check.judge is None:
            continue
        before = service.evidence_of_verdict(check, check.judge(GOOD, NOW.date()), at, NOW)
        more, less = (check.judge(facts, later.date()) for facts in (grown, fewer))
        made = service.evidence_of_verdict(check, more, at, later)
        assert service.is_current(before, made, later, grows=more.grows), check.name
        assert not service.is_current(before, made, before.valid_until, grows=more.grows), "half over"
        if not service.is_current(before, service.evidence_of_verdict(check, less, at, later), later, grows=less.grows):
            new.add(check.name)
    assert len(new) == 5, "what holds no longer is"


def test_the_newest_evidence_decides() -> None:
    old, new = evidence("owner.business", ago=2), evidence("owner.business", holds=False, ago=1)
    for order in ((old, new), (new, old)):
        assert state(own_framework("owner.business"), *order) == "open"


def test_drift_is_what_is_in_another_state_and_an_action_is_grave_after_its_day() -> None:
    one = own_framework("owner.business")
    then = NOW - timedelta(days=3)
    good, bad = evidence("owner.business", ago=4), evidence("owner.business", ago=1, holds=False)
    was, is_ = assess(one, select_decisive([good]), then), assess(one, select_decisive([good, bad]), NOW)
    (moved,) = drift(one, was, is_)
    assert (moved.control, moved.workload, moved.before, moved.now) == ("C1", "a", "satisfied", "open") and moved.hint
    assert drift(one, was, assess(one, select_decisive([good]), NOW)) == []
    ended = evidence("owner.business", ago=4, days=2)
    was, is_ = assess(one, select_decisive([ended]), then), assess(one, select_decisive([ended]), NOW)
    assert [each.now for each in drift(one, was, is_)] == ["expired"]
    due = NOW.date()
    made = [
        corrective_action("workload/a", "Try it", "own/C1", "sam@acme.example", due, "m", due + timedelta(days=late))
        for late in (0, 1)
    ]  # fmt: skip
    assert [each.severity for each in made] == ["medium", "high"] and made[0].identity == made[1].identity
    assert "was due" in made[1].message and "was due" not in made[0].message


def test_what_nobody_approved_does_not_count_and_takes_no_place_of_what_does() -> None:
    one = own_framework(DOCUMENT)
    waiting = evidence("own/C1", by="person:x", counts=False)
    assert (
        state(one, waiting) == "open"
        and evidence_findings(one, assess(one, select_decisive([waiting]), NOW), NOW) == []
    )
    (standing,) = assess(one, select_decisive([waiting]), NOW)["a"]
    assert standing.shown[0].evidence == waiting and "not approved" in standing.shown[0].hint
    approved = evidence("own/C1", by="person:x", ago=3)
    for order in ((approved, waiting), (waiting, approved)):
        assert state(one, *order) == "satisfied", "the older one stands until the newer one is approved"
    no = evidence("own/C1", by="person:x", ago=3, holds=False)
    assert state(one, no, waiting) == "open"


def test_a_changed_law_opens_what_people_showed_before_it_and_not_what_facts_show() -> None:
    day = NOW.date() - timedelta(days=2)
    both = own_framework(DOCUMENT, "owner.business")
    facts = evidence("owner.business", ago=5)
    for controls, before, after in (((), "expired", "satisfied"), (("C1",), "expired", "satisfied")):
        changed = dataclasses.replace(both, amended=(Amendment(day, "Act 2 is in force", "OJ 2", frozenset(controls)),))
        old, new = evidence("own/C1", ago=3, by="person:x", days=90), evidence("own/C1", ago=1, by="person:x", days=90)
        assert state(changed, facts, old) == before and state(changed, facts, old, new) == after
        known = select_decisive([facts, old])
        (found,) = evidence_findings(changed, assess(changed, known, NOW), NOW)
        assert found.kind == "governance.evidence_expired" and f"changed on {day}" in found.message
        assert "Act 2 is in force (OJ 2" in found.hint
    for other in (
        Amendment(day, "x", "y", frozenset(["C2"])),
        Amendment(NOW.date() + timedelta(days=1), "x", "y"),
    ):
        assert state(dataclasses.replace(both, amended=(other,)), facts, old) == "satisfied"


def test_a_company_says_what_changed_before_it_is_shipped() -> None:
    doc = FrameworkDoc.model_validate(
        {"name": "eu-ai-act", "owner": "cora@acme.example", "amended": [
            {"on": "2026-11-01", "what": "High-risk duties begin later", "source": "later act", "controls": ["ART 26"]}
        ]}
    )  # fmt: skip
    made = apply_framework(doc, "cora@acme.example", ["a"], NOW.date())
    amended = made.amendment("ART 26", NOW.date())
    assert amended is not None and amended.on == date(2026, 11, 1)
    assert made.amendment("ART 9", NOW.date()) is None and made.amendment("ART 26", date(2026, 10, 31)) is None


def test_evidence_that_ended_opens_the_control_and_is_told_to_its_owner() -> None:
    applied_ = own_framework(DOCUMENT)
    for days, ago, kinds in (
        (1, 2, ["governance.evidence_expired"]),
        (20, 1, ["governance.evidence_expires"]),
        (90, 1, []),
    ):
        known = select_decisive([evidence("own/C1", days=days, ago=ago, by="person:x")])
        found = evidence_findings(applied_, assess(applied_, known, NOW), NOW)
        assert [each.kind for each in found] == kinds
        assert all(each.owner == "cora@acme.example" and "own/C1" in each.hint for each in found)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 30), st.floats(0, 30)), max_size=6))
def test_a_control_is_satisfied_only_by_evidence_that_holds_now(found: list[tuple[bool, float, float]]) -> None:
    known = [evidence("owner.business", holds=holds, days=days, ago=ago) for holds, days, ago in found]
    one = own_framework("owner.business")
    standing = assess(one, select_decisive(known), NOW)["a"][0]
    last = max(known, key=lambda each: (each.at, each.id), default=None)
    assert (standing.state == "satisfied") == (last is not None and last.holds and last.valid_until > NOW)
    assert (standing.until is not None) == (standing.state == "satisfied")
    counts = coverage([standing])
    assert counts["apply"] == 1 and sum(counts[each] for each in ("satisfied", "open", "expired")) == 1


def test_a_framework_applies_by_profile_with_what_is_left_out() -> None:
    doc = FrameworkDoc.model_validate(
        {"name": "nist-ai-rmf", "owner": "cora@acme.example", "profile": "tier-1", "workloads": ["a", "z"],
         "excluded": [{"control": "GOVERN 4.1", "reason": "done by the group"}],
         "controls": [{"id": "X 1", "title": "Ours", "needs": ["budget.hard"]}]}
    )  # fmt: skip
    made = apply_framework(doc, "cora@acme.example", ["a", "b"], NOW.date())
    assert len(made.controls) == 19 and made.workloads == ("a",) and made.controls[-1].id == "X 1"
    assert coverage(assess(made, {}, NOW)["a"])["apply"] == 18
    with pytest.raises(Invalid, match="no profile"):
        apply_framework(doc.model_copy(update={"profile": "tier-9"}), "", [], NOW.date())
    with pytest.raises(Invalid, match="no control"):
        apply_framework(
            doc.model_copy(
                update={"profile": None, "excluded": (doc.excluded[0].model_copy(update={"control": "Q"}),)}
            ),
            "",
            [],
            NOW.date(),
        )


@pytest.mark.parametrize(
    ("answers", "name", "profile"),
    [
        ({"prohibited": "social-scoring", "area": "employment"}, "prohibited", "minimal"),
        ({"safety_component": True}, "high-risk", "high-risk-deployer"),
        ({"area": "employment", "role": "provider"}, "high-risk", "high-risk-provider"),
        ({"area": "employment", "narrow_task": True}, "limited", "limited"),
        ({"area": "employment", "narrow_task": True, "profiles_people": True}, "high-risk", "high-risk-deployer"),
        ({"talks_to_people": False, "makes_content": True}, "limited", "limited"),
        ({"talks_to_people": False}, "minimal", "minimal"),
        ({"talks_to_people": False, "area": "justice", "narrow_task": True}, "minimal", "minimal"),
    ],
)
def test_the_questions_of_the_eu_ai_act_decide_the_class(answers: dict[str, object], name: str, profile: str) -> None:
    found = classify(EuAiActAnswers.model_validate(answers))
    assert (found.name, found.profile) == (name, profile)
    assert found.why and found.duties and profile in shipped("eu-ai-act").profiles


def test_dates_of_application_are_data_with_a_source() -> None:
    assert applies_from("ART 5") == date(2025, 2, 2) and applies_from("ART 50") == date(2026, 8, 2)
    assert applies_from("ART 999") is None
