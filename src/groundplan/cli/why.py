"""`groundplan why ID`: explains a call, a change, a key or an audit entry from the recorded facts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.keys import require_key_id
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table


def why(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="ID of a call, change, key or audit entry, or blueprint/N, workload/NAME, placement/NAME.",
        ),
    ],
    facts: Annotated[bool, typer.Option("--facts", help="Also show the facts behind each sentence.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain what ID is and why it came out as it did."""
    require_key_id(subject)
    value = ControlClient.connect(home).get(f"/api/why/{subject}")
    parts = ["\n".join(value["because"]), *([outline(value["facts"])] if facts else [])]
    if value["audit"]:
        rows = [(e["index"], e["at"], e["action"], e["who"], e["subject"]) for e in value["audit"]]
        parts.append("In the audit log:\n" + table(("index", "at", "action", "who", "subject"), rows))
    emit(value, as_json, "\n\n".join(parts))


def outline(value: Any, depth: int = 0) -> str:
    """Nested facts as indented lines."""
    indent = "  " * depth
    if isinstance(value, dict):
        return "\n".join(_field_text(indent, name, item, depth) for name, item in value.items())
    if isinstance(value, list):
        return "\n".join(f"{indent}- {outline(item, depth + 1).lstrip()}" for item in value)
    return f"{indent}{value}"


def _field_text(indent: str, name: str, item: Any, depth: int) -> str:
    if isinstance(item, (dict, list)) and item:
        return f"{indent}{name}:\n{outline(item, depth + 1)}"
    return f"{indent}{name}: {'-' if item is None or item in ({}, []) else item}"
