"""Closes the books of a worker whose journal is gone: with its HOME, which somebody has to say where hosts come and go,
or since it was taken over whole, and deleted, before the database was restored to an earlier moment. Nothing tells what
that worker spent since."""

from __future__ import annotations

from uuid import UUID

from groundplan.gateway.journal import ledger_store, open_call_store
from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.journal.ledger_writer import LedgerWriter
from groundplan.gateway.journal.recovery import EpochState


def write_off(conn: Conn, epoch: UUID, writer: LedgerWriter) -> None:
    """Close its books, in the caller's transaction: calls of which the ledger told an open attempt end as after any
    crash, and what it held of budgets beyond them counts as spent."""
    segment, offset, _, gaps = ledger_store.position(conn, epoch)
    ledger_store.fence(conn, epoch)
    state = EpochState()
    for attempt in open_call_store.known(conn, epoch):
        state.know(attempt)
    opened = state.open_attempts()
    writer.write(conn, epoch, state.crash(), opened, [])
    open_call_store.forget_all(conn, epoch)
    ledger_store.end_open(conn, epoch)
    ledger_store.return_unspent(conn, epoch, write_off=True)
    ledger_store.report_lost(conn, epoch, "the rest of its journal")
    ledger_store.set_position(conn, epoch, (segment, offset), gaps + 1, done=True)
