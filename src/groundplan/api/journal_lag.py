"""The lag of a gateway's journal: bytes that are not in PostgreSQL yet, and since when, by walking unshipped frames.

Also journals that cannot be shipped, since another user wrote them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from groundplan.core.home import Home
from groundplan.gateway.journal.records import (
    HEADER_BYTES,
    MAX_FRAME,
    PREFIX,
    NewerRecord,
    frame_at,
    segment_numbers,
    segment_path,
)
from groundplan.ledger.model import Release

MAX_LAG_BYTES = 8 << 20
"""The largest lag that is reported."""
_FIRST_BYTES = 64 << 10


def journal_lag(folder: Path, segment: int | None, position: int | None) -> int:
    """Bytes of records in `folder` after `position` of `segment` (nothing shipped yet: all of them)."""
    lag, numbers = 0, list[int]()
    with suppress(OSError):  # as below: the shipper reports what cannot be read
        numbers = segment_numbers(folder)
    for number in numbers:
        if segment is not None and number < segment:
            continue
        start = position if number == segment and position else HEADER_BYTES
        lag += _written_bytes(segment_path(folder, number), start)
        if lag >= MAX_LAG_BYTES:
            return MAX_LAG_BYTES
    return lag


def first_unshipped_at(folder: Path, segment: int | None, position: int | None) -> int | None:
    """When the first unshipped record was written, in milliseconds since the epoch; None if there is none with a
    time."""
    with suppress(OSError):
        for number in segment_numbers(folder):
            if segment is not None and number < segment:
                continue
            with segment_path(folder, number).open("rb") as file:
                file.seek(position if number == segment and position else HEADER_BYTES)
                data = file.read(_FIRST_BYTES)
            at = 0
            try:
                while (entry := frame_at(data, at)) is not None:
                    if not isinstance(entry.record, Release):
                        return entry.record.at
                    at = entry.end
            except NewerRecord:
                return None
    return None


def foreign_journal_problems(home: Home) -> list[str]:
    """Problems of journals that this process may not take over, as after `up` was once started by root."""
    with suppress(OSError):
        return [
            f"the journal {folder} is another user's, so its calls are not in the ledger: as root, "
            f"`chown -R --reference={home.root} {home.journal}`"
            for folder in sorted(home.journal.iterdir())
            if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK)
        ]
    return []


def _written_bytes(path: Path, start: int) -> int:
    """Bytes of frames from `start` on, without the preallocated zeros that follow."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(MAX_LAG_BYTES)
    except OSError:
        return 0
    at = 0
    while at + PREFIX.size <= len(data):
        length, _ = PREFIX.unpack_from(data, at)
        if not 0 < length <= MAX_FRAME:
            break
        at += PREFIX.size + length
    return min(at, len(data))
