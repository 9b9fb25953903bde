"""Background task: starts declared experiments, and ends those that are decided, harmful, out of budget or expired. Two
control processes may run it: each row is locked by one of them, and an ended experiment does not end again."""

from __future__ import annotations

from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.economics.experiment import service

LOOK_SECONDS = 5.0


def advance_experiments(services: Services) -> int:
    """Start declared experiments and end decided ones; returns how many changed."""
    now = services.clock.now()
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        if blueprint is None:
            return 0
        changed = service.apply_declared(conn, blueprint.workloads, blueprint.number, now)
    with services.transaction() as conn:
        return changed + len(service.evaluate_running(conn, now))
