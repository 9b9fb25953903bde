"""Cedar policies as they are decided here: errors deny, slices change nothing, denials name the rule and its owner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from groundplan.cli.policy import app
from groundplan.core.errors import Invalid
from groundplan.governance.policy import cedar, cedar_tests
from groundplan.governance.policy.partial_evaluation import Facts
from groundplan.governance.policy.text import statements

WORKLOAD: dict[str, str | int | bool] = {
    "stage": "production",
    "sensitivity": "restricted",
    "calls": 3,
    "public": False,
}
ENTITIES: list[dict[str, Any]] = [
    {"uid": {"type": "Workload", "id": "w"}, "attrs": WORKLOAD, "parents": [{"type": "Team", "id": "t"}]},
    {"uid": {"type": "Person", "id": "p"}, "attrs": {}, "parents": [{"type": "Group", "id": "g"}]},
]
FACTS = Facts(
    principal_types=frozenset({"Person"}),
    action=("Action", "call"),
    resource=("Workload", "w"),
    resources_above=frozenset({("Team", "t")}),
    attributes=WORKLOAD,
)


def ask(context: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "principal": {"type": "Person", "id": "p"},
        "action": {"type": "Action", "id": "call"},
        "resource": {"type": "Workload", "id": "w"},
        "context": json.dumps(context or {}),
    }


def rules(text: str, **more: Any) -> cedar.Ruleset:
    return cedar.Ruleset.of([cedar.Source("house", text, **more)])


def verdict(text: str, context: dict[str, Any] | None = None) -> cedar.Verdict:
    return rules(text).full_slice().decide(ask(context), cedar.parse_entities(ENTITIES))


def test_an_error_of_any_policy_denies() -> None:
    found = verdict("permit(principal, action, resource); forbid(principal, action, resource) when { context.lost };")
    assert (found.allowed, found.code) == (False, "policy_error")
    assert "lost" in found.errors[0]
    assert "lost" in cedar.policy_denial(found, "this call").message


def test_a_request_that_cannot_be_read_is_denied() -> None:
    slice_ = rules("permit(principal, action, resource);").full_slice()
    bad = ask() | {"principal": {"type": "not a type", "id": "p"}}
    assert not slice_.decide(bad, cedar.parse_entities(ENTITIES)).allowed
    assert not slice_.decide(ask() | {"context": "{"}, cedar.parse_entities(ENTITIES)).allowed


def test_a_missing_permit_is_distinguished_from_a_forbid() -> None:
    assert verdict("").code == "no_grant"
    text = '@id("no-night") @owner("sam@acme.example") @hint("Wait.") forbid(principal, action, resource);'
    found = verdict("permit(principal, action, resource);" + text)
    refusal = cedar.policy_denial(found, "this call")
    assert refusal.code == "policy_denied"
    assert refusal.details == {"rule": "no-night", "owner": "sam@acme.example", "rules": ["no-night"]}
    assert refusal.hint.startswith("Wait. Ask sam@acme.example")
    assert verdict("permit(principal, action, resource);").allowed


def test_every_unreadable_policy_is_reported_with_its_line() -> None:
    text = '// first\npermit(principal, action, resource);\n@hint("a; b")\nforbid(principal);\n\npermit(;'
    with pytest.raises(Invalid) as caught:
        rules(text, file="rules.yaml", line=10)
    places = [caught.value.where, *(problem.where for problem in caught.value.problems)]
    assert [str(place) for place in places] == ["rules.yaml:12:1", "rules.yaml:15:1"]


def test_a_policy_with_a_slot_is_refused() -> None:
    with pytest.raises(Invalid, match="slot"):
        rules("permit(principal == ?principal, action, resource);")


def test_statements_are_split_whatever_is_in_strings_and_comments() -> None:
    text = 'a "x;\\";" ; // b; c\n d;e'
    assert [(each.text, each.line) for each in statements(text)] == [('a "x;\\";" ;', 1), ("d;", 2), ("e", 2)]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('forbid(principal, action, resource == Workload::"w");', 1),
        ('forbid(principal, action, resource == Workload::"other");', 0),
        ('forbid(principal, action, resource in Team::"t");', 1),
        ('forbid(principal, action, resource in Team::"other");', 0),
        ('forbid(principal, action == Action::"use_tool", resource);', 0),
        ('forbid(principal, action in [Action::"use_tool", Action::"call"], resource);', 1),
        ("forbid(principal is Application, action, resource);", 0),
        ("forbid(principal, action, resource is Tool);", 0),
        ('forbid(principal, action, resource) when { resource.stage == "pilot" && context.x };', 0),
        ('forbid(principal, action, resource) when { context.x && resource.stage == "pilot" };', 1),
        ('forbid(principal, action, resource) unless { resource.stage == "production" };', 0),
        ("forbid(principal, action, resource) when { resource.calls == true };", 0),
        ("forbid(principal, action, resource) when { resource.missing == 1 };", 1),
        ("forbid(principal, action, resource) when { resource.public };", 0),
        ("forbid(principal, action, resource) when { !resource.public || context.x };", 1),
    ],
)
def test_policies_that_cannot_matter_are_left_out(text: str, left: int) -> None:
    assert len(rules(text).narrow(FACTS).rules) == left


_ATOMS = st.sampled_from(
    [
        'resource.stage == "production"', 'resource.stage != "production"', "resource.public", "resource.calls == 3",
        "resource.calls", "resource.nothing", "context.known == 1", "context.known == 2", "context.lost == 1",
        "resource.calls == true", "true", "false", 'resource.sensitivity == "restricted"',
    ]
)  # fmt: skip
_CONDITIONS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda text: f"!({text})"),
    ),
    max_leaves=5,
)
_SCOPES = st.sampled_from(
    [
        "principal, action, resource", 'principal, action == Action::"call", resource',
        'principal, action, resource in Team::"t"', 'principal, action, resource in Team::"u"',
        'principal, action, resource == Workload::"v"', "principal is Application, action, resource",
        'principal in Group::"g", action, resource is Workload', "principal, action, resource is Tool",
        'principal, action, resource is Workload in Team::"u"', 'principal == Application::"k", action, resource',
        'principal, action in [Action::"call"], resource',
    ]
)  # fmt: skip
_POLICIES = st.lists(
    st.tuples(
        st.sampled_from(["permit", "forbid"]),
        _SCOPES,
        st.lists(st.tuples(st.sampled_from(["when", "unless"]), _CONDITIONS), max_size=2),
    ),
    max_size=6,
).map(
    lambda policies: "\n".join(
        f"{effect}({scope})" + "".join(f" {kind} {{ {body} }}" for kind, body in conditions) + ";"
        for effect, scope, conditions in policies
    )
)


@settings(max_examples=100, deadline=None)
@given(text=_POLICIES)
def test_a_policy_slice_decides_exactly_as_the_whole_set(text: str) -> None:
    known = cedar.parse_entities(ENTITIES)
    whole = rules(text).full_slice().decide(ask({"known": 1}), known)
    part = rules(text).narrow(FACTS).decide(ask({"known": 1}), known)
    assert part.allowed == whole.allowed
    assert part.code == whole.code
    assert {rule.key for rule in part.rules} == {rule.key for rule in whole.rules}
    assert len(part.errors) == len(whole.errors)


def _folder(tmp_path: Path, requests: list[dict[str, Any]], policies: str, nested: bool = True) -> Path:
    base = tmp_path / "tests" / "small" if nested else tmp_path
    base.mkdir(parents=True, exist_ok=True)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "world.cedarschema").write_text(
        "entity Team; entity Workload in [Team] { public: Bool }; entity Person;"
        'action read; action call in [Action::"read"] appliesTo { principal: [Person], resource: [Workload],'
        " context: { cost?: decimal } };"
    )
    (tmp_path / "data" / "entities.json").write_text(
        json.dumps(
            [
                {
                    "uid": {"type": "Workload", "id": "w"},
                    "attrs": {"public": True},
                    "parents": [{"type": "Team", "id": "t"}],
                }
            ]
        )
    )
    (base / "policies.cedar").write_text(policies)
    test = {
        "policies": "tests/small/policies.cedar" if nested else "policies.cedar",
        "entities": "data/entities.json",
        "schema": "data/world.cedarschema",
        "shouldValidate": True,
        "requests": requests,
    }
    (base / "1.json").write_text(json.dumps(test))
    return tmp_path


def _request(decision: str, **more: Any) -> dict[str, Any]:
    return {
        "principal": {"type": "Person", "id": "p"}, "action": {"type": "Action", "id": "call"},
        "resource": {"type": "Workload", "id": "w"}, "context": {}, "decision": decision,
    } | more  # fmt: skip


@pytest.mark.parametrize("nested", [True, False])
def test_a_folder_of_cedar_tests_is_decided(tmp_path: Path, nested: bool) -> None:
    policies = (
        'permit(principal, action in Action::"read", resource in Team::"t") when { resource.public };'
        'forbid(principal, action, resource) when { context has cost && context.cost.greaterThan(decimal("1.5")) };'
    )
    requests = [
        _request("Allow"), _request("deny", context={"cost": "2.0"}), _request("allow", context={"cost": "1.0"}),
        _request("deny", principal='Person::"x"', resource='Workload::"unknown"'),
    ]  # fmt: skip
    outcome = cedar_tests.run_tests(_folder(tmp_path, requests, policies, nested))
    assert (outcome.requests, outcome.wrong, outcome.invalid) == (4, [], [])


def test_the_command_lists_differing_decisions(tmp_path: Path) -> None:
    made = _folder(tmp_path, [_request("allow"), _request("deny")], "permit(principal, action, resource);")
    result = CliRunner().invoke(app, ["test", "--cedar", str(made), "--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (told["requests"], told["wrong"]) == (2, 1)
    assert told["failures"][0]["test"] == "tests/small/1.json"


def test_files_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    made = _folder(tmp_path / "inside", [_request("deny")], "")
    (tmp_path / "outside.cedar").write_text("permit(principal, action, resource);")
    (made / "tests" / "small" / "1.json").write_text(
        json.dumps({"policies": "../outside.cedar", "entities": [], "requests": [_request("allow")]})
    )
    with pytest.raises(Invalid, match="there is no file"):
        cedar_tests.run_tests(made)
    with pytest.raises(Invalid, match="no Cedar test"):
        cedar_tests.run_tests(tmp_path / "inside" / "data")
