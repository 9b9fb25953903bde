"""`keep:` is declared, compiled, and for restricted data waits for security and compliance, which the plan says."""

from __future__ import annotations

from datetime import date

import pytest
from tests.unit.test_governance import PILOT

from groundplan.blueprint.model import Caps, Keep
from groundplan.catalog.loader import load_files
from groundplan.core.errors import Invalid
from groundplan.governance.decide import decide_workload
from groundplan.governance.model import ApprovalStatus, Need, Terms
from groundplan.release.plan import plan

TODAY = date(2026, 11, 25)
WORKSPACE = """\
kind: company
name: acme
caps: {{sensitivity: restricted}}
---
kind: site
name: here
type: private
jurisdiction: EU
---
kind: deployment
name: model
site: here
model: acme/model
url: http://127.0.0.1:9/v1
price: free
---
kind: workload
name: assistant
purpose: Answer
stage: pilot
sensitivity: {sensitivity}
keep: {keep}
owners: {{business: ana@acme.example}}
---
kind: budget
name: assistant
covers: workload/assistant
limit: 10 USD/month
"""


def planned(keep: str, sensitivity: str = "internal") -> tuple[Keep | None, list[str]]:
    """What would be served of `keep`, and the duties that are waited for."""
    made = plan(load_files({"acme.yaml": WORKSPACE.format(keep=keep, sensitivity=sensitivity)}), None, today=TODAY)
    assert not made.refusals, made.refusals
    waits = [need.duty for pending in made.pending for need in pending.needs]
    workloads = made.blueprint.workloads if made.blueprint else []
    return (workloads[0].keep if workloads else None), waits


@pytest.mark.parametrize(
    ("keep", "compiled"),
    [
        ("{}", None),
        ("{content: none, for: 3d}", None),
        ("{content: full, share: 0%}", None),
        ("{content: redacted}", Keep(content="redacted", seconds=30 * 86_400)),
        ("{content: full, for: 7 days, share: 10%}", Keep(content="full", seconds=7 * 86_400, share=1000)),
    ],
)
def test_it_is_compiled(keep: str, compiled: Keep | None) -> None:
    assert planned(keep) == (compiled, [])


@pytest.mark.parametrize("keep", ["{content: all}", "{for: 1s}", "{for: 99999d}", "{share: 0.1}", "{until: 3d}", "yes"])
def test_what_makes_no_sense_is_refused(keep: str) -> None:
    with pytest.raises(Invalid):
        planned(keep)


def test_restricted_content_waits_for_security_and_compliance() -> None:
    assert planned("{content: redacted}", "restricted") == (None, ["security", "compliance"])
    assert planned("{content: none}", "restricted")[1] == []


def terms(keeps: str, sensitivity: str = "restricted", digest: str = "new") -> Terms:
    made = {field: getattr(PILOT, field) for field in Terms.__slots__}
    return Terms(**{**made, "keeps": keeps, "sensitivity": sensitivity, "digest": digest})


@pytest.mark.parametrize(
    ("before", "after", "waits"),
    [
        ("redacted", "redacted", False),
        ("redacted", "full", True),
        ("full", "redacted", False),
        ("none", "redacted", True),
        ("full", "none", False),
    ],
)
def test_only_keeping_more_than_now_needs_approval(before: str, after: str, waits: bool) -> None:
    caps = Caps(sensitivity="restricted")
    decision = decide_workload(
        terms(before, digest="old"), terms(after), caps=caps, standing=ApprovalStatus(), today=TODAY
    )
    needs = (Need(PILOT.subject, "security"), Need(PILOT.subject, "compliance")) if waits else ()
    assert decision.needs == needs


def test_data_that_becomes_restricted_does_not_take_its_content_along() -> None:
    caps = Caps(sensitivity="restricted")
    decision = decide_workload(
        terms("full", "internal", "old"), terms("full"), caps=caps, standing=ApprovalStatus(), today=TODAY
    )
    assert [need.duty for need in decision.needs] == ["security", "compliance"]
