"""`groundplan changes`: lists changes and their approvals, and requests new approvals. People decide in their
browser."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import HomeOption, JsonOption, WorkspaceOption, workspace_for
from groundplan.cli.output import emit, table
from groundplan.cli.release import field_text, workspace_files

app = command_group("Changes and their approvals.")
ChangeArgument = Annotated[str, typer.Argument(metavar="ID", help="ID of the change, from `list`.")]


@app.command("list")
def list_changes(
    state: Annotated[
        str | None,
        typer.Option("--state", help="Only changes in this state: pending, applied, refused, withdrawn, expired, ..."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List changes, newest first, with the approvals they wait for and how long they hold."""
    value = {"changes": list(ControlClient.connect(home).list_all("/api/changes", "changes", state=state))}
    rows = [
        (
            change["id"],
            change["summary"].get("subject", change["type"]),
            change["state"],
            _waiting_text(change),
            change["expires_on"] or "",
        )
        for change in value["changes"]
    ]
    emit(
        value,
        as_json,
        table(("id", "about", "state", "waits for", "holds until"), rows, "No change matches."),
    )


@app.command()
def show(change: ChangeArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what a change asks for, who must approve it, and how a learned router in it was evaluated."""
    value = ControlClient.connect(home).get(f"/api/changes/{change}")
    waiting_for = _waiting_text(value)
    lines = [
        f"{value['summary'].get('subject', value['type'])} {value['state']}, digest {value['digest'][:24]}",
        *([f"waits for {waiting_for}"] if waiting_for else []),
        *field_lines(value["summary"]["fields"]),
        *(f"! {problem['message']} ({problem['hint']})" for problem in value["missing"]),
        *((value["routing"] or {}).get("told", ())),
    ]
    emit(value, as_json, "\n".join(lines))


@app.command()
def ask(
    reason: Annotated[str, typer.Option("--reason", "-m", help="Reason for the request.")],
    workload: Annotated[str | None, typer.Option("--workload", help="Only what this workload uses.")] = None,
    workspace: WorkspaceOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Request approval for every model version, prompt and use of a source that production is declared to use without
    one. Others then decide in their browser."""
    body = {"reason": reason, "workload": workload, "files": workspace_files(workspace_for(workspace, home))}
    value = ControlClient.connect(home).post("/api/approvals/missing", body)
    rows = [(change["id"], change["subject"], _duties_text(change)) for change in value["asked"]]
    emit(value, as_json, table(("id", "about", "waits for"), rows) if rows else "nothing is missing")


@app.command()
def renew(
    change: ChangeArgument,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why the approval is still needed.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Request approval of the same content again before the current one ends; serving continues until then."""
    value = ControlClient.connect(home).post(f"/api/changes/{change}/renew", {"reason": reason})
    waiting_for = ", ".join(f"{need['duty']} of {need['subject']}" for need in value["waits_for"])
    emit(value, as_json, f"requested again as {value['id']}; waits for {waiting_for}")


def field_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The changed fields; for new content all fields."""
    if all(row["old"] is None for row in rows):
        return [f"    {row['field']}: {row['new']}" for row in rows]
    return [f"    {field_text(row)}" for row in rows]


def _duties_text(change: dict[str, Any]) -> str:
    return ", ".join(need["duty"] for need in change["waits_for"])


def _waiting_text(change: dict[str, Any]) -> str:
    if change["state"] != "pending":
        return ""
    return ", ".join(f"{need['duty']} ({' or '.join(need['people']) or 'nobody'})" for need in change["waits_for"])
