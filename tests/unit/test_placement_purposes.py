"""A site or a model that says what it is for serves workloads of these purposes only: in what is declared, in the plan,
in both verifiers, in the blueprint and at the gateway, each by its own reading, and each says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import placement_rig as rig
from tests.unit.test_placement_inputs import MODEL, OWN, facts
from tests.unit.test_placement_release import blueprint
from tests.unit.test_release_plan import BASE

from groundplan.blueprint.model import Deployment, Needs, Rates, Site, Workload
from groundplan.catalog.check import check
from groundplan.catalog.loader import load_files
from groundplan.gateway.policy.catalog import index
from groundplan.placement.explain.why import binding_constraint, excluded_sites
from groundplan.placement.guard import is_allowed
from groundplan.placement.model import Demand
from groundplan.placement.planner import build_claim, plan_company
from groundplan.placement.solve import verify_blueprint
from groundplan.placement.solve.declared import place_workload, reasons_against
from groundplan.placement.terms.candidates import build_candidates
from groundplan.placement.verify.company import find_violations
from groundplan.release.plan import plan

TODAY = date(2026, 11, 25)
SITE = "kind: site\nname: azure-sweden\n"
NAMED = "needs: {purposes: [support]}\nsources: [handbook]\ndeployments: [gpt-eu]\n"


def declared(purposes: str, workload: str = NAMED) -> str:
    text = BASE.replace(SITE, f"{SITE}purposes: [{purposes}]\n")
    assert text != BASE
    return text.replace("sources: [handbook]\n", workload)


def test_a_deployment_at_a_site_for_another_purpose_is_refused_at_its_line() -> None:
    assert not [p for p in check(load_files({"a.yaml": declared("support, hiring")})) if "purpose" in p.code]
    text = declared("hiring")
    (problem,) = [p for p in check(load_files({"a.yaml": text})) if p.code == "place_not_for_purpose"]
    assert problem.message.startswith("site azure-sweden may be used for hiring only, assistant is for support")
    assert problem.where is not None
    assert text.splitlines()[problem.where.line - 1] == "deployments: [gpt-eu]"
    assert f"(a.yaml:{text[: text.index('purposes: [hiring]')].count(chr(10)) + 1}:" in problem.hint
    (told,) = [p for p in plan(load_files({"a.yaml": text}), None, today=TODAY).refusals if "purpose" in p.code]
    assert told.where == problem.where, "told once, with its line"
    unnamed = check(load_files({"a.yaml": declared("hiring", "sources: [handbook]\ndeployments: [gpt-eu]\n")}))
    assert any("no purpose that it names" in each.message for each in unnamed)


def test_a_planned_workload_goes_elsewhere_and_says_why() -> None:
    company = facts(workload="needs: {purposes: [support]}", hosting=OWN, more=f"{MODEL}purposes: [hiring]\n")
    (model,) = {
        each for c in build_candidates(company).by_workload["assistant"] for each in c.rules if each.startswith("the m")
    }
    assert model.startswith("the model is for hiring only, not for support (a.yaml:")
    for name in ("cloud", "far"):
        sites = {
            each: rig.site(each, purposes=frozenset({"hiring"} if each == name else ())) for each in ("cloud", "far")
        }
        deployments = {f"at-{each}": rig.deployment(f"at-{each}", each) for each in sites}
        chat = rig.workload("chat", purposes=("support",))
        told = rig.company(chat, sites=sites, deployments=deployments, models={}, where={f"site/{name}": "s.yaml:3:1"})
        found = plan_company(told)
        (other,) = {*sites} - {name}
        assert found.placements["chat"].primary.site == other
        candidates = found.framed.candidates.by_workload["chat"]
        rule = "the site is for hiring only, not for support (s.yaml:3:1)"
        assert excluded_sites(candidates) == ((name, (rule,)),)
        assert binding_constraint(found, found.placements["chat"], candidates) == f"only one is allowed: {rule}"


def test_an_order_that_is_not_planned_names_it_too() -> None:
    sites = {"a": Site(name="a", type="cloud", jurisdiction="EU", purposes=["hiring"]),
             "b": Site(name="b", type="cloud", jurisdiction="EU")}  # fmt: skip
    found = place_workload(
        Demand("w", "internal", (), purposes=("support",)), [deployment_at("a"), deployment_at("b")], sites
    )
    assert found.primary == "at-b"
    assert found.binding == "only one is allowed: internal data, the site is for hiring only, not for support"


def test_a_plan_that_goes_against_it_is_not_passed() -> None:
    found = plan_company(rig.company(rig.workload("chat", calls_month=1000.0)))
    assert find_violations(found.company, build_claim(found)) == ()
    site = found.placements["chat"].primary.site
    limited = replace(found.company.sites[site], purposes=frozenset({"hiring"}))
    company = replace(found.company, sites={**found.company.sites, site: limited})
    assert {each.kind for each in find_violations(company, build_claim(found))} == {"purposes"}


def deployment_at(site: str, purposes: tuple[str, ...] = ()) -> Deployment:
    return Deployment(
        name=f"at-{site}", site=site, model="m", upstream_model="m", url="http://127.0.0.1/v1",
        rates=Rates(input=1, output=1), purposes=list(purposes),
    )  # fmt: skip


def asking(purposes: list[str]) -> Workload:
    return Workload(
        name="w", purpose="p", stage="pilot", sensitivity="internal", audience="employees", residency=[],
        deployments=["at-s"], budgets=["b"], needs=Needs(purposes=purposes),
    )  # fmt: skip


SOME = st.lists(st.sampled_from(["support", "hiring", "research"]), max_size=3, unique=True)


@given(SOME, SOME, SOME)
def test_all_readings_agree(asked: list[str], of_site: list[str], of_model: list[str]) -> None:
    site = Site(name="s", type="private", jurisdiction="EU", purposes=of_site)
    served = deployment_at("s", tuple(of_model))
    served_all = all(not limit or (asked and set(asked) <= set(limit)) for limit in (of_site, of_model))
    demand = Demand("w", "internal", (), purposes=tuple(asked))
    assert is_allowed(asking(asked), served, {"s": site}) is served_all
    assert (not reasons_against(demand, site, of_model)) is served_all
    whole = msgspec.structs.replace(blueprint(asking(asked), [site]), deployments=[served])
    refusals = [each for each in verify_blueprint(whole) if "may be used for" in each.message]
    assert (not refusals) is served_all
    found = index(whole).plans["w"].deployments_by_name["auto"]
    assert [each.name for each in found] == (["at-s"] if served_all else [])


@pytest.mark.parametrize("limited", ["site", "model"])
def test_what_is_declared_is_in_the_blueprint(limited: str) -> None:
    text = declared("support") if limited == "site" else BASE.replace("sources: [handbook]\n", NAMED)
    text += "---\nkind: model\nname: openai/gpt-4.1-mini\npurposes: [support]\n" if limited == "model" else ""
    made = plan(load_files({"a.yaml": text}), None, today=TODAY).blueprint
    assert made is not None
    sites = {each.name: each.purposes for each in made.sites}
    assert sites["azure-sweden"] == (["support"] if limited == "site" else [])
    models = {each.name: each.purposes for each in made.deployments}
    assert models["gpt-eu"] == (["support"] if limited == "model" else [])
