"""Trains and evaluates learned routers. It uses heavy libraries, so importing this module takes time; the commands are
in `routing`. `economics` decides what a router must prove."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from groundplan.cli.client import ControlClient
from groundplan.cli.output import table
from groundplan.core.clock import SystemClock
from groundplan.core.errors import Conflict, Invalid, NotFound
from groundplan.core.settings import load_settings
from groundplan.economics.routing.decide.predict import text_to_embed
from groundplan.economics.routing.learn.evaluate import (
    KEEPS,
    STRICTER,
    Evaluation,
    apply,
    calibration_error,
    evaluate,
    fully_known_share,
    held_out_result,
    least_prompts,
    lowest_shown_point,
)
from groundplan.economics.routing.learn.evaluation_set import read_matrix
from groundplan.economics.routing.learn.evidence import (
    Pair,
    Verdict,
    count_chosen,
    matrix_from_pairs,
    matrix_from_verdicts,
)
from groundplan.economics.routing.learn.fit import train as fit_router
from groundplan.economics.routing.learn.operating_points import label
from groundplan.economics.routing.model import LAYERS, TOKENS, Floats, Matrix, Router
from groundplan.economics.routing.versions import registry
from groundplan.economics.routing.watch import drift

EMBEDDING_MODEL = "all-minilm-l6-v2"
"""Model whose embeddings a router learns from."""
EVIDENCE_TIMEOUT_SECONDS = 600.0
OWN_TRAINING_SHARE = 0.98
"""Share of prompts with only known words above which they may be those of the router's own training."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A training set, its origin, and the number of calls left out because a router had chosen their model."""

    matrix: Matrix
    origin: str
    left_out: int = 0
    by_outcomes: bool = False


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The settings of a training: name, share of quality to keep, whether to use embeddings, target folder."""

    name: str
    keep: float
    use_embeddings: bool
    folder: Path


def check_settings(name: str, keep: float, use_embeddings: bool, folder: Path) -> TrainingSettings:
    """The settings, checked. Raises `Invalid` (`router_name`, `keep_range`)."""
    registry.check_name(name)
    if not 0.5 <= keep <= 1:  # rejects NaN as well
        hint = "Name a share from 0.5 to 1, such as 0.99."
        raise Invalid(f"--keep {keep} is not a share of quality to keep", code="keep_range", hint=hint)
    return TrainingSettings(name, keep, use_embeddings, folder)


def train(settings: TrainingSettings, training_set: TrainingSet) -> tuple[dict[str, Any], str]:
    """Train a router, evaluate it on unseen prompts, and store it; returns its figures as JSON and as text. Raises
    `Conflict` (`router_unproven`) if the prompts do not prove the share."""
    matrix = training_set.matrix
    requested_keeps = tuple(sorted({*KEEPS, settings.keep}, reverse=True))
    keeps = tuple(sorted({*requested_keeps, *STRICTER}, reverse=True))
    vectors = embed_prompts(matrix) if settings.use_embeddings else None
    evaluation = evaluate(
        matrix, vectors, keeps, embed=prompt_embedder() if settings.use_embeddings else None, at=settings.keep
    )
    if lowest_shown_point(evaluation.routed, settings.keep) is None:
        raise _unproven_error(evaluation, settings.keep, len(matrix.samples))
    router = fit_router(matrix, vectors, keeps, name=settings.name)
    points_by_keep = {label(share): lowest_shown_point(evaluation.routed, share) for share in requested_keeps}
    points = {key: point for key, point in points_by_keep.items() if point is not None and point in router.points}
    if label(settings.keep) not in points:
        raise _unproven_error(evaluation, settings.keep, len(matrix.samples))
    embedded_by = {"embedded by": EMBEDDING_MODEL} if settings.use_embeddings else {}
    record = {"from": training_set.origin, **_training_record(evaluation, matrix, points), **embedded_by}
    version = registry.save_router(settings.folder, replace(_with_proven_points(router, points), trained=record))
    digest = registry.router_digest(settings.folder, version)
    value = {"router": version, "digest": digest, "from": training_set.origin, "left_out": training_set.left_out}
    value |= {"operating_points": points, **evaluation_json(evaluation)}
    if training_set.by_outcomes:
        value["oracle_saved"] = None  # the best of scores that are right on average only would be chance
    usage = f"Write `routing: {{by: learned, router: {version}, digest: {digest}}}` to use it."
    left_out = training_set.left_out
    notes = (
        f"\n{left_out} calls were left out, because a router had chosen their model by the prompt." if left_out else ""
    )
    point = points[label(settings.keep)]
    if point != label(settings.keep):
        saved = evaluation.routed[point].saved
        notes += f"\n{label(settings.keep)} is shown by the point that aims at {point} alone, which saves {saved:.1%}."
    return value, f"{version}\n{evaluation_text(evaluation)}{notes}\n{usage}"


def evaluate_set(answers: Path) -> tuple[dict[str, Any], str]:
    """Estimate how good a router trained on these prompts would be; returns figures as JSON and as text."""
    evaluation = evaluate(read_matrix(answers), None)
    return evaluation_json(evaluation), evaluation_text(evaluation)


def evaluate_stored_router(answers: Path, folder: Path, name: str) -> tuple[dict[str, Any], str]:
    """Evaluate a stored router on prompts on which it should not have been trained, and warn if it may have been.
    Raises `NotFound`, `Conflict` (`router_models`)."""
    matrix, router = read_matrix(answers), registry.load_router(folder, name)
    value = evaluate_router(router, matrix, None if router.full is None else embed_prompts(matrix, router))
    rows = [
        (key, f"{point['saved']:.1%}", f"{point['kept']:.1%}", f"{point['low']:.1%} to {point['high']:.1%}",
         "yes" if point["shown"] else "not shown")
        for key, point in value["points"].items()
    ]  # fmt: skip
    lines = [
        table(("keep", "saved", "kept", "95 %", "shown"), rows),
        drift_text(value),
        *_own_training_warning(value["all_words_known"]),
    ]
    return value, "\n".join(lines)


def _own_training_warning(known_share: float | None) -> list[str]:
    """A warning that a router may be evaluated on its own training prompts, which gives too good figures."""
    if known_share is None or known_share < OWN_TRAINING_SHARE:
        return []
    return [
        f"{known_share:.0%} of these prompts have only words that were in its training. If it was trained on them, "
        "these figures flatter it: evaluate it on other prompts, or leave out --router, which judges by prompts left "
        "out"
    ]


def load_training_set(answers: Path | None, source: str | None, workload: str | None, home: Path | None) -> TrainingSet:
    """The training set: a file, or judged pairs (`judges`) or `outcomes` of a workload's own calls. Raises `Invalid` if
    none is named, or evidence is insufficient."""
    if answers is not None and source is None and workload is None:
        return TrainingSet(read_matrix(answers), f"the set {answers.name}")
    if answers is not None or source is None or workload is None:
        hint = "Name a SET.jsonl, or `--from judges --workload NAME`, or `--from outcomes --workload NAME`."
        raise Invalid("it is not clear what to learn from", code="routing_source", hint=hint)
    body = {"workload": workload, "from": source}
    rows = ControlClient.connect(home, EVIDENCE_TIMEOUT_SECONDS).post("/api/routing/evidence", body)["rows"]
    if source == "judges":
        pairs = msgspec.convert(rows, list[Pair])
        return TrainingSet(matrix_from_pairs(pairs, workload), f"{source} of {workload}", count_chosen(pairs))
    verdicts = msgspec.convert(rows, list[Verdict])
    return TrainingSet(matrix_from_verdicts(verdicts, workload), f"{source} of {workload}", by_outcomes=True)


def embed_prompts(matrix: Matrix, router: Router | None = None) -> Floats:
    """Embeddings of the prompts as the gateway computes them for `router`; None: for a router trained now. Raises
    `NotFound` if the model is not installed."""
    return prompt_embedder(router)([sample.prompt for sample in matrix.samples])


def prompt_embedder(router: Router | None = None) -> Callable[[Sequence[str]], Floats]:
    """A function that embeds questions as the gateway does. Raises `NotFound` if the model is not installed."""

    from groundplan.knowledge.embedding.openvino_encoder import load_encoder, load_question_encoder  # noqa: PLC0415 -- with --embedded

    folder = load_settings().models / EMBEDDING_MODEL
    if not (folder / "model.safetensors").exists():
        hint = "Run `groundplan up` once; it fetches the model."
        raise NotFound(f"the embedding model is not in {folder}", code="embedding_model", hint=hint)
    max_tokens, layers = (TOKENS, LAYERS) if router is None else (router.tokens, router.layers)
    encoder = load_question_encoder(folder, load_encoder(folder), layers)
    return lambda texts: encoder.embed([encoder.truncate(text_to_embed(text, router), max_tokens) for text in texts])


def evaluate_router(router: Router, matrix: Matrix, vectors: Floats | None) -> dict[str, Any]:
    """Figures of a router on a set on which it was not trained. Raises `Conflict` (`router_models`)."""

    if set(router.models) != set(matrix.models):
        hint = f"It chooses among: {', '.join(router.models)}."
        raise Conflict("the set is about other models than the router", code="router_models", hint=hint)
    order = [matrix.models.index(model) for model in router.models]
    reordered = replace(matrix, models=router.models, scores=matrix.scores[:, order], costs=matrix.costs[:, order])
    keeps = [float(key) for key in router.points]
    picked, expected, _ = apply(router, reordered, vectors, keeps)
    results = {key: held_out_result(reordered, router.strongest, chosen) for key, chosen in picked.items()}
    points = {
        key: {
            "saved": result.saved, "kept": result.kept, "low": result.low, "high": result.high,
            "shown": result.low >= float(key),
        }
        for key, result in results.items()
    }  # fmt: skip
    verdicts = [
        drift.Verdict(model, float(predicted), float(observed))
        for column, model in enumerate(router.models)
        for predicted, observed in zip(expected[:, column], reordered.scores[:, column], strict=True)
    ]
    drifts = drift.find_drift(verdicts)
    return {
        "router": f"{router.name}@{router.version}",
        "points": points,
        "calibration_error": calibration_error(expected, reordered.scores),
        "all_words_known": fully_known_share(router, reordered),
        "drift": [
            {"model": result.model, "half": result.half, "expected": result.expected, "seen": result.seen}
            for result in drifts
        ],
        "drifted": bool(drifts) if len(reordered.samples) >= drift.LEAST else None,
    }


def drift_text(value: dict[str, Any]) -> str:
    """The drift found by `evaluate_router`, for people."""
    if value["drifted"] is None:
        return "expectations: too few prompts to say whether it drifted"
    lines = [
        f"expectations: {row['model']} scored {row['seen']:.1%} and {row['expected']:.1%} was expected"
        + (f", of those of which it expects {row['half']}" if row["half"] else "")
        for row in value["drift"]
    ]
    return "\n".join([*lines, "drifted: train it again"]) if lines else "expectations match what is observed"


def _unproven_error(evaluation: Evaluation, keep: float, prompts: int) -> Conflict:
    """The error that the prompts do not prove what a router must."""

    point, least_needed = evaluation.routed[label(keep)], least_prompts(keep)
    if point.saved <= 0 and point.low >= keep:
        return Conflict(
            f"on {prompts:,} prompts it has not seen this router saves nothing against {evaluation.best} for every "
            "call",
            code="router_unproven",
            hint=f"Give more prompts, or ask for less with --keep; till then {evaluation.best} alone is the right one.",
        )
    measured = f"saves {point.saved:.1%} and keeps {point.kept:.1%} (95 %: {point.low:.1%} to {point.high:.1%})"
    fewest = (
        f" ({least_needed:,} without a single loss are the fewest)"
        if least_needed is not None and prompts < least_needed
        else ""
    )
    return Conflict(
        f"on {prompts:,} prompts it has not seen this router {measured}; that it keeps {keep:.4g} is not shown",
        code="router_unproven",
        hint=f"Give more prompts{fewest}, or ask for less with --keep; the strongest model stays the right one till "
        "then.",
    )


def _with_proven_points(router: Router, points: dict[str, str]) -> Router:
    """The router with only those operating points that are shown to keep a share."""
    return replace(
        router,
        points={key: router.points[point] for key, point in points.items()},
        doubted={key: router.doubted[point] for key, point in points.items() if point in router.doubted},
    )


def _training_record(evaluation: Evaluation, matrix: Matrix, points: dict[str, str]) -> dict[str, str]:
    """Record of the evaluation that is stored with a router."""
    record = {
        "prompts": str(len(matrix.samples)),
        "groups": str(len({sample.group for sample in matrix.samples})),
        "trained": SystemClock().now().date().isoformat(),
        "against": evaluation.best,
        "calibration": f"{evaluation.calibration:.5f}",
    }
    for key, point in points.items():
        each, ridge = evaluation.routed[point], max(evaluation.ridge[point].saved, evaluation.tuned[point].saved)
        rounded = {"saved": each.saved, "kept": each.kept, "low": each.low, "high": each.high, "ridge saved": ridge}
        record |= {f"{name} at {key}": f"{value:.4f}" for name, value in rounded.items()}
    return record


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "best_single": evaluation.best,
        "points": {
            key: {
                "saved": result.saved,
                "kept": result.kept,
                "error": result.error,
                "low": result.low,
                "high": result.high,
                "shown": result.low >= float(key),
                "ridge_saved": evaluation.ridge[key].saved,
                "tuned_ridge_saved": evaluation.tuned[key].saved,
            }
            for key, result in evaluation.routed.items()
        },
        "oracle_saved": evaluation.oracle_saved,
        "abstained": evaluation.abstained,
        "same_choice_at": evaluation.at,
        "same_choice": evaluation.robust,
        "same_choice_away": evaluation.robust_away,
        "one_choice": evaluation.one_choice,
        "calibration_error": evaluation.calibration,
    }


def evaluation_text(evaluation: Evaluation) -> str:
    rows = [
        (
            key, f"{result.saved:.1%}", f"{result.kept:.1%} ({result.low:.1%} to {result.high:.1%})",
            "yes" if result.low >= float(key) else "not shown", f"{evaluation.ridge[key].saved:.1%}",
            f"{evaluation.tuned[key].saved:.1%}",
        )
        for key, result in evaluation.routed.items()
    ]  # fmt: skip
    head = ("keep", "saved", "kept, on prompts never seen (95 %)", "shown", "a plain ridge saves", "a tuned one")
    same = ", ".join(f"{kind} {share:.0%}" for kind, share in evaluation.robust.items())
    away = ", ".join(f"{kind} {share:.0%}" for kind, share in evaluation.robust_away.items()) or "none went elsewhere"
    lines = (
        f"against {evaluation.best} for every call", table(head, rows),
        f"the same choice when rephrased, at {evaluation.at}: {same} (always the most frequent one: "
        f"{evaluation.one_choice:.0%})",
        f"of those that went to a cheaper model: {away}",
    )  # fmt: skip
    return "\n".join(lines)
