"""Limits the bytes of one workload's files: to what it declares, else to half of what the disk has for all files, so
that no workload fills the disk alone.

Files that batches made are counted, but never refused: they were paid for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from groundplan.core.errors import TooLarge
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.database import Connection
from groundplan.gateway.files import creation_key_store, file_store
from groundplan.gateway.files.blobs import MAX_FILE_BYTES, MAX_INPUT_BYTES, Blobs
from groundplan.gateway.files.file_store import StoredFile
from groundplan.gateway.files.idempotent_creation import IdempotentCreation
from groundplan.gateway.http.server import Request

ConnectionFactory = Callable[[], AbstractAsyncContextManager[Connection]]
_FORM_OVERHEAD = 8 << 10
"""The most bytes of a form that do not belong to its file."""


@dataclass(slots=True)
class Quota:
    """A limit of bytes for the files of a workload, of which `stored` are used."""

    limit: int
    stored: int
    _received: int = 0

    def add(self, data: bytes) -> None:
        """Count a piece of an upload. Raises `TooLarge` where there is no room for it."""
        self._received += len(data)
        self._check(self._received)

    def check_announced(self, request: Request) -> None:
        """Check the Content-Length of a request. Raises `TooLarge`."""
        length = request.headers.get(b"content-length", b"")
        if length.isdigit():
            self._check(max(0, int(length) - _FORM_OVERHEAD))

    def check(self, size: int) -> None:
        """Check an announced size. Raises `TooLarge`."""
        self._check(size)

    async def check_stored(self, connection: Connection, file: StoredFile) -> None:
        """Check a file together with those stored meanwhile, inside the transaction that adds it. Raises `TooLarge`."""
        self.stored = await file_store.stored_bytes(connection, file.workload, alone=True)
        self._check(file.bytes)

    def _check(self, size: int) -> None:
        total = self.stored + max(size, file_store.MIN_COUNTED_BYTES)
        if total > self.limit:
            raise TooLarge(
                f"the files of this workload would be {_size_text(total)}, and may be {_size_text(self.limit)}",
                code="files_full",
                hint="Delete some, let them expire (expires_after), or declare more: files: {max_size: 20 GB}.",
            )


async def current_quota(
    gateway: Gateway, connected: ConnectionFactory, blobs: Blobs, workload: str, once: IdempotentCreation
) -> Quota:
    """The quota of a workload now. A repeated request is only compared and not stored, so it has room in any case.
    Raises `Unavailable`, psycopg.Error."""
    catalog = gateway.live.catalog
    plan = None if catalog is None else catalog.plans.get(workload)
    declared = None if plan is None else plan.workload.file_bytes
    async with connected() as connection:
        stored = await file_store.stored_bytes(connection, workload)
        if once.digest is not None and await creation_key_store.is_known(connection, once.digest):
            return Quota(stored + max(MAX_FILE_BYTES, MAX_INPUT_BYTES), stored)
    return Quota((stored + await blobs.room()) // 2 if declared is None else declared, stored)


def _size_text(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1_000_000_000 else f"{size / 1e6:.1f} MB"
