"""Search on behalf of a person: words and vectors propose chunks, PostgreSQL's live permissions decide.

The person's readers' sets, the chunks and their similarities are read in one transaction, so what was revoked or
deleted a moment ago is not in the answer, whatever the projection still holds. That transaction also reads what changed
after the projection's view, so that it counts in no score either. Without PostgreSQL, search is refused; it never
answers from memory.
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
from groundplan.knowledge.retrieval.propose import (
    CANDIDATES,
    Proposal,
    ProposalRequest,
    complete_proposal,
    propose,
    propose_by_words,
    quotable_query,
)
from groundplan.knowledge.retrieval.question import PreparedQuery, ProjectionSource, QueryPreparer
from groundplan.knowledge.retrieval.rerank import Reranker, RerankStep, apply_order
from groundplan.knowledge.retrieval.search_store import AccessSnapshot, ReadableChunk
from groundplan.knowledge.retrieval.still_valid import AnswerState, ValidityCheck
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

_READ_LIMIT = 40
"""How many of the best candidates are read from PostgreSQL at once."""
_MAX_ATTEMPTS = 3
"""How often a search is repeated because the index was switched to another edition meanwhile."""
_MAX_WORD_SCORE = fuse.WEIGHTS.words * (1 + fuse.WEIGHTS.neighbour)


class Connections(Protocol):
    """A pool of connections of role search."""

    def connection(self, timeout: float | None = None) -> AbstractContextManager[Connection[Any]]: ...


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search. `confidence`: of the best passage, 0 to 1, before the floor is applied."""

    passages: list[Passage]
    confidence: float = 0.0
    abstained: bool = False
    withheld: tuple[Withheld, ...] = ()
    conflicts: list[Conflict] = field(default_factory=list)
    newer: list[Newer] = field(default_factory=list)
    degraded: str = ""
    """Why only words were searched; empty: vectors were, too."""
    steps: tuple[Step, ...] = ()
    state: str = ""
    """The state of the documents (see `still_valid`), if the request asked for it."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """Chunks found for a question, best first; all were readable when they were read."""

    proposal: Proposal
    ranked: fuse.RankedChunks
    degraded: str
    words_only: bool
    state: str = ""

    @property
    def confidence(self) -> float:
        return _confidence(self.ranked, words_only=self.words_only)


_UNCHANGED_ORDER: Final[Mapping[str, int]] = {}
"""No reranker changed the order."""


class Search:
    """Answers questions from PostgreSQL and the projection. Thread-safe."""

    def __init__(
        self,
        connections: Connections,
        embedder: Embedder,
        index: ProjectionSource,
        clock: Clock | None = None,
        *,
        deployed: Callable[[Embedding], Embedder] | None = None,
        reranker: Callable[[Rerank], Reranker] | None = None,
        weights: fuse.Weights = fuse.WEIGHTS,
    ) -> None:
        """`embedder` is the embedded model; `deployed` returns the embedder of an edition with a deployment's vectors,
        `reranker` the reranker of a rule; `weights` is how scores of words and vectors are combined."""
        self._connections = connections
        self._index = index
        self.queries = QueryPreparer(embedder, index, deployed)
        self._reranker = RerankStep(reranker)
        self._analyzer = words.Analyzer()
        self._glossary = Glossary(self._analyzer.terms)
        self._clock = clock or SystemClock()
        self._weights = weights
        # a search makes hundreds of short numpy calls: two at once contend for the interpreter's lock and take longer
        # than one after the other; models and PostgreSQL work for others meanwhile
        self._compute_lock = threading.Lock()

    def passages(self, request: SearchRequest) -> list[Passage]:
        """The passages of `answer`."""
        return self.answer(request).passages

    def answer(self, request: SearchRequest) -> SearchResult:
        """The best passages that the person may read now, at most `k`, within `max_bytes`.

        Raises `Invalid` (search_request) and `Unavailable` (search_cut_off, search_index; retry_after).
        """
        person = _validate(request)
        text = request.query.strip()[:MAX_QUERY_CHARS]
        if not text or not request.sources or request.k == 0:
            return SearchResult([])
        edition = self._index.serving if request.edition is None else request.edition
        min_change = 0
        for _ in range(_MAX_ATTEMPTS):
            query = self.queries.prepare(text, edition, min_change)
            # begun after the view was taken: the transaction sees all that is in the view, and reads what is not
            with self._reader_transaction(person, request.workload, request.edition, query.view.cursor) as (
                conn,
                access,
            ):
                if access.edition != edition or access.changed is None:
                    edition, min_change = access.edition, access.newest_change if access.changed is None else 0
                    continue
                draft = self._find_candidates(conn, access, query, request)
                if request.rerank is None or draft.confidence < request.floor or len(draft.ranked) < 2:
                    return self._build_result(conn, draft, request)
            # outside of the transaction: others need the connection, and what is revoked meanwhile must not be returned
            step, places = self._rerank(request.rerank, query.text, draft)
            with self._reader_transaction(person, request.workload, request.edition) as (conn, access):
                if access.edition == edition:
                    draft = self._confirm_draft(conn, draft, request, query.vector)
                    return replace(self._build_result(conn, draft, request, places), steps=(step,))
                edition = access.edition
        raise Unavailable(
            "the index changed too much meanwhile", code="search_index", hint="Ask again.",
            retry_after=1.0,
        )  # fmt: skip

    def _find_candidates(
        self, conn: Connection[Any], access: AccessSnapshot, query: PreparedQuery, request: SearchRequest
    ) -> _Draft:
        """The readable candidates of a question, within one transaction."""
        proposal_request = replace(
            self._proposal_request(query.text, None, request.sources, access), where=request.where
        )
        if request.synonyms and (variants := self._glossary.current(conn).variants(proposal_request.terms)):
            proposal_request = replace(proposal_request, variants=variants)
        with self._compute_lock:
            word_proposal = propose_by_words(query.view, proposal_request)
        question = query.vector  # waits for the model, which computed it meanwhile
        with self._compute_lock:
            proposal = complete_proposal(word_proposal, replace(proposal_request, vector=question), self._weights)
        ranked = self._read_ranked(conn, proposal, request, question)
        is_short = len(ranked) < min(_target_count(request), len(proposal.best_scores))
        if request.where != Where() and is_short and word_proposal.visible.count > CANDIDATES:
            # most of the best are not readable, or not for this workload: rank the matching documents by themselves
            restricted = replace(
                proposal_request, documents=search_store.matching_documents(conn, request.where, request.sources)
            )
            with self._compute_lock:
                proposal = propose(query.view, replace(restricted, vector=question), self._weights)
            ranked = self._read_ranked(conn, proposal, request, question)
        if access.newest_change > proposal.view.cursor and question is not None:
            ranked += self._read_unprojected(conn, proposal, request, question, ranked)
        state = ""
        if request.stated:  # words did not find what the view does not know yet
            newest = search_store.newest_acl(conn)
            state = str(AnswerState.current(query.view.cursor, newest, access, request.sources))
        return _Draft(proposal, fuse.sort_ranked(ranked), query.degraded, words_only=question is None, state=state)

    def _rerank(self, rule: Rerank, query: str, draft: _Draft) -> tuple[Step, Mapping[str, int]]:
        """Rerank the best of a draft; returns the step, and the place of each text in the new order."""
        best = fuse.merge_duplicates(fuse.demote_overdue(draft.ranked, self._clock.now().date()))
        return self._reranker.rerank(rule, query, [chunk for chunk, _ in best[: rule.passages]])

    def _confirm_draft(
        self, conn: Connection[Any], draft: _Draft, request: SearchRequest, question: Vectors | None
    ) -> _Draft:
        """The draft without the chunks that may not be read any more."""
        readable = search_store.read_chunks(conn, [chunk.id for chunk, _ in draft.ranked], request.sources, question)
        return replace(
            draft, ranked=[(readable[chunk.id], score) for chunk, score in draft.ranked if chunk.id in readable]
        )

    def _build_result(
        self,
        conn: Connection[Any],
        draft: _Draft,
        request: SearchRequest,
        places: Mapping[str, int] = _UNCHANGED_ORDER,
    ) -> SearchResult:
        """The result, read within one transaction. `places`: text -> its place after reranking."""
        ranked, confidence = draft.ranked, draft.confidence
        withheld = self._find_withheld(conn, draft.proposal, request, ranked) if request.explain else ()
        newer = self._find_newer(conn, draft.proposal, request, ranked)
        if confidence < request.floor:
            return SearchResult(
                [], confidence, abstained=True, withheld=withheld, newer=newer, degraded=draft.degraded,
                state=draft.state,
            )  # fmt: skip
        today = self._clock.now().date()
        best = fuse.merge_duplicates(fuse.demote_overdue(ranked, today))
        if places:
            best = apply_order(best, places, today)
        neighbours = _read_neighbours(conn, best[: request.k], request.context, ranked)
        chosen = fuse.fit_passages(
            fuse.add_neighbours(best, neighbours, request), request.k, request.max_bytes, explain=request.explain
        )
        if request.explain:
            overdue = {str(chunk.id) for chunk, _ in best if fuse.review_weight(chunk, today) < 1}
            chosen = [self._explain(chunk, request.query, overdue) for chunk in chosen]
        conflicts = hints.find_conflicts(conn, chosen, request.sources)
        return SearchResult(
            chosen, confidence, withheld=withheld, conflicts=conflicts, newer=newer, degraded=draft.degraded,
            state=draft.state,
        )  # fmt: skip

    def _explain(self, passage: Passage, query: str, overdue: Collection[str]) -> Passage:
        words = self._analyzer.shared_words(query, f"{passage.title}\n{passage.head}\n{passage.text}")
        return msgspec.structs.replace(passage, words=words, overdue=passage.chunk in overdue)

    def propose(
        self, query: str, question: Vectors | None, sources: list[str], access: AccessSnapshot, limit: int = CANDIDATES
    ) -> Proposal:
        """What the projection proposes for a person with this access. Raises `Unavailable` (search_index)."""
        index = self.queries.wait_for_projection(access.edition)
        return propose(index.view, self._proposal_request(query, question, sources, access, limit), self._weights)

    def _proposal_request(
        self, query: str, question: Vectors | None, sources: list[str], access: AccessSnapshot, limit: int = CANDIDATES
    ) -> ProposalRequest:
        return ProposalRequest(
            self._analyzer.terms(query), question, frozenset(sources), frozenset(access.acls), limit,
            changed=access.changed or (), quotable=quotable_query(query, self._analyzer),
        )  # fmt: skip

    def _read_ranked(
        self, conn: Connection[Any], proposal: Proposal, request: SearchRequest, question: Vectors | None
    ) -> fuse.RankedChunks:
        """The readable chunks of a proposal with their scores; reads until there are enough, or no more."""
        scores = proposal.best_scores
        target = _target_count(request)
        found: fuse.RankedChunks = []
        for batch, reach in proposal.batches(target, max(_READ_LIMIT, target)):
            rows = {proposal.view.chunk_id(row): row for row in batch}
            allowed = search_store.read_chunks(conn, list(rows), request.sources, question, request.where)
            quote_scores = proposal.quote_scores(request.query, {rows[id]: chunk.text for id, chunk in allowed.items()})
            found += [(chunk, scores[rows[id]] + quote_scores.get(rows[id], 0.0)) for id, chunk in allowed.items()]
            if not any(quote_scores.values()):
                reach = 0.0  # none of the likeliest quotes the question: the rest is not read to look for quotes
            # each text is returned once
            if (
                len(found) >= target
                and len(texts := _best_score_by_text(found)) > request.k
                and texts[request.k - 1] >= reach
            ):
                break
        return found

    def _read_unprojected(
        self,
        conn: Connection[Any],
        proposal: Proposal,
        request: SearchRequest,
        question: Vectors,
        found: fuse.RankedChunks,
    ) -> fuse.RankedChunks:
        """Readable chunks of documents that changed since the projection's last batch, scored by their vectors."""
        known = {chunk.id for chunk, _ in found}
        fresh = search_store.changed_chunks(conn, proposal.view.cursor, request.sources, question, _READ_LIMIT)
        return [
            (chunk, (1 + self._weights.neighbour) * chunk.similarity)
            for chunk in fresh
            if chunk.id not in known
            and chunk.similarity is not None
            and chunk.similarity >= fuse.MIN_SIMILARITY
            and _matches_where(chunk, request.where)
        ]

    def _find_withheld(
        self, conn: Connection[Any], proposal: Proposal, request: SearchRequest, ranked: fuse.RankedChunks
    ) -> tuple[Withheld, ...]:
        """Documents that match as well and that the person may read, but the workload may not use."""
        least = ranked[min(len(ranked), request.k) - 1][1] if ranked else 0.0
        rows = [row for row in proposal.order[:_READ_LIMIT] if proposal.best_scores[row] >= least]
        chunks = [proposal.view.chunk_id(row) for row in rows]
        withheld = search_store.withheld_chunks(conn, chunks, request.workload, request.where)
        by_document = {document: (path, title, reason) for _, document, path, title, reason in withheld}
        return tuple(
            Withheld(document=str(document), path=path, title=title, reason=reason)
            for document, (path, title, reason) in by_document.items()
        )

    def _find_newer(
        self, conn: Connection[Any], proposal: Proposal, request: SearchRequest, ranked: fuse.RankedChunks
    ) -> list[Newer]:
        """Matching documents that are withheld because there is a newer version."""
        least = ranked[min(len(ranked), request.k) - 1][1] if ranked else 0.0
        rows = [row for row in proposal.order[:_READ_LIMIT] if proposal.best_scores[row] >= least]
        best = {proposal.view.chunk_id(row): proposal.best_scores[row] for row in rows}
        return hints.find_newer(conn, best, [chunk.id for chunk, _ in ranked], least, request)

    def confirm(self, request: ConfirmRequest) -> ConfirmAnswer:
        """Which of the chunks and documents still exist unchanged and may be read by the person now; and whether
        anything that changed since an answer was made may affect it.

        Raises `Invalid` (search_request) and `Unavailable` (search_cut_off, retry_after).
        """
        count = len(request.chunks) + len(request.documents)
        if count > MAX_CONFIRMED:
            raise Invalid(
                f"{count} chunks and documents are asked for at once",
                code="search_request",
                hint=f"Ask for at most {MAX_CONFIRMED}.",
            )
        person, chunks = _parse_id(request.person), [_parse_id(chunk) for chunk in request.chunks]
        documents = [_parse_id(document) for document in request.documents]
        validity = None if request.since is None else ValidityCheck(request.since, self.queries, self._index)
        with self._reader_transaction(person, request.workload) as (conn, access):
            found = store.readable_chunks(conn, chunks, request.sources) if chunks else {}
            listed = search_store.readable_documents(conn, documents, request.sources) if documents else []
            if validity is not None:
                validity.load_changes(conn, access, self._analyzer, self._glossary)
        state = "" if validity is None else validity.new_state(self._analyzer, self._index)
        return ConfirmAnswer(readable=[str(id) for id in found], documents=[str(id) for id in listed], state=state)

    @contextmanager
    def _reader_transaction(
        self, person: UUID | None, workload: str, edition: int | None = None, after_change: int | None = None
    ) -> Iterator[tuple[Connection[Any], AccessSnapshot]]:
        """A transaction that sees what a person may read. Raises `Unavailable` (search_cut_off)."""
        try:
            with self._connections.connection(timeout=2.0) as conn, _single_snapshot(conn), conn.transaction():
                yield conn, search_store.assume_reader(conn, person, workload, edition, after_change)
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed) as error:
            raise Unavailable(
                "the live permissions cannot be read, so nothing is searched",
                code="search_cut_off",
                hint="Check that PostgreSQL runs: `groundplan doctor`.",
                retry_after=1.0,
            ) from error


