"""The questions of one frame (`semantic`) with kept answers, searched by similarity. Pure.

Their vectors are rows of one matrix, so that a search is one product. Results are not judged here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.similarity import Directions, EmbeddedReading, Vector
from groundplan.gateway.caching.entry import Key

MAX_QUESTIONS = 500
"""Limit of questions of a frame; a new one replaces the oldest."""
INITIAL_ROWS = 8
"""Rows of a new matrix; it grows by doubling."""


class Frame:
    """Questions that may be compared with each other."""

    def __init__(self) -> None:
        self.keys = list[Key]()
        self._questions = list[tuple[Reading, Directions]]()
        self._vectors: NDArray[np.float32] | None = None
        self._oldest = 0

    def add(self, key: Key, embedded: EmbeddedReading) -> bool:
        """Add the question of a kept answer; returns whether the count of questions grew."""
        count = place = len(self.keys)
        if key in self.keys:
            place = self.keys.index(key)
            self._questions[place] = (embedded.reading, embedded.words)
        elif place == MAX_QUESTIONS:
            place, self._oldest = self._oldest, (self._oldest + 1) % MAX_QUESTIONS
            self.keys[place], self._questions[place] = key, (embedded.reading, embedded.words)
        else:
            self.keys.append(key)
            self._questions.append((embedded.reading, embedded.words))
        self._table_with_room(place, embedded.vector)[place] = embedded.vector
        return len(self.keys) > count

    def nearest(self, vector: Vector, min_cosine: float) -> Iterator[tuple[Key, EmbeddedReading]]:
        """The questions with a cosine above `min_cosine`, most similar first; of equal ones the older first."""
        if self._vectors is None:
            return
        likeness = self._vectors[: len(self.keys)] @ vector
        for place in np.argsort(-likeness, kind="stable").tolist():
            if not likeness[place] > min_cosine:
                return
            reading, words = self._questions[place]
            yield self.keys[place], EmbeddedReading(reading, self._vectors[place], words)

    def _table_with_room(self, place: int, vector: Vector) -> NDArray[np.float32]:
        known = self._vectors
        if known is None or place >= len(known):
            size = INITIAL_ROWS if known is None else min(MAX_QUESTIONS, 2 * len(known))
            self._vectors = np.empty((size, len(vector)), dtype=np.float32)
            if known is not None:
                self._vectors[: len(known)] = known
            return self._vectors
        return known
