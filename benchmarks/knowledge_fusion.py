"""Whether words and vectors together ever rank below the better of the two: on questions, and on quotations.

FOLDER is as for `knowledge_chunking.py`: its 472 questions are measured by `recall` at 1,000 tokens. Quotations are 3
to 14 consecutive words of a random passage, measured by nDCG@10 of that passage. `answered` are the search service's
answers over HTTP, with the product's own settings; the others are rankings alone: `before` is without the bonus for
quotations, `shipped` with it, `crossed` chooses that bonus and the least number of words (on four fifths of questions
and quotations) and measures on the last fifth, five times. Each with 95 % bounds from resampled questions.
`knowledge_beir.py` measures the same on any set in the BEIR format.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.retrieval import fuse
from groundplan.knowledge.retrieval.propose import Proposal
from groundplan.knowledge.retrieval.words import Analyzer

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import knowledge_chunking as chunking
from benchmarks.knowledge_chunking import ASKS, Ask, Index, covered_share, fit_budget
from benchmarks.knowledge_machine import Watch, run_details
from benchmarks.knowledge_scale import Client

FOLDS, DEPTH, MAX_QUOTES_CHECKED, BUDGET = 5, 200, 40, 1000
GRID = list(product((0.15, 0.3, 0.6, 1.2), (4, 5, 6, 8)))
"""(bonus for a quotation, least number of words of one)"""
_TEN_PASSAGES = Ask(10, 1 << 20, 0)

Values = NDArray[np.float64]
Rank = Callable[[str, Proposal], dict[int, float]]


class Workbench:
    """Questions and quotations, the proposals for each, and the texts of rows."""

    def __init__(self, setup: chunking.SearchSetup, quotations: int) -> None:
        self.setup = setup
        self.index: Index = setup.index
        self.normalised_texts = [
            fuse.normalise_text(self.index.texts[piece.corpus][piece.start : piece.end]) for piece in self.index.pieces
        ]
        self.quotes = _quotes(self.index, quotations)
        analyzer = Analyzer()
        self.question_proposals = [
            self._propose(terms, vector) for terms, vector in zip(self.index.terms, self.index.vectors, strict=True)
        ]
        self.quote_proposals = [
            self._propose(analyzer.terms(text), setup.encoder.embed([text])[0]) for _, text in self.quotes
        ]

    def _propose(self, terms: Sequence[str], vector: Any) -> Proposal:
        return self.index.propose(terms, vector, fuse.WEIGHTS, DEPTH)

    def measure_answers(self) -> tuple[Values, Values]:
        """As `measure_ranking`, of the service's answers."""
        client, default = Client(self.setup.endpoint), next(iter(ASKS.values()))
        recalls = [
            covered_share(question, fit_budget(self.setup.service_answers(client, default, question.text), BUDGET))
            for question in self.index.questions
        ]
        gains = []
        for row, text in self.quotes:
            quoted_place = next(self.index.pieces[row].places)
            is_quoted = [
                quoted_place in question.places for question in self.setup.service_answers(client, _TEN_PASSAGES, text)
            ]
            gains.append(float(1 / np.log2(2 + is_quoted.index(True))) if True in is_quoted else 0.0)
        return np.array(recalls), np.array(gains)

    def quote_ranking(self, bonus: float, min_words: int) -> Rank:
        """The product's ranking with a bonus `value` for quotations of `least` words or more."""

        def rank(question: str, proposed: Proposal) -> dict[int, float]:
            scores = dict(proposed.scores)
            question_words = fuse.normalise_text(question).split()
            near_best = fuse.NEAR_BEST * max(proposed.words.values(), default=0.0)
            for row in proposed.order[:MAX_QUOTES_CHECKED]:
                if proposed.words.get(row, -1.0) >= near_best:
                    scores[row] += bonus * fuse.verbatim_share(question_words, self.normalised_texts[row], min_words)
            return scores

        return rank

    def measure_ranking(self, rank: Rank) -> tuple[Values, Values]:
        """(recall of each question, nDCG@10 of each quotation)"""
        recalls = [
            covered_share(
                question,
                fit_budget([self.index.pieces[row] for row in _ranked_rows(rank(question.text, proposed))], BUDGET),
            )
            for question, proposed in zip(self.index.questions, self.question_proposals, strict=True)
        ]
        gains = [
            _ndcg(_ranked_rows(rank(text, proposed))[:10], row)
            for (row, text), proposed in zip(self.quotes, self.quote_proposals, strict=True)
        ]
        return np.array(recalls), np.array(gains)


