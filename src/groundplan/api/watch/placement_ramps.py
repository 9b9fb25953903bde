"""Beside the requests: a gradual change of place goes a step further when a step is over and the new place serves well.

A new place at which more than one attempt in twenty fails gets no more calls; the finding says how to go back.
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
WITHIN = timedelta(hours=1)
LEAST = 20
"""attempts: fewer say nothing"""
FAILING = 0.05


def look(services: Services) -> int | None:
    """Take each step that is due; the number of the blueprint that was made. Looking twice is looking once."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        wanted = active_ramps(blueprint) if blueprint is not None else {}
        rows = []
        if wanted:
            places = sorted({ramp.to for ramp in wanted.values()})
            rows = daily_store.attempts_since(conn, services.clock.now() - WITHIN, places)
        failing = {
            row["deployment"]: row["failed"] / row["attempts"]
            for row in rows
            if row["attempts"] >= LEAST and row["failed"] > FAILING * row["attempts"]
        }
        owners = {} if blueprint is None else {
            item.name: next(iter(item.owners.get("architecture", ())), None) for item in blueprint.workloads
        }  # fmt: skip
        told = [
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
            for name, ramp in sorted(wanted.items())
            if ramp.to in failing
        ]
        finding_store.tell_all(conn, told, kinds=[KIND])
        return services.releases.advance_ramps(conn, frozenset(failing)) if wanted else None
