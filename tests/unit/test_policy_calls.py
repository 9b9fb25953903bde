"""Company rules from the workspace to a refused call: templates, lines, examples, decisions, exceptions, shadow."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from tests.unit.call_rig import Rig, call_rig
from typer.testing import CliRunner

from groundplan.blueprint import model as bp
from groundplan.catalog.loader import load_files
from groundplan.catalog.policies import TemplateName, TemplateValues
from groundplan.cli.policy import app
from groundplan.core.errors import Denied
from groundplan.core.ids import new_id
from groundplan.gateway.policy.gate import Gate, ToolUser, gate_of
from groundplan.gateway.policy.snapshot import KeyEntry, Policy, RuleException
from groundplan.governance.model import ApprovalStatus
from groundplan.governance.policy import cedar, declared, examples, shadow, templates
from groundplan.governance.policy.calls import CallRules, Tool
from groundplan.release.model import Current
from groundplan.release.plan import plan
from groundplan.release.undo import restored_blueprint
from groundplan.release.units import rule_digest

TODAY = date(2026, 11, 25)
WORKSPACE = """\
kind: company
name: acme
owners: {business: ana@acme.example, security: sam@acme.example, product: ana@acme.example}
caps: {sensitivity: confidential}
---
kind: group
name: finance
members: [fay@acme.example]
---
kind: site
name: cloud
type: cloud
jurisdiction: EU
---
kind: deployment
name: gpt
site: cloud
model: openai/gpt-4.1-mini
url: https://acme.example/v1
provider_terms: {training: false, retention: 30d, subprocessors: [helper]}
---
kind: workload
name: assistant
purpose: Answer
stage: pilot
sensitivity: confidential
effect: decides
owners: {business: ana@acme.example}
---
kind: budget
name: all
covers: workload/assistant
limit: 100 USD/month
"""
BLOCK = """\
---
kind: policy
name: house
owner: sam@acme.example
mode: enforce
cedar: |
  // a comment
  @id("no-training")
  @hint("Use another provider.")
  forbid (principal, action == Action::"call", resource)
  when { context.training };
