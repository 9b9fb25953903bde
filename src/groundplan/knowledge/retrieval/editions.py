"""The projections that a search service holds: of the serving edition, the next candidate, and the previous one.

A search uses the edition that its own transaction began with, so a switch does not affect it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from groundplan.knowledge.index.model import HELD_STATES, Edition
from groundplan.knowledge.retrieval.projection import Projection

LINGER_SECONDS: Final = 10.0
"""How long a previous edition is held after a switch: longer than any search takes."""


class Editions:
    """Projections by edition. One thread changes them; any number of threads look them up."""

    def __init__(self, first: Projection) -> None:
        self._lock = threading.Lock()
        self._projections: dict[int, Projection] = {first.edition: first}
        self._editions: dict[int, Edition] = {}
        self._unwanted_since: dict[int, float] = {}
        self._complete: set[int] = set()
        self.serving = first.edition
        """The serving edition as of the last update; the transaction of a search decides which it uses."""

    def find(self, edition: int) -> Projection | None:
        """The projection of an edition if it is complete, else None."""
        return self._projections.get(edition) if edition in self._complete else None

    def known_edition(self, edition: int) -> Edition | None:
        """An edition as of the last update."""
        return self._editions.get(edition)

    @property
    def projections(self) -> list[Projection]:
        """All projections, the serving one first."""
        return sorted(self._projections.values(), key=lambda one: one.edition != self.serving)

    @property
    def complete_editions(self) -> list[int]:
        """The numbers of the editions that are held completely."""
        return sorted(self._complete)

    @property
    def serving_projection(self) -> Projection:
        """The projection of the serving edition, complete or not."""
        return self._projections[self.serving]

    def mark_complete(self, index: Projection, *, is_complete: bool) -> None:
        """Note whether a projection has everything that PostgreSQL has of its edition. Once complete, it only lags."""
        with self._lock:
            if is_complete:
                self._complete.add(index.edition)
            else:
                self._complete.discard(index.edition)

    def update(self, editions: Sequence[Edition]) -> None:
        """Hold the projections that these editions need; drop others after `LINGER_SECONDS`."""
        with self._lock:
            wanted = {one.id: one for one in editions if one.state in HELD_STATES}
            self._editions = {one.id: one for one in editions}
            self.serving = next(one.id for one in editions if one.state == "serving")
            for id, one in wanted.items():
                if id not in self._projections:
                    self._projections[id] = Projection(id, one.settings.dimension)
                self._unwanted_since.pop(id, None)
            for id in [id for id in self._projections if id not in wanted]:
                begun = self._unwanted_since.setdefault(id, time.monotonic())
                if time.monotonic() - begun > LINGER_SECONDS or id not in self._complete:
                    del self._projections[id], self._unwanted_since[id]
                    self._complete.discard(id)
