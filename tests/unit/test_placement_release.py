"""The plan enters the blueprint, and the gateway's last word holds whoever edits a fallback."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import Blueprint, Deployment, Rates, Site, Workload
from groundplan.catalog.check import validate, validate_files
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Conflict, Invalid
from groundplan.gateway.policy.catalog import index
from groundplan.placement.guard import is_allowed
from groundplan.placement.model import Demand
from groundplan.placement.plan_process import cached_plan
from groundplan.placement.solve.declared import reasons_against
from groundplan.placement.terms.from_workspace import ObservedFacts
from groundplan.release.compile.placing import Observations, company_facts
from groundplan.release.plan import plan

COMPANY = Path(__file__).parents[2] / "examples" / "company"
TODAY = date(2026, 11, 25)


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    return validate(COMPANY)


def test_each_kind_of_place_is_chosen_for_its_own_reason(workspace: Workspace) -> None:
    placed = {each.workload: each for each in plan(workspace, None, today=TODAY).placements}
    support, finance = placed["support-assistant"], placed["finance-analytics"]
    assert support.primary == "gpt-eu" and "waits for peaks" in support.binding
    assert support.fallbacks[0] == "llama-rack"
    assert finance.primary == "llama-rack" and finance.fallbacks == ["smollm-rack"], "which its floor of quality bars"
    inspector, research = placed["line-inspector"], placed["research-reader"]
    assert [b.site for b in inspector.to_build] == ["line-3"] and inspector.to_build[0].monthly > 0
    assert research.primary == "llama-rack" and research.burst == "gpt-eu" and "peaks burst" in research.binding
    assert support.expects["calls_day"] == 9000 and support.expects["usd_day"] > 1


def test_who_asks_no_chat_model_is_served_without_one() -> None:
    """Where none may serve it, and where none is declared."""
    ear = """kind: company
