"""`groundplan plan`, `apply` and `rollback`: from the workspace to the next blueprint."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption, WorkspaceOption, program_name, workspace_for
from groundplan.cli.output import emit, pending_text, table
from groundplan.core.errors import Invalid

ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Reason, kept in the history and the audit log.")]


def workspace_files(folder: Path) -> dict[str, str]:
    """The YAML files of a workspace by path relative to it. Raises `Invalid` for a file that is not UTF-8, and for a
    folder that cannot be read: what is declared there would be taken back."""
    found: list[Path] = []
    for base, folders, names in os.walk(folder, onerror=_unlisted):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(base, name) for name in names if name.endswith((".yaml", ".yml")) and not name.startswith(".")]
    files = {path.relative_to(folder).as_posix(): _text(path) for path in sorted(found) if path.is_file()}
    if not files:
        raise Invalid(
            f"{folder} has no YAML file", code="workspace_empty", hint="`groundplan init DIR` writes a first workspace."
        )
    return files


def _unlisted(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise Invalid(
            f"{error.filename} cannot be read: {error.strerror}", code="unreadable", hint="Check its permissions."
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not UTF-8", code="not_utf8", hint="Save the file as UTF-8.") from error
    except OSError as error:
        raise Invalid(
            f"{path} cannot be read: {error.strerror}", code="unreadable", hint="Check its permissions."
        ) from error


def plan(
    workspace: WorkspaceOption = None,
    every: Annotated[bool, typer.Option("--all", help="Show the alternatives for every workload.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would change, the priced alternatives, who must approve, and every refusal. Exits with 65 if the plan
    is refused."""
    files = workspace_files(workspace_for(workspace, home))
    value = ControlClient.connect(home).post("/api/plan", {"files": files})
    emit(value, as_json, plan_text(value, every))
    if value["refusals"]:
        raise typer.Exit(Invalid.exit_code)


