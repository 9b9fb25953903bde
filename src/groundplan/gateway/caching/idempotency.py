"""Answers kept for `Idempotency-Key`: replayed from memory for ten minutes, refused with 409 for a day, never made
twice.

The keys (as digests, never the answers) are also in one small file per worker, written before anything is sent, so that
another worker or a restarted one refuses them. The file is not synced: it survives a kill, not a loss of power.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from groundplan.core.errors import Conflict, Unavailable

MEMORY_SECONDS = 600.0
DAY_SECONDS = 86_400.0
MEMORY_BYTES = 32 << 20
_ENTRY = struct.Struct(">32sd")
_HEAD = struct.Struct(">32s4sHxx")
"""Of the file: token and port of its worker, as large as an entry."""
_MAGIC = b"gpik"


@dataclass(frozen=True, slots=True)
class Holder:
    """Where a worker hands out its answers."""

    port: int
    token: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished answer; `status` 0 means that the first call was cut off."""

    status: int
    headers: bytes
    content_type: bytes
    body: bytes
    subjects: frozenset[str] = frozenset()
    """What it came from and is about: no kill may be in force for any of them when it is given again."""
    cites: tuple[tuple[str, str], ...] = ()
    """(chunk, source) of each passage that was before the model."""


@dataclass(slots=True)
class _Entry:
    body: bytes
    at: float
    answer: asyncio.Future[Kept | None]
    size: int = 0
    marked: bool = False
    """Nobody else had the key when this worker wrote it down: it is this worker's to answer."""


@dataclass(slots=True)
class _Reader:
    """How far another worker's file was read."""

    position: int = 0
    holder: Holder | None = None
    seen: OrderedDict[bytes, float] = field(default_factory=OrderedDict)
    """Of the last day, in the order in which they were written."""


class Answers:
    """Of one worker; `folder` is HOME/journal."""

    def __init__(self, folder: Path, epoch: UUID, now: float) -> None:
        self._folder = folder
        self._path = folder / f"idempotency-{epoch}.log"
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._others: dict[str, _Reader] = {}
        self._evicted: OrderedDict[bytes, float] = OrderedDict()
        self._bytes = 0
        self._file: int | None = None
        self._forget_old_files(now)

    def open(self, holder: Holder) -> None:
        """Start this worker's file, saying where its answers can be had. Raises `Unavailable`."""
        try:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            _append(self._file, _HEAD.pack(holder.token, _MAGIC, holder.port))
        except OSError as error:
            raise _unwritable() from error

    async def begin(self, digest: bytes, body: bytes, now: float) -> Kept | None:
        """None: the caller is the first here and must `keep` or `forget`. Otherwise the first one's answer.

        Raises `Conflict` for another body, or an answer that is not in memory any more.
        """
        self._evict(now)
        while True:
            entry = self._entries.get(digest)
            if entry is None:
                if now - self._evicted.get(digest, now - DAY_SECONDS) < DAY_SECONDS:
                    raise Conflict(
                        "this Idempotency-Key was used before, and its answer is not in memory any more",
                        code="idempotency_replayed",
                        hint="The first call may have been billed; use a new key to ask again.",
                    )
                self._entries[digest] = _Entry(body, now, asyncio.get_running_loop().create_future())
                return None
            kept = await self._answer(entry, body)
            if kept is not None:
                return kept

    async def give(self, digest: bytes, body: bytes) -> Kept | None:
        """For another worker: the answer when it is there, None when it is not this worker's. Raises `Conflict`."""
        entry = self._entries.get(digest)
        if entry is None or not entry.marked:
            return None
        return await self._answer(entry, body)

    async def _answer(self, entry: _Entry, body: bytes) -> Kept | None:
        if entry.body != body:
            raise Conflict(
                "this Idempotency-Key was used for another request",
                code="idempotency_mismatch",
                hint="Use a new key for each different request.",
            )
        return await asyncio.shield(entry.answer)

    def mark(self, digest: bytes, now: float) -> list[Holder]:
        """Write the key down, before anything is sent for it. Whoever wrote it before is returned, and may have the
        answer.

        Raises `Unavailable` when it cannot be written.
        """
        if self._file is None:
            raise _unwritable()
        try:
            # written before reading: of two workers with the same key at once at least one sees the other
            _append(self._file, _ENTRY.pack(digest, now))
            self._read_others(now)
        except OSError as error:
            raise _unwritable() from error
        holders = [
            reader.holder or Holder(0, b"")
            for reader in self._others.values()
            if now - reader.seen.get(digest, now - DAY_SECONDS) < DAY_SECONDS
        ]
        entry = self._entries.get(digest)
        if not holders and entry is not None:
            entry.marked = True
        return holders

    def keep(self, digest: bytes, kept: Kept) -> None:
        """The answer of the first call, for those that wait and those to come."""
        entry = self._entries.get(digest)
        if entry is None or entry.answer.done():
            return
        entry.answer.set_result(kept)
        entry.size = len(kept.body)
        self._bytes += entry.size
        self._evict(entry.at)

    def forget(self, digest: bytes) -> None:
        """Nothing was sent for this key: the next request with it is a first one."""
        entry = self._entries.pop(digest, None)
        if entry is None:
            return
        self._bytes -= entry.size
        if not entry.answer.done():
            entry.answer.set_result(None)

    def _evict(self, now: float) -> None:
        """Drop what is too old or too much; a dropped key is remembered as used. One whose call goes on is neither,
        however long it does."""
        gone = []
        for digest, entry in self._entries.items():
            if not entry.answer.done():
                continue
            if now - entry.at < MEMORY_SECONDS and self._bytes <= MEMORY_BYTES:
                break
            self._bytes -= entry.size
            gone.append(digest)
        for digest in gone:
            self._evicted[digest] = self._entries.pop(digest).at
        _forget(self._evicted, now)

    def _read_others(self, now: float) -> None:
        for path in self._folder.glob("idempotency-*.log"):
            if path != self._path:
                self._read(path, now)

    def _read(self, path: Path, now: float) -> None:
        reader = self._others.setdefault(path.name, _Reader())
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
        _forget(reader.seen, now)

    def _forget_old_files(self, now: float) -> None:
        for path in self._folder.glob("idempotency-*.log"):
            try:
                if now - path.stat().st_mtime > DAY_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _forget(used: OrderedDict[bytes, float], now: float) -> None:
    """Keys that were used longer ago than a day are free again."""
    while used and now - next(iter(used.values())) > DAY_SECONDS:
        used.popitem(last=False)


def _append(file: int, entry: bytes) -> None:
    """All of it or nothing: part of an entry, on a disk that is full, would shift all later ones. Raises OSError."""
    written = os.write(file, entry)
    if written != len(entry):
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unwritable() -> Unavailable:
    return Unavailable(
        "the Idempotency-Key cannot be written down", code="journal_unavailable", hint="Check the disk of HOME."
    )
