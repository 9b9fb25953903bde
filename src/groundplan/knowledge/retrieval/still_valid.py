"""Whether an answer is still valid, or something that came since may bear on it: the cheap look before its question is
searched again.

The state that an answer was made in is a text that only this service reads: the number of the last change that was
known, and a digest of whatever else decides what may be found: the edition, the day, the readers' sets that the person
has, the sources. A passage that retrieval itself takes to be off the subject bears on nothing. What would be found now
is not decided here, but by the search that follows where something may.
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
from groundplan.knowledge.retrieval.question import Asking, Held
from groundplan.knowledge.retrieval.search_store import Added, Standing
from groundplan.knowledge.retrieval.synonyms import Glossary
from groundplan.knowledge.retrieval.wire import Since
from groundplan.knowledge.retrieval.words import Analyzer

MOST_CHANGES: Final = 1000
"""With more of them, of passages, vectors and documents, the question is searched again, which takes the same time
however many they are."""
MOST_PASSAGES: Final = 50
"""Of what changed, as many are read; with more of them the same."""
NEAR: Final = fuse.MIN_SIMILARITY - 0.01
"""The index has vectors in bytes, by which a passage may seem so much nearer than it is."""


@dataclass(frozen=True, slots=True)
class State:
    """`number`: every change up to it was seen; `terms`: digest of what else decides. Of readers' sets up to `newest`:
    one that was made later is of documents that changed later, which are looked at themselves."""

    number: int
    newest: int
    terms: str

    @classmethod
    def of(cls, number: int, newest: int, standing: Standing, sources: Collection[str]) -> Self:
        """As it is for somebody of that standing who asks these sources."""
        own = sorted(acl for acl in standing.acls if acl <= newest)
        said = [standing.edition, standing.today, own, sorted(sources)]
        return cls(number, newest, hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:16])

    @classmethod
    def read(cls, text: str) -> Self | None:
        """None where it is none of this version."""
        parts = text.split(" ")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts[:2]):
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.number} {self.newest} {self.terms}"


class Look:
    """One look, begun before the transaction that it reads in: that sees whatever was there then."""

    __slots__ = ("_asking", "_edition", "_news", "_now", "_seen", "_since", "_terms", "known")

    def __init__(self, since: Since, asking: Asking, held: Held) -> None:
        index = held.of(held.serving)
        self._seen = 0 if index is None else index.cursor
        self._since, self._asking = since, asking
        self.known = self._now = State.read(since.state)
        self._news: list[Added] | None = None
        self._terms: frozenset[str] = frozenset()
        self._edition = 0

    def read(self, conn: Connection[Any], standing: Standing, analyzer: Analyzer, glossary: Glossary) -> None:
        """In the transaction that told the standing."""
        known, sources = self.known, self._since.sources
        self._news, self._edition = added(conn, known, standing, sources), standing.edition
        if known is not None and self._news is not None and known.number < standing.newest:
            self._now = State.of(known.number, search_store.newest_acl(conn), standing, sources)
        if self._news:
            asked = analyzer.terms(self._since.query)
            variants = glossary.of(conn).variants(asked) if self._since.synonyms else []
            self._terms = frozenset(asked).union(*variants)

    def state(self, analyzer: Analyzer, held: Held) -> str:
        """Up to which nothing came that may bear on the answer; empty where something may. Outside of the transaction:
        a deployment may be asked for the question's vector."""
        if self._now is None or self._news is None:
            return ""
        if self._news and (self._shares_words(self._news, analyzer) or self._is_near(self._news, held)):
            return ""
        return str(replace(self._now, number=max(self._now.number, self._seen)))

    def _shares_words(self, news: list[Added], analyzer: Analyzer) -> bool:
        """Any but the words that each question has, in whatever form."""
        return any(not self._terms.isdisjoint(analyzer.terms(one.worded)) for one in news)

    def _is_near(self, news: list[Added], held: Held) -> bool:
        vectors = [one.vector for one in news if one.vector is not None]
        if not vectors:
            return False
        if held.of(self._edition) is None:
            return True
        question = self._asking.ask(self._since.query, self._edition).vector
        return question is None or bool(np.max(np.stack(vectors) @ question) >= NEAR)


def added(conn: Connection[Any], known: State | None, standing: Standing, sources: list[str]) -> list[Added] | None:
    """Passages that the person may read of documents that changed since, or whose passages did: a vector comes later.
    None: it cannot be told by them whether anything bears, since something else changed, or too much."""
    if known is None or not 0 <= standing.newest - known.number <= MOST_CHANGES:
        return None
    if known != State.of(known.number, known.newest, standing, sources):
        return None
    if known.number == standing.newest:
        return []
    found = search_store.added(conn, known.number, sources, MOST_PASSAGES + 1)
    return found if len(found) <= MOST_PASSAGES else None
