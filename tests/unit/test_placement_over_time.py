"""Choices over time: replicas that follow the week, spot, availability as a rule, moves; each judged a second time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit import placement_rig as rig

from groundplan.core.errors import Conflict, Invalid
from groundplan.placement import whatif
from groundplan.placement.explain.why import explain_placement
from groundplan.placement.explain.words import explanation_sentences
from groundplan.placement.planner import CompanyPlan, build_claim, plan_company
from groundplan.placement.problem import WorkLimit
from groundplan.placement.terms.availability import availability_gain, is_sufficient, required_gain
from groundplan.placement.terms.curve import weekly_curve
from groundplan.placement.terms.facts import Company, ModelFacts, PolicyFacts, SiteFacts
from groundplan.placement.terms.rentals import BLOCKS, block_hours, block_of
from groundplan.placement.verify import verify
from groundplan.placement.verify.company import PlacedWorkload, PlanClaim, find_violations

BIG = ModelFacts("llama-3.1-70b", 70.6, 70.6, 80, 327680.0, "fp8", 70.6, (), (), None, {}, frozenset())


def rented(on_demand: float = 4.0, **changes: Any) -> SiteFacts:
    made = rig.hardware("h100-sxm", 0, on_demand=on_demand, max_units=64, **changes)
    return rig.site("cloud", hardware=(made,), holds="restricted")


def company(*workloads: Any, site: SiteFacts | None = None, **changes: Any) -> Company:
    """Nothing but rented hardware in one cloud."""
    plain = rig.company(
        *workloads, sites={"cloud": site or rented()}, deployments={}, models={rig.LLAMA.name: rig.LLAMA}
    )
    return replace(plain, **changes)


def busy(name: str = "w", calls: float = 4e7, **changes: Any) -> Any:
    return rig.workload(
        name, calls_month=calls, peak=8.0, curve=weekly_curve("business-hours", 8.0), burst=False, **changes
    )


def test_the_blocks_are_the_week() -> None:
    assert [block_hours(each) for each in BLOCKS] == [50, 70, 48]
    assert (block_of(0), block_of(8), block_of(5 * 24)) == (BLOCKS[1], BLOCKS[0], BLOCKS[2])


def test_replicas_follow_the_week_where_that_is_cheaper() -> None:
    plan = plan_company(company(busy()))
    chosen = plan.placements["w"].primary
    assert chosen.lease == "by the hour"
    units = {block: plan.bought[f"cloud h100-sxm by the hour, {block}"] for block in BLOCKS[:1]}
    assert units[BLOCKS[0]] > plan.bought.get(f"cloud h100-sxm by the hour, {BLOCKS[2]}", 0)
    told = " ".join(explanation_sentences(explain_placement(plan, "w")))
    assert "Its replicas follow the week" in told and "weekends" in told
    whole = replace(plan.framed.candidates.by_workload["w"][0])
    assert whole.lease == "" and plan.placements["w"].usd < whole.usd
    steady = plan_company(company(rig.workload("w", calls_month=4e7, peak=1.0, curve=(1.0,) * 168, burst=False),
                                  site=rented(reserved=2.0)))  # fmt: skip
    assert steady.placements["w"].primary.lease == "" and "reserved" in next(iter(steady.bought))


def test_replicas_of_one_model_are_shared_by_workloads() -> None:
    """Two workloads that each fill a fifth of a replica take one together, and two where models differ."""
    site = rented(on_demand=2.0, spot=None)
    small = replace(site.hardware[0], memory_gb=40.0)
    site = replace(site, hardware=(small,))
    one, two = (busy(name, 20_000.0, models=(BIG.name,)) for name in ("one", "two"))
    together = plan_company(company(one, two, site=site, models={BIG.name: BIG}))
    top = f"cloud h100-sxm by the hour, {BLOCKS[0]}, 2 for {BIG.name}"
    assert together.placements["one"].primary.group == 2
    assert together.bought[top] == 1
    other = replace(BIG, name="llama-3.3-70b")
    apart = plan_company(
        company(one, replace(two, models=(other.name,)), site=site, models={BIG.name: BIG, other.name: other})
    )
    assert sum(units for name, units in apart.bought.items() if BLOCKS[0] in name) == 2
    assert apart.usd > together.usd


def test_spot_is_taken_only_where_it_may_be_taken_away() -> None:
    site = rented(spot=1.0, interruption=0.1)
    never, may = plan_company(company(busy(), site=site)), plan_company(company(busy(spot=True), site=site))
    assert never.placements["w"].primary.lease != "spot"
    assert may.placements["w"].primary.lease == "spot" and may.usd < never.usd
    assert "may take it away" in " ".join(explanation_sentences(explain_placement(may, "w")))
    assert may.placements["w"].primary.availability == pytest.approx(0.999 * 0.98)
    asked = whatif.parse_changes(["workloads.w.spot=allowed"], [], [], [])
    flips = whatif.compare(never, asked).flips
    assert flips[0]["after"] is not None and flips[0]["after"]["lease"] == "spot"
    with pytest.raises(Invalid, match="nothing is called 'perhaps'"):
        whatif.compare(never, whatif.parse_changes(["workloads.w.spot=perhaps"], [], [], []))
    strict = busy(spot=True, requires_availability=True, availability=0.995)
    assert plan_company(company(strict, site=site)).placements["w"].primary.lease != "spot"


def test_a_required_availability_is_kept_alone_or_with_a_fallback_elsewhere() -> None:
    sites = {"a": rig.site("a", availability=0.99), "b": rig.site("b", availability=0.9995, domain="b")}
    deployments = {
        "cheap": rig.deployment("cheap", "a", 1.0, availability=0.99),
        "dear": rig.deployment("dear", "b", 1.2, availability=0.9995),
    }

    def placed(**changes: Any) -> CompanyPlan:
        w = rig.workload("w", calls_month=2e6, **changes)
        return plan_company(rig.company(w, sites=sites, deployments=deployments, models={}))

    free = placed(availability=0.999)
    assert (free.placements["w"].primary.config, free.placements["w"].fallback) == ("cheap", None)
    alone = placed(availability=0.9995, requires_availability=True, fallback="none")
    assert alone.placements["w"].primary.config == "dear" and alone.placements["w"].fallback is None
    both = placed(availability=0.9999, requires_availability=True, fallback="wanted")
    assert {both.placements["w"].primary.site, both.placements["w"].fallback.site} == {"a", "b"}  # type: ignore[union-attr]
    with pytest.raises(Conflict, match=r"99\.9999% are required and no fallback makes up for it"):
        placed(availability=0.999999, requires_availability=True, fallback="wanted")


def test_the_verifier_of_arrays_sees_a_fallback_that_is_needed_and_missing() -> None:
    sites = {name: rig.site(name, availability=0.99) for name in ("a", "b")}
    deployments = {name: rig.deployment(name, name, 1.0, availability=0.99) for name in sites}
    w = rig.workload("w", availability=0.9999, requires_availability=True, fallback="wanted")
    plan = plan_company(rig.company(w, sites=sites, deployments=deployments, models={}))
    problem, solution = plan.framed.problem, plan.solution
    (nowhere,) = np.flatnonzero(problem.options.site < 0)
    choice = solution.choice.copy()
    choice[problem.options.part[nowhere]] = nowhere
    without = replace(solution, choice=choice)
    assert "row" in {each.kind for each in verify(problem, without).violations}
    kinds = tuple("quota" if kind == "availability" else kind for kind in problem.rows.kind)
    unsaid = replace(problem, rows=replace(problem.rows, kind=kinds))
    assert "choice" in {each.kind for each in verify(unsaid, without).violations}


def test_a_failure_domain_that_is_shared_adds_nothing() -> None:
    sites = {name: rig.site(name, domain="same", availability=0.99) for name in ("a", "b")}
    deployments = {name: rig.deployment(name, name, 1.0, availability=0.99) for name in sites}
    w = rig.workload("w", availability=0.999, requires_availability=True, fallback="wanted")
    with pytest.raises(Conflict, match="no fallback makes up"):
        plan_company(rig.company(w, sites=sites, deployments=deployments, models={}))


def test_availability_adds_up_by_what_is_away() -> None:
    assert is_sufficient(0.9999, 0.99, 0.99) and not is_sufficient(0.99991, 0.99, 0.99)
    assert availability_gain(0.99) < required_gain(0.9901) and required_gain(1.0) > availability_gain(1.0) - 4


def test_one_plan_moves_no_more_than_it_may_but_whoever_must_goes() -> None:
    w = [rig.workload(f"w{n}", current_site="far", residency=(), calls_month=3e7, move_hours=1.0) for n in range(4)]
    prices = {"gpt": rig.deployment("gpt", "cloud", 0.1), "dear": rig.deployment("dear", "far", 3.0)}
    free = plan_company(rig.company(*w, deployments=prices))
    held = plan_company(rig.company(*w, deployments=prices, policy=PolicyFacts(max_moves=1)))
    assert sum(d.primary.site != "far" for d in free.placements.values()) == 4
    assert sum(d.primary.site != "far" for d in held.placements.values()) == 1
    must = [replace(each, residency=("EU",)) for each in w]
    gone = plan_company(rig.company(*must, deployments=prices, policy=PolicyFacts(max_moves=0)))
    assert all(d.primary.site != "far" for d in gone.placements.values())


@pytest.fixture(scope="module")
def sound() -> CompanyPlan:
    site = rig.site("rack", "private", hardware=(rig.hardware(count=4),), availability=0.995)
    w = [
        rig.workload("a", fallback="required", residency=("EU",), current_site="rack"),
        rig.workload("b", sensitivity="restricted", first_token=5000.0, quality={"accuracy": 0.8}),
    ]
    plain = rig.company(*w, policy=PolicyFacts(spread=2, max_moves=1))
    return plan_company(replace(plain, sites={**plain.sites, "rack": site}))


def primary(name: str, **changes: Any) -> Callable[[PlanClaim], PlanClaim]:
    """The same claim with another first place of one workload."""

    def made(one: PlanClaim) -> PlanClaim:
        placed = one.placed[name]
        return replace(one, placed={**one.placed, name: replace(placed, primary=replace(placed.primary, **changes))})

    return made


def parts(name: str, **changes: Any) -> Callable[[PlanClaim], PlanClaim]:
    return lambda one: replace(one, placed={**one.placed, name: replace(one.placed[name], **changes)})


MUTATIONS: list[tuple[str, Callable[[PlanClaim], PlanClaim]]] = [
    ("residency", primary("a", site="far", kind="build")),
    ("sensitivity", primary("b", site="cloud", kind="build")),
    ("site", primary("a", site="nowhere")),
    ("deployment", primary("a", kind="deployment", config="cheap")),
    ("spot", primary("a", lease="spot")),
    ("capacity", primary("b", hardware="h100-sxm", units=40.0)),
    ("domain", lambda one: parts("a", fallback=one.placed["a"].primary)(one)),
    ("fallback", parts("a", fallback=None)),
    ("burst", parts("a", share=0.5)),
    ("opening", lambda one: replace(one, opened=frozenset())),
    ("cost", parts("a", usd=10.0**9)),
    ("moves", lambda one: replace(primary("a", site="cloud", kind="build")(primary("b", site="cloud")(one)),
                                  may_stay=frozenset({"a", "b"}))),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "mutate"), MUTATIONS, ids=[kind for kind, _ in MUTATIONS])
def test_the_second_verifier_catches_each_mutated_plan(
    sound: CompanyPlan, kind: str, mutate: Callable[[PlanClaim], PlanClaim]
) -> None:
    claim = build_claim(sound)
    assert find_violations(sound.company, claim) == ()
    assert kind in {each.kind for each in find_violations(sound.company, mutate(claim))}


FACTS: list[tuple[str, dict[str, Any]]] = [
    ("latency", {"first_token": 1.0}),
    ("certification", {"certifications": frozenset({"c5"})}),
    ("quality", {"quality": {"accuracy": 0.99}}),
    ("availability", {"requires_availability": True, "availability": 0.99999999}),
    ("offline", {"offline": True}),
]


@pytest.mark.parametrize(("kind", "facts"), FACTS, ids=[kind for kind, _ in FACTS])
def test_the_second_verifier_reads_what_was_declared(sound: CompanyPlan, kind: str, facts: dict[str, Any]) -> None:
    stricter = {name: replace(w, **facts) for name, w in sound.company.workloads.items()}
    found = find_violations(replace(sound.company, workloads=stricter), build_claim(sound))
    assert kind in {each.kind for each in found}


def test_what_is_too_dear_to_be_counted_is_a_rule_and_not_a_wrong_price() -> None:
    with pytest.raises(Conflict, match=r"more than \$2,000,000 a month"):
        plan_company(rig.company(rig.workload("a", sensitivity="confidential", calls_month=1e9), models={}))


def test_quotas_weights_spread_and_terms_are_read_too(sound: CompanyPlan) -> None:
    claim, facts = build_claim(sound), sound.company
    models = {rig.LLAMA.name: replace(rig.LLAMA, sites=("cloud",))}
    assert "weights" in {each.kind for each in find_violations(replace(facts, models=models), claim)}
    assert "spread" in {each.kind for each in find_violations(replace(facts, policy=PolicyFacts(spread=0)), claim)}
    hosted = rig.company(rig.workload("a", sensitivity="confidential", calls_month=1e8))
    gpt = next(c for c in plan_company(hosted).framed.candidates.by_workload["a"] if c.config == "gpt")
    strict = replace(hosted.deployments["gpt"], trains=True, quota_tokens_minute=10.0)
    one = PlanClaim({"a": PlacedWorkload(gpt)}, frozenset({"cloud"}), {}, 1e12)
    kinds = {each.kind for each in find_violations(replace(hosted, deployments={"gpt": strict}), one)}
    assert {"terms", "quota"} <= kinds


CLOUDS = st.fixed_dictionaries(
    {
        "on_demand": st.sampled_from([None, 2.0, 5.0]),
        "spot": st.sampled_from([None, 0.7]),
        "reserved": st.sampled_from([None, 1.5]),
        "count": st.sampled_from([0, 0, 3]),
        "max_units": st.sampled_from([1, 8, 64]),
        "memory_gb": st.sampled_from([40.0, 80.0]),
    }
)
ASKED = st.fixed_dictionaries(
    {
        "calls_month": st.floats(1e3, 8e7),
        "peak": st.sampled_from([1.0, 3.0, 12.0]),
        "curve": st.sampled_from(["steady", "business-hours", "spiky", "campaign"]),
        "models": st.sampled_from([(), (), (rig.LLAMA.name,), (BIG.name,)]),
        "sensitivity": st.sampled_from(["public", "internal", "restricted"]),
        "fallback": st.sampled_from(["none", "wanted", "required"]),
        "availability": st.sampled_from([None, 0.99, 0.9995, 0.99999]),
        "requires_availability": st.booleans(),
        "spot": st.booleans(),
        "burst": st.booleans(),
        "current_site": st.sampled_from([None, "cloud", "rack"]),
        "stage": st.sampled_from(["production", "pilot"]),
        "first_token": st.sampled_from([None, 500.0, 3000.0]),
    }
)


def make_workload(number: int, facts: dict[str, Any]) -> Any:
    shape = weekly_curve(facts["curve"], facts["peak"])
    return rig.workload(f"w{number}", **{**facts, "curve": shape, "peak": max(shape)})


@given(st.lists(ASKED, min_size=1, max_size=5), CLOUDS, st.sampled_from([None, 0, 1, 3]), st.sampled_from([None, 2]))
@settings(max_examples=60, deadline=None)
def test_no_sound_plan_is_refused_by_the_second_verifier(
    workloads: list[dict[str, Any]], cloud: dict[str, Any], most_moves: int | None, spread: int | None
) -> None:
    """Whatever is declared: a plan that both verifiers pass, or a conflict that is told; never one that is refused."""
    made = replace(rig.hardware("h100-sxm", 0), owned_month=500.0 if cloud["count"] else None, **cloud)
    sites = {
        "cloud": rig.site("cloud", hardware=(made,)),
        "rack": rig.site("rack", "private", hardware=(rig.hardware(count=2),), availability=0.995),
    }
    facts = rig.company(
        *(make_workload(number, each) for number, each in enumerate(workloads)),
        sites=sites,
        models={rig.LLAMA.name: rig.LLAMA, BIG.name: BIG},
        deployments={"gpt": rig.deployment("gpt", "cloud", 1.0, quota_tokens_minute=5e6)},
        policy=PolicyFacts(max_moves=most_moves, spread=spread),
    )
    try:
        plan = plan_company(facts, WorkLimit(work=20, gap=1e-4))
    except Conflict:
        return
    assert find_violations(facts, build_claim(plan)) == ()
    assert set(plan.placements) | set(plan.unplaceable) == set(facts.workloads)
