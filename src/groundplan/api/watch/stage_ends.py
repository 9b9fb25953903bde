"""Background check: findings on experiments and pilots whose last day is near or over. From the day after it gateways
refuse their calls, without any change. They close when the workload goes on, or is retired."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.blueprint.model import Blueprint
from groundplan.governance.validity import ANNOUNCEMENT_DAYS
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

KIND = "governance.stage_ends"
LOOK_SECONDS = 600.0
STAGES_WITH_END = ("experiment", "pilot")
"""Production does not end by a date."""
HINT = "Retire it, move it to production, or set limits.expires to a later day (which needs approval)."


def update_findings(services: Services) -> finding_store.FindingChanges:
    """Bring the findings up to date."""
    today = services.clock.now().date()
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        findings = [] if blueprint is None else list(stage_end_findings(blueprint, today))
        return finding_store.replace_findings(conn, findings, kinds=(KIND,))


def stage_end_findings(blueprint: Blueprint, today: date) -> Iterator[Finding]:
    """Findings on stages that end within a month, as for approvals, or have ended."""
    for workload in blueprint.workloads:
        if workload.stage not in STAGES_WITH_END or not workload.expires:
            continue
        last = date.fromisoformat(workload.expires)
        days_left = (last - today).days
        if days_left <= ANNOUNCEMENT_DAYS[-1]:
            message = (
                f"ended on {last}: its calls are refused"
                if days_left < 0
                else f"ends on {last}, and is refused after it"
            )
            yield Finding(
                kind=KIND,
                severity="high" if days_left <= ANNOUNCEMENT_DAYS[1] else "medium",
                subject=f"workload/{workload.name}",
                owner=next(iter(workload.owners.get("business", ())), None),
                message=f"The {workload.stage} of {workload.name} {message}.",
                hint=HINT,
                due=last,
            )
