"""Denials in the audit log: who was refused what, the same once in ten minutes, so that nobody fills the log.

Only of callers who are known; what strangers are refused is not theirs to write. Written after the refused transaction
was undone, in one of its own.
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
AGAIN = timedelta(minutes=10)


def note(request: Request, error: GroundplanError) -> None:
    """Record that this request was denied; a database that is away only costs the entry."""
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None or not isinstance(error, Denied):
        return
    services: Services = request.app.state.services
    route = getattr(request.scope.get("route"), "path_format", "").removeprefix(PREFIX)
    subject = f"denied/{request.method} {route}"[:200]
    try:
        with services.transaction() as conn:
            since = services.clock.now() - AGAIN
            if not audit_store.done_lately(conn, str(caller.actor), "denied", subject, since):
                detail = {"code": error.code, "parameters": _parameters(request)}
                record(conn, action="denied", actor=caller.actor, subject=subject, detail=detail)
    except (psycopg.Error, GroundplanError) as failed:
        log.warning("a denial is not in the audit log: %s", failed.__class__.__name__)


def _parameters(request: Request) -> dict[str, str]:
    """What the path names, ids and names of workloads; people by address are left out."""
    return {
        name: str(value)[:100]
        for name, value in request.path_params.items()
        if "@" not in str(value) and name != "person"
    }
