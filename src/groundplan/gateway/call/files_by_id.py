"""Puts files that a request names by their /v1/files ids into it as bytes, before its cost is reserved.

Only calls that name a file wait for the database and the disk. A file belongs to its workload: to other workloads it
does not exist. Which fields may name a file, and how its bytes are written there, is decided by the API surface.
"""

from __future__ import annotations

import asyncio
import base64
import mimetypes
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import psycopg
from msgspec.structs import replace

from groundplan.core.errors import Invalid, NotFound, TooLarge, Unavailable
from groundplan.gateway.database import Connection, database_unavailable
from groundplan.gateway.files import file_store
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.files.file_ids import file_id
from groundplan.gateway.files.file_store import CONTENT, StoredFile
from groundplan.gateway.surfaces.file_references import NamedFile
from groundplan.gateway.upstream.pressure import RANK_SHARES, RANKS

if TYPE_CHECKING:
    from groundplan.gateway.call.exchange import Exchange

MOST_FILES = 16
"""The most files of one request."""
MOST_BYTES = 12 << 20
"""The most bytes of all files of a request; base64 adds a third, and a body has 20 MiB at most."""
HELD_BYTES = 128 << 20
"""The most bytes, in base64, of the files of all open requests of a worker."""
_IMAGES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
_KIND = re.compile(r"[a-z]+/[a-z0-9.+-]{1,80}", re.ASCII)


class FilesById:
    """The files of the open requests of one worker. `connected` lends a connection to PostgreSQL."""

    def __init__(self, connected: Callable[[], AbstractAsyncContextManager[Connection]], blobs: Blobs) -> None:
        self._connected = connected
        self._blobs = blobs
        self.held = self.refused = 0
        """Bytes held now, and calls refused so far."""

    async def put_in(self, exchange: Exchange) -> None:
        """Put the files that a request names into it, and hold their bytes until `release`. Raises `NotFound`,
        `Invalid`, `TooLarge`, `Unavailable`."""
        ask, key = exchange.ask, exchange.key
        if ask is None or key is None:
            raise AssertionError("not read")
        if len(ask.files) > MOST_FILES:
            raise Invalid(f"it names {len(ask.files)} files", code="files_range", hint=f"Name {MOST_FILES} at most.")
        stored = [await self._find(text, key.workload) for text in ask.files]
        size = sum(file.bytes for file in stored)
        if size > MOST_BYTES:
            raise TooLarge(
                f"the files that it names have {size} bytes together, more than {MOST_BYTES >> 20} MiB",
                code="file_too_large",
                hint="Name smaller ones, or ask about one at a time.",
            )
        self._reserve_memory(exchange, -(-size // 3) * 4)
        named = zip(ask.files, stored, strict=True)
        files = {text: await self._read(file) for text, file in named}
        exchange.ask = replace(exchange.interface.with_files(ask, files), files=())

    def release(self, exchange: Exchange) -> None:
        """Stop counting the files of a call, which is over."""
        self.held -= exchange.file_bytes_held
        exchange.file_bytes_held = 0

    def _reserve_memory(self, exchange: Exchange, size: int) -> None:
        workload = exchange.workload
        share = 1.0 if workload is None else RANK_SHARES[RANKS[workload.reliability.priority]]
        if self.held + size > HELD_BYTES * share:
            self.refused += 1
            raise Unavailable(
                "the files of running calls are all that is held at once",
                code="memory_full",
                hint="Try again; the last of the room is for workloads of a higher `reliability.priority`.",
                retry_after=1.0,
            )
        self.held += size
        exchange.file_bytes_held += size

    async def _find(self, text: str, workload: str) -> StoredFile:
        file = None
        try:
            async with self._connected() as connection:
                file = await file_store.find(connection, file_id(text), workload)
        except NotFound:
            pass
        except (psycopg.Error, TimeoutError) as error:
            hint = "Try again, or send the content itself."
            raise database_unavailable("files cannot be looked up now", hint) from error
        if file is None:
            raise NotFound(
                f"there is no file {text[:60]!r} of this workload",
                code="file_not_found",
                hint="Upload it to /v1/files of this gateway with a key of the same workload, or send its content.",
            )
        if file.purpose not in CONTENT:
            raise Invalid(
                f"the file {text} is of purpose {file.purpose}",
                code="file_purpose",
                hint=f"Upload it with one of: {', '.join(CONTENT)}",
            )
        return file

    async def _read(self, file: StoredFile) -> NamedFile:
        data = b"".join([piece async for piece in self._blobs.read(file.id, file.bytes)])
        return NamedFile(file.filename, kind_of(data[:16], file.filename), await asyncio.to_thread(_base64, data))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def kind_of(begin: bytes, name: str) -> str:
    """The media type of a file by its first bytes, else by its name."""
    for magic, kind in _IMAGES:
        if begin.startswith(magic):
            return kind
    if begin.startswith(b"RIFF") and begin[8:12] == b"WEBP":
        return "image/webp"
    if begin.startswith(b"%PDF-"):
        return "application/pdf"
    guessed = mimetypes.guess_type(name)[0] or ""
    plain = _KIND.fullmatch(guessed) is not None and not guessed.startswith("image/") and guessed != "application/pdf"
    return guessed if plain else "application/octet-stream"
