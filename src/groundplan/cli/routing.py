"""`groundplan routing`: train a learned router, judge one on prompts with known answers, explain a call's choice."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import HomeOption, JsonOption, settings_for
from groundplan.cli.output import emit, table
from groundplan.core.errors import NotFound
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.runtime import openmp

app = command_group("How model `auto` chooses: train, evaluate, explain.")
SET = '{"id", "group", "prompt", "scores", "costs", "context"} a line.'
_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
SetArgument = Annotated[Path, typer.Argument(metavar="SET.jsonl", help=SET)]


class Source(StrEnum):
    """The kind of a workload's own calls from which a router is trained."""

    judges = "judges"
    outcomes = "outcomes"


@app.command()
def train(
    name: Annotated[str, typer.Option("--name", help="Name of the router; the result becomes its next version.")],
    answers: Annotated[Path | None, typer.Argument(metavar="[SET.jsonl]", help=SET)] = None,
    source: Annotated[
        Source | None,
        typer.Option(
            "--from",
            help="Learn from own calls: `judges` (judged replays and shadows) or `outcomes` (A/B experiments).",
        ),
    ] = None,
    workload: Annotated[
        str | None, typer.Option("--workload", help="Workload whose kept calls are used, with --from.")
    ] = None,
    keep: Annotated[float, typer.Option("--keep", help="Share of the strongest model's quality to keep.")] = 0.99,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Also learn from embeddings; the gateway then asks the search service.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a router from a set or from a workload's own calls, test it on unseen prompts, and keep it if they show
    that it saves something at that quality."""
    if find_spec("lightgbm") is not None:  # it needs libgomp, which minimal systems lack and we bring along
        openmp.restart_with(Home(settings_for(home).home).run / "lib", "groundplan.cli.main", sys.argv[1:])
    from groundplan.cli import training  # noqa: PLC0415 -- heavy

    settings = training.check_settings(name, keep, embedded, _folder(home))
    value, text = training.train(settings, training.load_training_set(answers, source and source.value, workload, home))
    emit(value, as_json, text)


@app.command()
def evaluate(
    answers: SetArgument,
    router: Annotated[
        str | None,
        typer.Option("--router", help="Router to evaluate, NAME or NAME@VERSION. Default: train one on the set."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a router on prompts with known answers that it was not trained on, or how well a router trained on
    them would do on others like them."""
    from groundplan.cli import training  # noqa: PLC0415 -- heavy

    value, text = (
        training.evaluate_set(answers)
        if router is None
        else training.evaluate_stored_router(answers, _folder(home), router)
    )
    emit(value, as_json, text)


@app.command("list")
def list_routers(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the learned routers of this HOME with their versions, digests and quality at training."""
    from groundplan.economics.routing.versions import registry  # noqa: PLC0415 -- heavy

    folder = _folder(home)
    value = [
        {
            "router": version,
            "digest": registry.router_digest(folder, version),
            **registry.load_router(folder, version).trained,
        }
        for version in registry.list_routers(folder)
    ]
    rows = [
        (row["router"], row.get("trained", "-"), row.get("prompts", "-"), row.get("from", "-"), row["digest"][:12])
        for row in value
    ]
    nothing = "There is no learned router here. Train one: groundplan routing train SET.jsonl --name NAME"
    emit({"routers": value}, as_json, table(("router", "trained", "prompts", "from", "digest"), rows, nothing))


@app.command()
def explain(
    call: Annotated[str, typer.Argument(metavar="CALL", help="ID of a call, or a workload.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain why a call went to its model, or what a workload's choice of models saves and whether its floors hold."""
    if not _ID.fullmatch(call):
        value = ControlClient.connect(home).get("/api/routing/trade-off", workload=call)
        emit(
            value,
            as_json,
            "\n".join(_saving_lines(value)) or f"Nothing was answered for {call} in {value['days']} days.",
        )
        return
    call_details = ControlClient.connect(home).get(f"/api/calls/{call}")
    route = call_details.get("route")
    if route is None and call_details["chosen"]:
        emit({"call": call, "chosen": call_details["chosen"]}, as_json, "\n".join(call_details["chosen"]))
        return
    if route is None:
        hint = "Routing is declared as `routing: {by: rules}` of a workload, and holds for model `auto`."
        raise NotFound(f"no model was chosen for the call {call[:80]}", code="not_routed", hint=hint)
    expected = route.get("expected") or {}
    text = f"{route['model']} at {route['deployment']}, by {route['by']}: {route['reason']}"
    if route.get("answered"):
        text += f"\nanswered at {route['answered']}"
    if expected:
        costs = route.get("costs") or {}
        rows = [
            (model, f"{score:.1%}", f"${costs[model]:.6f}" if model in costs else "-")
            for model, score in sorted(expected.items(), key=lambda item: -item[1])
        ]
        router_line = f"\nrouter {route['router']}" if route.get("router") else ""
        text += f"{router_line}\n{table(('model', 'expected quality', 'expected cost'), rows)}"
    for name, why in sorted((route.get("barred") or {}).items()):
        text += f"\n{name} takes none of these calls: {why}"
    emit({"call": call, **route}, as_json, text)


@app.command("trade-off")
def trade_off(
    workload: Annotated[str, typer.Argument(metavar="WORKLOAD", help="Workload.")],
    days: Annotated[int, typer.Option("--days", min=1, max=92, help="Days to look back.")] = 30,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare cost, quality and latency of each model and route of a workload, with 95 % intervals."""
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
    lines = [table(head, rows) if rows else nothing, *_saving_lines(value)]
    emit(value, as_json, "\n".join(lines))


def _saving_lines(value: dict[str, Any]) -> list[str]:
    """Lines on the savings by the choice of models, the deployments that it leaves out, and whether the quality floors
    hold."""
    return [*value["told"], *(_floor_text(floor) for floor in value["quality"])]


def _floor_text(floor: dict[str, Any]) -> str:
    """A floor in words."""
    head = f"{floor['dimension']}: floor {floor['floor']:.0%}"
    if floor["share"] is None:
        return f"{head}, not known ({floor['judged']} judgements)"
    standing = {"yes": "kept", "no": "not kept", "unknown": "not sure"}[floor["kept"]]
    return f"{head}, {floor['share']:.1%} ({floor['low']:.1%} to {floor['high']:.1%}) of {floor['judged']}: {standing}"


def _quality(point: dict[str, Any]) -> str:
    quality = point["quality"]
    if quality is None:
        return "not known"
    if point["quality_from"] == "declared":
        return f"{quality['mean']:.1%} (declared)"
    return f"{quality['mean']:.1%} ({quality['low']:.1%} to {quality['high']:.1%})"


def _folder(home: Path | None) -> Path:
    return (home or load_settings().home).absolute() / "routers"
