"""The company's synonyms in search: a question with a term is searched by words with each of its synonyms as well.

Each variant is a question of its own, scored over what the asking person may see only, and counts a little less than
what was really asked: so a document that has the asked words comes first, and a hidden one changes nothing. Vectors
know synonyms by themselves and are asked with the question alone. What the glossary forbids is no synonym.
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
"""What a passage is worth that was found by a synonym, against one that has the asked word."""
MAX_VARIANTS: Final = 4
"""Variants of one question."""
REFRESH_SECONDS: Final = 2.0

Phrase = tuple[str, ...]


class Synonyms:
    """Terms with what else is said for them, as the analyzer has it: phrases that mean the same are one group."""

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
        """The terms of a question with one phrase in it said otherwise, at most `MAX_VARIANTS` of them; the longest
        phrase at each place counts."""
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
    """The synonyms of the newest blueprint, read again every few seconds. Threads may share it."""

    def __init__(self, terms: Callable[[str], list[str]]) -> None:
        self._terms = terms
        self._synonyms = Synonyms()
        self._rows: list[tuple[str, ...]] = []
        self._until = 0.0
        self._lock = threading.Lock()

    def current(self, conn: Connection[Any]) -> Synonyms:
        """As it is now, in the transaction of a search."""
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
