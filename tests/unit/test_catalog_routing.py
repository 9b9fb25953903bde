"""What a workload says of routing and of answers by meaning is read, checked and brought to gateways."""

from __future__ import annotations

import re
import shutil
from math import inf
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import blueprint, deployment, workload

from groundplan.blueprint.model import Routing
from groundplan.catalog.check import validate
from groundplan.catalog.schema import json_schema
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Invalid
from groundplan.economics.semantic.equivalence import load_acceptance
from groundplan.release.compile import routing
from groundplan.release.units import workload_digest

COMPANY = Path(__file__).parents[2] / "examples" / "company"


def example() -> Workspace:
    return validate(COMPANY)


def test_the_example_routes_support_by_rules_and_leaves_finance_its_model() -> None:
    workspace = example()
    support, finance = workspace.workloads["support-assistant"], workspace.workloads["finance-analytics"]
    asked = routing.compile_routing(workspace, support, support.deployments)
    assert asked is not None
    assert [(rule.name, rule.use) for rule in asked.rules] == [
        ("at-stake", "gpt-eu-large"),
        ("long-story", "gpt-eu-large"),
    ]
    assert asked.router is None
    assert asked.cascade is not None
    assert (asked.cascade.first, asked.cascade.grounded) == ("gpt-eu", True)
    semantic = routing.compile_semantic(support.cache)
    assert semantic is not None
    assert (semantic.bound, semantic.check, semantic.evidence) == (0.01, 0.05, 20)
    kept = routing.compile_routing(workspace, finance, finance.deployments)
    assert kept is not None and kept.router is None and not kept.rules
    assert kept.barred == {"smollm-rack": "its arithmetic is 31%, below the floor of 98%"}
    assert asked.barred == {}, "both models of support are above its floors of accuracy and tone"
    assert support.experiment is not None and support.experiment.candidate == "llama-rack"
    assert routing.compile_semantic(finance.cache) is None


@pytest.mark.parametrize(
    ("was", "now", "code"),
    [
        ("use: gpt-eu-large, longer: 1200", "use: nowhere, longer: 1200", "route_unknown"),
        ("use: gpt-eu-large, longer: 1200", "use: smollm-rack, longer: 1200", "route_outside"),
        ("use: gpt-eu-large, longer: 1200", "use: gpt-eu-large", "route_always"),
        ("  by: rules", "  by: learned", "route_router"),
        ("cache: {answers: exact, ttl: 4h,", "cache: {answers: 'off', ttl: 4h,", "cache_semantic"),
        ("wrong_at_most: 1%", "wrong_at_most: 40%", "too_large"),
    ],
)
def test_what_cannot_work_is_told_with_its_place(tmp_path: Path, was: str, now: str, code: str) -> None:
    for file in COMPANY.rglob("*"):
        if file.is_file():
            target = tmp_path / file.relative_to(COMPANY)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    path = tmp_path / "workloads/support-assistant.yaml"
    text = path.read_text()
    assert was in text
    path.write_text(text.replace(was, now))
    with pytest.raises(Invalid) as told:
        validate(tmp_path)
    found = {problem.code for problem in told.value.problems} | {told.value.code}
    assert code in found or (code == "too_large" and "wrong_at_most" in told.value.message)


@pytest.mark.parametrize(("bound", "refused"), [("0.5%", True), ("0.99%", True), ("1%", False), ("1.5%", False),
                                                ("5%", False), ("5.1%", True)])  # fmt: skip
def test_a_bound_that_nothing_is_calibrated_for_is_refused_at_its_line(
    tmp_path: Path, bound: str, refused: bool
) -> None:
    shutil.copytree(COMPANY, tmp_path / "company")
    path = tmp_path / "company/workloads/support-assistant.yaml"
    lines = path.read_text().replace("wrong_at_most: 1%", f"wrong_at_most: {bound}").splitlines()
    path.write_text("\n".join(lines))
    line = next(number for number, each in enumerate(lines, 1) if "wrong_at_most" in each)
    rule = json_schema()["$defs"]["SemanticRule"]["properties"]["wrong_at_most"]
    assert bool(re.search(rule["pattern"], bound)) is not refused
    if not refused:
        semantic = validate(tmp_path / "company").workloads["support-assistant"].cache.semantic
        assert semantic is not None and load_acceptance().threshold(semantic.wrong_at_most) < inf
        return
    with pytest.raises(Invalid) as told:
        validate(tmp_path / "company")
    (problem,) = told.value.problems
    assert problem.where is not None and problem.where.line == line
    assert str(problem.where.file).endswith("support-assistant.yaml")
    assert "from 1% to 5%" in str(problem)


CASCADE = "{first: gpt-eu, checks: {grounded: true, judge: {deployment: gpt-eu-large, question: Is it right?}}}"