def _quotes(index: Index, count: int) -> list[tuple[int, str]]:
    """(row, consecutive words of its passage) of random passages."""
    rng = random.Random(11)
    rows = [row for row, piece in enumerate(index.pieces) if piece.end - piece.start > 200]
    quotes = []
    for row in rng.sample(rows, count):
        piece = index.pieces[row]
        words = index.texts[piece.corpus][piece.start : piece.end].split()
        size = rng.randint(3, 14)
        start = rng.randrange(max(1, len(words) - size))
        quotes.append((row, " ".join(words[start : start + size])))
    return quotes


def _ranked_rows(scores: dict[int, float]) -> list[int]:
    return sorted(scores, key=lambda row: (-scores[row], row))


def _ndcg(ranked: list[int], relevant: int) -> float:
    return float(1 / np.log2(2 + ranked.index(relevant))) if relevant in ranked else 0.0


def mean_with_bounds(values: Values) -> dict[str, Any]:
    """Mean and 95 % bounds."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(1000)]
    low, high = np.percentile(means, (2.5, 97.5))
    return {"mean": round(float(values.mean()), 4), "bounds": [round(float(low), 4), round(float(high), 4)]}


def cross_validate(results: list[tuple[Values, Values]]) -> tuple[Values, Values, list[tuple[float, int]]]:
    """Figures of each fold with the settings that are best on the other folds, by the mean of recall and nDCG."""
    recalls, gains = np.zeros_like(results[0][0]), np.zeros_like(results[0][1])
    chosen = []
    for fold in range(FOLDS):
        in_fold = [np.arange(len(values)) % FOLDS == fold for values in (recalls, gains)]
        best = max(results, key=lambda result: float(result[0][~in_fold[0]].mean() + result[1][~in_fold[1]].mean()))
        chosen.append(GRID[next(index for index, result in enumerate(results) if result is best)])
        recalls[in_fold[0]], gains[in_fold[1]] = best[0][in_fold[0]], best[1][in_fold[1]]
    return recalls, gains, chosen


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with corpora/*.md and questions_df.csv")
    parser.add_argument("--quotations", type=int, default=400, help="how many")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not (options.folder / "questions_df.csv").exists():
        raise SystemExit(f"{options.folder} has no questions_df.csv: see docs/performance.md for where it is from")
    with Watch() as watch, chunking.search_setup(options.folder) as setup:
        workbench = Workbench(setup, options.quotations)
        answered = workbench.measure_answers()
    ways: dict[str, tuple[Values, Values]] = {
        "words": workbench.measure_ranking(lambda _, proposed: proposed.words),
        "vectors": workbench.measure_ranking(lambda _, proposed: proposed.nearest),
        "before": workbench.measure_ranking(lambda _, proposed: proposed.scores),
        "shipped": workbench.measure_ranking(workbench.quote_ranking(fuse.VERBATIM, fuse.MIN_RUN)),
        "answered": answered,
    }
    recalls, gains, chosen = cross_validate(
        [workbench.measure_ranking(workbench.quote_ranking(bonus, min_words)) for bonus, min_words in GRID]
    )
    ways["crossed"] = (recalls, gains)
    figures = {
        "questions": len(workbench.index.questions),
        "quotations": len(workbench.quotes),
        "recall": {name: mean_with_bounds(result[0]) for name, result in ways.items()},
        "ndcg@10": {name: mean_with_bounds(result[1]) for name, result in ways.items()},
        "never_below": all(
            ways["answered"][index].mean() >= max(ways["words"][index].mean(), ways["vectors"][index].mean())
            for index in (0, 1)
        ),
        "chosen_in_folds": chosen,
        **watch.figures(),
        **run_details(f"{options.folder.name}: questions, and quotations drawn from its passages"),
    }
    print(json.dumps(figures, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
