"""Lineage of answers: the documents behind one call, and OpenLineage events for a period. Questions and answers are not
included."""

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
    """The documents behind an answer: each passage, and each document that contradicts one (`role`), with the document
    as it was at the time of the call and as it is now."""
    with services.transaction() as conn:
        return {"call": call_id, "rested_on": lineage_store.passages_of_call(conn, call_id)}


@router.get("/knowledge/lineage")
def lineage(
    services: ServicesDep, _: Reader, since: datetime | None = None, until: datetime | None = None
) -> dict[str, Any]:
    """OpenLineage events from sources to grounded answers, by default of the last day. If there are more calls than fit
    in a response, pass `next` as `since` to continue. Questions and answers are not included."""
    end = until or services.clock.now()
    with services.transaction() as conn:
        company = current_blueprint(conn).company
        calls, next_since = lineage_store.calls_page(conn, since or end - timedelta(days=1), end)
        ids = sorted({passage["document"] for call in calls for passage in call["passages"]})
        event_list = list(events(company, calls, lineage_store.documents_of(conn, ids)))
    return {"events": event_list} if next_since is None else {"events": event_list, "next": next_since}
