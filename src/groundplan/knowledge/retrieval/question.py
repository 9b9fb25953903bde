"""Prepare a question for search: its vector by the model of the searched edition, or the reason why there is none.

An unavailable deployment is tried again every few seconds; meanwhile, search goes by words only and says so.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Protocol

from groundplan.core.errors import Unavailable
from groundplan.knowledge.embedding.batching import BatchingEmbedder
from groundplan.knowledge.index.model import Edition, Embedding
from groundplan.knowledge.model import Embedder, Vectors
from groundplan.knowledge.retrieval.projection import Projection, View

_CACHED_VECTORS: Final = 2048
"""How many vectors of deployments are cached, so that a repeated question is not paid twice."""
_PAUSE_SECONDS: Final = 5.0
_WAIT_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02


class ProjectionSource(Protocol):
    """Looks up projections by edition: `Editions`, or a single `Projection`."""

    @property
    def serving(self) -> int: ...

    def find(self, edition: int) -> Projection | None: ...

    def known_edition(self, edition: int) -> Edition | None: ...


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A question for an edition. It has no vector where the model is unavailable; then `degraded` says why."""

    text: str
    view: View
    compute_vector: Callable[[], Vectors | None]
    degraded: str = ""

    @property
    def vector(self) -> Vectors | None:
        """The vector; waits until the embedded model has computed it, and raises the model's errors."""
        return self.compute_vector()


class QueryPreparer:
    """Prepares questions for search. Thread-safe."""

    def __init__(
        self, local: Embedder, projections: ProjectionSource, deployed: Callable[[Embedding], Embedder] | None = None
    ) -> None:
        """`local` embeds for editions of the embedded model, `deployed` returns the embedder of other editions."""
        self._local, self._projections, self._deployed = BatchingEmbedder(local), projections, deployed
        self._lock = threading.Lock()
        self._vectors: OrderedDict[tuple[Embedding, str], Vectors] = OrderedDict()
        self._paused: dict[Embedding, tuple[float, str]] = {}

    def prepare(self, text: str, edition: int, min_change: int = 0) -> PreparedQuery:
        """The question for an edition, whose vector the embedded model computes in the background.

        Waits for a deployment, and until the index contains `min_change`; callers must not hold a database connection
        meanwhile. Raises `Unavailable` (search_index) where this service does not hold all of the edition, since it
        never answers from a part of it.
        """
        index = self.wait_for_projection(edition, lambda index: index.cursor >= min_change)
        known = self._projections.known_edition(edition)
        embedding = known.settings.embedding if known is not None else None
        if embedding is not None:
            vector, degraded = self._embed_by_deployment(text, embedding)
            return PreparedQuery(text, index.view, lambda: vector, degraded)
        return PreparedQuery(text, index.view, self._local.submit(text).result)

    def submit(self, texts: Sequence[str]) -> list[Future[Vectors]]:
        """Futures of the embedded model's vectors for questions that are compared elsewhere."""
        return [self._local.submit(text) for text in texts]

    def wait_for_projection(
        self, edition: int, is_current: Callable[[Projection], bool] = lambda _: True
    ) -> Projection:
        """The complete projection of an edition, waiting some seconds until it is there and `is_current`; else raises
        `Unavailable` (search_index)."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while (index := self._projections.find(edition)) is None or not is_current(index):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"edition {edition} of the index is not read whole by this service yet",
                    code="search_index",
                    hint="It answers as soon as it has all of it; see HOME/logs/search.log.",
                    retry_after=1.0,
                )
            time.sleep(_POLL_SECONDS)
        return index

    def _embed_by_deployment(self, text: str, embedding: Embedding) -> tuple[Vectors | None, str]:
        key = (embedding, text)
        with self._lock:
            known = self._vectors.get(key)
            until, reason = self._paused.get(embedding, (0.0, ""))
        if known is not None:
            return known, ""
        if time.monotonic() < until or self._deployed is None:
            return None, reason or f"{embedding.deployment} cannot be asked here"
        try:
            vector = self._deployed(embedding).embed([text])[0]
        except Unavailable as error:
            with self._lock:
                self._paused[embedding] = (time.monotonic() + _PAUSE_SECONDS, error.message)
            return None, error.message
        with self._lock:
            self._paused.pop(embedding, None)
            self._vectors[key] = vector
            while len(self._vectors) > _CACHED_VECTORS:
                self._vectors.popitem(last=False)
        return vector, ""
