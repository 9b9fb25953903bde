"""What production uses needs approvals of its own: which parts there are, what binds them, and what a call is told."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import (
    ApprovalTerms,
    Blueprint,
    Deployment,
    Grounding,
    Needs,
    ProviderTerms,
    Rates,
    Source,
    Workload,
)
from groundplan.core.errors import Denied, Invalid
from groundplan.gateway.policy import approved
from groundplan.gateway.policy.approved import approved_of
from groundplan.gateway.policy.snapshot import EMPTY_POLICY, Policy
from groundplan.governance.approved_parts import (
    NO_END,
    PART_KINDS,
    Part,
    audience_declaration,
    check_request,
    find_lapses,
    served_price,
    valid_until,
    workload_parts,
)
from groundplan.governance.model import GrantedApproval
from groundplan.governance.register.versions import Version, model_change_finding, model_changes

TODAY = date(2026, 11, 25)
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
HOLDS = GrantedApproval(TODAY + timedelta(days=10), TODAY + timedelta(days=20))


def deployment(name: str, **more: Any) -> Deployment:
    terms = ProviderTerms(training=False, retention_days=30)
    settings: dict[str, Any] = {
        "upstream_model": "m-2026-10",
        "rates": Rates(input=1, output=2),
        "terms": terms,
        **more,
    }
    return Deployment(name=name, site="here", model="acme/m", url="http://x/v1", **settings)


def workload(**more: Any) -> Workload:
    settings: dict[str, Any] = {
        "stage": "production", "sensitivity": "internal", "deployments": ["one", "two"],
        "audience": "customers", **more,
    }  # fmt: skip
    return Workload(
        name="support", purpose="Answer customers", residency=[], budgets=[], prompt="polite@3",
        system_prompt="Be polite.", grounding=Grounding(sources=["articles"]),
        owners={"security": ["sam@acme.example"], "compliance": ["clara@acme.example"]}, **settings,
    )  # fmt: skip


def blueprint(*workloads: Workload, kinds: tuple[str, ...] = PART_KINDS, **source: Any) -> Blueprint:
    settings: dict[str, Any] = {
        "sensitivity": "internal",
        "owner": "dana@acme.example",
        "readers": ["everyone"],
        **source,
    }
    return Blueprint(
        number=1, company="acme", separation="enforced", sites=[], workloads=list(workloads), budgets=[], placements=[],
        deployments=[deployment("one"), deployment("two", upstream_model="m-2025-01")],
        sources=[Source(name="articles", path="./articles", **settings)], approved_parts=list(kinds),
    )  # fmt: skip


def every(made: Blueprint) -> tuple[Part, ...]:
    return workload_parts(made, made.workloads[0])


def policy(*parts: Part, given: GrantedApproval = HOLDS) -> Policy:
    known = {part.digest: given for part in parts}
    return Policy(0, {}, {}, frozenset(), frozenset(), parts=known)


def test_parts_are_each_model_version_the_prompt_and_each_source_for_each_purpose() -> None:
    made = blueprint(workload(needs=Needs(purposes=["support", "training"])))
    assert [(part.kind, part.subject, part.deployments) for part in every(made)] == [
        ("model", "model/acme/m", ("one",)),
        ("model", "model/acme/m", ("two",)),
        ("prompt", "prompt/polite", ()),
        ("data", "source/articles", ()),
        ("data", "source/articles", ()),
        ("rollout", "workload/support", ()),
    ]
    assert len({part.digest for part in every(made)}) == 6
    assert every(blueprint(workload(stage="pilot"))) == (), "experiments and pilots need none"
    same = msgspec.structs.replace(made, deployments=[deployment("one"), deployment("two")])
    assert every(same)[0].deployments == ("one", "two"), "one version is one part"


def test_a_part_is_bound_to_its_declaration_and_not_to_prices_or_addresses() -> None:
    before = blueprint(workload())
    digests = [part.digest for part in every(before)]

    def after(**more: Any) -> list[str]:
        changed = msgspec.structs.replace(before, deployments=[deployment("one", **more), before.deployments[1]])
        return [part.digest for part in every(changed)]

    assert after(rates=Rates(input=9, output=9)) == digests
    assert after(idle_ms=1) == digests
    assert after(upstream_model="m-2026-11")[0] != digests[0]
    assert after(terms=ProviderTerms(training=True, retention_days=30))[0] != digests[0]
    other = msgspec.structs.replace(before, workloads=[msgspec.structs.replace(before.workloads[0], purpose="Sell")])
    assert [a == b.digest for a, b in zip(digests, every(other), strict=True)] == [True, True, True, False, True]
    source = blueprint(workload(), readers=["hr"])
    assert [a == b.digest for a, b in zip(digests, every(source), strict=True)] == [True, True, True, False, True]


@pytest.mark.parametrize(
    ("after", "lapsed"),
    [
        (Rates(input=120, output=240), []),
        (Rates(input=50, output=20), []),
        (Rates(input=121, output=240), ["price"]),
        (Rates(input=100, output=241), ["price"]),
        (Rates(input=100, output=200, cache_read=120), []),
        (Rates(input=100, output=200, cache_read=121), ["price"]),
        (Rates(input=100, output=200, request=1), ["price"]),
        (Rates(input=100, output=200, long_above=9, long=Rates(input=121, output=200)), ["price"]),
    ],
)
def test_an_approval_holds_within_a_band_above_the_price_that_was_approved(after: Rates, lapsed: list[str]) -> None:
    before = blueprint(workload(deployments=["one"]))
    before = msgspec.structs.replace(before, deployments=[deployment("one", rates=Rates(input=100, output=200))])
    model = every(before)[0]
    assert model.price == {"input": 100, "output": 200} == served_price(before, model.digest)
    given = {model.digest: dataclasses.replace(HOLDS, price=model.price)}
    now = msgspec.structs.replace(before, deployments=[deployment("one", rates=after)])
    found = find_lapses(now, now.workloads[0], given, ("model",), TODAY)
    assert [lapse.reason for lapse in found] == lapsed
    assert not find_lapses(now, now.workloads[0], {model.digest: HOLDS}, ("model",), TODAY), "nobody noted what it cost"
    wide = msgspec.structs.replace(now, approval_terms=ApprovalTerms(price_band=1.0))
    assert [lapse.reason for lapse in find_lapses(wide, wide.workloads[0], given, ("model",), TODAY)] == (
        ["price"] if after.request else []
    )
    book = approved_of(msgspec.structs.replace(now, approved_parts=["model"]))
    assert book is not None
    known = Policy(0, {}, {}, frozenset(), frozenset(), parts=given)
    if not lapsed:
        assert book.usable(known, "support", now.deployments, NOW) == now.deployments
        return
    with pytest.raises(Denied, match="costs more than the band") as caught:
        book.usable(known, "support", now.deployments, NOW)
    assert caught.value.code == "approval_price" and "groundplan changes ask" in str(caught.value.hint)


@given(
    st.booleans(), st.booleans(), st.sampled_from(["holds", "withdrawn", "expired", "never"]), st.integers(-30, 30),
    st.integers(0, 20),
)  # fmt: skip
def test_what_lasts_how_long(own: bool, restricted: bool, state: str, ends: int, grace: int) -> None:
    """An approval that holds lasts to its end, with grace but for restricted data; one that was taken away does not."""
    made = blueprint(workload(sensitivity="restricted" if restricted else "internal"))
    part = every(made)[0]
    expires = TODAY + timedelta(days=ends)
    known = GrantedApproval(expires, expires + timedelta(days=grace), state == "withdrawn", state == "expired")
    parts = {} if state == "never" else {part.digest: known}
    kinds = PART_KINDS if own else ()
    found = valid_until(part, parts, kinds, 0.2)
    ended = [lapse.reason for lapse in find_lapses(made, made.workloads[0], parts, kinds, TODAY) if lapse.part == part]
    if state == "never":
        assert ended == (["missing"] if own else [])
    elif state != "holds":
        assert ended == [state] and found == state
    else:
        assert ended == ([] if ends + (0 if restricted else grace) >= 0 else ["expired"])


def test_a_call_is_refused_for_what_is_missing_with_rule_owners_and_how_to_ask() -> None:
    made = blueprint(workload())
    book = approved_of(made)
    assert book is not None and approved_of(blueprint(workload(stage="pilot"))) is None
    assert approved_of(blueprint(workload(stage="pilot"), workload())) is not None
    one, two, prompt, data, reach = every(made)
    with pytest.raises(Denied) as caught:
        book.check(policy(one, two, prompt, reach), "support", NOW)
    error = caught.value
    assert error.code == "approval_missing" and error.details == {"rule": "approved-data", "part": "source/articles"}
    assert "source/articles for the purpose 'Answer customers'" in error.message
    assert "clara@acme.example" in str(error.hint) and "groundplan changes ask --workload support" in str(error.hint)
    with pytest.raises(Denied, match="workload/support reaching customers in production"):
        book.check(policy(one, two, prompt, data), "support", NOW)
    book.check(policy(one, two, prompt, data, reach), "support", NOW)
    book.check(policy(), "other", NOW)
    assert book.usable(policy(), "other", made.deployments, NOW) == made.deployments


def test_a_new_policy_is_not_applied_to_all_workloads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new key makes one, and calls would wait while thousands of workloads are gone through."""
    looked_at = list[Part]()

    def note(part: Part, *more: Any) -> Any:
        looked_at.append(part)
        return valid_until(part, *more)

    monkeypatch.setattr(approved, "valid_until", note)
    others = [msgspec.structs.replace(workload(), name=f"other-{number}") for number in range(9)]
    made = blueprint(workload(), *others)
    book = approved_of(made)
    assert book is not None
    for _ in range(2):
        given_now = policy(*every(made))
        for _ in range(3):
            book.check(given_now, "support", NOW)
            assert book.usable(given_now, "support", made.deployments, NOW) == made.deployments
    assert looked_at == [*every(made), *every(made)]


