"""The shipped reference files: facts with their source, date and validity. Reads nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Origin:
    """The source and validity of a reference file."""

    name: str
    source: str
    as_of: date
    valid_days: int

    @property
    def until(self) -> date:
        return self.as_of + timedelta(days=self.valid_days)

    def is_stale(self, today: date) -> bool:
        """Whether the file is older than its validity: this is shown with everything that uses it."""
        return today > self.until


@cache
def load_reference(name: str) -> dict[str, Any]:
    """The content of one reference file."""
    value: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return value


def reference_origin(name: str) -> Origin:
    value = load_reference(name)
    return Origin(name, value["source"], date.fromisoformat(value["as_of"]), value["valid_days"])


def reference_origins() -> tuple[Origin, ...]:
    """The origins of all reference files."""
    return tuple(reference_origin(path.stem) for path in sorted(FOLDER.glob("*.json")))
