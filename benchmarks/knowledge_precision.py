"""The ranking quality lost by computing embeddings in less than float32: nDCG@10 on labelled passages.

FOLDER has corpora/*.md and questions_df.csv (question, references with character spans, corpus_id). The product splits
the corpora into one index; a passage is graded by the share of the answer's characters that it has (grade 1, from half
of them on 2). All passages are ranked by exact cosine (`vectors`) and by the product's search (`search`: words, vectors
as bytes, neighbours). `documents/questions` names the precisions: `float32/int8` is the default if the extra is
installed and the processor multiplies bytes, `float32/onnx` if it does not. `lost` is the share of the nDCG of float32
that is lost, `bounds` its 95 % interval (questions resampled in pairs), `same` the share of the first ten passages that
are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.knowledge.chunk import MAX_CHARS, split_passages
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.onnx_encoder import OnnxEncoder
from groundplan.knowledge.embedding.openvino_encoder import Computed, OpenVinoEncoder
from groundplan.knowledge.evaluation.measure import Figures, measure
from groundplan.knowledge.model import Vectors
from groundplan.knowledge.retrieval.projection import DocumentEntry, Projection, Row
from groundplan.knowledge.retrieval.propose import ProposalRequest, propose
from groundplan.knowledge.retrieval.replication import search_text
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.runtime.models import MINILM, ensure

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_chunking import Question, read_questions
from benchmarks.provenance import commit, machine

TARGET: Final = 0.005
Kind = Computed | Literal["onnx"]
PRECISIONS: Final[tuple[Kind, ...]] = ("float32", "bfloat16", "int8", "onnx")
PAIRS: Final[tuple[tuple[Kind, Kind], ...]] = (
    ("float32", "float32"), ("float32", "int8"), ("float32", "onnx"), ("float32", "bfloat16"),
    ("bfloat16", "int8"), ("bfloat16", "onnx"), ("bfloat16", "bfloat16"),
)  # fmt: skip
_DEPTH: Final = 100
_SAMPLES: Final = 2000
Run = dict[str, dict[str, float]]


class Passages:
    """The passages of all corpora, as the product splits them."""

    def __init__(self, folder: Path) -> None:
        self.texts: list[str] = []
        self.spans: list[tuple[str, int, int]] = []
        self.documents: list[list[int]] = []
        for file in sorted((folder / "corpora").glob("*.md")):
            with file.open(newline="", encoding="utf-8") as opened:
                parts = split_passages(opened.read(), markdown=True, limit=MAX_CHARS)
            self.documents.append(list(range(len(self.texts), len(self.texts) + len(parts))))
            self.texts += [search_text("", [*part.headings, part.head], part.text) for part in parts]
            self.spans += [(file.stem, part.start_char, part.end_char) for part in parts]

    def relevant(self, question: Question) -> dict[str, int]:
        """Number of a passage -> its grade for the question."""
        grades: dict[str, int] = {}
        total = sum(end - start for start, end in question.spans)
        for number, (corpus, start, end) in enumerate(self.spans):
            if corpus == question.corpus:
                covered = sum(max(0, min(end, last) - max(start, first)) for first, last in question.spans)
                if covered:
                    grades[str(number)] = 2 if 2 * covered >= total else 1
        return grades

    def build_index(self, vectors: Vectors) -> Projection:
        analyzer, projection = Analyzer(), Projection()
        for rows in self.documents:
            document_rows = [Row(new_id(), analyzer.terms(self.texts[row]), vectors[row]) for row in rows]
            projection.replace_documents([DocumentEntry(new_id(), "s", 1, document_rows)], rows[-1] + 1)
        return projection


def rank_by_vectors(documents: Vectors, questions: Vectors) -> Run:
    similar = questions @ documents.T
    best = np.argsort(-similar, axis=1, kind="stable")[:, :_DEPTH]
    return {str(n): {str(row): float(similar[n, row]) for row in rows} for n, rows in enumerate(best)}


def rank_by_search(index: Projection, question_texts: list[Question], questions: Vectors) -> Run:
    analyzer = Analyzer()
    run: Run = {}
    for number, (question, vector) in enumerate(zip(question_texts, questions, strict=True)):
        request = ProposalRequest(analyzer.terms(question.text), vector, frozenset({"s"}), frozenset({1}), _DEPTH)
        scores = propose(index.view, request).scores
        order = sorted(scores, key=lambda row, scores=scores: (-scores[row], row))[:_DEPTH]  # type: ignore[misc]
        run[str(number)] = {str(row): scores[row] - rank * 1e-9 for rank, row in enumerate(order)}
    return run


def compare_figures(base: Figures, other: Figures, runs: tuple[Run, Run]) -> dict[str, Any]:
    names = list(base.by_question)
    pairs = np.array([[one.by_question[name]["ndcg@10"] for name in names] for one in (base, other)])
    random = np.random.default_rng(0)
    resampled = [pairs[:, random.integers(0, len(names), len(names))].mean(axis=1) for _ in range(_SAMPLES)]
    low, high = np.percentile([1 - after / before for before, after in resampled], (2.5, 97.5))
    first_ten = [
        [set(sorted(run[name], key=run[name].__getitem__, reverse=True)[:10]) for name in names] for run in runs
    ]
    same = np.mean([len(a & b) / max(1, len(a)) for a, b in zip(*first_ten, strict=True)])
    before, after = pairs.mean(axis=1)
    return {
        "ndcg@10": round(float(after), 5),
        "lost": round(float(1 - after / before), 5),
        "bounds": [round(float(low), 5), round(float(high), 5)],
        "changed_questions": int((pairs[0] != pairs[1]).sum()),
        "same": round(float(same), 4),
    }


def measure_figures(folder: Path) -> dict[str, Any]:
    """The figures of both rankings with every pair of precisions."""
    passages, labelled_questions = Passages(folder), list(read_questions(folder / "questions_df.csv"))
    relevant = {str(number): passages.relevant(question) for number, question in enumerate(labelled_questions)}
    model = ensure(load_settings().models, MINILM.name)
    documents: dict[str, Vectors] = {}
    questions: dict[str, Vectors] = {}
    for precision in PRECISIONS:
        encoder: Encoder = OnnxEncoder(model) if precision == "onnx" else OpenVinoEncoder(model, precision)
        if any(precision == document_precision for document_precision, _ in PAIRS):
            documents[precision] = encoder.embed(passages.texts)
        questions[precision] = encoder.embed([question.text for question in labelled_questions])
    results: dict[str, Any] = {}
    for way in ("vectors", "search"):
        runs = {
            f"{document_precision}/{question_precision}": rank_by_vectors(
                documents[document_precision], questions[question_precision]
            )
            if way == "vectors"
            else rank_by_search(
                passages.build_index(documents[document_precision]), labelled_questions, questions[question_precision]
            )
            for document_precision, question_precision in PAIRS
        }
        measures = {name: measure(relevant, run) for name, run in runs.items()}
        baseline = "float32/float32"
        results[way] = {
            name: compare_figures(measures[baseline], question, (runs[baseline], runs[name]))
            for name, question in measures.items()
        }
    cosine = float((documents["float32"] * documents["bfloat16"]).sum(axis=1).min())
    return {
        **results,
        "cosine": round(cosine, 6),
        "met": all(question["lost"] <= TARGET for way in ("vectors", "search") for question in results[way].values()),
        "target": TARGET,
        "questions": len(labelled_questions),
        "passages": len(passages.texts),
        "machine": machine(),
        "commit": commit(),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = measure_figures(arguments.folder)
    if arguments.json:
        print(json.dumps(results))
        return
    for way in ("vectors", "search"):
        for name, row in results[way].items():
            low, high = row["bounds"]
            print(f"{way} {name}: nDCG@10 {row['ndcg@10']:.4f}, lost {row['lost']:.3%} ({low:.3%} to {high:.3%})")


if __name__ == "__main__":
    main()
