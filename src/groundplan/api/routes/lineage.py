"""What answers rested on: of one call, and of a time as OpenLineage events. No question and no answer is in it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader
from groundplan.api.context import ServicesDep
from groundplan.api.served_blueprint import current_blueprint
from groundplan.knowledge.lineage import lineage_store
from groundplan.knowledge.lineage.openlineage import events

router = protected_router("knowledge")


@router.get("/knowledge/calls/{call_id}/lineage")
def rested_on(call_id: UUID, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """What an answer rested on: each passage, and each document that contradicts one (`role`), with the document as it
    was then and as it is now."""
    with services.transaction() as conn:
        return {"call": call_id, "rested_on": lineage_store.passages_of_call(conn, call_id)}


@router.get("/knowledge/lineage")
def lineage(
    services: ServicesDep, _: Reader, since: datetime | None = None, until: datetime | None = None
) -> dict[str, Any]:
    """OpenLineage events from sources to grounded answers, of the last day unless said. Of more calls than one answer
    holds, `next` is the time to go on `since`. No question and no answer is in them."""
    end = until or services.clock.now()
    with services.transaction() as conn:
        company = current_blueprint(conn).company
        told, following = lineage_store.calls_page(conn, since or end - timedelta(days=1), end)
        ids = sorted({each["document"] for call in told for each in call["passages"]})
        found = list(events(company, told, lineage_store.documents_of(conn, ids)))
    return {"events": found} if following is None else {"events": found, "next": following}
