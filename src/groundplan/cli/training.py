"""Trains and evaluates learned routers, with heavy libraries: importing this module takes time. The commands are in
`routing`; `economics` decides what a router must prove."""

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
from groundplan.economics.routing.learn.fit import train as learn
from groundplan.economics.routing.learn.operating_points import label
from groundplan.economics.routing.model import LAYERS, TOKENS, Floats, Matrix, Router
from groundplan.economics.routing.versions import registry
from groundplan.economics.routing.watch import drift

EMBEDDED = "all-minilm-l6-v2"
"""Model whose embeddings a router learns from."""
PATIENCE = 600.0
OWN = 0.98
"""Share of prompts with only known words from which on they may be those of the router's training."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A training set, its origin, and the number of calls left out because a router had chosen their model."""

    matrix: Matrix
    origin: str
    left_out: int = 0
    by_outcomes: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """The settings of a training: name, share of quality to keep, embeddings, target folder."""

    name: str
    keep: float
    embedded: bool
    folder: Path


def checked(name: str, keep: float, embedded: bool, folder: Path) -> Wanted:
    """The settings after checks. Raises `Invalid` (`router_name`, `keep_range`)."""
    registry.check_name(name)
    if not 0.5 <= keep <= 1:  # also what is no number
        hint = "Name a share from 0.5 to 1, such as 0.99."
        raise Invalid(f"--keep {keep} is not a share of quality to keep", code="keep_range", hint=hint)
    return Wanted(name, keep, embedded, folder)


def train(wanted: Wanted, learned: Learned) -> tuple[dict[str, Any], str]:
    """Train a router, evaluate it on unseen prompts, and store it; returns its figures as JSON and text. Raises
    `Conflict` (`router_unproven`) if the prompts do not prove the share."""
    matrix = learned.matrix
    asked = tuple(sorted({*KEEPS, wanted.keep}, reverse=True))
    keeps = tuple(sorted({*asked, *STRICTER}, reverse=True))
    vectors = embedded(matrix) if wanted.embedded else None
    found = evaluate(matrix, vectors, keeps, embed=embedder() if wanted.embedded else None, at=wanted.keep)
    if lowest_shown_point(found.routed, wanted.keep) is None:
        raise _unproven(found, wanted.keep, len(matrix.samples))
    router = learn(matrix, vectors, keeps, name=wanted.name)
    best = {label(each): lowest_shown_point(found.routed, each) for each in asked}
    points = {key: at for key, at in best.items() if at is not None and at in router.points}
    if label(wanted.keep) not in points:
        raise _unproven(found, wanted.keep, len(matrix.samples))
    by = {"embedded by": EMBEDDED} if wanted.embedded else {}
    told = {"from": learned.origin, **_trained(found, matrix, points), **by}
    version = registry.save_router(wanted.folder, replace(_with_points(router, points), trained=told))
    digest = registry.router_digest(wanted.folder, version)
    value = {"router": version, "digest": digest, "from": learned.origin, "left_out": learned.left_out}
    value |= {"operating_points": points, **figures(found)}
    if learned.by_outcomes:
        value["oracle_saved"] = None  # the best of scores that are right on average only would be chance
    use = f"Write `routing: {{by: learned, router: {version}, digest: {digest}}}` to use it."
    left = learned.left_out
    out = f"\n{left} calls were left out, because a router had chosen their model by the prompt." if left else ""
    at = points[label(wanted.keep)]
    if at != label(wanted.keep):
        saved = found.routed[at].saved
        out += f"\n{label(wanted.keep)} is shown by the point that aims at {at} alone, which saves {saved:.1%}."
    return value, f"{version}\n{text(found)}{out}\n{use}"


def trial(answers: Path) -> tuple[dict[str, Any], str]:
    """How well a router could do that was learned from these prompts."""
    found = evaluate(read_matrix(answers), None)
    return figures(found), text(found)


def test(answers: Path, folder: Path, name: str) -> tuple[dict[str, Any], str]:
    """A kept router on prompts that it should not have been trained on, and whether it may have been. Raises
    `NotFound`, `Conflict` (`router_models`)."""
    matrix, known = read_matrix(answers), registry.load_router(folder, name)
    value = judged(known, matrix, None if known.full is None else embedded(matrix, known))
    rows = [
        (key, f"{each['saved']:.1%}", f"{each['kept']:.1%}", f"{each['low']:.1%} to {each['high']:.1%}",
         "yes" if each["shown"] else "not shown")
        for key, each in value["points"].items()
    ]  # fmt: skip
    lines = [table(("keep", "saved", "kept", "95 %", "shown"), rows), drifted(value), *_own(value["all_words_known"])]
    return value, "\n".join(lines)