def changed_example(folder: Path, added: str, by: str = "rules", **files: tuple[str, str]) -> Workspace:
    """The example with more under the routing of support, and with text of other files replaced."""
    for file in COMPANY.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(COMPANY)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    if "more" in files:  # which says of these models what the example says otherwise
        sites = folder / "sites.yaml"
        kept = [each for each in sites.read_text().split("---\n") if "\nname: openai/" not in each]
        sites.write_text("---\n".join(kept))
    path = folder / "workloads/support-assistant.yaml"
    lines = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith("  cascade: ")]
    path.write_text("".join(lines).replace("  by: rules\n", f"  by: {by}\n{added}"))
    (folder / "more.yaml").write_text(files.get("more", ("", ""))[0])
    return validate(folder)


def test_a_cascade_and_limits_reach_the_gateway(tmp_path: Path) -> None:
    more = "  router: support@1\n  within: 2s\n  second: 0.001 USD\n  sticky: priced\n"
    workspace = changed_example(tmp_path, f"  cascade: {CASCADE}\n{more}", by="learned")
    support = workspace.workloads["support-assistant"]
    found = routing.compile_routing(workspace, support, support.deployments)
    assert found is not None and found.cascade is not None and found.cascade.judge is not None
    assert (found.cascade.first, found.cascade.grounded, found.cascade.give) == ("gpt-eu", True, False)
    assert (found.cascade.judge.deployment, found.cascade.judge.refuse_on) == ("gpt-eu-large", "no")
    assert (found.within_ms, found.second, found.sticky, found.priced) == (2000, 10**9, True, True)


@pytest.mark.parametrize(
    ("added", "code"),
    [
        ("  cascade: {first: nowhere, checks: {grounded: true}}\n", "route_unknown"),
        ("  cascade: {first: smollm-rack, checks: {grounded: true}}\n", "route_outside"),
        ("  cascade: {first: gpt-eu, checks: {}}\n", "cascade_unchecked"),
        ("  cascade: {first: gpt-eu, checks: {schema: true}}\n", "cascade_schema"),
    ],
)
def test_a_cascade_that_cannot_work_is_told(tmp_path: Path, added: str, code: str) -> None:
    with pytest.raises(Invalid) as told:
        changed_example(tmp_path, added)
    assert code in {problem.code for problem in told.value.problems} | {told.value.code}


def test_floors_by_dimension_and_a_ceiling_of_risk_bar_deployments(tmp_path: Path) -> None:
    model = "kind: model\nname: {}\nquality: [{{task: tone, score: {}%}}, {{task: accuracy, score: 97%}}]\nrisk: {}\n"
    place = example().deployments
    small, large = (place[name].model for name in ("gpt-eu", "gpt-eu-large"))
    text = "---\n".join([model.format(small, 80, "low"), model.format(large, 95, "high")])
    workspace = changed_example(tmp_path, "  risk: high\n", more=(text, ""))
    support = workspace.workloads["support-assistant"]
    names = ["gpt-eu", "gpt-eu-large", "llama-rack"]
    found = routing.compile_routing(workspace, support, names)
    assert found is not None
    assert found.barred["gpt-eu"] == "its tone is 80%, below the floor of 90%"
    assert "gpt-eu-large" not in found.barred
    assert "not assessed" in found.barred["llama-rack"]
    assert found.quality["gpt-eu-large"] == {"accuracy": 0.97, "tone": 0.95}
    stricter = workspace.workloads["support-assistant"].model_copy(
        update={"routing": support.routing.model_copy(update={"risk": "medium"})}
    )
    again = routing.compile_routing(workspace, stricter, names)
    assert again is not None and "above medium" in again.barred["gpt-eu-large"]


def test_another_router_and_other_bytes_of_the_same_need_another_approval() -> None:
    def approved(**said: Any) -> str:
        one = blueprint(1, [deployment("one", 1)], [workload("w", ["one"], routing=Routing(**said))])
        return workload_digest(one, one.workloads[0])

    now = approved(router="support@3", digest="a" * 64)
    assert approved(router="support@3", digest="a" * 64) == now
    assert len({now, approved(router="support@4", digest="a" * 64), approved(router="support@3", digest="b" * 64)}) == 3


@pytest.mark.parametrize(
    ("by", "added"),
    [
        ("order", ""),
        ("rules", "  router: support@3\n"),
        ("rules", "  keep: 98%\n"),
        ("rules", "  floor: 60%\n"),
        ("rules", "  second: 0.001 USD\n"),
        ("rules", "  sticky: priced\n"),
    ],
)
def test_a_setting_without_effect_is_told(tmp_path: Path, by: str, added: str) -> None:
    with pytest.raises(Invalid) as told:
        changed_example(tmp_path, added, by=by)
    assert "route_unused" in {problem.code for problem in told.value.problems} | {told.value.code}


def test_rules_choose_only_where_rules_are_said_to() -> None:
    workspace = example()
    support = workspace.workloads["support-assistant"]
    ordered = support.routing.model_copy(update={"by": "order", "within": 2000})
    found = routing.compile_routing(workspace, support.model_copy(update={"routing": ordered}), support.deployments)
    assert found is not None and found.rules == [] and found.within_ms == 2000
