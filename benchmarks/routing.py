"""How much a learned router saves at a quality that is kept, on prompts it has never seen.

    python benchmarks/routing.py MATRIX.jsonl --json     any set of {"id", "group", "prompt", "scores", "costs"}
    python benchmarks/routing.py --routellm DIR --json   MMLU and GSM8K as RouteLLM published them

Folds never share a group; everything is learned and chosen on the other folds. Always beside a plain TF-IDF ridge with
operating points chosen in the same way, random mixing, and the oracle. Without the embedding model it routes by words
alone, and says so.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.settings import load_settings
from groundplan.economics.routing.decide.choose import choose
from groundplan.economics.routing.decide.features import brief
from groundplan.economics.routing.learn.evaluate import KEEPS, Evaluation, evaluate, strong_share
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.learn.matrix import read_matrix, said
from groundplan.economics.routing.learn.operate import label
from groundplan.economics.routing.model import Floats, Matrix, Router, Sample
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.openvino_encoder import load, load_questions, precision_of

WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
PRICES = {WEAK: (0.6e-6, 0.6e-6), STRONG: (10e-6, 30e-6)}
"""US dollars a token in and out, as listed by the providers in 2024; answers there are about 150 tokens."""
TARGETS = {"mmlu": (0.25, 0.275), "gsm8k": (0.37, 0.397)}


def encoder() -> Encoder | None:
    """What embeds questions for the gateway where this machine has it; nothing is fetched."""
    settings = load_settings()
    folder = settings.models / "all-minilm-l6-v2"
    if not (folder / "model.safetensors").exists():
        return None
    return load_questions(folder, load(folder, precision_of(settings.embedding_precision), threads=1))


def embedded(encode: Encoder | None, matrix: Matrix, cache: Path | None) -> Floats | None:
    """Embeddings of all prompts, as briefly as the gateway makes them; kept in `cache` where one is named."""
    if encode is None:
        return None
    if cache is not None and cache.exists():
        kept: Floats = np.load(cache)
        if len(kept) == len(matrix.samples):
            return kept
    vectors = encode.embed([brief(sample.prompt) for sample in matrix.samples])
    if cache is not None:
        np.save(cache, vectors)
    return vectors


def routellm(path: Path) -> Matrix:
    """One file of RouteLLM; the same prompt twice is one group."""
    csv.field_size_limit(1 << 30)
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    samples = tuple(Sample(str(i), said(row["prompt"]), row["prompt"]) for i, row in enumerate(rows))
    scores = np.array([[float(row[name] == "True") for name in (WEAK, STRONG)] for row in rows])
    sizes = np.array([len(row["prompt"]) / 4 for row in rows])
    costs = np.stack([sizes * PRICES[name][0] + 150 * PRICES[name][1] for name in (WEAK, STRONG)], axis=1)
    return Matrix(samples, (WEAK, STRONG), scores, costs)


def figures(found: Evaluation, vectors: Floats | None) -> dict[str, Any]:
    """What is printed of any set."""
    told: dict[str, Any] = {"best_single": found.best, "embedding": vectors is not None}
    for keep in KEEPS:
        name, percent = label(keep), f"{keep * 100:.0f}"
        ours, ridge = found.routed[name], found.ridge[name]
        told[f"saved_at_{percent}"] = round(ours.saved, 4)
        told[f"kept_at_{percent}"] = round(ours.kept, 4)
        told[f"kept_error_at_{percent}"] = round(ours.error, 4)
        told[f"ridge_saved_at_{percent}"] = round(ridge.saved, 4)
        told[f"ridge_kept_at_{percent}"] = round(ridge.kept, 4)
        told[f"mixed_saved_at_{percent}"] = round(found.mixed[name], 4)
        told[f"times_ridge_at_{percent}"] = round(ours.saved / ridge.saved, 2) if ridge.saved > 1e-9 else None
    told["same_choice"] = {kind: round(same, 4) for kind, same in found.robust.items()}
    told |= {"oracle_saved": round(found.oracle_saved, 4), "oracle_kept": round(found.oracle_kept, 4)}
    return told | {"abstained": round(found.abstained, 4), "calibration_error": round(found.calibration, 4)}


def decision_ms(router: Router, matrix: Matrix, encode: Encoder | None) -> dict[str, float]:
    """CPU milliseconds of a decision: median over prompts, with and without the embedding."""
    prompts = [sample.prompt for sample in matrix.samples[:200]]
    allowed = frozenset(router.models)
    plain, whole = [], []
    for prompt in prompts:
        began = time.thread_time()
        choose(router, prompt, None, allowed, "0.99")
        plain.append(time.thread_time() - began)
        if encode is not None:
            began = time.process_time()  # the model computes on a thread of its own
            choose(router, prompt, encode.embed([brief(prompt)])[0], allowed, "0.99")
            whole.append(time.process_time() - began)
    told = {"decision_ms_p50": _ms(plain, 50), "decision_ms_p95": _ms(plain, 95)}
    if whole:
        told |= {"decision_with_embedding_ms_p50": _ms(whole, 50), "decision_with_embedding_ms_p95": _ms(whole, 95)}
    return told


def _ms(seconds: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(seconds, percent)) * 1000, 3)


def of_matrix(path: Path, encode: Encoder | None, cache: Path | None, seed: int) -> dict[str, Any]:
    """Figures of any evaluation set."""
    matrix = read_matrix(path)
    vectors = embedded(encode, matrix, cache / f"{path.stem}.npy" if cache else None)
    found = evaluate(matrix, vectors, seed=seed, progress=_progress)
    told = {"rows": len(matrix.samples), "groups": len({s.group for s in matrix.samples}), "models": matrix.models}
    router = train(matrix, vectors, KEEPS, seed=seed)
    return told | figures(found, vectors) | decision_ms(router, matrix, encode)


def of_routellm(folder: Path, encode: Encoder | None, cache: Path | None, seed: int) -> dict[str, Any]:
    """Shares of strong calls for half the gap, on both sets."""
    told: dict[str, Any] = {}
    for name, (target, ridge) in TARGETS.items():
        matrix = routellm(folder / f"routellm_{name}.csv.gz")
        vectors = embedded(encode, matrix, cache / f"{name}.npy" if cache else None)
        found = evaluate(matrix, vectors, seed=seed, progress=_progress)
        weak, strong = matrix.scores[:, 0], matrix.scores[:, 1]
        told[name] = {
            "rows": len(weak),
            "strong_share_for_half_the_gap": round(_share(found.predicted, matrix), 4),
            "ridge_share": round(_share(found.plain, matrix), 4),
            "random_share": 0.5,
            "oracle_share": round(strong_share(weak, strong, strong - weak), 4),
            "target": target,
            "stated_ridge_share": ridge,
        } | figures(found, vectors)
    return told


def _share(told: Any, matrix: Matrix) -> float:
    return strong_share(matrix.scores[:, 0], matrix.scores[:, 1], told[:, 1] - told[:, 0])


def _progress(done: int, total: int) -> None:
    sys.stderr.write(f"fold {done} of {total}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix", nargs="?", type=Path)
    parser.add_argument("--routellm", type=Path, metavar="DIR")
    parser.add_argument("--text-only", action="store_true", help="route by the words alone")
    parser.add_argument("--cache", type=Path, help="folder for embeddings between runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    encode = None if given.text_only else encoder()
    try:
        if given.routellm is not None:
            if not given.routellm.is_dir():
                hint = "Name the folder with routellm_mmlu.csv.gz and routellm_gsm8k.csv.gz."
                raise Invalid(f"{given.routellm} is not there", code="data_absent", hint=hint)
            told = of_routellm(given.routellm, encode, given.cache, given.seed)
        elif given.matrix is not None:
            told = of_matrix(given.matrix, encode, given.cache, given.seed)
        else:
            parser.error("name a MATRIX.jsonl, or --routellm DIR")
    except GroundplanError as error:
        sys.stderr.write(f"routing: {error}\n")
        return error.exit_code
    told |= {"seed": given.seed, "machine": f"{platform.machine()}, Python {platform.python_version()}"}
    told["commit"] = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if given.json:
        print(json.dumps(told))
    else:
        for key, value in told.items():
            print(f"{key}: {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
