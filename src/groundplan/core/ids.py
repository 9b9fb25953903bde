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
"""The first half of the newest id."""
_VERSION, _FULL, _NEXT = 0x7000, 0x8000, 0xF000
"""Of the last 16 bits of that half: version 7 without a count, the bit into which a count of 12 bits runs over, and
what is between that and the version of the next millisecond."""
_AT_ONCE = 256
"""Second halves that are made together: one system call for so many ids."""
_RANDOM = int.from_bytes((b"\x3f" + b"\xff" * 7) * _AT_ONCE)
_VARIANT = int.from_bytes((b"\x80" + bytes(7)) * _AT_ONCE)
_parted = struct.Struct("8s" * _AT_ONCE).unpack
_tails: list[bytes] = []
"""Those that no id has yet. A process that is forked makes its own."""
os.register_at_fork(after_in_child=_tails.clear)


def _refill_tails() -> None:
    """More second halves: two bits say which kind of UUID it is, all others are random."""
    size = 8 * _AT_ONCE
    drawn = int.from_bytes(os.urandom(size)) & _RANDOM | _VARIANT
    _tails.extend(_parted(drawn.to_bytes(size)))


def _next_id_bytes(milliseconds: int) -> bytes:
    """The 60 bits of time (48 of milliseconds) and count (12) are never the same or smaller than before."""
    global _last  # noqa: PLW0603 -- one monotonic counter per process is the point
    with _lock:
        first = milliseconds << 16 | _VERSION
        if first <= _last:
            first = _last + 1
            if first & _FULL:
                first += _NEXT
        _last = first
        if not _tails:
            _refill_tails()
        tail = _tails.pop()
    return first.to_bytes(8) + tail


def new_id(milliseconds: int | None = None) -> UUID:
    """A UUIDv7; `milliseconds` since the epoch defaults to now. Ids of one process sort in the order they were made."""
    return UUID(bytes=_next_id_bytes(time.time_ns() // 1_000_000 if milliseconds is None else milliseconds))


def new_id_bytes() -> bytes:
    """The 16 bytes of one, for whoever needs no UUID: to make one takes as long as all the rest."""
    return _next_id_bytes(time.time_ns() // 1_000_000)


def id_text(raw: bytes) -> str:
    """As `str` of the UUID with these 16 bytes."""
    return f"{raw[:4].hex()}-{raw[4:10].hex('-', 2)}-{raw[10:].hex()}"


def parse_id(text: str, prefix: str) -> UUID:
    """The id behind a prefix, written as 32 hexadecimal digits. Raises `ValueError`."""
    if not text.startswith(prefix) or len(text) != len(prefix) + 32:
        raise ValueError("this is no id")
    return UUID(hex=text[len(prefix) :])
