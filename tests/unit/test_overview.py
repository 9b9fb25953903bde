"""Which workloads of thousands are drawn and listed, and how their sites are, from live figures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from tests.integration.gateway_stack import blueprint, deployment, workload

from groundplan.api import overview
from groundplan.blueprint.model import Alternative, Placement
from groundplan.catalog.loader import load_files
from groundplan.core.money import PICO

WORKSPACE = "kind: company\nname: acme\nformat: 1\n" + "".join(
    f"---\nkind: workload\nname: {name}\npurpose: Answers {about}\naudience: employees\nstage: {stage}\n"
    f"sensitivity: internal\nowners: {{business: {owner}@acme.example}}\n"
    for name, about, stage, owner in (
        ("a", "staff", "pilot", "ana"),
        ("b", "staff", "pilot", "ben"),
        ("c", "customers", "pilot", "ana"),
        ("d", "staff", "proposed", "ana"),
    )
)


def picture(
    serving: dict[str, str], calls: dict[str, float], failing: dict[str, bool] | None = None, more: tuple[Any, ...] = ()
) -> overview.WorkloadsView:
    """Three workloads at site-x, one of which falls back to site-y, and one that is not served. `more`: deployments
    that the third one falls back to."""
    made = blueprint(
        1,
        [deployment("x", 1), deployment("y", 1), *more],
        [workload("a", ["x", "y"]), workload("b", ["x"]), workload("c", ["x", *(each.name for each in more)])],
    )
    return overview.WorkloadsView(
        blueprint=made,
        workspace=load_files({"acme.yaml": WORKSPACE}),
        served={each.name: each for each in made.workloads},
        placements={},
        sites={each.name: each.site for each in made.deployments},
        pending={},
        killed=frozenset(),
        figures=overview.Figures({"c": "2.5"}, {}, {}, calls, serving, failing or {}),
        now=datetime.now(UTC),
    )


@pytest.mark.parametrize(
    ("most", "chosen", "told"),
    [
        (4, None, ["a", "b", "c", "d"]),
        (2, None, ["b", "d"]),
        (2, "c", ["c", "d"]),
    ],
)
def test_the_busiest_of_each_site_are_drawn_and_the_one_that_was_chosen(
    most: int, chosen: str | None, told: list[str]
) -> None:
    assert overview.select_workloads(picture({}, {"a": 1.0, "b": 9.0}), most, chosen) == told
    moved = picture({"a": "site-y"}, {"b": 9.0})
    assert overview.select_workloads(moved, 2, None) == ["a", "d"], "what goes elsewhere comes before what is only busy"


@pytest.mark.parametrize(
    ("failing", "port", "down", "told"),
    [
        ({}, 2, False, []),
        ({"x": False, "z": False}, 2, True, ["x", "z"]),
        ({"z": True}, 2, False, ["z"]),
        ({"z": True}, 1, True, ["z"]),
        ({"z": False}, 1, False, ["z"]),
        ({"y": True}, 2, False, []),
    ],
)
def test_a_site_is_down_only_where_all_fails_that_workloads_use_there(
    failing: dict[str, bool], port: int, down: bool, told: list[str]
) -> None:
    """One dead deployment says nothing about another that nobody calls just then, unless their address is silent."""
    other = replace(deployment("z", port), site="site-x")
    sites = {each["name"]: each for each in overview.sites_json(picture({"a": "site-y"}, {}, failing, (other,)))}
    assert (sites["site-x"]["down"], sites["site-x"]["failing"]) == (down, told)
    assert sites["site-x"]["deployments"] == ["x", "z"] and sites["site-y"]["used"]
    assert sites["site-y"]["down"] is ("y" in failing)


@pytest.mark.parametrize(
    ("failing", "told", "all_there"),
    [
        ({}, [], False),
        ({"y": True}, ["y"], False),
        ({"x": False}, ["x"], True),
        ({"x": False, "y": True}, ["x", "y"], True),
    ],
)
def test_a_workload_says_which_of_its_deployments_fail(
    failing: dict[str, bool], told: list[str], all_there: bool
) -> None:
    view = picture({"a": "site-y"}, {}, failing)
    item = overview.workload_json(view, view.workspace.workloads["a"], {})
    assert (item["failing"], item["site_failing"]) == (told, all_there), "a hedge that won elsewhere is no failure"


@pytest.mark.parametrize(
    ("search", "site", "told"),
    [
        ("", "", ["a", "b", "c", "d"]),
        ("STAFF ana", "", ["a", "d"]),
        ("customers", "site-x", ["c"]),
        ("", "site-y", []),
        ("nobody", "", []),
    ],
)
def test_workloads_are_found_by_words_and_by_site(search: str, site: str, told: list[str]) -> None:
    assert overview.search_workloads(picture({}, {}), search, site) == told


def test_where_a_workload_does_not_run_is_said_by_rule_or_by_what_it_would_cost() -> None:
    def place(name: str, monthly: int | None, *reasons: str) -> Alternative:
        return Alternative(deployment=name, site=name, allowed=not reasons, reasons=list(reasons), monthly=monthly)

    places = [place("here", 3 * PICO), place("us", PICO, "outside EU"), place("rack", PICO), place("cloud", 4 * PICO)]
    found = Placement(workload="a", primary="here", fallbacks=[], alternatives=places, binding="")
    told = {"us": "outside EU", "rack": "$2.00/month less", "cloud": "$1.00/month more"}
    assert overview.placement_obstacles(found, "here") == told and overview.placement_obstacles(None, None) == {}
