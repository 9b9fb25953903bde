"""One request to erase somebody: documents, kept calls, reviews, caches, files, account; with a receipt of what stayed.

What a legal hold keeps stays, and is named; so does what must stay by law: who approved something, and amounts and
times of calls, under an id that names nobody any more. It composes; each domain deletes its own. Who may ask is the
route's.
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
from groundplan.api.erasure.text_matching import as_read, unescaped
from groundplan.api.knowledge.upkeep import clear_answers
from groundplan.api.served_blueprint import current_or_none
from groundplan.core.audit import receipt as receipts
from groundplan.core.audit import record
from groundplan.core.audit.keys import load_private
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.canonical import digest
from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.core.letters import named
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
_PLACES = "their places stay empty by digests, and calls tell what they rested on by its id"
_FILES = "one that is still at its source is for its owner to rename"


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom to erase: an address, and other texts that name them. `keep_documents`: those that mention them stay."""

    email: str
    also: tuple[str, ...] = ()
    reason: str = ""
    keep_documents: bool = False

    @staticmethod
    def of(kept: dict[str, Any]) -> Asked:
        """As a request keeps it."""
        return Asked(**{**kept, "also": tuple(kept["also"])})

    @property
    def words(self) -> list[str]:
        """What is looked for in texts."""
        return [self.email, *self.also]


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of thing that went or stayed: how many, and why it stayed or what is left to be done. `ids`: where a name
    may tell whom, what the receipt says in its place."""

    what: str
    count: int
    why: str = ""
    names: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def told(self, *, signed: bool = False) -> dict[str, Any]:
        """For whoever asks, or `signed`: for the receipt."""
        names = self.ids if signed and self.ids else self.names
        return {"what": self.what, "count": self.count, "why": self.why, "names": names}


@dataclass(slots=True)
class _Work:
    """One erasure under way. `dry`: nothing is changed."""

    services: Services
    conn: Connection[Any]
    asked: Asked
    actor: str
    dry: bool
    person: Person | None
    hold: store.Hold | None
    erased: list[Part] = field(default_factory=list)
    kept: list[Part] = field(default_factory=list)

    def went(self, what: str, count: int, why: str = "", names: Sequence[str] = (), ids: Sequence[str] = ()) -> None:
        if count:
            self.erased.append(Part(what, count, why, list(names), list(ids)))

    def stayed(self, what: str, count: int, why: str, names: Sequence[str] = (), ids: Sequence[str] = ()) -> None:
        if count:
            self.kept.append(Part(what, count, why, list(names), list(ids)))


def erase(services: Services, asked: Asked, actor: str, *, dry: bool = False) -> dict[str, Any]:
    """Erase, or with `dry` say what would be. `{"erased", "kept", "receipt", "entry"}`; no receipt where dry.

    Asked again it goes on: what is gone is not there any more. Raises `Invalid` (erasure_words) for texts too short to
    name anybody, `NotFound` (unknown_person) where nobody has the address and nothing is found under it.
    """
    short = [word for word in asked.words if not mentions.names_somebody(word)]
    if short:
        raise Invalid(
            f"'{short[0]}' is too short to name anybody", code="erasure_words",
            hint="Give an address and texts of four characters or more (two of Han, kana and the like), such as a full "
            "name.",
        )  # fmt: skip
    with services.own_connection() as conn:
        person = identity_store.person_by_email(conn, asked.email.strip().lower())
        hold = None if person is None else store.holds(conn).get(str(person.id))
        work = _Work(services, conn, asked, actor, dry, person, hold)
        _documents(work)
        with conn.transaction():
            for kept in store.EVERY:
                _texts(work, kept)
            _clear_caches(work)
        if person is not None:
            _own(work, person)
        if person is None and not work.erased and not work.kept:
            raise NotFound(
                f"nobody has the address {asked.email}, and nothing names it", code="unknown_person",
                hint="Add other spellings with --also.",
            )  # fmt: skip
        return _told(work)


def _documents(work: _Work) -> None:
    """Documents in which they are named: a hold of a document keeps it."""
    found = mentions.documents_mentioning(work.conn, work.asked.words)
    free = [row for row in found if not row[3]]
    held = [row for row in found if row[3]]
    work.stayed("documents", len(held), "a legal hold keeps them", *_names(held))
    if work.asked.keep_documents:
        work.stayed("documents", len(free), "asked to be kept: they are only named", *_names(free))
    else:
        due = ""
        if free and not work.dry:
            why = DeletionReason(work.actor, work.asked.reason, work.services.clock.now(), work.services.home.root)
            stones = delete(work.conn, [row[0] for row in free], why, clear_answers)
            due = f"gone from search and caches; off the disk by {max(stone.due for stone in stones):%Y-%m-%d}"
        work.went("documents", len(free), due, *_names(free))
        _places(work, free)
    _pushed(work)
    email = work.asked.email.strip().lower()
    work.stayed(
        "documents that name them as owner, steward or reader", mentions.count_named(work.conn, email),
        "those who answer for them decide who is named instead",
    )  # fmt: skip
    work.stayed(
        "documents that they decided about", mentions.count_decided(work.conn, email),
        "who decided stays known for as long as the decision stands",
    )  # fmt: skip


def _pushed(work: _Work) -> None:
    """What applications pushed and is no document: nobody else keeps its bytes for us."""
    found = mentions.pushed_mentioning(work.conn, work.asked.words)
    free = [(source, path) for source, path, held in found if not held]
    if not work.dry and not work.asked.keep_documents:
        for source in sorted({source for source, _ in free}):
            push_store.drop_documents(work.conn, source, [path for of, path in free if of == source])
    if work.asked.keep_documents:
        work.stayed("pushed files that are no documents", len(free), "asked to be kept: they are only named")
    else:
        work.went("pushed files that are no documents", len(free))
    work.stayed("pushed files that are no documents", len(found) - len(free), "a legal hold keeps them")


def _places(work: _Work, gone: Sequence[tuple[UUID, str, str, bool]]) -> None:
    """The names of deleted documents, these and those of before, as far as they name them."""
    rows = {row[0]: row for row in gone} | {row[0]: (*row, False) for row in names_store.deleted_names(work.conn)}
    named = [row for row in rows.values() if mentions.path_mentions(row[2], work.asked.words)]
    if named and not work.dry:
        forget_names(work.conn, work.services.home.root, [row[0] for row in named])
    work.went("names of deleted documents", len(named), _PLACES, *_names(named))
    work.stayed("files of these names", len(named), _FILES, *_names(named))


def _names(rows: Sequence[tuple[UUID, str, str, bool]]) -> tuple[list[str], list[str]]:
    """Of documents: with their paths, and by their ids."""
    return [f"{source}/{path}" for _, source, path, _ in rows], [f"{source}/{id}" for id, source, *_ in rows]


def _texts(work: _Work, kept: store.Kept) -> None:
    """Sealed texts that are theirs, or in which they are named; those of somebody under a hold stay."""
    keys = SubjectKeys.of(work.services.home)
    words = [re.compile(named(as_read(word).strip())) for word in work.asked.words]
    standing = store.holds(work.conn)
    own = None if work.person is None else str(work.person.id)
    doomed, held = [], 0
    for key, sealed in store.texts(work.conn, kept):
        subjects = {token.split(":")[1] for token in sealed if token.count(":") >= 2}
        # no cached answer is given any more: each cache is emptied
        if kept is not store.ANSWERS and own not in subjects and not _named(work.conn, keys, sealed, words):
            continue
        if kept is not store.ANSWERS and any(subject in standing for subject in subjects):
            held += 1
        else:
            doomed.append(key)
    if not work.dry:
        store.delete(work.conn, kept, doomed)
    work.went(kept.told, len(doomed))
    work.stayed(kept.told, held, "a legal hold keeps them")


def _named(conn: Connection[Any], keys: SubjectKeys, sealed: Sequence[str], names: Sequence[re.Pattern[str]]) -> bool:
    for token in sealed:
        with suppress(GroundplanError):
            text = keys.unseal(conn, token) or ""
            if any(name.search(said) for said in (as_read(text), as_read(unescaped(text))) for name in names):
                return True
    return False


def _clear_caches(work: _Work) -> None:
    """Gateways forget every answer of workloads that give one again: whose it was they alone know."""
    blueprint = current_or_none(work.conn)
    cached = [one.name for one in blueprint.workloads if one.cache is not None] if blueprint else []
    if not work.dry:
        for name in cached:
            identity.clear_answers(work.conn, work.actor, name)
    work.went("caches of workloads", len(cached), "emptied at every gateway", cached)


def _own(work: _Work, person: Person) -> None:
    """What is theirs besides texts: files of batches, links, their account."""
    conn = work.conn
    if work.hold is not None:
        why = f"a legal hold since {work.hold.at:%Y-%m-%d}: {work.hold.reason}"
        work.stayed("account, key and files", 1, why)
    else:
        with conn.transaction():
            free, busy = store.files(conn, person.id)
            if not work.dry:
                store.mark_files(conn, free)
                work.went("uploads that were announced", store.delete_uploads(conn, person.id))
                work.went("links to documents", store.delete_links(conn, person.id))
        if not work.dry:
            for id in free:
                (work.services.home.root / "files" / str(id)).unlink(missing_ok=True)
        work.went("files of batches", len(free))
        work.stayed("files of batches", busy, "a batch that is not finished needs them: ask again when it is")
        _account(work, person)
    work.stayed(
        "amounts and times of calls", store.calls_of(conn, person.id),
        "the books of the company, under an id that names nobody once the account is erased",
    )  # fmt: skip


def _account(work: _Work, person: Person) -> None:
    if person.active:
        work.stayed("account", 1, "they are still here: `groundplan people leave` comes first, then ask again")
        return
    if work.dry:
        work.went("account", 1, "key, passkeys, sign-in, name and address, as far as no approval needs the name")
        return
    with work.conn.transaction():
        done = identity_erase.erase(work.conn, work.services.home, work.actor, person.id, work.services.clock.now())
    work.went("account", 1, f"{', '.join(done['erased'])}; what the log has under this key opens no more")
    work.stayed("name and address", len(done["kept"]), f"who approved something stays known until {done['until']}")


def _told(work: _Work) -> dict[str, Any]:
    """The answer, and where something was done its receipt with the line in the audit log."""
    answer = {"erased": [one.told() for one in work.erased], "kept": [one.told() for one in work.kept]}
    if work.dry:
        return {**answer, "receipt": None, "entry": None}
    person = None if work.person is None else str(work.person.id)
    body = {
        "format": 1, "id": str(new_id()), "at": work.services.clock.now().isoformat(timespec="seconds"),
        "person": person, "words": [digest(word.lower().encode()) for word in work.asked.words],
        "reason": work.asked.reason, "erased": [one.told(signed=True) for one in work.erased],
        "kept": [one.told(signed=True) for one in work.kept],
        "not_reached": ["copies that others made", "backups until they are restored, when the lists are replayed",
                        "the write-ahead log until it is overwritten"],
    }  # fmt: skip
    written = receipts.write(KIND, body, load_private(work.services.home, "checkpoint"))
    detail = {
        "receipt": written.digest, "reason": work.asked.reason,
        "erased": {one.what: one.count for one in work.erased}, "kept": {one.what: one.count for one in work.kept},
    }  # fmt: skip
    with work.conn.transaction():
        entry = record(
            work.conn, action=ACTION, actor=work.actor, subject=f"person/{person}" if person else "company",
            detail=detail, at=work.services.clock.now(),
        )  # fmt: skip
    return {**answer, "receipt": written.note, "entry": str(entry)}


def ask(services: Services, asked: Asked, actor: str) -> dict[str, Any]:
    """Put a request before whoever may decide it; what would go and stay now. Raises as `erase` does."""
    preview = erase(services, asked, actor, dry=True)
    with services.transaction() as conn:
        id = store.put_request(conn, asdict(asked), actor)
        finding_store.tell(
            conn,
            Finding(
                kind=FINDING, subject=f"erasure/{id}", severity="high",
                message="a request for erasure waits for compliance",
                hint="Governance, Erasures: check what would be erased and what stays, then confirm or refuse.",
            ),
        )  # fmt: skip
        record(
            conn, action="person.erasure_asked", actor=actor, subject=f"erasure/{id}", detail={"reason": asked.reason}
        )
    return {"id": str(id), "state": "waiting", "erased": preview["erased"], "kept": preview["kept"]}


def confirm(services: Services, id: UUID, actor: str) -> dict[str, Any]:
    """Do what was asked for. Raises `NotFound` (erasure_unknown), `Conflict` (erasure_decided), and as `erase` does."""
    asked = _waiting(services, id)
    done = erase(services, asked, actor)
    with services.transaction() as conn:
        store.decide(conn, id, "done", actor, done["receipt"])
        finding_store.tell_all(conn, [], kinds=[FINDING], within=f"erasure/{id}")
    return {"id": str(id), "state": "done", **done}


def refuse(services: Services, id: UUID, reason: str, actor: str) -> None:
    """Nothing is erased; told in the log. Raises as `confirm` does."""
    _waiting(services, id)
    with services.transaction() as conn:
        store.decide(conn, id, "refused", actor, None)
        finding_store.tell_all(conn, [], kinds=[FINDING], within=f"erasure/{id}")
        record(conn, action="person.erasure_refused", actor=actor, subject=f"erasure/{id}", detail={"reason": reason})


def request(services: Services, id: UUID) -> store.Request:
    """One request. Raises `NotFound` (erasure_unknown)."""
    with services.transaction() as conn:
        found = store.request(conn, id)
    if found is None:
        raise NotFound("there is no such request", code="erasure_unknown", hint="GET /api/erasures lists them.")
    return found


def _waiting(services: Services, id: UUID) -> Asked:
    found = request(services, id)
    if found.asked is None:
        raise Conflict(f"it was {found.state} already", code="erasure_decided", hint="Make another request.")
    return Asked.of(found.asked)


def hold(services: Services, person: UUID, reason: str, actor: str, *, end: bool) -> None:
    """Put what is kept of somebody's calls under a legal hold, or end it. Raises `Conflict` (`person_hold`)."""
    with services.transaction() as conn:
        done = store.end_hold(conn, person, actor) if end else store.put_hold(conn, person, reason, actor)
        if not done:
            raise Conflict(
                "no legal hold stands" if end else "a legal hold stands already", code="person_hold",
                hint="`groundplan erase --person … --dry-run` says what is held.",
            )  # fmt: skip
        action = "person.hold_ended" if end else "person.held"
        record(conn, action=action, actor=actor, subject=f"person/{person}", detail={"reason": reason})
