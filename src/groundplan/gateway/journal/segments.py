"""Segments of a journal, allocated ahead of need by a thread and filled with real zeros, so that fdatasync never waits
for the file system's metadata.

`journal` writes into them and decides when the next one is begun.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from groundplan.core.home import sync_folder
from groundplan.gateway.journal import records
from groundplan.gateway.journal.records import HEADER_BYTES

_ZEROS = bytes(1 << 20)
_RETRY_S = 1.0
SPARE_SEGMENTS = 2
"""Spare segments: where the disk is busy, filling one with zeros can take longer than filling another with records."""


def allocate_segment(folder: Path, epoch: UUID, number: int, size: int) -> int:
    """Create a segment of real zeros with its header, durable under its name; returns the open descriptor. Raises
    OSError; where the disk has no room for all of it nothing is written: others need what is left."""
    disk = os.statvfs(folder)
    if disk.f_blocks and disk.f_bavail * disk.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    final = records.segment_path(folder, number)
    temporary = final.with_name(final.name + ".new")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        written = 0
        while written < size:
            written += os.pwrite(descriptor, _ZEROS[: size - written], written)
        os.pwrite(descriptor, records.segment_header(epoch, number), 0)
        os.fsync(descriptor)
        temporary.replace(final)
        sync_folder(folder)
    except OSError:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)
        raise
    return descriptor


def create_folder(folder: Path, epoch: UUID, size: int) -> tuple[int, int]:
    """Create the folder of an epoch; returns the descriptors of its lock, which is held, and of its first segment.
    Raises OSError, and then leaves nothing behind.

    The lock is held before the folder has its name, so a journal under construction is never taken for an abandoned
    one.
    """
    making = folder.with_name(f".{epoch}.new")
    opened: list[int] = []
    try:
        making.mkdir(mode=0o700, parents=True)
        opened.append(os.open(making / "lock", os.O_RDWR | os.O_CREAT, 0o600))
        fcntl.flock(opened[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        opened.append(allocate_segment(making, epoch, 1, size))
        making.rename(folder)
        sync_folder(folder.parent)
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        shutil.rmtree(making, ignore_errors=True)
        raise
    return opened[0], opened[1]


@dataclass(slots=True)
class Segment:
    """An open segment; `offset` is where the next frame goes."""

    descriptor: int
    number: int
    size: int
    offset: int = HEADER_BYTES


class SpareSegments:
    """Segments of one journal that wait to be written into. All methods belong to the loop's thread."""

    def __init__(self, folder: Path, epoch: UUID, loop: asyncio.AbstractEventLoop, first: Segment) -> None:
        self.ready: deque[Segment] = deque()
        self.is_allocating = False
        self._folder, self._epoch, self._loop, self._size = folder, epoch, loop, first.size
        self._next = first.number + 1
        self._stopped = False
        self._thread: threading.Thread | None = None

    def fill(self) -> None:
        """Allocate segments, one after the other, until `SPARE_SEGMENTS` wait. Retries after a disk error."""
        if self.is_allocating or len(self.ready) >= SPARE_SEGMENTS or self._stopped:
            return
        self.is_allocating = True
        self._thread = threading.Thread(target=self._allocate, args=(self._next,), name="journal-room", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # this user may have no more threads now
            self._thread = None
            self._on_allocated(self._next, None)

    def _allocate(self, number: int) -> None:
        try:
            made: int | None = allocate_segment(self._folder, self._epoch, number, self._size)
        except OSError:
            made = None
        try:
            self._loop.call_soon_threadsafe(self._on_allocated, number, made)
        except RuntimeError:
            return  # the loop is closed: the process ends

    def _on_allocated(self, number: int, descriptor: int | None) -> None:
        self.is_allocating = False
        if descriptor is not None:
            self.ready.append(Segment(descriptor, number, self._size))
            self._next = number + 1
            self.fill()
        elif not self._stopped:
            self._loop.call_later(_RETRY_S, self.fill)

    def stop(self) -> None:
        """Allocate no more; one under way still arrives."""
        self._stopped = True

    async def join(self) -> None:
        """Wait until no allocation is under way. Call `stop` first."""
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # runs what the thread scheduled on the loop
