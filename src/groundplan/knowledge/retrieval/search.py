"""Search on behalf of a person: words and vectors propose, PostgreSQL's live permissions dispose.

Who the person is, which chunks are read and how similar they are comes from one transaction, so what was revoked or
deleted a moment ago is not in the answer, whatever the projection still holds. That transaction also tells what changed
after the view that words are weighed by, so it counts in no score either. Cut off from PostgreSQL it refuses; it
never answers from memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec
import psycopg
from psycopg import Connection, IsolationLevel
from psycopg_pool import PoolClosed, PoolTimeout

from groundplan.blueprint.content import Rerank
from groundplan.core.clock import Clock, SystemClock
from groundplan.core.errors import Invalid, Unavailable
from groundplan.knowledge import store
from groundplan.knowledge.index.model import Embedding
from groundplan.knowledge.model import Embedder, Vectors
from groundplan.knowledge.retrieval import fuse, hints, search_store, words
from groundplan.knowledge.retrieval.propose import CANDIDATES, Proposed, Wanted, completed, propose, said, worded
from groundplan.knowledge.retrieval.question import Asked, Asking, Held
from groundplan.knowledge.retrieval.rerank import Reranker, Reranking, reordered
from groundplan.knowledge.retrieval.search_store import Found, Standing
from groundplan.knowledge.retrieval.still_valid import Look, State
from groundplan.knowledge.retrieval.synonyms import Glossary
from groundplan.knowledge.retrieval.wire import (
    ConfirmAnswer,
    ConfirmRequest,
    Conflict,
    Newer,
    Passage,
    SearchRequest,
    Step,
    Where,
    Withheld,
)

MAX_QUERY_CHARS = 4000
MAX_PASSAGES = 100
MAX_CONFIRMED = 50

_READ = 40
"""Of both together, best first: what PostgreSQL is asked for at once."""
_TRIES = 3
"""So often a switch to another edition may come between a question and its answer."""
_MOST_BY_WORDS = fuse.WEIGHTS.words * (1 + fuse.WEIGHTS.neighbour)


class Connections(Protocol):
    """A pool of connections of role search."""

    def connection(self, timeout: float | None = None) -> AbstractContextManager[Connection[Any]]: ...


@dataclass(frozen=True, slots=True)
class Result:
    """What a search gives. `confidence`: of the best passage, 0 to 1, before the floor is looked at."""

    passages: list[Passage]
    confidence: float = 0.0
    abstained: bool = False
    withheld: tuple[Withheld, ...] = ()
    conflicts: list[Conflict] = field(default_factory=list)
    newer: list[Newer] = field(default_factory=list)
    degraded: str = ""
    """Why words alone were looked for."""
    steps: tuple[Step, ...] = ()
    state: str = ""
    """Of the documents, where that was asked for."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """What was found for a question: all of it readable when it was read, best first."""

    proposed: Proposed
    ranked: fuse.Ranked
    degraded: str
    by_words: bool
    state: str = ""

    @property
    def confidence(self) -> float:
        return _confidence(self.ranked, by_words=self.by_words)


_AS_IT_IS: Final[Mapping[str, int]] = {}
"""No text has another place than words and vectors gave it."""


class Search:
    """Answers questions from PostgreSQL and the projection. Threads may share it."""

    def __init__(
        self,
        connections: Connections,
        embedder: Embedder,
        index: Held,
        clock: Clock | None = None,
        *,
        deployed: Callable[[Embedding], Embedder] | None = None,
        reranker: Callable[[Rerank], Reranker] | None = None,
        weights: fuse.Weights = fuse.WEIGHTS,
    ) -> None:
        """`embedder` is the embedded model; `deployed` gives what embeds for editions of a deployment's vectors,
        `reranker` what puts passages in order; `weights` how words and vectors are put together."""
        self._connections = connections
        self._index = index
        self.asking = Asking(embedder, index, deployed)
        self._reranking = Reranking(reranker)
        self._analyzer = words.Analyzer()
        self._glossary = Glossary(self._analyzer.terms)
        self._clock = clock or SystemClock()
        self._weights = weights
        # hundreds of short numpy calls each, two at once pass the interpreter's lock to and fro and take longer than
        # one after the other; models and PostgreSQL work for others meanwhile
        self._computing = threading.Lock()

    def passages(self, request: SearchRequest) -> list[Passage]:
        """As `answer`, the passages alone."""
        return self.answer(request).passages

    def answer(self, request: SearchRequest) -> Result:
        """The best passages that the person may read now, at most `k`, within `max_bytes`.

        Raises `Invalid` (search_request) and `Unavailable` (search_cut_off, search_index; retry_after).
        """
        person = _checked(request)
        query = request.query.strip()[:MAX_QUERY_CHARS]
        if not query or not request.sources or request.k == 0:
            return Result([])
        edition = self._index.serving if request.edition is None else request.edition
        reached = 0
        for _ in range(_TRIES):
            asked = self.asking.ask(query, edition, reached)
            # begun after the view was taken: it sees all that is in that, and tells what is not
            with self._as(person, request.workload, request.edition, asked.view.cursor) as (conn, standing):
                if standing.edition != edition or standing.changed is None:
                    edition, reached = standing.edition, standing.newest if standing.changed is None else 0
                    continue
                draft = self._draft(conn, standing, asked, request)
                if request.rerank is None or draft.confidence < request.floor or len(draft.ranked) < 2:
                    return self._given(conn, draft, request)
            # outside of a transaction: others need the connection, and what is revoked meanwhile must not be given
            step, places = self._in_order(request.rerank, asked.text, draft)
            with self._as(person, request.workload, request.edition) as (conn, standing):
                if standing.edition == edition:
                    draft = self._confirmed(conn, draft, request, asked.vector)
                    return replace(self._given(conn, draft, request, places), steps=(step,))
                edition = standing.edition
        raise Unavailable(
            "the index changed too much meanwhile", code="search_index", hint="Ask again.",
            retry_after=1.0,
        )  # fmt: skip

    def _draft(self, conn: Connection[Any], standing: Standing, asked: Asked, request: SearchRequest) -> _Draft:
        """What is found within one transaction."""
        wanted = replace(self._wanted(asked.text, None, request.sources, standing), where=request.where)
        if request.synonyms and (variants := self._glossary.of(conn).variants(wanted.terms)):
            wanted = replace(wanted, variants=variants)
        with self._computing:
            by_words = worded(asked.view, wanted)
        question = asked.vector  # the model had all the time until here
        with self._computing:
            proposed = completed(by_words, replace(wanted, vector=question), self._weights)
        ranked = self._read(conn, proposed, request, question)
        refused = len(ranked) < min(_enough(request), len(proposed.best))
        if request.where != Where() and refused and by_words.seen.count > CANDIDATES:
            # most of the best may not be read, or not for this workload: what may is ranked by itself
            only = replace(wanted, documents=search_store.within(conn, request.where, request.sources))
            with self._computing:
                proposed = propose(asked.view, replace(only, vector=question), self._weights)
            ranked = self._read(conn, proposed, request, question)
        if standing.newest > proposed.view.cursor and question is not None:
            ranked += self._unprojected(conn, proposed, request, question, ranked)
        state = ""
        if request.stated:  # what the view does not know yet, words did not find
            newest = search_store.newest_acl(conn)
            state = str(State.of(asked.view.cursor, newest, standing, request.sources))
        return _Draft(proposed, fuse.ordered(ranked), asked.degraded, by_words=question is None, state=state)

    def _in_order(self, rule: Rerank, query: str, draft: _Draft) -> tuple[Step, Mapping[str, int]]:
        """What the reranker makes of the best of a draft."""
        best = fuse.distinct(fuse.demote(draft.ranked, self._clock.now().date()))
        return self._reranking.asked(rule, query, [one for one, _ in best[: rule.passages]])

    def _confirmed(
        self, conn: Connection[Any], draft: _Draft, request: SearchRequest, question: Vectors | None
    ) -> _Draft:
        """What of a draft may be read now."""
        now = search_store.read(conn, [one.id for one, _ in draft.ranked], request.sources, question)
        return replace(draft, ranked=[(now[one.id], score) for one, score in draft.ranked if one.id in now])

    def _given(
        self,
        conn: Connection[Any],
        draft: _Draft,
        request: SearchRequest,
        places: Mapping[str, int] = _AS_IT_IS,
    ) -> Result:
        """The answer, read within one transaction. `places`: of texts that were put in another order."""
        ranked, confidence = draft.ranked, draft.confidence
        withheld = self._withheld(conn, draft.proposed, request, ranked) if request.explain else ()
        newer = self._newer(conn, draft.proposed, request, ranked)
        if confidence < request.floor:
            return Result(
                [], confidence, abstained=True, withheld=withheld, newer=newer, degraded=draft.degraded,
                state=draft.state,
            )  # fmt: skip
        today = self._clock.now().date()
        best = fuse.distinct(fuse.demote(ranked, today))
        if places:
            best = reordered(best, places, today)
        around = _around(conn, best[: request.k], request.context, ranked)
        chosen = fuse.fit(fuse.widened(best, around, request), request.k, request.max_bytes, explain=request.explain)
        if request.explain:
            overdue = {str(one.id) for one, _ in best if fuse.weight(one, today) < 1}
            chosen = [self._explained(one, request.query, overdue) for one in chosen]
        conflicts = hints.conflicts(conn, chosen, request.sources)
        return Result(
            chosen, confidence, withheld=withheld, conflicts=conflicts, newer=newer, degraded=draft.degraded,
            state=draft.state,
        )  # fmt: skip

    def _explained(self, passage: Passage, query: str, overdue: Collection[str]) -> Passage:
        words = self._analyzer.shared(query, f"{passage.title}\n{passage.head}\n{passage.text}")
        return msgspec.structs.replace(passage, words=words, overdue=passage.chunk in overdue)

    def propose(
        self, query: str, question: Vectors | None, sources: list[str], standing: Standing, limit: int = CANDIDATES
    ) -> Proposed:
        """What the projection proposes for somebody of that standing. Raises `Unavailable` (search_index)."""
        index = self.asking.whole(standing.edition)
        return propose(index.view, self._wanted(query, question, sources, standing, limit), self._weights)

    def _wanted(
        self, query: str, question: Vectors | None, sources: list[str], standing: Standing, limit: int = CANDIDATES
    ) -> Wanted:
        return Wanted(
            self._analyzer.terms(query), question, frozenset(sources), frozenset(standing.acls), limit,
            changed=standing.changed or (), said=said(query, self._analyzer),
        )  # fmt: skip

    def _read(
        self, conn: Connection[Any], proposed: Proposed, request: SearchRequest, question: Vectors | None
    ) -> fuse.Ranked:
        """The readable ones, best first; asks for more until there are enough or no more."""
        scores = proposed.best
        enough = _enough(request)
        found: fuse.Ranked = []
        for batch, reach in proposed.batches(enough, max(_READ, enough)):
            rows = {proposed.view.chunk(row): row for row in batch}
            allowed = search_store.read(conn, list(rows), request.sources, question, request.where)
            more = proposed.quoted(request.query, {rows[id]: one.text for id, one in allowed.items()})
            found += [(one, scores[rows[id]] + more.get(rows[id], 0.0)) for id, one in allowed.items()]
            if not any(more.values()):
                reach = 0.0  # none of the likeliest quotes anything: the rest is not read for it
            # each text is given once
            if len(found) >= enough and len(texts := _by_text(found)) > request.k and texts[request.k - 1] >= reach:
                break
        return found

    def _unprojected(
        self,
        conn: Connection[Any],
        proposed: Proposed,
        request: SearchRequest,
        question: Vectors,
        found: fuse.Ranked,
    ) -> fuse.Ranked:
        """Readable chunks of documents that changed since the projection's last batch, by their vectors."""
        known = {one.id for one, _ in found}
        fresh = search_store.changed(conn, proposed.view.cursor, request.sources, question, _READ)
        return [
            (one, (1 + self._weights.neighbour) * one.similarity)
            for one in fresh
            if one.id not in known
            and one.similarity is not None
            and one.similarity >= fuse.MIN_SIMILARITY
            and _within(one, request.where)
        ]

    def _withheld(
        self, conn: Connection[Any], proposed: Proposed, request: SearchRequest, ranked: fuse.Ranked
    ) -> tuple[Withheld, ...]:
        """Documents that the person may read and that match as well, but that the workload may not use."""
        least = ranked[min(len(ranked), request.k) - 1][1] if ranked else 0.0
        rows = [row for row in proposed.order[:_READ] if proposed.best[row] >= least]
        chunks = [proposed.view.chunk(row) for row in rows]
        kept = search_store.kept_back(conn, chunks, request.workload, request.where)
        by_document = {document: (path, title, reason) for _, document, path, title, reason in kept}
        return tuple(
            Withheld(document=str(document), path=path, title=title, reason=reason)
            for document, (path, title, reason) in by_document.items()
        )

    def _newer(
        self, conn: Connection[Any], proposed: Proposed, request: SearchRequest, ranked: fuse.Ranked
    ) -> list[Newer]:
        """What of the best was kept back because there is a newer version."""
        least = ranked[min(len(ranked), request.k) - 1][1] if ranked else 0.0
        rows = [row for row in proposed.order[:_READ] if proposed.best[row] >= least]
        best = {proposed.view.chunk(row): proposed.best[row] for row in rows}
        return hints.newer(conn, best, [one.id for one, _ in ranked], least, request)

    def readable(self, request: ConfirmRequest) -> ConfirmAnswer:
        """Those of the chunks and documents that exist as they were and that the person may read now; and whether
        anything may bear on an answer that came since it was made.

        Raises `Invalid` (search_request) and `Unavailable` (search_cut_off, retry_after).
        """
        asked = len(request.chunks) + len(request.documents)
        if asked > MAX_CONFIRMED:
            raise Invalid(
                f"{asked} chunks and documents are asked for at once",
                code="search_request",
                hint=f"Ask for at most {MAX_CONFIRMED}.",
            )
        person, chunks = _id(request.person), [_id(chunk) for chunk in request.chunks]
        documents = [_id(document) for document in request.documents]
        look = None if request.since is None else Look(request.since, self.asking, self._index)
        with self._as(person, request.workload) as (conn, standing):
            found = store.readable(conn, chunks, request.sources) if chunks else {}
            listed = search_store.documents(conn, documents, request.sources) if documents else []
            if look is not None:
                look.read(conn, standing, self._analyzer, self._glossary)
        state = "" if look is None else look.state(self._analyzer, self._index)
        return ConfirmAnswer(readable=[str(id) for id in found], documents=[str(id) for id in listed], state=state)

    @contextmanager
    def _as(
        self, person: UUID | None, workload: str, edition: int | None = None, after: int | None = None
    ) -> Iterator[tuple[Connection[Any], Standing]]:
        """One transaction that sees what a person may read. Raises `Unavailable`."""
        try:
            with self._connections.connection(timeout=2.0) as conn, _one_moment(conn), conn.transaction():
                yield conn, search_store.stand_for(conn, person, workload, edition, after)
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed) as error:
            raise Unavailable(
                "the live permissions cannot be read, so nothing is searched",
                code="search_cut_off",
                hint="Check that PostgreSQL runs: `groundplan doctor`.",
                retry_after=1.0,
            ) from error


