"""Answers kept for `Idempotency-Key`: replayed from memory for ten minutes, refused with 409 for a day, never made
twice.

Each worker also writes the keys (as digests, never the answers) to small files before anything is sent, so that other
workers and a restarted one refuse them, and withdraws them where nothing was sent. A file has the keys of some hours
and is deleted a day later. It is synced before anything is sent, in rounds shared by concurrent calls: not even a power
loss lets a request be sent twice. Withdrawals are not synced.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import struct
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID

from groundplan.core.errors import Conflict, Invalid, Unavailable
from groundplan.core.home import list_names, sync_folder
from groundplan.gateway.caching.used_idempotency_keys import DAY_SECONDS, NEVER, UsedIdempotencyKeys

IDEMPOTENCY_KEY = b"idempotency-key"
"""Name of the header."""
MEMORY_SECONDS = 600.0
MEMORY_BYTES = 32 << 20
ENTRY_BYTES = 1500
"""Memory that an answer takes besides its own bytes."""
FILE_SECONDS = DAY_SECONDS / 4
"""How long a file is written before the next one is begun."""
_ENTRY = struct.Struct(">32sd")
_HEAD = struct.Struct(">32s4sHxx")
"""Head of a file: token and port of its worker, as large as an entry."""
_MAGIC = b"gpik"
_FILE = re.compile(r"idempotency-.*\.log")


@dataclass(frozen=True, slots=True)
class Holder:
    """Where another worker can be asked for its answers, over loopback."""

    port: int
    token: bytes


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """A finished answer; `status` 0: the first call has no answer that can be replayed."""

    status: int
    headers: bytes
    content_type: bytes
    body: bytes
    subjects: frozenset[str] = frozenset()
    """What it rests on: no kill may be in force for any of them when it is replayed."""
    cites: tuple[tuple[str, str], ...] = ()
    """(chunk, source) of each passage that the model saw."""


@dataclass(slots=True)
class _Entry:
    body: bytes
    at: float
    answer: asyncio.Future[KeptAnswer | None]
    size: int = 0
    claimed_in: Path | None = None
    """The file in which this worker claimed the key, so that its answer counts for other workers, too."""


@dataclass(slots=True)
class _Reader:
    """The state of reading another worker's file."""

    position: int = 0
    holder: Holder | None = None
    seen: UsedIdempotencyKeys = field(default_factory=UsedIdempotencyKeys)


