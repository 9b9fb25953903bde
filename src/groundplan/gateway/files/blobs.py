"""The bytes of files: HOME/files/ID, private to this user, whole or not there. What they are about is in `file_store`.

Everything that touches the disk runs in a thread, so that calls do not wait for it, and in one of its own: many uploads
to a slow disk take as many threads as there are, and calls wait for others of them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TypeVar, TypeVarTuple
from uuid import UUID

from groundplan.core.errors import TooLarge, Unavailable
from groundplan.core.home import Home, sync_folder
from groundplan.core.ids import new_id

MOST_BYTES = 200 << 20
CHUNK = 64 << 10
"""What is read at once: whoever takes it slowly has it in memory twice."""
FREE_BYTES = 512 << 20
"""Of the disk, that files leave alone: the journal is on it, and without that no call is made."""
_LOOK_BYTES = 16 << 20
"""Between two looks at the disk."""
_PIECE = 64 << 10
"""What is written at once at least: uploads over slow networks come in pieces of a packet each."""
DAMAGED = "file_damaged"
AGAIN_SECONDS = 5.0
"""After which a disk that took or gave nothing is asked again."""
_ABANDONED_S = 3600
_UNENTERED_S = 86_400
_Told = TypeVarTuple("_Told")
_Found = TypeVar("_Found")
_READERS, _WRITERS = ThreadPoolExecutor(4, "reads files"), ThreadPoolExecutor(4, "writes files")
"""Whoever reads does not wait behind a disk that takes long to write."""


class Blobs:
    """The files of one HOME, and a mark for each batch that is not finished here."""

    def __init__(self, home: Home, free: int = FREE_BYTES) -> None:
        self.home = home
        self._free = free
        self.files = home.root / "files"
        self.batches = home.root / "batches"

    def path(self, id: UUID) -> Path:
        return self.files / str(id)

    def ready(self) -> None:
        """Make the folders, and delete what uploads that were broken off have left."""
        for folder in (self.files, self.batches):
            folder.mkdir(mode=0o700, exist_ok=True)
        for path in self.files.glob(".*.new"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()

    def kept(self) -> list[UUID]:
        """The files that are here."""
        try:
            return _ids(path.name for path in self.files.iterdir())
        except FileNotFoundError:
            return []

    def is_old(self, id: UUID) -> bool:
        """Whether a file is here for longer than it takes to enter it, by a day."""
        with suppress(OSError):
            return time.time() - self.path(id).stat().st_mtime > _UNENTERED_S
        return False

    async def keep(self, id: UUID, chunks: AsyncGenerator[bytes, None], most: int = MOST_BYTES) -> int:
        """Write a file of at most `most` bytes; returns its length. Raises `TooLarge`, `Unavailable`, and what `chunks`
        raises; then nothing is left."""
        await writing(self.ready)
        making, made = self.files / f".{new_id()}.new", self.path(id)
        left = [making]
        try:
            descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                async with aclosing(chunks):
                    size = await self._take(descriptor, chunks, most)
                await writing(os.fsync, descriptor)
            finally:
                os.close(descriptor)
            left.append(made)
            await writing(self._place, making, made)
        except OSError as error:
            _remove(left)
            raise _unkept(error) from error
        except BaseException:
            _remove(left)
            raise
        return size

    async def _take(self, descriptor: int, chunks: AsyncGenerator[bytes, None], most: int) -> int:
        """All that comes; how much that was."""
        size, looked = 0, -_LOOK_BYTES
        waiting: list[bytes] = []
        held = 0

        async def write() -> None:
            nonlocal looked, held
            if size - looked > _LOOK_BYTES:
                looked = size
                await writing(self._check_disk)
            await writing(_write, descriptor, waiting[0] if len(waiting) == 1 else b"".join(waiting))
            waiting.clear()
            held = 0

        async for chunk in chunks:
            size += len(chunk)
            _check_size(size, most)
            waiting.append(chunk)
            held += len(chunk)
            if held >= _PIECE:
                await write()
        if held:
            await write()
        return size

    def _check_disk(self) -> None:
        """Raise `Unavailable` where the disk has no room for files."""
        if self._left() < 0:
            raise _unavailable("the disk has no room for files", "Delete files, or free space on it.")

    def _left(self) -> int:
        return shutil.disk_usage(self.files).free - self._free

    async def room(self) -> int:
        """Bytes that the disk has for further files. Raises `Unavailable`."""
        try:
            await writing(self.ready)
            return max(0, await writing(self._left))
        except OSError as error:
            raise _unkept(error) from error

    def _place(self, making: Path, made: Path) -> None:
        making.replace(made)
        sync_folder(self.files)

    async def read(self, id: UUID, size: int | None = None) -> AsyncIterator[bytes]:
        """Its bytes in pieces. Raises `Unavailable` where this HOME does not have it, or not all of it: then nothing is
        given; and where it cannot be read. `size`: what it was written with, where that is known."""
        opening = asyncio.ensure_future(reading(os.open, self.path(id), os.O_RDONLY))
        try:
            descriptor = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise
        except FileNotFoundError as error:
            raise Unavailable(
                "the file's content is not at this gateway", code="file_elsewhere", hint="Ask where it was sent to."
            ) from error
        except OSError as error:
            raise _unread(id, error) from error
        try:
            if size is not None and os.fstat(descriptor).st_size != size:
                raise _damaged(id)
            while data := await _piece(id, descriptor):
                yield data
        finally:
            os.close(descriptor)

    async def part(self, id: UUID, place: int, length: int) -> bytes:
        """A part of it. Raises `Unavailable`."""
        try:
            data = await reading(_read_part, self.path(id), place, length)
        except FileNotFoundError as error:
            raise Unavailable(
                "the batch's input cannot be read", code="file_elsewhere", hint="Its file is gone from HOME/files."
            ) from error
        except OSError as error:
            raise _unread(id, error) from error
        if len(data) != length:
            raise _damaged(id)
        return data

    def mark(self, batch: UUID) -> None:
        """This HOME has a batch to run."""
        self.ready()
        (self.batches / str(batch)).touch(mode=0o600)
        sync_folder(self.batches)

    def unmark(self, batch: UUID) -> None:
        (self.batches / str(batch)).unlink(missing_ok=True)

    def marked(self) -> list[UUID]:
        """Batches that are not finished here, oldest first."""
        try:
            return _ids(sorted(path.name for path in self.batches.iterdir()))
        except FileNotFoundError:
            return []

    def marked_long_ago(self, batch: UUID) -> bool:
        """Whether the mark is older than any batch that is just being made."""
        try:
            return time.time() - (self.batches / str(batch)).stat().st_mtime > 60
        except OSError:
            return False


def _unkept(error: OSError) -> Unavailable:
    return _unavailable(f"the file cannot be kept: {error.strerror}", "Free space on its disk.")


def _unread(id: UUID, error: OSError) -> Unavailable:
    told = f"the file's content, HOME/files/{id}, cannot be read: {error.strerror}"
    return _unavailable(told, "Try again; if that does not help, whoever runs the gateway looks at its disk.")


def _unavailable(message: str, hint: str) -> Unavailable:
    return Unavailable(message, code="files_unavailable", hint=hint, retry_after=AGAIN_SECONDS)


def _damaged(id: UUID) -> Unavailable:
    return Unavailable(
        f"the file's content on the disk, HOME/files/{id}, is not as long as it was written",
        code=DAMAGED,
        hint="Send the file again; whoever runs the gateway restores it from a backup (`groundplan doctor`).",
    )


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise TooLarge(f"the file is larger than {most >> 20} MB", code="file_too_large", hint="Cut it into parts.")


async def reading(work: Callable[[*_Told], _Found], *arguments: *_Told) -> _Found:
    """What `work` makes of these, in a thread, to its end: whoever is cancelled meanwhile closes the descriptor that it
    uses, and another file or connection may get its number at once."""
    return await _to_its_end(_READERS, work, *arguments)


async def writing(work: Callable[[*_Told], _Found], *arguments: *_Told) -> _Found:
    """As `reading`, of what changes the disk."""
    return await _to_its_end(_WRITERS, work, *arguments)


async def _to_its_end(threads: ThreadPoolExecutor, work: Callable[[*_Told], _Found], *arguments: *_Told) -> _Found:
    working = asyncio.get_running_loop().run_in_executor(threads, work, *arguments)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():  # also where it is cancelled once more meanwhile
            with suppress(asyncio.CancelledError):
                await asyncio.wait([working])
        if not working.cancelled():
            working.exception()  # which is for nobody any more
        raise


def _close(opening: asyncio.Future[int]) -> None:
    """What was opened for somebody who is gone."""
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):  # what is said is why it is not there
            path.unlink(missing_ok=True)


def _ids(names: Iterable[str]) -> list[UUID]:
    """Those of these names that are ids."""
    found = []
    for name in names:
        with suppress(ValueError):
            found.append(UUID(name))
    return found


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


async def _piece(id: UUID, descriptor: int) -> bytes:
    try:
        return await reading(os.read, descriptor, CHUNK)
    except OSError as error:
        raise _unread(id, error) from error


def _read_part(path: Path, place: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, place)
    finally:
        os.close(descriptor)
