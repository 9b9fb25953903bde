"""Erasure of a person: documents, stored calls, reviews, caches, files, account; with a receipt of what was erased and
kept.

Data under a legal hold is kept and listed in the receipt, as are records that must be kept by law: who approved
something, and amounts and times of calls, under an id that no longer names anybody. This module coordinates the
domains, each of which deletes its own data. The route decides who may request an erasure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.erasure import store
from groundplan.api.erasure.text_matching import normalize, unescape_json
from groundplan.api.knowledge.upkeep import clear_answers
from groundplan.api.served_blueprint import current_or_none
from groundplan.core.audit import receipt as receipts
from groundplan.core.audit import record
from groundplan.core.audit.keys import load_private
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.canonical import digest
from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.core.letters import name_pattern
from groundplan.identity import erase as identity_erase
from groundplan.identity import service as identity
from groundplan.identity import store as identity_store
from groundplan.identity.model import Person
from groundplan.knowledge.deletion import mentions, names_store
from groundplan.knowledge.deletion.delete import DeletionReason, delete, forget_names
from groundplan.knowledge.sources import push_store
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

ACTION = "person.erasure"
KIND = "erasure"
FINDING = "governance.erasure"
_NAMES_NOTE = "their places stay empty by digests, and calls tell what they rested on by its id"
_FILES_NOTE = "one that is still at its source is for its owner to rename"


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """The person to erase: an e-mail address, and other texts that name them. `keep_documents`: keep documents that
    mention them."""

    email: str
    also: tuple[str, ...] = ()
    reason: str = ""
    keep_documents: bool = False

    @staticmethod
    def of(stored: dict[str, Any]) -> ErasureRequest:
        """The request from its stored form (`asdict`)."""
        return ErasureRequest(**{**stored, "also": tuple(stored["also"])})

    @property
    def words(self) -> list[str]:
        """The texts to search for."""
        return [self.email, *self.also]


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of data that was erased or kept: how many, and why it was kept or what remains to be done. `ids` replace
    `names` in the receipt where a name may identify the person."""

    what: str
    count: int
    why: str = ""
    names: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def to_json(self, *, signed: bool = False) -> dict[str, Any]:
        """JSON for the response, or (`signed`) for the receipt."""
        names = self.ids if signed and self.ids else self.names
        return {"what": self.what, "count": self.count, "why": self.why, "names": names}


@dataclass(slots=True)
class _Erasure:
    """An erasure in progress. `dry`: only report, change nothing."""

    services: Services
    conn: Connection[Any]
    request: ErasureRequest
    actor: str
    dry: bool
    person: Person | None
    hold: store.Hold | None
    erased: list[Part] = field(default_factory=list)
    kept: list[Part] = field(default_factory=list)

    def add_erased(
        self, what: str, count: int, why: str = "", names: Sequence[str] = (), ids: Sequence[str] = ()
    ) -> None:
        if count:
            self.erased.append(Part(what, count, why, list(names), list(ids)))

    def add_kept(self, what: str, count: int, why: str, names: Sequence[str] = (), ids: Sequence[str] = ()) -> None:
        if count:
            self.kept.append(Part(what, count, why, list(names), list(ids)))


def erase_person(
    services: Services, erasure_request: ErasureRequest, actor: str, *, dry: bool = False
) -> dict[str, Any]:
    """Erase a person, or with `dry` report what would be erased: `{"erased", "kept", "receipt", "entry"}`; without a
    receipt if `dry`.

    Can be repeated after an interruption. Raises `Invalid` (`erasure_words`) for texts too short to name anybody,
    `NotFound` (`unknown_person`) if nobody has the address and nothing mentions it.
    """
    too_short = [word for word in erasure_request.words if not mentions.names_somebody(word)]
    if too_short:
        raise Invalid(
            f"'{too_short[0]}' is too short to name anybody", code="erasure_words",
            hint="Give an address and texts of four characters or more (two of Han, kana and the like), such as a full "
            "name.",
        )  # fmt: skip
    with services.own_connection() as conn:
        person = identity_store.person_by_email(conn, erasure_request.email.strip().lower())
        hold = None if person is None else store.open_holds(conn).get(str(person.id))
        work = _Erasure(services, conn, erasure_request, actor, dry, person, hold)
        _erase_documents(work)
        with conn.transaction():
            for table in store.SEALED_TABLES:
                _erase_texts(work, table)
            _clear_caches(work)
        if person is not None:
            _erase_belongings(work, person)
        if person is None and not work.erased and not work.kept:
            raise NotFound(
                f"nobody has the address {erasure_request.email}, and nothing names it", code="unknown_person",
                hint="Add other spellings with --also.",
            )  # fmt: skip
        return _finish(work)


