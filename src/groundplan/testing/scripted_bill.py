"""The usage that the scripted model has reported for each attempt: the provider's bill, to compare the ledger with."""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar
from typing import Any

import msgspec

_current_attempt: ContextVar[str] = ContextVar("asked", default="")


class Line(msgspec.Struct, frozen=True):
    """The usage of an attempt. `attempt` is its `x-request-id`; empty for lines of batches, or where none was sent."""

    attempt: str
    model: str
    usage: dict[str, Any]


MAX_LINES = 20_000


class Bill:
    """The newest `MAX_LINES` lines, in the order in which answers were begun."""

    def __init__(self) -> None:
        self.lines: deque[Line] = deque(maxlen=MAX_LINES)

    def begin(self, attempt: bytes) -> None:
        """Set the attempt that this task answers next."""
        _current_attempt.set(attempt.decode("ascii", "replace"))

    def add(self, model: str, usage: dict[str, Any]) -> dict[str, Any]:
        """Record the usage and return it."""
        self.lines.append(Line(_current_attempt.get(), model, usage))
        return usage

    def told(self) -> bytes:
        return msgspec.json.encode({"lines": list(self.lines)})