@contextmanager
def _single_snapshot(conn: Connection[Any]) -> Iterator[None]:
    """Transactions on this connection see one snapshot. Otherwise, if somebody joins a denied group and a document is
    then opened to all but that group, two statements could combine into a right that never existed."""
    if conn.isolation_level is not IsolationLevel.REPEATABLE_READ:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
    yield


def _validate(request: SearchRequest) -> UUID | None:
    """The person of the request; raises `Invalid` (search_request) for values out of range."""
    bounded = 0 <= request.k <= MAX_PASSAGES and 0 <= request.floor <= 1 and request.context in (0, 1)
    if not bounded or request.max_bytes < 0:
        raise Invalid(
            f"k is {request.k}, max_bytes {request.max_bytes}, floor {request.floor}, context {request.context}",
            code="search_request",
            hint=f"Ask for 0 to {MAX_PASSAGES} passages, a size, a floor from 0 to 1, a context of 0 or 1.",
        )
    return None if request.person is None else _parse_id(request.person)


def _best_score_by_text(found: fuse.RankedChunks) -> list[float]:
    """The best score of each distinct text, best first."""
    best: dict[str, float] = {}
    for chunk, score in found:
        best[chunk.text] = max(score, best.get(chunk.text, score))
    return sorted(best.values(), reverse=True)