def _erase_documents(work: _Erasure) -> None:
    """Erase documents that mention the person; a legal hold of a document keeps it."""
    rows = mentions.documents_mentioning(work.conn, work.request.words)
    free = [row for row in rows if not row[3]]
    held = [row for row in rows if row[3]]
    work.add_kept("documents", len(held), "a legal hold keeps them", *_document_names(held))
    if work.request.keep_documents:
        work.add_kept("documents", len(free), "asked to be kept: they are only named", *_document_names(free))
    else:
        due = ""
        if free and not work.dry:
            why = DeletionReason(work.actor, work.request.reason, work.services.clock.now(), work.services.home.root)
            tombstones = delete(work.conn, [row[0] for row in free], why, clear_answers)
            last_day = max(tombstone.due for tombstone in tombstones)
            due = f"gone from search and caches; off the disk by {last_day:%Y-%m-%d}"
        work.add_erased("documents", len(free), due, *_document_names(free))
        _erase_document_names(work, free)
    _erase_pushed_files(work)
    email = work.request.email.strip().lower()
    work.add_kept(
        "documents that name them as owner, steward or reader", mentions.count_named(work.conn, email),
        "those who answer for them decide who is named instead",
    )  # fmt: skip
    work.add_kept(
        "documents that they decided about", mentions.count_decided(work.conn, email),
        "who decided stays known for as long as the decision stands",
    )  # fmt: skip


def _erase_pushed_files(work: _Erasure) -> None:
    """Erase pushed files that became no document: only here their bytes are kept."""
    rows = mentions.pushed_mentioning(work.conn, work.request.words)
    free = [(source, path) for source, path, held in rows if not held]
    if not work.dry and not work.request.keep_documents:
        for source in sorted({source for source, _ in free}):
            push_store.drop_documents(work.conn, source, [path for of, path in free if of == source])
    if work.request.keep_documents:
        work.add_kept("pushed files that are no documents", len(free), "asked to be kept: they are only named")
    else:
        work.add_erased("pushed files that are no documents", len(free))
    work.add_kept("pushed files that are no documents", len(rows) - len(free), "a legal hold keeps them")


def _erase_document_names(work: _Erasure, deleted: Sequence[tuple[UUID, str, str, bool]]) -> None:
    """Erase the names of deleted documents, including earlier ones, that name the person."""
    rows = {row[0]: row for row in deleted} | {row[0]: (*row, False) for row in names_store.deleted_names(work.conn)}
    naming = [row for row in rows.values() if mentions.path_mentions(row[2], work.request.words)]
    if naming and not work.dry:
        forget_names(work.conn, work.services.home.root, [row[0] for row in naming])
    work.add_erased("names of deleted documents", len(naming), _NAMES_NOTE, *_document_names(naming))
    work.add_kept("files of these names", len(naming), _FILES_NOTE, *_document_names(naming))


def _document_names(rows: Sequence[tuple[UUID, str, str, bool]]) -> tuple[list[str], list[str]]:
    """(names of documents by path, names by id)"""
    return [f"{source}/{path}" for _, source, path, _ in rows], [f"{source}/{id}" for id, source, *_ in rows]


