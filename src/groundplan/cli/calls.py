"""`groundplan calls`: the newest calls, each with who made it, what it cost and how it ended."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption, WorkloadOption
from groundplan.cli.output import emit, table, usd


def calls(
    workload: WorkloadOption = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Only these: ok, refused, failed, cancelled or crashed.")
    ] = None,
    person: Annotated[str | None, typer.Option("--person", help="Only calls for this person, by e-mail.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only calls with this key: its ID from `keys list`.")] = None,
    deployment: Annotated[
        str | None, typer.Option("--deployment", help="Only calls that this deployment answered.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="Number of calls.")] = 20,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest calls, refused ones too: who made them, with which key, where they ran and what they cost."""
    filters = {"workload": workload, "status": status, "person": person, "key": key, "deployment": deployment}
    value = ControlClient.connect(home).get("/api/calls", limit=limit, **filters)
    emit(value, as_json, calls_text(value))


def calls_text(value: dict[str, Any]) -> str:
    """The calls as a table for people."""
    rows = [
        (
            row["at"][:19] + "Z", row["workload"], row["person"], row["key_id"],
            f"{row['status']} {row['error_code']}" if row["error_code"] else row["status"],
            row["deployment"] or row.get("tool"), f"{row['prompt_tokens']}+{row['completion_tokens']}",
            usd(row["cost_usd"]), row["id"],
        )
        for row in value["calls"]
    ]  # fmt: skip
    head = ("at", "workload", "person", "key", "status", "deployment", "tokens", "cost", "call")
    return table(head, rows, "There is no call.")