@contextmanager
def _one_moment(conn: Connection[Any]) -> Iterator[None]:
    """Transactions in it see one moment. Else somebody who joins a refused group, and a document that is then opened to
    all but that group, could meet between two statements in a right that never was."""
    if conn.isolation_level is not IsolationLevel.REPEATABLE_READ:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
    yield


def _checked(request: SearchRequest) -> UUID | None:
    """The person asked for; raises `Invalid` for a request that makes no sense."""
    bounded = 0 <= request.k <= MAX_PASSAGES and 0 <= request.floor <= 1 and request.context in (0, 1)
    if not bounded or request.max_bytes < 0:
        raise Invalid(
            f"k is {request.k}, max_bytes {request.max_bytes}, floor {request.floor}, context {request.context}",
            code="search_request",
            hint=f"Ask for 0 to {MAX_PASSAGES} passages, a size, a floor from 0 to 1, a context of 0 or 1.",
        )
    return None if request.person is None else _id(request.person)


def _by_text(found: fuse.Ranked) -> list[float]:
    """The best score of each text, best first."""
    best: dict[str, float] = {}
    for one, score in found:
        best[one.text] = max(score, best.get(one.text, score))
    return sorted(best.values(), reverse=True)


def _enough(request: SearchRequest) -> int:
    """So many readable passages are looked for: some are overdue, or the same text as another."""
    return max(2 * request.k + 4, request.rerank.passages if request.rerank is not None else 0)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise Invalid("a person or chunk is not an id", code="search_request", hint="Give UUIDs.") from error


