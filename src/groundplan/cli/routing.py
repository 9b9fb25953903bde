"""`groundplan routing`: train a learned router, judge one on prompts with known answers, explain a call's choice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption, settings_for
from groundplan.cli.output import emit, table
from groundplan.core.clock import SystemClock
from groundplan.core.errors import Conflict, Invalid, NotFound
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.runtime import openmp

if TYPE_CHECKING:
    from groundplan.economics.routing.learn.evaluate import Evaluation
    from groundplan.economics.routing.model import Floats, Matrix, Router

app = typer.Typer(help="Which model takes a call for `auto`: train, evaluate, explain.", rich_markup_mode=None)
SET = '{"id", "group", "prompt", "scores", "costs", "context"} a line.'
SetArgument = Annotated[Path, typer.Argument(metavar="SET.jsonl", help=SET)]
PATIENCE = 600.0
EMBEDDED = "all-minilm-l6-v2"
"""Model whose embeddings a router learns from."""


class Source(StrEnum):
    """What of a workload's own calls a router is learned from."""

    judges = "judges"
    outcomes = "outcomes"


@app.callback()
def routing() -> None:
    """Which model takes a call for `auto`: train, evaluate, explain."""


@app.command()
def train(
    name: Annotated[str, typer.Option("--name", help="Name of the router; it gets the next version.")],
    answers: Annotated[Path | None, typer.Argument(metavar="[SET.jsonl]", help=SET)] = None,
    source: Annotated[
        Source | None,
        typer.Option("--from", help="judges: pairs of answers of replays and shadows; outcomes: of A/B experiments."),
    ] = None,
    workload: Annotated[str | None, typer.Option("--workload", help="Whose kept calls, with --from.")] = None,
    keep: Annotated[float, typer.Option("--keep", help="Share of the strongest model's score to keep.")] = 0.99,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Learn from embeddings, too: the gateway then asks the search service.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn a router from a set, or from a workload's own calls, judge it on prompts it has not seen, and keep it where
    they show that it saves something at that quality."""
    from groundplan.economics.routing.learn.evaluate import KEEPS, STRICTER, evaluate, shown  # noqa: PLC0415 -- heavy
    from groundplan.economics.routing.learn.fit import train as learn  # noqa: PLC0415 -- heavy
    from groundplan.economics.routing.learn.operate import label  # noqa: PLC0415 -- heavy
    from groundplan.economics.routing.versions import registry  # noqa: PLC0415 -- heavy

    if find_spec("lightgbm") is not None:  # a bare system lacks a library of its, which is carried along
        openmp.restart_with(Home(settings_for(home).home).run / "lib", "groundplan.cli.main", sys.argv[1:])
    registry.check_name(name)
    if not 0.5 <= keep <= 1:  # also what is no number
        hint = "Name a share from 0.5 to 1, such as 0.99."
        raise Invalid(f"--keep {keep} is no share of quality to keep", code="keep_range", hint=hint)
    matrix, origin, left_out = _learned_from(answers, source, workload, home)
    asked = tuple(sorted({*KEEPS, keep}, reverse=True))
    keeps = tuple(sorted({*asked, *STRICTER}, reverse=True))
    vectors = _embedded(matrix) if embedded else None
    found = evaluate(matrix, vectors, keeps, embed=_embedder() if embedded else None)
    if shown(found.routed, keep) is None:
        raise _unproven(found, keep, len(matrix.samples))
    learned = learn(matrix, vectors, keeps, name=name)
    best = {label(each): shown(found.routed, each) for each in asked}
    points = {key: at for key, at in best.items() if at is not None and at in learned.points}
    if label(keep) not in points:
        raise _unproven(found, keep, len(matrix.samples))
    told = {"from": origin, **_trained(found, matrix, points), **({"embedded by": EMBEDDED} if embedded else {})}
    version = registry.keep(_folder(home), replace(_with_points(learned, points), trained=told))
    digest = registry.digest_of(_folder(home), version)
    value = {"router": version, "digest": digest, "from": origin, "left_out": left_out, "operating_points": points}
    value |= _figures(found)
    if source is Source.outcomes:
        value["oracle_saved"] = None  # the best of scores that are right on average only would be chance
    use = f"Write `routing: {{by: learned, router: {version}, digest: {digest}}}` to use it."
    out = f"\n{left_out} calls were left out: a router chose their model by what was asked." if left_out else ""
    emit(value, as_json, f"{version}\n{_text(found)}{out}\n{use}")


@app.command()
def evaluate(
    answers: SetArgument,
    router: Annotated[str | None, typer.Option("--router", help="NAME or NAME@VERSION; left out: learn anew.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a router on prompts with known answers, or how well one could do that was learned from them."""
    from groundplan.economics.routing.learn.evaluate import evaluate as cross  # noqa: PLC0415 -- heavy
    from groundplan.economics.routing.learn.matrix import read_matrix  # noqa: PLC0415 -- heavy
    from groundplan.economics.routing.versions import registry  # noqa: PLC0415 -- heavy

    matrix = read_matrix(answers)
    if router is None:
        found = cross(matrix, None)
        emit(_figures(found), as_json, _text(found))
        return
    known = registry.named(_folder(home), router)
    value = _judged(known, matrix, None if known.full is None else _embedded(matrix))
    rows = [
        (key, f"{each['saved']:.1%}", f"{each['kept']:.1%}", f"{each['low']:.1%} to {each['high']:.1%}",
         "yes" if each["shown"] else "not shown")
        for key, each in value["points"].items()
    ]  # fmt: skip
    emit(value, as_json, f"{table(('keep', 'saved', 'kept', '95 %', 'shown'), rows)}\n{_drifted(value)}")


@app.command("list")
def listed(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The learned routers of this HOME: versions, digests, and how well they did when they were trained."""
    from groundplan.economics.routing.versions import registry  # noqa: PLC0415 -- heavy

    folder = _folder(home)
    value = [
        {"router": version, "digest": registry.digest_of(folder, version), **registry.named(folder, version).trained}
        for version in registry.every(folder)
    ]
    rows = [
        (row["router"], row.get("trained", "-"), row.get("prompts", "-"), row.get("from", "-"), row["digest"][:12])
        for row in value
    ]
    nothing = "There is no learned router here. Train one: groundplan routing train SET.jsonl --name NAME"
    emit(
        {"routers": value},
        as_json,
        table(("router", "trained", "prompts", "from", "digest"), rows) if rows else nothing,
    )


@app.command()
def explain(
    call: Annotated[str, typer.Argument(metavar="CALL", help="Id of the call.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why a call went to its model."""
    found = ControlClient.connect(home).get(f"/api/calls/{call}")
    route = found.get("route")
    if route is None and found["chosen"]:
        emit({"call": call, "chosen": found["chosen"]}, as_json, "\n".join(found["chosen"]))
        return
    if route is None:
        hint = "Routing is declared as `routing: {by: rules}` of a workload, and holds for model `auto`."
        raise NotFound(f"nothing was chosen for the call {call[:80]}", code="not_routed", hint=hint)
    expected = route.get("expected") or {}
    text = f"{route['model']} at {route['deployment']}, by {route['by']}: {route['reason']}"
    if route.get("answered"):
        text += f"\nanswered at {route['answered']}"
    if expected:
        costs = route.get("costs") or {}
        rows = [
            (model, f"{score:.1%}", f"${costs[model]:.6f}" if model in costs else "-")
            for model, score in sorted(expected.items(), key=lambda each: -each[1])
        ]
        named = f"\nrouter {route['router']}" if route.get("router") else ""
        text += f"{named}\n{table(('model', 'expected quality', 'expected cost'), rows)}"
    for name, why in sorted((route.get("barred") or {}).items()):
        text += f"\n{name} takes none of these: {why}"
    emit({"call": call, **route}, as_json, text)


@app.command("trade-off")
def trade_off(
    workload: Annotated[str, typer.Argument(metavar="WORKLOAD", help="Name of the workload.")],
    days: Annotated[int, typer.Option("--days", min=1, max=92, help="How far back.")] = 30,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What each model and route of a workload costs, how good and how quick it is, with 95 % intervals."""
    value = ControlClient.connect(home).get("/api/routing/trade-off", workload=workload, days=str(days))
    rows = [
        (
            point["name"],
            point["calls"],
            f"${1000 * point['cost']['mean']:.4g}",
            _quality(point),
            f"{point['p95_ms']:.0f} ms ({point['p95']['low']:.0f} to {point['p95']['high']:.0f})",
            point["risk"] or "not assessed",
            ", ".join(name for name in ("today", "frontier", "unbeaten") if point[name]),
        )
        for point in value["points"]
    ]
    head = ("model or route", "calls", "1,000 calls cost", "quality", "p95", "risk", "")
    nothing = f"No model answered {workload} often enough in the last {days} days."
    lines = [table(head, rows) if rows else nothing, *value["told"], *(_kept(each) for each in value["quality"])]
    emit(value, as_json, "\n".join(lines))


def _kept(each: dict[str, Any]) -> str:
    """A floor in words."""
    head = f"{each['dimension']}: floor {each['floor']:.0%}"
    if each["share"] is None:
        return f"{head}, not known ({each['judged']} judgements)"
    held = {"yes": "kept", "no": "not kept", "unknown": "not sure"}[each["kept"]]
    return f"{head}, {each['share']:.1%} ({each['low']:.1%} to {each['high']:.1%}) of {each['judged']}: {held}"


def _quality(point: dict[str, Any]) -> str:
    found = point["quality"]
    if found is None:
        return "not known"
    if point["quality_from"] == "declared":
        return f"{found['mean']:.1%} (declared)"
    return f"{found['mean']:.1%} ({found['low']:.1%} to {found['high']:.1%})"


def _learned_from(
    answers: Path | None, source: Source | None, workload: str | None, home: Path | None
) -> tuple[Matrix, str, int]:
    """(the training set, where it is from, calls left out of it that a router chose the model for). Raises `Invalid`
    where it is not said, or is no evidence."""
    import msgspec  # noqa: PLC0415 -- heavy

    from groundplan.economics.routing.learn import evidence  # noqa: PLC0415 -- heavy
    from groundplan.economics.routing.learn.matrix import read_matrix  # noqa: PLC0415 -- heavy

    if answers is not None and source is None and workload is None:
        return read_matrix(answers), f"the set {answers.name}", 0
    if answers is not None or source is None or workload is None:
        hint = "Name a SET.jsonl, or `--from judges --workload NAME`, or `--from outcomes --workload NAME`."
        raise Invalid("what to learn from is not clear", code="routing_source", hint=hint)
    body = {"workload": workload, "from": source.value}
    rows = ControlClient.connect(home, PATIENCE).post("/api/routing/evidence", body)["rows"]
    if source is Source.judges:
        pairs = msgspec.convert(rows, list[evidence.Pair])
        return evidence.of_pairs(pairs, workload), f"{source.value} of {workload}", evidence.chosen(pairs)
    verdicts = msgspec.convert(rows, list[evidence.Verdict])
    return evidence.of_verdicts(verdicts, workload), f"{source.value} of {workload}", 0


def _embedded(matrix: Matrix) -> Floats:
    """Embeddings of the prompts as the gateway will have them. Raises `NotFound` where the model is not here."""
    return _embedder()([sample.prompt for sample in matrix.samples])


def _embedder() -> Callable[[Sequence[str]], Floats]:
    """What embeds questions as the gateway does. Raises `NotFound` where the model is not here."""
    from groundplan.economics.routing.decide.features import brief  # noqa: PLC0415 -- heavy
    from groundplan.knowledge.embedding.openvino_encoder import load, load_questions  # noqa: PLC0415 -- heavy

    folder = load_settings().models / "all-minilm-l6-v2"
    if not (folder / "model.safetensors").exists():
        hint = "Run `groundplan up` once; it fetches the model."
        raise NotFound(f"the embedding model is not in {folder}", code="embedding_model", hint=hint)
    encoder = load_questions(folder, load(folder))
    return lambda texts: encoder.embed([brief(text) for text in texts])


def _folder(home: Path | None) -> Path:
    return (home or load_settings().home).absolute() / "routers"


def _judged(router: Router, matrix: Matrix, vectors: Floats | None) -> dict[str, Any]:
    """A router as it is, on a set that it was not trained on."""
    from groundplan.economics.routing.learn.evaluate import apply, calibration_error, kept_by  # noqa: PLC0415 -- heavy
    from groundplan.economics.routing.watch import drift  # noqa: PLC0415 -- with what needs it

    if set(router.models) != set(matrix.models):
        hint = f"It chooses among: {', '.join(router.models)}."
        raise Conflict("the set is about other models than the router", code="router_models", hint=hint)
    order = [matrix.models.index(model) for model in router.models]
    same = replace(matrix, models=router.models, scores=matrix.scores[:, order], costs=matrix.costs[:, order])
    keeps = [float(key) for key in router.points]
    picked, expected, _ = apply(router, same, vectors, keeps)
    kept = {key: kept_by(same, router.strongest, chosen) for key, chosen in picked.items()}
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
    found = drift.found(verdicts)
    return {
        "router": f"{router.name}@{router.version}",
        "points": points,
        "calibration_error": calibration_error(expected, same.scores),
        "drift": [
            {"model": each.model, "half": each.half, "expected": each.expected, "seen": each.seen} for each in found
        ],
        "drifted": bool(found) if len(same.samples) >= drift.LEAST else None,
    }


def _drifted(value: dict[str, Any]) -> str:
    """What `_judged` says of drift, in words."""
    if value["drifted"] is None:
        return "expectations: too few prompts to say whether it drifted"
    lines = [
        f"expectations: {each['model']} scored {each['seen']:.1%} and {each['expected']:.1%} was expected"
        + (f", of those of which it expects {each['half']}" if each["half"] else "")
        for each in value["drift"]
    ]
    return "\n".join([*lines, "drifted: train it again"]) if lines else "expectations: as what is seen"


def _unproven(found: Evaluation, keep: float, prompts: int) -> Conflict:
    """That prompts do not show what a router would have to."""
    from groundplan.economics.routing.learn.evaluate import least_prompts  # noqa: PLC0415 -- heavy
    from groundplan.economics.routing.learn.operate import label  # noqa: PLC0415 -- heavy

    at, least = found.routed[label(keep)], least_prompts(keep)
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


def _figures(found: Evaluation) -> dict[str, Any]:
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
        "same_choice": found.robust,
        "same_choice_away": found.robust_away,
        "one_choice": found.one_choice,
        "calibration_error": found.calibration,
    }


def _text(found: Evaluation) -> str:
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
        f"the same choice when asked otherwise: {same} (always the most frequent one: {found.one_choice:.0%})",
        f"of those that went to a cheaper model: {away}",
    )  # fmt: skip
    return "\n".join(lines)
