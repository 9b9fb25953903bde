"""`groundplan prompts`: versions as they were served, their difference, and restoring an earlier text."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import HomeOption, JsonOption, WorkspaceOption, workspace_for
from groundplan.cli.output import emit, table
from groundplan.cli.release import ReasonOption, applied_text, workspace_files
from groundplan.core.errors import Conflict
from groundplan.core.home import write_files

app = command_group("Prompts and their versions.")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the prompt.")]
_COLOURS = {"-": "red", "+": "green"}


@app.command("list")
def list_prompts(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List all prompts with their versions and who uses them."""
    value = ControlClient.connect(home).get("/api/prompts")
    rows = [(p["name"], p["version"] or "–", p["versions"], ", ".join(p["used_by"]), p["owner"] or "")
            for p in value["prompts"]]  # fmt: skip
    emit(
        value,
        as_json,
        table(
            ("name", "version", "served", "used by", "owner"),
            rows,
            "No prompt is declared: add a document with kind: prompt.",
        ),
    )


@app.command()
def history(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List every text that was served, newest first."""
    value = ControlClient.connect(home).get(f"/api/prompts/{quote(name, safe='')}")
    rows = [
        (
            version["version"], version["digest"][:12], f"{version['first_blueprint']} to {version['last_blueprint']}",
            ", ".join(version["workloads"]), version["text"].splitlines()[0][:60],
        )
        for version in value["versions"]
    ]  # fmt: skip
    emit(value, as_json, table(("version", "digest", "blueprints", "workloads", "says"), rows))


@app.command()
def diff(
    name: NameArgument,
    old: Annotated[str, typer.Argument(help="Version, or a prefix of its digest.")],
    new: Annotated[str, typer.Argument(help="Version, or a prefix of its digest.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions line by line."""
    value = ControlClient.connect(home).get(f"/api/prompts/{quote(name, safe='')}/diff", old=old, new=new)
    lines = [typer.style(f"{line['sign']} {line['text']}", fg=_COLOURS.get(line["sign"])) for line in value["lines"]]
    emit(value, as_json, "\n".join(lines))


@app.command()
def rollback(
    name: NameArgument,
    to: Annotated[str, typer.Option("--to", help="Version, or a prefix of its digest.")],
    reason: ReasonOption = "rolled back from the command line",
    workspace: WorkspaceOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore the text of an earlier version under the next version number. The workspace must match what is served;
    its file is updated, too."""
    folder, client = workspace_for(workspace, home), ControlClient.connect(home)
    served: dict[str, Any] = client.get("/api/blueprints/current")["files"]
    if workspace_files(folder) != served:
        raise Conflict(
            f"{folder} differs from what is served",
            code="workspace_differs",
            hint="Apply it, or undo its changes, then roll the prompt back.",
        )
    value = client.post(f"/api/prompts/{quote(name, safe='')}/rollback", {"to": to, "reason": reason})
    write_files(folder, value["files"])
    files = ", ".join(str(folder / file) for file in value["files"])
    emit(value, as_json, f"version {value['version']} is written to {files}\n{applied_text(value)}")
