"""Sources and documents: properties with their origins, decisions, deletion, legal holds, glossary and evaluations.

Pushed documents are in `push`, the documents behind answers in `lineage`.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, Reader, SignedIn, can_read_all, require_duty
from groundplan.api.context import Services, ServicesDep
from groundplan.api.knowledge import ownership
from groundplan.api.knowledge import store as knowledge_store
from groundplan.api.knowledge.quotes import DATA_DUTIES, with_quotes
from groundplan.api.knowledge.upkeep import clear_answers
from groundplan.api.local_services import post_local
from groundplan.api.people import find_person_id
from groundplan.api.served_blueprint import current_blueprint
from groundplan.api.unknown_names import require_known_source
from groundplan.core.audit import record
from groundplan.core.errors import Denied, Invalid, NotFound, Unavailable
from groundplan.knowledge.deletion import deletion_store, legal_hold_store
from groundplan.knowledge.deletion.delete import DeletionReason, delete, readmit
from groundplan.knowledge.deletion.mentions import documents_mentioning, names_somebody
from groundplan.knowledge.evaluation import history
from groundplan.knowledge.governance import governed_store
from groundplan.knowledge.governance.decide import DecisionContext, decide
from groundplan.knowledge.lineage import lineage_store
from groundplan.knowledge.quality import quality_store
from groundplan.knowledge.quality.grouped_findings import PERSONAL, folder_of
from groundplan.ledger import finding_store

router = protected_router("knowledge")
NAMELESS = "(its name was erased)"

Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]
Path = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=63)]
Standing = Literal[
    "approved", "draft", "rejected", "retired", "superseded", "not_yet_valid", "expired", "deleted", "kept back"
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Decision(Strict):
    """A decision about one property (`what`) of a document; a `value` of null withdraws an earlier decision."""

    what: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    value: str | bool | list[str] | None
    reason: Reason


class Deletion(Strict):
    """The reason of a deletion."""

    reason: Reason


class Reading(Strict):
    """The reason for reading a version that is kept by a legal hold."""

    reason: Reason


class Readmission(Strict):
    """A deleted path that may be ingested again, with the reason."""

    source: Name
    path: Path
    reason: Reason


class Mentions(Strict):
    """Texts that identify a person, such as an address and a full name. `delete`: delete the documents that contain any
    of them."""

    words: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(min_length=1, max_length=20)
    ]
    delete: bool = False
    reason: Reason


@router.get("/knowledge/sources")
def sources(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List sources with owner, rules, health, quality and its trend, and the number of open findings. `behind` is the
    number of changed documents that the full-text index does not have yet; null if the search service is not
    running."""
    with services.transaction() as conn:
        rows = knowledge_store.sources(conn)
        for row in rows:
            row["trend"] = [
                {"day": day, "score": score, "documents": count}
                for day, score, count in quality_store.score_trend(conn, row["name"])
            ]
    try:
        behind = post_local(services.home, "search", "/lag", {})["documents"]
    except Unavailable:
        behind = None
    return {"sources": rows, "behind": behind}


