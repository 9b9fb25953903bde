"""How much the files of one workload may take: what it declares, else half of what the disk has for all files, so that
none of them fills it alone.

What batches made is counted, and never refused: it was paid for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from groundplan.core.errors import TooLarge
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.files import creation_key_store, file_store
from groundplan.gateway.files.blobs import MOST_BYTES, Blobs
from groundplan.gateway.files.file_store import Connection, StoredFile
from groundplan.gateway.files.idempotent_creation import IdempotentCreation
from groundplan.gateway.http.server import Request

Connected = Callable[[], AbstractAsyncContextManager[Connection]]
_FORM = 8 << 10
"""Bytes of a form that are not of its file, at most."""


@dataclass(slots=True)
class Quota:
    """`most` bytes, of which `stored` are taken."""

    most: int
    stored: int
    _came: int = 0

    def take(self, data: bytes) -> None:
        """A piece of what comes. Raises `TooLarge` where there is no room for it."""
        self._came += len(data)
        self._check(self._came)

    def expect(self, request: Request) -> None:
        """As `take`, of all that a request announces."""
        length = request.headers.get(b"content-length", b"")
        if length.isdigit():
            self._check(max(0, int(length) - _FORM))

    def check(self, size: int) -> None:
        """As `take`, of as much as is announced."""
        self._check(size)

    async def enter(self, connection: Connection, file: StoredFile) -> None:
        """As `take`, beside those that were kept meanwhile; inside the transaction that adds it."""
        self.stored = await file_store.stored(connection, file.workload, alone=True)
        self._check(file.bytes)

    def _check(self, size: int) -> None:
        if self.stored + size > self.most:
            raise TooLarge(
                f"the files of this workload would be {_shown(self.stored + size)}, and may be {_shown(self.most)}",
                code="files_full",
                hint="Delete some, let them expire (expires_after), or declare more: files: {max_size: 20 GB}.",
            )


async def quota_of(
    gateway: Gateway, connected: Connected, blobs: Blobs, workload: str, once: IdempotentCreation
) -> Quota:
    """What there is for a workload now. What is sent again is compared and not kept, however much there is. Raises
    `Unavailable`, psycopg.Error."""
    catalog = gateway.live.catalog
    plan = None if catalog is None else catalog.plans.get(workload)
    declared = None if plan is None else plan.workload.file_bytes
    async with connected() as connection:
        stored = await file_store.stored(connection, workload)
        if once.digest is not None and await creation_key_store.known(connection, once.digest):
            return Quota(stored + MOST_BYTES, stored)
    return Quota((stored + await blobs.room()) // 2 if declared is None else declared, stored)


def _shown(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1_000_000_000 else f"{size / 1e6:.1f} MB"
