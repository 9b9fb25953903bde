"""Promise 6: every placement says why, and no rule of residency or sensitivity is ever broken.

The example company is placed; each decision has its cost by term, what binds, its runner-up and a proven gap. Whoever
then edits the workspace or the blueprint against the rules is refused by `plan`, by the verifier and by the gateway.
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


def files() -> dict[str, str]:
    found = COMPANY.rglob("*.yaml")
    return {path.relative_to(COMPANY).as_posix(): path.read_text(encoding="utf-8") for path in found}


@pytest.fixture(scope="module")
def placed() -> CompanyPlan:
    workspace = load_files(files())
    draft = compile_draft(workspace, None, declared_caps(workspace), declared_owners(workspace), today=TODAY)
    return cached_plan(company_facts(workspace, draft.blueprint.deployments, None, TODAY))


def test_every_placement_says_why(placed: CompanyPlan) -> None:
    assert set(placed.placements) == set(placed.company.workloads) and placed.gap is not None and placed.gap < 0.01
    for name in placed.placements:
        found = explain_placement(placed, name)
        told = to_json(found, list(explanation_sentences(found)))
        assert told["terms"] and sum(told["terms"].values()) == pytest.approx(told["usd_month"], abs=0.05)
        assert told["binding"] and told["confidence"] in ("high", "medium", "low")
        allowed = sum(c.is_allowed for c in placed.framed.candidates.by_workload[name])
        assert (told["runner_up"] is None) == (allowed == 1) or not placed.company.workloads[name].is_planned
        assert any(line.startswith("What decides") for line in told["words"])


def meaning(taken: OptionMeaning) -> tuple[object, ...]:
    return taken.role, taken.level, taken.candidate and taken.candidate.config, taken.pool, taken.amount


def test_the_verifier_finds_a_plan_that_breaks_a_rule(placed: CompanyPlan) -> None:
    assert verify(placed.framed.problem, placed.solution).is_verified
    whole = frame_problem(
        placed.framed.candidates
    )  # with what rules forbid, which is no option where anything else is allowed
    problem = whole.problem
    options = {
        (part, meaning(whole.options[option])): option for option, part in enumerate(problem.options.part.tolist())
    }
    taken = [meaning(placed.framed.options[option]) for option in placed.solution.choice]
    choice = np.array([options[part, each] for part, each in enumerate(taken)], dtype=placed.solution.choice.dtype)
    solution = replace(placed.solution, choice=choice)
    found = {each.kind for each in verify(problem, solution).violations}
    assert found <= {"bound"}, "what is left out changes no plan, though its proof is of other rows"
    finance = problem.workloads.index("finance-analytics")
    part = int(np.flatnonzero(problem.parts.workload == finance)[0])
    forbidden = next(int(o) for o in np.flatnonzero(problem.options.part == part) if not problem.allowed[o])
    choice = solution.choice.copy()
    choice[part] = forbidden
    broken = verify(problem, replace(solution, choice=choice))
    assert not broken.is_verified and any(each.kind == "excluded" for each in broken.violations)


def test_an_edited_fallback_is_refused_by_plan_verifier_and_gateway() -> None:
    edited = files()
    path = "workloads/staff-assistant.yaml"
    edited[path] = edited[path].replace("fallbacks: [llama-rack", "fallbacks: [gpt-us, llama-rack")
    refused = plan(load_files(edited), None, today=TODAY)
    assert refused.blueprint is None and any("gpt-us" in problem.message for problem in refused.refusals)

    served = plan(load_files(files()), None, today=TODAY).blueprint
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
