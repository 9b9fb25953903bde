"""The versions of prompts in all blueprints; each blueprint is read once per process.

There may be thousands of blueprints, of some megabytes each where thousands of workloads are declared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from psycopg import Connection

from groundplan.release import prompts, store
from groundplan.release.prompts import Version


@dataclass(slots=True)
class _Read:
    """What was read up to blueprint `number`; its signature tells another installation or a restored database."""

    number: int = 0
    signature: str | None = None
    found: prompts.VersionsByPrompt = field(default_factory=dict)


_reading = Lock()
_read = _Read()


def prompt_versions(conn: Connection[Any]) -> dict[str, list[Version]]:
    """Prompt -> every version that was served, the newest first. Concurrent callers wait."""
    with _reading:
        if store.signature(conn, _read.number) != _read.signature:  # of another database, or restored
            _read.number, _read.signature = 0, None
            _read.found.clear()
        for served, signature in store.prompts_since(conn, _read.number):
            prompts.add_blueprint(_read.found, served)
            _read.number, _read.signature = served.blueprint.number, signature
        return prompts.versions_newest_first(_read.found)
