"""What ranking loses where the embedding model computes in less than float32: nDCG@10 on labelled passages.

FOLDER has corpora/*.md and questions_df.csv (question, references with character spans, corpus_id). The corpora are cut
by the product into one index; a passage answers a question by the part of the answer's characters that it has (grade 1,
from half of them on 2). Ranked are all passages by exact cosine (`vectors`) and by search as it is (`search`: words,
vectors as bytes, neighbours). `documents/questions` names the precisions: `float32/int8` is what runs by default where
the extra is installed and the processor multiplies bytes, `float32/onnx` where it does not. `lost` is the part of the
nDCG of float32 that is gone, `bounds` where it lies with 95 % (questions drawn again in pairs), `same` the part of the
first ten passages that are the same.
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

from benchmarks.knowledge_chunking import Question, questions_of
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
    """All corpora, cut by the product."""

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
        """Passage -> grade."""
        found: dict[str, int] = {}
        total = sum(end - start for start, end in question.spans)
        for number, (corpus, start, end) in enumerate(self.spans):
            if corpus == question.corpus:
                own = sum(max(0, min(end, last) - max(start, first)) for first, last in question.spans)
                if own:
                    found[str(number)] = 2 if 2 * own >= total else 1
        return found

    def indexed(self, vectors: Vectors) -> Projection:
        analyzer, projection = Analyzer(), Projection()
        for rows in self.documents:
            own = [Row(new_id(), analyzer.terms(self.texts[row]), vectors[row]) for row in rows]
            projection.replace_documents([DocumentEntry(new_id(), "s", 1, own)], rows[-1] + 1)
        return projection


def by_vectors(documents: Vectors, questions: Vectors) -> Run:
    similar = questions @ documents.T
    best = np.argsort(-similar, axis=1, kind="stable")[:, :_DEPTH]
    return {str(n): {str(row): float(similar[n, row]) for row in rows} for n, rows in enumerate(best)}


def by_search(index: Projection, asked: list[Question], questions: Vectors) -> Run:
    analyzer = Analyzer()
    found: Run = {}
    for number, (one, vector) in enumerate(zip(asked, questions, strict=True)):
        wanted = ProposalRequest(analyzer.terms(one.text), vector, frozenset({"s"}), frozenset({1}), _DEPTH)
        scores = propose(index.view, wanted).scores
        order = sorted(scores, key=lambda row, scores=scores: (-scores[row], row))[:_DEPTH]  # type: ignore[misc]
        found[str(number)] = {str(row): scores[row] - place * 1e-9 for place, row in enumerate(order)}
    return found


def compared(base: Figures, other: Figures, runs: tuple[Run, Run]) -> dict[str, Any]:
    names = list(base.by_question)
    pairs = np.array([[one.by_question[name]["ndcg@10"] for name in names] for one in (base, other)])
    random = np.random.default_rng(0)
    drawn = [pairs[:, random.integers(0, len(names), len(names))].mean(axis=1) for _ in range(_SAMPLES)]
    low, high = np.percentile([1 - after / before for before, after in drawn], (2.5, 97.5))
    first = [[set(sorted(run[name], key=lambda row, run=run[name]: -run[row])[:10]) for name in names] for run in runs]  # type: ignore[misc]
    same = np.mean([len(a & b) / max(1, len(a)) for a, b in zip(*first, strict=True)])
    before, after = pairs.mean(axis=1)
    return {
        "ndcg@10": round(float(after), 5),
        "lost": round(float(1 - after / before), 5),
        "bounds": [round(float(low), 5), round(float(high), 5)],
        "changed_questions": int((pairs[0] != pairs[1]).sum()),
        "same": round(float(same), 4),
    }


def figures(folder: Path) -> dict[str, Any]:
    """All of it."""
    passages, asked = Passages(folder), list(questions_of(folder / "questions_df.csv"))
    relevant = {str(number): passages.relevant(one) for number, one in enumerate(asked)}
    model = ensure(load_settings().models, MINILM.name)
    documents: dict[str, Vectors] = {}
    questions: dict[str, Vectors] = {}
    for precision in PRECISIONS:
        encoder: Encoder = OnnxEncoder(model) if precision == "onnx" else OpenVinoEncoder(model, precision)
        if any(precision == of_documents for of_documents, _ in PAIRS):
            documents[precision] = encoder.embed(passages.texts)
        questions[precision] = encoder.embed([one.text for one in asked])
    found: dict[str, Any] = {}
    for way in ("vectors", "search"):
        runs = {
            f"{of_documents}/{of_questions}": by_vectors(documents[of_documents], questions[of_questions])
            if way == "vectors"
            else by_search(passages.indexed(documents[of_documents]), asked, questions[of_questions])
            for of_documents, of_questions in PAIRS
        }
        measured = {name: measure(relevant, run) for name, run in runs.items()}
        base = "float32/float32"
        found[way] = {name: compared(measured[base], one, (runs[base], runs[name])) for name, one in measured.items()}
    cosine = float((documents["float32"] * documents["bfloat16"]).sum(axis=1).min())
    return {
        **found,
        "cosine": round(cosine, 6),
        "met": all(one["lost"] <= TARGET for way in ("vectors", "search") for one in found[way].values()),
        "target": TARGET,
        "questions": len(asked),
        "passages": len(passages.texts),
        "machine": machine(),
        "commit": commit(),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = figures(given.folder)
    if given.json:
        print(json.dumps(found))
        return
    for way in ("vectors", "search"):
        for name, one in found[way].items():
            low, high = one["bounds"]
            print(f"{way} {name}: nDCG@10 {one['ndcg@10']:.4f}, lost {one['lost']:.3%} ({low:.3%} to {high:.3%})")


if __name__ == "__main__":
    main()
