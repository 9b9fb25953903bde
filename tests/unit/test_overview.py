"""Which workloads of thousands are drawn and listed, and how their sites are, from live figures."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
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


def picture(serving: dict[str, str], calls: dict[str, float]) -> overview.WorkloadsView:
    """Three workloads at site-x, one of which falls back to site-y, and one that is not served."""
    made = blueprint(
        1,
        [deployment("x", 1), deployment("y", 1)],
        [workload("a", ["x", "y"]), workload("b", ["x"]), workload("c", ["x"])],
    )
    return overview.WorkloadsView(
        blueprint=made,
        workspace=load_files({"acme.yaml": WORKSPACE}),
        served={each.name: each for each in made.workloads},
        placements={},
        sites={each.name: each.site for each in made.deployments},
        pending={},
        killed=frozenset(),
        figures=overview.Figures({"c": "2.5"}, {}, {}, calls, serving, frozenset()),
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


def test_a_site_is_left_only_where_none_of_its_workloads_is_answered_there() -> None:
    for serving, left in (({}, False), ({"a": "site-y"}, True), ({"a": "site-y", "b": "site-x"}, False)):
        sites = {each["name"]: each for each in overview.sites_json(picture(serving, {}))}
        assert (sites["site-x"]["left"], sites["site-x"]["used"], sites["site-y"]["used"]) == (left, True, True)
        assert sites["site-x"]["deployments"] == ["x"]


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
