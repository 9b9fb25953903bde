"""Governed knowledge: sources, documents (without their text), and search with the caller's own permissions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import to_builtins
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api import store
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Operator, Reader, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.grants import check_use
from groundplan.api.knowledge import signals
from groundplan.api.knowledge import store as knowledge_store
from groundplan.api.knowledge.allowed_sources import usable_sources
from groundplan.api.knowledge.ingest import ingest_current
from groundplan.api.local_services import post_local
from groundplan.api.served_blueprint import current_blueprint, require_workload
from groundplan.api.unknown_names import require_known_source
from groundplan.core.audit.store import record
from groundplan.core.errors import Denied, Invalid

router = protected_router("knowledge")


_NO_NUL = r"^[^\x00]*$"


class Where(BaseModel):
    """Filters on documents; all that are given must match. `path` is a prefix; `after` and `before` bound the time of
    the last modification."""

    model_config = ConfigDict(extra="forbid")
    path: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=_NO_NUL)] | None = None
    owner: Annotated[str, StringConstraints(min_length=1, max_length=320, pattern=_NO_NUL)] | None = None
    sensitivity: list[Literal["public", "internal", "confidential", "restricted"]] | None = None
    media: Annotated[str, StringConstraints(min_length=1, max_length=20, pattern=_NO_NUL)] | None = None
    after: AwareDatetime | None = None
    before: AwareDatetime | None = None


class Question(BaseModel):
    """A search within the sources of a workload."""

    model_config = ConfigDict(extra="forbid")
    workload: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    query: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    passages: Annotated[int, Field(ge=1, le=20)] = 5
    where: Where = Where()
    explain: bool = False
    """Also list matching documents that the caller may read but that are withheld from the workload, with the
    reason."""


@router.get("/knowledge")
def overview(services: ServicesDep, _: Reader, source: str | None = None) -> dict[str, Any]:
    """Sources with counts, and their documents with readers."""
    with services.transaction() as conn:
        rows = knowledge_store.documents(conn, source)
        require_known_source(conn, rows, source)
        return {"sources": store.sources(conn), "documents": rows}


@router.post("/knowledge/search")
def search(body: Question, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Search for passages that the caller may read.

    The operator has no permissions of their own here and has to sign in as a person. Applications send the same request
    to the gateway's port with their API key, and search with the permissions of its user. Reading restricted documents
    is recorded in the audit log.
    """
    if caller.person is None:
        raise Denied(
            "a search needs the permissions of a person",
            code="person_required",
            hint="Sign in as a person, or act as one.",
        )
    today = services.clock.now().date()
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        workload = require_workload(blueprint, body.workload)
        check_use(conn, workload, caller.person, today)
        if workload.grounding is None:
            raise Invalid(f"{workload.name} has no sources", code="no_sources", hint="Declare sources in its workload.")
        sources = usable_sources(conn, blueprint, workload, today)
    query = {
        "workload": workload.name,
        "person": str(caller.person),
        "query": body.query,
        "sources": sources,
        "k": body.passages,
        "synonyms": workload.grounding.synonyms,
        "rerank": to_builtins(workload.grounding.rerank),
        "max_bytes": 20000,
        "floor": workload.grounding.floor,
        "explain": body.explain,
        "where": body.where.model_dump(mode="json", exclude_none=True),
    }
    answer = dict(post_local(services.home, "search", "/search", query))
    if not answer["passages"]:
        with services.transaction() as conn:
            signals.record_unanswered(services, conn, workload, caller.person, body.query)
    document_ids = {str(item["document"]) for item in answer["passages"]}
    # a conflict quotes the other document as well
    document_ids |= {str(item["other_document"]) for item in answer.get("conflicts", ())}
    with services.transaction() as conn:
        restricted = knowledge_store.restricted_documents(conn, sorted(document_ids))
        if restricted:
            detail = {"documents": restricted}
            record(
                conn, action="knowledge.read", actor=caller.actor, subject=f"workload/{workload.name}", detail=detail
            )
    return answer


@router.post("/knowledge/ingest")
def ingest(services: ServicesDep, _: Operator) -> dict[str, Any]:
    """Scan all sources of the current blueprint again; only changes are indexed."""
    return ingest_current(services)
