"""How many lines of a batch are done is told without reading them, whoever ended them in whichever way."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import psycopg
from tests.integration.gateway_stack import deployment
from tests.integration.test_batch_race import find_batch, ordered

from groundplan.core.ids import new_id
from groundplan.gateway.batches import batch_store
from groundplan.gateway.batches.batch_store import BatchLine
from groundplan.gateway.batches.batches_api import _count_requests
from groundplan.gateway.batches.orders import order_store
from groundplan.gateway.database import Connection
from groundplan.ledger import batch_queries
from groundplan.testing.database import Database

EARLIER = "UPDATE batch_line SET state = 'done', ok = %s, result = 'r' WHERE batch_id = %s AND number = %s"
"""Ends a line by a statement of its own, as an earlier version does for each of some hundreds of an order."""


async def reading(database: Database) -> Connection:
    return await psycopg.AsyncConnection.connect(database.urls["gateway"], autocommit=True)


def lines(admin: psycopg.Connection[Any], batch: UUID, count: int, state: str = "pending") -> None:
    admin.execute(
        """INSERT INTO batch_line (batch_id, number, custom_id, place, length, held_usd, state)
           SELECT %s, n, 'c' || n, 0, 1, 0, %s FROM generate_series(2, %s) n""",
        (batch, state, count),
    )


async def test_lines_are_counted_once_whichever_worker_ends_them(database: Database) -> None:
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch, other, worker = ordered(admin), ordered(admin), new_id()
        admin.execute("INSERT INTO gateway (epoch, host, home, pid) VALUES (%s, 'h', '', 1)", (worker,))
        lines(admin, batch, 30)
        async with await reading(database) as connection:
            wrong = BatchLine(31, "wrong", 0, 1, 0, error=("budget_exhausted", "it is"))
            await batch_store.add_lines(connection, batch, [wrong])
            async with connection.cursor() as cursor:
                await cursor.executemany(EARLIER, [(number % 4 > 0, batch, number) for number in range(1, 9)])
            await batch_store.claim_lines(connection, await find_batch(connection, batch), worker, 2)
            first, _ = await batch_store.list_claimed(connection, batch, worker)
            for _ in range(2):
                await batch_store.end_line(connection, batch, first, ok=True, result=b"{}")
            assert await batch_store.count_done(connection, [batch, other]) == {batch: (7, 3)}
            await batch_store.compact_counts(connection, batch, 1)
            await batch_store.end_pending(connection, batch, "batch_cancelled", "it was")
            await batch_store.compact_counts(connection, batch)
            assert admin.execute("SELECT count(*) FROM batch_done").fetchall() == [(2,)]
            await batch_store.mark_ended(connection, batch, "cancelled", (None, None), grounded=False)
            assert await batch_store.count_done(connection, [batch]) == {batch: (7, 23)}
            assert admin.execute("SELECT completed, failed FROM batch_done").fetchall() == [(7, 23)]
            counted = admin.execute("SELECT count(*) FILTER (WHERE ok), count(*) FILTER (WHERE NOT ok) FROM batch_line")
            assert counted.fetchall() == [(7, 23)]


async def test_lines_of_an_order_are_counted_as_they_end(database: Database) -> None:
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch, order = ordered(admin), new_id()
        async with await reading(database) as connection:
            await order_store.add(connection, batch, order, deployment("one", 1), 1)
            lines(admin, batch, 6, "ordered")
            admin.execute("UPDATE batch_line SET order_id = %s, call_id = gen_random_uuid() WHERE number > 1", (order,))
            known = await order_store.find(connection, order)
            assert known is not None
            async with connection.transaction():
                every = [line async for some in order_store.iterate_open_lines(connection, order) for line in some]
                done = [(line, line.number != 4, b'{"n": "' + str(line.number).encode() + b'"}') for line in every]
                for _ in range(2):
                    await order_store.end_lines(connection, known, done)
            assert await batch_store.count_done(connection, [batch]) == {batch: (4, 1)}
            rows = "SELECT number, ok, result FROM batch_line WHERE state = 'done' ORDER BY number LIMIT 1"
            assert admin.execute(rows).fetchall() == [(2, True, '{"n": "2"}')]


async def test_listing_batches_reads_no_completed_lines(database: Database) -> None:
    """Of fifty thousand each a page of batches took longer than whoever asked waited."""
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin)
        admin.execute("UPDATE batch_line SET state = 'done', ok = true")
        async with await reading(database) as connection:
            with admin.transaction():
                admin.execute("LOCK TABLE batch_line IN ACCESS EXCLUSIVE MODE")
                async with asyncio.timeout(5):
                    assert await _count_requests(connection, [batch]) == {batch: (1, 0)}
        with psycopg.connect(database.urls["control"]) as control:
            (shown,) = batch_queries.list_batches(control, None, 10)
        assert (shown["completed"], shown["failed"], shown["running"]) == (1, 0, 0)


async def test_reading_a_batch_reads_no_waiting_lines(database: Database) -> None:
    """Each worker looks twice a second: of fifty thousand lines that took PostgreSQL a sixth of a second each time."""
    worker = new_id()
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        batch = ordered(admin, worker)
        lines(admin, batch, 3000)
        admin.execute("ANALYZE batch_line")
        async with await reading(database) as connection:
            await batch_store.claim_lines(connection, await find_batch(connection, batch), worker, 4)
            async with connection.transaction():
                await batch_store.recover_lines(connection, batch, "it was")
                assert len(await batch_store.list_claimed(connection, batch, worker)) == 4
                assert await batch_store.has_open_lines(connection, batch)
                read = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'batch_line'"
                ((rows,),) = await (await connection.execute(read)).fetchall()
        with psycopg.connect(database.urls["control"]) as control:
            (shown,) = batch_queries.list_batches(control, None, 10)
    assert rows < 100 and shown["running"] == 4
