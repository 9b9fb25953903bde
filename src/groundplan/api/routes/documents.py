"""Sources and documents: what holds for them and why, decisions, deletion, glossary and evaluations.

What applications push is in `push`, what answers rested on in `lineage`.
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
from groundplan.api.knowledge import store as shown
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
    """One value of a document, and why; `value` null takes an earlier decision back."""

    what: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    value: str | bool | list[str] | None
    reason: Reason


class Deletion(Strict):
    """Why it is deleted."""

    reason: Reason


class Reading(Strict):
    """Why what a legal hold keeps is read."""

    reason: Reason


class Readmission(Strict):
    """Which deleted place may be a document again."""

    source: Name
    path: Path
    reason: Reason


class Mentions(Strict):
    """Texts that name somebody, such as an address and a full name; `delete`: the documents with one of them go."""

    words: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(min_length=1, max_length=20)
    ]
    delete: bool = False
    reason: Reason


@router.get("/knowledge/sources")
def sources(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Each source with its owner, what holds for it, its health, its quality with the trend, and open findings.
    `behind`: changed documents that are not searched by words yet; null where search does not run."""
    with services.transaction() as conn:
        found = shown.sources(conn)
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
    """Documents without their text. `state`: how they stand (`standing`: approved, draft, rejected, retired,
    superseded, not_yet_valid, expired, deleted), or `kept back`, which is all but approved and deleted; `path`: a whole
    one; `holds`: `personal_data` in what is public or internal. `next`: what `after` is for those that follow; null
    where there are none. Who holds no duty has those that they answer for."""
    most = max(1, min(limit, 1000))
    at, slash, rest = (after or "").partition("/")
    with services.transaction() as conn:
        found = shown.documents(
            conn, source, state, text, most + 1, path=path, after=(at, rest) if slash else None,
            who=None if can_read_all(caller) else caller.email or "", holds=holds,
        )  # fmt: skip
        if can_read_all(caller) and after is None:
            require_known_source(conn, found, source)
    more, found = len(found) > most, found[:most]
    return {"documents": found, "next": f"{found[-1]['source']}/{found[-1]['path']}" if more else None}


@router.get("/knowledge/documents/{document_id}")
def document(document_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """All that holds for a document and where it is from, its versions, readers, findings, and who used it. Whoever
    holds no duty and answers for it is told all but who used it (`used_by` is null), and of a newer one only where they
    know that; who may only read it is told what it is and why they may (`access`)."""
    with services.transaction() as conn:
        found = require_document(conn, document_id)
        everything = can_read_all(caller)
        if not everything and not ownership.answers_for(conn, caller, found):
            return _as_reader(conn, caller, found)
        newer = shown.document_title(conn, found["superseded_by"]) if found["superseded_by"] else None
        if newer is not None and not everything and not _may_know(conn, caller, newer["id"]):
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
            "readers": shown.readers(conn, document_id),
            "people": people[: governed_store.MAX_PEOPLE],
            "more_people": len(people) > governed_store.MAX_PEOPLE,
            "workloads": [
                {"workload": name, "kept_back": governed_store.withheld_reason(conn, document_id, name)}
                for name in workloads
            ],
            "findings": with_quotes(conn, caller, _document_findings(conn, caller, found)),
            "used_by": lineage_store.answers_using(conn, document_id, limit=50) if everything else None,
        }


