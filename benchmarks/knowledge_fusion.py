"""Whether words and vectors together are ever below the better of the two: on questions, and on quotations.

FOLDER is as for `knowledge_chunking.py`: its 472 questions are measured by `recall` at 1,000 tokens. Quotations are so
many words in a row (3 to 14) of a passage that is drawn, measured by nDCG@10 of that passage. `answered` is what the
search service answers with over HTTP, with the product's own settings; the others are rankings alone: `before` is
without the look at words in their order, `shipped` with it, `crossed` chooses what such words are worth and from how
many on (on four fifths of questions and quotations) and measures on the last fifth, five times. Each with the bounds of
95 % by drawing the questions again. `knowledge_beir.py` asks the same of any set in the shape of BEIR.
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

FOLDS, DEPTH, READ, BUDGET = 5, 200, 40, 1000
GRID = list(product((0.15, 0.3, 0.6, 1.2), (4, 5, 6, 8)))
"""What a quotation is worth, and words from which it is one."""
_TEN = Ask(10, 1 << 20, 0)

Values = NDArray[np.float64]
Rank = Callable[[str, Proposal], dict[int, float]]


class Workbench:
    """Questions and quotations, the proposals for each, and the texts of rows."""

    def __init__(self, setup: chunking.SearchSetup, quotations: int) -> None:
        self.setup = setup
        self.index: Index = setup.index
        self.plain = [
            fuse.normalise_text(self.index.texts[one.corpus][one.start : one.end]) for one in self.index.pieces
        ]
        self.quotes = _quotes(self.index, quotations)
        analyzer = Analyzer()
        self.proposals = [
            self._propose(terms, v) for terms, v in zip(self.index.terms, self.index.vectors, strict=True)
        ]
        self.quoted = [self._propose(analyzer.terms(text), setup.encoder.embed([text])[0]) for _, text in self.quotes]

    def _propose(self, terms: Sequence[str], vector: Any) -> Proposal:
        return self.index.propose(terms, vector, fuse.WEIGHTS, DEPTH)

    def measure_answers(self) -> tuple[Values, Values]:
        """As `measured`, by what the service answers with."""
        client, default = Client(self.setup.endpoint), next(iter(ASKS.values()))
        recalls = [
            covered_share(one, fit_budget(self.setup.service_answers(client, default, one.text), BUDGET))
            for one in self.index.questions
        ]
        gains = []
        for row, text in self.quotes:
            wanted = next(self.index.pieces[row].places)
            found = [wanted in one.places for one in self.setup.service_answers(client, _TEN, text)]
            gains.append(float(1 / np.log2(2 + found.index(True))) if True in found else 0.0)
        return np.array(recalls), np.array(gains)

    def quote_ranking(self, value: float, least: int) -> Rank:
        """Both together, with words in their order as the product has them."""

        def rank(question: str, proposed: Proposal) -> dict[int, float]:
            scores = dict(proposed.scores)
            words = fuse.normalise_text(question).split()
            near_best = fuse.NEAR_BEST * max(proposed.words.values(), default=0.0)
            for row in proposed.order[:READ]:
                if proposed.words.get(row, -1.0) >= near_best:
                    scores[row] += value * fuse.verbatim_share(words, self.plain[row], least)
            return scores

        return rank

    def measure_ranking(self, rank: Rank) -> tuple[Values, Values]:
        """Recall of each question, nDCG@10 of each quotation."""
        recalls = [
            covered_share(one, fit_budget([self.index.pieces[row] for row in _order(rank(one.text, proposed))], BUDGET))
            for one, proposed in zip(self.index.questions, self.proposals, strict=True)
        ]
        gains = [
            _gain(_order(rank(text, proposed))[:10], row)
            for (row, text), proposed in zip(self.quotes, self.quoted, strict=True)
        ]
        return np.array(recalls), np.array(gains)


def _quotes(index: Index, count: int) -> list[tuple[int, str]]:
    """(row, some words in a row of it) of passages that are drawn."""
    chance = random.Random(11)
    rows = [row for row, piece in enumerate(index.pieces) if piece.end - piece.start > 200]
    found = []
    for row in chance.sample(rows, count):
        piece = index.pieces[row]
        words = index.texts[piece.corpus][piece.start : piece.end].split()
        size = chance.randint(3, 14)
        start = chance.randrange(max(1, len(words) - size))
        found.append((row, " ".join(words[start : start + size])))
    return found


def _order(scores: dict[int, float]) -> list[int]:
    return sorted(scores, key=lambda row: (-scores[row], row))


def _gain(best: list[int], wanted: int) -> float:
    return float(1 / np.log2(2 + best.index(wanted))) if wanted in best else 0.0


def mean_with_bounds(values: Values) -> dict[str, Any]:
    """Mean and the bounds of 95 %."""
    chance = np.random.default_rng(0)
    means = [values[chance.integers(0, len(values), len(values))].mean() for _ in range(1000)]
    low, high = np.percentile(means, (2.5, 97.5))
    return {"mean": round(float(values.mean()), 4), "bounds": [round(float(low), 4), round(float(high), 4)]}


def cross_validate(every: list[tuple[Values, Values]]) -> tuple[Values, Values, list[tuple[float, int]]]:
    """Figures with settings that are best on what is not measured: by the mean of recall and nDCG."""
    recalls, gains = np.zeros_like(every[0][0]), np.zeros_like(every[0][1])
    chosen = []
    for fold in range(FOLDS):
        own = [np.arange(len(values)) % FOLDS == fold for values in (recalls, gains)]
        best = max(every, key=lambda made: float(made[0][~own[0]].mean() + made[1][~own[1]].mean()))
        chosen.append(GRID[next(at for at, made in enumerate(every) if made is best)])
        recalls[own[0]], gains[own[1]] = best[0][own[0]], best[1][own[1]]
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
        [workbench.measure_ranking(workbench.quote_ranking(value, least)) for value, least in GRID]
    )
    ways["crossed"] = (recalls, gains)
    figures = {
        "questions": len(workbench.index.questions),
        "quotations": len(workbench.quotes),
        "recall": {name: mean_with_bounds(made[0]) for name, made in ways.items()},
        "ndcg@10": {name: mean_with_bounds(made[1]) for name, made in ways.items()},
        "never_below": all(
            ways["answered"][at].mean() >= max(ways["words"][at].mean(), ways["vectors"][at].mean()) for at in (0, 1)
        ),
        "chosen_in_folds": chosen,
        **watch.figures(),
        **run_details(f"{options.folder.name}: questions, and quotations drawn from its passages"),
    }
    print(json.dumps(figures, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