def test_a_model_without_approval_is_left_out_and_where_none_is_left_the_call_is_refused() -> None:
    made = blueprint(workload())
    book = approved_of(made)
    assert book is not None
    one, two, prompt, data, reach = every(made)
    usable = book.usable(policy(one, two, prompt, data, reach), "support", made.deployments, NOW)
    assert [each.name for each in usable] == ["one", "two"]
    assert [each.name for each in book.usable(policy(two), "support", made.deployments, NOW)] == ["two"]
    gone = GrantedApproval(HOLDS.expires_on, HOLDS.grace_until, withdrawn=True)
    with pytest.raises(Denied) as caught:
        book.usable(policy(one, two, given=gone), "support", made.deployments, NOW)
    assert caught.value.code == "approval_withdrawn"


def test_the_end_of_an_approval_needs_nobody_to_tell_it() -> None:
    """The gateway's own clock ends it: a day too late is too late, also where the control process is away."""
    made = blueprint(workload())
    book = approved_of(made)
    assert book is not None
    known = policy(*every(made), given=GrantedApproval(TODAY, TODAY + timedelta(days=2)))
    over = NOW + 2.5 * 86_400  # the midnight after its last day
    book.check(known, "support", over - 1)
    assert book.usable(known, "support", made.deployments, over - 1) == made.deployments
    with pytest.raises(Denied, match="approval_expired"):
        book.check(known, "support", over)
    with pytest.raises(Denied, match="approval_expired"):
        book.usable(known, "support", made.deployments, over)
    strict = blueprint(workload(sensitivity="restricted"))
    book = approved_of(strict)
    assert book is not None
    known = policy(*every(strict), given=GrantedApproval(TODAY, TODAY + timedelta(days=2)))
    book.check(known, "support", NOW)
    with pytest.raises(Denied):
        book.check(known, "support", NOW + 86_400)


