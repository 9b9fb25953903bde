"""How much a learned router saves while it keeps quality, on prompts it has never seen.

    python benchmarks/routing.py MATRIX.jsonl --json     any set of {"id", "group", "prompt", "scores", "costs"}
    python benchmarks/routing.py --routellm DIR --json   MMLU and GSM8K as RouteLLM published them

Folds never share a group; everything is learned and chosen on the other folds. Baselines are a plain TF-IDF ridge with
operating points chosen in the same way, random mixing, and the oracle. Without the embedding model the router uses the
words alone (`embedding`). Rows that lack a score or a cost of some model are left out and counted; fewer than ten
groups are too few to hold some out, so folds are of prompts then (`folds_by`).
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
from benchmarks.routing_call import measure_decisions
from benchmarks.routing_usable import read_usable

from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.settings import load_settings
from groundplan.economics.routing.decide.choose import choose
from groundplan.economics.routing.decide.predict import text_to_embed
from groundplan.economics.routing.learn.evaluate import KEEPS, Embed, Evaluation, evaluate
from groundplan.economics.routing.learn.evaluation_set import question_key
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.learn.operating_points import label
from groundplan.economics.routing.model import LAYERS, TOKENS, Doubles, Floats, Matrix, Router, Sample
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.openvino_encoder import load_encoder, load_question_encoder, precision_of

WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
PRICES = {WEAK: (0.6e-6, 0.6e-6), STRONG: (10e-6, 30e-6)}
"""US dollars per input and output token, as listed by the providers in 2024; answers there are about 150 tokens."""
TIMED_ROWS = 2000
"""Rows that the timed router is trained on: more do not make it larger."""
TARGETS = {"mmlu": (0.25, 0.275), "gsm8k": (0.37, 0.397)}


def load_local_encoder() -> Encoder | None:
    """The gateway's encoder of questions, if this machine has its model; nothing is downloaded."""
    settings = load_settings()
    folder = settings.models / "all-minilm-l6-v2"
    if not (folder / "model.safetensors").exists():
        return None
    return load_question_encoder(
        folder, load_encoder(folder, precision_of(settings.embedding_precision), threads=1), LAYERS
    )


def cached_embeddings(encoder: Encoder | None, matrix: Matrix, cache: Path | None, name: str) -> Floats | None:
    """Embeddings of all prompts, truncated as the gateway does; stored in the folder `cache`, if given, by the digest
    of these prompts."""
    if encoder is None:
        return None
    texts = [encoder.truncate(text_to_embed(sample.prompt), TOKENS) for sample in matrix.samples]
    if cache is None:
        return encoder.embed(texts)
    digest = hashlib.sha256("\0".join([str(LAYERS), *texts]).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    path = cache / f"{name}-{digest}.npy"
    if path.exists():
        cached: Floats = np.load(path)
        return cached
    vectors = encoder.embed(texts)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, vectors)
    return vectors


def read_routellm(path: Path) -> Matrix:
    """The matrix of one RouteLLM file; rows with the same prompt form a group. Raises `Invalid` for another file."""
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


def evaluation_figures(evaluation: Evaluation, vectors: Floats | None) -> dict[str, Any]:
    """The printed figures of an evaluation."""
    figures: dict[str, Any] = {"best_single": evaluation.best, "embedding": vectors is not None}
    for keep in KEEPS:
        name, percent = label(keep), f"{keep * 100:.0f}"
        ours, ridge, tuned = evaluation.routed[name], evaluation.ridge[name], evaluation.tuned[name]
        figures[f"saved_at_{percent}"] = round(ours.saved, 4)
        figures[f"kept_at_{percent}"] = round(ours.kept, 4)
        figures[f"kept_error_at_{percent}"] = round(ours.error, 4)
        figures[f"ridge_saved_at_{percent}"] = round(ridge.saved, 4)
        figures[f"ridge_kept_at_{percent}"] = round(ridge.kept, 4)
        figures[f"mixed_saved_at_{percent}"] = round(evaluation.mixed[name], 4)
        figures[f"tuned_ridge_saved_at_{percent}"] = round(tuned.saved, 4)
        figures[f"tuned_ridge_kept_at_{percent}"] = round(tuned.kept, 4)
        figures[f"times_ridge_at_{percent}"] = _ratio(ours.saved, ridge.saved)
        figures[f"times_stronger_ridge_at_{percent}"] = _ratio(ours.saved, max(ridge.saved, tuned.saved))
    figures["same_choice"] = {kind: round(share, 4) for kind, share in evaluation.robust.items()}
    figures["same_choice_of_those_to_cheaper"] = {
        kind: round(share, 4) for kind, share in evaluation.robust_away.items()
    }
    figures["same_choice_by_one_choice_for_all"] = round(evaluation.one_choice, 4)
    figures |= {"oracle_saved": round(evaluation.oracle_saved, 4), "oracle_kept": round(evaluation.oracle_kept, 4)}
    return figures | {
        "abstained": round(evaluation.abstained, 4),
        "calibration_error": round(evaluation.calibration, 4),
    }


def _ratio(ours: float, other: float) -> float | None:
    return round(ours / other, 2) if other > 1e-9 else None


