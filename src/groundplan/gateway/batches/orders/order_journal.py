"""What an order turned out to cost, as a journal of its own that the shipper takes over like a dead worker's.

So each call of it gets its one row, its charges and its audit entry, and what was not spent goes back, all in one
transaction of the shipper's and once, however often the same order is told. Whole or not there: it gets its name last.
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
    """Write every call with `add`, then `publish`; or `drop` it."""

    def __init__(self, home: Home, order: UUID) -> None:
        """Raises OSError."""
        self._folder = home.journal / str(order)
        self._making = home.journal / f".{order}.{os.getpid()}.new"
        self._making.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = records.segment_path(self._making, 1)
        self._lock = os.open(self._making / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the loop waits for nobody
            self._file = self._path.open("wb")
        except OSError:
            os.close(self._lock)
            raise
        self._file.write(records.segment_header(order, 1))
        self._sequence = 0
        self._closed = False

    def add(self, reservation: Reservation, settlement: Settlement, finish: Finish | None) -> None:
        """One attempt, and with `finish` its call."""
        self._write(RESERVATION, reservation)
        self._write(SETTLEMENT, settlement)
        if finish is not None:
            self._write(FINISH, finish)

    async def sync(self) -> None:
        """What was added is on the disk, which takes its time where it is much; calls go on meanwhile. Raises
        OSError."""
        self._file.flush()
        await asyncio.to_thread(os.fsync, self._file.fileno())

    def publish(self) -> None:
        """Durable under its name; nothing where that is there already. Raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        sync_folder(self._making)
        try:
            self._making.rename(self._folder)
        except OSError:
            if not self._folder.exists():
                raise
            self._remove()
        sync_folder(self._folder.parent)
        self._closed = True
        os.close(self._lock)

    def drop(self) -> None:
        """Nothing of it is wanted; what is published stays."""
        if not self._closed:
            self._closed = True
            os.close(self._lock)
            with suppress(OSError):  # what a full disk did not take is written once more
                self._file.close()
            with suppress(OSError):
                self._remove()

    def _remove(self) -> None:
        for path in (self._path, self._making / "lock"):
            path.unlink(missing_ok=True)
        self._making.rmdir()

    def _write(self, kind: int, record: Reservation | Settlement | Finish) -> None:
        self._sequence += 1
        self._file.write(records.frame(kind, self._sequence, records.encode(record)))
