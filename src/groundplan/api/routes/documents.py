"""Sources and documents: their properties with origins, decisions, deletion, glossary and evaluations.

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
    """One value of a document, with the reason; `value` null withdraws an earlier decision."""

    what: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    value: str | bool | list[str] | None
    reason: Reason


class Deletion(Strict):
    """The reason for a deletion."""

    reason: Reason


class Reading(Strict):
    """The reason for reading a version that a legal hold keeps."""

    reason: Reason


class Readmission(Strict):
    """A deleted path that may be ingested again, with the reason."""

    source: Name
    path: Path
    reason: Reason


class Mentions(Strict):
    """Texts that identify a person, such as an address and a full name; `delete`: delete the documents that contain one
    of them."""

    words: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(min_length=1, max_length=20)
    ]
    delete: bool = False
    reason: Reason


@router.get("/knowledge/sources")
def sources(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Each source with its owner, rules, health, quality with its trend, and number of open findings. `behind`: number
    of changed documents that the word index does not have yet; null if search does not run."""
    with services.transaction() as conn:
        found = knowledge_store.sources(conn)
        for row in found:
            row["trend"] = [
                {"day": day, "score": score, "documents": count}
                for day, score, count in quality_store.score_trend(conn, row["name"])
            ]
    try:
        behind = post_local(services.home, "search", "/lag", {})["documents"]
    except Unavailable:
        behind = None
    return {"sources": found, "behind": behind}


