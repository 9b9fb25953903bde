"""Grants that the database lost, as after a restore, are booked once, also where two connections book them at the same
moment: the second one waits for the first and adds to what it wrote."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.integration.test_grant_locks import register

from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.gateway.budgets import grant_store
from groundplan.gateway.journal import ledger_store
from groundplan.ledger.model import Release
from groundplan.testing.database import Database

KEY = ("b", "2036-11")
BOOK_DEBT = "SELECT grant_budget(gen_random_uuid(), %s, %s, %s, %s, 0, false, %s, %s, 0, false)"
"""As `grant_store.book_debts`."""
Conn = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def patient_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shipper that stands still in a transaction for a second loses its connection: here one waits on purpose."""
    monkeypatch.setattr(ledger_store, "_lock_briefly", lambda _conn: None)


def overtake(database: Database, first: Conn, later: Callable[[Conn], object]) -> None:
    """Run `later` in a transaction of the shipper beside one of `first`, which is committed only once `later` waits for
    it."""
    with (
        psycopg.connect(database.urls["shipper"], autocommit=True) as second,
        psycopg.connect(database.superuser, autocommit=True) as watcher,
        ThreadPoolExecutor(1) as threads,
    ):

        def in_transaction() -> None:
            with second.transaction():
                later(second)

        running = threads.submit(in_transaction)
        while not _is_waiting(watcher, second.info.backend_pid):
            assert not running.done(), running.result(0) or "it did not wait"
            time.sleep(0.01)
        first.commit()
        running.result(60)


def _is_waiting(watcher: Conn, pid: int) -> bool:
    query = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    row = watcher.execute(query, (pid,)).fetchone()
    return row is not None and bool(row[0])


def released(amount: int) -> Release:
    return Release(new_id().bytes, *KEY, amount * PICO)


def granted(database: Database) -> Decimal:
    with psycopg.connect(database.superuser) as conn:
        row = conn.execute("SELECT granted_usd FROM budget_period WHERE (budget, period) = (%s, %s)", KEY).fetchone()
    assert row is not None
    return Decimal(row[0])


def slices(database: Database) -> dict[UUID, tuple[int, int]]:
    """epoch -> (granted, released), USD."""
    with psycopg.connect(database.superuser) as conn:
        rows = conn.execute("SELECT epoch, granted_usd, released_usd FROM budget_slice").fetchall()
    return {epoch: (int(usd), int(back)) for epoch, usd, back in rows}


@pytest.mark.parametrize(("booked", "left"), [(30, 20), (4, 0)])
def test_a_release_is_not_booked_again_beside_the_worker_that_books_it_itself(
    database: Database, booked: int, left: int
) -> None:
    """Otherwise the budget would lack the amount until the worker ends. What the worker's own grant lacks is added."""
    epoch = register(database)
    with psycopg.connect(database.urls["gateway"]) as worker:
        worker.execute(BOOK_DEBT, (epoch, *KEY, booked, booked, booked))
        overtake(database, worker, lambda conn: ledger_store.apply_releases(conn, epoch, [released(10)]))
    assert granted(database) == left
    assert slices(database) == {epoch: (max(booked, 10), 10)}


def test_two_workers_releases_of_a_period_that_the_database_lost(database: Database) -> None:
    one, other = register(database), register(database)
    with psycopg.connect(database.urls["shipper"]) as first:
        ledger_store.apply_releases(first, one, [released(10)])
        overtake(database, first, lambda conn: ledger_store.apply_releases(conn, other, [released(5)]))
    assert granted(database) == 0
    assert slices(database) == {one: (10, 10), other: (5, 5)}


def test_two_dead_workers_that_spent_of_a_period_that_the_database_lost(database: Database) -> None:
    """Each spent without a grant that the database knows; their books are closed at the same moment."""
    one, other = register(database), register(database)

    def close(conn: Conn, epoch: UUID, spent: int) -> None:
        ledger_store.return_unspent(conn, epoch, write_off=False, added_up={KEY: -spent * PICO})

    with psycopg.connect(database.urls["shipper"]) as first:
        close(first, one, 10)
        overtake(database, first, lambda conn: close(conn, other, 5))
    assert granted(database) == 15
    assert slices(database) == {one: (10, 0), other: (5, 0)}


def test_a_worker_registers_again_while_its_release_is_booked(database: Database) -> None:
    """It stays the live worker that it says it is, and is not entered as one that is gone."""
    epoch = new_id()
    with psycopg.connect(database.urls["gateway"]) as worker:
        worker.execute(grant_store._REGISTER, (epoch, "here", "/", 1, epoch))
        overtake(database, worker, lambda conn: ledger_store.apply_releases(conn, epoch, [released(10)]))
    with psycopg.connect(database.superuser) as conn:
        assert conn.execute("SELECT host, state FROM gateway WHERE epoch = %s", (epoch,)).fetchall() == [
            ("here", "live")
        ]
    assert slices(database) == {epoch: (10, 10)}
