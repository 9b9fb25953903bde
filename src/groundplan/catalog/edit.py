"""Replaces one value in a declaration file and leaves everything else as it is, comments included. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Invalid

_SCALAR = re.compile(r""""[^"\n]*"|'[^'\n]*'|[^,}\]#\n]*[^,}\]#\s]""")


def replace_traffic(
    files: Mapping[str, str], workspace: Workspace, calls_per_day: Mapping[str, float]
) -> dict[str, str]:
    """Set `traffic.calls` of these workloads; returns all files. `workspace` was read from the same files.

    Raises `Invalid` where a value cannot be found in its file.
    """
    changed = {name: text.split("\n") for name, text in files.items()}
    for workload, calls in sorted(calls_per_day.items(), key=lambda each: _line(workspace, each[0]), reverse=True):
        value = f"{max(1, round(calls))}/day"
        where = workspace.where("workload", workload, "traffic", "calls")
        lines = changed.get(where.file)
        if lines is None or where.line > len(lines):
            raise _edit_error(workload, str(where))
        if ("traffic", "calls") in workspace.documents["workload", workload][1].places:
            line, at = lines[where.line - 1], where.column - 1
            found = _SCALAR.match(line, at)
            if found is None:
                raise _edit_error(workload, str(where))
            lines[where.line - 1] = line[:at] + value + line[found.end() :]
        else:
            name = workspace.where("workload", workload, "name")
            indent = re.match(r"\s*", lines[name.line - 1])
            lines.insert(name.line, f"{indent[0] if indent else ''}traffic: {{calls: {value}}}")
    return {name: "\n".join(lines) for name, lines in changed.items()}


def _line(workspace: Workspace, workload: str) -> int:
    """Line of a workload; later workloads are edited first, so that an inserted line moves no later edit."""
    return workspace.where("workload", workload, "name").line


def _edit_error(workload: str, where: str) -> Invalid:
    return Invalid(
        f"the traffic of {workload} cannot be changed automatically",
        code="edit_lost",
        hint="Write traffic.calls into its document, then `groundplan plan` and `groundplan apply`.",
        where=where,
    )
