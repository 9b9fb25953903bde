"""The SQL of orders: lines of a batch that a provider makes at its own batch endpoint, and how far each order is.

An order is written down, with its money, before anything is sent; `sending` is written before the provider is asked
for it. What is done in which state is `order_runner`'s.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from groundplan.blueprint.model import Deployment
from groundplan.core.money import from_decimal, to_decimal

Connection = AsyncConnection[tuple[Any, ...]]

NEW, SENDING, SENT, ENDED = "new", "sending", "sent", "ended"
_COLUMNS: LiteralString = """id, batch_id, deployment, blueprint, state, created_at, tries, uploading, provider_file,
    sending_at, provider_batches, cancelled_at, problem"""


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `deployment` is as it was when its lines were checked: later prices do not change its bounds."""

    id: UUID
    batch: UUID
    deployment: Deployment
    blueprint: int
    state: str
    created_at: datetime
    tries: int
    uploading: bool
    provider_file: str | None
    sending_at: datetime | None
    provider_batches: list[str]
    cancelled_at: datetime | None
    problem: str


@dataclass(frozen=True, slots=True)
class OrderLine:
    """One call of an order: where it is in the batch's input, and the most that it can cost (picodollars) and have of
    tokens (0: nothing is known of them)."""

    number: int
    custom_id: str
    place: int
    length: int
    held: int
    call: UUID
    most_input: int = 0
    most_output: int = 0


async def add(connection: Connection, batch: UUID, id: UUID, deployment: Deployment, number: int) -> None:
    """Write an order down; in the transaction that begins the batch."""
    told = Jsonb(msgspec.to_builtins(deployment))
    await connection.execute(
        "INSERT INTO batch_order (id, batch_id, deployment, blueprint) VALUES (%s, %s, %s, %s)",
        (id, batch, told, number),
    )


async def hold(connection: Connection, batch: UUID, id: UUID, held: int) -> None:
    """Take the money of an order over from the batch; in that transaction, too."""
    await connection.execute("SELECT hold_order(%s, %s, %s)", (batch, id, to_decimal(held)))


async def find(connection: Connection, id: UUID) -> Order | None:
    query: LiteralString = f"SELECT {_COLUMNS} FROM batch_order WHERE id = %s"
    row = await (await connection.execute(query, (id,))).fetchone()
    return None if row is None else _order(row)


def _order(row: tuple[Any, ...]) -> Order:
    return Order(row[0], row[1], msgspec.convert(row[2], Deployment), *row[3:])


async def due(connection: Connection, batch: UUID) -> list[UUID]:
    """Orders of a batch that have not ended and are to be looked at. No wait is as long as those that are left out by
    the last condition: these were written down by a clock that was wrong."""
    rows = await connection.execute(
        """SELECT id FROM batch_order WHERE batch_id = %s AND state <> 'ended' AND (next_at <= now()
             OR next_at > now() + CASE state WHEN 'sending' THEN interval '2 hours' ELSE interval '2 minutes' END)
           ORDER BY id""",
        (batch,),
    )
    return [id for (id,) in await rows.fetchall()]


async def waiting(connection: Connection, batch: UUID) -> list[Order]:
    """Those that are not looked at for a while, and that looking at sooner may end: what cannot be told yet of one that
    may have been sent, or what its provider has no answer for, is not known sooner."""
    query: LiteralString = f"""SELECT {_COLUMNS} FROM batch_order WHERE batch_id = %s
        AND (state = 'new' OR (state = 'sent' AND cancelled_at IS NULL AND problem = ''))
        AND next_at > now() + interval '2 seconds' ORDER BY id"""
    return [_order(row) for row in await (await connection.execute(query, (batch,))).fetchall()]


async def hurry(connection: Connection, ids: Sequence[UUID]) -> None:
    """These are looked at now, once."""
    await connection.execute("UPDATE batch_order SET next_at = now() WHERE id = ANY(%s)", (list(ids),))


async def lock(connection: Connection, id: UUID) -> bool:
    """Whether this session is the one that works at an order; until it unlocks or its connection ends."""
    row = await (
        await connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 105))", (str(id),))
    ).fetchone()
    return row is not None and bool(row[0])


# how far it is -------------------------------------------------------------------------------------------------------


async def wait(connection: Connection, id: UUID, seconds: float, problem: str = "") -> None:
    """Look at it again later."""
    await connection.execute(
        """UPDATE batch_order SET next_at = now() + make_interval(secs => %s), problem = %s, tries = tries + 1
           WHERE id = %s""",
        (seconds, problem, id),
    )


async def uploading(connection: Connection, id: UUID) -> None:
    """Its input may be at the provider from here on."""
    await connection.execute("UPDATE batch_order SET uploading = true WHERE id = %s", (id,))


