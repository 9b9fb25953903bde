"""Hours of people: each has a source or says that it is assumed, with a range, and what hangs on the range is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from benchmarks.placement_burden import ENDS, burden_rows, example_company, plan_or_none, with_burden
from tests.unit import placement_rig as rig

from groundplan.catalog.demand import PlacementPolicy
from groundplan.core.money import PICO
from groundplan.placement.reference.store import load_reference
from groundplan.placement.terms import site_defaults
from groundplan.placement.terms.facts import Company

TYPES = ("cloud", "private", "edge")


def tasks() -> dict[str, dict[str, Any]]:
    found = load_reference("burden")
    return {
        f"{what} {type_}: {name}": task
        for what in ("site", "model")
        for type_ in TYPES
        for name, task in found[what][type_].items()
    } | {"wage": {"hours": found["wage"]["usd"], **found["wage"]}}


def test_each_figure_is_within_its_range_and_says_where_it_is_from() -> None:
    sources = load_reference("burden")["sources"]
    for name, task in tasks().items():
        assert 0 < task["low"] < task["hours"] < task["high"], name
        assert task["from"] in sources, name
    for source in set(sources) - {"assumption"}:
        assert any(year in sources[source] for year in ("2010", "2016", "2018", "2022", "2024")), source
    assert PlacementPolicy().people == load_reference("burden")["wage"]["usd"] * PICO


def test_hours_of_staffing_are_those_that_its_source_gives() -> None:
    """160 hours over 10 to 50 servers each, of four servers: the three tasks together, at both ends."""
    staffed = [
        task
        for task in load_reference("burden")["site"]["private"].values()
        if task["from"] in ("staffing", "failures")
    ]
    low, stated, high = (sum(task[end] for task in staffed) for end in ENDS)
    assert (low, high) == (round(4 * 160 / 50), 4 * 160 / 10) and low < stated < 4 * 160 / 30


@pytest.mark.parametrize("type_", TYPES)
def test_a_site_that_declares_nothing_has_the_stated_hours(type_: str) -> None:
    assert (
        site_defaults.burden("site", type_, "low")
        < site_defaults.burden("site", type_)
        < site_defaults.burden("site", type_, "high")
    )


def test_the_example_s_places_do_not_hang_on_the_range() -> None:
    found = burden_rows(example_company())
    assert len(found) == 9 and all(each["workloads"] >= 4 for each in found)
    assert {name for each in found for name in each["flips"]} <= FLIPS
    by_end = {(each["hours"], each["wage"]): each for each in found}
    assert (
        by_end["low", "low"]["people_usd"]
        < by_end["hours", "hours"]["people_usd"]
        < by_end["high", "high"]["people_usd"]
    )
    assert not by_end["hours", "hours"]["flips"]


FLIPS: set[str] = set()
"""of the example, over the range"""


def near() -> Company:
    """A workload for which a rack and a cloud cost nearly the same."""
    sites = {
        "cloud": rig.site("cloud", burden_hours=6.0, model_hours=1.0),
        "rack": rig.site("rack", "private", hardware=(rig.hardware(count=1),), burden_hours=34.0, model_hours=8.0),
    }
    deployments = {"gpt": rig.deployment("gpt", "cloud", 1.0)}
    return rig.company(rig.workload("chat", calls_month=3e6, burst=False), sites=sites, deployments=deployments)


def test_where_own_and_rented_are_near_the_hours_decide_and_it_is_seen() -> None:
    company = near()
    stated, cheap, dear = (plan_or_none(with_burden(company, end, end)) for end in ("hours", "low", "high"))
    assert stated is not None and cheap is not None and dear is not None
    assert cheap.placements["chat"].primary.site == "rack" and dear.placements["chat"].primary.site == "cloud"
    flips = [(each["hours"], each["wage"]) for each in burden_rows(company) if each["flips"]]
    assert flips and ("hours", "hours") not in flips
    declared = replace(company, policy=replace(company.policy, people_usd=0.0))
    assert not [each for each in burden_rows(declared) if each["flips"]], "hours that cost nothing decide nothing"
