"""Whether an earlier answer is still valid, or a later change may affect it: a cheap check that often saves repeating
the search.

The state that an answer was made in is an opaque text: the number of the last change that was known, and a digest of
everything else that decides what may be found: the edition, the day, the person's readers' sets, the sources. A changed
passage that retrieval would take for irrelevant does not affect an answer. If one may, the caller searches again; this
module does not decide what would be found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import msgspec
import numpy as np
from psycopg import Connection

from groundplan.knowledge.retrieval import fuse, search_store
from groundplan.knowledge.retrieval.question import ProjectionSource, QueryPreparer
from groundplan.knowledge.retrieval.search_store import AccessSnapshot, ChangedPassage
from groundplan.knowledge.retrieval.synonyms import Glossary
from groundplan.knowledge.retrieval.wire import Since
from groundplan.knowledge.retrieval.words import Analyzer

MAX_CHANGES: Final = 1000
"""With more changes (of passages, vectors and documents) the question is searched again, which takes the same time
however many there are."""
MAX_PASSAGES: Final = 50
"""With more changed passages than this, the question is searched again, too."""
NEAR_SIMILARITY: Final = fuse.MIN_SIMILARITY - 0.01
"""The index stores vectors as bytes, by which a passage may seem up to 0.01 nearer than it is."""


@dataclass(frozen=True, slots=True)
class AnswerState:
    """The state an answer was made in. `number`: every change up to it was seen; `digest`: of everything else that
    decides. It covers readers' sets up to `newest_acl`: later ones belong to documents that changed later, which are
    checked themselves."""

    number: int
    newest_acl: int
    digest: str

    @classmethod
    def current(cls, number: int, newest_acl: int, access: AccessSnapshot, sources: Collection[str]) -> Self:
        """The current state for a person with this access who searches these sources."""
        acls = sorted(acl for acl in access.acls if acl <= newest_acl)
        facts = [access.edition, access.today, acls, sorted(sources)]
        return cls(number, newest_acl, hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:16])

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The state from its text; None if it is not in this version's format."""
        parts = text.split(" ")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts[:2]):
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.number} {self.newest_acl} {self.digest}"


class ValidityCheck:
    """One check of an earlier answer. Must be created before the transaction in which it reads, so that the transaction
    sees all that the index contained."""

    __slots__ = ("_changed", "_current", "_edition", "_queries", "_seen_change", "_since", "_terms", "previous")

    def __init__(self, since: Since, queries: QueryPreparer, projections: ProjectionSource) -> None:
        index = projections.find(projections.serving)
        self._seen_change = 0 if index is None else index.cursor
        self._since, self._queries = since, queries
        self.previous = self._current = AnswerState.parse(since.state)
        self._changed: list[ChangedPassage] | None = None
        self._terms: frozenset[str] = frozenset()
        self._edition = 0

    def load_changes(
        self, conn: Connection[Any], access: AccessSnapshot, analyzer: Analyzer, glossary: Glossary
    ) -> None:
        """Read what changed since, in the transaction that read the access."""
        previous, sources = self.previous, self._since.sources
        self._changed, self._edition = changed_passages(conn, previous, access, sources), access.edition
        if previous is not None and self._changed is not None and previous.number < access.newest_change:
            self._current = AnswerState.current(previous.number, search_store.newest_acl(conn), access, sources)
        if self._changed:
            terms = analyzer.terms(self._since.query)
            variants = glossary.current(conn).variants(terms) if self._since.synonyms else []
            self._terms = frozenset(terms).union(*variants)

    def new_state(self, analyzer: Analyzer, projections: ProjectionSource) -> str:
        """The state up to which no change affects the answer; empty where one may. Call it outside of the transaction:
        a deployment may be asked for the question's vector."""
        if self._current is None or self._changed is None:
            return ""
        if self._changed and (self._shares_words(self._changed, analyzer) or self._is_near(self._changed, projections)):
            return ""
        return str(replace(self._current, number=max(self._current.number, self._seen_change)))

    def _shares_words(self, changed: list[ChangedPassage], analyzer: Analyzer) -> bool:
        """Whether a changed passage has a term of the question, stop words aside."""
        return any(not self._terms.isdisjoint(analyzer.terms(one.search_text)) for one in changed)

    def _is_near(self, changed: list[ChangedPassage], projections: ProjectionSource) -> bool:
        vectors = [one.vector for one in changed if one.vector is not None]
        if not vectors:
            return False
        if projections.find(self._edition) is None:
            return True
        question = self._queries.prepare(self._since.query, self._edition).vector
        return question is None or bool(np.max(np.stack(vectors) @ question) >= NEAR_SIMILARITY)


def changed_passages(
    conn: Connection[Any], previous: AnswerState | None, access: AccessSnapshot, sources: list[str]
) -> list[ChangedPassage] | None:
    """Readable passages of documents that changed since, or whose passages did, as when a vector is added later.
    None: these do not suffice, because something else changed, or too much."""
    if previous is None or not 0 <= access.newest_change - previous.number <= MAX_CHANGES:
        return None
    if previous != AnswerState.current(previous.number, previous.newest_acl, access, sources):
        return None
    if previous.number == access.newest_change:
        return []
    found = search_store.changed_passages(conn, previous.number, sources, MAX_PASSAGES + 1)
    return found if len(found) <= MAX_PASSAGES else None
