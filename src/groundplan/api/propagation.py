"""Propagation of live policy and blueprints to the gateways: waits briefly for acknowledgements, then reports which
gateways are missing.

A change is *effective* once this is complete; otherwise each missing gateway is named, with until when it may serve.
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


def policy_effect(
    services: Services, number: int, wait: float = WAIT_SECONDS, workload: str | None = None
) -> dict[str, Any]:
    """`{"complete", "number", "acknowledged": [epoch], "waiting": [...]}` of policy `number` within about `wait` s.

    Where the change concerns one `workload` only, that one's grace counts, otherwise the longest of all.
    """

    def look(conn: Connection[Any]) -> Propagation:
        return identity.policy_propagation(conn, number, longest_grace_s(conn, workload))

    return _wait_for_effect(services, number, look, wait)


def blueprint_effect(services: Services, number: int, wait: float = WAIT_SECONDS) -> dict[str, Any]:
    """As `policy_effect`, for blueprint `number`."""

    def look(conn: Connection[Any]) -> Propagation:
        return identity.blueprint_propagation(conn, number, longest_grace_s(conn))

    return _wait_for_effect(services, number, look, wait)


def _wait_for_effect(
    services: Services, number: int, look: Callable[[Connection[Any]], Propagation], wait: float
) -> dict[str, Any]:
    """Wait for the effect. The change is committed, so a database outage from here on must not be reported as a failure
    of it: a key that was just created would be lost."""
    deadline = time.monotonic() + wait
    propagation: Propagation | None = None
    while True:
        with suppress(OperationalError), services.transaction() as conn:
            propagation = look(conn)
        if (propagation is not None and propagation.is_complete) or time.monotonic() >= deadline:
            return _effect_json(number, propagation)
        time.sleep(_PAUSE)


def _effect_json(number: int, propagation: Propagation | None) -> dict[str, Any]:
    """The effect as JSON; `propagation` is None if it is unknown."""
    return {
        "complete": propagation is not None and propagation.is_complete,
        "number": number,
        "acknowledged": [str(gateway.epoch) for gateway in propagation.acknowledged] if propagation else [],
        "waiting": [
            {"epoch": str(gateway.epoch), "pid": gateway.pid, "until": gateway.until}
            for gateway in (propagation.waiting if propagation else ())
        ],
    }
