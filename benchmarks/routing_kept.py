"""What is really kept at an operating point, on generated sets of which every chance is known.

    python benchmarks/routing_kept.py --json
    python benchmarks/routing_kept.py --kinds topics surface --rows 300 1000 --models 2 4 --seeds 0 1 2 3

A router is trained by the words on so many prompts, and judged on 1,200 others of the same making by their chances, so
that what is told is hardly luck; beside it a plain ridge, whose point is chosen in the same way.
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
OTHERS = 1200
"""Prompts for the evaluation."""


@dataclass(frozen=True, slots=True)
class Found:
    """Shares of the score and of the bill of the router's strongest model."""

    kind: str
    rows: int
    models: int
    seed: int
    kept: float
    saved: float
    ridge_kept: float
    ridge_saved: float


def measured(name: str, rows: int, models: int, seed: int) -> Found:
    """One set."""
    kind = replace(KINDS[name], rows=rows + OTHERS, models=models, continuous=models > 4)
    drawn = make_set(kind, 100 + seed)
    whole = matrix_of([msgspec.convert(row, Row) for row in drawn.rows])
    numbers = [int(model.rpartition("-")[2]) for model in whole.models]
    seen, asked = whole.take(np.arange(rows)), whole.take(np.arange(rows, rows + OTHERS))
    router = train(seen, None, (KEEP,), seed=seed)
    picked, _, _ = apply(router, asked, None, (KEEP,))
    by_plain, _ = apply_ridge(plain_ridge, seen, asked, router, (KEEP,), seed)
    known = replace(asked, scores=drawn.chances[rows:, numbers])
    ours, ridge = (held_out_result(known, router.strongest, each[label(KEEP)]) for each in (picked, by_plain))
    return Found(name, rows, models, seed, ours.kept, ours.saved, ridge.kept, ridge.saved)


def summarize(found: Sequence[Found]) -> dict[str, Any]:
    """Figures of some sets together; `below`: the share of them that kept less than promised."""
    return {
        "sets": len(found),
        "kept": _mean(each.kept for each in found),
        "below": _mean(each.kept < KEEP for each in found),
        "saved": _mean(each.saved for each in found),
        "ridge_kept": _mean(each.ridge_kept for each in found),
        "ridge_below": _mean(each.ridge_kept < KEEP for each in found),
        "ridge_saved": _mean(each.ridge_saved for each in found),
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
    given = parser.parse_args(arguments)
    found = []
    for name, rows, models, seed in product(given.kinds, given.rows, given.models, given.seeds):
        found.append(measured(name, rows, models, seed))
        sys.stderr.write(f"{found[-1]}\n")
    figures: dict[str, Any] = {"all": summarize(found)}
    for key in ("kind", "rows", "models"):
        for value in dict.fromkeys(getattr(each, key) for each in found):
            figures[f"{key} {value}"] = summarize([each for each in found if getattr(each, key) == value])
    figures |= {"machine": machine(), "commit": commit()}
    if given.json:
        print(json.dumps(figures | {"each": [asdict(each) for each in found]}))
    else:
        for key, value in figures.items():
            print(f"{key}: {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
