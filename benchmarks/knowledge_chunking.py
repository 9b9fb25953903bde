"""The share of a question's answer that is in the first thousand tokens of search results: passages as the product
splits them.

FOLDER has corpora/*.md and questions_df.csv (question, references with character spans, corpus_id). All corpora are in
one index: ingested as a source of the product, embedded, and queried over HTTP from the search service (`answered`) by
a person who may read them all, with passages widened by their neighbours and the bonus for quotations, in the ways of
`ASKS`. The figure is the mean share of the references' characters that the passages of an answer cover, taken in their
order while they fit into the budget of WordPiece tokens. The corpora repeat themselves, and an answer gives each text
once: a passage covers its own place and the other places that it lists for the same words (`also`). `quoted_only` is
the first figure without those, where another copy than the labelled one is a miss.

Settings (`WEIGHTS_TRIED`, and one of the ways) are chosen on other data than they are measured on: `by_question` (which
is `recall`) by fifths of the questions, `by_corpus` by leaving out one corpus at a time; `answered` are the product's
own settings, which were chosen with this very set and prove nothing. `corpora` has each of the five separately,
`fusion` with the settings that are best on the other four, compared with words alone and vectors alone (their own
rankings, to a depth of 200); `never_below` is whether fusion is at least as good as both in each. `proposed` are the
figures of the rankings without the service, as reported earlier: to a depth of 200, neither widened nor quoted.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg_pool import ConnectionPool
from threadpoolctl import threadpool_limits

from groundplan.blueprint.model import Source
from groundplan.core.endpoints import Endpoint
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.knowledge import store
from groundplan.knowledge.chunk import MAX_CHARS
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.openvino_encoder import Precision, load_encoder, load_question_encoder
from groundplan.knowledge.index.model import IndexSettings
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.intake.vectors import embed_pending
from groundplan.knowledge.model import Vectors
from groundplan.knowledge.retrieval import fuse, search_store
from groundplan.knowledge.retrieval.fuse import WEIGHTS, Weights
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.propose import Proposal, ProposalRequest, propose
from groundplan.knowledge.retrieval.replication import apply_next_changes
from groundplan.knowledge.retrieval.search import Search
from groundplan.knowledge.retrieval.wire import Passage, Place, SearchRequest
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing.database import cluster

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_machine import Watch, run_details
from benchmarks.knowledge_scale import Client, run_search_service
from benchmarks.knowledge_tokens import count_tokens

GRID = [Weights(words, neighbour) for words, neighbour in product((0.5, 1.0, 1.5, 2.0, 3.0), (0.0, 0.2, 0.35, 0.5))]
"""Weights tried for the rankings alone."""
WEIGHTS_TRIED = [Weights(words, neighbour) for words, neighbour in product((1.0, 1.5, 2.0), (0.2, 0.35, 0.5))]
"""Weights tried for answers."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Number of passages, their total size, and how many neighbours widen each."""

    k: int
    max_bytes: int
    context: int


ASKS: Final = {
    "4 widened": Ask(4, 6000, 1),
    "10 widened": Ask(10, 6000, 1),
    "as they are": Ask(50, 1 << 20, 0),
}
"""The first is the default of a search."""
FOLDS = 5
SOURCE: Final = "corpora"
_LIMIT = 200

ScoreOf = Callable[[Proposal], dict[int, float]]
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage of a corpus with its span and tokens, and the other spans with the same words that it lists."""

    corpus: str
    start: int
    end: int
    tokens: int
    also: tuple[tuple[str, int, int], ...] = ()

    @property
    def places(self) -> Iterator[tuple[str, int, int]]:
        yield self.corpus, self.start, self.end
        yield from self.also


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the spans of its corpus that answer it."""

    text: str
    corpus: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Index:
    """All corpora as the product indexes them; `acls` are those of the person who asks."""

    projection: Projection
    pieces: list[Piece]
    """by row"""
    questions: list[Question]
    vectors: Vectors
    """of the questions"""
    terms: list[list[str]]
    texts: dict[str, str]
    """by corpus"""
    acls: frozenset[int]

    def propose(self, terms: Sequence[str], vector: Vectors, weights: Weights, depth: int = _LIMIT) -> Proposal:
        """The rankings alone."""
        return propose(
            self.projection.view, ProposalRequest(terms, vector, frozenset({SOURCE}), self.acls, depth), weights
        )


