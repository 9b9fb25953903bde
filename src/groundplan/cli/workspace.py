"""`groundplan init` and `check`: work on the files of a workspace alone, offline."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from groundplan.catalog.check import ExtraRules, validate
from groundplan.catalog.scaffold import init as scaffold
from groundplan.catalog.schema import json_schema
from groundplan.cli.options import JsonOption, program_name, workspace_for
from groundplan.cli.output import emit
from groundplan.cli.release import warnings_text
from groundplan.cli.unknown_settings import misspelt_settings
from groundplan.core.words import quantity
from groundplan.economics.price import has_listed_price
from groundplan.economics.prices import price_list
from groundplan.governance import declared
from groundplan.release.compile import context_windows, pricing
from groundplan.release.model import problem_json
from groundplan.release.warnings import collect


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.")],
    upstream: Annotated[
        str | None, typer.Option("--upstream", help="Base URL of an OpenAI-compatible server, or of a known provider.")
    ] = None,
    upstream_model: Annotated[
        str | None, typer.Option("--upstream-model", help="Name of the model on that server.")
    ] = None,
    upstream_key: Annotated[
        str | None, typer.Option("--upstream-key", help="Where to find its API key, such as env:VAR.")
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            "--price",
            help="Price IN/OUT in USD per million tokens, such as 0.15/0.60, or `free`; listed models need none.",
        ),
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Budget in USD a month.")] = None,
    operator_email: Annotated[str | None, typer.Option("--you", help="Your e-mail address.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a commented workspace with one workload, `assistant`, for the model server you already have."""
    today = datetime.now(UTC).date()
    written = scaffold(
        folder.absolute(),
        upstream=upstream,
        upstream_model=upstream_model,
        upstream_key=upstream_key,
        price=price,
        budget=budget,
        operator_email=operator_email,
        known_price=lambda model: has_listed_price(model, today),
        known_context=price_list.context_window,
    )
    files = sorted(str(path) for path in written or ())
    quoted_folder, program = shlex.quote(str(folder)), program_name()
    emit(
        {"folder": str(folder.absolute()), "files": files},
        as_json,
        f"{folder} is ready. Next: {program} check {quoted_folder}, then {program} up --workspace {quoted_folder}",
    )


def release_rules(today: date) -> ExtraRules:
    """Rules that `plan` applies in addition to those of the catalog: policies, prices that are not in force yet, and
    unknown context windows."""
    return lambda read: (
        *declared.problems(read),
        *pricing.price_problems(read, today),
        *context_windows.context_problems(read, today),
    )


def check(
    workspace: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Folder of the workspace.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of all kinds instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Report everything that is wrong in a workspace, with file, line and column, and what is declared without effect.
    Exits with 65 if anything is wrong."""
    if schema:
        typer.echo(json.dumps(json_schema(), indent=2))
        return
    folder = workspace_for(workspace)
    today = datetime.now(UTC).date()
    workspace_read = validate(
        folder, known_price=lambda model: has_listed_price(model, today), extra_rules=release_rules(today)
    )
    count = len(workspace_read.workloads)
    value = {
        "ok": True,
        "folder": str(folder),
        "workloads": count,
        "warnings": [
            problem_json(problem)
            for problem in (*misspelt_settings(), *collect.workspace_warnings(workspace_read, today))
        ],
    }
    summary = f"{folder} is valid: {quantity(count, 'workload')}"
    emit(value, as_json, "\n".join([summary, *warnings_text(value)]))
