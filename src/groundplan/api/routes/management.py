"""Management reviews (coverage, gaps and drift of each framework since the last review) and corrective actions."""

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
    """A corrective action."""

    model_config = ConfigDict(extra="forbid")
    says: Text
    control: Annotated[str, StringConstraints(max_length=120)] = ""
    """`FRAMEWORK/CONTROL`, if the action is about a control."""
    workload: Annotated[str, StringConstraints(max_length=63)] | None = None
    """None: the company as a whole."""
    owner: Annotated[str, StringConstraints(min_length=3, max_length=254)]
    """E-mail address of the person who carries it out."""
    due: date


@router.get("/management-review")
def review(
    services: ServicesDep,
    _: Reader,
    since: date | None = None,
    limit: Annotated[int | None, Query(ge=1, le=1000)] = None,
) -> dict[str, Any]:
    """The material of a management review, since the last one (evidence `review.periodic`), since a given day, or since
    90 days ago.

    For each framework: coverage, controls whose state changed (`drift`) and controls that are not satisfied (`gaps`).
    Also corrective actions, and the number of open findings by severity. With `limit` at most so many gaps and changes
    per framework; `more_gaps` and `more_drift` count the others.
    """
    now = services.clock.now()
    with services.transaction() as conn:
        reviews = [row for row in evidence_store.list_evidence(conn, what=REVIEW, limit=1) if not row["withdrawn_at"]]
        last = reviews[0] if reviews else None
        since_time = (
            datetime(since.year, since.month, since.day, tzinfo=UTC)
            if since is not None
            else (last["at"] if last else now - PERIOD)
        )  # fmt: skip
        earlier_evidence, evidence = controls.decisive_evidence(conn, since_time), controls.decisive_evidence(conn, now)
        frameworks = [
            _framework(applied, earlier_evidence, since_time, evidence, now, limit)
            for applied in controls.frameworks(conn, now)
        ]
        actions = finding_store.list_findings(conn, kinds=[ACTION], closed=True, limit=1000)
        # `closed=True` also returns snoozed findings, which are still open
        all_findings = finding_store.list_findings(conn, closed=True, limit=1000)
        open_findings = [finding for finding in all_findings if finding["closed_at"] is None]
    return {
        "since": since_time,
        "last_review": None if last is None else {name: last[name] for name in ("at", "says", "subject", "collector")},
        "frameworks": frameworks,
        "actions": [action for action in actions if action["closed_at"] is None or action["closed_at"] >= since_time],
        "findings": {
            severity: sum(finding["severity"] == severity for finding in open_findings)
            for severity in ("critical", "high", "medium")
        },
    }


def _framework(
    applied: AppliedFramework,
    earlier_evidence: DecisiveEvidence,
    since: datetime,
    evidence: DecisiveEvidence,
    now: datetime,
    limit: int | None,
) -> dict[str, Any]:
    """The state of one framework now and what changed since `then`, with at most `limit` gaps and changes."""
    standings = assess(applied, evidence, now)
    gaps = [
        (name, status)
        for name, framework_statuses in standings.items()
        for status in framework_statuses
        if status.state in ("open", "expired")
    ]
    changed = drift(applied, assess(applied, earlier_evidence, since), standings)
    return {
        "name": applied.framework.name,
        "title": applied.framework.title,
        "coverage": {name: coverage(status) for name, status in standings.items()},
        "gaps": [
            {"workload": name, "control": status.control.id, "title": status.control.title, "state": status.state}
            for name, status in gaps[:limit]
        ],
        "more_gaps": len(gaps[limit:]) if limit is not None else 0,
        "drift": [asdict(status) for status in changed[:limit]],
        "more_drift": len(changed[limit:]) if limit is not None else 0,
    }


@router.post("/actions", status_code=201)
def act(body: Act, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Record a corrective action: a finding for its owner, raised to high severity once it is overdue, and closed by
    reporting what was done."""
    subject = "company" if body.workload is None else f"workload/{body.workload}"
    require_duty(caller, EVIDENCE_DUTIES, subject)
    with services.transaction() as conn:
        if body.workload is not None:
            require_workload(current_blueprint(conn), body.workload)
        action = corrective_actions.CorrectiveAction(subject, body.says, body.control, body.owner, body.due)
        finding_id = corrective_actions.add_action(conn, caller.actor, action, services.clock.now())
    return {"finding": finding_id, "subject": subject, "due": body.due}
