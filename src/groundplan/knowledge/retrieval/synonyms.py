"""The company's synonyms in word search: a question is also searched with its terms replaced by their synonyms.

Each variant is scored like a question of its own over the rows visible to the person, with a small discount: documents
with the original words come first, and hidden ones change nothing. Vectors cover synonyms by themselves, so only the
original question is embedded. Terms that the glossary forbids are not synonyms.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from psycopg import Connection

from groundplan.knowledge.retrieval import glossary_store

DISCOUNT: Final = 0.9
"""The factor for the score of a passage found by a synonym instead of the original word."""
MAX_VARIANTS: Final = 4
"""Most variants of one question."""
REFRESH_SECONDS: Final = 2.0

Phrase = tuple[str, ...]


class Synonyms:
    """Groups of phrases that mean the same, as terms of the analyzer."""

    def __init__(self, groups: Iterable[Sequence[str]] = (), terms: Callable[[str], list[str]] = str.split) -> None:
        self._others: dict[Phrase, list[Phrase]] = {}
        self._first: dict[str, list[Phrase]] = defaultdict(list)
        for group in groups:
            phrases = list(dict.fromkeys(phrase for said in group if (phrase := tuple(terms(said)))))
            for phrase in phrases:
                known = self._others.setdefault(phrase, [])
                if not known:
                    self._first[phrase[0]].append(phrase)
                known += [other for other in phrases if other != phrase and other not in known]
        for found in self._first.values():
            found.sort(key=len, reverse=True)

    def variants(self, question: Sequence[str]) -> list[list[str]]:
        """The terms of a question with one phrase replaced by a synonym, at most `MAX_VARIANTS`; at each place, the
        longest phrase counts."""
        found: list[list[str]] = []
        at = 0
        while at < len(question) and len(found) < MAX_VARIANTS:
            phrase = self._phrase_at(question, at)
            if phrase is None:
                at += 1
                continue
            for other in self._others[phrase]:
                found.append([*question[:at], *other, *question[at + len(phrase) :]])
            at += len(phrase)
        return found[:MAX_VARIANTS]

    def _phrase_at(self, question: Sequence[str], at: int) -> Phrase | None:
        return next(
            (each for each in self._first.get(question[at], ()) if tuple(question[at : at + len(each)]) == each), None
        )


class Glossary:
    """The synonyms of the newest blueprint, read again every few seconds. Thread-safe."""

    def __init__(self, terms: Callable[[str], list[str]]) -> None:
        self._terms = terms
        self._synonyms = Synonyms()
        self._rows: list[tuple[str, ...]] = []
        self._until = 0.0
        self._lock = threading.Lock()

    def current(self, conn: Connection[Any]) -> Synonyms:
        """The current synonyms, read in the transaction of a search if they are not fresh."""
        now = time.monotonic()
        if now < self._until:
            return self._synonyms
        with self._lock:
            if now >= self._until:
                rows = glossary_store.synonym_groups(conn)
                if rows != self._rows:
                    self._synonyms, self._rows = Synonyms(rows, self._terms), rows
                self._until = now + REFRESH_SECONDS
        return self._synonyms
