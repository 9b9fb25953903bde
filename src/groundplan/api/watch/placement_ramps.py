"""Background check: a ramp moves to its next step when a step is over and the new deployment serves well.

A new deployment at which more than one attempt in twenty fails gets no more calls; a finding says how to go back.
"""

from __future__ import annotations

from datetime import timedelta

from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.ledger import daily_store, finding_store
from groundplan.ledger.finding import Finding
from groundplan.release.ramping import active_ramps

LOOK_SECONDS = 30.0
KIND = "placement.ramp_held"
OBSERVED_PERIOD = timedelta(hours=1)
MIN_ATTEMPTS = 20
"""Fewer attempts are not judged."""
MAX_FAILED_SHARE = 0.05


def advance_due_ramps(services: Services) -> int | None:
    """Take each step that is due; returns the number of the blueprint that was made. Idempotent."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        ramps = active_ramps(blueprint) if blueprint is not None else {}
        rows = []
        if ramps:
            targets = sorted({ramp.to for ramp in ramps.values()})
            rows = daily_store.attempts_since(conn, services.clock.now() - OBSERVED_PERIOD, targets)
        failing = {
            row["deployment"]: row["failed"] / row["attempts"]
            for row in rows
            if row["attempts"] >= MIN_ATTEMPTS and row["failed"] > MAX_FAILED_SHARE * row["attempts"]
        }
        owners = {} if blueprint is None else {
            item.name: next(iter(item.owners.get("architecture", ())), None) for item in blueprint.workloads
        }  # fmt: skip
        findings = [
            Finding(
                kind=KIND,
                severity="high",
                subject=f"workload/{name}",
                message=f"{100 * failing[ramp.to]:.0f}% of the attempts at {ramp.to} fail: it keeps {ramp.share}% of "
                "the calls",
                hint="It continues by itself once they succeed; `groundplan rollback` returns to the previous site.",
                owner=owners.get(name),
                detail={"to": ramp.to, "origin": ramp.origin, "share": ramp.share, "failing": failing[ramp.to]},
            )
            for name, ramp in sorted(ramps.items())
            if ramp.to in failing
        ]
        finding_store.replace_findings(conn, findings, kinds=[KIND])
        return services.releases.advance_ramps(conn, frozenset(failing)) if ramps else None
