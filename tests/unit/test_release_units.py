"""What an approval is bound to: everything that is said, and nothing that only a newer version of the program knows."""

from __future__ import annotations

import msgspec

from groundplan.blueprint.model import Blueprint, Deployment, Grounding, Rates, Site, Workload
from groundplan.release import units

PLACE = Deployment(name="d", site="s", model="m", upstream_model="m", url="http://x/v1", rates=Rates(input=1, output=1))
WORKLOAD = Workload(
    name="assistant",
    purpose="Answer",
    stage="production",
    sensitivity="internal",
    audience="employees",
    residency=[],
    deployments=["d"],
    budgets=[],
    grounding=Grounding(sources=[]),
)


def digest(workload: Workload = WORKLOAD, place: Deployment = PLACE) -> str:
    sites = [Site(name="s", type="cloud", jurisdiction="EU")]
    blueprint = Blueprint(
        number=1, company="acme", separation="enforced", sites=sites, deployments=[place], sources=[],
        workloads=[workload], budgets=[], placements=[],
    )  # fmt: skip
    return units.workload_digest(blueprint, workload)


def test_a_field_that_a_newer_version_adds_ends_no_approval() -> None:
    class Newer(Workload, frozen=True, kw_only=True):
        something: int = 7
        more: list[str] = msgspec.field(default_factory=list)

    newer = Newer(**{name: getattr(WORKLOAD, name) for name in WORKLOAD.__struct_fields__})
    assert digest(newer) == digest()
    assert digest(msgspec.structs.replace(newer, something=8)) != digest()
    assert digest(msgspec.structs.replace(newer, more=["x"])) != digest()


def test_what_is_said_is_bound_also_inside_of_others() -> None:
    deeper = msgspec.structs.replace(WORKLOAD, grounding=Grounding(sources=[], passages=9))
    assert digest(deeper) != digest()
    assert digest(place=msgspec.structs.replace(PLACE, api="anthropic")) != digest()
