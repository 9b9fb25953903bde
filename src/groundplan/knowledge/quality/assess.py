"""Assesses the quality of a source: scans new texts, records findings for their owners, and scores its documents.

It reads PostgreSQL only, never the source itself. The findings are decided by the pure modules beside this one.
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
from groundplan.knowledge.quality.duplicates import Pair as NearPair
from groundplan.knowledge.quality.duplicates import identical_groups, near_duplicates
from groundplan.knowledge.quality.grouped_findings import PERSONAL, group_findings, is_grouped
from groundplan.knowledge.quality.model import KINDS, AssessedDocument, SketchedDocument, document_score
from groundplan.knowledge.quality.text import Glossary, check_text, count_personal
from groundplan.knowledge.quality.versions import Statement, find_conflicts, find_versions, statements
from groundplan.ledger.finding import Finding

SCAN_BATCH = 100
MAX_CACHED_STATEMENTS = 50_000
"""Most statements of documents that are kept in memory while a source is assessed."""
_ASSESSED_KINDS = frozenset(KINDS) - {
    "knowledge.unreadable",
    "knowledge.unsupported",
    "knowledge.table",
    "knowledge.sensor",
    "knowledge.deleted_at_source",
}
"""Kinds that an assessment finds; the others are found when a source is read."""
_MARKDOWN = frozenset({"md", "markdown", "html", "htm", "docx", "pptx"})


def scan_pending(conn: Connection[Any], terms: Glossary, stop: Callable[[], bool] = lambda: False) -> int:
    """Scan the texts of all documents that were not scanned yet, or with another glossary; returns their number.

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
    """The documents of all sources, and which of them are copies: searched once for all sources of a round, since it
    takes as long for each single source."""

    def __init__(self, conn: Connection[Any]) -> None:
        self._conn = conn

    @cached_property
    def documents(self) -> Sequence[SketchedDocument]:
        return store.sketches(self._conn)

    @cached_property
    def identical_groups(self) -> Sequence[Sequence[int]]:
        """Groups of indices in `documents` with the same content."""
        return list(identical_groups((index, each.content) for index, each in enumerate(self.documents)))

    def near_duplicates(self, ids: Iterable[UUID]) -> list[NearPair]:
        """Pairs of indices of near-duplicates in which one of these documents is, in order."""
        found = {(pair.one, pair.other): pair for id in ids for pair in self._near_by_document.get(id, ())}
        return [found[indices] for indices in sorted(found)]

    @cached_property
    def _near_by_document(self) -> Mapping[UUID, Sequence[NearPair]]:
        index_of = {each.id: index for index, each in enumerate(self.documents)}

        def texts(indices: Sequence[int]) -> dict[int, str]:
            ids = [self.documents[index].id for index in indices]
            return {index_of[id]: text for id, text in store.texts_of(self._conn, ids).items()}

        found: dict[UUID, list[NearPair]] = defaultdict(list)
        for pair in near_duplicates([each.sketch for each in self.documents], texts):
            for index in (pair.one, pair.other):
                found[self.documents[index].id].append(pair)
        return found


def assess(
    conn: Connection[Any], source: str, today: date, all_documents: AllDocuments | None = None
) -> dict[str, Any]:
    """Record all findings of a source, score its documents and the source; returns `{"score", "documents",
    "findings"}`.

    `all_documents`: those of a round over several sources; None: they are read for this source.
    """
    documents = store.assessed_documents(conn, source)
    conflicts: list[ConflictPair] = []
    found, covered = group_findings(
        source, _findings(conn, documents, today, conflicts, all_documents or AllDocuments(conn))
    )
    with conn.transaction():
        # first, like every writer of documents: it takes the lock under which changes are numbered
        store.put_conflicts(conn, source, conflicts)
        store.put_findings(conn, source, found, kinds=_ASSESSED_KINDS)
        kinds: dict[str, list[str]] = defaultdict(list)
        for subject, kind in store.open_kinds(conn, source):
            if kind in KINDS:
                kinds[subject].append(kind)
        for subject in covered:
            kinds[subject].append(PERSONAL)
        scores = {
            (document.id, document.version): document_score(kinds.pop(document.subject, ())) for document in documents
        }
        store.put_scores(conn, scores)
        # the remaining findings are about documents that cannot be read, which count with a score of 0
        unreadable_count = sum(any(KINDS[kind].weight >= 1 for kind in each) for each in kinds.values())
        total = len(scores) + unreadable_count
        mean = round(sum(scores.values()) / total, 3) if total else 1.0
        parts = Counter(kind for _, kind in store.open_kinds(conn, source))
        parts += Counter({PERSONAL: len(covered) - sum(is_grouped(each) for each in found)})
        store.put_source_score(conn, source, today, mean, len(scores), parts)
    return {"score": mean, "documents": len(scores), "findings": len(found)}


