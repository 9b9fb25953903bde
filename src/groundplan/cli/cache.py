"""`groundplan cache clear`: clears the cached answers of a workload."""

from __future__ import annotations

from typing import Annotated

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.keys import emit_effective
from groundplan.cli.options import HomeOption, JsonOption

app = command_group("Cached answers.")


@app.command()
def clear(
    workload: Annotated[str, typer.Option("--workload", help="Workload whose cached answers are cleared.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Clear the cached answers of a workload. Exits with 69 until every gateway has acknowledged it."""
    value = ControlClient.connect(home).post("/api/cache/clear", {"workload": workload})
    emit_effective(f"answers of {workload} are cleared", value, as_json)
