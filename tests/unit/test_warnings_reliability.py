"""What a workload declares of several deployments, or of several attempts, that it does not have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.test_cli_main import run
from tests.unit.test_release_plan import BASE, genesis, plan_of

from groundplan.cli.release import plan_text
from groundplan.governance.documents.facts import DocumentInput, facts
from groundplan.maturity.control_facts import _declared_facts

ALL = """\
reliability:
  attempts: 4
  hedge: {after: p90}
  balance: latency
  on_broken_stream: resume
"""
BOTH = BASE.replace("residency: [EU]\n", "")
NAMED = "deployments: [gpt-eu, gpt-us]\n"
FALLBACK = "deployments: [gpt-eu]\nfallbacks: [gpt-us]\n"


def declared(said: str, base: str = BASE) -> str:
    return base.replace("sources: [handbook]\n", f"sources: [handbook]\n{said}")


def told(said: str, base: str = BASE) -> list[str]:
    result = plan_of(declared(said, base))
    assert result.blueprint is not None and not result.refusals
    return [each.message.split(" of ")[0].strip("`") for each in result.warnings]


@pytest.mark.parametrize(
    ("said", "base", "without"),
    [
        (ALL, BASE, ["hedge", "resume", "balance: latency", "attempts: 4"]),
        (ALL, BOTH, []),
        (ALL + NAMED, BOTH, []),
        (ALL + FALLBACK, BOTH, ["balance: latency"]),
        ("limits: {attempts: 2}\n", BASE, ["attempts: 2"]),
        ("limits: {attempts: 1}\n", BASE, []),
        ("reliability: {retries: {same: 2}, on_broken_stream: resume, attempts: 3}\n", BASE, []),
        ("reliability: {retries: {same: 2}, hedge: {after: 1s}, attempts: 1}\n", BOTH, ["hedge", "same: 2"]),
        ("reliability: {priority: high, deadline: 9s}\n", BASE, []),
        ("review: {share: 20%}\n", BASE, ["share: 20%"]),
        ("review: {share: 20%, before_sending: true}\n", BASE, []),
    ],
)
def test_what_has_no_effect_where_one_deployment_may_be_asked_is_told(said: str, base: str, without: list[str]) -> None:
    assert told(said, base) == without


@pytest.mark.parametrize(("declared_as", "looked_at"), [("share: 20%", 0.0), ("before_sending: true", 1.0)])
def test_nobody_is_said_to_look_at_what_nobody_is_shown(declared_as: str, looked_at: float) -> None:
    made = genesis(declared(f"review: {{{declared_as}}}\n"))
    said = facts(DocumentInput(workspace=made.workspace, blueprint=made.blueprint, workload="assistant"))["oversight"]
    assert any("looked at by a person" in each.text for each in said) is bool(looked_at)
    (served,) = made.blueprint.workloads
    assert _declared_facts(made.workspace.workloads["assistant"], served)["reviewed_share"] == looked_at


def test_a_second_deployment_of_embeddings_is_somebody_to_ask() -> None:
    more = "".join(
        f"---\nkind: deployment\nname: e{n}\nsite: azure-sweden\nmodel: openai/text-embedding-3-small\n"
        f"type: embeddings\nurl: https://acme.example/e{n}\n"
        for n in (1, 2)
    )
    assert told("embeddings: [e1, e2]\nreliability: {hedge: {after: 1s}, balance: weighted}\n", BASE + more) == [
        "balance: weighted"
    ]
    assert told("embeddings: [e1]\nreliability: {hedge: {after: 1s}}\n", BASE + more) == ["hedge", "type"]


def test_plan_and_check_say_it_with_its_place_and_what_to_do(tmp_path: Path) -> None:
    text = declared(ALL)
    line = text.split("\n").index("  hedge: {after: p90}") + 1
    shown = plan_text(plan_of(text).to_json())
    first = (
        f"! a.yaml:{line}:3: `hedge` of assistant has no effect: gpt-eu is the only deployment that it would use for"
        " that [no_effect]"
    )
    hint = "    Name another deployment in `deployments` or `fallbacks` that its rules allow, or leave `hedge` out."
    assert f"{first}\n{hint}" in shown
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "handbook").mkdir()
    done = run("check", str(tmp_path))
    assert done.returncode == 0 and f"{first}\n{hint}" in done.stdout
    warnings = json.loads(run("check", str(tmp_path), "--json").stdout)["warnings"]
    assert [each["code"] for each in warnings] == ["no_effect"] * 4


@pytest.mark.parametrize(
    ("said", "first_token", "told_so"),
    [
        ("reliability: {deadline: 30s}\n", "30s", True),
        ("limits: {deadline: 9s}\n", "10s", True),
        ("reliability: {deadline: 31s}\n", "30s", False),
        ("reliability: {deadline: 30s, hedge: {after: p95}}\n", "30s", False),
        ("reliability: {deadline: 30s, attempts: 1}\n", "30s", False),
        ("", "30s", False),
    ],
)
def test_a_deadline_that_leaves_nobody_time_to_take_over_is_told(said: str, first_token: str, told_so: bool) -> None:
    """A deployment that is reached and says nothing has all of a call's time then."""
    patient = BOTH.replace("name: gpt-eu\n", f"name: gpt-eu\ntimeouts: {{first_token: {first_token}}}\n")
    result = plan_of(declared(said + FALLBACK, patient))
    found = [each for each in result.warnings if each.code == "no_time"]
    assert bool(found) == told_so and (not found or "gpt-eu is silent" in found[0].message)
    assert result.blueprint is not None
    times = {each.name: each.first_token_declared for each in result.blueprint.deployments}
    assert times == {"gpt-eu": True, "gpt-us": False}, "which is kept, also where it is as long as it is unless said"