def test_without_the_rule_the_workload_covers_its_parts_until_one_is_withdrawn() -> None:
    made = blueprint(workload(), kinds=())
    book = approved_of(made)
    assert book is not None
    book.check(EMPTY_POLICY, "support", NOW)
    data = every(made)[3]
    with pytest.raises(Denied):
        book.check(policy(data, given=GrantedApproval(TODAY, TODAY, withdrawn=True)), "support", NOW)


def reaching(audience: str) -> Part:
    (found,) = [each for each in every(blueprint(workload(audience=audience))) if each.kind == "rollout"]
    return found


def test_a_wider_audience_waits_and_a_narrower_one_is_covered() -> None:
    employees, customers, public = map(reaching, ("employees", "customers", "public"))
    given = {customers.digest: HOLDS}
    for part, last in ((employees, HOLDS.grace_until), (customers, HOLDS.grace_until), (public, "missing")):
        assert valid_until(part, given, PART_KINDS, 0.2) == last
    assert valid_until(public, given, (), 0.2) == NO_END, (
        "covered by the approval of the workload where the company says so"
    )
    gone = {customers.digest: GrantedApproval(HOLDS.expires_on, HOLDS.grace_until, withdrawn=True)}
    assert valid_until(customers, gone, (), 0.2) == "withdrawn"
    assert (
        valid_until(employees, gone, PART_KINDS, 0.2) == "missing" and valid_until(employees, gone, (), 0.2) == NO_END
    )
    assert valid_until(customers, gone | {public.digest: HOLDS}, PART_KINDS, 0.2) == HOLDS.grace_until, (
        "the wider one contains it"
    )


