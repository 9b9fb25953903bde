"""What is left of the slices of a worker that is dead, added up before its books are closed.

Of tens of millions of calls, or slices, as of a worker that ran for weeks, that takes minutes, and the shipper has the
calls of all others to write: what is not known within a second is added up beside, by a connection of its own, which
closes the slices, too. Returns nothing of them (`ledger_store`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import psycopg
from psycopg.errors import QueryCanceled

from groundplan.gateway.journal import ledger_store
from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.journal.recovery import Key

AT_ONCE_MS = 1000
"""How long others wait for it."""
Left = Mapping[Key, int]


class Later(Exception):
    """It is being added up: its transaction is to be undone, and tried again in one of the next rounds."""


@dataclass(slots=True)
class _Sum:
    """Of what is in the ledger up to a place of the journal; without `found` where it failed, once it is over."""

    place: tuple[int, int]
    thread: threading.Thread | None = None
    found: Left | None = None


class DeadWorkerSums:
    """Of one shipper."""

    def __init__(self) -> None:
        self._made: dict[UUID, _Sum] = {}

    def known(self, conn: Conn, epoch: UUID) -> Left | None:
        """What was added up beside; None where nothing was. Raises `Later` as long as it is not ready."""
        made = self._made.get(epoch)
        if made is None:
            return None
        if made.thread is not None and made.thread.is_alive():
            raise Later
        del self._made[epoch]
        return made.found if made.place == ledger_store.position(conn, epoch)[:2] else None

    def add_up(self, conn: Conn, epoch: UUID) -> Left:
        """All of it, in the caller's transaction. Raises `Later` where that takes too long."""
        try:
            with conn.transaction():
                conn.execute(f"SET LOCAL statement_timeout = {AT_ONCE_MS}".encode())
                found = ledger_store.left(conn, epoch)
                conn.execute("SET LOCAL statement_timeout = DEFAULT")
                return found
        except QueryCanceled:
            self._begin(conn, epoch)
            raise Later from None

    def _begin(self, conn: Conn, epoch: UUID) -> None:
        made = self._made[epoch] = _Sum(ledger_store.position(conn, epoch)[:2])
        address, password = conn.info.dsn, conn.info.password

        def work() -> None:
            with psycopg.connect(address, password=password, autocommit=True) as own:
                ledger_store.fence(own, epoch)  # what is found here is no more changed by a grant that is on its way
                ledger_store.close_slices(own, epoch)
                made.found = ledger_store.left(own, epoch)

        made.thread = threading.Thread(target=work, name="sums", daemon=True)  # nobody waits for it at an end
        made.thread.start()


def add_sums(left: Left, more: Left, less: Left) -> dict[Key, int]:
    """`left` with `more`, without `less`."""
    found = {key: left.get(key, 0) + more.get(key, 0) - less.get(key, 0) for key in {*left, *more, *less}}
    return {key: amount for key, amount in found.items() if amount}
