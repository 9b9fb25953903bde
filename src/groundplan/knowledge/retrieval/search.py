"""Search on behalf of a person: words and vectors propose, PostgreSQL's live permissions dispose.

Both kinds of candidates are read in one transaction as the person, so what was revoked or deleted a moment ago is not
in the answer, whatever the word index still holds. Cut off from PostgreSQL it refuses; it never answers from memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from typing import Any, Protocol
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg_pool import PoolClosed, PoolTimeout

from groundplan.core.clock import Clock, SystemClock
from groundplan.core.errors import Invalid, Unavailable
from groundplan.knowledge import store
from groundplan.knowledge.model import ConfirmRequest, Embedder, Passage, SearchRequest, StoredChunk
from groundplan.knowledge.retrieval.words import WordIndex

MAX_QUERY_CHARS = 4000
MAX_PASSAGES = 50
MIN_SIMILARITY = 0.25
"""Cosine below which a chunk that shares no word with the question is about something else."""
MIN_WORD_SHARE = 0.25
"""Part of the best BM25 score below which a chunk shares only common words with the question."""
RANK_CONSTANT = 60
"""Of reciprocal rank fusion: how little the difference between the first ranks weighs."""
OVERDUE_WEIGHT = 0.5
OVERHEAD_BYTES = 64
"""Allowed for the heading of each passage, besides its title and path, in what a prompt may grow by."""

_CANDIDATES = 30
_FIRST_FETCH = 64


class Connections(Protocol):
    """A pool of connections of role search."""

    def connection(self, timeout: float | None = None) -> AbstractContextManager[Connection[Any]]: ...


class Search:
    """Answers questions from PostgreSQL and the word index. Threads may share it."""

    def __init__(
        self, connections: Connections, embedder: Embedder, index: WordIndex, clock: Clock | None = None
    ) -> None:
        self._connections = connections
        self._embedder = embedder
        self._index = index
        self._clock = clock or SystemClock()

    def passages(self, request: SearchRequest) -> list[Passage]:
        """The best passages that the person may read now, at most `k`, within `max_bytes`; none without a person.

        Raises `Invalid` (search_request) and `Unavailable` (search_cut_off, retry_after).
        """
        person = _checked(request)
        query = request.query.strip()[:MAX_QUERY_CHARS]
        if person is None or not query or not request.sources or request.k == 0:
            return []
        vector = self._embedder.embed([query])[0].tolist()
        with self._as(person) as conn:
            near = store.nearest(conn, vector, request.sources, _CANDIDATES)
            worded = self._worded(conn, query, request.sources)
        ranked = fuse([chunk for chunk, similarity in near if similarity >= MIN_SIMILARITY], worded)
        return fit(distinct(demote(ranked, self._clock.now().date())), request.k, request.max_bytes)

    def readable(self, request: ConfirmRequest) -> list[str]:
        """Those of the chunks that exist as they were and that the person may read now.

        Raises `Invalid` (search_request) and `Unavailable` (search_cut_off, retry_after).
        """
        if len(request.chunks) > MAX_PASSAGES:
            raise Invalid(
                f"{len(request.chunks)} chunks are asked for at once",
                code="search_request",
                hint=f"Ask for at most {MAX_PASSAGES}.",
            )
        person, chunks = _id(request.person), [_id(chunk) for chunk in request.chunks]
        with self._as(person) as conn:
            return [str(id) for id in store.readable(conn, chunks, request.sources)]

    @contextmanager
    def _as(self, person: UUID) -> Iterator[Connection[Any]]:
        """One transaction that sees what a person may read. Raises `Unavailable`."""
        try:
            with self._connections.connection(timeout=2.0) as conn, conn.transaction():
                store.act_for(conn, person)
                yield conn
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed) as error:
            raise Unavailable(
                "the live permissions cannot be read, so nothing is searched",
                code="search_cut_off",
                hint="Check that PostgreSQL runs: `groundplan doctor`.",
                retry_after=1.0,
            ) from error

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
    return None if request.person is None else _id(request.person)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise Invalid("a person or chunk is no id", code="search_request", hint="Give UUIDs.") from error


def fuse(*rankings: Iterable[StoredChunk]) -> list[tuple[StoredChunk, float]]:
    """Reciprocal rank fusion: each ranking gives 1 / (60 + rank) to its chunks.

    Best first; of equal ones the shorter path, so that the original comes before its copy.
    """
    scores: dict[UUID, float] = {}
    chunks: dict[UUID, StoredChunk] = {}
    for ranking in rankings:
        for rank, chunk in enumerate(ranking, start=1):
            chunks[chunk.id] = chunk
            scores[chunk.id] = scores.get(chunk.id, 0.0) + 1 / (RANK_CONSTANT + rank)
    return _ordered([(chunk, scores[chunk.id]) for chunk in chunks.values()])


def demote(ranked: Iterable[tuple[StoredChunk, float]], today: date) -> list[tuple[StoredChunk, float]]:
    """Passages of documents whose review is overdue count half: what is current comes before what it replaced."""
    return _ordered(
        (chunk, score * OVERDUE_WEIGHT if chunk.review_by is not None and chunk.review_by < today else score)
        for chunk, score in ranked
    )


def distinct(ranked: Iterable[tuple[StoredChunk, float]]) -> list[tuple[StoredChunk, float]]:
    """Each text once, with its best score, quoted from the document with the shortest path: copies have longer ones."""
    best: dict[str, tuple[StoredChunk, float]] = {}
    for chunk, score in ranked:
        other, top = best.get(chunk.text, (chunk, score))
        best[chunk.text] = (min(chunk, other, key=lambda one: (len(one.path), one.path)), max(score, top))
    return _ordered(best.values())


def _ordered(scored: Iterable[tuple[StoredChunk, float]]) -> list[tuple[StoredChunk, float]]:
    return sorted(scored, key=lambda one: (-one[1], len(one[0].path), one[0].path, one[0].start_line, str(one[0].id)))


def fit(ranked: Iterable[tuple[StoredChunk, float]], k: int, max_bytes: int) -> list[Passage]:
    """The first `k` passages that fit into `max_bytes` together (text, title, path and a heading)."""
    chosen: list[Passage] = []
    left = max_bytes
    for chunk, score in ranked:
        size = len((chunk.text + chunk.title + chunk.path).encode()) + OVERHEAD_BYTES
        if len(chosen) == k:
            break
        if size > left:
            continue
        left -= size
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
