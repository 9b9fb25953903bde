"""Signals on search results: clicks, thumbs and unanswered questions; and statistics by workload and document."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.knowledge import signals as kept
from groundplan.api.served_blueprint import current_blueprint, require_workload
from groundplan.core.errors import Denied, NotFound
from groundplan.core.ids import new_id
from groundplan.knowledge.governance import governed_store
from groundplan.knowledge.signals import gather, signal_store
from groundplan.knowledge.signals.signal_store import Signal
from groundplan.ledger import finding_store

router = protected_router("knowledge")


class SignalBody(BaseModel):
    """A signal. `click`, `up` and `down` concern a document that the caller may read; `unanswered` concerns a
    question."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["click", "up", "down", "unanswered"]
    workload: Annotated[str, Field(min_length=1, max_length=63)]
    document: UUID | None = None
    rank: Annotated[int, Field(ge=1, le=50)] | None = None
    call: UUID | None = None
    question: Annotated[str, Field(min_length=1, max_length=4000)] | None = None
    id: UUID | None = None
    """Chosen by the caller or by the server; a signal with the same id is stored once."""

    @model_validator(mode="after")
    def _complete(self) -> SignalBody:
        if (self.kind == "unanswered") != (self.question is not None) or (self.kind != "unanswered") != (
            self.document is not None
        ):
            raise ValueError("`unanswered` needs a question and no document, the others a document and no question")
        return self


@router.post("/knowledge/signals", status_code=201)
def signal(body: SignalBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Record a signal. The question is stored only if the workload keeps content; who clicked is never stored."""
    if caller.person is None:
        raise Denied(
            "only a person can give feedback", code="person_required", hint="Sign in as a person, or act as one."
        )
    with services.transaction() as conn:
        workload = require_workload(current_blueprint(conn), body.workload)
        if body.question is not None:
            id = kept.record_unanswered(services, conn, workload, caller.person, body.question, body.id)
            return {"id": id, "kept": workload.keep is not None}
        assert body.document is not None
        document = governed_store.read_document(conn, body.document)
        if document is None or not governed_store.why_readable(conn, body.document, caller.person)["readable"]:
            raise NotFound("no such document", code="document_unknown", hint="Name one that a search has given you.")
        new_signal = Signal(
            workload.name, body.kind, document=body.document, rank=body.rank, call=body.call, id=body.id or new_id()
        )
        return {"id": signal_store.add_signal(conn, new_signal), "kept": True}


@router.get("/knowledge/signals")
def signals(services: ServicesDep, _: Reader, days: Annotated[int, Field(ge=1, le=365)] = 30) -> dict[str, Any]:
    """Signals of the last `days` by workload and by document, and the topics of unanswered questions."""
    since = services.clock.now() - timedelta(days=days)
    with services.transaction() as conn:
        return {
            "workloads": signal_store.signals_by_workload(conn, since),
            "documents": signal_store.signals_by_document(conn, since),
            "unanswered": finding_store.list_findings(conn, kinds=[gather.KIND]),
        }
