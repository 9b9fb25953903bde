"""`groundplan plan`, `apply` and `rollback`: make the next blueprint from the workspace or from an earlier one."""

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
    """Content of the YAML files of a workspace, by path relative to it. Raises `Invalid` for a file that is not UTF-8,
    and for a folder that cannot be read, since its declarations would be removed."""
    paths: list[Path] = []
    for base, folders, names in os.walk(folder, onerror=_raise_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(base, name) for name in names if name.endswith((".yaml", ".yml")) and not name.startswith(".")]
    files = {path.relative_to(folder).as_posix(): _read_text(path) for path in sorted(paths) if path.is_file()}
    if not files:
        raise Invalid(
            f"{folder} has no YAML file", code="workspace_empty", hint="`groundplan init DIR` writes a first workspace."
        )
    return files


def _raise_unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise Invalid(
            f"{error.filename} cannot be read: {error.strerror}", code="unreadable", hint="Check its permissions."
        ) from error


def _read_text(path: Path) -> str:
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
    show_all: Annotated[bool, typer.Option("--all", help="Show the alternatives for every workload.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would change, the priced alternatives, who must approve, and every refusal. Exits with 65 if the plan
    is refused."""
    files = workspace_files(workspace_for(workspace, home))
    value = ControlClient.connect(home).post("/api/plan", {"files": files})
    emit(value, as_json, plan_text(value, show_all))
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
    """Text for people on the outcome of `apply` or `rollback`."""
    number = value["blueprint"]
    waiting_text = (
        "this change is not served yet" if value["pending"] else "nothing changes: all of it is served already"
    )
    content = f", with the content of blueprint {value['rollback_of']}" if value.get("rollback_of") else ""
    lines = [f"blueprint {number} is served{content}" if number else waiting_text]
    lines += [pending_text(pending) for pending in value["pending"]]
    lines += [f"i {note}" for note in value.get("notes", ())]
    return "\n".join([*lines, *warnings_text(value)])


def warnings_text(value: dict[str, Any]) -> list[str]:
    """Lines of the warnings (declarations without effect), each with its location, if known, and a hint."""
    return [
        line
        for warning in value.get("warnings", ())
        for line in (f"! {_location_prefix(warning)}{warning['message']} [{warning['code']}]", f"    {warning['hint']}")
    ]


def _location_prefix(warning: dict[str, Any]) -> str:
    return f"{warning['where']}: " if "where" in warning else ""


def plan_text(value: dict[str, Any], all_workloads: bool = False) -> str:
    """Text for people on a plan: differences, pending approvals, refusals, and the priced alternatives of the workloads
    that change, or with `all_workloads` of every workload."""
    waiting = {item["subject"]: [need["duty"] for need in item["needs"]] for item in value["pending"]}
    lines = [_difference_text(item, waiting) for item in value["differences"]] or ["nothing would change"]
    if value["differences"] and value.get("base"):
        base = value["base"]
        lines.append(f"i compared with blueprint {base}; `{program_name()} apply --base {base}` does this, or nothing")
    for item in value["pending"]:
        lines += [f"! {item['subject']} waits for: {', '.join(waiting[item['subject']])}", *_missing_lines(item)]
    lines += [f"i {note}" for note in value.get("notes", ())]
    lines += warnings_text(value)
    changed = {item["subject"] for item in value["differences"]}
    for placement in value["placements"]:
        if all_workloads or f"workload/{placement['workload']}" in changed:
            lines += ["", f"{typer.style(placement['workload'], bold=True)} ({placement['binding']})"]
            lines.append(_alternatives_table(placement))
            lines += _ramp_lines(placement.get("ramp"))
            lines += [
                f"to build: {option['config']} at {option['site']}, ${Decimal(option['monthly_usd']):,.2f} a month"
                for option in placement.get("to_build", ())
            ]
    for refusal in value["refusals"]:
        location = f"{refusal['where']}: " if refusal.get("where") else ""
        message = typer.style(f"refused: {location}{refusal['message']}", fg="red")
        lines += ["", f"{message} [{refusal['code']}]", f"    {refusal['hint']}"]
    return "\n".join(lines)


def _missing_lines(item: dict[str, Any]) -> list[str]:
    """Lines on what a change uses that nobody has approved, and, each once, the hints who decides."""
    problems = item.get("missing", ())
    lines = [f"    {typer.style(problem['message'], fg='red')} [{problem['code']}]" for problem in problems]
    return lines + [f"    {hint}" for hint in dict.fromkeys(problem["hint"] for problem in problems)]


def _ramp_lines(ramp: dict[str, Any] | None) -> list[str]:
    """Line on how the calls of a workload move to another deployment."""
    if ramp is None:
        return []
    shares = ", ".join(f"{share}%" for share in [ramp["share"], *ramp["steps"], 100])
    return [f"moves from {ramp['from']} to {ramp['to']} in steps of {ramp['every_seconds']:,} s: {shares}"]


_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


def _difference_text(item: dict[str, Any], waiting: dict[str, list[str]]) -> str:
    """One line per difference; the changed fields follow if an existing declaration changes."""
    head = f"{_SIGNS.get(str(item.get('type')), ' ')} {item['subject']}"
    if item["type"] != "changed":
        return head + (" (not served before it is approved)" if item["subject"] in waiting else "")
    return "\n".join([head, *(f"    {field_text(field)}" for field in item["fields"])])


def field_text(field: dict[str, Any]) -> str:
    """A changed field with its old and new value."""
    name, old, new = field["field"], field["old"], field["new"]
    if name.endswith(("gained by", "lost by")):
        return f"{name} {old or new}"
    if old is None:
        return f"{name}: {new} (new)"
    return f"{name}: {old} -> {new}" if new is not None else f"{name}: {old} (removed)"


def _alternatives_table(placement: dict[str, Any]) -> str:
    rows = [
        (_role_mark(placement, option), option["deployment"], option["site"], _monthly_price(option), _reasons(option))
        for option in placement["alternatives"]
    ]
    return table(("", "deployment", "site", "price", "why"), rows)


def _role_mark(placement: dict[str, Any], option: dict[str, Any]) -> str:
    if option["deployment"] == placement["primary"]:
        return "> primary"
    if option["deployment"] == placement.get("burst"):
        return "+ bursts"
    return "- fallback" if option["deployment"] in placement["fallbacks"] else ""


def _monthly_price(option: dict[str, Any]) -> str:
    amount = option["monthly_usd"]
    return "no price" if amount is None else f"${Decimal(amount):,.2f}/month"


def _reasons(option: dict[str, Any]) -> str:
    return "; ".join(option["reasons"]) or "allowed"
