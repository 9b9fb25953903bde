"""`groundplan batches`: how far each batch is, what it costs and what it holds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table, usd


def batches(
    workload: Annotated[str | None, typer.Option("--workload", help="Only batches of this workload.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List batches, newest first, and what files take of the disk. They are created at the gateway with an API key:
    POST /v1/batches or /v1/messages/batches."""
    named = {"workload": workload} if workload else {}
    value = ControlClient.connect(home).get("/api/batches", **named)
    emit(value, as_json, batches_text(value))


def batches_text(value: dict[str, Any]) -> str:
    """The same for people."""
    rows = [
        (
            row["id"], row["workload"], row["status"], f"{row['completed']} of {row['total']}", row["failed"],
            usd(row["cost_usd"]), usd(row["held_usd"]), row["problem"] or "",
        )
        for row in value["batches"]
    ]  # fmt: skip
    head = ("batch", "workload", "status", "made", "failed", "cost", "held", "why not")
    told = table(head, rows) if rows else "there are no batches"
    kept = [(row["workload"], row["files"], f"{row['bytes'] / 1e6:,.1f} MB") for row in value["files"]]
    return f"{told}\n\n{table(('workload', 'files', 'size'), kept)}" if kept else told
