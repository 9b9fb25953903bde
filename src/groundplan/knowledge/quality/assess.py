"""Looking at a source as it is now: scan what was not scanned, find what is wrong, score it, tell its owners.

One call is one look; it reads PostgreSQL only, never the source itself. Which findings there are is decided by the pure
modules beside this.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.knowledge.quality import quality_store as store
from groundplan.knowledge.quality.documents import document_findings, finding
from groundplan.knowledge.quality.duplicates import Pair as Near
from groundplan.knowledge.quality.duplicates import identical_groups, near_duplicates
from groundplan.knowledge.quality.grouped_findings import PERSONAL, group_findings, is_grouped
from groundplan.knowledge.quality.model import KINDS, AssessedDocument, SketchedDocument, document_score
from groundplan.knowledge.quality.text import Glossary, check_text, count_personal
from groundplan.knowledge.quality.versions import Statement, find_conflicts, find_versions, statements
from groundplan.ledger.finding import Finding

SCAN_BATCH = 100
KEPT = 50_000
"""Statements of documents that are kept while a source is looked at."""
_FOUND_HERE = frozenset(KINDS) - {
    "knowledge.unreadable",
    "knowledge.unsupported",
    "knowledge.table",
    "knowledge.sensor",
    "knowledge.deleted_at_source",
}
"""Kinds that a look finds; the others are found where a source is read."""
_MARKDOWN = frozenset({"md", "markdown", "html", "htm", "docx", "pptx"})


def scan_pending(conn: Connection[Any], terms: Glossary, stop: Callable[[], bool] = lambda: False) -> int:
    """Look at the texts of all documents that were not looked at, or by an older glossary; how many.

    `conn` is in autocommit: each batch is a transaction of its own.
    """
    done = 0
    while not stop() and (batch := store.unscanned_documents(conn, terms.digest, SCAN_BATCH)):
        scans = {}
        for document, version, media in batch:
            text = store.text_of(conn, document)
            scans[document, version] = count_personal(text), check_text(text, terms, markdown=media in _MARKDOWN)
        with conn.transaction():
            store.put_scans(conn, scans)
        done += len(batch)
    return done


class AllDocuments:
    """All documents of whatever source, and which of them are copies: looked for once for all sources of a round, since
    for each of a thousand sources it takes as long."""

    def __init__(self, conn: Connection[Any]) -> None:
        self._conn = conn

    @cached_property
    def documents(self) -> Sequence[SketchedDocument]:
        return store.sketches(self._conn)

    @cached_property
    def identical_groups(self) -> Sequence[Sequence[int]]:
        """Places in `documents` that have the same content."""
        return list(identical_groups((at, each.content) for at, each in enumerate(self.documents)))

    def near_duplicates(self, ids: Iterable[UUID]) -> list[Near]:
        """Pairs of places that are nearly the same, in order, in which one of these documents is."""
        found = {(pair.one, pair.other): pair for id in ids for pair in self._all_near.get(id, ())}
        return [found[places] for places in sorted(found)]

    @cached_property
    def _all_near(self) -> Mapping[UUID, Sequence[Near]]:
        at_of = {each.id: at for at, each in enumerate(self.documents)}

        def texts(places: Sequence[int]) -> dict[int, str]:
            ids = [self.documents[at].id for at in places]
            return {at_of[id]: text for id, text in store.texts_of(self._conn, ids).items()}

        found: dict[UUID, list[Near]] = defaultdict(list)
        for pair in near_duplicates([each.sketch for each in self.documents], texts):
            for at in (pair.one, pair.other):
                found[self.documents[at].id].append(pair)
        return found


def assess(conn: Connection[Any], source: str, today: date, everywhere: AllDocuments | None = None) -> dict[str, Any]:
    """Tell all findings of a source, score its documents and the source; `{"score", "documents", "findings"}`.
    `everywhere`: as it was found at the beginning of a round over several."""
    looks = store.assessed_documents(conn, source)
    pairs: list[Pair] = []
    found, covered = group_findings(source, _findings(conn, looks, today, pairs, everywhere or AllDocuments(conn)))
    with conn.transaction():
        # first, as whoever writes documents: it numbers changes, for which others wait
        store.put_conflicts(conn, source, pairs)
        store.put_findings(conn, source, found, kinds=_FOUND_HERE)
        kinds: dict[str, list[str]] = defaultdict(list)
        for subject, kind in store.open_kinds(conn, source):
            if kind in KINDS:
                kinds[subject].append(kind)
        for subject in covered:
            kinds[subject].append(PERSONAL)
        scores = {(look.id, look.version): document_score(kinds.pop(look.subject, ())) for look in looks}
        store.put_scores(conn, scores)
        # what is left is about what cannot be read, and counts as a document without any quality
        unread = sum(any(KINDS[kind].weight >= 1 for kind in each) for each in kinds.values())
        whole = len(scores) + unread
        mean = round(sum(scores.values()) / whole, 3) if whole else 1.0
        parts = Counter(kind for _, kind in store.open_kinds(conn, source))
        parts += Counter({PERSONAL: len(covered) - sum(is_grouped(each) for each in found)})
        store.put_source_score(conn, source, today, mean, len(scores), parts)
    return {"score": mean, "documents": len(scores), "findings": len(found)}


Pair = tuple[UUID, UUID, str, str]
"""(document, the other, what each says) of a conflict."""


class _Statements:
    """What documents say in numbers: of those that are nearly the same each is compared with every other, and read
    once."""

    def __init__(self, conn: Connection[Any]) -> None:
        self._conn = conn
        self._known: dict[UUID, tuple[Statement, ...]] = {}
        self._count = 0

    def of(self, document: UUID) -> tuple[Statement, ...]:
        found = self._known.get(document)
        if found is None:
            found = statements(store.passages_of(self._conn, document))
            if self._count + len(found) > KEPT:
                self._known.clear()
                self._count = 0
            self._known[document] = found
            self._count += len(found)
        return found


def _findings(
    conn: Connection[Any], looks: Sequence[AssessedDocument], today: date, pairs: list[Pair], everywhere: AllDocuments
) -> Iterator[Finding]:
    """`pairs` collects conflicts. A finding is for whoever answers for its document, and for everybody with a duty: of
    another document it never has the text, and its path only where both have the same readers."""
    known = store.known_readers(conn)
    for look in looks:
        yield from document_findings(look, today, known)
    yield from _superseded(looks)
    said = _Statements(conn)
    every = list(find_versions(looks))
    newer = {looks[at].id: looks[versions.newest].id for versions in every for at in versions.older}
    alike: set[tuple[UUID, UUID]] = set()
    yield from _copies(everywhere, looks, newer, said, pairs, alike)
    for versions in every:
        newest = looks[versions.newest]
        for at in versions.older:
            older = looks[at]
            if versions.days and (older.id, newest.id) not in alike:
                continue
            other = _related_document(older, newest)
            yield finding(
                older, "knowledge.versions", f"{older.path} looks like an older version of {other}",
                f"Write `supersedes: [{older.path}]` into the newer one, or give the two different titles.",
                mark=str(newest.id), other=str(newest.id),
                fix={"do": "supersede", "document": str(older.id), "by": str(newest.id)},
            )  # fmt: skip
            yield from _conflicts(said, older, newest, pairs)


def _related_document(look: AssessedDocument, other: AssessedDocument | SketchedDocument) -> str:
    """Another document as a finding about this one may name it."""
    if look.acl == other.acl:
        return other.path if look.source == other.source else f"{other.path} of {other.source}"
    return f"a document of {other.source} with other readers"


def _superseded(looks: Sequence[AssessedDocument]) -> Iterator[Finding]:
    here = {look.id: look for look in looks}
    for look in looks:
        if look.superseded_by is not None and not look.is_settled:
            newer = here.get(look.superseded_by)
            told = "another document" if newer is None else _related_document(look, newer)
            yield finding(
                look, "knowledge.superseded", f"{look.path} is superseded by {told} and is not retrieved",
                "Delete it, or mark it `state: retired`, once nobody needs it as a record.",
                other=str(look.superseded_by), fix={"do": "retire", "document": str(look.id)},
            )  # fmt: skip


def _copies(
    everywhere: AllDocuments,
    looks: Sequence[AssessedDocument],
    newer: Mapping[UUID, UUID],
    said: _Statements,
    pairs: list[Pair],
    alike: set[tuple[UUID, UUID]],
) -> Iterator[Finding]:
    """Documents of this source that are copies of others, of whatever source; `alike` collects (copy, original) of what
    is nearly the same. What is proposed takes nothing away from
    anybody: of a copy with other readers nothing is."""
    if not looks:
        return
    every = everywhere.documents
    here = {look.id: look for look in looks}
    first = {at: each.id for at, each in enumerate(every)}
    for group in everywhere.identical_groups:
        original = _original(group, every)
        for at in group:
            if at != original and (look := here.get(first[at])) is not None:
                yield _copy(look, every[original])
    nearest: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for pair in everywhere.near_duplicates(here):
        if every[pair.one].content == every[pair.other].content:
            continue
        original, copy = _ordered(pair.one, pair.other, every, newer)
        if (look := here.get(first[copy])) is not None and look.superseded_by is None:
            nearest[copy].append((pair.similarity, original))
            alike.add((first[copy], first[original]))
    for copy, others in nearest.items():
        found = [(similarity, every[at]) for similarity, at in sorted(others, key=lambda other: -other[0])]
        yield from _near_copies(here[first[copy]], found, newer, said, pairs)


def _near_copies(
    look: AssessedDocument,
    others: Sequence[tuple[float, SketchedDocument]],
    newer: Mapping[UUID, UUID],
    said: _Statements,
    pairs: list[Pair],
) -> Iterator[Finding]:
    """Of the documents that it is nearly the same as, the nearest and the first that contradicts it: a hundred pages of
    one template are five thousand pairs."""
    yield _near_copy(look, others[0][1], others[0][0])
    told = False
    for _, other in others:
        if newer.get(look.id) != other.id:  # else they are told as versions
            found = list(_conflicts(said, look, other, pairs))
            yield from () if told else found
            told = told or bool(found)


def _copy(look: AssessedDocument, other: SketchedDocument) -> Finding:
    fix = {"do": "delete", "document": str(look.id)} if look.acl == other.acl else None
    return finding(
        look, "knowledge.duplicate", f"{look.path} has the same content as {_related_document(look, other)}",
        "Keep one of the two, so that a correction reaches every reader.", other=str(other.id), fix=fix,
    )  # fmt: skip


def _near_copy(look: AssessedDocument, other: SketchedDocument, similarity: float) -> Finding:
    """What says something else is not to be deleted but superseded, which can be taken back."""
    fix = {"do": "supersede", "document": str(look.id), "by": str(other.id)} if look.acl == other.acl else None
    return finding(
        look, "knowledge.near_duplicate", f"{look.path} is almost the same as {_related_document(look, other)}",
        "Keep one of the two, or say in their titles what tells them apart.",
        mark=str(other.id), other=str(other.id), similarity=similarity, fix=fix,
    )  # fmt: skip


def _conflicts(
    said: _Statements, look: AssessedDocument, other: AssessedDocument | SketchedDocument, pairs: list[Pair]
) -> Iterator[Finding]:
    for found in find_conflicts(said.of(look.id), said.of(other.id)):
        pairs.append((look.id, other.id, found.one, found.other))
        yield finding(
            look, "knowledge.conflict",
            f"{look.path} says another number than {_related_document(look, other)}",
            "Compare the two; correct one of them, or say which supersedes the other.",
            mark=f"{other.id}:{hashlib.sha256(found.one.encode()).hexdigest()[:16]}", quote=found.one[:160],
            other=str(other.id),
        )  # fmt: skip


def _ordered(one: int, other: int, every: Sequence[SketchedDocument], newer: Mapping[UUID, UUID]) -> tuple[int, int]:
    """Of two that are nearly the same the original and the copy; of two versions the older is the copy."""
    original = _original([one, other], every)
    copy = other if original == one else one
    return (copy, original) if newer.get(every[original].id) == every[copy].id else (original, copy)


def _original(group: Sequence[int], every: Sequence[SketchedDocument]) -> int:
    """Of copies, of those that hold if any does, in one source the one with the shortest path; of those that are left
    the one that was known first."""
    shortest: dict[str, int] = {}
    for at in sorted(group, key=lambda at: (not every[at].holds, len(every[at].path), every[at].path)):
        shortest.setdefault(every[at].source, at)
    return min(shortest.values(), key=lambda at: (not every[at].holds, every[at].id))
