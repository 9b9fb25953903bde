"""Budgets after a restore: what was granted, spent and given back while the backup ran is neither lost nor refused."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import shutil
import time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from groundplan.blueprint.model import Budget
from groundplan.core.audit.keys import create_keys
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.gateway.budgets.lease_client import LeaseClient
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.journal import ledger_store
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.journal.shipper import Shipper
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement, Usage
from groundplan.runtime.backup import backup, restore
from groundplan.testing.database import Cluster, Database

MONTH = "2026-11"
USD = 10**12
BUDGETS = {
    name: Budget(name=name, covers="company", limit=limit * USD, period="month")
    for name, limit in (("a", 40), ("late", 9))
}


class Worker:
    """A gateway worker without HTTP: real slices of a real database, a real journal."""

    def __init__(self, home: Home, url: str) -> None:
        self.epoch = new_id()
        self.journal = Journal.open(home.journal / str(self.epoch), self.epoch, asyncio.get_running_loop())
        self.slices = Slices()
        self.leases = LeaseClient(url, self.journal, self.slices, home=home.root)

    async def start(self, books: Books) -> None:
        """Until it also listens, so that no connection is only half made when it is closed."""
        listening = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        others = set(await asyncio.to_thread(books.rows, listening))
        await self.leases.start()
        while not set(await asyncio.to_thread(books.rows, listening)) - others:  # noqa: ASYNC110 -- nobody tells
            await asyncio.sleep(0.02)

    async def call(self, cost: int, *budgets: str) -> None:
        """One call that reserves 2 USD of each budget and costs `cost` picodollars; both are durable."""
        call, now = new_id().bytes, time.time_ns() // 1_000_000
        charges = [Charge(name, MONTH, 2 * USD) for name in budgets]
        assert await self.leases.acquire((call, 0), charges, [BUDGETS[name] for name in budgets]) is None
        person = str(new_id())
        self.journal.reserve(
            Reservation(call, 0, now, "assistant", person, "k", "chat", "d", "s", "m", 1, 2 * USD, charges)
        )
        self.journal.settle(Settlement(call, 0, now, cost, "ok", 200, Usage(input=1), False, [], 5))
        self.slices.settle((call, 0), cost)
        sequence = self.journal.finish(
            Finish(call, now, "assistant", person, "k", "chat", "ok", 200, "", "d", "none", 1, 9, 7, [], [])
        )
        if (waiting := self.journal.durable(sequence)) is not None:
            await waiting


@dataclasses.dataclass
class Books:
    database: Database

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.superuser, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def ship(self, home: Home) -> None:
        with psycopg.connect(self.database.urls["shipper"], autocommit=True) as connection:
            connection.execute("UPDATE gateway SET heartbeat_at = heartbeat_at - interval '1 minute'")  # dead
            shipper = Shipper(home)
            for _ in range(4):
                shipper.run_round(connection)

    def balance(self) -> dict[str, tuple[Decimal, Decimal]]:
        """(granted, spent) in USD of each budget."""
        return {
            budget: (granted, spent)
            for budget, granted, spent in self.rows(
                """SELECT p.budget, p.granted_usd, coalesce((SELECT sum(cost_usd) FROM charge c
                     WHERE c.budget = p.budget AND c.period = p.period), 0) FROM budget_period p"""
            )
        }


async def test_slices_granted_while_a_backup_runs_are_accounted_for_after_its_restore(
    database: Database, postgres_cluster: Cluster, tmp_path: Path
) -> None:
    home, loop = Home(tmp_path / "home"), asyncio.get_running_loop()
    home.create()
    create_keys(home)
    worker = Worker(home, database.urls["gateway"])
    await worker.start(Books(database))
    await worker.call(USD, "a")
    Books(database).ship(home)
    second = Worker(home, database.urls["gateway"])

    async def meanwhile() -> None:
        """After the rows were copied: more of a budget, a first slice of another, much given back, a new worker."""
        for _ in range(3):
            await worker.call(USD, "a", "late")
        for _ in range(9):
            await worker.call(2 * USD, "a")
        await worker.leases.close()
        await second.start(Books(database))
        await second.call(USD // 2, "a")
        await second.leases.close()

    def progress(step: str) -> None:
        if step == "writing the archive":
            asyncio.run_coroutine_threadsafe(meanwhile(), loop).result(60)

    archive = tmp_path / "it.backup"
    await asyncio.to_thread(backup, home, database.settings(home.root), archive, progress)
    third = Worker(home, database.urls["gateway"])
    await third.start(Books(database))
    await third.call(USD // 4, "a")
    await third.leases.close()
    restored = Home(tmp_path / "restored")
    with postgres_cluster.database() as other:
        books = Books(other)
        settings = dataclasses.replace(load_settings({}), home=restored.root, database_url=other.dsn)
        await asyncio.to_thread(restore, archive, restored, settings)
        await asyncio.to_thread(books.ship, restored)
        await asyncio.to_thread(books.ship, restored)
        kept = [UUID(epoch.name) for epoch in restored.journal.iterdir() if epoch.is_dir()]
        assert kept == [], "every epoch is recovered"
        assert books.rows("SELECT count(*) FROM call") == books.rows("SELECT count(*) FROM charge WHERE budget = 'a'")
        balance = books.balance()
        assert {budget: spent for budget, (_, spent) in balance.items()} == {
            "a": Decimal("22.5"), "late": Decimal(3),
        }  # fmt: skip
        assert all(granted == spent for granted, spent in balance.values()), balance
        moved = books.rows(
            """SELECT budget, sum(CASE type WHEN 'grant' THEN amount_usd ELSE -amount_usd END) FROM budget_movement
               GROUP BY budget"""
        )
        assert dict(moved) == {budget: granted for budget, (granted, _) in balance.items()}, "each has its movement"
        assert books.rows("SELECT count(*) FROM budget_slice WHERE NOT closed OR released_usd > granted_usd") == [(0,)]
        for one in (worker, second, third):  # dead
            fcntl.flock(one.journal._lock, fcntl.LOCK_UN)
        shutil.copytree(home.journal, restored.journal, dirs_exist_ok=True)
        await asyncio.to_thread(books.ship, restored)
        assert not any(epoch.is_dir() for epoch in restored.journal.iterdir())
        told = {"a": (Decimal("22.75"),) * 2, "late": (Decimal(3),) * 2}
        assert books.balance() == told, "what the journals of the HOME before tell is there, and nothing twice"
    for one in (worker, second, third):
        await one.journal.close()


@pytest.mark.parametrize("damaged", [False, True])
def test_spending_beyond_the_restored_grants_is_charged_to_the_budget(database: Database, damaged: bool) -> None:
    books, epoch, call = Books(database), new_id(), new_id()
    with psycopg.connect(database.urls["shipper"]) as connection:
        connection.execute("INSERT INTO gateway (epoch, host, home, pid) VALUES (%s, 'h', 'h', 1)", (epoch,))
        connection.execute(
            "INSERT INTO budget_period (budget, period, limit_usd, granted_usd) VALUES ('a', %s, 40, 1)", (MONTH,)
        )
        connection.execute(
            "INSERT INTO budget_slice (epoch, budget, period, granted_usd) VALUES (%s, 'a', %s, 1)", (epoch, MONTH)
        )
        connection.execute(
            "INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, reserved_usd, cost_usd,"
            " usage, epoch) VALUES (%s, 0, now(), 'd', 's', 'm', 'settled', 'ok', 3, 3, '{}', %s)",
            (call, epoch),
        )
        connection.execute("INSERT INTO charge VALUES (%s, 0, 'a', %s, 3)", (call, MONTH))
        assert ledger_store.return_unspent(connection, epoch, write_off=damaged) == -2 * USD
    assert books.balance() == {"a": (Decimal(3), Decimal(3))}
