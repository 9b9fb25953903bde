"""Responses that are made in the background: how far each is, why one waits, what it cost; and cancelling one.

They are asked for at the gateway, with an API key, which alone reads what they say.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query

from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.unknown_names import require_known_names
from groundplan.core.audit.store import record
from groundplan.core.errors import Conflict, NotFound
from groundplan.ledger import background_queries, background_store

router = protected_router("ledger")


@router.get("/responses")
def responses(
    services: ServicesDep, _: Reader, workload: str | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> dict[str, Any]:
    """Those that are not over first, then the newest, of all workloads or of one; and how many of each are open."""
    with services.transaction() as conn:
        found = background_queries.responses(conn, workload, limit)
        require_known_names(conn, found, workload=workload)
        return {"responses": found, "open": background_queries.open_by_workload(conn, workload)}


@router.post("/responses/{id}/cancel")
def cancel(
    id: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,200}$")], services: ServicesDep, caller: SignedIn
) -> dict[str, Any]:
    """End one that waits or is being made, as whoever asked for it could: what was generated is billed. Raises
    `NotFound`, `Conflict`."""
    with services.transaction() as conn:
        workload = background_queries.response_workload(conn, id)
    if workload is None:
        raise NotFound(
            f"there is no response '{id[:80]}' in the background",
            code="response_not_found",
            hint="`groundplan responses` lists those that there are.",
        )
    authorize(caller, "stop", f"workload/{workload}")
    with services.transaction() as conn:
        if not background_store.cancel_for_all(conn, id):
            raise Conflict(
                "this response is finished already",
                code="response_finished",
                hint="Only one that is queued or in progress is cancelled.",
            )
        detail = {"response": id}
        record(conn, action="response.cancelled", actor=caller.actor, subject=f"workload/{workload}", detail=detail)
    return {"id": id, "workload": workload, "status": background_store.CANCELLED}
