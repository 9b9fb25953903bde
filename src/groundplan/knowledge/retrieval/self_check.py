"""How well this service knows an edition that it holds: its proposals against an exact scan, and documents by headings.

For comparing editions: it looks at everything, whoever may read it, and tells figures only, no text and no id.
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
    """Headings, each with the id of the document that it is of."""

    edition: int
    samples: list[tuple[str, str]]


class ExamineAnswer(msgspec.Struct, frozen=True):
    """Means over the samples, 0 to 1: recall@10 against exact, whether the document is found, 1/its place."""

    recall: float
    found: float
    rank: float
    questions: int


@dataclass(frozen=True, slots=True)
class Examiner:
    """`url` is of role control: an exact scan of everything is no search of a person."""

    queries: QueryPreparer
    url: Callable[[], str]

    def examine(self, request: ExamineRequest) -> ExamineAnswer:
        """Raises `Unavailable` where the edition is not held whole, as PostgreSQL has it now, or its model is away."""
        analyzer = Analyzer()
        recalls, ranks = [], []
        with closing(connect(self.url(), autocommit=True)) as conn:
            # what was held of an edition before it was made anew says nothing of what it is now
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
    exact = index_store.exact(conn, edition, Halfvec(query.vector), DEPTH)
    near = {proposal.view.chunk_id(row) for row in proposal.nearest}
    return len(near.intersection(exact)) / len(exact) if exact else 1.0


def _rank(conn: Connection[Any], proposal: Proposal, document: UUID) -> float:
    """1/place of the document among the documents that are proposed; 0 where it is not among the first ten."""
    best = sorted(proposal.scores, key=lambda row: (-proposal.scores[row], row))[:CANDIDATES]
    chunks = [proposal.view.chunk_id(row) for row in best]
    document_of = index_store.documents_of(conn, chunks)
    order: Sequence[UUID] = list(dict.fromkeys(document_of[chunk] for chunk in chunks if chunk in document_of))[:DEPTH]
    return 1 / (1 + order.index(document)) if document in order else 0.0
