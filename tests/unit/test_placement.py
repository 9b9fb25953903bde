"""Placement: hard rules are never broken, the cheapest or the declared order is chosen, and it says why."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.content import Index, IndexEmbedding, Rerank
from groundplan.blueprint.model import Blueprint, Budget, Deployment, Grounding, Rates, Site, Source, Workload
from groundplan.placement.model import SENSITIVITY_ORDER, Demand
from groundplan.placement.solve import find_refusals, limit_alternatives, monthly_cost, place_workload, verify_blueprint

SITES = [
    Site(name="azure", type="cloud", jurisdiction="SE"),
    Site(name="virginia", type="cloud", jurisdiction="US"),
    Site(name="rack", type="private", jurisdiction="EU"),
    Site(name="line", type="edge", jurisdiction="NO", holds="internal"),
]
PLACES = {site.name: site for site in SITES}


def deployment(name: str, site: str, price: int, kind: str = "chat") -> Deployment:
    return Deployment(
        name=name,
        site=site,
        model=name,
        upstream_model=name,
        url="http://127.0.0.1/v1",
        rates=Rates(input=price, output=price),
        kind=kind,
    )


DEPLOYMENTS = [
    deployment("gpt-eu", "azure", 10**12),
    deployment("gpt-us", "virginia", 10**11),
    deployment("own", "rack", 3 * 10**12),
    deployment("small", "line", 0),
    deployment("vectors", "rack", 0, kind="embeddings"),
]


def demand(
    sensitivity: str = "internal",
    residency: tuple[str, ...] = (),
    preferred: tuple[str, ...] = (),
    fallbacks: tuple[str, ...] = (),
) -> Demand:
    return Demand("assistant", sensitivity, residency, preferred, fallbacks, Decimal(1000), 800, 200)


def order(wanted: Demand) -> list[str]:
    placement = place_workload(wanted, DEPLOYMENTS, PLACES)
    return [*([placement.primary] if placement.primary else []), *placement.fallbacks]


def test_without_a_declared_order_all_that_is_allowed_comes_cheapest_first() -> None:
    assert order(demand()) == ["small", "gpt-us", "gpt-eu", "own"]


def test_residency_and_sensitivity_exclude_and_say_why() -> None:
    placement = place_workload(demand("restricted", ("EU",)), DEPLOYMENTS, PLACES)
    assert (placement.primary, placement.fallbacks) == ("own", [])
    why = {option.deployment: option.reasons for option in placement.alternatives}
    assert why["gpt-us"] == ["outside EU", "restricted data, the site holds at most confidential"]
    assert why["gpt-eu"] == ["restricted data, the site holds at most confidential"]
    assert why["own"] == [] and "vectors" not in why
    assert placement.binding == "only one is allowed: residency EU, restricted data"


def test_the_declared_order_wins_over_the_price() -> None:
    assert order(demand(preferred=("own", "gpt-eu"), fallbacks=("gpt-us",))) == ["own", "gpt-eu", "gpt-us"]
    assert order(demand(fallbacks=("own",))) == ["small", "own"]
    assert order(demand("restricted", ("EU",), fallbacks=("own",))) == ["own"]


def test_a_declared_deployment_that_a_rule_forbids_is_refused() -> None:
    wanted = demand(residency=("EU",), preferred=("gpt-us", "gpt-eu"))
    placement = place_workload(wanted, DEPLOYMENTS, PLACES)
    assert placement.primary == "gpt-eu"
    (problem,) = find_refusals(wanted, placement)
    assert problem.code == "placement_forbidden" and "outside EU" in problem.message


def test_a_workload_that_nothing_may_serve_is_refused_with_all_reasons() -> None:
    wanted = demand("restricted", ("CH",))
    (problem,) = find_refusals(wanted, place_workload(wanted, DEPLOYMENTS, PLACES))
    assert problem.code == "placement_none"
    assert all(name in problem.message for name in ("gpt-eu", "gpt-us", "own", "small"))


def test_the_price_is_that_of_the_declared_traffic() -> None:
    rates = Rates(input=400_000_000_000, output=1_600_000_000_000, request=7)
    assert monthly_cost(rates, demand()) == 1000 * (800 * 400_000 + 200 * 1_600_000 + 7)


def blueprint(workload: Workload, source_sensitivity: str = "internal") -> Blueprint:
    return Blueprint(
        number=1,
        company="acme",
        separation="enforced",
        sites=SITES,
        deployments=DEPLOYMENTS,
        sources=[
            Source(name="handbook", path="h", sensitivity=source_sensitivity, owner="d@a.example", readers=["everyone"])
        ],
        workloads=[workload],
        budgets=[Budget(name="b", covers="company", limit=1, period="month")],
        placements=[],
    )


WORKLOAD = Workload(
    name="assistant",
    purpose="answers",
    stage="pilot",
    sensitivity="internal",
    audience="employees",
    residency=["EU"],
    deployments=["gpt-eu"],
    budgets=["b"],
    grounding=Grounding(sources=["handbook"]),
    owners={"business": ["ana@a.example"]},
)


@given(
    st.sampled_from(SENSITIVITY_ORDER),
    st.lists(st.sampled_from(["EU", "EEA", "US", "NO", "CH"]), max_size=2, unique=True),
    st.lists(st.sampled_from([d.name for d in DEPLOYMENTS]), max_size=3, unique=True),
    st.lists(st.sampled_from([d.name for d in DEPLOYMENTS]), max_size=3, unique=True),
)
def test_no_plan_breaks_a_rule_in_the_eyes_of_the_verifier(
    sensitivity: str, residency: list[str], preferred: list[str], fallbacks: list[str]
) -> None:
    chosen = order(demand(sensitivity, tuple(residency), tuple(preferred), tuple(fallbacks)))
    workload = msgspec.structs.replace(
        WORKLOAD, sensitivity=sensitivity, residency=residency, deployments=chosen, grounding=None
    )
    problems = [problem.message for problem in verify_blueprint(blueprint(workload))]
    assert problems == ([] if chosen else ["workload assistant: it has no deployment"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deployments": ["gpt-us"]}, "gpt-us is outside EU"),
        ({"deployments": ["nowhere"]}, "nowhere is not a deployment"),
        ({"embeddings": ["small"]}, "small is outside EU"),
        ({"sensitivity": "restricted"}, "restricted data on gpt-eu"),
        ({"sensitivity": "public"}, "source handbook is internal"),
        ({"budgets": []}, "no budget"),
        ({"budgets": ["other"]}, "no budget"),
        ({"owners": {}}, "no business owner"),
        ({"grounding": Grounding(sources=["gone"])}, "source gone is not in the blueprint"),
    ],
)
def test_the_verifier_finds_each_broken_rule(change: dict[str, object], message: str) -> None:
    assert verify_blueprint(blueprint(WORKLOAD)) == []
    problems = verify_blueprint(blueprint(msgspec.structs.replace(WORKLOAD, **change)))
    assert any(message in problem.message for problem in problems)


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({}, []),
        ({"residency": []}, ["index, which is sent some of it, may run elsewhere"]),
        ({"residency": ["SE", "US"]}, ["index, which is sent some of it, may run elsewhere"]),
        ({"sensitivity": "public"}, ["internal data to index, which may see less"]),
    ],
)
@pytest.mark.parametrize("embeds", [True, False])
def test_the_verifier_knows_who_is_sent_what(change: dict[str, object], messages: list[str], embeds: bool) -> None:
    """Also where the one that embeds or reranks stays as it is served, as a change of it waits."""
    given = {"name": "index", "residency": ["SE"], "deployments": ["gpt-eu"], "grounding": None, **change}
    other = msgspec.structs.replace(WORKLOAD, **given)
    sorts = Rerank(workload="index", deployment="own")
    asked = msgspec.structs.replace(
        WORKLOAD, grounding=Grounding(sources=["handbook"], rerank=None if embeds else sorts)
    )
    index = Index(embedding=IndexEmbedding(workload="index", deployment="own", dimensions=3) if embeds else None)
    made = msgspec.structs.replace(blueprint(asked), workloads=[asked, other], index=index)
    assert [problem.message for problem in verify_blueprint(made)] == [
        f"workload assistant: {told}" for told in messages
    ]


def test_of_hundreds_of_deployments_those_that_serve_and_the_nearest_at_each_site_are_told() -> None:
    many = [deployment(f"{site.name}-{n}", site.name, 10**12 - n) for site in SITES for n in range(100)]
    wanted = demand(residency=("EU",), preferred=("azure-0",), fallbacks=("rack-0",))
    whole = place_workload(wanted, many, PLACES)
    limited = limit_alternatives(whole)
    names = [option.deployment for option in limited.alternatives]
    assert len(names) == 40 and names == sorted(names)
    assert {"azure-0", "rack-0", "azure-99", "rack-99", "virginia-99", "line-99"} <= set(names)
    assert sum(option.allowed for option in limited.alternatives) == 38
    assert limited.binding == f"{whole.binding}; 40 of 400 are listed"
    assert (limited.primary, limited.fallbacks) == (whole.primary, whole.fallbacks)
    few = place_workload(wanted, many[:40], PLACES)
    assert limit_alternatives(few) is few
