"""Who may use a workload and whose keys act for others: declared, compiled, decided, and told in a plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from tests.unit.call_rig import FixedPolicy, call_rig
from tests.unit.test_release_plan import BASE, PRODUCTION, TODAY, current, genesis, plan_of

from groundplan.blueprint import model as bp
from groundplan.core.errors import Denied
from groundplan.gateway.policy import grants
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.governance.model import ApprovalStatus
from groundplan.release.compile.grants import grant_changes
from groundplan.release.undo import restored_blueprint
from groundplan.testing import ManualClock

DAY = date(2026, 11, 25)
POLICY = Policy(
    1,
    {},
    {"ana@acme.example": "a", "ben@acme.example": "b"},
    frozenset({"a", "b"}),
    frozenset(),
    members={"hr": frozenset({"a"}), "old": frozenset({"gone"})},
)
GROUPS = """
---
kind: group
name: hr
members: [ana@acme.example]
"""


def grant(*to: str, until: str | None = None, name: str = "g") -> bp.Grant:
    return bp.Grant(name=name, to=list(to), until=until)


def workload(**more: object) -> bp.Workload:
    fields = {
        "name": "w", "purpose": "p", "stage": "pilot", "sensitivity": "internal", "audience": "employees",
        "residency": [], "deployments": [], "budgets": [], "owners": {"business": ["own@acme.example"]}, **more,
    }  # fmt: skip
    return bp.Workload(**fields)  # type: ignore[arg-type]


def key(person: str = "", *, acts: bool = True) -> KeyEntry:
    return KeyEntry("k", "w", person, acts, False, None)


def declared(name: str, on: str, allows: str, to: str, more: str = "") -> str:
    return f"\n---\nkind: grant\nname: {name}\non: {on}\nallows: {allows}\nto: {to}\n{more}"


def refusal(work: bp.Workload, key_of: str, person: str, day: date = DAY) -> Denied | None:
    try:
        grants.check_grants(work, POLICY, key(key_of), person, day)
    except Denied as error:
        return error
    return None


@pytest.mark.parametrize(
    ("given", "person", "allowed"),
    [
        ([], "b", True),
        ([], "", True),
        ([grant("hr")], "a", True),
        ([grant("hr")], "b", False),
        ([grant("hr")], "", False),
        ([grant("everyone")], "b", True),
        ([grant("everyone")], "", False),
        ([grant("ben@acme.example")], "b", True),
        ([grant("ben@acme.example")], "a", False),
        ([grant("hr", "ben@acme.example")], "b", True),
        ([grant("ghost@acme.example")], "", False),
        ([grant("unknown-group")], "a", False),
        ([grant("old")], "gone", False),
        ([grant("hr", until="2026-11-25")], "a", True),
        ([grant("hr", until="2026-11-24")], "a", False),
        ([grant("everyone", until="2026-11-24")], "b", False),
        ([grant("hr", until="2026-11-24"), grant("ben@acme.example")], "b", True),
        ([grant("hr", until="2026-11-24"), grant("hr", until="2026-12-24")], "a", True),
    ],
)
def test_who_may_use(given: list[bp.Grant], person: str, allowed: bool) -> None:
    found = refusal(workload(use=given), person, person)
    assert (found is None) is allowed
    if found is not None:
        assert found.code == "use_not_granted" and "own@acme.example" in found.hint


def test_a_day_later_it_has_ended_and_opens_nothing() -> None:
    work = workload(use=[grant("hr", until="2026-11-25")])
    assert refusal(work, "a", "a", date(2026, 11, 25)) is None
    for person in ("a", "b", ""):
        assert refusal(work, person, person, date(2026, 11, 26)) is not None


def test_whose_key_acts_for_others() -> None:
    work = workload(act_for_others=[grant("hr")])
    assert refusal(work, "a", "b") is None
    assert refusal(work, "b", "b") is None, "for oneself it needs no grant"
    assert refusal(work, "", "") is None, "for nobody neither"
    for key_of in ("b", ""):
        found = refusal(work, key_of, "a")
        assert found is not None and found.code == "act_for_others_not_granted"
    assert refusal(workload(act_for_others=[grant("hr", until="2026-11-24")]), "a", "b") is not None
    assert refusal(workload(use=[grant("hr")]), "b", "a") is None, "where it is granted to nobody, the key says so"
    both = workload(act_for_others=[grant("hr")], use=[grant("hr")])
    found = refusal(both, "a", "b")
    assert found is not None and found.code == "use_not_granted", "the person acted for must be granted too"


def test_only_the_groups_that_grants_name_are_looked_up() -> None:
    works = [workload(use=[grant("hr", "everyone", "ana@acme.example")]), workload(act_for_others=[grant("ops")])]
    blueprint = bp.Blueprint(
        number=1, company="a", separation="solo", sites=[], deployments=[], sources=[], workloads=works, budgets=[],
        placements=[],
    )  # fmt: skip
    assert grants.groups_of(blueprint) == {"hr", "ops"}


def test_declared_grants_are_in_the_blueprint() -> None:
    text = (
        BASE
        + GROUPS
        + declared("b", "workload/assistant", "[use, act-for-others]", "[hr, zoe]", "until: 2026-12-24\n")
        + declared("a", "company", "use", "everyone")
        + declared("r", "source/handbook", "read", "ben@acme.example")
        + "\n---\nkind: person\nname: zoe\nemail: zoe@acme.example\n"
    )
    served = genesis(text).blueprint
    (work,) = served.workloads
    limited = bp.Grant(name="b", to=["hr", "zoe@acme.example"], until="2026-12-24")
    assert work.use == [bp.Grant(name="a", to=["everyone"]), limited]
    assert work.act_for_others == [limited]
    assert served.sources[0].read == [bp.Grant(name="r", to=["ben@acme.example"])]


@pytest.mark.parametrize(
    ("on", "allows"), [("source/handbook", "[read, use]"), ("company", "read"), ("workload/assistant", "read")]
)
def test_a_grant_allows_what_its_object_can_give(on: str, allows: str) -> None:
    found = plan_of(BASE + declared("x", on, allows, "everyone")).refusals
    assert [problem.code for problem in found] == ["grant_on"]


@pytest.mark.parametrize("word", ["observe", "operate"])
def test_words_without_a_meaning_are_refused(word: str) -> None:
    with pytest.raises(Exception, match="allows"):
        plan_of(BASE + declared("x", "company", word, "everyone"))


def test_a_plan_tells_who_gains_and_who_loses() -> None:
    first = genesis(BASE + GROUPS)
    text = BASE + GROUPS + declared("x", "workload/assistant", "use", "[hr, ben@acme.example]")
    result = plan_of(text, first)
    assert [(f.field, f.old, f.new) for item in result.differences for f in item.fields] == [
        ("use", None, "ben@acme.example, hr"),
        ("use: lost by", "whoever has a key, but for ben@acme.example, hr", None),
    ]
    after = plan_of(
        BASE + GROUPS + declared("x", "workload/assistant", "use", "[hr, eve@acme.example]"), current(text, result)
    )
    told = {f.field: (f.old, f.new) for item in after.differences for f in item.fields}
    assert told["use: gained by"] == (None, "eve@acme.example")
    assert told["use: lost by"] == ("ben@acme.example", None)
    again = plan_of(BASE + GROUPS, current(text, result))
    assert ("use: gained by", "whoever has a key") in [(f.field, f.new) for d in again.differences for f in d.fields]
    assert grant_changes("read", [], [grant("hr")]) == ("hr", "")
    assert grant_changes("use", [grant("hr", until="2026-12-01")], [grant("hr")]) == ("hr", "hr until 2026-12-01")


def test_a_wider_grant_in_production_waits_and_leaves_who_has_it_now() -> None:
    narrow = BASE + "---\n" + PRODUCTION + GROUPS + declared("x", "workload/support", "use", "hr")
    waiting = plan_of(narrow)
    (pending,) = [item for item in waiting.pending if item.subject == "workload/support"]
    served = plan_of(narrow, standing=ApprovalStatus(approved=frozenset({(pending.subject, pending.digest)})))
    assert served.blueprint is not None and served.pending == ()
    for wide in (narrow.replace("to: hr", "to: everyone"), narrow[: narrow.index("\n---\nkind: grant")]):
        result = plan_of(wide, current(narrow, served))
        assert [item.subject for item in result.pending] == ["workload/support"]
        assert any(field.field == "use: gained by" for field in result.pending[0].fields)
        assert result.blueprint is not None
        (still,) = [item for item in result.blueprint.workloads if item.name == "support"]
        assert still.use == [bp.Grant(name="x", to=["hr"])]


def test_going_back_revives_no_grant_and_opens_nothing() -> None:
    first = genesis(BASE + GROUPS + declared("r", "source/handbook", "read", "hr"))
    text = BASE + GROUPS + declared("x", "workload/assistant", "use", "hr")
    second = plan_of(text, first).blueprint
    assert second is not None and second.workloads[0].use and not second.sources[0].read
    back = restored_blueprint(first.blueprint, second, (), {})
    assert back.workloads[0].use == second.workloads[0].use
    assert back.sources[0].read == []
    assert TODAY == DAY


async def test_a_grant_ends_by_itself_at_a_running_gateway(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads={"assistant": {"use": [grant("hr", until="2026-11-25")]}}) as rig:
        live = rig.gateway.live
        assert isinstance(live, FixedPolicy) and isinstance(rig.gateway.clock, ManualClock)
        keys = {digest: replace(entry, person="a") for digest, entry in live.policy.keys.items()}
        live.policy = replace(POLICY, keys=keys)
        rig.gateway.clock.advance(
            (datetime(2026, 11, 25, 23, 59, tzinfo=UTC) - rig.gateway.clock.now()).total_seconds()
        )
        assert (await rig.chat()).status == 200
        rig.gateway.clock.advance(120)
        ended = await rig.chat()
        assert (ended.status, ended.code) == (403, "use_not_granted")
