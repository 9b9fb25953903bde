"""How much a learned router saves at a quality that is kept, on prompts it has never seen.

    python benchmarks/routing.py MATRIX.jsonl --json     any set of {"id", "group", "prompt", "scores", "costs"}
    python benchmarks/routing.py --routellm DIR --json   MMLU and GSM8K as RouteLLM published them

Folds never share a group; everything is learned and chosen on the other folds. Always beside a plain TF-IDF ridge with
operating points chosen in the same way, random mixing, and the oracle. Without the embedding model it routes by words
alone, and says so. Rows that lack a score or a cost of some model are left out and counted; of fewer than ten groups
none can be left out to judge with, so folds are of prompts then (`folds_by`).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import routing_strange
from benchmarks.provenance import commit, machine
from benchmarks.routing_call import measured
from benchmarks.routing_usable import read_usable

from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.settings import load_settings
from groundplan.economics.routing.decide.choose import choose
from groundplan.economics.routing.decide.predict import text_to_embed
from groundplan.economics.routing.learn.evaluate import KEEPS, Embed, Evaluation, evaluate, strong_share
from groundplan.economics.routing.learn.evaluation_set import question_key
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.learn.operating_points import label
from groundplan.economics.routing.model import LAYERS, TOKENS, Floats, Matrix, Router, Sample
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.openvino_encoder import load_encoder, load_question_encoder, precision_of

WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
PRICES = {WEAK: (0.6e-6, 0.6e-6), STRONG: (10e-6, 30e-6)}
"""US dollars a token in and out, as listed by the providers in 2024; answers there are about 150 tokens."""
TIMED = 2000
"""Rows of which the router is trained whose decisions are timed: more make it no larger."""
TARGETS = {"mmlu": (0.25, 0.275), "gsm8k": (0.37, 0.397)}


def encoder() -> Encoder | None:
    """What embeds questions for the gateway where this machine has it; nothing is fetched."""
    settings = load_settings()
    folder = settings.models / "all-minilm-l6-v2"
    if not (folder / "model.safetensors").exists():
        return None
    return load_question_encoder(
        folder, load_encoder(folder, precision_of(settings.embedding_precision), threads=1), LAYERS
    )


def cached_embeddings(encode: Encoder | None, matrix: Matrix, cache: Path | None, name: str) -> Floats | None:
    """Embeddings of all prompts, as briefly as the gateway makes them; kept in the folder `cache` where one is named,
    for these very prompts."""
    if encode is None:
        return None
    texts = [encode.truncate(text_to_embed(sample.prompt), TOKENS) for sample in matrix.samples]
    if cache is None:
        return encode.embed(texts)
    digest = hashlib.sha256("\0".join([str(LAYERS), *texts]).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    path = cache / f"{name}-{digest}.npy"
    if path.exists():
        kept: Floats = np.load(path)
        return kept
    vectors = encode.embed(texts)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, vectors)
    return vectors


def routellm(path: Path) -> Matrix:
    """One file of RouteLLM; the same prompt twice is one group. Raises `Invalid` for another file."""
    csv.field_size_limit(1 << 30)
    hint = "Name the folder with routellm_mmlu.csv.gz and routellm_gsm8k.csv.gz."
    try:
        with gzip.open(path, "rt", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise Invalid(f"{path} cannot be read: {error}", code="data_absent", hint=hint) from error
    if not rows or not {"prompt", WEAK, STRONG} <= set(rows[0]):
        raise Invalid(f"{path} has no columns prompt, {WEAK} and {STRONG}", code="data_absent", hint=hint)
    samples = tuple(Sample(str(i), question_key(row["prompt"]), row["prompt"]) for i, row in enumerate(rows))
    scores = np.array([[float(row[name] == "True") for name in (WEAK, STRONG)] for row in rows])
    sizes = np.array([len(row["prompt"]) / 4 for row in rows])
    costs = np.stack([sizes * PRICES[name][0] + 150 * PRICES[name][1] for name in (WEAK, STRONG)], axis=1)
    return Matrix(samples, (WEAK, STRONG), scores, costs)


def figures(found: Evaluation, vectors: Floats | None) -> dict[str, Any]:
    """What is printed of any set."""
    told: dict[str, Any] = {"best_single": found.best, "embedding": vectors is not None}
    for keep in KEEPS:
        name, percent = label(keep), f"{keep * 100:.0f}"
        ours, ridge, tuned = found.routed[name], found.ridge[name], found.tuned[name]
        told[f"saved_at_{percent}"] = round(ours.saved, 4)
        told[f"kept_at_{percent}"] = round(ours.kept, 4)
        told[f"kept_error_at_{percent}"] = round(ours.error, 4)
        told[f"ridge_saved_at_{percent}"] = round(ridge.saved, 4)
        told[f"ridge_kept_at_{percent}"] = round(ridge.kept, 4)
        told[f"mixed_saved_at_{percent}"] = round(found.mixed[name], 4)
        told[f"tuned_ridge_saved_at_{percent}"] = round(tuned.saved, 4)
        told[f"tuned_ridge_kept_at_{percent}"] = round(tuned.kept, 4)
        told[f"times_ridge_at_{percent}"] = _times(ours.saved, ridge.saved)
        told[f"times_stronger_ridge_at_{percent}"] = _times(ours.saved, max(ridge.saved, tuned.saved))
    told["same_choice"] = {kind: round(same, 4) for kind, same in found.robust.items()}
    told["same_choice_of_those_to_cheaper"] = {kind: round(same, 4) for kind, same in found.robust_away.items()}
    told["same_choice_by_one_choice_for_all"] = round(found.one_choice, 4)
    told |= {"oracle_saved": round(found.oracle_saved, 4), "oracle_kept": round(found.oracle_kept, 4)}
    return told | {"abstained": round(found.abstained, 4), "calibration_error": round(found.calibration, 4)}


def _times(ours: float, other: float) -> float | None:
    return round(ours / other, 2) if other > 1e-9 else None


def decision_ms(router: Router, matrix: Matrix, encode: Encoder | None) -> dict[str, Any]:
    """CPU milliseconds of a decision: by the words, with the embedding in this process, and with it as the gateway asks
    for it."""
    router = replace(router, points=router.points or {"0.99": (0.0, 0.0)})  # where none was proven nothing is decided
    prompts, point = [sample.prompt for sample in matrix.samples[:220]], next(iter(router.points))
    allowed = frozenset(router.models)
    plain, whole = [], []
    for prompt in prompts:
        began = time.thread_time()
        choose(router, prompt, None, allowed, point)
        plain.append(time.thread_time() - began)
        if encode is not None:
            began = time.process_time()  # the model computes on a thread of its own
            choose(router, prompt, encode.embed([encode.truncate(text_to_embed(prompt), TOKENS)])[0], allowed, point)
            whole.append(time.process_time() - began)
    told: dict[str, Any] = {"decision_ms_p50": _ms(plain, 50), "decision_ms_p95": _ms(plain, 95)}
    if whole:
        told |= {"decision_with_embedding_ms_p50": _ms(whole, 50), "decision_with_embedding_ms_p95": _ms(whole, 95)}
        told |= measured(router, prompts)
    return told


def _ms(seconds: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(seconds, percent)) * 1000, 3)


def of_matrix(path: Path, encode: Encoder | None, cache: Path | None, seed: int) -> dict[str, Any]:
    """Figures of any evaluation set."""
    usable = read_usable(path)
    matrix = usable.matrix
    vectors = cached_embeddings(encode, matrix, cache, path.stem)
    found = evaluate(matrix, vectors, seed=seed, progress=_progress, embed=_briefly(encode))
    told: dict[str, Any] = {
        "rows": len(matrix.samples),
        "rows_left_out": usable.rows_left_out,
        "models": matrix.models,
        "models_left_out": usable.models_left_out,
        "groups": len({s.group for s in matrix.samples}),
        "folds_by": "prompts" if usable.by_prompts else "groups",
    }
    router = train(matrix, vectors, KEEPS, seed=seed)
    strange = routing_strange.measured(router)
    return told | figures(found, vectors) | strange | decision_ms(router, matrix, encode)


def of_routellm(
    folder: Path, encode: Encoder | None, cache: Path | None, seed: int, only: str | None = None
) -> dict[str, Any]:
    """Shares of strong calls for half the gap, on both sets, or on one of them."""
    told: dict[str, Any] = {}
    for name, (target, ridge) in TARGETS.items():
        if only is not None and name != only:
            continue
        matrix = routellm(folder / f"routellm_{name}.csv.gz")
        vectors = cached_embeddings(encode, matrix, cache, name)
        found = evaluate(matrix, vectors, seed=seed, progress=_progress, embed=_briefly(encode))
        weak, strong = matrix.scores[:, 0], matrix.scores[:, 1]
        told[name] = {
            "rows": len(weak),
            "strong_share_for_half_the_gap": round(_share(found.predicted, matrix), 4),
            "ridge_share": round(_share(found.plain, matrix), 4),
            "tuned_ridge_share": round(_share(found.tuned_plain, matrix), 4),
            "random_share": 0.5,
            "oracle_share": round(strong_share(weak, strong, strong - weak), 4),
            "target": target,
            "stated_ridge_share": ridge,
        } | figures(found, vectors)
        some = np.sort(np.random.default_rng(seed).permutation(len(weak))[:TIMED])
        router = train(matrix.take(some), None if vectors is None else vectors[some], KEEPS, seed=seed)
        told[name] |= routing_strange.measured(router) | decision_ms(router, matrix, encode)
    return told


def _briefly(encode: Encoder | None) -> Embed | None:
    if encode is None:
        return None
    return lambda prompts: encode.embed([encode.truncate(text_to_embed(prompt), TOKENS) for prompt in prompts])


def _share(told: Any, matrix: Matrix) -> float:
    return strong_share(matrix.scores[:, 0], matrix.scores[:, 1], told[:, 1] - told[:, 0])


def _progress(done: int, total: int) -> None:
    sys.stderr.write(f"fold {done} of {total}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix", nargs="?", type=Path)
    parser.add_argument("--routellm", type=Path, metavar="DIR")
    parser.add_argument("--only", choices=sorted(TARGETS), help="one of the sets of --routellm")
    parser.add_argument("--text-only", action="store_true", help="route by the words alone")
    parser.add_argument("--cache", type=Path, help="folder for embeddings between runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    encode = None if given.text_only else encoder()
    try:
        if given.routellm is not None:
            if not given.routellm.is_dir():
                hint = "Name the folder with routellm_mmlu.csv.gz and routellm_gsm8k.csv.gz."
                raise Invalid(f"{given.routellm} is not there", code="data_absent", hint=hint)
            told = of_routellm(given.routellm, encode, given.cache, given.seed, given.only)
        elif given.matrix is not None:
            told = of_matrix(given.matrix, encode, given.cache, given.seed)
        else:
            parser.error("name a MATRIX.jsonl, or --routellm DIR")
    except GroundplanError as error:
        sys.stderr.write(f"routing: {error}\n")
        return error.exit_code
    told |= {"seed": given.seed, "machine": machine()}
    told["commit"] = commit()
    if given.json:
        print(json.dumps(told))
    else:
        for key, value in told.items():
            print(f"{key}: {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