@dataclass(frozen=True, slots=True)
class SearchSetup:
    """The search to measure: the service over HTTP, or in this process with weights of our own."""

    index: Index
    person: UUID
    endpoint: Endpoint
    pool: ConnectionPool[Any]
    encoder: Encoder
    """of questions, as the service has it"""

    def request(self, ask: Ask, question: str) -> SearchRequest:
        """The request for a question in the way of `ask`."""
        return SearchRequest(
            workload="w", person=str(self.person), query=question, sources=[SOURCE],
            k=ask.k, max_bytes=ask.max_bytes, context=ask.context,
        )  # fmt: skip

    def service_answers(self, client: Client, ask: Ask, question: str) -> list[Piece]:
        """The passages that the service answers with."""
        _, passages = client.ask(self.request(ask, question))
        return self.pieces(msgspec.convert(passages, list[Passage]))

    def search(self, weights: Weights) -> Search:
        """A search in this process with these weights."""
        return Search(self.pool, self.encoder, self.index.projection, weights=weights)

    def local_answers(self, search: Search, ask: Ask, question: str) -> list[Piece]:
        """The passages that a search in this process answers with."""
        return self.pieces(search.passages(self.request(ask, question)))

    def pieces(self, passages: Sequence[Passage]) -> list[Piece]:
        """The passages as pieces. Exits if a passage differs from the text at its place, or lacks at one of its other
        places."""
        sizes = count_tokens(self.encoder, [passage.text for passage in passages]) if passages else ()
        return [
            Piece(
                *self._span(passage, passage.text),
                size,
                tuple(self._span(place, passage.text) for place in passage.also),
            )
            for passage, size in zip(passages, sizes, strict=True)
        ]

    def _span(self, place: Passage | Place, text: str) -> tuple[str, int, int]:
        corpus, start, end = Path(place.path).stem, place.start_char, place.end_char
        document_text, quoted = fuse.normalise_text(self.index.texts[corpus][start:end]), fuse.normalise_text(text)
        if document_text not in quoted or (isinstance(place, Passage) and document_text != quoted):
            raise SystemExit(f"{place.path} does not say at {start} to {end} what the answer quotes")
        return corpus, start, end


@contextmanager
def search_setup(folder: Path, limit: int = MAX_CHARS, precision: Precision = "float32") -> Iterator[SearchSetup]:
    """The corpora, ingested by the product, and a search service that answers from them."""
    model = ensure(load_settings().models, MINILM.name)
    encoder = load_encoder(model, precision)
    question_encoder = load_question_encoder(model, encoder)
    with (
        tempfile.TemporaryDirectory(prefix="bench-corpora-") as name,
        cluster(Path(name) / "pg") as server,
        server.database() as database,
        threadpool_limits(limits=1, user_api="blas"),
    ):
        person = new_id()
        source = Source(name=SOURCE, path="x", sensitivity="internal", owner="ana@acme.example", readers=["everyone"])
        projection, analyzer = Projection(), Analyzer()
        with psycopg.connect(database.urls["control"], autocommit=True) as conn:
            conn.execute("INSERT INTO person (id, email, name) VALUES (%s, 'ana@acme.example', 'Ana')", (person,))
            settings = msgspec.json.encode(IndexSettings(characters=limit)).decode()
            conn.execute("UPDATE search_edition SET settings = %s::jsonb", (settings,))
            report = ingest_source(conn, source, FolderConnector(folder / "corpora"))
            if report.failed or not report.added:
                raise SystemExit(f"of the corpora {report.added} were taken over, {report.failed} failed")
            embed_pending(conn, encoder)
            store.analyze_if_new(conn)
            while apply_next_changes(conn, projection, analyzer):
                pass
            projection.purge()
            passages = conn.execute(
                """SELECT c.id, d.path, c.start_char, c.end_char, c.text FROM chunk c
                   JOIN document d ON d.id = c.document_id WHERE c.text <> ''"""
            ).fetchall()
        home = Home(Path(name) / "home")
        home.create()
        pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=2, open=True
        )
        with pool, run_search_service(database, home) as endpoint:
            with pool.connection() as conn, conn.transaction():
                acls = frozenset(search_store.assume_reader(conn, person, "w").acls)
            index = _build_index(folder, projection, passages, (encoder, question_encoder), acls)
            yield SearchSetup(index, person, endpoint, pool, question_encoder)


