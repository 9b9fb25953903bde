"""`groundplan register` and `shadow`: the register of all AI assets, and the AI that is used but not declared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.files import read_argument_file
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table
from groundplan.core.words import quantity

USERS_SHOWN = 5


def register(
    kind: Annotated[
        str,
        typer.Argument(
            help="Only this kind: workload, model, deployment, provider, prompt, integration, tool or source."
        ),
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every AI asset with owner, origin, uses and gaps."""
    value = ControlClient.connect(home).get("/api/register", kind=kind)
    rows = [
        (
            e["kind"],
            e["name"],
            e["owner"] or "-",
            e["origin"] or "-",
            _users(e["used_by"]),
            ", ".join(e["missing"]),
        )
        for e in value["entries"]
    ]
    emit(
        value,
        as_json,
        table(("kind", "name", "owner", "origin", "used by", "missing"), rows, "Nothing of that kind is declared."),
    )


def _users(names: list[str]) -> str:
    """The first names and the number of the others, since thousands may use one provider."""
    rest_note = f" and {quantity(len(names) - USERS_SHOWN, 'more', 'more')}" if len(names) > USERS_SHOWN else ""
    return ", ".join(names[:USERS_SHOWN]) + rest_note or "-"


def shadow(
    log: Annotated[Path, typer.Argument(help="Proxy log or bill, as text lines in any format.")],
    bill: Annotated[
        bool, typer.Option("--bill", help="The file is a bill, an expense report or a card statement.")
    ] = False,
    also: Annotated[list[str] | None, typer.Option("--also", help="Host of another provider. Repeatable.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find undeclared AI: calls to providers in a proxy log, or charges of providers on a bill."""
    data = read_argument_file(log, code="log_file", hint="Name a readable file.")
    query = [("also", host) for host in also or ()] + ([("bill", "true")] if bill else [])
    value = ControlClient.connect(home).post_file("/api/register/shadow", data, query)
    rows = [
        (h["host"], h["provider"], "yes" if h["declared"] else "NO", h["calls"], h["callers"]) for h in value["hosts"]
    ]
    counted = "lines" if bill else "calls"
    text = table(("host", "provider", "declared", counted, "callers"), rows)
    emit(value, as_json, text if rows else f"No known provider in {value['lines']} lines.")