def _erase_texts(work: _Erasure, table: store.SealedTable) -> None:
    """Erase sealed texts that belong to the person or name them; texts of people under a legal hold stay."""
    keys = SubjectKeys.of(work.services.home)
    words = [re.compile(name_pattern(normalize(word).strip())) for word in work.request.words]
    standing = store.open_holds(work.conn)
    own = None if work.person is None else str(work.person.id)
    doomed, held = [], 0
    for key, sealed in store.sealed_texts(work.conn, table):
        subjects = {token.split(":")[1] for token in sealed if token.count(":") >= 2}
        # cached answers are always erased: every cache is cleared
        if table is not store.ANSWERS and own not in subjects and not _is_named(work.conn, keys, sealed, words):
            continue
        if table is not store.ANSWERS and any(subject in standing for subject in subjects):
            held += 1
        else:
            doomed.append(key)
    if not work.dry:
        store.delete_texts(work.conn, table, doomed)
    work.add_erased(table.label, len(doomed))
    work.add_kept(table.label, held, "a legal hold keeps them")


def _is_named(
    conn: Connection[Any], keys: SubjectKeys, sealed: Sequence[str], names: Sequence[re.Pattern[str]]
) -> bool:
    """Whether any of the sealed texts contains one of the names."""
    for token in sealed:
        with suppress(GroundplanError):
            text = keys.unseal(conn, token) or ""
            if any(
                name.search(variant) for variant in (normalize(text), normalize(unescape_json(text))) for name in names
            ):
                return True
    return False


def _clear_caches(work: _Erasure) -> None:
    """Clear the caches of all workloads at the gateways: only gateways know whose answers they hold."""
    blueprint = current_or_none(work.conn)
    cached = [workload.name for workload in blueprint.workloads if workload.cache is not None] if blueprint else []
    if not work.dry:
        for name in cached:
            identity.clear_answers(work.conn, work.actor, name)
    work.add_erased("caches of workloads", len(cached), "emptied at every gateway", cached)


def _erase_belongings(work: _Erasure, person: Person) -> None:
    """Erase what belongs to the person besides texts: files of batches, links, the account."""
    conn = work.conn
    if work.hold is not None:
        why = f"a legal hold since {work.hold.at:%Y-%m-%d}: {work.hold.reason}"
        work.add_kept("account, key and files", 1, why)
    else:
        with conn.transaction():
            free, busy = store.erasable_files(conn, person.id)
            if not work.dry:
                store.mark_files_deleted(conn, free)
                work.add_erased("uploads that were announced", store.delete_uploads(conn, person.id))
                work.add_erased("links to documents", store.delete_links(conn, person.id))
        if not work.dry:
            for id in free:
                (work.services.home.root / "files" / str(id)).unlink(missing_ok=True)
        work.add_erased("files of batches", len(free))
        work.add_kept("files of batches", busy, "a batch that is not finished needs them: ask again when it is")
        _erase_account(work, person)
    work.add_kept(
        "amounts and times of calls", store.count_calls(conn, person.id),
        "the books of the company, under an id that names nobody once the account is erased",
    )  # fmt: skip


def _erase_account(work: _Erasure, person: Person) -> None:
    if person.active:
        work.add_kept("account", 1, "they are still here: `groundplan people leave` comes first, then ask again")
        return
    if work.dry:
        work.add_erased("account", 1, "key, passkeys, sign-in, name and address, as far as no approval needs the name")
        return
    with work.conn.transaction():
        result = identity_erase.erase(work.conn, work.services.home, work.actor, person.id, work.services.clock.now())
    work.add_erased("account", 1, f"{', '.join(result['erased'])}; what the log has under this key opens no more")
    work.add_kept(
        "name and address", len(result["kept"]), f"who approved something stays known until {result['until']}"
    )