ConflictPair = tuple[UUID, UUID, str, str]
"""(document, the other document, the sentence of each) of a conflict."""


class _StatementCache:
    """The statements of documents, each read once: near-duplicates are compared with one another many times."""

    def __init__(self, conn: Connection[Any]) -> None:
        self._conn = conn
        self._known: dict[UUID, tuple[Statement, ...]] = {}
        self._count = 0

    def get(self, document: UUID) -> tuple[Statement, ...]:
        found = self._known.get(document)
        if found is None:
            found = statements(store.passages_of(self._conn, document))
            if self._count + len(found) > MAX_CACHED_STATEMENTS:
                self._known.clear()
                self._count = 0
            self._known[document] = found
            self._count += len(found)
        return found


def _findings(
    conn: Connection[Any],
    documents: Sequence[AssessedDocument],
    today: date,
    conflicts: list[ConflictPair],
    all_documents: AllDocuments,
) -> Iterator[Finding]:
    """The findings of a source; conflicts are added to `conflicts`.

    A finding is shown to those who answer for its document, and to everybody with a duty: so it never has the text of
    another document, and its path only if both have the same readers.
    """
    known = store.known_readers(conn)
    for document in documents:
        yield from document_findings(document, today, known)
    yield from _superseded_findings(documents)
    statement_cache = _StatementCache(conn)
    version_groups = list(find_versions(documents))
    newer_by_id = {
        documents[index].id: documents[versions.newest].id for versions in version_groups for index in versions.older
    }
    near_copies: set[tuple[UUID, UUID]] = set()
    yield from _copy_findings(all_documents, documents, newer_by_id, statement_cache, conflicts, near_copies)
    for versions in version_groups:
        newest = documents[versions.newest]
        for index in versions.older:
            older = documents[index]
            if versions.days and (older.id, newest.id) not in near_copies:
                continue
            newer_name = _related_document(older, newest)
            yield finding(
                older, "knowledge.versions", f"{older.path} looks like an older version of {newer_name}",
                f"Write `supersedes: [{older.path}]` into the newer one, or give the two different titles.",
                mark=str(newest.id), other=str(newest.id),
                fix={"do": "supersede", "document": str(older.id), "by": str(newest.id)},
            )  # fmt: skip
            yield from _conflict_findings(statement_cache, older, newest, conflicts)


def _related_document(document: AssessedDocument, other: AssessedDocument | SketchedDocument) -> str:
    """The name by which a finding about `document` may mention another document."""
    if document.acl == other.acl:
        return other.path if document.source == other.source else f"{other.path} of {other.source}"
    return f"a document of {other.source} with other readers"


def _superseded_findings(documents: Sequence[AssessedDocument]) -> Iterator[Finding]:
    by_id = {document.id: document for document in documents}
    for document in documents:
        if document.superseded_by is not None and not document.is_settled:
            newer = by_id.get(document.superseded_by)
            replacement = "another document" if newer is None else _related_document(document, newer)
            yield finding(
                document, "knowledge.superseded",
                f"{document.path} is superseded by {replacement} and is not retrieved",
                "Delete it, or mark it `state: retired`, once nobody needs it as a record.",
                other=str(document.superseded_by), fix={"do": "retire", "document": str(document.id)},
            )  # fmt: skip


