"""Denials in the audit log: who was denied what; the same denial once in ten minutes, so that nobody can fill the log.

Only authenticated callers get entries, so that strangers cannot write to the log. Written in a transaction of its own,
after the denied one was rolled back.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import psycopg
from fastapi import Request

from groundplan.api.access.authorization import PREFIX
from groundplan.api.caller import Caller
from groundplan.api.context import Services
from groundplan.core.audit import record
from groundplan.core.audit import store as audit_store
from groundplan.core.errors import Denied, GroundplanError

log = logging.getLogger("groundplan.api.audit.denials")
REPEAT_INTERVAL = timedelta(minutes=10)


def record_denial(request: Request, error: GroundplanError) -> None:
    """Record that a request was denied; without a database only the entry is lost."""
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None or not isinstance(error, Denied):
        return
    services: Services = request.app.state.services
    route = getattr(request.scope.get("route"), "path_format", "").removeprefix(PREFIX)
    subject = f"denied/{request.method} {route}"[:200]
    try:
        with services.transaction() as conn:
            since = services.clock.now() - REPEAT_INTERVAL
            if not audit_store.was_recorded_since(conn, str(caller.actor), "denied", subject, since):
                detail = {"code": error.code, "parameters": _parameters(request)}
                record(conn, action="denied", actor=caller.actor, subject=subject, detail=detail)
    except (psycopg.Error, GroundplanError) as failed:
        log.warning("a denial is not in the audit log: %s", failed.__class__.__name__)


def _parameters(request: Request) -> dict[str, str]:
    """The path parameters, such as ids and names of workloads, without e-mail addresses."""
    return {
        name: str(value)[:100]
        for name, value in request.path_params.items()
        if "@" not in str(value) and name != "person"
    }
