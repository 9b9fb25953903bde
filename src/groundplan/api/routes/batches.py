"""Batches: progress, cost and disk usage. They are created at the gateway with an API key."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader
from groundplan.api.context import ServicesDep
from groundplan.api.unknown_names import require_known_names
from groundplan.ledger import batch_queries

router = protected_router("ledger")


@router.get("/batches")
def batches(
    services: ServicesDep, _: Reader, workload: str | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> dict[str, Any]:
    """List batches, newest first, of one `workload` or of all, and the disk space that their files take by workload."""
    with services.transaction() as conn:
        listed, files = batch_queries.list_batches(conn, workload, limit), batch_queries.file_totals(conn, workload)
        require_known_names(conn, [*listed, *files], workload=workload)
    return {"batches": listed, "files": files}
