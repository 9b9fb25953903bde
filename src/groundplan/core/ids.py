"""Identifiers: UUID version 7 (RFC 9562), ordered by creation within a process.

The gateway makes one per call, so this is written for speed. API keys are made elsewhere.
"""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = 0


def _next(milliseconds: int) -> int:
    """The 60 bits of time (48 bits of milliseconds) and counter (12 bits), never the same or smaller than before."""
    global _last  # noqa: PLW0603 -- one monotonic counter per process is the point
    with _lock:
        candidate = milliseconds << 12
        _last = candidate if candidate > _last else _last + 1
        return _last


def _number(milliseconds: int) -> int:
    stamp = _next(milliseconds)
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    return ((stamp >> 12) << 80) | (0x7 << 76) | ((stamp & 0xFFF) << 64) | (0b10 << 62) | tail


def new_id(milliseconds: int | None = None) -> UUID:
    """A UUIDv7; `milliseconds` since the epoch defaults to now. Ids of one process sort in the order they were made."""
    return UUID(int=_number(time.time_ns() // 1_000_000 if milliseconds is None else milliseconds))


def new_id_bytes() -> bytes:
    """The 16 bytes of one, for whoever needs no UUID: to make one takes as long as all the rest."""
    return _number(time.time_ns() // 1_000_000).to_bytes(16)


def id_text(raw: bytes) -> str:
    """As `str` of the UUID with these 16 bytes."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
