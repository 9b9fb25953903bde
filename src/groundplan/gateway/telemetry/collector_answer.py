"""What a collector's answer to an OTLP request means for what was sent. Pure; `otel` sends."""

from __future__ import annotations

from dataclasses import dataclass

RETRYABLE = frozenset({429, 502, 503, 504})
"""Statuses after which OTLP has a client send the same again."""
MAX_PAUSE_S = 60.0
"""The longest `retry-after` that is kept to: beyond it more is lost than the collector is spared."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether the collector accepted a request. `rejected`: spans, or points of metrics, that it left out all the
    same. `problem` says why not all was accepted. `retry_after`: seconds after which the same may be sent again; None:
    that would be in vain."""

    is_accepted: bool = False
    rejected: int = 0
    problem: str = ""
    retry_after: float | None = None


def read_answer(status: int, retry_after: str, rejected: int, reason: str) -> Answer:
    """Read an answer with this status. `retry_after`: its header, maybe empty; `rejected` and `reason` are what its
    body says of a partial success."""
    if 200 <= status < 300:
        return Answer(
            is_accepted=True, rejected=rejected, problem=reason or (f"{rejected} rejected" if rejected else "")
        )
    if status not in RETRYABLE:
        return Answer(problem=f"HTTP {status}")
    seconds = float(retry_after) if retry_after.isascii() and retry_after.isdecimal() else 0.0
    return Answer(problem=f"HTTP {status}", retry_after=min(MAX_PAUSE_S, seconds))