def _copy_findings(
    all_documents: AllDocuments,
    documents: Sequence[AssessedDocument],
    newer: Mapping[UUID, UUID],
    statement_cache: _StatementCache,
    conflicts: list[ConflictPair],
    near_copies: set[tuple[UUID, UUID]],
) -> Iterator[Finding]:
    """Findings about documents of this source that are copies of others, of any source; (copy, original) of
    near-duplicates are added to `near_copies`. A fix is proposed only for copies with the same readers, so that nobody
    loses access to the content."""
    if not documents:
        return
    sketched = all_documents.documents
    by_id = {document.id: document for document in documents}
    ids = {index: each.id for index, each in enumerate(sketched)}
    for group in all_documents.identical_groups:
        original = _find_original(group, sketched)
        for index in group:
            if index != original and (document := by_id.get(ids[index])) is not None:
                yield _copy_finding(document, sketched[original])
    nearest: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for pair in all_documents.near_duplicates(by_id):
        if sketched[pair.one].content == sketched[pair.other].content:
            continue
        original, copy = _original_and_copy(pair.one, pair.other, sketched, newer)
        if (document := by_id.get(ids[copy])) is not None and document.superseded_by is None:
            nearest[copy].append((pair.similarity, original))
            near_copies.add((ids[copy], ids[original]))
    for copy, others in nearest.items():
        found = [(similarity, sketched[index]) for similarity, index in sorted(others, key=lambda other: -other[0])]
        yield from _near_copy_findings(by_id[ids[copy]], found, newer, statement_cache, conflicts)


def _near_copy_findings(
    document: AssessedDocument,
    others: Sequence[tuple[float, SketchedDocument]],
    newer: Mapping[UUID, UUID],
    statement_cache: _StatementCache,
    conflicts: list[ConflictPair],
) -> Iterator[Finding]:
    """Findings about the nearest of the near-duplicates of a document, and the first that contradicts it only: a
    hundred pages of one template are five thousand pairs."""
    yield _near_copy_finding(document, others[0][1], others[0][0])
    has_conflict = False
    for _, other in others:
        if newer.get(document.id) != other.id:  # else they are reported as versions
            found = list(_conflict_findings(statement_cache, document, other, conflicts))
            yield from () if has_conflict else found
            has_conflict = has_conflict or bool(found)


def _copy_finding(document: AssessedDocument, other: SketchedDocument) -> Finding:
    fix = {"do": "delete", "document": str(document.id)} if document.acl == other.acl else None
    return finding(
        document, "knowledge.duplicate",
        f"{document.path} has the same content as {_related_document(document, other)}",
        "Keep one of the two, so that a correction reaches every reader.", other=str(other.id), fix=fix,
    )  # fmt: skip


def _near_copy_finding(document: AssessedDocument, other: SketchedDocument, similarity: float) -> Finding:
    """The finding about a near-duplicate. Its fix is not to delete the document, since the two differ, but to supersede
    it, which can be undone."""
    fix = {"do": "supersede", "document": str(document.id), "by": str(other.id)} if document.acl == other.acl else None
    return finding(
        document, "knowledge.near_duplicate",
        f"{document.path} is almost the same as {_related_document(document, other)}",
        "Keep one of the two, or say in their titles what tells them apart.",
        mark=str(other.id), other=str(other.id), similarity=similarity, fix=fix,
    )  # fmt: skip


def _conflict_findings(
    statement_cache: _StatementCache,
    document: AssessedDocument,
    other: AssessedDocument | SketchedDocument,
    conflicts: list[ConflictPair],
) -> Iterator[Finding]:
    for conflict in find_conflicts(statement_cache.get(document.id), statement_cache.get(other.id)):
        conflicts.append((document.id, other.id, conflict.one, conflict.other))
        yield finding(
            document, "knowledge.conflict",
            f"{document.path} says another number than {_related_document(document, other)}",
            "Compare the two; correct one of them, or say which supersedes the other.",
            mark=f"{other.id}:{hashlib.sha256(conflict.one.encode()).hexdigest()[:16]}", quote=conflict.one[:160],
            other=str(other.id),
        )  # fmt: skip


def _original_and_copy(
    one: int, other: int, documents: Sequence[SketchedDocument], newer: Mapping[UUID, UUID]
) -> tuple[int, int]:
    """(original, copy) of two near-duplicates; of two versions the older one is the copy."""
    original = _find_original([one, other], documents)
    copy = other if original == one else one
    return (copy, original) if newer.get(documents[original].id) == documents[copy].id else (original, copy)


def _find_original(group: Sequence[int], documents: Sequence[SketchedDocument]) -> int:
    """The original among copies: those that are valid come first; in each source it is the one with the shortest path;
    of these, the one that was ingested first."""
    shortest: dict[str, int] = {}
    for index in sorted(
        group, key=lambda index: (not documents[index].holds, len(documents[index].path), documents[index].path)
    ):
        shortest.setdefault(documents[index].source, index)
    return min(shortest.values(), key=lambda index: (not documents[index].holds, documents[index].id))
