"""Background responses: progress, why one waits, cost; and cancelling one.

They are created at the gateway with an API key, and only that key can read their content.
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
    """List background responses, unfinished ones first, then the newest, of one `workload` or of all; `open` is the
    number of unfinished ones by workload."""
    with services.transaction() as conn:
        listed = background_queries.list_responses(conn, workload, limit)
        require_known_names(conn, listed, workload=workload)
        return {"responses": listed, "open": background_queries.count_open_by_workload(conn, workload)}


@router.post("/responses/{id}/cancel")
def cancel(
    id: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,200}$")], services: ServicesDep, caller: SignedIn
) -> dict[str, Any]:
    """Cancel a queued or running response, as its creator could; tokens generated so far are billed. Raises `NotFound`
    (`response_not_found`), `Conflict` (`response_finished`)."""
    with services.transaction() as conn:
        workload = background_queries.response_workload(conn, id)
    if workload is None:
        raise NotFound(
            f"there is no background response '{id[:80]}'",
            code="response_not_found",
            hint="`groundplan responses` lists them.",
        )
    authorize(caller, "stop", f"workload/{workload}")
    with services.transaction() as conn:
        if not background_store.cancel_for_all(conn, id):
            raise Conflict(
                "this response is already finished",
                code="response_finished",
                hint="Only a queued or running response can be cancelled.",
            )
        detail = {"response": id}
        record(conn, action="response.cancelled", actor=caller.actor, subject=f"workload/{workload}", detail=detail)
    return {"id": id, "workload": workload, "status": background_store.CANCELLED}
