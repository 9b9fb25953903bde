"""What an approval is bound to: everything that is said, and nothing that only a newer version of the program knows."""

from __future__ import annotations

from datetime import date

import msgspec

from groundplan.blueprint.model import Blueprint, Deployment, Grounding, Rates, Site, Workload
from groundplan.governance.decide import decide_workload
from groundplan.governance.model import ApprovalStatus, Caps
from groundplan.release import units
from groundplan.release.undo import unrestorable

PLACE = Deployment(name="d", site="s", model="m", upstream_model="m", url="http://x/v1", rates=Rates(input=1, output=1))
TIMED = msgspec.structs.replace(PLACE, first_token_ms=5000, first_token_declared=True)
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


def blueprint(workload: Workload = WORKLOAD, place: Deployment = PLACE) -> Blueprint:
    sites = [Site(name="s", type="cloud", jurisdiction="EU")]
    return Blueprint(
        number=1, company="acme", separation="enforced", sites=sites, deployments=[place], sources=[],
        workloads=[workload], budgets=[], placements=[],
    )  # fmt: skip


def digest(workload: Workload = WORKLOAD, place: Deployment = PLACE) -> str:
    return units.workload_digest(blueprint(workload, place), workload)


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


def test_what_was_approved_or_withdrawn_before_an_upgrade_is_after_it() -> None:
    """`TIMED` as versions of 26 to 29 November 2026 digested it, and as one of the 30th did."""
    declared = blueprint(place=TIMED)
    before, on_the_30th = (
        "e9d6446dd00a60785fb5ee6335da26e0669d5a9409713795758b5dc7c1e2032a",
        "5c01cf3f4676eb765b034ef0c3cb699281c864b39f50ef20f28640f418109a7d",
    )
    after = units.terms(declared, WORKLOAD)
    assert (after.digest, after.former_digests) == (before, (on_the_30th,))
    assert digest() == digest(place=msgspec.structs.replace(PLACE, first_token_declared=True))
    served = units.terms(blueprint(place=msgspec.structs.replace(TIMED, first_token_declared=False)), WORKLOAD)
    today, caps = date(2026, 12, 1), Caps(people=100, calls_per_day=1000, sensitivity="internal", days=90)
    for noted in (before, on_the_30th):
        pair = frozenset({(after.subject, noted)})
        given, withdrawn = ApprovalStatus(approved=pair), ApprovalStatus(approved=pair, revoked=pair)
        assert decide_workload(None, after, caps=caps, standing=given, today=today).needs == ()
        assert decide_workload(None, after, caps=caps, standing=withdrawn, today=today).needs
        assert decide_workload(served, after, caps=caps, standing=withdrawn, today=today).needs
        assert "withdrawn" in unrestorable(declared, declared, withdrawn, {}, today)[after.subject]
        assert pair <= set(units.served_units(declared))
    assert decide_workload(served, after, caps=caps, standing=ApprovalStatus(), today=today).needs == (), (
        "served as it is"
    )