def measure_decision_ms(router: Router, matrix: Matrix, encoder: Encoder | None) -> dict[str, Any]:
    """CPU milliseconds of a decision: by the words, with the embedding in this process, and with the embedding
    requested as the gateway does."""
    router = replace(router, points=router.points or {"0.99": (0.0, 0.0)})  # without a point nothing is decided
    prompts, point = [sample.prompt for sample in matrix.samples[:220]], next(iter(router.points))
    allowed = frozenset(router.models)
    text_only_seconds, embedding_seconds = [], []
    for prompt in prompts:
        started = time.thread_time()
        choose(router, prompt, None, allowed, point)
        text_only_seconds.append(time.thread_time() - started)
        if encoder is not None:
            started = time.process_time()  # the model computes on a thread of its own
            choose(router, prompt, encoder.embed([encoder.truncate(text_to_embed(prompt), TOKENS)])[0], allowed, point)
            embedding_seconds.append(time.process_time() - started)
    figures: dict[str, Any] = {
        "decision_ms_p50": _ms(text_only_seconds, 50),
        "decision_ms_p95": _ms(text_only_seconds, 95),
    }
    if embedding_seconds:
        figures |= {
            "decision_with_embedding_ms_p50": _ms(embedding_seconds, 50),
            "decision_with_embedding_ms_p95": _ms(embedding_seconds, 95),
        }
        figures |= measure_decisions(router, prompts)
    return figures


def _ms(seconds: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(seconds, percent)) * 1000, 3)


def measure_matrix(path: Path, encoder: Encoder | None, cache: Path | None, seed: int) -> dict[str, Any]:
    """Figures of any evaluation set."""
    usable = read_usable(path)
    matrix = usable.matrix
    vectors = cached_embeddings(encoder, matrix, cache, path.stem)
    evaluation = evaluate(matrix, vectors, seed=seed, progress=_progress, embed=_question_embedder(encoder))
    figures: dict[str, Any] = {
        "rows": len(matrix.samples),
        "rows_left_out": usable.rows_left_out,
        "models": matrix.models,
        "models_left_out": usable.models_left_out,
        "groups": len({sample.group for sample in matrix.samples}),
        "folds_by": "prompts" if usable.by_prompts else "groups",
    }
    router = train(matrix, vectors, KEEPS, seed=seed)
    abstention = routing_strange.abstention_rates(router)
    return figures | evaluation_figures(evaluation, vectors) | abstention | measure_decision_ms(router, matrix, encoder)


def measure_routellm(
    folder: Path, encoder: Encoder | None, cache: Path | None, seed: int, only: str | None = None
) -> dict[str, Any]:
    """Figures of both RouteLLM sets, or of one, with the share of strong calls that closes half the gap."""
    figures: dict[str, Any] = {}
    for name, (target, ridge) in TARGETS.items():
        if only is not None and name != only:
            continue
        matrix = read_routellm(folder / f"routellm_{name}.csv.gz")
        vectors = cached_embeddings(encoder, matrix, cache, name)
        evaluation = evaluate(matrix, vectors, seed=seed, progress=_progress, embed=_question_embedder(encoder))
        weak, strong = matrix.scores[:, 0], matrix.scores[:, 1]
        figures[name] = {
            "rows": len(weak),
            "strong_share_for_half_the_gap": round(_strong_share(evaluation.predicted, matrix), 4),
            "ridge_share": round(_strong_share(evaluation.plain, matrix), 4),
            "tuned_ridge_share": round(_strong_share(evaluation.tuned_plain, matrix), 4),
            "random_share": 0.5,
            "oracle_share": round(strong_share(weak, strong, strong - weak), 4),
            "target": target,
            "stated_ridge_share": ridge,
        } | evaluation_figures(evaluation, vectors)
        timed = np.sort(np.random.default_rng(seed).permutation(len(weak))[:TIMED_ROWS])
        router = train(matrix.take(timed), None if vectors is None else vectors[timed], KEEPS, seed=seed)
        figures[name] |= routing_strange.abstention_rates(router) | measure_decision_ms(router, matrix, encoder)
    return figures


def _question_embedder(encoder: Encoder | None) -> Embed | None:
    if encoder is None:
        return None
    return lambda prompts: encoder.embed([encoder.truncate(text_to_embed(prompt), TOKENS) for prompt in prompts])


def strong_share(weak: Doubles, strong: Doubles, gain: Doubles, gap: float = 0.5) -> float:
    """The smallest share of calls that must go to the strong model, those with the highest expected gain first, to
    close that part of the gap between the two."""
    order = np.argsort(-gain, kind="stable")
    closed = np.cumsum((strong - weak)[order])
    return float((int(np.argmax(closed >= gap * (strong - weak).sum())) + 1) / len(order))


def _strong_share(predicted: Any, matrix: Matrix) -> float:
    return strong_share(matrix.scores[:, 0], matrix.scores[:, 1], predicted[:, 1] - predicted[:, 0])


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
    options = parser.parse_args(arguments)
    encoder = None if options.text_only else load_local_encoder()
    try:
        if options.routellm is not None:
            if not options.routellm.is_dir():
                hint = "Name the folder with routellm_mmlu.csv.gz and routellm_gsm8k.csv.gz."
                raise Invalid(f"{options.routellm} is not there", code="data_absent", hint=hint)
            figures = measure_routellm(options.routellm, encoder, options.cache, options.seed, options.only)
        elif options.matrix is not None:
            figures = measure_matrix(options.matrix, encoder, options.cache, options.seed)
        else:
            parser.error("name a MATRIX.jsonl, or --routellm DIR")
    except GroundplanError as error:
        sys.stderr.write(f"routing: {error}\n")
        return error.exit_code
    figures |= {"seed": options.seed, "machine": machine()}
    figures["commit"] = commit()
    if options.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key}: {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