def _build_index(
    folder: Path,
    projection: Projection,
    passages: list[tuple[UUID, str, int, int, str]],
    encoders: tuple[Encoder, Encoder],
    acls: frozenset[int],
) -> Index:
    encoder, question_encoder = encoders
    sizes = count_tokens(encoder, [text for *_, text in passages])
    by_chunk = {
        chunk_id: Piece(Path(path).stem, start, end, size)
        for (chunk_id, path, start, end, _), size in zip(passages, sizes, strict=True)
    }
    pieces = [by_chunk[projection.view.chunk_id(row)] for row in range(projection.view.size)]
    texts = {file.stem: file.open(newline="", encoding="utf-8").read() for file in (folder / "corpora").glob("*.md")}
    questions, analyzer = list(read_questions(folder / "questions_df.csv")), Analyzer()
    vectors = np.stack([question_encoder.embed([question.text])[0] for question in questions])
    return Index(
        projection, pieces, questions, vectors, [analyzer.terms(question.text) for question in questions], texts, acls
    )


def read_questions(file: Path) -> list[Question]:
    """The labelled questions of a set."""
    csv.field_size_limit(1 << 30)
    with file.open(newline="", encoding="utf-8") as csv_file:
        return [
            Question(
                row["question"],
                row["corpus_id"],
                tuple((span["start_index"], span["end_index"]) for span in json.loads(row["references"])),
            )
            for row in csv.DictReader(csv_file)
        ]


def ranking_recalls(index: Index, weights: Weights, budget: int, score_of: ScoreOf) -> Values:
    """For each question the share of its spans that a ranking alone covers."""
    recalls = []
    for question, terms, vector in zip(index.questions, index.terms, index.vectors, strict=True):
        scores = score_of(index.propose(terms, vector, weights))
        order = sorted(scores, key=lambda row, scores=scores: (-scores[row], row))  # type: ignore[misc]
        recalls.append(covered_share(question, fit_budget([index.pieces[row] for row in order], budget)))
    return np.array(recalls)


def answer_recalls(setup: SearchSetup, budget: int, answer: Callable[[str], list[Piece]]) -> tuple[Values, Values]:
    """For each question the share of its spans that the answer covers: with all places listed, and with quoted places
    only."""
    answers = [(question, fit_budget(answer(question.text), budget)) for question in setup.index.questions]
    quoted_only = ((question, [replace(piece, also=()) for piece in pieces]) for question, pieces in answers)
    return np.array([covered_share(*question) for question in answers]), np.array(
        [covered_share(*question) for question in quoted_only]
    )


def fit_budget(pieces: Sequence[Piece], budget: int) -> list[Piece]:
    """The pieces that fit into the budget, in order; one that does not fit is skipped for later, smaller ones."""
    selected, remaining = [], budget
    for piece in pieces:
        if piece.tokens <= remaining:
            selected.append(piece)
            remaining -= piece.tokens
    return selected


def covered_share(question: Question, selected: Sequence[Piece]) -> float:
    """The share of the question's spans that the pieces cover."""
    total = covered = 0
    for start, end in question.spans:
        mask = np.zeros(end - start, dtype=np.bool_)
        for corpus, first, last in (place for piece in selected for place in piece.places):
            if corpus == question.corpus:
                mask[max(0, first - start) : max(0, last - start)] = True
        total, covered = total + end - start, covered + int(mask.sum())
    return covered / total