@router.get("/knowledge/documents")
def documents(
    services: ServicesDep, caller: SignedIn, source: str | None = None, state: Standing | None = None,
    text: str | None = None, path: str | None = None, after: str | None = None, limit: int = 200,
    holds: Literal["personal_data"] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """List documents, without their text. For the next page pass `next` as `after`; it is null on the last page.

    Filters: `state` is approved, draft, rejected, retired, superseded, not_yet_valid, expired, deleted, or `kept back`
    (all except approved and deleted); `path` is the exact path; `holds=personal_data` selects public and internal
    documents with personal data. Callers without a duty get only the documents that they own or are steward of.
    """
    page_size = max(1, min(limit, 1000))
    after_source, slash, after_path = (after or "").partition("/")
    with services.transaction() as conn:
        rows = knowledge_store.documents(
            conn, source, state, text, page_size + 1, path=path, after=(after_source, after_path) if slash else None,
            who=None if can_read_all(caller) else caller.email or "", holds=holds,
        )  # fmt: skip
        if can_read_all(caller) and after is None:
            require_known_source(conn, rows, source)
    has_more, rows = len(rows) > page_size, rows[:page_size]
    return {"documents": rows, "next": f"{rows[-1]['source']}/{rows[-1]['path']}" if has_more else None}


@router.get("/knowledge/documents/{document_id}")
def document(document_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """A document with the origins of its properties, its versions, readers and findings, and the answers that used it.

    Owners and stewards without a duty do not get these answers (`used_by` is null), and the newer document only if they
    may know it. Callers who may only read the document get its description and why they may read it (`access`).
    """
    with services.transaction() as conn:
        details = require_document(conn, document_id)
        sees_all = can_read_all(caller)
        if not sees_all and not ownership.answers_for(conn, caller, details):
            return _as_reader(conn, caller, details)
        newer = knowledge_store.document_title(conn, details["superseded_by"]) if details["superseded_by"] else None
        if newer is not None and not sees_all and not _may_know(conn, caller, newer["id"]):
            newer = None
        workloads = [
            workload.name
            for workload in current_blueprint(conn).workloads
            if workload.grounding is not None and details["source"] in workload.grounding.sources
        ]
        people = governed_store.who_may_read(conn, document_id, governed_store.MAX_PEOPLE + 1)
        return {
            "document": details,
            "newer": newer,
            "versions": governed_store.list_versions(conn, document_id),
            "kept": legal_hold_store.versions(conn, document=document_id),
            "readers": knowledge_store.readers(conn, document_id),
            "people": people[: governed_store.MAX_PEOPLE],
            "more_people": len(people) > governed_store.MAX_PEOPLE,
            "workloads": [
                {"workload": name, "kept_back": governed_store.withheld_reason(conn, document_id, name)}
                for name in workloads
            ],
            "findings": with_quotes(conn, caller, _document_findings(conn, caller, details)),
            "used_by": lineage_store.answers_using(conn, document_id, limit=50) if sees_all else None,
        }


@router.get("/knowledge/documents/{document_id}/access")
def access(document_id: UUID, person: str, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Why a person may or may not read a document: the matching reader entries, and the groups through which they
    match."""
    with services.transaction() as conn:
        require_document(conn, document_id)
        return {"person": person, **governed_store.why_readable(conn, document_id, find_person_id(conn, person))}


@router.post("/knowledge/documents/{document_id}/decide")
def decision(
    document_id: UUID, body: Decision, request: Request, services: ServicesDep, caller: SignedIn
) -> dict[str, Any]:
    """Approve, reject, retire, supersede or extend a document. Permitted for its owner and steward, and for holders of
    a duty for the source's data. If a decision is withdrawn (`value` null), the source's own value applies again after
    the next ingestion, which starts at once."""
    with services.transaction() as conn:
        details = require_document(conn, document_id)
        require_decider(conn, caller, details)
        context = DecisionContext(str(caller.actor), caller.email or "the operator", body.reason, services.clock.now())
        document = decide(conn, document_id, body.what, body.value, context)
    if body.value is None:
        request.app.state.indexer.request_source(document["source"])
    return {"document": document}


@router.post("/knowledge/documents/{document_id}/delete")
def deletion(document_id: UUID, body: Deletion, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Delete a document. When this returns, it is gone from search, index and caches; it is erased from the disk by
    `due`, and is not ingested again until it is readmitted."""
    with services.transaction() as conn:
        require_decider(conn, caller, require_document(conn, document_id))
    with services.own_connection() as conn:
        (tombstone,) = delete(conn, [document_id], _deletion_reason(services, caller, body.reason), clear_answers)
    return {"id": tombstone.id, "source": tombstone.source, "path": tombstone.path, "due": tombstone.due}


@router.get("/knowledge/deletions")
def deletions(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List documents that were deleted by a decision or at the end of a legal hold (`cause`), with the day by which
    they are erased from the disk and the time when they were. `gone_at_source` counts documents removed at their
    sources."""
    with services.transaction() as conn:
        tombstones = deletion_store.tombstones(conn)
        waiting, due, erased = deletion_store.source_deletions(conn)
        names = knowledge_store.person_emails(conn, [tombstone.by for tombstone in tombstones])
    return {
        "deletions": [
            {
                "source": tombstone.source,
                "path": tombstone.path if tombstone.salt is None else NAMELESS,
                "at": tombstone.at,
                "by": names.get(tombstone.by, tombstone.by),
                "reason": tombstone.reason,
                "cause": tombstone.cause,
                "due": tombstone.due,
                "erased_at": tombstone.erased_at,
                "lifted_at": tombstone.lifted_at,
            }
            for tombstone in tombstones
        ],
        "gone_at_source": {"waiting": waiting, "due": due, "erased": erased},
    }


@router.get("/knowledge/held")
def held(services: ServicesDep, _: Reader, source: str | None = None) -> dict[str, Any]:
    """List versions that legal holds keep of documents that changed, were removed or became unreadable, without their
    text."""
    with services.transaction() as conn:
        versions = legal_hold_store.versions(conn, source=source)
        require_known_source(conn, versions, source)
    return {"held": versions}


@router.post("/knowledge/held/{held_id}/read")
def read_held(held_id: UUID, body: Reading, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """The text of a version kept by a legal hold, for callers who may decide about the document. Each reading is
    recorded in the audit log with its reason. `data` (base64) has the bytes of a pushed document."""
    with services.transaction() as conn:
        version = legal_hold_store.read_version(conn, held_id)
        if version is None:
            raise _not_found()
        document = (
            None if version["document_id"] is None else governed_store.read_document(conn, version["document_id"])
        )
        if document is None:
            if not can_read_all(caller):
                raise _not_found()
            require_duty(caller, DATA_DUTIES, f"source/{version['source']}")
        else:
            require_decider(conn, caller, document)
        data = version.pop("data")
        record(
            conn, action="knowledge.held_read", actor=caller.actor, subject=f"source/{version['source']}",
            detail={"version": str(held_id), "reason": body.reason}, at=services.clock.now(),
        )  # fmt: skip
        return {"version": {**version, "data": None if data is None else base64.b64encode(data).decode()}}


@router.post("/knowledge/readmit")
def readmission(body: Readmission, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Allow a deleted path to be ingested again; an ingestion of its source starts at once."""
    require_duty(caller, DATA_DUTIES, f"source/{body.source}")
    with services.own_connection() as conn:
        readmit(conn, body.source, body.path, _deletion_reason(services, caller, body.reason))
    request.app.state.indexer.request_source(body.source)
    return {"source": body.source, "path": body.path}


@router.get("/knowledge/glossary")
def glossary(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The terms of the company's glossary in the served blueprint."""
    with services.transaction() as conn:
        terms = current_blueprint(conn).terms
    return {
        "terms": [
            {
                "name": term.name, "title": term.title, "meaning": term.meaning, "synonyms": term.synonyms,
                "forbidden": term.forbidden, "owner": term.owner,
            }
            for term in terms
        ]
    }  # fmt: skip


@router.get("/knowledge/evaluations")
def evaluations(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The runs of `groundplan knowledge evaluate` in this HOME, newest first."""
    return {"runs": history.list_runs(services.home.root / "evaluation")}


@router.post("/knowledge/mentions")
def mentions(body: Mentions, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Find documents that contain any of these texts, for a person's erasure request. (Content of their calls and
    reviews is erased with the person.) With `delete` the documents are deleted, except those under a legal hold, which
    are listed."""
    require_duty(caller, DATA_DUTIES, "company")
    if too_short := [word for word in body.words if not names_somebody(word)]:
        raise Invalid(
            f"'{too_short[0]}' is too short to name anybody", code="erasure_words",
            hint="Give texts of four characters or more (two of Han, kana and the like), such as a full name.",
        )  # fmt: skip
    with services.own_connection() as conn:
        matches = documents_mentioning(conn, body.words)
        deletable = [id for id, _, _, held in matches if not held]
        tombstones = (
            delete(conn, deletable, _deletion_reason(services, caller, body.reason), clear_answers)
            if body.delete and deletable
            else []
        )
    deleted_ids = {tombstone.document_id for tombstone in tombstones}
    return {
        "documents": [
            {"id": id, "source": source, "path": path, "held": held, "deleted": id in deleted_ids}
            for id, source, path, held in matches
        ]
    }


def require_document(conn: Any, id: UUID) -> dict[str, Any]:
    """The document with this id. Raises `NotFound` (`document_unknown`)."""
    row = governed_store.read_document(conn, id)
    if row is None:
        raise _not_found()
    return row


def require_decider(conn: Any, caller: Caller, document: dict[str, Any]) -> None:
    """Require that the caller is the operator, owner or steward, or holds a duty for the source's data. An owner or
    steward named only by the document itself or its sidecar file may not decide: anybody who may write it could name
    themselves.

    Raises `Denied` (`document_not_yours`) for callers who may read the document, `NotFound` for all others.
    """
    if ownership.answers_for(conn, caller, document):
        return
    try:
        require_duty(caller, DATA_DUTIES, f"source/{document['source']}")
    except Denied as error:
        if not (can_read_all(caller) or _may_read(conn, caller, document)):
            raise _not_found() from error
        trusted_people = ownership.answerable_people(document)
        person = next((document[name] for name in ("steward", "owner") if document[name] in trusted_people), None)
        decider = person or "the owner of the source"
        if caller.email is not None and caller.email in (document["owner"], document["steward"]):
            raise Denied(
                "only the document itself names you, and anybody who may write it could do that",
                code="document_not_yours",
                hint=f"Ask {decider} to name you in the folder's .governed.yaml or the source.",
            ) from error  # fmt: skip
        raise Denied(
            "only its owner or steward may decide about a document", code="document_not_yours",
            hint=f"Ask {decider}.",
        ) from error  # fmt: skip


def _not_found() -> NotFound:
    """The error for a missing document, also used for documents whose existence must not be disclosed to the caller."""
    return NotFound("no such document", code="document_unknown", hint="`groundplan knowledge documents` lists them.")


def _document_findings(conn: Any, caller: Caller, document: dict[str, Any]) -> list[dict[str, Any]]:
    """Findings about a document, including the one grouped by folder on personal data if the document has some."""
    subject, own_ids = f"source/{document['source']}/{document['path']}", ownership.own_findings(conn, caller)
    listed = finding_store.list_findings(conn, kinds=["knowledge."], subject=subject, only=own_ids)
    personal = any(not kind.startswith("!") for kind in document["personal"] or ())
    if (
        personal
        and document["sensitivity"] in ("public", "internal")
        and all(finding["kind"] != PERSONAL for finding in listed)
    ):
        grouped = finding_store.list_findings(conn, kinds=[PERSONAL], subject=folder_of(subject), only=own_ids)
        whose = [name for name in (document["owner"], document["steward"]) if name]
        listed += [finding for finding in grouped if finding["detail"]["whose"] == whose]
    return listed


def _may_know(conn: Any, caller: Caller, document: UUID) -> bool:
    """Whether a caller may read, or owns, another document."""
    other = require_document(conn, document)
    return _may_read(conn, caller, other) or ownership.answers_for(conn, caller, other)


def _may_read(conn: Any, caller: Caller, document: dict[str, Any]) -> bool:
    if caller.person is None or document["deleted_at"] is not None:
        return False
    return bool(governed_store.why_readable(conn, document["id"], caller.person)["readable"])


_READER_FIELDS = (
    "id", "source", "path", "title", "version", "modified_at", "media", "state", "standing", "sensitivity", "owner",
    "steward",
)  # fmt: skip


def _as_reader(conn: Any, caller: Caller, document: dict[str, Any]) -> dict[str, Any]:
    """A document as shown to a reader who does not own it. Raises `NotFound` if the caller may not read it."""
    if not _may_read(conn, caller, document):
        raise _not_found()
    newer = governed_store.read_document(conn, document["superseded_by"]) if document["superseded_by"] else None
    return {
        "document": {name: document[name] for name in _READER_FIELDS}
        | {"superseded": document["superseded_by"] is not None},
        "newer": knowledge_store.document_title(conn, newer["id"])
        if newer is not None and _may_read(conn, caller, newer)
        else None,
        "access": governed_store.why_readable(conn, document["id"], caller.person) if caller.person else None,
    }


def _deletion_reason(services: Services, caller: Caller, reason: str) -> DeletionReason:
    return DeletionReason(str(caller.actor), reason, services.clock.now(), services.home.root)