class IdempotentAnswers:
    """The idempotency keys and kept answers of one worker; `folder` is HOME/journal."""

    def __init__(self, folder: Path, epoch: UUID, now: float) -> None:
        self._folder = folder
        self._own_prefix = f"idempotency-{epoch}"
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._readers: dict[str, _Reader] = {}
        self._evicted = UsedIdempotencyKeys()
        self._bytes = 0
        self._file: int | None = None
        self._file_path = self._path(0)
        """Path of the newest file."""
        self._file_count = 0
        """Files begun so far."""
        self._file_started_at = now
        self._holder: Holder | None = None
        self._syncer = ThreadPoolExecutor(1, "idempotency-sync")
        self._syncing = False
        self._waiting: list[asyncio.Future[None]] = []
        """Calls that wait for the next sync round."""
        self._retired: list[int] = []
        """Files that are no longer written, but may hold keys that are not synced yet."""
        with suppress(OSError):
            self._forget_old_files(now)

    def open(self, holder: Holder) -> None:
        """Begin this worker's first file, with the address of its answers. While the disk takes none, calls with a key
        are refused."""
        self._holder = holder
        with suppress(OSError):
            self._file = self._begin_file(holder)

    def catch_up(self) -> None:
        """Read the files of other workers before any call would wait for it: for a day with a few keys a second that
        takes seconds."""
        with suppress(OSError):  # a call with a key tries again, and is refused if that fails
            self._read_other_files(self._file_started_at)

    def _begin_file(self, holder: Holder) -> int:
        """Raises OSError."""
        path = self._path(self._file_count)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            _append(file, _HEAD.pack(holder.token, _MAGIC, holder.port))
            sync_folder(self._folder)
        except OSError:
            os.close(file)
            raise
        self._file_count += 1
        self._file_path = path
        return file

    def _path(self, number: int) -> Path:
        return self._folder / (f"{self._own_prefix}.{number}.log" if number else f"{self._own_prefix}.log")

    def _rotate_file(self, now: float) -> None:
        """Begin the next file if the present one is old enough, and forget old files. Raises OSError."""
        if self._file is None or self._holder is None or now - self._file_started_at < FILE_SECONDS:
            return
        next_file = self._begin_file(self._holder)
        self._retired.append(self._file)
        self._file, self._file_started_at = next_file, now
        self._forget_old_files(now)

    async def begin(self, digest: bytes, body: bytes, now: float) -> KeptAnswer | None:
        """The answer of an earlier call with this key, awaited if it is still being made; None: the caller is the first
        here, and must `keep` an answer or `release` the key.

        Raises `Conflict` for another body, or an answer that is no longer in memory.
        """
        self._evict(now)
        while True:
            entry = self._entries.get(digest)
            if entry is None:
                if self._evicted.is_used(digest, now):
                    raise forgotten_error()
                self._entries[digest] = _Entry(body, now, asyncio.get_running_loop().create_future())
                return None
            kept = await self._answer(entry, body)
            if kept is not None:
                return kept

    def body_digest(self, digest: bytes) -> bytes:
        """The digest of the request that holds this key in this worker."""
        return self._entries[digest].body

    async def find_for_worker(self, digest: bytes, body: bytes) -> KeptAnswer | None:
        """The answer for another worker, awaited if it is still being made; None: this worker has not claimed the key.
        Raises `Conflict` for another body."""
        entry = self._entries.get(digest)
        if entry is None or entry.claimed_in is None:
            return None
        return await self._answer(entry, body)

    async def _answer(self, entry: _Entry, body: bytes) -> KeptAnswer | None:
        if entry.body != body:
            raise mismatch_error()
        return await asyncio.shield(entry.answer)

    def claim(self, digest: bytes, now: float) -> list[Holder]:
        """Write the key to this worker's file, before anything is sent for it. Returns the workers that wrote it before
        and may have the answer; empty: the key is claimed. Of two workers that claim at the same moment, both may get
        the other.

        Raises `Unavailable` if it cannot be written.
        """
        if self._holder is None:
            raise _unwritable_error()
        try:
            if self._file is None:
                self._file = self._begin_file(self._holder)
            self._rotate_file(now)
            # written before reading: of two workers with the same key at once at least one sees the other
            _append(self._file, _ENTRY.pack(digest, now))
        except OSError as error:
            raise _unwritable_error() from error
        try:
            self._read_other_files(now)
        except OSError as error:
            self._withdraw(digest, self._file_path)
            raise _unwritable_error() from error
        holders = [
            reader.holder or Holder(0, b"") for reader in self._readers.values() if reader.seen.is_used(digest, now)
        ]
        entry = self._entries.get(digest)
        if holders:
            self._withdraw(digest, self._file_path)
        elif entry is not None:
            entry.claimed_in = self._file_path
        return holders

    async def claim_durably(self, digest: bytes, now: float) -> list[Holder]:
        """As `claim`; a claimed key is then synced to the disk, so that it survives a power loss."""
        holders = self.claim(digest, now)
        if not holders:
            loop = asyncio.get_running_loop()
            durable = loop.create_future()
            self._waiting.append(durable)
            if not self._syncing:
                self._sync(loop)
            await durable
        return holders

    def _sync(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a sync round in a thread, of all that was written so far, for all calls that wait."""
        waiting, self._waiting = self._waiting, []
        full, self._retired = self._retired, []
        written = full if self._file is None else [*full, self._file]
        try:
            round = loop.run_in_executor(self._syncer, _sync_all, written)
        except RuntimeError:  # no more threads can be started
            self._retired = full
            _fail_waiters(waiting)
            return
        self._syncing = True
        round.add_done_callback(partial(self._synced, loop, waiting, full))

    def _synced(
        self,
        loop: asyncio.AbstractEventLoop,
        waiting: list[asyncio.Future[None]],
        full: list[int],
        round: asyncio.Future[None],
    ) -> None:
        self._syncing = False
        for file in full:
            os.close(file)
        if self._holder is None or round.cancelled() or round.exception() is not None:
            _fail_waiters([*waiting, *self._waiting])
            self._waiting = []
            self._close_files()  # after a failed sync its content is unknown; the next key begins another
            return
        for each in waiting:
            if not each.done():
                each.set_result(None)
        if self._waiting:
            self._sync(loop)

    def _close_files(self) -> None:
        for file in self._retired if self._file is None else [*self._retired, self._file]:
            os.close(file)
        self._file, self._retired = None, []

    def _withdraw(self, digest: bytes, path: Path) -> None:
        """Write that nothing was sent for this key, in the file in which it was claimed: another one does not take it
        back. That file may have been full, or not synced, since. If it cannot be written, the key stays used."""
        with suppress(OSError):
            if self._file is not None and path == self._file_path:
                _append(self._file, _ENTRY.pack(digest, NEVER))
                return
            file = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                _append(file, _ENTRY.pack(digest, NEVER))
            finally:
                os.close(file)

    def keep(self, digest: bytes, kept: KeptAnswer) -> None:
        """Keep the answer of the first call, for calls that wait and later ones."""
        entry = self._entries.get(digest)
        if entry is None or entry.answer.done():
            return
        entry.answer.set_result(kept)
        entry.size = len(kept.body) + len(kept.headers) + ENTRY_BYTES
        self._bytes += entry.size
        self._evict(entry.at)

    def release(self, digest: bytes) -> None:
        """Free a key for which nothing was sent: the next request with it, at any worker, is a first one."""
        entry = self._entries.pop(digest, None)
        if entry is None:
            return
        if entry.claimed_in is not None:
            self._withdraw(digest, entry.claimed_in)
        self._bytes -= entry.size
        if not entry.answer.done():
            entry.answer.set_result(None)

    def _evict(self, now: float) -> None:
        """Drop answers that are too old or exceed the memory; their keys stay used. A key whose call still runs is
        never dropped."""
        gone = []
        for digest, entry in self._entries.items():
            if not entry.answer.done():
                continue
            if now - entry.at < MEMORY_SECONDS and self._bytes <= MEMORY_BYTES:
                break
            self._bytes -= entry.size
            gone.append(digest)
        for digest in gone:
            self._evicted.add(digest, self._entries.pop(digest).at)
        self._evicted.expire(now)

    def _read_other_files(self, now: float) -> None:
        for path in self._key_files():
            if not path.name.startswith(self._own_prefix):
                self._read_file(path, now)

    def _key_files(self) -> list[Path]:
        """Raises OSError."""
        return [self._folder / name for name in list_names(self._folder) if _FILE.fullmatch(name)]

    def _read_file(self, path: Path, now: float) -> None:
        reader = self._readers.setdefault(path.name, _Reader())
        try:
            if path.stat().st_size < reader.position + _ENTRY.size:
                return
            with path.open("rb") as file:
                file.seek(reader.position)
                data = file.read()
        except FileNotFoundError:
            return
        whole, head = len(data) // _ENTRY.size * _ENTRY.size, 0
        if not reader.position and whole:
            token, magic, port = _HEAD.unpack(data[: _HEAD.size])
            if magic == _MAGIC:
                reader.holder, head = Holder(port, token), _HEAD.size
        reader.position += whole
        reader.seen.update(_ENTRY.iter_unpack(data[head:whole]))
        reader.seen.expire(now)

    def _forget_old_files(self, now: float) -> None:
        """Delete old files, also those of other workers: each begins a new file long before."""
        left = set()
        for path in self._key_files():
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > DAY_SECONDS:
                    path.unlink()
                else:
                    left.add(path.name)
        self._readers = {name: reader for name, reader in self._readers.items() if name in left}

    def close(self) -> None:
        """Close the files; delete an empty one, since every worker reads each file of a day."""
        self._holder = None
        self._syncer.shutdown()
        if self._file is not None and os.fstat(self._file).st_size <= _HEAD.size:
            with suppress(OSError):
                self._path(self._file_count - 1).unlink()
        self._close_files()


def _append(file: int, entry: bytes) -> None:
    """Append the whole entry or nothing: a part, on a full disk, would shift all later entries. Raises OSError."""
    written = os.write(file, entry)
    if written != len(entry):
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sync_all(files: list[int]) -> None:
    for file in files:
        os.fdatasync(file)


def _fail_waiters(waiting: list[asyncio.Future[None]]) -> None:
    for each in waiting:
        if not each.done():
            each.set_exception(_unwritable_error())
            each.exception()  # mark as retrieved: a waiter that is gone must not cause a warning


def key_digest(named: bytes, whose: str, person: str) -> bytes:
    """Digest of an Idempotency-Key and its user: an API key (or those it was rotated to) and a person. Raises
    `Invalid`."""
    if not 0 < len(named) <= 255:
        raise Invalid(
            "the Idempotency-Key is empty or too long", code="idempotency_key", hint="Use 1 to 255 characters."
        )
    return hashlib.sha256(f"{whose}\0{person}\0".encode() + named).digest()


def mismatch_error() -> Conflict:
    """The error for a key that was used for another request."""
    return Conflict(
        "this Idempotency-Key was used for another request",
        code="idempotency_mismatch",
        hint="Use a new key for each different request.",
    )


def forgotten_error() -> Conflict:
    """The error for a used key whose answer is no longer kept."""
    return Conflict(
        "this Idempotency-Key was used before, and its answer is not in memory any more",
        code="idempotency_replayed",
        hint="The first call may have been billed; use a new key to ask again.",
    )


def _unwritable_error() -> Unavailable:
    return Unavailable(
        "the Idempotency-Key cannot be written down", code="journal_unavailable", hint="Check the disk of HOME.",
        retry_after=1.0,
    )  # fmt: skip
