"""`groundplan login`: a one-time link into the console for the local operator, or for a person."""

from __future__ import annotations

from typing import Annotated

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit


def login(
    person: Annotated[
        str | None, typer.Option("--as", help="E-mail address of a person. Default: the local operator.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a one-time sign-in link that is valid for ten minutes."""
    value = ControlClient.connect(home).post("/api/login-links", {"person": person})
    emit(value, as_json, f"{value['url']}\n\nIt works once, within ten minutes.")
