"""A trial of search on a labelled folder, with everything that search uses and nothing of the company's.

It has a PostgreSQL of its own below HOME/evaluation, so it runs whether or not `up` does and never touches the
company's documents. Each document of the corpus is one passage that everybody may read; asked is by the product's own
search. The same corpus is not taken over twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from psycopg import Connection
from psycopg_pool import ConnectionPool

from groundplan.core.database import Role, connect, database_url
from groundplan.core.home import Home
from groundplan.core.settings import Settings
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.evaluation import trial_store
from groundplan.knowledge.evaluation.beir import LabelledCorpus
from groundplan.knowledge.evaluation.measure import Figures, Ranking, measure
from groundplan.knowledge.retrieval import search_store
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.replication import apply_next_changes
from groundplan.knowledge.retrieval.search import Search
from groundplan.knowledge.retrieval.wire import SearchRequest
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.runtime.migrate import migrate
from groundplan.runtime.postgres import EmbeddedPostgres

DEPTH = 100
_BATCH = 256

Progress = Callable[[str, int, int], None]
"""Told what was done with how many, of how many."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of search, of words alone, of vectors alone; milliseconds of each search as the product does it."""

    fused: Figures
    words: Figures
    near: Figures
    times: list[float]
    documents: int
    questions: int

    def json(self) -> dict[str, Any]:
        """As `groundplan knowledge evaluate --json` prints it."""
        return {
            **self.fused.json(),
            "lexical": self.words.json(),
            "vector": self.near.json(),
            "p50_ms": round(float(np.percentile(self.times, 50)), 2),
            "p95_ms": round(float(np.percentile(self.times, 95)), 2),
            "documents": self.documents,
            "questions": self.questions,
        }


def run_trial(
    home: Home, settings: Settings, encoder: Encoder, labelled: LabelledCorpus, progress: Progress
) -> Outcome:
    """Take the corpus over where it is not there yet, ask every query, and measure.

    Raises `Conflict` (database_locked) where another trial runs in this HOME, `Unavailable` where its database does not
    start, `Invalid` (extra_missing).
    """
    with _database(home, settings) as url:
        with connect(url("control"), autocommit=True) as conn:
            _ingest_corpus(conn, encoder, labelled, progress)
            index, analyzer = Projection(), Analyzer()
            while apply_next_changes(conn, index, analyzer):
                pass
        pool: ConnectionPool[Any] = ConnectionPool(
            url("search"), kwargs={"autocommit": True}, min_size=1, max_size=1, open=True
        )
        with pool:
            return _ask(Search(pool, encoder, index), encoder, pool, labelled, progress)


@contextmanager
def _database(home: Home, settings: Settings) -> Iterator[Callable[[Role], str]]:
    own = Home(home.root / "evaluation")
    own.create()
    embedded = replace(settings, home=own.root, database_url=None)
    with EmbeddedPostgres(own) as server:
        server.start()
        try:
            migrate(database_url(own, embedded, "owner"))
            yield lambda role: database_url(own, embedded, role)
        finally:
            server.stop()


def _ingest_corpus(conn: Connection[Any], encoder: Encoder, labelled: LabelledCorpus, progress: Progress) -> None:
    if trial_store.is_complete(conn, labelled.digest):
        return
    trial_store.reset(conn)
    items = [item for item in labelled.items if item.text.strip()]
    for start in range(0, len(items), _BATCH):
        some = items[start : start + _BATCH]
        vectors = encoder.embed([item.text for item in some])
        with conn.transaction():
            trial_store.add_documents(conn, [(item.id, item.title, item.text) for item in some], vectors)
        progress("documents are embedded and stored", start + len(some), len(items))
    trial_store.mark_complete(conn, labelled.digest)


def _ask(
    search: Search, encoder: Encoder, pool: ConnectionPool[Any], labelled: LabelledCorpus, progress: Progress
) -> Outcome:
    rankings: tuple[dict[str, Ranking], ...] = ({}, {}, {})
    times = []
    for id, text in labelled.queries.items():
        request = SearchRequest(
            workload="", person=None, query=text, sources=[trial_store.SOURCE], k=10, max_bytes=1 << 20
        )
        begun = time.perf_counter()
        search.answer(request)
        times.append((time.perf_counter() - begun) * 1000)
        for ranking, found in zip(rankings, _rank(search, encoder, pool, text), strict=True):
            ranking[id] = found
        progress("questions are asked", len(times), len(labelled.queries))
    fused, worded, near = (measure(labelled.relevant, ranking) for ranking in rankings)
    return Outcome(fused, worded, near, times, len(labelled.items), len(labelled.queries))


def _rank(search: Search, encoder: Encoder, pool: ConnectionPool[Any], query: str) -> tuple[Ranking, Ranking, Ranking]:
    """The first hundred together, by words, by vectors; similarities are PostgreSQL's."""
    question = encoder.embed([query.strip()])[0]
    with pool.connection() as conn, conn.transaction():
        standing = search_store.assume_reader(conn, None, "")
        proposed = search.propose(query, question, [trial_store.SOURCE], standing, DEPTH)
        rows = sorted({*proposed.words, *proposed.nearest})
        ids = {proposed.view.chunk_id(row): row for row in rows}
        read = search_store.read_chunks(conn, list(ids), [trial_store.SOURCE], question)
    path = {ids[id]: found.path for id, found in read.items()}
    near = {ids[id]: found.similarity for id, found in read.items() if found.similarity is not None}
    more = proposed.quote_scores(query, {ids[id]: found.text for id, found in read.items()})
    together = {row: score + more.get(row, 0.0) for row, score in proposed.scores.items()}
    return _first(path, together), _first(path, proposed.words), _first(path, near)


def _first(path: dict[int, str], scores: dict[int, float]) -> Ranking:
    """Document -> score, of the best; where scores are equal the earlier row is the better."""
    order = sorted((row for row in scores if row in path), key=lambda row: (-scores[row], row))[:DEPTH]
    # what measures sorts by score alone, so equal ones are told apart by a hair
    return {path[row]: scores[row] - place * 1e-9 for place, row in enumerate(order)}
