"""What a workload says of routing and of answers by meaning is read, checked and brought to gateways."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundplan.catalog.check import validate
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Invalid
from groundplan.release import choice

COMPANY = Path(__file__).parents[2] / "examples" / "company"


def example() -> Workspace:
    return validate(COMPANY)


def test_the_example_routes_support_by_rules_and_leaves_finance_its_model() -> None:
    workspace = example()
    support, finance = workspace.workloads["support-assistant"], workspace.workloads["finance-analytics"]
    routing = choice.routing(workspace, support)
    assert routing is not None
    assert [(rule.name, rule.use) for rule in routing.rules] == [
        ("at-stake", "gpt-eu-large"),
        ("long-story", "gpt-eu-large"),
    ]
    assert routing.router is None
    semantic = choice.semantic(support.cache)
    assert semantic is not None
    assert (semantic.bound, semantic.check, semantic.evidence) == (0.01, 0.05, 20)
    assert choice.routing(workspace, finance) is None
    assert choice.semantic(finance.cache) is None


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
