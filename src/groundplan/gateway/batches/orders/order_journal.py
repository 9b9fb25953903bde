"""Writes the costs of an order as a journal of its own, which the shipper takes over like that of a dead worker.

So each call gets its one row, its charges and its audit entry, and what was not spent goes back, all in one transaction
of the shipper and once, however often the order is recorded. A journal is complete or absent: it is renamed to its
final name last.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import suppress
from uuid import UUID

from groundplan.core.home import Home, sync_folder
from groundplan.gateway.journal import records
from groundplan.gateway.journal.records import FINISH, RESERVATION, SETTLEMENT
from groundplan.ledger.model import Finish, Reservation, Settlement


class OrderJournal:
    """The journal of one order: `add` every attempt, then `publish`, or `drop` it."""

    def __init__(self, home: Home, order: UUID) -> None:
        """Begin a draft beside the final folder. Raises OSError."""
        self._folder = home.journal / str(order)
        self._draft = home.journal / f".{order}.{os.getpid()}.new"
        self._draft.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = records.segment_path(self._draft, 1)
        self._lock = os.open(self._draft / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # never block the event loop
            self._file = self._path.open("wb")
        except OSError:
            os.close(self._lock)
            raise
        self._file.write(records.segment_header(order, 1))
        self._sequence = 0
        self._closed = False

    def add(self, reservation: Reservation, settlement: Settlement, finish: Finish | None) -> None:
        """Write one attempt, and with `finish` the end of its call."""
        self._write(RESERVATION, reservation)
        self._write(SETTLEMENT, settlement)
        if finish is not None:
            self._write(FINISH, finish)

    async def sync(self) -> None:
        """Sync what was added to the disk, in a thread, since that may take long. Raises OSError."""
        self._file.flush()
        await asyncio.to_thread(os.fsync, self._file.fileno())

    def publish(self) -> None:
        """Make the journal durable under its final name; discard it where that name already exists. Raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        sync_folder(self._draft)
        try:
            self._draft.rename(self._folder)
        except OSError:
            if not self._folder.exists():
                raise
            self._remove()
        sync_folder(self._folder.parent)
        self._closed = True
        os.close(self._lock)

    def drop(self) -> None:
        """Delete the draft; a published journal stays."""
        if not self._closed:
            self._closed = True
            os.close(self._lock)
            with suppress(OSError):  # buffered data that a full disk did not take is written once more
                self._file.close()
            with suppress(OSError):
                self._remove()

    def _remove(self) -> None:
        for path in (self._path, self._draft / "lock"):
            path.unlink(missing_ok=True)
        self._draft.rmdir()

    def _write(self, kind: int, record: Reservation | Settlement | Finish) -> None:
        self._sequence += 1
        self._file.write(records.encode_frame(kind, self._sequence, records.encode(record)))