def _around(
    conn: Connection[Any], best: fuse.Ranked, distance: int, read: fuse.Ranked
) -> dict[tuple[UUID, int], search_store.Part]:
    """Readable chunks beside the best, by document and number. `read`: those that were read in this transaction."""
    if not distance:
        return {}
    known = {(one.document, one.number): one for one, _ in read}
    wanted = {(one.document, one.number + step) for one, _ in best for step in range(-distance, distance + 1)}
    missing = sorted(wanted - known.keys())
    parts = [known[place].part for place in wanted & known.keys()]
    parts += search_store.neighbours(conn, missing) if missing else []
    return {(part.document, part.number): part for part in parts}


def _within(chunk: Found, where: Where) -> bool:
    """Whether it is of a document that was asked about."""
    at = chunk.modified_at
    return (
        (where.path is None or chunk.path.startswith(where.path))
        and (where.owner is None or chunk.owner == where.owner)
        and (where.sensitivity is None or chunk.sensitivity in where.sensitivity)
        and (where.media is None or chunk.media == where.media)
        and (where.after is None or (at is not None and at >= where.after))
        and (where.before is None or (at is not None and at < where.before))
    )


def _confidence(ranked: fuse.Ranked, *, by_words: bool) -> float:
    """How sure the best is about the question, 0 to 1: its exact similarity; by words alone, the part of what the
    question could reach."""
    if by_words:
        return min(1.0, max((score for _, score in ranked), default=0.0) / _MOST_BY_WORDS)
    return min(1.0, max([0.0, *(one.similarity or 0.0 for one, _ in ranked)]))
