"""What waited for a person and lost its time or its worker: its texts leave the queue. Runs beside requests."""

from __future__ import annotations

from groundplan.api.context import Services
from groundplan.governance.review import store

SWEEP_SECONDS = 60.0


def sweep_now(services: Services) -> int:
    """How many there were. Any number of control processes may do it at once."""
    with services.transaction() as conn:
        return store.sweep(conn)
