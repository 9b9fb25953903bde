"""What management reviews: coverage, gaps and drift of every framework since the last review; corrective actions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, StringConstraints

from groundplan.api import controls, corrective_actions
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn, require_duty
from groundplan.api.context import ServicesDep
from groundplan.api.routes.controls import EVIDENCE_DUTIES, Text
from groundplan.api.served_blueprint import current_blueprint, require_workload
from groundplan.governance.controls import evidence_store
from groundplan.governance.controls.assess import DecisiveEvidence, assess, coverage
from groundplan.governance.controls.drift import ACTION, drift
from groundplan.governance.controls.model import AppliedFramework
from groundplan.ledger import finding_store

router = protected_router("controls")
REVIEW = "review.periodic"
PERIOD = timedelta(days=90)


class Act(BaseModel):
    """What is to be put right."""

    model_config = ConfigDict(extra="forbid")
    says: Text
    control: Annotated[str, StringConstraints(max_length=120)] = ""
    """`FRAMEWORK/CONTROL`, where it is for one."""
    workload: Annotated[str, StringConstraints(max_length=63)] | None = None
    """None: for the company as a whole."""
    owner: Annotated[str, StringConstraints(min_length=3, max_length=254)]
    """E-mail address of who does it."""
    due: date


@router.get("/management-review")
def review(
    services: ServicesDep,
    _: Reader,
    since: date | None = None,
    limit: Annotated[int | None, Query(ge=1, le=1000)] = None,
) -> dict[str, Any]:
    """Since the last review (`review.periodic` that somebody gave), a day, or 90 days: how far each framework is, which
    controls are in another state than then and which are not satisfied; corrective actions, and findings by gravity.
    With `limit` so many `gaps` and so much `drift` of each framework, and how many more there are (`more_gaps`,
    `more_drift`)."""
    now = services.clock.now()
    with services.transaction() as conn:
        reviews = [
            each for each in evidence_store.list_evidence(conn, what=REVIEW, limit=1) if not each["withdrawn_at"]
        ]
        last = reviews[0] if reviews else None
        then = (
            datetime(since.year, since.month, since.day, tzinfo=UTC)
            if since is not None
            else (last["at"] if last else now - PERIOD)
        )  # fmt: skip
        before, known = controls.decisive_evidence(conn, then), controls.decisive_evidence(conn, now)
        frameworks = [_framework(one, before, then, known, now, limit) for one in controls.frameworks(conn, now)]
        actions = finding_store.list_findings(conn, kinds=[ACTION], closed=True, limit=1000)
        told = finding_store.list_findings(conn, closed=True, limit=1000)  # with quiet ones: silence is not an end
        grave = [each for each in told if each["closed_at"] is None]
    return {
        "since": then,
        "last_review": None if last is None else {name: last[name] for name in ("at", "says", "subject", "collector")},
        "frameworks": frameworks,
        "actions": [each for each in actions if each["closed_at"] is None or each["closed_at"] >= then],
        "findings": {
            severity: sum(each["severity"] == severity for each in grave) for severity in ("critical", "high", "medium")
        },
    }


def _framework(
    one: AppliedFramework,
    before: DecisiveEvidence,
    then: datetime,
    known: DecisiveEvidence,
    now: datetime,
    most: int | None,
) -> dict[str, Any]:
    standings = assess(one, known, now)
    gaps = [(name, each) for name, found in standings.items() for each in found if each.state in ("open", "expired")]
    moved = drift(one, assess(one, before, then), standings)
    return {
        "name": one.framework.name,
        "title": one.framework.title,
        "coverage": {name: coverage(each) for name, each in standings.items()},
        "gaps": [
            {"workload": name, "control": each.control.id, "title": each.control.title, "state": each.state}
            for name, each in gaps[:most]
        ],
        "more_gaps": len(gaps[most:]) if most is not None else 0,
        "drift": [asdict(each) for each in moved[:most]],
        "more_drift": len(moved[most:]) if most is not None else 0,
    }


@router.post("/actions", status_code=201)
def act(body: Act, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """A corrective action: a finding of its owner, grave when its day is over, closed by saying what was done."""
    subject = "company" if body.workload is None else f"workload/{body.workload}"
    require_duty(caller, EVIDENCE_DUTIES, subject)
    with services.transaction() as conn:
        if body.workload is not None:
            require_workload(current_blueprint(conn), body.workload)
        wanted = corrective_actions.CorrectiveAction(subject, body.says, body.control, body.owner, body.due)
        id = corrective_actions.add_action(conn, caller.actor, wanted, services.clock.now())
    return {"finding": id, "subject": subject, "due": body.due}
