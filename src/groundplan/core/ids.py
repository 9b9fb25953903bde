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
_AT_ONCE = 256
"""Random numbers that are asked of the kernel together: one system call for so many ids."""
_draw = struct.Struct(f"{_AT_ONCE}Q").unpack
_pack = struct.Struct(">QQ").pack
_random: list[int] = []
"""Those that no id has yet. A process that is forked draws its own."""
os.register_at_fork(after_in_child=_random.clear)


def _halves(milliseconds: int) -> tuple[int, int]:
    """Both 64 bits of an id. The 60 of time (48 bits of milliseconds) and counter (12 bits) in the first are never the
    same or smaller than before."""
    global _last  # noqa: PLW0603 -- one monotonic counter per process is the point
    with _lock:
        stamp = milliseconds << 12
        if stamp <= _last:
            stamp = _last + 1
        _last = stamp
        if not _random:
            _random.extend(_draw(os.urandom(8 * _AT_ONCE)))
        tail = _random.pop()
    return (stamp >> 12 << 16) | 0x7000 | (stamp & 0xFFF), (0b10 << 62) | (tail >> 2)


def new_id(milliseconds: int | None = None) -> UUID:
    """A UUIDv7; `milliseconds` since the epoch defaults to now. Ids of one process sort in the order they were made."""
    first, second = _halves(time.time_ns() // 1_000_000 if milliseconds is None else milliseconds)
    return UUID(int=(first << 64) | second)


def new_id_bytes() -> bytes:
    """The 16 bytes of one, for whoever needs no UUID: to make one takes as long as all the rest."""
    return _pack(*_halves(time.time_ns() // 1_000_000))


def id_text(raw: bytes) -> str:
    """As `str` of the UUID with these 16 bytes."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def id_of(text: str, prefix: str) -> UUID:
    """The id behind a prefix, written as 32 hexadecimal digits. Raises `ValueError`."""
    if not text.startswith(prefix) or len(text) != len(prefix) + 32:
        raise ValueError("this is no id")
    return UUID(hex=text[len(prefix) :])