name: acme
---
kind: site
name: rack
type: private
jurisdiction: EU
---
kind: deployment
name: ear
site: rack
type: transcription
model: acme/ear
url: https://ear.example/v1
price: free
---
kind: workload
name: notes
purpose: Write down what is said
stage: pilot
residency: [EU]
also: [ear]
owners: {business: ana@acme.example}
---
kind: budget
name: notes
covers: workload/notes
limit: 5 USD/day
"""
    chat = "---\nkind: site\nname: far\ntype: cloud\njurisdiction: US\n---\nkind: deployment\nname: gpt\nsite: far\n"
    chat += "model: openai/gpt-4.1-mini\nurl: https://far.example/v1\n"
    for text in (ear, ear + chat):
        found = plan(validate_files({"a.yaml": text}), None, today=TODAY)
        assert not found.refusals and found.blueprint is not None
        (served,) = found.blueprint.workloads
        assert served.deployments == [] and served.also == ["ear"]
        assert found.placements[0].binding == "no chat model is allowed, and none is needed"
    named = (ear + chat).replace("also: [ear]", "also: [ear]\ndeployments: [gpt]").replace("residency: [EU]\n", "")
    assert not plan(validate_files({"a.yaml": named}), None, today=TODAY).refusals
    with pytest.raises(Invalid):
        validate_files({"a.yaml": named.replace("also:", "residency: [EU]\nalso:")})
    with pytest.raises(Conflict, match="nothing to place"):
        cached_plan(company_facts(validate_files({"a.yaml": ear}), (), None, TODAY))


def test_the_same_company_is_solved_once(workspace: Workspace) -> None:
    one = company_facts(workspace, (), None, TODAY)
    two = company_facts(workspace, (), None, TODAY)
    assert cached_plan(one) is cached_plan(two)


def test_rules_that_leave_no_room_are_refused_with_their_place(workspace: Workspace) -> None:
    document, text = workspace.documents["workload", "support-assistant"]
    rule = document.placement.model_copy(update={"order": "planned", "trace": "nowhere.csv"})  # type: ignore[attr-defined]
    changed = document.model_copy(update={"placement": rule})
    documents = {**workspace.documents, ("workload", "support-assistant"): (changed, text)}
    broken = Workspace(workspace.company, documents, workspace.files, workspace.root)
    (problem,) = [p for p in plan(broken, None, today=TODAY).refusals if p.code == "placement_trace"]
    assert problem.where is not None and problem.where.file.endswith("support-assistant.yaml")


def test_a_planned_workload_without_a_place_is_refused_at_its_line(workspace: Workspace) -> None:
    document, text = workspace.documents["workload", "support-assistant"]
    aims = document.objectives.model_copy(update={"first_token": 5})  # type: ignore[attr-defined]
    changed = document.model_copy(update={"objectives": aims})
    documents = {**workspace.documents, ("workload", "support-assistant"): (changed, text)}
    strict = Workspace(workspace.company, documents, workspace.files, workspace.root)
    (problem,) = [p for p in plan(strict, None, today=TODAY).refusals if p.code == "placement_nowhere"]
    assert "first token" in problem.message and problem.where is not None
    assert problem.where.file.endswith("support-assistant.yaml") and problem.where.line > 1
    slow = Observations(times={name: ObservedFacts(60_000.0, 900.0, 0.9) for name in workspace.deployments})
    assert not [p for p in plan(workspace, None, today=TODAY, observed=slow).refusals if p.code == "placement_nowhere"]


def deployed(name: str, site: str) -> Deployment:
    rates = Rates(input=1, output=1)
    return Deployment(name=name, site=site, model=name, upstream_model=name, url="http://127.0.0.1/v1", rates=rates)


def blueprint(workload: Workload, sites: list[Site]) -> Blueprint:
    return Blueprint(
        number=1, company="acme", separation="enforced", sites=sites, sources=[], budgets=[], placements=[],
        deployments=[deployed(f"at-{site.name}", site.name) for site in sites], workloads=[workload],
    )  # fmt: skip


SITES = [
    Site(name="rack", type="private", jurisdiction="EU"),
    Site(name="azure", type="cloud", jurisdiction="SE"),
    Site(name="virginia", type="cloud", jurisdiction="US", holds="restricted"),
]


def test_an_edited_fallback_is_never_asked() -> None:
    restricted = Workload(
        name="finance", purpose="p", stage="production", sensitivity="restricted", audience="employees",
        residency=["EU"], deployments=["at-rack"], budgets=["b"],
    )  # fmt: skip
    edited = msgspec.structs.replace(
        restricted, deployments=["at-rack", "at-virginia", "at-azure"], also=["at-virginia"]
    )
    found = index(blueprint(edited, SITES)).plans["finance"]
    assert [d.name for d in found.deployments_by_name["auto"]] == ["at-rack"]
    assert "at-virginia" not in found.deployments_by_name and "at-azure" not in found.deployments_by_name
    nowhere = msgspec.structs.replace(edited, deployments=["at-virginia"])
    assert index(blueprint(nowhere, SITES)).plans["finance"].deployments_by_name["auto"] == ()


@given(
    sensitivity=st.sampled_from(["public", "internal", "confidential", "restricted"]),
    residency=st.lists(st.sampled_from(["EU", "EEA", "SE", "NO", "US", "CH"]), max_size=2, unique=True),
    jurisdiction=st.sampled_from(["EU", "SE", "NO", "US", "CH", "IS"]),
    kind=st.sampled_from(["cloud", "private", "edge"]),
    holds=st.sampled_from([None, "public", "internal", "confidential", "restricted"]),
)
def test_the_guard_agrees_with_the_judge(
    sensitivity: str, residency: list[str], jurisdiction: str, kind: str, holds: str | None
) -> None:
    site = Site(name="s", type=kind, jurisdiction=jurisdiction, holds=holds)
    workload = Workload(
        name="w", purpose="p", stage="pilot", sensitivity=sensitivity, audience="employees", residency=residency,
        deployments=["d"], budgets=["b"],
    )  # fmt: skip
    judged = not reasons_against(Demand("w", sensitivity, tuple(residency)), site)
    assert is_allowed(workload, deployed("d", "s"), {"s": site}) is judged


def test_a_site_that_is_not_known_takes_only_what_may_go_anywhere() -> None:
    free = Workload(
        name="w", purpose="p", stage="pilot", sensitivity="internal", audience="employees", residency=[],
        deployments=["d"], budgets=["b"],
    )  # fmt: skip
    assert is_allowed(free, deployed("d", "gone"), {})
    assert not is_allowed(msgspec.structs.replace(free, residency=["EU"]), deployed("d", "gone"), {})
    assert not is_allowed(msgspec.structs.replace(free, sensitivity="confidential"), deployed("d", "gone"), {})
