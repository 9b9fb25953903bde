"""Every optional input has a default that holds without it and changes a decision or a price where it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from tests.unit import placement_rig as rig
from tests.unit.test_release_plan import BASE

from groundplan.blueprint.model import Deployment, Rates
from groundplan.catalog.loader import load_files
from groundplan.placement.planner import CompanyPlan, build_claim, plan_company
from groundplan.placement.terms import site_defaults
from groundplan.placement.terms.candidates import Candidate, build_candidates
from groundplan.placement.terms.curve import WEEK, load_from_facts
from groundplan.placement.terms.facts import Company, PolicyFacts
from groundplan.placement.terms.from_workspace import Context, read_company
from groundplan.placement.verify.company import find_violations

SITE = "kind: site\nname: azure-sweden\ntype: cloud\njurisdiction: EU\n"
WORKLOAD = "sources: [handbook]\n"
RATES = Rates(input=400_000_000_000, output=1_600_000_000_000)
MODEL = "---\nkind: model\nname: acme/llama-3.1-8b\nlicence: Apache-2.0\nweights: {total: 8.03}\n"
SMALL = (
    MODEL + "---\nkind: deployment\nname: small\nsite: azure-sweden\nmodel: openai/gpt-4.1-nano\n"
    "url: https://a.example/v1\ncontext: 4k\n"
)  # fmt: skip
HARDWARE = "hardware: [{type: h100-sxm, count: 2, owned: {purchase: 30000 USD%s}}]"


def facts(
    workload: str = "", hosting: str = "", company: str = "", more: str = MODEL, day: str = "2026-11-25"
) -> Company:
    """The company of a workspace with these lines added."""
    text = BASE.replace(WORKLOAD, WORKLOAD + (f"{workload}\n" if workload else ""))
    text = text.replace(SITE, SITE + (f"hosting: {{{hosting}}}\n" if hosting else ""))
    text = text.replace(
        "approvals: {parts: []}\n", "approvals: {parts: []}\n" + (f"placement: {{{company}}}\n" if company else "")
    )
    found = load_files({"a.yaml": text + more})
    served = [
        Deployment(name=name, site=item.site, model=item.model, upstream_model=name, url="http://a", rates=RATES)
        for name, item in found.deployments.items()
    ]  # fmt: skip
    return read_company(found, served, Context(date.fromisoformat(day)))


def candidates(company: Company) -> dict[str, Candidate]:
    return {c.config.partition(" on ")[0]: c for c in build_candidates(company).by_workload["assistant"] if not c.lease}


def usd(company: Company) -> dict[str, float]:
    return {name: round(c.usd, 6) for name, c in candidates(company).items()}


def rules(company: Company) -> dict[str, tuple[str, ...]]:
    return {name: c.rules for name, c in candidates(company).items()}


OWN = HARDWARE % ""
PRICED: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("egress", {}, {"hosting": "egress: 0.5 USD/GB"}),
    ("egress by destination", {"workload": "placement: {users: {us-east: 100%}}"},
     {"workload": "placement: {users: {us-east: 100%}}", "hosting": "egress_to: {us-east: 0.9 USD/GB}"}),
    ("owned", {"hosting": OWN}, {"hosting": HARDWARE % ", life: 730d"}),
    ("bought", {"hosting": OWN}, {"hosting": HARDWARE % ", bought: 2020-01-01"}),
    ("power", {"hosting": OWN}, {"hosting": OWN + ", carbon: 900 g/kWh", "company": "carbon: 90 USD/tonne"}),
    ("burden of a model", {}, {"hosting": "burden: {hours_per_deployment: 9}"}),
    ("skills", {}, {"hosting": "burden: {skills: new}"}),
    ("people", {}, {"company": "people: 200 USD/hour"}),
    ("prompt and output lengths", {}, {"workload": "traffic: {calls: 100/day, prompt_tokens: 9000}"}),
    ("calls", {}, {"workload": "traffic: {calls: 9000/day}"}),
    ("peak", {"hosting": OWN, "workload": "traffic: {calls: 900k/day}"},
     {"hosting": OWN, "workload": "traffic: {calls: 900k/day, peak: 9}"}),
    ("latency's worth", {}, {"company": "latency: 0.5"}),
    ("where it runs today", {"hosting": OWN}, {"hosting": OWN, "workload": "placement: {today: virginia}"}),
]  # fmt: skip
RULED: list[tuple[str, dict[str, str], str]] = [
    ("certifications", {"workload": "placement: {certifications: [C5]}"}, "not certified C5"),
    ("quality", {"workload": "objectives: {quality: {accuracy: 95%}}",
                 "more": MODEL + "quality: [{task: accuracy, score: 80%}]\n"}, "accuracy 80% < 95%"),
    ("first token", {"workload": "objectives: {first_token: 5ms}"}, "first token"),
    ("per token", {"workload": "placement: {per_token: 1ms}"}, "each token"),
    ("whole answer", {"workload": "objectives: {complete: 30ms}"}, "whole answer"),
    ("offline need", {"workload": "placement: {offline: true, data: {site: virginia}}"}, "without a connection"),
    ("weights", {"more": MODEL.replace("{total: 8.03}", "{total: 8.03, at: [virginia]}")}, "the weights may not lie"),
    ("licence", {"company": "licences: [MIT]"}, "the licence Apache-2.0 is not among"),
    ("needs", {"workload": "placement: {needs: [tools]}", "more": MODEL + "able: [vision]\n"}, "no tools"),
    ("vision", {"workload": "placement: {needs: [vision]}"}, "takes no images"),
    ("unreachable users", {"workload": "placement: {users: {atlantis: 100%}}\nobjectives: {first_token: 900ms}"},
     "no way is known from users in atlantis"),
    ("offline hours", {"workload": "objectives: {availability: 99.9%}",
                       "hosting": OWN + ", connectivity: {offline: 9}"}, "offline 9 hours a month"),
    ("availability", {"workload": "objectives: {availability: 99.9999%}\nplacement: {availability: required}"},
     "are required"),
    ("context", {"more": SMALL, "workload": "traffic: {calls: 100/day, prompt_tokens: 9000}"},
     "takes 4,000 tokens at once, 9,"),
    ("long context", {"more": SMALL, "workload": "placement: {needs: [long-context]}"},
     "takes 4,000 tokens at once, 32,000 are needed"),
    ("budget", {"workload": "traffic: {calls: 900k/day}\nplacement: {budget: required}"}, "> its budget of $200.00"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "without", "given"), PRICED, ids=[what for what, _, _ in PRICED])
def test_an_input_changes_a_price(what: str, without: dict[str, str], given: dict[str, str]) -> None:
    del what
    assert usd(facts(**without)) != usd(facts(**given))


@pytest.mark.parametrize(("what", "given", "rule"), RULED, ids=[what for what, _, _ in RULED])
def test_an_input_is_a_rule(what: str, given: dict[str, str], rule: str) -> None:
    del what
    given = {"hosting": OWN, **given}
    assert not any(rule in each for found in rules(facts(hosting=OWN)).values() for each in found)
    assert any(rule in each for found in rules(facts(**given)).values() for each in found)


def test_a_site_of_the_same_provider_costs_what_its_regions_do() -> None:
    one, two = rig.site("a", region="aws:eu-north-1", egress_between=0.02), rig.site("b", region="aws:us-east-1")
    other = rig.site("c", region="gcp:europe-north1")
    assert (
        site_defaults.egress_price(one, two),
        site_defaults.egress_price(one, other),
        site_defaults.egress_price(one, "eu-north"),
    ) == (0.02, 0.09, 0.09)
    told = replace(one, egress_to={"b": 0.5, "eu-north": 0.3})
    assert (site_defaults.egress_price(told, two), site_defaults.egress_price(told, "eu-north")) == (0.5, 0.3)


def test_a_term_longer_than_the_company_signs_is_no_price() -> None:
    hosting = "hardware: [{type: h100-sxm, on_demand: 4 USD/hour, reserved: [{price: 2 USD/hour, term: 1095d}]}]"
    assert facts(hosting=hosting).sites["azure-sweden"].hardware[0].reserved is None
    longer = facts(hosting=hosting, company="commit: 1095d").sites["azure-sweden"].hardware[0]
    assert longer.reserved == 2.0


def test_reference_data_that_grew_old_is_flagged() -> None:
    assert not facts().notes and any("it was taken to hold until" in note for note in facts(day="2031-01-01").notes)


def test_calls_of_a_week_become_a_curve() -> None:
    until = datetime(2026, 11, 25, tzinfo=UTC)
    first = until - timedelta(days=14)
    calls = {first + timedelta(hours=at): 10.0 + 90.0 * (at % 24 == 9) for at in range(14 * 24)}
    load = load_from_facts(calls, until)
    assert load is not None and len(load.curve) == WEEK and sum(load.curve) / WEEK == pytest.approx(1, abs=1e-3)
    assert {hour % 24 for hour, value in enumerate(load.curve) if value > 2} == {9} and load.days == 14
    assert load_from_facts({at: n for at, n in calls.items() if at >= until - timedelta(days=6)}, until) is None
    assert load_from_facts({}, until) is None


# what holds across workloads ------------------------------------------------------------------------------------------


def plan(*names: str, **changes: Any) -> CompanyPlan:
    """Workloads that all would rather be at `gpt`."""
    many = [rig.workload(name, calls_month=1e6) for name in names]
    sites = {"cloud": rig.site("cloud"), "other": rig.site("other"), "third": rig.site("third")}
    deployments = {"gpt": rig.deployment("gpt", "cloud", 0.5), "dear": rig.deployment("dear", "other", 2.0)}
    return plan_company(rig.company(*many, **{"sites": sites, "deployments": deployments, "models": {}, **changes}))


def primary_configs(found: CompanyPlan) -> list[str]:
    return sorted(each.primary.config for each in found.placements.values())


def test_a_quota_of_a_provider_is_shared_by_all_who_use_it() -> None:
    tokens = rig.workload("a", calls_month=1e6).peak_second * 60 * 1200
    assert primary_configs(plan("a", "b", "c")) == ["gpt", "gpt", "gpt"]
    tight = {
        "gpt": rig.deployment("gpt", "cloud", 0.5, quota_tokens_minute=2.5 * tokens),
        "dear": rig.deployment("dear", "other", 2.0),
    }
    assert primary_configs(plan("a", "b", "c", deployments=tight)) == ["dear", "gpt", "gpt"]


def test_production_is_spread_over_failure_domains() -> None:
    assert primary_configs(plan("a", "b", "c", policy=PolicyFacts(spread=2))) == ["dear", "gpt", "gpt"]
    pilots = {n: rig.workload(n, calls_month=1e6, stage="pilot") for n in "abc"}
    free = plan("a", policy=PolicyFacts(spread=2)).company
    assert primary_configs(plan_company(replace(free, workloads=pilots))) == ["gpt", "gpt", "gpt"], (
        "pilots do not count"
    )


def test_a_price_of_carbon_moves_what_it_makes_dearer() -> None:
    sites = {"cloud": rig.site("cloud", carbon_g_kwh=700.0), "other": rig.site("other", carbon_g_kwh=10.0)}
    prices = {"gpt": rig.deployment("gpt", "cloud", 0.5), "dear": rig.deployment("dear", "other", 0.51)}
    assert primary_configs(plan("a", sites=sites, deployments=prices)) == ["gpt"]
    costly = plan("a", sites=sites, deployments=prices, policy=PolicyFacts(carbon_usd_tonne=500.0))
    assert primary_configs(costly) == ["dear"]


MUTATED: list[tuple[str, Callable[[Company], Company]]] = [
    ("licence", lambda c: replace(c, policy=PolicyFacts(licences=frozenset({"MIT"})))),
    ("context", lambda c: _deployments(c, context=100)),
    ("budget", lambda c: _workloads(c, requires_budget=True, budget_usd=0.01)),
]


def _deployments(c: Company, **changes: Any) -> Company:
    return replace(c, deployments={name: replace(each, **changes) for name, each in c.deployments.items()})


def _workloads(c: Company, **changes: Any) -> Company:
    return replace(c, workloads={name: replace(each, **changes) for name, each in c.workloads.items()})


@pytest.mark.parametrize(("kind", "change"), MUTATED, ids=[kind for kind, _ in MUTATED])
def test_the_second_verifier_reads_each_of_them(kind: str, change: Callable[[Company], Company]) -> None:
    found = plan_company(
        rig.company(rig.workload("chat", calls_month=1000.0), rig.workload("own", sensitivity="restricted"))
    )
    assert find_violations(found.company, build_claim(found)) == ()
    assert kind in {each.kind for each in find_violations(change(found.company), build_claim(found))}
