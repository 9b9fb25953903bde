"""Follows the segments of one epoch as they are written, and reads the rest of a dead one past any damage.

While the writer lives, an unreadable frame at the end is a write under way; only once a later segment has begun, or the
writer is dead, is it judged. Reads files, writes none and knows no database.
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
    End,
    Entry,
    SegmentReader,
    frame_at,
    segment_numbers,
    segment_path,
)

_CHUNK = 1 << 20
_PAGE = 4096
_UNREADABLE = b"\xff" * _PAGE
"""In place of a page that the disk does not give (any more). No record begins so."""


class Read(msgspec.Struct, frozen=True, gc=False):
    """A record with the number of its segment."""

    entry: Entry
    segment: int


class EpochTail:
    """Where the reader of one epoch is. `damaged` are the numbers of segments in which records are missing."""

    def __init__(self, folder: Path, epoch: UUID) -> None:
        self.folder = folder
        self.epoch = epoch
        self.damaged: set[int] = set()
        numbers = segment_numbers(folder)
        self.segment = numbers[0] if numbers else 1
        self.offset = HEADER_BYTES
        self.last: int | None = 0 if self.segment == 1 else None
        """Sequence of the last record read; None where earlier segments were already taken over."""

    @property
    def position(self) -> tuple[int, int]:
        """(segment, offset) up to which everything was read."""
        return self.segment, self.offset

    def read(self, limit: int) -> list[Read]:
        """Up to about `limit` new records of a living or dead writer; empty when there is nothing new to be sure of."""
        found: list[Read] = []
        while len(found) < limit:
            before = self.position
            self._read_chunk(found, limit)
            if self.position == before and not self._advance(found):
                break
        return found

    def read_rest(self) -> list[Read]:
        """Everything that is left; only for a writer that is dead."""
        found: list[Read] = []
        while True:
            if segment_path(self.folder, self.segment).exists():
                self._judge(found, last_segment=not self._written_later())
            following = self._following()
            if following is None:
                return found
            self._begin(following)

    def _read_chunk(self, found: list[Read], limit: int) -> None:
        try:
            descriptor = os.open(segment_path(self.folder, self.segment), os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            data, _ = _given(descriptor, _CHUNK, self.offset)
        finally:
            os.close(descriptor)
        base, offset, last, segment = self.offset, self.offset, self.last, self.segment
        while len(found) < limit:
            entry = frame_at(data, offset - base, base)
            if entry is None or (last is not None and entry.sequence != last + 1):
                break
            offset, last = entry.end, entry.sequence
            found.append(Read(entry, segment))
        self.offset, self.last = offset, last

    def _following(self) -> int | None:
        return next((number for number in segment_numbers(self.folder) if number > self.segment), None)

    def _head(self, number: int) -> bytes:
        return _read(segment_path(self.folder, number), HEADER_BYTES + PREFIX.size + MAX_FRAME)[0]

    def _written_later(self) -> bool:
        """Whether anything was written to a later segment: those made ahead of need are zeros."""
        later = [number for number in segment_numbers(self.folder) if number > self.segment]
        return any(self._head(number)[HEADER_BYTES:].strip(b"\0") for number in later)

    def _is_begun(self) -> bool:
        """Whether the writer has begun a later segment: the next one, unless its first record is damaged."""
        later = (number for number in segment_numbers(self.folder) if number > self.segment)
        return any(frame_at(self._head(number), HEADER_BYTES) is not None for number in later)

    def _advance(self, found: list[Read]) -> bool:
        """Go on to the next segment if the writer has begun it: then nothing more is written to this one."""
        following = self._following()
        if following is None or not self._is_begun():
            return False
        self._judge(found, last_segment=False)  # with what was written here between the last look and that
        self._begin(following)
        return True

    def _begin(self, number: int) -> None:
        if self.segment in self.damaged:
            self.last = None  # what is missing at the end of that segment is no damage of this one
        self.segment, self.offset = number, HEADER_BYTES

    def _judge(self, found: list[Read], *, last_segment: bool) -> None:
        """Read what lies behind damage, and note the damage. A torn end is one only where nothing was written after
        it."""
        data, whole = _read(segment_path(self.folder, self.segment))
        reader = SegmentReader(data, self.epoch, self.segment, self.last, self.offset)
        for entry in reader:
            found.append(Read(entry, self.segment))
            self.last, self.offset = entry.sequence, entry.end
        assert reader.ending is not None
        torn = reader.ending.end is End.TORN and not last_segment
        if torn or not whole or reader.ending.end is End.CORRUPT:
            self.damaged.add(self.segment)


def _read(path: Path, size: int | None = None) -> tuple[bytes, bool]:
    """As `_given`, of the beginning of a file or all of it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _given(descriptor, os.fstat(descriptor).st_size if size is None else size, 0)
    finally:
        os.close(descriptor)


def _given(descriptor: int, size: int, offset: int) -> tuple[bytes, bool]:
    """What the disk gives of a file, and whether that is all there is: a page that it does not give is damage like any
    other. Raises OSError for what is wrong with more than a page."""
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
    """The lock of an epoch's folder if nobody holds it (a stopped process still does): a descriptor to close. Else
    None.

    A folder whose lock file is gone was being removed: it counts as nobody's.
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
