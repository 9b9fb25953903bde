"""Identifiers: UUID version 7 (RFC 9562), ordered by creation within a process.

The gateway makes one per call, so this is written for speed. API keys are made elsewhere.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = 0
"""The first 8 bytes of the newest id, as an integer."""
_VERSION, _OVERFLOW, _CARRY = 0x7000, 0x8000, 0xF000
"""Values of the last 16 bits of that half: version 7 with counter 0, the bit that is set when the 12-bit counter
overflows, and what to add then to reach version 7 of the next millisecond."""
_BATCH_IDS = 256
"""Second halves that are drawn together, with one system call."""
_RANDOM = int.from_bytes((b"\x3f" + b"\xff" * 7) * _BATCH_IDS)
_VARIANT = int.from_bytes((b"\x80" + bytes(7)) * _BATCH_IDS)
_unpack_tails = struct.Struct("8s" * _BATCH_IDS).unpack
_tails: list[bytes] = []
"""Unused second halves. A forked process draws its own."""
os.register_at_fork(after_in_child=_tails.clear)


def _refill_tails() -> None:
    """Draw more second halves: two bits are the variant of the UUID, the others are random."""
    size = 8 * _BATCH_IDS
    drawn = int.from_bytes(os.urandom(size)) & _RANDOM | _VARIANT
    _tails.extend(_unpack_tails(drawn.to_bytes(size)))


def _next_id_bytes(milliseconds: int) -> bytes:
    """Build the bytes of an id; its 60 bits of time (48, milliseconds) and counter (12) always increase."""
    global _last  # noqa: PLW0603 -- one monotonic counter per process is the point
    with _lock:
        first = milliseconds << 16 | _VERSION
        if first <= _last:
            first = _last + 1
            if first & _OVERFLOW:
                first += _CARRY
        _last = first
        if not _tails:
            _refill_tails()
        tail = _tails.pop()
    return first.to_bytes(8) + tail


def new_id(milliseconds: int | None = None) -> UUID:
    """A new UUIDv7; `milliseconds` since the epoch defaults to now. Ids of one process sort by creation."""
    return UUID(bytes=_next_id_bytes(time.time_ns() // 1_000_000 if milliseconds is None else milliseconds))


def new_id_bytes() -> bytes:
    """The 16 bytes of a new UUIDv7; building the UUID object would double the time."""
    return _next_id_bytes(time.time_ns() // 1_000_000)


def id_text(raw: bytes) -> str:
    """The text form of the UUID with these 16 bytes."""
    return f"{raw[:4].hex()}-{raw[4:10].hex('-', 2)}-{raw[10:].hex()}"


def parse_id(text: str, prefix: str) -> UUID:
    """Parse `prefix` followed by an id of 32 hexadecimal digits. Raises `ValueError`."""
    if not text.startswith(prefix) or len(text) != len(prefix) + 32:
        raise ValueError("this is no id")
    return UUID(hex=text[len(prefix) :])