def _finish(work: _Erasure) -> dict[str, Any]:
    """The response; where something was erased, with a signed receipt and an entry in the audit log."""
    answer = {"erased": [part.to_json() for part in work.erased], "kept": [part.to_json() for part in work.kept]}
    if work.dry:
        return {**answer, "receipt": None, "entry": None}
    person = None if work.person is None else str(work.person.id)
    body = {
        "format": 1, "id": str(new_id()), "at": work.services.clock.now().isoformat(timespec="seconds"),
        "person": person, "words": [digest(word.lower().encode()) for word in work.request.words],
        "reason": work.request.reason, "erased": [part.to_json(signed=True) for part in work.erased],
        "kept": [part.to_json(signed=True) for part in work.kept],
        "not_reached": ["copies that others made", "backups until they are restored, when the lists are replayed",
                        "the write-ahead log until it is overwritten"],
    }  # fmt: skip
    written = receipts.write_receipt(KIND, body, load_private(work.services.home, "checkpoint"))
    detail = {
        "receipt": written.digest, "reason": work.request.reason,
        "erased": {part.what: part.count for part in work.erased},
        "kept": {part.what: part.count for part in work.kept},
    }  # fmt: skip
    with work.conn.transaction():
        entry = record(
            work.conn, action=ACTION, actor=work.actor, subject=f"person/{person}" if person else "company",
            detail=detail, at=work.services.clock.now(),
        )  # fmt: skip
    return {**answer, "receipt": written.note, "entry": str(entry)}


def request_erasure(services: Services, erasure_request: ErasureRequest, actor: str) -> dict[str, Any]:
    """Store a request for decision; returns it with what would be erased and kept now. Raises as `erase_person`."""
    preview = erase_person(services, erasure_request, actor, dry=True)
    with services.transaction() as conn:
        id = store.insert_request(conn, asdict(erasure_request), actor)
        finding_store.report(
            conn,
            Finding(
                kind=FINDING, subject=f"erasure/{id}", severity="high",
                message="a request for erasure waits for compliance",
                hint="Governance, Erasures: check what would be erased and what stays, then confirm or refuse.",
            ),
        )  # fmt: skip
        record(
            conn,
            action="person.erasure_asked",
            actor=actor,
            subject=f"erasure/{id}",
            detail={"reason": erasure_request.reason},
        )
    return {"id": str(id), "state": "waiting", "erased": preview["erased"], "kept": preview["kept"]}


def confirm_erasure(services: Services, id: UUID, actor: str) -> dict[str, Any]:
    """Execute a request. Raises `NotFound` (erasure_unknown), `Conflict` (erasure_decided), and as `erase_person`."""
    erasure_request = _waiting_request(services, id)
    result = erase_person(services, erasure_request, actor)
    with services.transaction() as conn:
        store.decide_request(conn, id, "done", actor, result["receipt"])
        finding_store.replace_findings(conn, [], kinds=[FINDING], within=f"erasure/{id}")
    return {"id": str(id), "state": "done", **result}


def refuse_erasure(services: Services, id: UUID, reason: str, actor: str) -> None:
    """Refuse a request, recorded in the audit log. Raises as `confirm_erasure`."""
    _waiting_request(services, id)
    with services.transaction() as conn:
        store.decide_request(conn, id, "refused", actor, None)
        finding_store.replace_findings(conn, [], kinds=[FINDING], within=f"erasure/{id}")
        record(conn, action="person.erasure_refused", actor=actor, subject=f"erasure/{id}", detail={"reason": reason})


def find_request(services: Services, id: UUID) -> store.Request:
    """One request by id. Raises `NotFound` (erasure_unknown)."""
    with services.transaction() as conn:
        stored = store.find_request(conn, id)
    if stored is None:
        raise NotFound("there is no such request", code="erasure_unknown", hint="GET /api/erasures lists them.")
    return stored


def _waiting_request(services: Services, id: UUID) -> ErasureRequest:
    stored = find_request(services, id)
    if stored.asked is None:
        raise Conflict(f"it was {stored.state} already", code="erasure_decided", hint="Make another request.")
    return ErasureRequest.of(stored.asked)


def set_hold(services: Services, person: UUID, reason: str, actor: str, *, end: bool) -> None:
    """Put the stored content of a person's calls under a legal hold, or `end` it. Raises `Conflict` (`person_hold`)."""
    with services.transaction() as conn:
        is_changed = store.end_hold(conn, person, actor) if end else store.insert_hold(conn, person, reason, actor)
        if not is_changed:
            raise Conflict(
                "there is no legal hold" if end else "there is a legal hold already", code="person_hold",
                hint="`groundplan erase --person … --dry-run` shows the data under a legal hold.",
            )  # fmt: skip
        action = "person.hold_ended" if end else "person.held"
        record(conn, action=action, actor=actor, subject=f"person/{person}", detail={"reason": reason})
