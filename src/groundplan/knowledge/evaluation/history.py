"""What earlier evaluations gave: one JSON object a line, so that each run is compared with the last of its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FILE = "evaluations.jsonl"


def record_run(folder: Path, subject: str, figures: dict[str, Any], at: str) -> dict[str, Any]:
    """Note a run and return `{"at", name: difference}` to the last one of this subject; empty for the first.

    A line that is not understood (a kill while writing) is passed over.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / _FILE
    last = next((run for run in list_runs(folder) if run["subject"] == subject), None)
    torn = file.exists() and file.read_bytes()[-1:] not in (b"", b"\n")
    with file.open("a", encoding="utf-8") as lines:
        lines.write("\n" * torn + json.dumps({"at": at, "subject": subject, "figures": figures}) + "\n")
    return {} if last is None else {"at": last["at"], **_differences(figures, last["figures"])}


def list_runs(folder: Path, limit: int = 100) -> list[dict[str, Any]]:
    """`{"at", "subject", "figures"}` of each run, the newest first."""
    file = folder / _FILE
    found: list[dict[str, Any]] = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            run = json.loads(line)
        except ValueError:
            continue
        if isinstance(run, dict) and {"at", "subject", "figures"} <= run.keys():
            found.append(run)
    return found[::-1][:limit]


def _differences(figures: dict[str, Any], last: dict[str, Any]) -> dict[str, float]:
    return {
        name: round(value - last[name], 5)
        for name, value in figures.items()
        if isinstance(value, (int, float)) and isinstance(last.get(name), (int, float))
    }
