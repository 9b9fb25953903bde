"""The bytes of files: HOME/files/ID, private to this user, written completely or not at all. Their rows are in
`file_store`.

All disk access runs in threads of this module's own, so that calls wait neither for a slow disk nor for threads that
many uploads occupy.
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

MAX_FILE_BYTES = 200 << 20
MAX_REQUESTS_BYTES = 256 << 20
"""Of the body of a message batch, as at Anthropic."""
MAX_INPUT_BYTES = MAX_REQUESTS_BYTES + (16 << 20)
"""Of the file that is kept of such a body: each of its 100,000 requests is a little longer there."""
READ_BYTES = 64 << 10
"""Bytes read at once; a slow client has them in memory twice."""
RESERVED_DISK_BYTES = 512 << 20
"""Disk space that files leave free: the journal is on the same disk, and without it no call is made."""
_DISK_CHECK_BYTES = 16 << 20
"""Bytes written between two checks of the free space."""
_MIN_WRITE = 64 << 10
"""Least bytes written at once: uploads over slow networks arrive packet by packet."""
DAMAGED, ELSEWHERE = "file_damaged", "file_elsewhere"
RETRY_SECONDS = 5.0
"""When to try a failed disk again."""
_ABANDONED_S = 3600
_UNENTERED_S = 86_400
_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")
_READERS, _WRITERS = ThreadPoolExecutor(4, "reads files"), ThreadPoolExecutor(4, "writes files")
"""Reads do not wait behind slow writes."""


class Blobs:
    """The files of one HOME, and a mark for each batch that is not finished here."""

    def __init__(self, home: Home, free: int = RESERVED_DISK_BYTES) -> None:
        self.home = home
        self._free = free
        self.files = home.root / "files"
        self.batches = home.root / "batches"

    def path(self, id: UUID) -> Path:
        return self.files / str(id)

    def ready(self) -> None:
        """Create the folders, and delete leftovers of interrupted uploads."""
        for folder in (self.files, self.batches):
            folder.mkdir(mode=0o700, exist_ok=True)
        for path in self.files.glob(".*.new"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()

    def kept(self) -> list[UUID]:
        """Ids of the files in this HOME."""
        try:
            return _ids(path.name for path in self.files.iterdir())
        except FileNotFoundError:
            return []

    def is_old(self, id: UUID) -> bool:
        """Whether a file is a day old, much longer than it takes to add its row."""
        with suppress(OSError):
            return time.time() - self.path(id).stat().st_mtime > _UNENTERED_S
        return False

    async def keep(self, id: UUID, chunks: AsyncGenerator[bytes, None], most: int = MAX_FILE_BYTES) -> int:
        """Write a file of at most `most` bytes; returns its length. Raises `TooLarge`, `Unavailable`, and what `chunks`
        raises; then nothing remains."""
        await in_writer(self.ready)
        making, made = self.files / f".{new_id()}.new", self.path(id)
        left = [making]
        try:
            descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                async with aclosing(chunks):
                    size = await self._write_chunks(descriptor, chunks, most)
                await in_writer(os.fsync, descriptor)
            finally:
                os.close(descriptor)
            left.append(made)
            await in_writer(self._publish, making, made)
        except OSError as error:
            _remove_files(left)
            raise _write_failed(error) from error
        except BaseException:
            _remove_files(left)
            raise
        return size

    async def _write_chunks(self, descriptor: int, chunks: AsyncGenerator[bytes, None], most: int) -> int:
        """Write all chunks; returns their length."""
        size, looked = 0, -_DISK_CHECK_BYTES
        waiting: list[bytes] = []
        held = 0

        async def write() -> None:
            nonlocal looked, held
            if size - looked > _DISK_CHECK_BYTES:
                looked = size
                await in_writer(self._check_disk)
            await in_writer(_write, descriptor, waiting[0] if len(waiting) == 1 else b"".join(waiting))
            waiting.clear()
            held = 0

        async for chunk in chunks:
            size += len(chunk)
            _check_size(size, most)
            waiting.append(chunk)
            held += len(chunk)
            if held >= _MIN_WRITE:
                await write()
        if held:
            await write()
        return size

    def _check_disk(self) -> None:
        """Raise `Unavailable` where the disk has no room for files."""
        if self._free_bytes() < 0:
            raise _unavailable("the disk has no room for files", "Delete files, or free space on it.")

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self.files).free - self._free

    async def room(self) -> int:
        """Bytes free for further files. Raises `Unavailable`."""
        try:
            await in_writer(self.ready)
            return max(0, await in_writer(self._free_bytes))
        except OSError as error:
            raise _write_failed(error) from error

    def _publish(self, making: Path, made: Path) -> None:
        making.replace(made)
        sync_folder(self.files)

    async def read(self, id: UUID, size: int | None = None) -> AsyncIterator[bytes]:
        """A file's bytes in pieces. Raises `Unavailable` where this HOME does not have the file, or not all of it,
        before any piece; and where it cannot be read. `size`: its length as written, if known."""
        opening = asyncio.ensure_future(in_reader(os.open, self.path(id), os.O_RDONLY))
        try:
            descriptor = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(close_opened)
            raise
        except FileNotFoundError as error:
            raise Unavailable(
                "the file's content is not at this gateway", code=ELSEWHERE, hint="Ask where it was sent to."
            ) from error
        except OSError as error:
            raise _read_failed(id, error) from error
        try:
            if size is not None and os.fstat(descriptor).st_size != size:
                raise _damaged(id)
            while data := await _read_piece(id, descriptor):
                yield data
        finally:
            os.close(descriptor)

    async def part(self, id: UUID, place: int, length: int) -> bytes:
        """`length` bytes of a file from `place`. Raises `Unavailable`."""
        try:
            data = await in_reader(_read_part, self.path(id), place, length)
        except FileNotFoundError as error:
            raise Unavailable(
                "the batch's input cannot be read", code=ELSEWHERE, hint="Its file is gone from HOME/files."
            ) from error
        except OSError as error:
            raise _read_failed(id, error) from error
        if len(data) != length:
            raise _damaged(id)
        return data

    def mark(self, batch: UUID) -> None:
        """Mark a batch as one that this HOME has to run."""
        self.ready()
        (self.batches / str(batch)).touch(mode=0o600)
        sync_folder(self.batches)

    def unmark(self, batch: UUID) -> None:
        (self.batches / str(batch)).unlink(missing_ok=True)

    def marked(self) -> list[UUID]:
        """Marked batches, oldest first."""
        try:
            return _ids(sorted(path.name for path in self.batches.iterdir()))
        except FileNotFoundError:
            return []

    def marked_long_ago(self, batch: UUID) -> bool:
        """Whether the mark is too old for a batch that is just being created."""
        try:
            return time.time() - (self.batches / str(batch)).stat().st_mtime > 60
        except OSError:
            return False


def _write_failed(error: OSError) -> Unavailable:
    return _unavailable(f"the file cannot be kept: {error.strerror}", "Free space on its disk.")


def _read_failed(id: UUID, error: OSError) -> Unavailable:
    message = f"the file's content, HOME/files/{id}, cannot be read: {error.strerror}"
    return _unavailable(message, "Try again; if that does not help, whoever runs the gateway looks at its disk.")


def _unavailable(message: str, hint: str) -> Unavailable:
    return Unavailable(message, code="files_unavailable", hint=hint, retry_after=RETRY_SECONDS)


def _damaged(id: UUID) -> Unavailable:
    return Unavailable(
        f"the file's content on the disk, HOME/files/{id}, is not as long as it was written",
        code=DAMAGED,
        hint="Send the file again; whoever runs the gateway restores it from a backup (`groundplan doctor`).",
    )


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise TooLarge(f"the file is larger than {most >> 20} MB", code="file_too_large", hint="Cut it into parts.")


async def in_reader(work: Callable[[*_Args], _Result], *arguments: *_Args) -> _Result:
    """Run `work` in a reader thread, to its end even if cancelled: the cancelled caller closes the descriptor that
    `work` uses, and another file or connection could get its number at once."""
    return await _run_uncancelled(_READERS, work, *arguments)


async def in_writer(work: Callable[[*_Args], _Result], *arguments: *_Args) -> _Result:
    """As `in_reader`, for work that changes the disk."""
    return await _run_uncancelled(_WRITERS, work, *arguments)


async def _run_uncancelled(
    threads: ThreadPoolExecutor, work: Callable[[*_Args], _Result], *arguments: *_Args
) -> _Result:
    working = asyncio.get_running_loop().run_in_executor(threads, work, *arguments)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():  # also where it is cancelled once more meanwhile
            with suppress(asyncio.CancelledError):
                await asyncio.wait([working])
        if not working.cancelled():
            working.exception()  # retrieved, so that it is not reported as unhandled
        raise


def close_opened(opening: asyncio.Future[int]) -> None:
    """Close a file that was opened for a cancelled caller."""
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def _remove_files(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):  # the error that is raised is the earlier one
            path.unlink(missing_ok=True)


def _ids(names: Iterable[str]) -> list[UUID]:
    """The names that are ids."""
    found = []
    for name in names:
        with suppress(ValueError):
            found.append(UUID(name))
    return found


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


async def _read_piece(id: UUID, descriptor: int) -> bytes:
    try:
        return await in_reader(os.read, descriptor, READ_BYTES)
    except OSError as error:
        raise _read_failed(id, error) from error


def _read_part(path: Path, place: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, place)
    finally:
        os.close(descriptor)
