"""The bytes of a large form's files on disk, for forms that have to arrive completely before they are sent on. They are
in a file without a name, so that nothing of it is left when its call ends, however it ends.

Does not parse forms: `upload` says which bytes are written and when they are read.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from groundplan.gateway.files.blobs import READ_BYTES, RESERVED_DISK_BYTES, close_opened, in_reader, in_writer

_MIN_WRITE = 256 << 10
"""Least bytes written at once."""
_DISK_CHECK_BYTES = 16 << 20
"""Bytes written between two checks of the free space."""


@dataclass(frozen=True, slots=True)
class StoredData:
    """Bytes of the newest part that are on disk."""

    start: int
    size: int


class FormStore:
    """The bytes of one form's files. All methods raise OSError."""

    def __init__(self, descriptor: int, folder: Path) -> None:
        self._descriptor = descriptor
        self._folder = folder
        self._waiting = bytearray()
        self._written = 0
        self._next_check = 0

    @classmethod
    async def create(cls, folder: Path) -> FormStore:
        creating = asyncio.ensure_future(in_writer(_unnamed_file, folder))
        try:
            return cls(await asyncio.shield(creating), folder)
        except asyncio.CancelledError:
            creating.add_done_callback(close_opened)
            raise

    def close(self) -> None:
        """Delete the bytes. Further calls have no effect."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close

    async def append(self, data: bytes) -> StoredData:
        """Add bytes behind those that are there; they can be read after `flush`."""
        start = self._written + len(self._waiting)
        self._waiting += data
        if len(self._waiting) >= _MIN_WRITE:
            await self.flush()
        return StoredData(start, len(data))

    async def flush(self) -> None:
        await in_writer(self._write)

    def _write(self) -> None:
        if self._written >= self._next_check:
            _check_room(self._folder)
            self._next_check = self._written + _DISK_CHECK_BYTES
        with memoryview(self._waiting) as whole:
            done = 0
            while done < len(whole):
                done += os.pwrite(self._descriptor, whole[done:], self._written + done)
        self._written += len(self._waiting)
        self._waiting.clear()

    async def read(self, stored: StoredData) -> AsyncIterator[bytes]:
        """The stored bytes in pieces."""
        place, end = stored.start, stored.start + stored.size
        while place < end:
            data = await in_reader(os.pread, self._descriptor, min(READ_BYTES, end - place), place)
            if not data:
                raise OSError("the stored form is shorter than it was written")
            place += len(data)
            yield data


def _unnamed_file(folder: Path) -> int:
    _check_room(folder)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        return os.dup(file.fileno())


def _check_room(folder: Path) -> None:
    """Raise OSError where the disk has no room beyond what is left to the journal."""
    if shutil.disk_usage(folder).free < RESERVED_DISK_BYTES + 2 * _DISK_CHECK_BYTES:
        raise OSError("the disk has no room for it")
