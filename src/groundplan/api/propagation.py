"""Whether a change of live policy, or a blueprint, has reached every gateway: waits a moment for acknowledgements, then
says which gateways are missing.

A stopped thing is *effective* where this is complete; otherwise each waiting gateway is named, with until when it may
serve.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from psycopg import Connection, OperationalError

from groundplan.api.context import Services
from groundplan.api.propagation_store import longest_grace_s
from groundplan.identity import service as identity
from groundplan.identity.model import Propagation

WAIT_SECONDS = 1.5
_PAUSE = 0.05


def effect_of(
    services: Services, number: int, wait: float = WAIT_SECONDS, workload: str | None = None
) -> dict[str, Any]:
    """`{"complete", "number", "acknowledged": [epoch], "waiting": [...]}` of policy `number` within about `wait` s.

    Where the change concerns one `workload` only, that one's grace counts, otherwise the longest of all.
    """

    def look(conn: Connection[Any]) -> Propagation:
        return identity.policy_propagation(conn, number, longest_grace_s(conn, workload))

    return _within(services, number, look, wait)


def effect_of_blueprint(services: Services, number: int, wait: float = WAIT_SECONDS) -> dict[str, Any]:
    """The same of blueprint `number`."""

    def look(conn: Connection[Any]) -> Propagation:
        return identity.blueprint_propagation(conn, number, longest_grace_s(conn))

    return _within(services, number, look, wait)


def _within(
    services: Services, number: int, look: Callable[[Connection[Any]], Propagation], wait: float
) -> dict[str, Any]:
    """The change is made: where PostgreSQL is lost from here on, whoever made it is not told that it failed. A key that
    was just made would be known to nobody."""
    deadline = time.monotonic() + wait
    found: Propagation | None = None
    while True:
        with suppress(OperationalError), services.transaction() as conn:
            found = look(conn)
        if (found is not None and found.is_complete) or time.monotonic() >= deadline:
            return _told(number, found)
        time.sleep(_PAUSE)


def _told(number: int, found: Propagation | None) -> dict[str, Any]:
    """`found`: None where it is not known."""
    return {
        "complete": found is not None and found.is_complete,
        "number": number,
        "acknowledged": [str(gateway.epoch) for gateway in found.acknowledged] if found else [],
        "waiting": [
            {"epoch": str(gateway.epoch), "pid": gateway.pid, "until": gateway.until}
            for gateway in (found.waiting if found else ())
        ],
    }