def _own(known: float | None) -> list[str]:
    """A warning that a router may be evaluated on its own training prompts, which gives too good figures."""
    if known is None or known < OWN:
        return []
    return [
        f"{known:.0%} of these prompts have only words that were in its training. If it was trained on them, these "
        "figures flatter it: evaluate it on other prompts, or leave out --router, which judges by prompts left out"
    ]


def learned_from(answers: Path | None, source: str | None, workload: str | None, home: Path | None) -> Learned:
    """The training set: a file, or judged pairs (`judges`) or `outcomes` of a workload's own calls. Raises `Invalid` if
    none is named, or evidence is insufficient."""
    if answers is not None and source is None and workload is None:
        return Learned(read_matrix(answers), f"the set {answers.name}")
    if answers is not None or source is None or workload is None:
        hint = "Name a SET.jsonl, or `--from judges --workload NAME`, or `--from outcomes --workload NAME`."
        raise Invalid("it is not clear what to learn from", code="routing_source", hint=hint)
    body = {"workload": workload, "from": source}
    rows = ControlClient.connect(home, PATIENCE).post("/api/routing/evidence", body)["rows"]
    if source == "judges":
        pairs = msgspec.convert(rows, list[Pair])
        return Learned(matrix_from_pairs(pairs, workload), f"{source} of {workload}", count_chosen(pairs))
    verdicts = msgspec.convert(rows, list[Verdict])
    return Learned(matrix_from_verdicts(verdicts, workload), f"{source} of {workload}", by_outcomes=True)


def embedded(matrix: Matrix, router: Router | None = None) -> Floats:
    """Embeddings of the prompts as the gateway will have them for `router`; None: for one that is learned now. Raises
    `NotFound` where the model is not here."""
    return embedder(router)([sample.prompt for sample in matrix.samples])


def embedder(router: Router | None = None) -> Callable[[Sequence[str]], Floats]:
    """What embeds questions as the gateway does. Raises `NotFound` where the model is not here."""

    from groundplan.knowledge.embedding.openvino_encoder import load_encoder, load_question_encoder  # noqa: PLC0415 -- with --embedded

    folder = load_settings().models / EMBEDDED
    if not (folder / "model.safetensors").exists():
        hint = "Run `groundplan up` once; it fetches the model."
        raise NotFound(f"the embedding model is not in {folder}", code="embedding_model", hint=hint)
    most, layers = (TOKENS, LAYERS) if router is None else (router.tokens, router.layers)
    encoder = load_question_encoder(folder, load_encoder(folder), layers)
    return lambda texts: encoder.embed([encoder.truncate(text_to_embed(text, router), most) for text in texts])


def judged(router: Router, matrix: Matrix, vectors: Floats | None) -> dict[str, Any]:
    """A router as it is, on a set that it was not trained on."""

    if set(router.models) != set(matrix.models):
        hint = f"It chooses among: {', '.join(router.models)}."
        raise Conflict("the set is about other models than the router", code="router_models", hint=hint)
    order = [matrix.models.index(model) for model in router.models]
    same = replace(matrix, models=router.models, scores=matrix.scores[:, order], costs=matrix.costs[:, order])
    keeps = [float(key) for key in router.points]
    picked, expected, _ = apply(router, same, vectors, keeps)
    kept = {key: held_out_result(same, router.strongest, chosen) for key, chosen in picked.items()}
    points = {
        key: {
            "saved": each.saved, "kept": each.kept, "low": each.low, "high": each.high,
            "shown": each.low >= float(key),
        }
        for key, each in kept.items()
    }  # fmt: skip
    verdicts = [
        drift.Verdict(model, float(told), float(seen))
        for column, model in enumerate(router.models)
        for told, seen in zip(expected[:, column], same.scores[:, column], strict=True)
    ]
    found = drift.find_drift(verdicts)
    return {
        "router": f"{router.name}@{router.version}",
        "points": points,
        "calibration_error": calibration_error(expected, same.scores),
        "all_words_known": fully_known_share(router, same),
        "drift": [
            {"model": each.model, "half": each.half, "expected": each.expected, "seen": each.seen} for each in found
        ],
        "drifted": bool(found) if len(same.samples) >= drift.LEAST else None,
    }


