"""Sums of what is left of a dead worker's slices, before its books are closed.

For tens of millions of calls or slices, as of a worker that ran for weeks, a sum takes minutes, and the shipper has the
calls of all others to write: one that takes more than a second continues in a thread with its own connection, which
also closes the slices. Returns no amounts to budgets (`ledger_store`).
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

WAIT_MS = 1000
"""How long the shipper waits for a sum."""
Amounts = Mapping[Key, int]


class SumPending(Exception):
    """The sum is not ready: the caller's transaction is to be rolled back and tried again in a later round."""


@dataclass(slots=True)
class _Sum:
    """A sum of the ledger up to a position of the journal; `found` stays None if the thread failed."""

    place: tuple[int, int]
    thread: threading.Thread | None = None
    found: Amounts | None = None


class DeadWorkerSums:
    """The sums in progress of one shipper."""

    def __init__(self) -> None:
        self._sums: dict[UUID, _Sum] = {}

    def finished_sum(self, conn: Conn, epoch: UUID) -> Amounts | None:
        """Return the sum that a thread made; None where there is none. Raises `SumPending` until it is ready."""
        made = self._sums.get(epoch)
        if made is None:
            return None
        if made.thread is not None and made.thread.is_alive():
            raise SumPending
        del self._sums[epoch]
        return made.found if made.place == ledger_store.position(conn, epoch)[:2] else None

    def sum_unspent(self, conn: Conn, epoch: UUID) -> Amounts:
        """Add up in the caller's transaction. Raises `SumPending` where it takes too long and goes on in a thread."""
        try:
            with conn.transaction():
                conn.execute(f"SET LOCAL statement_timeout = {WAIT_MS}".encode())
                found = ledger_store.unspent_amounts(conn, epoch)
                conn.execute("SET LOCAL statement_timeout = DEFAULT")
                return found
        except QueryCanceled:
            self._start_thread(conn, epoch)
            raise SumPending from None

    def _start_thread(self, conn: Conn, epoch: UUID) -> None:
        made = self._sums[epoch] = _Sum(ledger_store.position(conn, epoch)[:2])
        address, password = conn.info.dsn, conn.info.password

        def work() -> None:
            with psycopg.connect(address, password=password, autocommit=True) as own:
                ledger_store.fence(own, epoch)  # so that no grant under way changes what is summed
                ledger_store.close_slices(own, epoch)
                made.found = ledger_store.unspent_amounts(own, epoch)

        made.thread = threading.Thread(target=work, name="sums", daemon=True)  # not awaited at shutdown
        made.thread.start()


def add_sums(left: Amounts, more: Amounts, less: Amounts) -> dict[Key, int]:
    """Return `left` plus `more` minus `less`, without zeros."""
    found = {key: left.get(key, 0) + more.get(key, 0) - less.get(key, 0) for key in {*left, *more, *less}}
    return {key: amount for key, amount in found.items() if amount}