def cross_validated(table: NDArray[np.float64], folds: NDArray[np.int64]) -> NDArray[np.float64]:
    """The value of each question with the settings that are best on the other folds; `table` (settings, questions)."""
    values = np.zeros(table.shape[1])
    for fold in np.unique(folds):
        best = table[:, folds != fold].mean(axis=1).argmax()
        values[folds == fold] = table[best, folds == fold]
    return values


def measure(setup: SearchSetup, budget: int) -> dict[str, Any]:
    """All figures."""
    index = setup.index
    random = np.random.default_rng(0)
    question_folds = random.permutation(len(index.questions)) % FOLDS
    names = sorted({question.corpus for question in index.questions})
    corpus_numbers = np.array([names.index(question.corpus) for question in index.questions])
    results = [
        answer_recalls(setup, budget, partial(setup.local_answers, search, ask))
        for search in [setup.search(weights) for weights in WEIGHTS_TRIED]
        for ask in ASKS.values()
    ]
    table, quoted = (np.stack(values) for values in zip(*results, strict=True))
    client = Client(setup.endpoint)
    served = {
        name: answer_recalls(setup, budget, partial(setup.service_answers, client, ask))[0]
        for name, ask in ASKS.items()
    }
    words_only = Weights(WEIGHTS.words, 0.0)
    ways = {
        "fusion": cross_validated(table, corpus_numbers), "answered": served[next(iter(ASKS))],
        "lexical": ranking_recalls(index, words_only, budget, lambda question: question.words),
        "vector": ranking_recalls(index, words_only, budget, lambda question: question.nearest),
    }  # fmt: skip
    by_corpus = {
        name: {way: mean(values[corpus_numbers == n]) for way, values in ways.items()} for n, name in enumerate(names)
    }  # fmt: skip
    by_proposals = np.stack(
        [ranking_recalls(index, weights, budget, lambda question: question.scores) for weights in GRID]
    )
    return {
        "recall": mean(cross_validated(table, question_folds)),
        "by_question": mean(cross_validated(table, question_folds)),
        "by_corpus": mean(ways["fusion"]),
        "quoted_only": mean(cross_validated(quoted, question_folds)),
        "answered": {ask: mean(values) for ask, values in served.items()},
        "corpora": by_corpus,
        "never_below": all(
            question["fusion"] >= max(question["lexical"], question["vector"]) for question in by_corpus.values()
        ),
        "lexical": mean(ways["lexical"]),
        "vector": mean(ways["vector"]),
        "proposed": {
            "by_question": mean(cross_validated(by_proposals, question_folds)),
            "by_corpus": mean(cross_validated(by_proposals, corpus_numbers)),
            "shipped": mean(ranking_recalls(index, WEIGHTS, budget, lambda question: question.scores)),
        },
        "questions": len(index.questions),
        "passages": len(index.pieces),
        "budget_tokens": budget,
    }


def mean(values: Values) -> float:
    """The mean, rounded as it is reported."""
    return round(float(values.mean()), 4)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with corpora/*.md and questions_df.csv")
    parser.add_argument("--budget", type=int, default=1000, help="WordPiece tokens of passages for each question")
    parser.add_argument("--limit", type=int, default=MAX_CHARS, help="most characters of a passage")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the passages")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not (options.folder / "questions_df.csv").is_file():
        raise SystemExit(f"{options.folder} has no questions_df.csv: give the folder of the chunking evaluation")
    with Watch() as watch, search_setup(options.folder, options.limit, options.precision) as setup:
        results = measure(setup, options.budget)
    figures = results | {
        "limit_chars": options.limit,
        "embedding": options.precision,
        "target": 0.90,
        **watch.figures(),
        **run_details(
            f"{options.folder.name}: {results['questions']} questions, {len(results['corpora'])} corpora in one index"
        ),
    }
    print(json.dumps(figures, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
