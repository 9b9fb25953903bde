"""A change of place that goes over in steps: it enters the blueprint as shares, the gateway keeps them exactly, each
step is a blueprint of its own, and both verifiers catch a ramp that is wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import placement_rig as rig
from tests.unit.call_rig import call_rig, wait_until
from tests.unit.test_release_plan import BASE, current, plan_of

from groundplan.api.views import blueprint_json
from groundplan.blueprint.model import Blueprint, Ramp, Site
from groundplan.catalog.check import check
from groundplan.catalog.loader import load_files
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.upstream.choose import LoadBalancer
from groundplan.placement.planner import CompanyPlan, build_claim, plan_company
from groundplan.placement.solve import verify_blueprint
from groundplan.placement.terms.facts import Company
from groundplan.placement.verify.company import PlanClaim, find_violations
from groundplan.release.model import Current
from groundplan.release.ramping import active_ramps, advance_steps, step_starts

RAMP = "placement: {ramp: {steps: [10%, 50%], every: 1h}}\n"
ANYWHERE = BASE.replace("residency: [EU]\n", "")
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def served_by(order: str, more: str = RAMP) -> str:
    return ANYWHERE.replace("sources: [handbook]\n", f"sources: [handbook]\ndeployments: [{order}]\n{more}")


def ramp_of(blueprint: Blueprint | None) -> Ramp | None:
    assert blueprint is not None
    return active_ramps(blueprint).get("assistant")


def begun(more: str = RAMP) -> Current:
    first = current(served_by("gpt-eu, gpt-us", more), plan_of(served_by("gpt-eu, gpt-us", more)))
    assert ramp_of(first.blueprint) is None, "where nothing ran before, nothing goes over"
    text = served_by("gpt-us, gpt-eu", more)
    return current(text, plan_of(text, first))


def test_a_new_first_place_begins_with_its_first_share_and_the_next_release_keeps_it() -> None:
    changed = begun()
    ramp = Ramp(origin="gpt-eu", to="gpt-us", share=10, steps=[50], every_s=3600)
    assert ramp_of(changed.blueprint) == ramp
    assert changed.blueprint.workloads[0].deployments == ["gpt-us", "gpt-eu"]
    text = served_by("gpt-us, gpt-eu")
    later = msgspec.structs.replace(ramp, share=50, steps=[])
    placement = msgspec.structs.replace(changed.blueprint.placements[0], ramp=later)
    halfway = Current(msgspec.structs.replace(changed.blueprint, placements=[placement]), changed.workspace)
    again = plan_of(text, halfway)
    assert ramp_of(again.blueprint) == later and not again.differences
    body = again.to_json()["placements"][0]["ramp"]
    assert body == {"from": "gpt-eu", "to": "gpt-us", "share": 50, "steps": [], "every_seconds": 3600}
    assert blueprint_json(halfway.blueprint)["placements"][0]["ramp"] == body, "readers of the blueprint see it, too"
    back = plan_of(served_by("gpt-eu, gpt-us"), halfway)
    assert ramp_of(back.blueprint) is None, "going back is at once"
    gone = plan_of(served_by("gpt-us"), halfway)
    assert ramp_of(gone.blueprint) is None, "an origin that may not serve it any more gets no calls"


def test_without_a_declared_ramp_all_calls_go_at_once() -> None:
    assert ramp_of(begun("").blueprint) is None


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("placement: {ramp: {steps: [50%, 10%]}}\n", "invalid_value"),
        ("placement: {ramp: {steps: [100%]}}\n", "invalid_value"),
        ("placement: {ramp: {every: 5s}}\n", "invalid_value"),
        (RAMP + "reliability: {balance: weighted}\n", "ramp_balance"),
    ],
)
def test_a_ramp_that_cannot_be_kept_is_told_by_file_and_line(more: str, code: str) -> None:
    problems = _problems(served_by("gpt-eu, gpt-us", more))
    assert any(p.where is not None and p.where.file == "a.yaml" and p.where.line > 1 for p in problems)
    if code == "ramp_balance":
        assert code in {p.code for p in problems}


def _problems(text: str) -> list[Any]:
    from groundplan.core.errors import Invalid  # noqa: PLC0415 -- only here

    try:
        return list(check(load_files({"a.yaml": text})))
    except Invalid as error:
        return list(error.problems)


def test_each_step_that_is_over_becomes_the_next_blueprint() -> None:
    blueprint = begun().blueprint
    history = [(blueprint, NOW)]
    assert step_starts(active_ramps(blueprint), history) == {"assistant": NOW}
    early, changes = advance_steps(blueprint, {"assistant": NOW}, NOW + timedelta(minutes=59))
    assert early == blueprint and not changes
    held, changes = advance_steps(blueprint, {"assistant": NOW}, NOW + timedelta(hours=9), frozenset({"gpt-us"}))
    assert held == blueprint and not changes, "a place at which calls fail gets no more of them"
    second, changes = advance_steps(blueprint, {"assistant": NOW}, NOW + timedelta(hours=1))
    assert changes == ["50% of the calls of assistant go to gpt-us"] and ramp_of(second) is not None
    newest = [(second, NOW + timedelta(hours=1)), *history]
    assert step_starts(active_ramps(second), newest) == {"assistant": NOW + timedelta(hours=1)}
    last, changes = advance_steps(second, step_starts(active_ramps(second), newest), NOW + timedelta(hours=2))
    assert changes == ["100% of the calls of assistant go to gpt-us"] and ramp_of(last) is None


@given(st.integers(1, 99))
def test_shares_are_exact_and_evenly_spread(share: int) -> None:
    balance = LoadBalancer()
    calls = [balance.takes_ramp("w", share) for _ in range(300)]
    assert all(sum(calls[at : at + 100]) == share for at in range(0, 300, 100))
    gaps = [b - a for a, b in pairwise(at for at, goes in enumerate(calls) if goes)]
    assert max(gaps) - min(gaps) <= 1


async def test_the_gateway_sends_each_share_where_it_is_to_go(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["new", "old"]) as gateway:
        catalog = gateway.gateway.live.catalog
        assert catalog is not None
        plain = catalog.plans["assistant"]

        async def shares(ramp: Ramp | None, count: int) -> Counter[str]:
            catalog.plans["assistant"] = replace(plain, ramp=ramp)
            replies = [await gateway.chat() for _ in range(count)]
            return Counter(reply.json["groundplan"]["deployment"] for reply in replies)

        assert await shares(Ramp(origin="old", to="new", share=10), 20) == {"old": 18, "new": 2}
        assert await shares(Ramp(origin="old", to="new", share=50), 10) == {"old": 5, "new": 5}
        assert await shares(None, 4) == {"new": 4}
        assert await shares(Ramp(origin="gone", to="new", share=10), 4) == {"new": 4}
        gateway.play("old", mode="error", status=500)
        assert await shares(Ramp(origin="old", to="new", share=10), 6) == {"new": 6}, "a failing origin is invisible"
        gateway.play("old")
        gateway.gateway.health._open_until["old"] = 0.0
        assert (await shares(Ramp(origin="old", to="new", share=10), 6))["old"] >= 5, "one that is well again is asked"
        await gateway.books()


async def test_the_cloud_drains_first(tmp_path: Path) -> None:
    """Own hardware that bears one call: the second goes to the cloud, and as soon as there is room at home the next one
    stays there, while the cloud still answers."""
    async with call_rig(tmp_path, ["own", "cloud"], more={"own": {"concurrent": 1}}) as gateway:
        own, cloud = gateway.hold("own"), gateway.hold("cloud")
        first = asyncio.create_task(gateway.chat())
        await wait_until(lambda: gateway.models["own"].counted == 1)
        second = asyncio.create_task(gateway.chat())
        await wait_until(lambda: gateway.models["cloud"].counted == 1)
        own.release()
        assert (await first).json["groundplan"]["deployment"] == "own"
        assert not second.done()
        own.release()
        third = await gateway.chat()
        assert third.status == 200, third.body
        assert third.json["groundplan"]["deployment"] == "own" and not second.done()
        cloud.release()
        assert (await second).json["groundplan"]["deployment"] == "cloud"
        await gateway.books()


async def test_a_restricted_call_stays_in_its_jurisdiction_whoever_edits_a_fallback(tmp_path: Path) -> None:
    """The foreign place is asked neither as a fallback of a failure, nor for a burst, nor by its name."""
    async with call_rig(tmp_path, ["home", "abroad"], more={"home": {"concurrent": 1}}) as gateway:
        catalog = gateway.gateway.live.catalog
        assert catalog is not None
        made = catalog.blueprint
        sites = [
            Site(name="s-home", type="private", jurisdiction="SE"),
            Site(name="s-abroad", type="private", jurisdiction="US"),
        ]
        deployments = [msgspec.structs.replace(each, site=f"s-{each.name}") for each in made.deployments]
        workloads = [
            msgspec.structs.replace(each, sensitivity="restricted", residency=["EU"], deployments=["home", "abroad"])
            for each in made.workloads
        ]
        edited = msgspec.structs.replace(made, sites=sites, deployments=deployments, workloads=workloads)
        gateway.gateway.live.catalog = index(edited)  # type: ignore[misc]
        assert (await gateway.chat()).json["groundplan"]["deployment"] == "home"
        gateway.play("home", latency_ms=300)
        both = await asyncio.gather(gateway.chat(), gateway.chat())
        assert {reply.json["groundplan"]["deployment"] for reply in both if reply.status == 200} == {"home"}
        gateway.play("home", mode="error", status=500)
        assert (await gateway.chat()).status >= 500
        assert (await gateway.chat(model="abroad")).status in (403, 404)
        assert gateway.models["abroad"].counted == 0


BAD: list[tuple[dict[str, Any], str]] = [
    ({"to": "gpt-eu", "origin": "gpt-us"}, "which is not its first place"),
    ({"origin": "gpt-us"}, "which may not serve it"),
    ({"origin": "elsewhere"}, "which may not serve it"),
    ({"share": 60}, "do not rise to the end"),
    ({"share": 0}, "do not rise to the end"),
    ({"steps": [100]}, "do not rise to the end"),
    ({"every_s": 0}, "do not rise to the end"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_the_verifier_of_blueprints_catches_each_wrong_ramp(change: dict[str, Any], message: str) -> None:
    blueprint = begun().blueprint
    assert verify_blueprint(blueprint) == []
    placement = blueprint.placements[0]
    assert placement.ramp is not None
    wrong = msgspec.structs.replace(placement, ramp=msgspec.structs.replace(placement.ramp, **change))
    found = verify_blueprint(msgspec.structs.replace(blueprint, placements=[wrong]))
    assert any(message in problem.message for problem in found)


# the plan -------------------------------------------------------------------------------------------------------------


def moving(other_calls: float = 0.0, quota: float | None = None) -> Company:
    """One workload that leaves the rack for a cheaper place; another may fill what it leaves."""
    own = rig.deployment("own", "rack", 0.0, hardware="h100-sxm", units=1.0, concurrent=64)
    w = rig.workload(
        "w", calls_month=5e5, ramp=(0.1, 0.5), current_deployment="own", current_site="rack",
        move_hours=0.0, burst=False,
        declared=("own", "gpt"),
    )  # fmt: skip
    others = [rig.workload("x", sensitivity="restricted", calls_month=other_calls, burst=False, declared=("own",))]
    facts = rig.company(*([w, *others] if other_calls else [w]), models={})
    rack = rig.site("rack", "private", hardware=(rig.hardware(count=1, owned_month=5000.0),), burden_hours=1.0)
    gpt = rig.deployment("gpt", "cloud", 0.02, quota_tokens_minute=quota)
    return replace(facts, sites={**facts.sites, "rack": rack}, deployments={"own": own, "gpt": gpt})


@pytest.fixture(scope="module")
def going() -> CompanyPlan:
    return plan_company(moving())


def test_the_plan_says_from_where_calls_go_over_and_what_the_old_place_bears(going: CompanyPlan) -> None:
    placed = build_claim(going).placed["w"]
    assert (placed.primary.config, placed.ramp) == ("gpt", (0.1, 0.5))
    assert placed.origin is not None and placed.origin.config == "own" and not going.immediate_moves


def test_where_the_old_place_has_no_room_it_goes_at_once_and_says_so() -> None:
    room = plan_company(moving(other_calls=3e6))
    assert build_claim(room).placed["w"].origin is not None
    units = room.placements["x"].primary.units
    full = plan_company(moving(other_calls=3e6 * 0.98 / units))
    assert full.placements["x"].primary.config == "own" and full.placements["w"].primary.config == "gpt"
    assert "no room for the rest of its calls" in full.immediate_moves["w"] and build_claim(full).placed["w"].ramp == ()


def primary(one: PlanClaim) -> Any:
    return one.placed["w"].primary


def with_w(**changes: Any) -> Callable[[PlanClaim], PlanClaim]:
    return lambda one: replace(one, placed={**one.placed, "w": replace(one.placed["w"], **changes)})


MUTATIONS: list[tuple[str, Callable[[PlanClaim], PlanClaim]]] = [
    ("ramp", with_w(ramp=(0.5, 0.1))),
    ("ramp", with_w(ramp=(0.1, 1.0))),
    ("ramp", with_w(origin=None)),
    ("ramp", lambda one: with_w(origin=primary(one))(one)),
    ("deployment", lambda one: with_w(origin=replace(primary(one), config="nothing"))(one)),
    ("capacity", lambda one: with_w(origin=replace(one.placed["w"].origin, units=9.0))(one)),  # type: ignore[type-var]
]


@pytest.mark.parametrize(("kind", "mutate"), MUTATIONS)
def test_the_second_verifier_catches_each_wrong_ramp(
    going: CompanyPlan, kind: str, mutate: Callable[[PlanClaim], PlanClaim]
) -> None:
    claim = build_claim(going)
    assert find_violations(going.company, claim) == ()
    assert kind in {each.kind for each in find_violations(going.company, mutate(claim))}


def test_an_origin_that_may_not_hold_the_data_is_caught(going: CompanyPlan) -> None:
    facts = going.company
    strict = replace(facts.workloads["w"], residency=("CH",))
    found = find_violations(replace(facts, workloads={"w": strict}), build_claim(going))
    assert any("going over from own" in each.message for each in found)
