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
        self._held: dict[int, Projection] = {first.edition: first}
        self._known: dict[int, Edition] = {}
        self._since: dict[int, float] = {}
        self._whole: set[int] = set()
        self.serving = first.edition
        """The one that served at the last look; a search's own transaction has the last word."""

    def of(self, edition: int) -> Projection | None:
        """The projection of an edition, where all of it is held."""
        return self._held.get(edition) if edition in self._whole else None

    def known(self, edition: int) -> Edition | None:
        """An edition as it was at the last look."""
        return self._known.get(edition)

    @property
    def held(self) -> list[Projection]:
        """All, the one that serves first."""
        return sorted(self._held.values(), key=lambda one: one.edition != self.serving)

    @property
    def whole(self) -> list[int]:
        """Numbers of those that are held whole."""
        return sorted(self._whole)

    @property
    def current(self) -> Projection:
        """The projection of the edition that serves, whole or not yet."""
        return self._held[self.serving]

    def note(self, index: Projection, *, whole: bool) -> None:
        """Whether everything that PostgreSQL has of an edition is held: once it is, it stays so, but for a lag."""
        with self._lock:
            if whole:
                self._whole.add(index.edition)
            else:
                self._whole.discard(index.edition)

    def follow(self, editions: Sequence[Edition]) -> None:
        """Hold what is to be held of these, and let go of the rest after a while."""
        with self._lock:
            wanted = {one.id: one for one in editions if one.state in HELD}
            self._known = {one.id: one for one in editions}
            self.serving = next(one.id for one in editions if one.state == "serving")
            for id, one in wanted.items():
                if id not in self._held:
                    self._held[id] = Projection(id, one.settings.dimension)
                self._since.pop(id, None)
            for id in [id for id in self._held if id not in wanted]:
                begun = self._since.setdefault(id, time.monotonic())
                if time.monotonic() - begun > LINGER_SECONDS or id not in self._whole:
                    del self._held[id], self._since[id]
                    self._whole.discard(id)
