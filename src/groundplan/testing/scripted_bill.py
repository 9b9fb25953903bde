"""What the scripted model has reported of each attempt: the provider's own books, to hold ours against."""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar
from typing import Any

import msgspec

_asked: ContextVar[str] = ContextVar("asked", default="")


class Line(msgspec.Struct, frozen=True):
    """`attempt` is the `x-request-id` that it came with; empty: a line of a batch, or none was sent."""

    attempt: str
    model: str
    usage: dict[str, Any]


MOST = 20_000


class Bill:
    """The newest `MOST` lines, in the order in which answers were begun."""

    def __init__(self) -> None:
        self.lines: deque[Line] = deque(maxlen=MOST)

    def begin(self, attempt: bytes) -> None:
        """What this task answers next."""
        _asked.set(attempt.decode("ascii", "replace"))

    def add(self, model: str, usage: dict[str, Any]) -> dict[str, Any]:
        """The same usage, once it is written down."""
        self.lines.append(Line(_asked.get(), model, usage))
        return usage

    def told(self) -> bytes:
        return msgspec.json.encode({"lines": list(self.lines)})