def drifted(value: dict[str, Any]) -> str:
    """What `_judged` says of drift, in words."""
    if value["drifted"] is None:
        return "expectations: too few prompts to say whether it drifted"
    lines = [
        f"expectations: {each['model']} scored {each['seen']:.1%} and {each['expected']:.1%} was expected"
        + (f", of those of which it expects {each['half']}" if each["half"] else "")
        for each in value["drift"]
    ]
    return "\n".join([*lines, "drifted: train it again"]) if lines else "expectations match what is observed"


def _unproven(found: Evaluation, keep: float, prompts: int) -> Conflict:
    """That prompts do not show what a router would have to."""

    at, least = found.routed[label(keep)], least_prompts(keep)
    if at.saved <= 0 and at.low >= keep:
        return Conflict(
            f"on {prompts:,} prompts it has not seen this router saves nothing against {found.best} for every call",
            code="router_unproven",
            hint=f"Give more prompts, or ask for less with --keep; till then {found.best} alone is the right one.",
        )
    told = f"saves {at.saved:.1%} and keeps {at.kept:.1%} (95 %: {at.low:.1%} to {at.high:.1%})"
    few = f" ({least:,} without a single loss are the fewest)" if least is not None and prompts < least else ""
    return Conflict(
        f"on {prompts:,} prompts it has not seen this router {told}; that it keeps {keep:.4g} is not shown",
        code="router_unproven",
        hint=f"Give more prompts{few}, or ask for less with --keep; the strongest model stays the right one till then.",
    )


def _with_points(router: Router, points: dict[str, str]) -> Router:
    """With those operating points alone by which a share is shown to be kept."""
    return replace(
        router,
        points={key: router.points[at] for key, at in points.items()},
        doubted={key: router.doubted[at] for key, at in points.items() if at in router.doubted},
    )


def _trained(found: Evaluation, matrix: Matrix, points: dict[str, str]) -> dict[str, str]:
    """What is kept with a router of how it was judged."""
    told = {
        "prompts": str(len(matrix.samples)),
        "groups": str(len({sample.group for sample in matrix.samples})),
        "trained": SystemClock().now().date().isoformat(),
        "against": found.best,
        "calibration": f"{found.calibration:.5f}",
    }
    for key, at in points.items():
        each, ridge = found.routed[at], max(found.ridge[at].saved, found.tuned[at].saved)
        figures = {"saved": each.saved, "kept": each.kept, "low": each.low, "high": each.high, "ridge saved": ridge}
        told |= {f"{name} at {key}": f"{value:.4f}" for name, value in figures.items()}
    return told


def figures(found: Evaluation) -> dict[str, Any]:
    return {
        "best_single": found.best,
        "points": {
            key: {
                "saved": each.saved,
                "kept": each.kept,
                "error": each.error,
                "low": each.low,
                "high": each.high,
                "shown": each.low >= float(key),
                "ridge_saved": found.ridge[key].saved,
                "tuned_ridge_saved": found.tuned[key].saved,
            }
            for key, each in found.routed.items()
        },
        "oracle_saved": found.oracle_saved,
        "abstained": found.abstained,
        "same_choice_at": found.at,
        "same_choice": found.robust,
        "same_choice_away": found.robust_away,
        "one_choice": found.one_choice,
        "calibration_error": found.calibration,
    }


def text(found: Evaluation) -> str:
    rows = [
        (
            key, f"{each.saved:.1%}", f"{each.kept:.1%} ({each.low:.1%} to {each.high:.1%})",
            "yes" if each.low >= float(key) else "not shown", f"{found.ridge[key].saved:.1%}",
            f"{found.tuned[key].saved:.1%}",
        )
        for key, each in found.routed.items()
    ]  # fmt: skip
    head = ("keep", "saved", "kept, on prompts never seen (95 %)", "shown", "a plain ridge saves", "a tuned one")
    same = ", ".join(f"{kind} {share:.0%}" for kind, share in found.robust.items())
    away = ", ".join(f"{kind} {share:.0%}" for kind, share in found.robust_away.items()) or "none went elsewhere"
    lines = (
        f"against {found.best} for every call", table(head, rows),
        f"the same choice when rephrased, at {found.at}: {same} (always the most frequent one: {found.one_choice:.0%})",
        f"of those that went to a cheaper model: {away}",
    )  # fmt: skip
    return "\n".join(lines)
