"""What a dead worker held goes back once, though a shipper that is gone, too, was just giving it back: its last
statement is still on its way when the next one begins."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from tests.integration.test_shipper import USD, Installation, died, finish, installation, reservation, settlement

from groundplan.core.clock import SystemClock
from groundplan.core.ids import new_id
from groundplan.gateway.budgets.leases import Key
from groundplan.gateway.journal import ledger_store
from groundplan.gateway.journal.dead_worker_sums import DeadWorkerSums
from groundplan.gateway.journal.epoch_shipper import EpochShipper
from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.journal.ledger_writer import LedgerWriter
from groundplan.gateway.journal.shipper import Shipper

__all__ = ["installation"]
GIVE_BACK = ledger_store._return_amounts


class Late:
    """The first that gives something back has said all but that it is to be committed."""

    def __init__(self) -> None:
        self.said, self.arrives, self._first = threading.Event(), threading.Event(), True

    def give_back(self, conn: Conn, epoch: UUID, back: Mapping[Key, int]) -> None:
        first, self._first = self._first, False
        with conn.transaction():
            GIVE_BACK(conn, epoch, back)
            if first:
                conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                self.said.set()
                assert self.arrives.wait(60)


async def test_a_release_whose_commit_is_pending_is_not_repeated(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, late, call = installation.journal(), Late(), new_id().bytes
    installation.lend(journal.epoch, 10 * USD)
    journal.reserve(reservation(call, amount=6 * USD, bound=6 * USD))
    journal.settle(settlement(call, cost=6 * USD))
    journal.finish(finish(call))
    journal._flush()
    monkeypatch.setattr(ledger_store, "_return_amounts", late.give_back)
    url = installation.database.urls["shipper"]

    def before() -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            gone = EpochShipper(journal.folder, journal.epoch, (0, 0), 0)
            gone.read(dead=True)
            gone.ship(conn, context := LedgerWriter(installation.home, SystemClock()))
            with ledger_store.closing_lock(conn, journal.epoch) as alone:
                assert alone
                gone.close_books(conn, context, DeadWorkerSums())

    def after() -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            Shipper(installation.home).run_round(conn)

    with died(journal), ThreadPoolExecutor(2) as apart:
        one = apart.submit(before)
        assert late.said.wait(60)
        two = apart.submit(after)
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        with psycopg.connect(installation.database.superuser, autocommit=True) as looking:
            while not two.done() and not looking.execute(waits.encode()).rowcount:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.01)
        late.arrives.set()
        one.result(60)
        two.result(60)
        installation.journals.clear()
        installation.step(2)
    assert installation.granted() == Decimal(6), "what was spent"
    assert installation.rows("SELECT granted_usd - released_usd, closed FROM budget_slice") == [(Decimal(6), True)]
    assert installation.rows("SELECT done FROM shipped") == [(True,)]
    await journal.close()
