"""Follows the segments of one epoch as they are written, and reads the rest of a dead worker's past any damage.

While the writer lives, an unreadable frame at the end is a write under way; only once a later segment has begun, or the
writer is dead, is it judged. Reads files, writes none and uses no database.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from uuid import UUID

import msgspec

from groundplan.gateway.journal.records import (
    HEADER_BYTES,
    MAX_FRAME,
    PREFIX,
    Entry,
    SegmentEnd,
    SegmentReader,
    frame_at,
    segment_numbers,
    segment_path,
)

_CHUNK = 1 << 20
_PAGE = 4096
_UNREADABLE = b"\xff" * _PAGE
"""Stands for a page that the disk cannot read. No record begins so."""


class TailRecord(msgspec.Struct, frozen=True, gc=False):
    """A record with the number of its segment."""

    entry: Entry
    segment: int


class EpochTail:
    """The reader of one epoch. `damaged` are the numbers of segments in which records are missing."""

    def __init__(self, folder: Path, epoch: UUID) -> None:
        self.folder = folder
        self.epoch = epoch
        self.damaged: set[int] = set()
        numbers = segment_numbers(folder)
        self.segment = numbers[0] if numbers else 1
        self.offset = HEADER_BYTES
        self.last_sequence: int | None = 0 if self.segment == 1 else None
        """Sequence of the last record read; None where earlier segments were already taken over."""

    @property
    def position(self) -> tuple[int, int]:
        """(segment, offset) up to which everything was read."""
        return self.segment, self.offset

    def read(self, limit: int) -> list[TailRecord]:
        """Return up to about `limit` new records of a living or dead writer; empty when nothing new is certain."""
        found: list[TailRecord] = []
        while len(found) < limit:
            before = self.position
            self._read_chunk(found, limit)
            if self.position == before and not self._advance(found):
                break
        return found

    def read_rest(self) -> list[TailRecord]:
        """Return everything that is left; only for a dead writer."""
        found: list[TailRecord] = []
        while True:
            if segment_path(self.folder, self.segment).exists():
                self._read_damaged(found, last_segment=not self._has_later_records())
            following = self._next_segment_number()
            if following is None:
                return found
            self._begin_segment(following)

    def _read_chunk(self, found: list[TailRecord], limit: int) -> None:
        try:
            descriptor = os.open(segment_path(self.folder, self.segment), os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            data, _ = _pread(descriptor, _CHUNK, self.offset)
        finally:
            os.close(descriptor)
        base, offset, last, segment = self.offset, self.offset, self.last_sequence, self.segment
        while len(found) < limit:
            entry = frame_at(data, offset - base, base)
            if entry is None or (last is not None and entry.sequence != last + 1):
                break
            offset, last = entry.end, entry.sequence
            found.append(TailRecord(entry, segment))
        self.offset, self.last_sequence = offset, last

    def _next_segment_number(self) -> int | None:
        return next((number for number in segment_numbers(self.folder) if number > self.segment), None)

    def _segment_head(self, number: int) -> bytes:
        return _read_file(segment_path(self.folder, number), HEADER_BYTES + PREFIX.size + MAX_FRAME)[0]

    def _has_later_records(self) -> bool:
        """Whether anything was written to a later segment: spare ones are all zeros."""
        later = [number for number in segment_numbers(self.folder) if number > self.segment]
        return any(self._segment_head(number)[HEADER_BYTES:].strip(b"\0") for number in later)

    def _has_next_begun(self) -> bool:
        """Whether the writer has begun a later segment: the next one, unless its first record is damaged."""
        later = (number for number in segment_numbers(self.folder) if number > self.segment)
        return any(frame_at(self._segment_head(number), HEADER_BYTES) is not None for number in later)

    def _advance(self, found: list[TailRecord]) -> bool:
        """Go on to the next segment if the writer has begun it: then nothing more is written to this one."""
        following = self._next_segment_number()
        if following is None or not self._has_next_begun():
            return False
        self._read_damaged(found, last_segment=False)  # with what was written here since the last read
        self._begin_segment(following)
        return True

    def _begin_segment(self, number: int) -> None:
        if self.segment in self.damaged:
            self.last_sequence = None  # what is missing at the end of that segment is not damage of this one
        self.segment, self.offset = number, HEADER_BYTES

    def _read_damaged(self, found: list[TailRecord], *, last_segment: bool) -> None:
        """Read records after damage, and note the damage. A torn end counts as damage where anything was written after
        it."""
        data, whole = _read_file(segment_path(self.folder, self.segment))
        reader = SegmentReader(data, self.epoch, self.segment, self.last_sequence, self.offset)
        for entry in reader:
            found.append(TailRecord(entry, self.segment))
            self.last_sequence, self.offset = entry.sequence, entry.end
        assert reader.ending is not None
        torn = reader.ending.end is SegmentEnd.TORN and not last_segment
        if torn or not whole or reader.ending.end is SegmentEnd.CORRUPT:
            self.damaged.add(self.segment)


def _read_file(path: Path, size: int | None = None) -> tuple[bytes, bool]:
    """As `_pread`, from the beginning of a file, or all of it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _pread(descriptor, os.fstat(descriptor).st_size if size is None else size, 0)
    finally:
        os.close(descriptor)


def _pread(descriptor: int, size: int, offset: int) -> tuple[bytes, bool]:
    """Read from a file, and tell whether all of it could be read: an unreadable page is damage like any other. Raises
    OSError for errors of more than a page."""
    try:
        return os.pread(descriptor, size, offset), True
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    end, pages, whole = min(offset + size, os.fstat(descriptor).st_size), list[bytes](), True
    while offset < end:
        most = min(end, offset - offset % _PAGE + _PAGE) - offset
        try:
            pages.append(os.pread(descriptor, most, offset))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            pages.append(_UNREADABLE[:most])
            whole = False
        offset += most
    return b"".join(pages), whole


def try_lock(folder: Path) -> int | None:
    """Return a descriptor that holds the lock of an epoch's folder, to be closed; None where a process holds it, even a
    stopped one.

    A folder whose lock file is gone was being removed: its lock is free.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
