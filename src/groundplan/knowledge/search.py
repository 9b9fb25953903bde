"""Search on behalf of a person: words and vectors propose, PostgreSQL's live permissions dispose.

Both kinds of candidates are read in one transaction as the person, so what was revoked or deleted a moment ago is not
in the answer, whatever the word index still holds. Cut off from PostgreSQL it refuses; it never answers from memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg_pool import PoolClosed, PoolTimeout

from groundplan.core.errors import Invalid, Unavailable
from groundplan.knowledge import store
from groundplan.knowledge.model import Embedder, Passage, SearchRequest, StoredChunk
from groundplan.knowledge.words import WordIndex

MAX_QUERY_CHARS = 4000
MAX_PASSAGES = 50
MIN_SIMILARITY = 0.25
"""Cosine below which a chunk that shares no word with the question is about something else."""
MIN_WORD_SHARE = 0.25
"""Part of the best BM25 score below which a chunk shares only common words with the question."""
RANK_CONSTANT = 60
"""Of reciprocal rank fusion: how little the difference between the first ranks weighs."""
OVERHEAD_BYTES = 64
"""Allowed for the heading of each passage, besides its title and path, in what a prompt may grow by."""

_CANDIDATES = 30
_FIRST_FETCH = 64


class Connections(Protocol):
    """A pool of connections of role search."""

    def connection(self, timeout: float | None = None) -> AbstractContextManager[Connection[Any]]: ...


class Search:
    """Answers questions from PostgreSQL and the word index. Threads may share it."""

    def __init__(self, connections: Connections, embedder: Embedder, index: WordIndex) -> None:
        self._connections = connections
        self._embedder = embedder
        self._index = index

    def passages(self, request: SearchRequest) -> list[Passage]:
        """The best passages that the person may read now, at most `k`, within `max_bytes`; none without a person.

        Raises `Invalid` (search_request) and `Unavailable` (search_cut_off, retry_after).
        """
        person = _checked(request)
        query = request.query.strip()[:MAX_QUERY_CHARS]
        if person is None or not query or not request.sources or request.k == 0:
            return []
        vector = self._embedder.embed([query])[0].tolist()
        try:
            with self._connections.connection(timeout=2.0) as conn, conn.transaction():
                store.act_for(conn, person)
                near = store.nearest(conn, vector, request.sources, _CANDIDATES)
                worded = self._worded(conn, query, request.sources)
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed) as error:
            raise Unavailable(
                "the live permissions cannot be read, so nothing is searched",
                code="search_cut_off",
                hint="Check that PostgreSQL runs: `groundplan doctor`.",
                retry_after=1.0,
            ) from error
        chosen = fuse([chunk for chunk, similarity in near if similarity >= MIN_SIMILARITY], worded)
        return fit(chosen, request.k, request.max_bytes)

    def _worded(self, conn: Connection[Any], query: str, sources: Sequence[str]) -> list[StoredChunk]:
        """The readable chunks among the index's proposals; asks for more until there are enough or no more."""
        limit = _FIRST_FETCH
        while True:
            proposals = self._index.propose(query, sources, limit)
            allowed = store.readable(conn, [one.chunk for one in proposals], sources)
            seen = [(allowed[one.chunk], one.score) for one in proposals if one.chunk in allowed]
            if len(seen) >= _CANDIDATES or len(proposals) < limit:
                # measured against the best that the person may read, so that hidden documents do not show
                least = MIN_WORD_SHARE * max((score for _, score in seen), default=0.0)
                return [chunk for chunk, score in seen if score >= least][:_CANDIDATES]
            limit *= 4


def _checked(request: SearchRequest) -> UUID | None:
    """The person asked for; raises `Invalid` for a request that makes no sense."""
    if not 0 <= request.k <= MAX_PASSAGES or request.max_bytes < 0:
        raise Invalid(
            f"k is {request.k} and max_bytes {request.max_bytes}",
            code="search_request",
            hint=f"Ask for 0 to {MAX_PASSAGES} passages and a size that is not negative.",
        )
    if request.person is None:
        return None
    try:
        return UUID(request.person)
    except ValueError as error:
        raise Invalid("the person is no id", code="search_request", hint="Give the person's UUID.") from error


def fuse(*rankings: Iterable[StoredChunk]) -> list[tuple[StoredChunk, float]]:
    """Reciprocal rank fusion: each ranking gives 1 / (60 + rank) to its chunks. Best first, ties by path and line."""
    scores: dict[UUID, float] = {}
    chunks: dict[UUID, StoredChunk] = {}
    for ranking in rankings:
        for rank, chunk in enumerate(ranking, start=1):
            chunks[chunk.id] = chunk
            scores[chunk.id] = scores.get(chunk.id, 0.0) + 1 / (RANK_CONSTANT + rank)
    order = sorted(
        chunks.values(), key=lambda one: (-scores[one.id], one.source, one.path, one.start_line, str(one.id))
    )
    return [(chunk, scores[chunk.id]) for chunk in order]


def fit(ranked: Iterable[tuple[StoredChunk, float]], k: int, max_bytes: int) -> list[Passage]:
    """The first `k` passages that fit into `max_bytes` together (text, title, path and a heading); no text twice."""
    chosen: list[Passage] = []
    texts: set[str] = set()
    left = max_bytes
    for chunk, score in ranked:
        size = len((chunk.text + chunk.title + chunk.path).encode()) + OVERHEAD_BYTES
        if len(chosen) == k:
            break
        if size > left or chunk.text in texts:
            continue
        left -= size
        texts.add(chunk.text)
        chosen.append(_passage(chunk, score))
    return chosen


def _passage(chunk: StoredChunk, score: float) -> Passage:
    return Passage(
        document=str(chunk.document),
        path=chunk.path,
        title=chunk.title,
        source=chunk.source,
        start_line=chunk.start_line,
        end_line=chunk.end_line,
        text=chunk.text,
        score=round(score, 6),
        chunk=str(chunk.id),
    )
