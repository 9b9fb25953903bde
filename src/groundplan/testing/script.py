"""The script of the scripted model: what it says, how slowly, and how it fails. `scripted` carries it out."""

from __future__ import annotations

from typing import Any

import msgspec


class Script(msgspec.Struct, forbid_unknown_fields=True):
    """The behaviour of a scripted model. `tokens` fixes the completion tokens of each answer."""

    mode: str = "ok"
    after: int = 0
    latency_ms: float = 0
    chunk_ms: float = 0
    tokens: int | None = None
    status: int = 500
    times: int | None = None
    """How many attempts fail; None: all."""
    retry_after: str | None = None
    """`retry-after` header of error responses."""
    calls_itself: str | None = None
    """Model name in its answers, instead of the requested one."""
    fingerprint: str | None = None
    """`system_fingerprint` of its answers."""
    tier: str | None = None
    """`service_tier` of its answers, whatever was asked for."""
    at: int | None = None
    """Chunk after which a stream fails; None: in the middle."""
    tool: bool = False
    """Answers end with a tool call."""
    overlap: int = 0
    """Number of characters that the rest of a continued answer repeats."""
    cache_read: int = 0
    """Prompt tokens that it reports as read from its cache, in addition to the others."""
    cache_write: int = 0
    say: str | None = None
    """Its answer to everything, in tokens of three characters."""
    line_ms: float = 0
    """Duration of each line of a batch."""
    lines: int | None = None
    """How many lines of a batch it completes."""
    lines_end: str = "stall"
    """What happens to the other lines: stall | expire | lose."""
    only: str | None = None
    """Method and path prefix, such as `POST /v1/batches`, of the requests that fail. None: calls, including those of
    batches."""
    usage: dict[str, Any] | None = None
    """Usage that it reports instead of the real one, in the format of the called API."""
    last: dict[str, Any] | None = None
    """Fields that replace those of the last event of a stream of an image, of speech or of a transcript."""
