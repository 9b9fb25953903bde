"""The quality really kept at an operating point, on generated sets whose probabilities are all known.

    python benchmarks/routing_kept.py --json
    python benchmarks/routing_kept.py --kinds topics surface --rows 300 1000 --models 2 4 --seeds 0 1 2 3

A router is trained on the words of `--rows` prompts, and evaluated on 1,200 others of the same kind by their expected
scores, so that luck hardly matters; a plain ridge, whose operating point is chosen in the same way, is the baseline.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import commit, machine
from benchmarks.routing_sets import Kind, make_set

from groundplan.economics.routing.learn.baselines import plain_ridge
from groundplan.economics.routing.learn.evaluate import apply, apply_ridge, held_out_result
from groundplan.economics.routing.learn.evaluation_set import Row, matrix_of
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.learn.operating_points import label

KINDS = {
    "topics": Kind(by_topic=1.6, by_surface=0.0),
    "topics4": Kind(by_topic=1.6, by_surface=0.0, topics=4),
    "topics8": Kind(by_surface=0.0, topics=8),
    "surface": Kind(by_topic=0.3, by_surface=2.0),
    "surface_only": Kind(by_topic=0.0, by_surface=1.5),
    "plain": Kind(),
    "close": Kind(spread=0.4),
}
KEEP = 0.99
EVALUATION_ROWS = 1200
"""Prompts for the evaluation."""


@dataclass(frozen=True, slots=True)
class KeptResult:
    """Shares of the score and of the bill of the router's strongest model, for the router and for the ridge."""

    kind: str
    rows: int
    models: int
    seed: int
    kept: float
    saved: float
    ridge_kept: float
    ridge_saved: float


def measure_set(name: str, rows: int, models: int, seed: int) -> KeptResult:
    """Train and evaluate on one generated set."""
    kind = replace(KINDS[name], rows=rows + EVALUATION_ROWS, models=models, continuous=models > 4)
    generated = make_set(kind, 100 + seed)
    matrix = matrix_of([msgspec.convert(row, Row) for row in generated.rows])
    columns = [int(model.rpartition("-")[2]) for model in matrix.models]
    training, evaluation = matrix.take(np.arange(rows)), matrix.take(np.arange(rows, rows + EVALUATION_ROWS))
    router = train(training, None, (KEEP,), seed=seed)
    by_router, _, _ = apply(router, evaluation, None, (KEEP,))
    by_ridge, _ = apply_ridge(plain_ridge, training, evaluation, router, (KEEP,), seed)
    expected = replace(evaluation, scores=generated.chances[rows:, columns])
    ours, ridge = (
        held_out_result(expected, router.strongest, choices[label(KEEP)]) for choices in (by_router, by_ridge)
    )
    return KeptResult(name, rows, models, seed, ours.kept, ours.saved, ridge.kept, ridge.saved)


def summarize(results: Sequence[KeptResult]) -> dict[str, Any]:
    """Means over some sets; `below`: the share of them that kept less than promised."""
    return {
        "sets": len(results),
        "kept": _mean(result.kept for result in results),
        "below": _mean(result.kept < KEEP for result in results),
        "saved": _mean(result.saved for result in results),
        "ridge_kept": _mean(result.ridge_kept for result in results),
        "ridge_below": _mean(result.ridge_kept < KEEP for result in results),
        "ridge_saved": _mean(result.ridge_saved for result in results),
    }


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 4)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=list(KINDS))
    parser.add_argument("--rows", nargs="+", type=int, default=[300, 1000], help="prompts of training")
    parser.add_argument("--models", nargs="+", type=int, default=[2, 4, 11])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    results = []
    for name, rows, models, seed in product(options.kinds, options.rows, options.models, options.seeds):
        results.append(measure_set(name, rows, models, seed))
        sys.stderr.write(f"{results[-1]}\n")
    figures: dict[str, Any] = {"all": summarize(results)}
    for key in ("kind", "rows", "models"):
        for value in dict.fromkeys(getattr(result, key) for result in results):
            figures[f"{key} {value}"] = summarize([result for result in results if getattr(result, key) == value])
    figures |= {"machine": machine(), "commit": commit()}
    if options.json:
        print(json.dumps(figures | {"each": [asdict(result) for result in results]}))
    else:
        for key, value in figures.items():
            print(f"{key}: {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