"""


def blueprint_of(text: str) -> bp.Blueprint:
    found = plan(load_files({"w.yaml": text}), None, today=TODAY)
    assert not found.refusals, found.refusals
    assert found.blueprint is not None
    return found.blueprint


def wrong(text: str) -> list[str]:
    workspace = load_files({"w.yaml": text})
    return [f"{p.where}: {p.message} [{p.code}]" for p in declared.problems(workspace)]


def test_a_policy_is_part_of_the_blueprint_and_of_its_differences() -> None:
    found = plan(load_files({"w.yaml": WORKSPACE + BLOCK}), None, today=TODAY)
    assert found.blueprint is not None
    (held,) = found.blueprint.policies
    assert (held.name, held.owner, held.enforced) == ("house", "sam@acme.example", True)
    assert "policy/house" in {each.subject for each in found.differences}
    assert found.blueprint.described["assistant"].effect == "decides"
    terms = found.blueprint.deployments[0].terms
    assert terms == bp.ProviderTerms(training=False, retention_days=30, subprocessors=["helper"])


def test_an_invalid_rule_is_reported_with_its_line() -> None:
    at = WORKSPACE.count("\n")
    text = BLOCK.replace("context.training", 'context.traning == "x"')
    (told,) = wrong(WORKSPACE + text)
    assert told.startswith(f"w.yaml:{at + 8}:1:") and "traning" in told and "[policy_type]" in told
    broken = wrong(WORKSPACE + BLOCK.replace("when {", "when"))
    assert all(each.startswith(f"w.yaml:{at + 8}:1:") and "policy_syntax" in each for each in broken) and broken
    group = wrong(WORKSPACE + BLOCK.replace("(principal,", '(principal in Group::"nobody",'))
    assert "the group nobody, which is not declared" in group[0]
    twice = wrong(WORKSPACE + BLOCK + BLOCK.replace("name: house", "name: other"))
    assert "the rule no-training is there twice" in twice[0]
    assert "policy_form" in wrong(WORKSPACE + "---\nkind: policy\nname: x\nowner: sam@acme.example\n")[0]
    found = plan(load_files({"w.yaml": WORKSPACE + text}), None, today=TODAY)
    assert found.blueprint is None and found.refusals[0].code == "policy_type"


VALUES = {
    "models": {"models": ["openai/gpt-4.1-mini"], "sensitivity": "confidential"},
    "provider-terms": {"max_retention": "0d", "sensitivity": "internal"},
    "regions": {"jurisdictions": ["EU", "NO"]},
    "review-required": {},
    "tools": {"tools": ["lookup"]},
    "hours": {"from_hour": 8, "to_hour": 18, "weekdays": ["mon", "tue"]},
    "user-groups": {"groups": ["finance"]},
    "stages": {"stages": ["production"], "sensitivity": "confidential"},
}


@pytest.mark.parametrize("name", get_args(TemplateName))
def test_every_template_fits_the_schema(name: str) -> None:
    body = json.dumps({"kind": "policy", "name": "t", "owner": "sam@acme.example", "template": name,
                       "values": VALUES[name]})  # fmt: skip
    assert wrong(f"{WORKSPACE}---\n{body}\n") == []
    assert templates.get_template(name).summary
    if templates.get_template(name).needs:
        assert "needs" in templates.values_problem(name, TemplateValues())
    assert "has no" in templates.values_problem(name, TemplateValues(effects=("x",), tools=("y",)))


EXAMPLES = """\
---
kind: policy
name: hours
owner: sam@acme.example
template: hours
values: {from_hour: 22, to_hour: 6}
examples:
- {expect: allowed, given: {hour: 23}}
- {expect: allowed, given: {hour: 5}}
- {expect: refused, given: {hour: 6}}
---
kind: policy
name: terms
owner: sam@acme.example
template: provider-terms
values: {max_retention: 30d, subprocessors: [helper], sensitivity: confidential}
examples:
- {expect: allowed, given: {retention_days: 90}}
- {expect: refused, given: {retention_days: 90, sensitivity: restricted}}
- {expect: refused, given: {subprocessors: [other], sensitivity: restricted}}
- {expect: allowed, given: {subprocessors: [helper], sensitivity: restricted}}
- {expect: allowed, given: {training: true, sensitivity: restricted, site_type: private}}
---
kind: policy
name: people
owner: sam@acme.example
template: user-groups
values: {groups: [finance], workloads: [assistant]}
examples:
- {expect: refused, given: {workload: assistant}}
- {expect: allowed, given: {workload: assistant}, groups: [finance]}
- {expect: allowed, given: {workload: other}}
---
kind: policy
name: tools
owner: sam@acme.example
template: tools
values: {tools: [lookup]}
examples:
- {expect: allowed, tool: lookup}
- {expect: refused, tool: delete-everything}
---
kind: policy
name: review
owner: sam@acme.example
template: review-required
examples:
- {expect: refused, given: {effect: decides}}
- {expect: allowed, given: {effect: decides, reviewed: true}}
- {expect: allowed, given: {effect: decides, stage: pilot}}
---
kind: policy
name: place
owner: sam@acme.example
template: regions
values: {jurisdictions: [EU], purposes: [hiring]}
examples:
- {expect: allowed, given: {jurisdiction: US}}
- {expect: refused, given: {jurisdiction: US, purposes: [hiring]}}
---
kind: policy
name: stages
owner: sam@acme.example
template: stages
values: {stages: [pilot, production], sensitivity: restricted}
examples:
- {expect: refused, given: {stage: experiment, sensitivity: restricted}}
- {expect: allowed, given: {stage: experiment}}
---
kind: policy
name: models
owner: sam@acme.example
template: models
values: {providers: [acme]}
examples:
- {expect: allowed, given: {provider: acme}}
- {expect: refused, given: {provider: other}}
"""


def test_examples_beside_policies_are_decided(tmp_path: Path) -> None:
    found = list(examples.run_examples(load_files({"w.yaml": WORKSPACE + EXAMPLES})))
    assert len(found) == 22
    assert [each for each in found if not each.is_correct] == []
    (tmp_path / "w.yaml").write_text(WORKSPACE + EXAMPLES.replace("expect: refused, tool", "expect: allowed, tool"))
    result = CliRunner().invoke(app, ["test", "--workspace", str(tmp_path), "--json"])
    told = json.loads(result.stdout)
    assert (result.exit_code, told["examples"], told["wrong"]) == (1, 22, 1)
    assert told["failures"][0]["policy"] == "tools"


# approvals -----------------------------------------------------------------------------------------------------------


def plan_change(
    before: str, after: str, standing: ApprovalStatus | None = None
) -> tuple[list[str], list[bp.PolicyRules]]:
    """(duties that are asked, rules that hold at once) of a change."""
    old = load_files({"w.yaml": WORKSPACE + before})
    made = plan(old, None, today=TODAY).blueprint
    assert made is not None
    found = plan(load_files({"w.yaml": WORKSPACE + after}), Current(made, old), today=TODAY, standing=standing)
    assert found.blueprint is not None, found.refusals
    return [need.duty for need in found.needs], found.blueprint.policies


def test_a_rule_that_is_enforced_changes_only_with_approval() -> None:
    weaker = BLOCK.replace("context.training", "context.training && context.hour == 3")
    off = BLOCK.replace("enforce", "shadow")
    for after in (weaker, off, ""):
        duties, held = plan_change(BLOCK, after)
        assert duties == ["security", "compliance"]
        assert [(rule.name, rule.enforced, "hour" in rule.text) for rule in held] == [("house", True, False)]
    for before, after in (("", BLOCK), (off, BLOCK), (off, ""), (BLOCK, BLOCK), ("", off)):
        duties, held = plan_change(before, after)
        assert duties == [] and len(held) == (1 if after else 0)


def test_an_approved_change_of_a_rule_holds() -> None:
    gone = ApprovalStatus(approved=frozenset({("rule/house", rule_digest(None, "house"))}))
    assert plan_change(BLOCK, "", gone) == ([], [])


def test_a_rollback_removes_no_rule() -> None:
    old = blueprint_of(WORKSPACE)
    served = msgspec.structs.replace(blueprint_of(WORKSPACE + BLOCK), number=2)
    assert [rule.name for rule in restored_blueprint(old, served, (), {}).policies] == ["house"]
    shadow_now = msgspec.structs.replace(blueprint_of(WORKSPACE + BLOCK.replace("enforce", "shadow")), number=2)
    assert restored_blueprint(old, shadow_now, (), {}).policies == []


# decisions -----------------------------------------------------------------------------------------------------------

FAY, ANA = str(new_id()), str(new_id())
KEY = KeyEntry(str(new_id()), "assistant", "", False, False, None)


def policy(number: int = 1, members: tuple[str, ...] = (FAY,), exceptions: tuple[RuleException, ...] = ()) -> Policy:
    people = {"fay@acme.example": FAY, "ana@acme.example": ANA}
    groups = {"finance": frozenset(members)}
    return Policy(number, {}, people, frozenset(people.values()), frozenset(), members=groups, exceptions=exceptions)


def gate(text: str) -> tuple[Gate, list[bp.Deployment]]:
    made = blueprint_of(WORKSPACE + text)
    found = gate_of(made)
    assert found is not None
    return found, made.deployments


PEOPLE = EXAMPLES[EXAMPLES.index("---\nkind: policy\nname: people") :].split("examples:")[0] + "mode: enforce\n"
HOURS = EXAMPLES.split("examples:")[0] + "mode: enforce\n"


def test_a_decision_is_kept_until_the_policy_changes() -> None:
    rules, places = gate(PEOPLE)
    assert rules.allowed(policy(), "assistant", KEY, FAY, "chat", places, 0.0) == places
    with pytest.raises(Denied) as caught:
        rules.allowed(policy(), "assistant", KEY, ANA, "chat", places, 0.0)
    assert caught.value.code == "policy_denied"
    assert caught.value.details["rule"] == "people" and caught.value.details["owner"] == "sam@acme.example"
    assert "groundplan policy exception people" in caught.value.hint
    first = policy()
    rules.allowed(first, "assistant", KEY, FAY, "chat", places, 0.0)
    held = dict(rules._decisions)
    rules.allowed(first, "assistant", KEY, FAY, "chat", places, 0.0)
    assert rules._decisions == held and len(held) == 1
    with pytest.raises(Denied):  # one key may act for both
        rules.allowed(first, "assistant", KEY, ANA, "chat", places, 0.0)
    with pytest.raises(Denied):
        rules.allowed(policy(2, members=()), "assistant", KEY, FAY, "chat", places, 0.0)


def test_a_rule_distinguishes_callers() -> None:
    """Applications by their keys, people by the e-mail addresses that they have now."""
    named = BLOCK.split("  forbid")[0].replace("no-training", "named") + "  forbid (principal, action, resource)\n"
    known = f'principal == Application::"{KEY.id}" || principal == Person::"fay@acme.example"'
    rules, places = gate(f"{named}  unless {{ {known} }};\n")
    now, moved = policy(), replace(policy(2), people={"fay@acme.example": ANA, "old@acme.example": FAY})
    for held, key, person, allowed in (
        (now, KEY, "", True),
        (now, replace(KEY, id=str(new_id())), "", False),
        (now, KEY, FAY, True),
        (now, KEY, ANA, False),
        (moved, KEY, ANA, True),
        (moved, KEY, FAY, False),
    ):
        assert rules.decide_tool(held, ToolUser("assistant", key, person), Tool("lookup"), 0.0).allowed == allowed
        if allowed:
            assert rules.allowed(held, "assistant", key, person, "chat", places, 0.0) == places
        else:
            with pytest.raises(Denied):
                rules.allowed(held, "assistant", key, person, "chat", places, 0.0)


def rotated(line: frozenset[str]) -> list[KeyEntry]:
    """The keys of a line of rotations."""
    return [replace(KEY, id=id, family=KEY.id, line=line) for id in sorted(line)]


NAMED = "---\nkind: policy\nname: named\nowner: sam@acme.example\nmode: enforce\n"


@pytest.mark.parametrize("named", [0, 1])
def test_a_rule_that_names_a_key_applies_to_its_predecessors_and_successors(named: int) -> None:
    """Two keys of a line are valid at the same time while the callers change from one to the next."""
    line = frozenset({KEY.id, str(new_id())})
    key = f'principal == Application::"{sorted(line)[named]}"'
    forbidding, places = gate(f"{NAMED}cedar: |\n  forbid ({key}, action, resource);\n")
    only, _ = gate(f"{NAMED}cedar: |\n  forbid (principal, action, resource) unless {{ {key} }};\n")
    permitting, _ = gate(f"{NAMED}closed: true\ncedar: |\n  permit ({key}, action, resource);\n")
    now = policy()
    for each in rotated(line):
        with pytest.raises(Denied):
            forbidding.allowed(now, "assistant", each, "", "chat", places, 0.0)
        user = ToolUser("assistant", each, "")
        assert not forbidding.decide_tool(now, user, Tool("lookup"), 0.0).allowed
        for rules in (only, permitting):
            assert rules.allowed(now, "assistant", each, "", "chat", places, 0.0) == places
            assert rules.decide_tool(now, user, Tool("lookup"), 0.0).allowed
    stranger = replace(KEY, id=str(new_id()))
    assert forbidding.allowed(now, "assistant", stranger, "", "chat", places, 0.0) == places
    for rules in (only, permitting):
        with pytest.raises(Denied):
            rules.allowed(now, "assistant", stranger, "", "chat", places, 0.0)


def test_if_rules_name_several_keys_of_a_line_a_rule_that_forbids_counts_before_one_that_permits() -> None:
    line = frozenset({KEY.id, str(new_id()), str(new_id())})
    ids = sorted(line)
    permit, forbid = (
        f'  {effect} (principal == Application::"{id}", action, resource);\n'
        for effect, id in (("permit", ids[0]), ("forbid", ids[1]))
    )
    now = policy()
    both, places = gate(f"{NAMED}closed: true\ncedar: |\n{permit}{forbid}")
    for each in rotated(line):
        with pytest.raises(Denied) as caught:
            both.allowed(now, "assistant", each, "", "chat", places, 0.0)
        assert caught.value.code == cedar.POLICY_DENIED
    unrelated = forbid.replace(ids[1], str(new_id()))
    permits = permit + permit.replace(ids[0], ids[2]).replace("resource)", 'resource == Workload::"other")')
    rules, _ = gate(f"{NAMED}closed: true\ncedar: |\n{permits}{unrelated}")
    for each in rotated(line):
        assert rules.allowed(now, "assistant", each, "", "chat", places, 0.0) == places


def test_a_rule_in_shadow_that_names_a_key_counts_calls_of_its_successor() -> None:
    text = f'forbid (principal == Application::"{KEY.id}", action, resource);'
    made, at = blueprint_of(WORKSPACE), datetime(2026, 11, 25, tzinfo=UTC)
    calls = [shadow.RecordedCall(new_id(), at, "assistant", "", key, "gpt", "chat") for key in (KEY.id, "next", "none")]
    draft = bp.PolicyRules(name="draft", text=text, owner="")
    (trial,) = shadow.try_policies(made, [draft], calls, {}, {"next": (KEY.id,), KEY.id: (KEY.id,)})
    assert (trial.looked_at, trial.refused) == (3, 2)


def test_a_decision_by_the_clock_is_never_kept() -> None:
    rules, places = gate(HOURS)
    at = datetime(2026, 11, 25, 23, tzinfo=UTC)
    now = policy()
    assert rules.allowed(now, "assistant", KEY, FAY, "chat", places, at.timestamp()) == places
    assert rules._decisions == {}
    with pytest.raises(Denied):
        rules.allowed(now, "assistant", KEY, FAY, "chat", places, (at + timedelta(hours=8)).timestamp())


def test_an_exception_applies_to_its_subject_only_and_expires() -> None:
    rules, places = gate(PEOPLE)
    one = policy(exceptions=(RuleException("people", "assistant", "ana@acme.example", 100.0),))
    assert rules.allowed(one, "assistant", KEY, ANA, "chat", places, 99.0) == places
    with pytest.raises(Denied):
        rules.allowed(one, "assistant", KEY, ANA, "chat", places, 100.0)
    for each in (("people", "other", ""), ("x", "assistant", ""), ("people", "assistant", "fay@acme.example")):
        with pytest.raises(Denied):
            rules.allowed(
                policy(exceptions=(RuleException(*each, 100.0),)), "assistant", KEY, ANA, "chat", places, 99.0
            )
    everybody = policy(exceptions=(RuleException("people", "assistant", "", 100.0),))
    assert rules.allowed(everybody, "assistant", KEY, "", "chat", places, 99.0) == places


def test_a_refused_deployment_is_left_out_and_the_rest_serves() -> None:
    made = blueprint_of(
        WORKSPACE + PEOPLE.replace("user-groups", "provider-terms").split("values:")[0] + "mode: enforce\n"
    )
    bad = msgspec.structs.replace(made.deployments[0], name="bad", terms=None)
    made = msgspec.structs.replace(made, deployments=[bad, *made.deployments])
    rules = Gate(CallRules(made))
    allowed = rules.allowed(policy(), "assistant", KEY, "", "chat", made.deployments, 0.0)
    assert [each.name for each in allowed] == ["gpt"]


def test_without_a_permit_a_closed_company_refuses() -> None:
    closed = "---\nkind: policy\nname: only\nowner: sam@acme.example\nmode: enforce\nclosed: true\ncedar: |\n"
    rules, places = gate(closed + '  permit (principal in Group::"finance", action, resource);\n')
    assert rules.allowed(policy(), "assistant", KEY, FAY, "chat", places, 0.0) == places
    with pytest.raises(Denied) as caught:
        rules.allowed(policy(), "assistant", KEY, ANA, "chat", places, 0.0)
    assert caught.value.code == cedar.NO_GRANT


def test_a_shadow_rule_refuses_nothing_and_records_what_it_would_refuse() -> None:
    made = blueprint_of(
        WORKSPACE + PEOPLE.replace("mode: enforce", "mode: shadow") + HOURS.replace("mode: enforce", "")
    )
    assert gate_of(made) is None
    night = datetime(2026, 11, 25, 23, tzinfo=UTC)
    calls = [
        shadow.RecordedCall(new_id(), night + timedelta(hours=hours), "assistant", who, "k", "gpt", "chat")
        for hours in (0, 10)
        for who in ("fay@acme.example", "ana@acme.example", "")
    ] + [shadow.RecordedCall(new_id(), night, "gone", "", "k", "gpt", "chat")]
    found = shadow.try_policies(made, made.policies, calls, {"fay@acme.example": ("finance",)}, {})
    told = {trial.policy: (trial.looked_at, trial.refused, len(trial.calls)) for trial in found}
    assert told == {"people": (6, 4, 4), "hours": (6, 3, 3)}
    assert found[0].to_json()["by_workload"] == {"assistant": 3} or found[1].to_json()["by_workload"]


# on the way of a call ------------------------------------------------------------------------------------------------


def govern(rig: Rig, *rules: bp.PolicyRules) -> None:
    """Another blueprint for the worker: the same with these rules."""
    live = rig.gateway.live
    assert live.catalog is not None
    made = msgspec.structs.replace(live.catalog.blueprint, policies=list(rules))
    live.catalog = replace(live.catalog, blueprint=made, gate=gate_of(made))  # type: ignore[misc]


async def test_a_call_that_a_rule_refuses_reaches_no_model(tmp_path: Path) -> None:
    chat = 'when { context.endpoint == "chat.completions" };'
    text = f'@id("no") @owner("sam@acme.example") forbid (principal, action, resource) {chat}'
    async with call_rig(tmp_path, ("one",)) as rig:
        assert (await rig.chat()).status == 200
        govern(rig, bp.PolicyRules(name="p", text=text, owner="", enforced=True))
        reply = await rig.chat()
        error = json.loads(reply.body)["error"]
        assert (reply.status, error["code"]) == (403, "policy_denied")
        assert "sam@acme.example" in error["hint"]
        fails = "forbid (principal, action, resource) when { context.lost };"
        govern(rig, bp.PolicyRules(name="p", text=fails, owner="", enforced=True))
        assert json.loads((await rig.chat()).body)["error"]["code"] == "policy_error"
        govern(rig, bp.PolicyRules(name="p", text=text, owner=""))
        assert (await rig.chat()).status == 200
        assert rig.models["one"].counted == 2
