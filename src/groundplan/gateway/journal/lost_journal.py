"""Closes the books of a worker whose journal is gone: it was lost with its HOME, which an operator has to declare where
hosts come and go, or it was shipped whole, and deleted, before the database was restored to an earlier moment. Nothing
records what that worker spent since."""

from __future__ import annotations

from uuid import UUID

from groundplan.gateway.journal import ledger_store, open_call_store
from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.journal.ledger_writer import LedgerWriter
from groundplan.gateway.journal.recovery import EpochState


def write_off(conn: Conn, epoch: UUID, writer: LedgerWriter) -> None:
    """Close its books, in the caller's transaction: calls with an open attempt in the ledger end as after any crash,
    and what else it held of budgets counts as spent."""
    segment, offset, _, gaps = ledger_store.position(conn, epoch)
    ledger_store.fence(conn, epoch)
    state = EpochState()
    for attempt in open_call_store.kept_attempts(conn, epoch):
        state.add_known_attempt(attempt)
    opened = state.open_attempts()
    writer.write(conn, epoch, state.settle_crashed(), opened, [])
    open_call_store.delete_epoch(conn, epoch)
    ledger_store.settle_vanished_attempts(conn, epoch)
    ledger_store.return_unspent(conn, epoch, write_off=True)
    ledger_store.report_lost(conn, epoch, "the rest of its journal")
    ledger_store.set_position(conn, epoch, (segment, offset), gaps + 1, done=True)
