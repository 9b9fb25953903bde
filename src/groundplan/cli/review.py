"""`groundplan review`: answers and tool calls that wait for a person."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table

app = command_group("Answers and tool calls that wait for a reviewer.")
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="ID of the waiting item, from `list`.")]
ReasonOption = Annotated[
    str, typer.Option("--reason", "-m", help="Reason, shown to the caller when an answer is refused.")
]
MinutesOption = Annotated[
    float | None, typer.Option("--minutes", help="Minutes the review took. Default: since it was opened.")
]


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Include items that have been decided.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what waits for a decision, most urgent first."""
    value = ControlClient.connect(home).get("/api/reviews", all=str(everything).lower())
    rows = [
        [r["id"], r["kind"], r["workload"], r["subject"], r["person"] or "-", r["state"], f"{r['seconds_left']} s"]
        for r in value["reviews"]
    ]
    head = ("id", "kind", "workload", "of", "for", "state", "left")
    emit(value, as_json, table(head, rows) if rows else "Nothing is waiting for review.")


@app.command()
def show(id: IdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the request and the answer that would be sent. Reading it is recorded in the audit log."""
    value = ControlClient.connect(home).get(f"/api/reviews/{id}")
    text = f"{value['workload']}, {value['subject']}, {value['state']}\n\nAsked:\n{value['asked']}"
    text += f"\n\nAnswer:\n{value['said']}"
    emit(value, as_json, text)


@app.command()
def release(
    id: IdArgument,
    reason: ReasonOption = "",
    minutes: MinutesOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send the answer, or allow the tool call once."""
    value = _decide(id, "release", reason, minutes, home)
    emit(value, as_json, f"{id} is released")


@app.command()
def refuse(
    id: IdArgument,
    reason: ReasonOption = "",
    minutes: MinutesOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse it; the caller gets an error with the reason."""
    value = _decide(id, "refuse", reason, minutes, home)
    emit(value, as_json, f"{id} is refused")


def _decide(id: str, decision: str, reason: str, minutes: float | None, home: Path | None) -> Any:
    body = {"reason": reason, "minutes": minutes}
    return ControlClient.connect(home).post(f"/api/reviews/{id}/{decision}", body)
