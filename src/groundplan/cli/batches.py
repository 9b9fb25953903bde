"""`groundplan batches`: progress, cost and disk usage of batches."""

from __future__ import annotations

from typing import Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import GroupOptions, HomeOption, JsonOption, WorkloadOption
from groundplan.cli.output import emit, table, usd
from groundplan.core.words import format_size

app = command_group("Batches with their progress, cost and reserved budget: list.", runs_alone=True)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context, workload: WorkloadOption = None, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    context.obj = GroupOptions(workload, home, as_json)
    if context.invoked_subcommand is None:
        list_all(context)


@app.command("list")
def list_all(
    context: typer.Context, workload: WorkloadOption = None, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """List batches, newest first, and the disk space that files take. Batches are created at the gateway with an API
    key: POST /v1/batches or /v1/messages/batches."""
    options = GroupOptions.merged(context, workload, home, as_json)
    value = ControlClient.connect(options.home).get("/api/batches", **options.query())
    emit(value, options.as_json, batches_text(value))


def batches_text(value: dict[str, Any]) -> str:
    """The batches, and the files by workload, as tables for people."""
    rows = [
        (
            row["id"], row["workload"], row["status"].replace("_", " "), f"{row['completed']} of {row['total']}",
            row["failed"], usd(row["cost_usd"]), usd(row["held_usd"]), row["problem"] or "",
        )
        for row in value["batches"]
    ]  # fmt: skip
    head = ("batch", "workload", "status", "completed", "failed", "cost", "reserved", "problem")
    text = table(head, rows) if rows else "there are no batches"
    files = [(row["workload"], row["files"], format_size(row["bytes"])) for row in value["files"]]
    return f"{text}\n\n{table(('workload', 'files', 'size'), files)}" if files else text
