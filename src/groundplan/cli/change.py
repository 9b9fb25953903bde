"""`groundplan plan`, `apply` and `rollback`: from the workspace to the next blueprint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption, WorkspaceOption, workspace_for
from groundplan.cli.output import emit, table
from groundplan.core.errors import Invalid
from groundplan.core.money import parse_usd, short_usd

ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Why, for the history and the audit log.")]


def workspace_files(folder: Path) -> dict[str, str]:
    """The YAML files of a workspace by path relative to it. Raises `Invalid` for a file that is not UTF-8."""
    files: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.suffix not in {".yaml", ".yml"} or any(part.startswith(".") for part in relative.parts):
            continue
        if path.is_file():
            files[relative.as_posix()] = _text(path)
    if not files:
        raise Invalid(
            f"{folder} has no YAML file", code="workspace_empty", hint="`groundplan init DIR` writes a first workspace."
        )
    return files


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not UTF-8", code="not_utf8", hint="Save the file as UTF-8.") from error


def plan(workspace: WorkspaceOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what would change, the priced alternatives, who must approve, and every refusal. Exit 65 if refused."""
    files = workspace_files(workspace_for(workspace, home))
    value = ControlClient.connect(home).post("/api/plan", {"files": files})
    emit(value, as_json, plan_text(value))
    if value["refusals"]:
        raise typer.Exit(Invalid.exit_code)


def apply(
    workspace: WorkspaceOption = None,
    reason: ReasonOption = "applied from the command line",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the next blueprint. What needs an approval waits as pending; the rest is served within a second."""
    folder = workspace_for(workspace, home)
    client = ControlClient.connect(home)
    value = client.post("/api/apply", {"files": workspace_files(folder), "folder": str(folder), "reason": reason})
    emit(value, as_json, applied_text(value))


def rollback(
    to: Annotated[
        int | None, typer.Argument(help="Blueprint to go back to; the one before the current by default.")
    ] = None,
    without_revoked: Annotated[
        bool, typer.Option("--without-revoked", help="Leave out what was revoked, withdrawn or deleted since.")
    ] = False,
    reason: ReasonOption = "rolled back from the command line",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make blueprint n+1 with the content of blueprint TO, decided again by today's rules."""
    value = ControlClient.connect(home).post(
        "/api/rollback", {"to": to, "without_revoked": without_revoked, "reason": reason}
    )
    emit(value, as_json, applied_text(value))


def applied_text(value: dict[str, Any]) -> str:
    """What `apply` and `rollback` say to people."""
    number = value["blueprint"]
    lines = [f"blueprint {number} is served" if number else "nothing is served by this change yet"]
    for pending in value["pending"]:
        waits = ", ".join(f"{need['duty']} of {need['subject']}" for need in pending["waits_for"])
        lines.append(f"change {pending['change']} waits for: {waits}")
    return "\n".join(lines)


def plan_text(value: dict[str, Any]) -> str:
    """Differences, priced table and approvals, then what is refused."""
    lines: list[str] = []
    for difference in value["differences"]:
        lines.append(_difference(difference))
    if not value["differences"]:
        lines.append("nothing would change")
    for placement in value["placements"]:
        lines += ["", f"{placement['workload']} ({placement['binding']})", _alternatives(placement)]
    if value["needs"]:
        lines += ["", "needs approval by: " + ", ".join(f"{n['duty']} of {n['subject']}" for n in value["needs"])]
    for refusal in value["refusals"]:
        place = f"{refusal['where']}: " if refusal.get("where") else ""
        lines += ["", f"refused: {place}{refusal['message']} [{refusal['code']}]", f"    {refusal['hint']}"]
    return "\n".join(lines)


_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


def _difference(item: dict[str, Any]) -> str:
    sign = _SIGNS.get(str(item.get("type")), " ")
    head = f"{sign} {item['subject']}"
    fields = [f"    {field['field']}: {field['old']} -> {field['new']}" for field in item.get("fields", ())]
    return "\n".join([head, *fields])


def _alternatives(placement: dict[str, Any]) -> str:
    rows = []
    for option in placement["alternatives"]:
        chosen = ">" if option["deployment"] == placement["primary"] else " "
        if option["deployment"] in placement["fallbacks"]:
            chosen = "-"
        price = f"{short_usd(parse_usd(option['monthly_usd']))}/month" if option["monthly_usd"] else "no price"
        rows.append((chosen, option["deployment"], option["site"], price, "; ".join(option["reasons"]) or "allowed"))
    return table(("", "deployment", "site", "price", "why"), rows)