def apply(
    workspace: WorkspaceOption = None,
    reason: ReasonOption = "applied from the command line",
    base: Annotated[
        int | None,
        typer.Option(
            "--base", min=1, help="Blueprint that the files are from: refused if another was declared after it."
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the next blueprint. What needs an approval waits as pending; the rest is served within a second."""
    folder = workspace_for(workspace, home)
    client = ControlClient.connect(home)
    body = {"files": workspace_files(folder), "folder": str(folder), "reason": reason, "base": base}
    value = client.post("/api/apply", body)
    emit(value, as_json, applied_text(value))


def rollback(
    to: Annotated[
        int | None, typer.Argument(min=1, help="Blueprint to return to. Default: the one before the last change.")
    ] = None,
    without_revoked: Annotated[
        bool, typer.Option("--without-revoked", help="Leave out whatever has been revoked, withdrawn or deleted since.")
    ] = False,
    reason: ReasonOption = "rolled back from the command line",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the next blueprint with the content of an earlier one, checked again by today's rules."""
    value = ControlClient.connect(home).post(
        "/api/rollback", {"to": to, "without_revoked": without_revoked, "reason": reason}
    )
    emit(value, as_json, applied_text(value))


def applied_text(value: dict[str, Any]) -> str:
    """What `apply` and `rollback` say to people."""
    number = value["blueprint"]
    waits = "this change is not served yet" if value["pending"] else "nothing changes: all of it is served already"
    lines = [f"blueprint {number} is served" if number else waits]
    lines += [pending_text(pending) for pending in value["pending"]]
    lines += [f"i {note}" for note in value.get("notes", ())]
    return "\n".join([*lines, *warnings_text(value)])


def warnings_text(value: dict[str, Any]) -> list[str]:
    """What is declared and has no effect, with its place where it has one and what to do."""
    return [
        line
        for each in value.get("warnings", ())
        for line in (f"! {_place(each)}{each['message']} [{each['code']}]", f"    {each['hint']}")
    ]


def _place(warning: dict[str, Any]) -> str:
    return f"{warning['where']}: " if "where" in warning else ""


def plan_text(value: dict[str, Any], every: bool = False) -> str:
    """Differences, what waits for whom, the priced alternatives of what changes (or of `every` workload), refusals."""
    waiting = {item["subject"]: [need["duty"] for need in item["needs"]] for item in value["pending"]}
    lines = [_difference(item, waiting) for item in value["differences"]] or ["nothing would change"]
    if value["differences"] and value.get("base"):
        base = value["base"]
        lines.append(f"i compared with blueprint {base}; `{program_name()} apply --base {base}` does this, or nothing")
    for item in value["pending"]:
        lines += [f"! {item['subject']} waits for: {', '.join(waiting[item['subject']])}", *_missing(item)]
    lines += [f"i {note}" for note in value.get("notes", ())]
    lines += warnings_text(value)
    touched = {item["subject"] for item in value["differences"]}
    for placement in value["placements"]:
        if every or f"workload/{placement['workload']}" in touched:
            lines += ["", f"{typer.style(placement['workload'], bold=True)} ({placement['binding']})"]
            lines.append(_alternatives(placement))
            lines += _ramp(placement.get("ramp"))
            lines += [
                f"to build: {b['config']} at {b['site']}, ${Decimal(b['monthly_usd']):,.2f} a month"
                for b in placement.get("to_build", ())
            ]
    for refusal in value["refusals"]:
        place = f"{refusal['where']}: " if refusal.get("where") else ""
        told = typer.style(f"refused: {place}{refusal['message']}", fg="red")
        lines += ["", f"{told} [{refusal['code']}]", f"    {refusal['hint']}"]
    return "\n".join(lines)


def _missing(item: dict[str, Any]) -> list[str]:
    """What a change uses that nobody has approved, and who decides, each once."""
    missing = item.get("missing", ())
    told = [f"    {typer.style(problem['message'], fg='red')} [{problem['code']}]" for problem in missing]
    return told + [f"    {hint}" for hint in dict.fromkeys(problem["hint"] for problem in missing)]


def _ramp(ramp: dict[str, Any] | None) -> list[str]:
    """How its calls go over to another place."""
    if ramp is None:
        return []
    shares = ", ".join(f"{share}%" for share in [ramp["share"], *ramp["steps"], 100])
    return [f"moves from {ramp['from']} to {ramp['to']} in steps of {ramp['every_seconds']:,} s: {shares}"]


_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


def _difference(item: dict[str, Any], waiting: dict[str, list[str]]) -> str:
    """One line; the fields follow where something that is there changes."""
    head = f"{_SIGNS.get(str(item.get('type')), ' ')} {item['subject']}"
    if item["type"] != "changed":
        return head + (" (not served before it is approved)" if item["subject"] in waiting else "")
    return "\n".join([head, *(f"    {field_text(field)}" for field in item["fields"])])


def field_text(field: dict[str, Any]) -> str:
    """A field that changes, with what it was and what it becomes."""
    name, old, new = field["field"], field["old"], field["new"]
    if name.endswith(("gained by", "lost by")):
        return f"{name} {old or new}"
    if old is None:
        return f"{name}: {new} (new)"
    return f"{name}: {old} -> {new}" if new is not None else f"{name}: {old} (removed)"


def _alternatives(placement: dict[str, Any]) -> str:
    rows = [(_mark(placement, option), option["deployment"], option["site"], _price(option), _why(option))
            for option in placement["alternatives"]]  # fmt: skip
    return table(("", "deployment", "site", "price", "why"), rows)


def _mark(placement: dict[str, Any], option: dict[str, Any]) -> str:
    if option["deployment"] == placement["primary"]:
        return "> primary"
    if option["deployment"] == placement.get("burst"):
        return "+ bursts"
    return "- fallback" if option["deployment"] in placement["fallbacks"] else ""


def _price(option: dict[str, Any]) -> str:
    amount = option["monthly_usd"]
    return "no price" if amount is None else f"${Decimal(amount):,.2f}/month"


def _why(option: dict[str, Any]) -> str:
    return "; ".join(option["reasons"]) or "allowed"
