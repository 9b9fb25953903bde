"""The shipped reference files: facts with their source, date and validity. Reads nothing else, decides nothing."""

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
    """Where a fact is from, and until when it is taken for true."""

    name: str
    source: str
    as_of: date
    valid_days: int

    @property
    def until(self) -> date:
        return self.as_of + timedelta(days=self.valid_days)

    def stale(self, today: date) -> bool:
        """Older than its validity: shown with everything that uses it."""
        return today > self.until


@cache
def load(name: str) -> dict[str, Any]:
    """One reference file."""
    value: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return value


def origin(name: str) -> Origin:
    value = load(name)
    return Origin(name, value["source"], date.fromisoformat(value["as_of"]), value["valid_days"])


def origins() -> tuple[Origin, ...]:
    """Of every reference file."""
    return tuple(origin(path.stem) for path in sorted(FOLDER.glob("*.json")))
