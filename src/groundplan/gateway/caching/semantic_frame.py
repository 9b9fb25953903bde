"""The questions of one frame (`semantic`) whose answers are kept, and which of them are likest to another one. Pure.

Their vectors stand in one table, so that looking for the likest is one product. What is found is not judged here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.similarity import Directions, EmbeddedReading, Vector
from groundplan.gateway.caching.entry import Key

MAX_QUESTIONS = 500
"""Questions of a frame; a new one takes the place of the oldest."""
INITIAL_ROWS = 8
"""Rows of a table at first; it doubles."""


class Frame:
    """Of one frame."""

    def __init__(self) -> None:
        self.keys = list[Key]()
        self._asked = list[tuple[Reading, Directions]]()
        self._vectors: NDArray[np.float32] | None = None
        self._oldest = 0

    def add(self, key: Key, said: EmbeddedReading) -> bool:
        """The question of an answer that is kept from now on; whether it is one more than there were."""
        before = place = len(self.keys)
        if key in self.keys:
            place = self.keys.index(key)
            self._asked[place] = (said.reading, said.words)
        elif place == MAX_QUESTIONS:
            place, self._oldest = self._oldest, (self._oldest + 1) % MAX_QUESTIONS
            self.keys[place], self._asked[place] = key, (said.reading, said.words)
        else:
            self.keys.append(key)
            self._asked.append((said.reading, said.words))
        self._rows_for(place, said.vector)[place] = said.vector
        return len(self.keys) > before

    def nearest(self, vector: Vector, least: float) -> Iterator[tuple[Key, EmbeddedReading]]:
        """The questions that are liker than `least`, the likest first, and of those as like the one that came first."""
        if self._vectors is None:
            return
        likeness = self._vectors[: len(self.keys)] @ vector
        for place in np.argsort(-likeness, kind="stable").tolist():
            if not likeness[place] > least:
                return
            reading, words = self._asked[place]
            yield self.keys[place], EmbeddedReading(reading, self._vectors[place], words)

    def _rows_for(self, place: int, vector: Vector) -> NDArray[np.float32]:
        known = self._vectors
        if known is None or place >= len(known):
            size = INITIAL_ROWS if known is None else min(MAX_QUESTIONS, 2 * len(known))
            self._vectors = np.empty((size, len(vector)), dtype=np.float32)
            if known is not None:
                self._vectors[: len(known)] = known
            return self._vectors
        return known