def _target_count(request: SearchRequest) -> int:
    """How many readable passages to look for: more than `k`, since some are overdue or duplicates."""
    return max(2 * request.k + 4, request.rerank.passages if request.rerank is not None else 0)


def _parse_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise Invalid("a person or chunk is not an id", code="search_request", hint="Give UUIDs.") from error


def _read_neighbours(
    conn: Connection[Any], best: fuse.RankedChunks, distance: int, already_read: fuse.RankedChunks
) -> dict[tuple[UUID, int], search_store.ChunkSpan]:
    """Readable chunks next to the best, by (document, number). `already_read`: chunks read in this transaction."""
    if not distance:
        return {}
    known = {(chunk.document, chunk.number): chunk for chunk, _ in already_read}
    wanted = {(chunk.document, chunk.number + step) for chunk, _ in best for step in range(-distance, distance + 1)}
    missing = sorted(wanted - known.keys())
    parts = [known[place].span for place in wanted & known.keys()]
    parts += search_store.neighbour_chunks(conn, missing) if missing else []
    return {(part.document, part.number): part for part in parts}


def _matches_where(chunk: ReadableChunk, where: Where) -> bool:
    """Whether the chunk's document matches the filter."""
    modified_at = chunk.modified_at
    return (
        (where.path is None or chunk.path.startswith(where.path))
        and (where.owner is None or chunk.owner == where.owner)
        and (where.sensitivity is None or chunk.sensitivity in where.sensitivity)
        and (where.media is None or chunk.media == where.media)
        and (where.after is None or (modified_at is not None and modified_at >= where.after))
        and (where.before is None or (modified_at is not None and modified_at < where.before))
    )


def _confidence(ranked: fuse.RankedChunks, *, words_only: bool) -> float:
    """Confidence of the best chunk, 0 to 1: its exact similarity; by words only, its share of the highest possible
    score."""
    if words_only:
        return min(1.0, max((score for _, score in ranked), default=0.0) / _MAX_WORD_SCORE)
    return min(1.0, max([0.0, *(chunk.similarity or 0.0 for chunk, _ in ranked)]))
