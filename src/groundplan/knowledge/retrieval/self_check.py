"""Measure an edition in this service: recall of its proposals against an exact scan, and documents found by headings.

For comparing editions: it searches everything, whoever may read it, and returns figures only, no text and no id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from psycopg import Connection

from groundplan.core.database import connect
from groundplan.core.errors import Unavailable
from groundplan.knowledge.halfvec import Halfvec
from groundplan.knowledge.index import index_store
from groundplan.knowledge.retrieval import search_store
from groundplan.knowledge.retrieval.propose import CANDIDATES, Proposal, ProposalRequest, propose
from groundplan.knowledge.retrieval.question import PreparedQuery, QueryPreparer
from groundplan.knowledge.retrieval.words import Analyzer

DEPTH = 10


class ExamineRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Samples of (heading, id of its document)."""

    edition: int
    samples: list[tuple[str, str]]


class ExamineAnswer(msgspec.Struct, frozen=True):
    """Means over the samples, 0 to 1: recall@10 against the exact scan, whether the document is found, 1/its rank."""

    recall: float
    found: float
    rank: float
    questions: int


@dataclass(frozen=True, slots=True)
class Examiner:
    """Measures editions. `url` returns the DSN of role control, since an exact scan is not the search of a person."""

    queries: QueryPreparer
    url: Callable[[], str]

    def examine(self, request: ExamineRequest) -> ExamineAnswer:
        """Measure an edition. Raises `Unavailable` where it is not complete and up to date, or its model is not
        available."""
        analyzer = Analyzer()
        recalls, ranks = [], []
        with closing(connect(self.url(), autocommit=True)) as conn:
            # the edition may have been rebuilt: what was held before says nothing about it now
            self.queries.wait_for_projection(
                request.edition, lambda index: not search_store.count_pending(conn, index.cursor, index.edition)
            )
            for text, document in request.samples:
                query = self.queries.prepare(text, request.edition)
                if query.vector is None:
                    raise Unavailable(
                        query.degraded, code="index_embedding", hint="It is tried again.", retry_after=5.0
                    )
                proposal = _propose_all(query, analyzer)
                recalls.append(_recall(conn, request.edition, query, proposal))
                ranks.append(_rank(conn, proposal, UUID(document)))
        count = max(1, len(ranks))
        return ExamineAnswer(
            round(sum(recalls) / count, 4),
            round(sum(rank > 0 for rank in ranks) / count, 4),
            round(sum(ranks) / count, 4),
            len(ranks),
        )


def _propose_all(query: PreparedQuery, analyzer: Analyzer) -> Proposal:
    classes = query.view.classes
    wanted = ProposalRequest(
        analyzer.terms(query.text),
        query.vector,
        frozenset(classes.sources),
        frozenset(classes.acls.tolist()),
        CANDIDATES,
    )
    return propose(query.view, wanted)


def _recall(conn: Connection[Any], edition: int, query: PreparedQuery, proposal: Proposal) -> float:
    assert query.vector is not None
    exact = index_store.nearest_exact(conn, edition, Halfvec(query.vector), DEPTH)
    near = {proposal.view.chunk_id(row) for row in proposal.nearest}
    return len(near.intersection(exact)) / len(exact) if exact else 1.0


def _rank(conn: Connection[Any], proposal: Proposal, document: UUID) -> float:
    """1/rank of the document among the proposed documents; 0 where it is not among the first ten."""
    best = sorted(proposal.scores, key=lambda row: (-proposal.scores[row], row))[:CANDIDATES]
    chunks = [proposal.view.chunk_id(row) for row in best]
    document_of = index_store.documents_of(conn, chunks)
    order: Sequence[UUID] = list(dict.fromkeys(document_of[chunk] for chunk in chunks if chunk in document_of))[:DEPTH]
    return 1 / (1 + order.index(document)) if document in order else 0.0
