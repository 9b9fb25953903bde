"""The projections that a search service holds: of the edition that serves, of one that may next, of the last one.

A search asks for the edition that its own transaction began with, so a switch changes nothing for it. Holds no data.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from groundplan.knowledge.index.model import HELD, Edition
from groundplan.knowledge.retrieval.projection import Projection

LINGER_SECONDS: Final = 10.0
"""How long the edition before is held after a switch: longer than any search takes."""


class Editions:
    """One thread changes what is held; any number look it up."""

    def __init__(self, first: Projection) -> None:
        self._lock = threading.Lock()
        self._projections: dict[int, Projection] = {first.edition: first}
        self._editions: dict[int, Edition] = {}
        self._unwanted_since: dict[int, float] = {}
        self._complete: set[int] = set()
        self.serving = first.edition
        """The one that served at the last look; a search's own transaction has the last word."""

    def find(self, edition: int) -> Projection | None:
        """The projection of an edition, where all of it is held."""
        return self._projections.get(edition) if edition in self._complete else None

    def known_edition(self, edition: int) -> Edition | None:
        """An edition as it was at the last look."""
        return self._editions.get(edition)

    @property
    def projections(self) -> list[Projection]:
        """All, the one that serves first."""
        return sorted(self._projections.values(), key=lambda one: one.edition != self.serving)

    @property
    def complete_editions(self) -> list[int]:
        """Numbers of those that are held whole."""
        return sorted(self._complete)

    @property
    def serving_projection(self) -> Projection:
        """The projection of the edition that serves, whole or not yet."""
        return self._projections[self.serving]

    def mark_complete(self, index: Projection, *, is_complete: bool) -> None:
        """Whether everything that PostgreSQL has of an edition is held: once it is, it stays so, but for a lag."""
        with self._lock:
            if is_complete:
                self._complete.add(index.edition)
            else:
                self._complete.discard(index.edition)

    def update(self, editions: Sequence[Edition]) -> None:
        """Hold what is to be held of these, and let go of the rest after a while."""
        with self._lock:
            wanted = {one.id: one for one in editions if one.state in HELD}
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