def test_by_hand_only_what_bites_is_asked_for() -> None:
    check_request("model", "model/x", {"version": "1"})
    check_request("rollout", "workload/support", audience_declaration("public"))
    for kind in ("policy", "exception", "evidence"):
        with pytest.raises(Invalid, match="not asked for here"):
            check_request(kind, "workload/support", {"document": "x"})
    for subject, what in (
        ("workload/support", {"stage": "pilot", "audience": "public"}),
        ("workload/support", {"stage": "production", "audience": "world"}),
        ("workload/support", {**audience_declaration("public"), "more": 1}),
        ("source/x", audience_declaration("public")),
    ):
        with pytest.raises(Invalid, match="no rollout"):
            check_request("rollout", subject, what)


def test_a_model_that_reports_another_version_is_told_until_it_is_approved_again_or_a_month_has_passed() -> None:
    made = blueprint(workload())
    days = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2, 10, 20)]
    said = [Version("one", "m-2026-10", "m", print_, day, day) for print_, day in zip("abcd", days, strict=True)]
    digest = every(made)[0].digest
    now = datetime(2026, 11, 25, tzinfo=UTC)
    (found,) = model_changes(made, said, {}, now)
    assert (found.digest, found.before.fingerprint, found.now.fingerprint) == (digest, "a", "d") and found.production
    (found,) = model_changes(made, said, {digest: days[2]}, now)
    assert (found.before.fingerprint, found.now.fingerprint) == ("c", "d"), "what was there then is approved"
    assert model_changes(made, said, {digest: days[3]}, now) == [] == model_changes(made, said[:1], {}, now)
    assert model_changes(made, said, {}, now + timedelta(days=31)) == []
    assert model_changes(msgspec.structs.replace(made, workloads=[]), said, {}, now) == [], "nobody uses it"
    pilot = model_changes(blueprint(workload(stage="pilot")), said, {}, now)
    assert [model_change_finding(each).severity for each in (found, *pilot)] == ["high", "medium"]
