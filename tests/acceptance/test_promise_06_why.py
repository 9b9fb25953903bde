"""Promise 6: every placement says why, and no rule of residency or sensitivity is ever broken.

The example company is placed; each decision has its cost by term, its binding constraint, its runner-up and a proven
gap. An edit of the workspace or of the blueprint against the rules is refused by `plan`, the verifier and the gateway.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest

from groundplan.catalog.loader import load_files
from groundplan.gateway.policy.catalog import index
from groundplan.placement.company import OptionMeaning, frame_problem
from groundplan.placement.explain.why import explain_placement, to_json
from groundplan.placement.explain.words import explanation_sentences
from groundplan.placement.plan_process import cached_plan
from groundplan.placement.planner import CompanyPlan
from groundplan.placement.solve import verify_blueprint
from groundplan.placement.verify.plan import verify
from groundplan.release.compile.draft import compile_draft, declared_caps, declared_owners
from groundplan.release.compile.placing import company_facts
from groundplan.release.plan import plan

COMPANY = Path(__file__).parents[2] / "examples" / "company"
TODAY = date(2026, 11, 25)


def example_files() -> dict[str, str]:
    paths = COMPANY.rglob("*.yaml")
    return {path.relative_to(COMPANY).as_posix(): path.read_text(encoding="utf-8") for path in paths}


@pytest.fixture(scope="module")
def company_plan() -> CompanyPlan:
    workspace = load_files(example_files())
    draft = compile_draft(workspace, None, declared_caps(workspace), declared_owners(workspace), today=TODAY)
    return cached_plan(company_facts(workspace, draft.blueprint.deployments, None, TODAY))


def test_every_placement_says_why(company_plan: CompanyPlan) -> None:
    assert (
        set(company_plan.placements) == set(company_plan.company.workloads)
        and company_plan.gap is not None
        and company_plan.gap < 0.01
    )
    for name in company_plan.placements:
        explanation = explain_placement(company_plan, name)
        answer = to_json(explanation, list(explanation_sentences(explanation)))
        assert answer["terms"] and sum(answer["terms"].values()) == pytest.approx(answer["usd_month"], abs=0.05)
        assert answer["binding"] and answer["confidence"] in ("high", "medium", "low")
        allowed = sum(c.is_allowed for c in company_plan.framed.candidates.by_workload[name])
        assert (answer["runner_up"] is None) == (allowed == 1) or not company_plan.company.workloads[name].is_planned
        assert any(line.startswith("What decides") for line in answer["words"])


def option_identity(meaning: OptionMeaning) -> tuple[object, ...]:
    return meaning.role, meaning.level, meaning.candidate and meaning.candidate.config, meaning.pool, meaning.amount


def test_the_verifier_finds_a_placement_that_a_rule_forbids(company_plan: CompanyPlan) -> None:
    assert verify(company_plan.framed.problem, company_plan.solution).is_verified
    # also with forbidden options, which are left out of a problem where anything else is allowed
    full_problem = frame_problem(company_plan.framed.candidates)
    problem = full_problem.problem
    options = {
        (part, option_identity(full_problem.options[option])): option
        for option, part in enumerate(problem.options.part.tolist())
    }
    placed_options = [option_identity(company_plan.framed.options[option]) for option in company_plan.solution.choice]
    choice = np.array(
        [options[part, each] for part, each in enumerate(placed_options)], dtype=company_plan.solution.choice.dtype
    )
    solution = replace(company_plan.solution, choice=choice)
    violation_kinds = {each.kind for each in verify(problem, solution).violations}
    assert violation_kinds <= {"bound"}, (
        "leaving out forbidden options changes no plan, though its proof has other rows"
    )
    finance = problem.workloads.index("finance-analytics")
    part = int(np.flatnonzero(problem.parts.workload == finance)[0])
    forbidden = next(int(o) for o in np.flatnonzero(problem.options.part == part) if not problem.allowed[o])
    choice = solution.choice.copy()
    choice[part] = forbidden
    broken = verify(problem, replace(solution, choice=choice))
    assert not broken.is_verified and any(each.kind == "excluded" for each in broken.violations)


def test_an_edited_fallback_is_refused_by_plan_verifier_and_gateway() -> None:
    edited = example_files()
    path = "workloads/staff-assistant.yaml"
    edited[path] = edited[path].replace("fallbacks: [llama-rack", "fallbacks: [gpt-us, llama-rack")
    refused = plan(load_files(edited), None, today=TODAY)
    assert refused.blueprint is None and any("gpt-us" in problem.message for problem in refused.refusals)

    served = plan(load_files(example_files()), None, today=TODAY).blueprint
    assert served is not None and not verify_blueprint(served)
    tampered = msgspec.structs.replace(
        served,
        workloads=[
            msgspec.structs.replace(item, deployments=[*item.deployments, "gpt-us"])
            if item.name == "staff-assistant"
            else item
            for item in served.workloads
        ],
    )
    assert any("outside EU" in problem.message for problem in verify_blueprint(tampered))
    names = [d.name for d in index(tampered).plans["staff-assistant"].deployments_by_name["auto"]]
    assert "gpt-us" not in names and names[0] == "gpt-eu"
