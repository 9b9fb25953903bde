"""Batches: how far each is, what it costs and what it holds. They are ordered at the gateway, with an API key."""

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
    """The newest first, of all workloads or of one; and how much of the disk the files of each take."""
    with services.transaction() as conn:
        found, files = batch_queries.batches(conn, workload, limit), batch_queries.files(conn, workload)
        require_known_names(conn, [*found, *files], workload=workload)
    return {"batches": found, "files": files}