@router.get("/knowledge/documents")
def documents(
    services: ServicesDep, caller: SignedIn, source: str | None = None, state: Standing | None = None,
    text: str | None = None, path: str | None = None, after: str | None = None, limit: int = 200,
    holds: Literal["personal_data"] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Documents without their text. Filters: `state`: their standing (approved, draft, rejected, retired, superseded,
    not_yet_valid, expired, deleted), or `kept back`, which is all except approved and deleted; `path`: the exact path;
    `holds`: `personal_data` in public or internal documents. `next`: the value of `after` for the next page; null on
    the last one. Callers without a duty get the documents that they answer for."""
    page_size = max(1, min(limit, 1000))
    after_source, slash, after_path = (after or "").partition("/")
    with services.transaction() as conn:
        found = knowledge_store.documents(
            conn, source, state, text, page_size + 1, path=path, after=(after_source, after_path) if slash else None,
            who=None if can_read_all(caller) else caller.email or "", holds=holds,
        )  # fmt: skip
        if can_read_all(caller) and after is None:
            require_known_source(conn, found, source)
    has_more, found = len(found) > page_size, found[:page_size]
    return {"documents": found, "next": f"{found[-1]['source']}/{found[-1]['path']}" if has_more else None}


@router.get("/knowledge/documents/{document_id}")
def document(document_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """A document with the origins of its properties, its versions, readers, findings, and the answers that used it.
    Callers without a duty who answer for it get all except those answers (`used_by` is null), and a newer document only
    if they know that one; callers who may only read it get its description and the reason why they may (`access`)."""
    with services.transaction() as conn:
        found = require_document(conn, document_id)
        sees_all = can_read_all(caller)
        if not sees_all and not ownership.answers_for(conn, caller, found):
            return _as_reader(conn, caller, found)
        newer = knowledge_store.document_title(conn, found["superseded_by"]) if found["superseded_by"] else None
        if newer is not None and not sees_all and not _may_know(conn, caller, newer["id"]):
            newer = None
        workloads = [
            workload.name
            for workload in current_blueprint(conn).workloads
            if workload.grounding is not None and found["source"] in workload.grounding.sources
        ]
        people = governed_store.who_may_read(conn, document_id, governed_store.MAX_PEOPLE + 1)
        return {
            "document": found,
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
            "findings": with_quotes(conn, caller, _document_findings(conn, caller, found)),
            "used_by": lineage_store.answers_using(conn, document_id, limit=50) if sees_all else None,
        }


@router.get("/knowledge/documents/{document_id}/access")
def access(document_id: UUID, person: str, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Why a person may read a document or not: the reader entries that match them, and the groups through which."""
    with services.transaction() as conn:
        require_document(conn, document_id)
        return {"person": person, **governed_store.why_readable(conn, document_id, find_person_id(conn, person))}


@router.post("/knowledge/documents/{document_id}/decide")
def decision(
    document_id: UUID, body: Decision, request: Request, services: ServicesDep, caller: SignedIn
) -> dict[str, Any]:
    """Approve, reject, retire, supersede or extend a document; for its owner, steward, and holders of a duty for the
    source's data. A `value` of null withdraws a decision: the source's own value applies again after an ingestion,
    which begins at once."""
    with services.transaction() as conn:
        found = require_document(conn, document_id)
        require_decider(conn, caller, found)
        context = DecisionContext(str(caller.actor), caller.email or "the operator", body.reason, services.clock.now())
        document = decide(conn, document_id, body.what, body.value, context)
    if body.value is None:
        request.app.state.indexer.request_source(document["source"])
    return {"document": document}


@router.post("/knowledge/documents/{document_id}/delete")
def deletion(document_id: UUID, body: Deletion, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Delete a document: it is gone from search, index and caches when this returns, and erased from the disk by `due`.
    It is not ingested again until it is readmitted."""
    with services.transaction() as conn:
        require_decider(conn, caller, require_document(conn, document_id))
    with services.own_connection() as conn:
        (stone,) = delete(conn, [document_id], _deletion_reason(services, caller, body.reason), clear_answers)
    return {"id": stone.id, "source": stone.source, "path": stone.path, "due": stone.due}


@router.get("/knowledge/deletions")
def deletions(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Documents deleted by decision or when a legal hold ended (`cause`), with the day by which they are erased from
    the disk and the time when they were; and how many documents that were removed at their sources wait for that or are
    erased."""
    with services.transaction() as conn:
        stones = deletion_store.tombstones(conn)
        waiting, due, erased = deletion_store.source_deletions(conn)
        names = knowledge_store.person_emails(conn, [stone.by for stone in stones])
    return {
        "deletions": [
            {
                "source": one.source,
                "path": one.path if one.salt is None else NAMELESS,
                "at": one.at,
                "by": names.get(one.by, one.by),
                "reason": one.reason,
                "cause": one.cause,
                "due": one.due,
                "erased_at": one.erased_at,
                "lifted_at": one.lifted_at,
            }
            for one in stones
        ],
        "gone_at_source": {"waiting": waiting, "due": due, "erased": erased},
    }


@router.get("/knowledge/held")
def held(services: ServicesDep, _: Reader, source: str | None = None) -> dict[str, Any]:
    """Versions kept by legal holds of documents that were changed, removed or became unreadable, without their text."""
    with services.transaction() as conn:
        found = legal_hold_store.versions(conn, source=source)
        require_known_source(conn, found, source)
    return {"held": found}


@router.post("/knowledge/held/{held_id}/read")
def read_held(held_id: UUID, body: Reading, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """The text of a kept version, for callers who may decide about the document; reading it is recorded in the audit
    log with its reason. `data` (base64): the bytes of a pushed document."""
    with services.transaction() as conn:
        found = legal_hold_store.read_version(conn, held_id)
        if found is None:
            raise _not_found()
        document = None if found["document_id"] is None else governed_store.read_document(conn, found["document_id"])
        if document is None:
            if not can_read_all(caller):
                raise _not_found()
            require_duty(caller, DATA_DUTIES, f"source/{found['source']}")
        else:
            require_decider(conn, caller, document)
        data = found.pop("data")
        record(
            conn, action="knowledge.held_read", actor=caller.actor, subject=f"source/{found['source']}",
            detail={"version": str(held_id), "reason": body.reason}, at=services.clock.now(),
        )  # fmt: skip
        return {"version": {**found, "data": None if data is None else base64.b64encode(data).decode()}}


@router.post("/knowledge/readmit")
def readmission(body: Readmission, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Allow a deleted path to be ingested again; an ingestion of its source begins at once."""
    require_duty(caller, DATA_DUTIES, f"source/{body.source}")
    with services.own_connection() as conn:
        readmit(conn, body.source, body.path, _deletion_reason(services, caller, body.reason))
    request.app.state.indexer.request_source(body.source)
    return {"source": body.source, "path": body.path}


@router.get("/knowledge/glossary")
def glossary(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The company's terms in the served blueprint."""
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
    """Documents that contain these texts, for a person's request for erasure (content of their calls and reviews is
    erased with the person). With `delete` the documents are deleted; those under a legal hold stay and are listed."""
    require_duty(caller, DATA_DUTIES, "company")
    if short := [word for word in body.words if not names_somebody(word)]:
        raise Invalid(
            f"'{short[0]}' is too short to name anybody", code="erasure_words",
            hint="Give texts of four characters or more (two of Han, kana and the like), such as a full name.",
        )  # fmt: skip
    with services.own_connection() as conn:
        found = documents_mentioning(conn, body.words)
        deletable = [id for id, _, _, held in found if not held]
        stones = (
            delete(conn, deletable, _deletion_reason(services, caller, body.reason), clear_answers)
            if body.delete and deletable
            else []
        )
    deleted_ids = {stone.document_id for stone in stones}
    return {
        "documents": [
            {"id": id, "source": source, "path": path, "held": held, "deleted": id in deleted_ids}
            for id, source, path, held in found
        ]
    }


def require_document(conn: Any, id: UUID) -> dict[str, Any]:
    """The document of this id. Raises `NotFound` (document_unknown)."""
    found = governed_store.read_document(conn, id)
    if found is None:
        raise _not_found()
    return found


def require_decider(conn: Any, caller: Caller, found: dict[str, Any]) -> None:
    """Require that the caller is owner, steward, the operator, or holds a duty for the source's data. An owner or
    steward whom only the document itself or its sidecar names may not decide: anybody who may write it could name
    themselves.

    Raises `Denied` (document_not_yours) for callers who may read the document, `NotFound` for all others.
    """
    if ownership.answers_for(conn, caller, found):
        return
    try:
        require_duty(caller, DATA_DUTIES, f"source/{found['source']}")
    except Denied as error:
        if not (can_read_all(caller) or _may_read(conn, caller, found)):
            raise _not_found() from error
        answerable = ownership.answerable_people(found)
        person = next((found[name] for name in ("steward", "owner") if found[name] in answerable), None)
        decider = person or "the owner of the source"
        if caller.email is not None and caller.email in (found["owner"], found["steward"]):
            raise Denied(
                "only the document itself names you, which whoever may write it could do", code="document_not_yours",
                hint=f"Ask {decider} to name you in the folder's .governed.yaml or the source.",
            ) from error  # fmt: skip
        raise Denied(
            "only its owner or steward may decide about a document", code="document_not_yours",
            hint=f"Ask {decider}.",
        ) from error  # fmt: skip


def _not_found() -> NotFound:
    """The error for a missing document, and for one whose existence the caller must not know."""
    return NotFound("no such document", code="document_unknown", hint="`groundplan knowledge documents` lists them.")


def _document_findings(conn: Any, caller: Caller, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Findings about a document, and the grouped one about personal data in its folder if the document has some."""
    subject, only = f"source/{found['source']}/{found['path']}", ownership.own_findings(conn, caller)
    listed = finding_store.list_findings(conn, kinds=["knowledge."], subject=subject, only=only)
    personal = any(not kind.startswith("!") for kind in found["personal"] or ())
    if personal and found["sensitivity"] in ("public", "internal") and all(each["kind"] != PERSONAL for each in listed):
        grouped = finding_store.list_findings(conn, kinds=[PERSONAL], subject=folder_of(subject), only=only)
        whose = [name for name in (found["owner"], found["steward"]) if name]
        listed += [each for each in grouped if each["detail"]["whose"] == whose]
    return listed


def _may_know(conn: Any, caller: Caller, document: UUID) -> bool:
    """Whether a caller may read another document, or owns it."""
    other = require_document(conn, document)
    return _may_read(conn, caller, other) or ownership.answers_for(conn, caller, other)


def _may_read(conn: Any, caller: Caller, found: dict[str, Any]) -> bool:
    if caller.person is None or found["deleted_at"] is not None:
        return False
    return bool(governed_store.why_readable(conn, found["id"], caller.person)["readable"])


_READER_FIELDS = (
    "id", "source", "path", "title", "version", "modified_at", "media", "state", "standing", "sensitivity", "owner",
    "steward",
)  # fmt: skip


def _as_reader(conn: Any, caller: Caller, found: dict[str, Any]) -> dict[str, Any]:
    """A document as shown to a reader who does not own it. Raises `NotFound` if the caller may not read it."""
    if not _may_read(conn, caller, found):
        raise _not_found()
    newer = governed_store.read_document(conn, found["superseded_by"]) if found["superseded_by"] else None
    return {
        "document": {name: found[name] for name in _READER_FIELDS} | {"superseded": found["superseded_by"] is not None},
        "newer": knowledge_store.document_title(conn, newer["id"])
        if newer is not None and _may_read(conn, caller, newer)
        else None,
        "access": governed_store.why_readable(conn, found["id"], caller.person) if caller.person else None,
    }


def _deletion_reason(services: Services, caller: Caller, reason: str) -> DeletionReason:
    return DeletionReason(str(caller.actor), reason, services.clock.now(), services.home.root)
