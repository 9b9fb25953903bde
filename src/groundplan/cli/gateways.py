"""`groundplan gateways`: HOMEs whose gateway workers are silent and whose journals were not shipped, and declaring such
a HOME lost."""

from __future__ import annotations

from typing import Annotated

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table, usd
from groundplan.core.words import quantity

app = command_group("HOMEs of gateways that are gone.")


@app.command()
def gone(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List HOMEs whose workers are silent and whose journals were not shipped."""
    value = ControlClient.connect(home).get("/api/gateways/gone")
    rows = [
        (
            row["host"], row["home"], row["workers"], row["heard_at"][:16].replace("T", " "), row["open_attempts"],
            usd(row["open_usd"]), "yes" if row["declared"] else "no",
        )
        for row in value["homes"]
    ]  # fmt: skip
    head = ("host", "home", "workers", "heard of (UTC)", "open", "at most", "lost")
    emit(
        value,
        as_json,
        table(head, rows, "no gateway is gone: the journals of all silent workers were shipped"),
    )


@app.command()
def lost(
    host: Annotated[str, typer.Argument(help="Host, as `groundplan gateways gone` lists it.")],
    of: Annotated[str, typer.Argument(metavar="HOME", help="HOME on that host, as listed there.")],
    reason: Annotated[str, typer.Option("--reason", "-m", help="Reason, kept in the audit log.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Declare a HOME lost for good: its open calls end at their bound, and the budget that it held counts as spent."""
    value = ControlClient.connect(home).post("/api/gateways/lost", {"host": host, "home": of, "reason": reason})
    workers_text = f"{quantity(len(value['workers']), 'worker')} of {host} ({of})"
    emit(
        value, as_json, f"{workers_text} will be written off within two minutes by any `groundplan up` on this database"
    )
