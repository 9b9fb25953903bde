"""HOMEs of gateways that are gone, and declaring one lost for good, so that its calls end and its money is settled.

Nothing here tells whether a HOME really is lost: a machine that is off comes back with its journals.
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
"""To which the longest grace is added: until then a disconnected worker may serve, and will report it."""
_Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Lost(BaseModel):
    """Which HOME, of which host, and why nobody waits for it any more."""

    model_config = ConfigDict(extra="forbid")
    host: _Name
    home: _Name
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]


@router.get("/gateways/gone")
def gone(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """HOMEs that have workers of which nobody was heard for ten minutes and the longest grace, and whose journals were
    not taken over."""
    with services.transaction() as conn:
        rows = gateways_store.silent_homes(conn, SILENT_SECONDS + longest_grace_s(conn))
    return {"homes": [{**row, "open_usd": format_numeric(row["open_usd"])} for row in rows]}


@router.post("/gateways/lost")
def lost(body: Lost, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Declare a HOME lost. Within a minute or two its workers are fenced, calls that the ledger shows as open end as
    after any crash, at their bound, and what else its workers held of budgets counts as spent. Where the HOME turns up
    after all, what its journals have beyond that is taken over."""
    with services.transaction() as conn:
        quiet = SILENT_SECONDS + longest_grace_s(conn)
        found = gateways_store.unshipped_workers(conn, body.host, body.home)
        if not found:
            raise NotFound(
                f"no worker of {body.host} ({body.home}) is gone whose journal is missing",
                code="home_unknown",
                hint="`groundplan gateways gone` lists them; name host and HOME as it does.",
            )
        if (heard := min(row["silent_s"] for row in found)) < quiet:
            raise Conflict(
                f"a worker of {body.host} ({body.home}) was heard of {heard:.0f} s ago, so it may still serve calls",
                code="home_alive",
                hint=f"A HOME can be declared lost once nobody has heard of it for {quiet:.0f} s.",
            )
        if gateways_store.declare_lost(conn, epochs := [row["epoch"] for row in found], caller.actor):
            detail = {"home": body.home, "reason": body.reason, "workers": [str(epoch) for epoch in epochs]}
            record(conn, action="gateway.lost", actor=caller.actor, subject=f"host/{body.host}", detail=detail)
    return {"host": body.host, "home": body.home, "workers": [str(epoch) for epoch in epochs]}