@router.get("/knowledge/documents/{document_id}/access")
def access(document_id: UUID, person: str, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Why somebody may read a document, or may not: its readers that they are, and the groups on the way to each."""
    with services.transaction() as conn:
        require_document(conn, document_id)
        return {"person": person, **governed_store.why_readable(conn, document_id, find_person_id(conn, person))}


@router.post("/knowledge/documents/{document_id}/decide")
def decision(
    document_id: UUID, body: Decision, request: Request, services: ServicesDep, caller: SignedIn
) -> dict[str, Any]:
    """Approve, reject, retire, supersede, extend: by its owner, steward, or who holds a duty for the source's data. No
    `value` takes a decision back: what the source says holds again after a look at it, which begins at once."""
    with services.transaction() as conn:
        found = require_document(conn, document_id)
        require_decider(conn, caller, found)
        said = DecisionContext(str(caller.actor), caller.email or "the operator", body.reason, services.clock.now())
        document = decide(conn, document_id, body.what, body.value, said)
    if body.value is None:
        request.app.state.indexing.look_at(document["source"])
    return {"document": document}


@router.post("/knowledge/documents/{document_id}/delete")
def deletion(document_id: UUID, body: Deletion, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Gone from search, index and caches when this answers; erased from the disk by `due`. It stays away until it is
    let in again."""
    with services.transaction() as conn:
        require_decider(conn, caller, require_document(conn, document_id))
    with services.own_connection() as conn:
        (stone,) = delete(conn, [document_id], _deletion_reason(services, caller, body.reason), clear_answers)
    return {"id": stone.id, "source": stone.source, "path": stone.path, "due": stone.due}


@router.get("/knowledge/deletions")
def deletions(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """What was deleted here, or kept until a legal hold ended (`cause`), by when it has to be off the disk, and since
    when it is; of what went at its source, how much waits and how much is off the disk."""
    with services.transaction() as conn:
        stones = deletion_store.tombstones(conn)
        waiting, due, erased = deletion_store.source_deletions(conn)
        names = shown.person_emails(conn, [stone.by for stone in stones])
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
    """What legal holds keep of documents that changed, went or cannot be read any more, without its text."""
    with services.transaction() as conn:
        found = legal_hold_store.versions(conn, source=source)
        require_known_source(conn, found, source)
    return {"held": found}


@router.post("/knowledge/held/{held_id}/read")
def read_held(held_id: UUID, body: Reading, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """What a kept version said, for whoever may decide about the document; that it was read, and why, is in the audit
    log. `data` (base64): the bytes of what was pushed."""
    with services.transaction() as conn:
        found = legal_hold_store.read_version(conn, held_id)
        if found is None:
            raise _not_found()
        whose = None if found["document_id"] is None else governed_store.read_document(conn, found["document_id"])
        if whose is None:
            if not can_read_all(caller):
                raise _not_found()
            require_duty(caller, DATA_DUTIES, f"source/{found['source']}")
        else:
            require_decider(conn, caller, whose)
        data = found.pop("data")
        record(
            conn, action="knowledge.held_read", actor=caller.actor, subject=f"source/{found['source']}",
            detail={"version": str(held_id), "reason": body.reason}, at=services.clock.now(),
        )  # fmt: skip
        return {"version": {**found, "data": None if data is None else base64.b64encode(data).decode()}}


@router.post("/knowledge/readmit")
def readmission(body: Readmission, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Let a deleted place be a document again, after a look at its source, which begins at once."""
    require_duty(caller, DATA_DUTIES, f"source/{body.source}")
    with services.own_connection() as conn:
        readmit(conn, body.source, body.path, _deletion_reason(services, caller, body.reason))
    request.app.state.indexing.look_at(body.source)
    return {"source": body.source, "path": body.path}


@router.get("/knowledge/glossary")
def glossary(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The company's terms as the blueprint that is served has them."""
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
    """The runs of `groundplan knowledge evaluate` in this HOME, the newest first."""
    return {"runs": history.list_runs(services.home.root / "evaluation")}


@router.post("/knowledge/mentions")
def mentions(body: Mentions, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Documents with these texts in them, for somebody's request to be erased (what was kept of their calls and reviews
    goes with the person). With `delete` they go; what is under a legal hold stays, and is named."""
    require_duty(caller, DATA_DUTIES, "company")
    if short := [word for word in body.words if not names_somebody(word)]:
        raise Invalid(
            f"'{short[0]}' is too short to name anybody", code="erasure_words",
            hint="Give texts of four characters or more (two of Han, kana and the like), such as a full name.",
        )  # fmt: skip
    with services.own_connection() as conn:
        found = documents_mentioning(conn, body.words)
        free = [id for id, _, _, held in found if not held]
        stones = (
            delete(conn, free, _deletion_reason(services, caller, body.reason), clear_answers)
            if body.delete and free
            else []
        )
    gone = {stone.document_id for stone in stones}
    return {
        "documents": [
            {"id": id, "source": source, "path": path, "held": held, "deleted": id in gone}
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
    """Owner, steward, the operator, or a holder of a duty for the source's data. An owner or steward whom only the
    document itself names, or the file beside it, is told of it and decides nothing: whoever may write it could be both.

    Raises `Denied` (document_not_yours) for whoever may read it, `NotFound` for everybody else.
    """
    if ownership.answers_for(conn, caller, found):
        return
    try:
        require_duty(caller, DATA_DUTIES, f"source/{found['source']}")
    except Denied as error:
        if not (can_read_all(caller) or _may_read(conn, caller, found)):
            raise _not_found() from error
        named = ownership.answerable_people(found)
        whom = next((found[name] for name in ("steward", "owner") if found[name] in named), None)
        who = whom or "the owner of the source"
        if caller.email is not None and caller.email in (found["owner"], found["steward"]):
            raise Denied(
                "only the document itself names you, which whoever may write it could do", code="document_not_yours",
                hint=f"Ask {who} to name you in the folder's .governed.yaml or the source.",
            ) from error  # fmt: skip
        raise Denied(
            "only its owner or steward may decide about a document", code="document_not_yours",
            hint=f"Ask {who}.",
        ) from error  # fmt: skip


def _not_found() -> NotFound:
    """The error for a missing document, also used for one whose existence the caller must not know."""
    return NotFound("no such document", code="document_unknown", hint="`groundplan knowledge documents` lists them.")


def _document_findings(conn: Any, caller: Caller, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Findings about a document, and the one about personal data in its folder where the document has some."""
    subject, only = f"source/{found['source']}/{found['path']}", ownership.own_findings(conn, caller)
    told = finding_store.findings(conn, kinds=["knowledge."], subject=subject, only=only)
    personal = any(not kind.startswith("!") for kind in found["personal"] or ())
    if personal and found["sensitivity"] in ("public", "internal") and all(each["kind"] != PERSONAL for each in told):
        several = finding_store.findings(conn, kinds=[PERSONAL], subject=folder_of(subject), only=only)
        whose = [name for name in (found["owner"], found["steward"]) if name]
        told += [each for each in several if each["detail"]["whose"] == whose]
    return told


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
    """A document as shown to a reader without ownership. Raises `NotFound` where the caller may not read it."""
    if not _may_read(conn, caller, found):
        raise _not_found()
    newer = governed_store.read_document(conn, found["superseded_by"]) if found["superseded_by"] else None
    return {
        "document": {name: found[name] for name in _READER_FIELDS} | {"superseded": found["superseded_by"] is not None},
        "newer": shown.document_title(conn, newer["id"])
        if newer is not None and _may_read(conn, caller, newer)
        else None,
        "access": governed_store.why_readable(conn, found["id"], caller.person) if caller.person else None,
    }


def _deletion_reason(services: Services, caller: Caller, reason: str) -> DeletionReason:
    return DeletionReason(str(caller.actor), reason, services.clock.now(), services.home.root)
