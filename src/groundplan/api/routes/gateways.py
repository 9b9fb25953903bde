"""HOMEs whose gateway workers are silent, and declaring such a HOME lost, so that its calls end and its budget is
settled.

Whether a HOME is really lost cannot be known here: a machine that was off comes back with its journals.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

from groundplan.api import gateways_store
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.propagation_store import longest_grace_s
from groundplan.core.audit.store import record
from groundplan.core.errors import Conflict, NotFound
from groundplan.core.money import format_numeric

router = protected_router("gateways")
SILENT_SECONDS = 600.0
"""Silence after which a worker counts as gone, in addition to the longest grace: until then a disconnected worker may
serve calls and report them later."""
_Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Lost(BaseModel):
    """The HOME to declare lost, by host and path, and the reason."""

    model_config = ConfigDict(extra="forbid")
    host: _Name
    home: _Name
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]


@router.get("/gateways/gone")
def gone(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List HOMEs with workers that were silent for `SILENT_SECONDS` plus the longest grace, and whose journals were not
    shipped."""
    with services.transaction() as conn:
        rows = gateways_store.silent_homes(conn, SILENT_SECONDS + longest_grace_s(conn))
    return {"homes": [{**row, "open_usd": format_numeric(row["open_usd"])} for row in rows]}


@router.post("/gateways/lost")
def lost(body: Lost, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Declare a HOME lost. Within about two minutes its workers are fenced, its open calls end at their bound, as after
    a crash, and what else its workers held of budgets counts as spent. If the HOME comes back, further calls in its
    journals are still shipped.

    Raises `NotFound` (`home_unknown`), and `Conflict` (`home_alive`) while a worker may still serve.
    """
    with services.transaction() as conn:
        min_silence = SILENT_SECONDS + longest_grace_s(conn)
        workers = gateways_store.unshipped_workers(conn, body.host, body.home)
        if not workers:
            raise NotFound(
                f"{body.host} ({body.home}) has no silent worker with an unshipped journal",
                code="home_unknown",
                hint="`groundplan gateways gone` lists them; name host and HOME as it does.",
            )
        if (silence := min(row["silent_s"] for row in workers)) < min_silence:
            raise Conflict(
                f"a worker of {body.host} ({body.home}) sent a heartbeat {silence:.0f} s ago and may still serve calls",
                code="home_alive",
                hint=f"A HOME can be declared lost once its workers have been silent for {min_silence:.0f} s.",
            )
        if gateways_store.declare_lost(conn, epochs := [row["epoch"] for row in workers], caller.actor):
            detail = {"home": body.home, "reason": body.reason, "workers": [str(epoch) for epoch in epochs]}
            record(conn, action="gateway.lost", actor=caller.actor, subject=f"host/{body.host}", detail=detail)
    return {"host": body.host, "home": body.home, "workers": [str(epoch) for epoch in epochs]}
