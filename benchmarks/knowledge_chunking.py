"""How much of what answers a question is in the first thousand tokens that search gives: passages cut by the product.

FOLDER has corpora/*.md and questions_df.csv (question, references with character spans, corpus_id). All corpora are in
one index. `recall` is the mean part of the characters of the references that is covered by passages taken in their
order while they fit into the budget of WordPiece tokens. Settings are chosen without what they are measured on:
`by_question` by fifths of the questions, `by_corpus` by leaving out one corpus at a time; `shipped` are the product's
own settings, which were chosen with this very set and prove nothing. `corpora` has each of the five by itself, `fusion`
with the settings that are best on the other four; `never_below` is whether it is at least the better single ranking in
each.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.knowledge.chunk import MAX_CHARS, chunks
from groundplan.knowledge.embedding.openvino_encoder import load
from groundplan.knowledge.model import Vectors
from groundplan.knowledge.retrieval.follow import worded
from groundplan.knowledge.retrieval.fuse import WEIGHTS, Weights
from groundplan.knowledge.retrieval.projection import Entry, Projection, Row
from groundplan.knowledge.retrieval.propose import Proposed, Wanted, propose
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.runtime.models import MINILM, ensure

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_scale import commit

GRID = [Weights(words, neighbour) for words, neighbour in product((0.5, 1.0, 1.5, 2.0, 3.0), (0.0, 0.2, 0.35, 0.5))]
FOLDS = 5
_LIMIT = 200

Pick = Callable[[Proposed], dict[int, float]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage of a corpus with its span and tokens."""

    corpus: str
    start: int
    end: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the spans of its corpus that answer it."""

    text: str
    corpus: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Index:
    """All corpora, as the product holds them."""

    projection: Projection
    pieces: list[Piece]
    """by row"""
    questions: list[Question]
    vectors: Vectors
    """of the questions"""
    terms: list[list[str]]


def build(folder: Path, limit: int, precision: str) -> Index:
    """Cut, embed and index with the product's own code."""
    settings = load_settings()
    encoder = load(ensure(settings.models, MINILM.name), "bfloat16" if precision == "bfloat16" else "float32")
    analyzer, projection = Analyzer(), Projection()
    pieces: list[Piece] = []
    for file in sorted((folder / "corpora").glob("*.md")):
        with file.open(newline="", encoding="utf-8") as opened:
            text = opened.read()
        parts = chunks(text, markdown=True, limit=limit)
        stands = [worded("", [*part.headings, part.head], part.text) for part in parts]
        made = encoder.embed_counted(stands)
        sizes = encoder.embed_counted([part.text for part in parts]).tokens if stands else ()
        rows = [Row(new_id(), analyzer.terms(one), made.vectors[number]) for number, one in enumerate(stands)]
        projection.take([Entry(new_id(), "s", 1, rows)], len(pieces) + 1)
        pieces += [Piece(file.stem, p.start_char, p.end_char, size) for p, size in zip(parts, sizes, strict=True)]
    questions = list(questions_of(folder / "questions_df.csv"))
    vectors = encoder.embed([one.text for one in questions])
    return Index(projection, pieces, questions, vectors, [analyzer.terms(one.text) for one in questions])


def questions_of(file: Path) -> list[Question]:
    """The labelled questions of a set."""
    csv.field_size_limit(1 << 30)
    with file.open(newline="", encoding="utf-8") as opened:
        return [
            Question(
                row["question"],
                row["corpus_id"],
                tuple((one["start_index"], one["end_index"]) for one in json.loads(row["references"])),
            )
            for row in csv.DictReader(opened)
        ]


def recalls(index: Index, weights: Weights, budget: int, pick: Pick) -> NDArray[np.float64]:
    """For each question the covered part of its spans."""
    found = []
    for question, terms, vector in zip(index.questions, index.terms, index.vectors, strict=True):
        wanted = Wanted(terms, vector, frozenset({"s"}), frozenset({1}), _LIMIT)
        scores = pick(propose(index.projection, wanted, weights))
        order = sorted(scores, key=lambda row, scores=scores: (-scores[row], row))  # type: ignore[misc]
        found.append(covered(question, taken([index.pieces[row] for row in order], budget)))
    return np.array(found)


def taken(pieces: Sequence[Piece], budget: int) -> list[Piece]:
    """The first that fit; one that does not gives way to later, smaller ones."""
    taken, left = [], budget
    for piece in pieces:
        if piece.tokens <= left:
            taken.append(piece)
            left -= piece.tokens
    return taken


def covered(question: Question, taken: Sequence[Piece]) -> float:
    total = covered = 0
    for start, end in question.spans:
        mask = np.zeros(end - start, dtype=np.bool_)
        for piece in taken:
            if piece.corpus == question.corpus:
                mask[max(0, piece.start - start) : max(0, piece.end - start)] = True
        total, covered = total + end - start, covered + int(mask.sum())
    return covered / total


def validated(table: NDArray[np.float64], folds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each question with the settings that are best without its fold; `table` (settings, questions)."""
    found = np.zeros(table.shape[1])
    for fold in np.unique(folds):
        best = table[:, folds != fold].mean(axis=1).argmax()
        found[folds == fold] = table[best, folds == fold]
    return found


def measure(folder: Path, budget: int, limit: int, precision: str) -> dict[str, Any]:
    """All figures."""
    index = build(folder, limit, precision)
    table = np.stack([recalls(index, weights, budget, lambda one: one.scores) for weights in GRID])
    random = np.random.default_rng(0)
    fifths = random.permutation(len(index.questions)) % FOLDS
    names = sorted({one.corpus for one in index.questions})
    corpora = np.array([names.index(one.corpus) for one in index.questions])
    shipped = recalls(index, WEIGHTS, budget, lambda one: one.scores)
    plain = Weights(WEIGHTS.words, 0.0)
    ways = {
        "fusion": validated(table, corpora), "shipped": shipped,
        "lexical": recalls(index, plain, budget, lambda one: one.words),
        "vector": recalls(index, plain, budget, lambda one: one.near),
    }  # fmt: skip
    parts = {
        name: {way: round(float(each[corpora == n].mean()), 4) for way, each in ways.items()}
        for n, name in enumerate(names)
    }
    return {
        "recall": round(float(validated(table, fifths).mean()), 4),
        "by_question": round(float(validated(table, fifths).mean()), 4),
        "by_corpus": round(float(ways["fusion"].mean()), 4),
        "shipped": round(float(shipped.mean()), 4),
        "corpora": parts,
        "never_below": all(one["fusion"] >= max(one["lexical"], one["vector"]) for one in parts.values()),
        "lexical": round(float(ways["lexical"].mean()), 4),
        "vector": round(float(ways["vector"].mean()), 4),
        "questions": len(index.questions),
        "passages": len(index.pieces),
        "budget_tokens": budget,
        "limit_chars": limit,
        "embedding": precision,
        "target": 0.90,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "commit": commit(),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with corpora/*.md and questions_df.csv")
    parser.add_argument("--budget", type=int, default=1000, help="WordPiece tokens of passages for each question")
    parser.add_argument("--limit", type=int, default=MAX_CHARS, help="most characters of a passage")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not (options.folder / "questions_df.csv").is_file():
        raise SystemExit(f"{options.folder} has no questions_df.csv: give the folder of the chunking evaluation")
    figures = measure(options.folder, options.budget, options.limit, options.precision)
    print(json.dumps(figures, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