async def uploaded(connection: Connection, id: UUID, file: str) -> None:
    await connection.execute("UPDATE batch_order SET provider_file = %s WHERE id = %s", (file, id))


async def sending(connection: Connection, id: UUID) -> None:
    """It may be at the provider from here on."""
    await connection.execute("UPDATE batch_order SET state = 'sending', sending_at = now() WHERE id = %s", (id,))


async def sending_for(connection: Connection, id: UUID) -> float:
    """Seconds since then, by the clock that wrote it down: that of another worker may be fast by more than it takes."""
    query = "SELECT extract(epoch FROM clock_timestamp() - sending_at)::float8 FROM batch_order WHERE id = %s"
    row = await (await connection.execute(query, (id,))).fetchone()
    return 0.0 if row is None or row[0] is None else float(row[0])


async def not_sent(connection: Connection, id: UUID) -> None:
    """It is certain that the provider does not have it."""
    await connection.execute("UPDATE batch_order SET state = 'new', sending_at = NULL WHERE id = %s", (id,))


async def sent(connection: Connection, id: UUID, batches: Sequence[str]) -> None:
    """The provider has it, under these names."""
    await connection.execute(
        "UPDATE batch_order SET state = 'sent', provider_batches = %s, tries = 0, problem = '' WHERE id = %s",
        (list(batches), id),
    )


async def cancelled(connection: Connection, id: UUID) -> None:
    """The provider was asked to end it."""
    await connection.execute("UPDATE batch_order SET cancelled_at = now() WHERE id = %s", (id,))


async def progress(connection: Connection, id: UUID, completed: int, failed: int) -> None:
    await connection.execute(
        "UPDATE batch_order SET completed = %s, failed = %s WHERE id = %s", (completed, failed, id)
    )


async def counts(connection: Connection, batches: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """(completed, failed) calls that providers tell of, of orders that have not ended, by batch."""
    rows = await connection.execute(
        """SELECT batch_id, sum(completed), sum(failed) FROM batch_order WHERE batch_id = ANY(%s) AND state <> 'ended'
           GROUP BY 1""",
        (list(batches),),
    )
    return {id: (int(completed), int(failed)) for id, completed, failed in await rows.fetchall()}


async def known(connection: Connection, id: UUID, since: datetime) -> frozenset[str]:
    """Batches at providers that are orders other than this one, not older than `since`."""
    rows = await connection.execute(
        "SELECT unnest(provider_batches) FROM batch_order WHERE id <> %s AND created_at > %s", (id, since)
    )
    return frozenset([name for (name,) in await rows.fetchall()])


# its lines -----------------------------------------------------------------------------------------------------------


async def lines(connection: Connection, id: UUID) -> AsyncGenerator[list[OrderLine], None]:
    """The lines that are not done, in order, some at a time. Inside a transaction."""
    async with connection.cursor(name="lines") as cursor:
        await cursor.execute(
            """SELECT number, custom_id, place, length, held_usd, call_id, most_input, most_output FROM batch_line
               WHERE order_id = %s AND state = 'ordered' ORDER BY number""",
            (id,),
        )
        while rows := await cursor.fetchmany(200):
            yield [
                OrderLine(number, custom_id, place, length, from_decimal(held), *rest)
                for number, custom_id, place, length, held, *rest in rows
            ]


async def open_lines(connection: Connection, id: UUID) -> int:
    """How many that is."""
    row = await (
        await connection.execute("SELECT count(*) FROM batch_line WHERE order_id = %s AND state = 'ordered'", (id,))
    ).fetchone()
    return 0 if row is None else int(row[0])


async def end_lines(connection: Connection, order: Order, done: Sequence[tuple[OrderLine, bool, bytes]]) -> None:
    """What became of lines: (line, whether it went well, its line of a result file)."""
    if not done:
        return
    await connection.execute(
        """UPDATE batch_line l SET state = 'done', ok = d.ok, held_usd = 0, result = d.result
           FROM unnest(%s::int[], %s::boolean[], %s::text[]) AS d (number, ok, result)
           WHERE l.batch_id = %s AND l.number = d.number AND l.state = 'ordered'""",
        (
            [line.number for line, _, _ in done],
            [ok for _, ok, _ in done],
            [result.decode() for _, _, result in done],
            order.batch,
        ),
    )


async def end(connection: Connection, id: UUID) -> None:
    """Its lines are done and its costs are told."""
    await connection.execute("UPDATE batch_order SET state = 'ended', ended_at = now() WHERE id = %s", (id,))


async def ended_lately(connection: Connection) -> list[UUID]:
    """Orders that have ended within a week, and not just now."""
    rows = await connection.execute(
        """SELECT id FROM batch_order WHERE state = 'ended'
           AND ended_at BETWEEN now() - interval '7 days' AND now() - interval '1 minute'"""
    )
    return [id for (id,) in await rows.fetchall()]
