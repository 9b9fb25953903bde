"""`groundplan responses`: progress of background responses, why one waits, and cancelling one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import GroupOptions, HomeOption, JsonOption, WorkloadOption
from groundplan.cli.output import emit, table, usd

app = command_group("Responses that are made in the background: list, cancel.", runs_alone=True)
NONE = (
    "There is no background response. They are created at the gateway with an API key: POST /v1/responses "
    "with background: true."
)


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
    """List background responses: queued and running ones, then the others, newest first."""
    options = GroupOptions.merged(context, workload, home, as_json)
    value = ControlClient.connect(options.home).get("/api/responses", **options.query())
    emit(value, options.as_json, responses_text(value))


@app.command()
def cancel(
    context: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="ID of the response, from `list`.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a queued or running response; tokens generated so far are billed."""
    options = GroupOptions.merged(context, None, home, as_json)
    value = ControlClient.connect(options.home).post(f"/api/responses/{id}/cancel", {})
    emit(value, options.as_json, f"{id} of {value['workload']} is cancelled")


def responses_text(value: dict[str, Any]) -> str:
    """The responses, and the number of open ones by workload, as tables for people."""
    rows = [
        (
            row["id"], row["workload"], row["status"].replace("_", " "), row["created_at"][:19], usd(row["cost_usd"]),
            (row["due_at"] or "")[:19], row["problem"] or "",
        )
        for row in value["responses"]
    ]  # fmt: skip
    head = ("response", "workload", "status", "asked", "cost", "tried again", "problem")
    text = table(head, rows) if rows else NONE
    open_rows = [(item["workload"], item["queued"], item["in_progress"]) for item in value["open"]]
    return f"{text}\n\n{table(('workload', 'queued', 'in progress'), open_rows)}" if open_rows else text
