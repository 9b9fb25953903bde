"""The SQL of orders: lines of a batch that a provider makes at its own batch endpoint, and the state of each order.

An order is stored, with its money, before anything is sent; the state `sending` is stored before the provider is
requested to create the batch. What is done in which state is decided in `order_runner`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from groundplan.blueprint.model import Deployment
from groundplan.core.money import from_decimal, to_decimal
from groundplan.gateway.database import Connection

NEW, SENDING, SENT, ENDED = "new", "sending", "sent", "ended"
_COLUMNS: LiteralString = """id, batch_id, deployment, blueprint, state, created_at, tries, uploading, provider_file,
    sending_at, provider_batches, cancelled_at, problem"""


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `deployment` is as it was when the lines were checked: later prices do not change their bounds."""

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
    """One call of an order: the position of its line in the batch's input file (bytes), the most that it can cost
    (`held`, picodollars), and its most tokens of prompt and answer (0: not known)."""

    number: int
    custom_id: str
    offset: int
    length: int
    held: int
    call: UUID
    most_input: int = 0
    most_output: int = 0


async def add(connection: Connection, batch: UUID, id: UUID, deployment: Deployment, number: int) -> None:
    """Store a new order, in the transaction that begins the batch. `number`: of the blueprint."""
    document = Jsonb(msgspec.to_builtins(deployment))
    await connection.execute(
        "INSERT INTO batch_order (id, batch_id, deployment, blueprint) VALUES (%s, %s, %s, %s)",
        (id, batch, document, number),
    )


async def hold_budget(connection: Connection, batch: UUID, id: UUID, held: int) -> None:
    """Move the money of an order from the batch to the order, in the same transaction."""
    await connection.execute("SELECT hold_order(%s, %s, %s)", (batch, id, to_decimal(held)))


async def find(connection: Connection, id: UUID) -> Order | None:
    """The order with this id."""
    query: LiteralString = f"SELECT {_COLUMNS} FROM batch_order WHERE id = %s"
    row = await (await connection.execute(query, (id,))).fetchone()
    return None if row is None else _order(row)


def _order(row: tuple[Any, ...]) -> Order:
    return Order(row[0], row[1], msgspec.convert(row[2], Deployment), *row[3:])


async def list_due(connection: Connection, batch: UUID) -> list[UUID]:
    """The orders of a batch that have not ended and whose next step is due. A time further ahead than any delay counts
    as due, too: it was stored by a clock that was wrong."""
    rows = await connection.execute(
        """SELECT id FROM batch_order WHERE batch_id = %s AND state <> 'ended' AND (next_at <= now()
             OR next_at > now() + CASE state WHEN 'sending' THEN interval '2 hours' ELSE interval '2 minutes' END)
           ORDER BY id""",
        (batch,),
    )
    return [id for (id,) in await rows.fetchall()]


async def list_waiting(connection: Connection, batch: UUID) -> list[Order]:
    """The orders whose next step is not due soon, and which an earlier step could end. Not those that may have been
    sent, or whose provider gives no answer: an earlier step would learn nothing."""
    query: LiteralString = f"""SELECT {_COLUMNS} FROM batch_order WHERE batch_id = %s
        AND (state = 'new' OR (state = 'sent' AND cancelled_at IS NULL AND problem = ''))
        AND next_at > now() + interval '2 seconds' ORDER BY id"""
    return [_order(row) for row in await (await connection.execute(query, (batch,))).fetchall()]


async def make_due(connection: Connection, ids: Sequence[UUID]) -> None:
    """Make the next step of these orders due now."""
    await connection.execute("UPDATE batch_order SET next_at = now() WHERE id = ANY(%s)", (list(ids),))


async def try_lock(connection: Connection, id: UUID) -> bool:
    """Take the lock of an order for this session, until it unlocks or its connection ends; False: another has it."""
    row = await (
        await connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 105))", (str(id),))
    ).fetchone()
    return row is not None and bool(row[0])


# states ---------------------------------------------------------------------------------------------------------------


async def postpone(connection: Connection, id: UUID, seconds: float, problem: str = "") -> None:
    """Make the next step due in `seconds`, and count a try."""
    await connection.execute(
        """UPDATE batch_order SET next_at = now() + make_interval(secs => %s), problem = %s, tries = tries + 1
           WHERE id = %s""",
        (seconds, problem, id),
    )


async def mark_uploading(connection: Connection, id: UUID) -> None:
    """Store that the input may be at the provider from now on."""
    await connection.execute("UPDATE batch_order SET uploading = true WHERE id = %s", (id,))


async def mark_uploaded(connection: Connection, id: UUID, file: str) -> None:
    """Store the provider's id of the uploaded input."""
    await connection.execute("UPDATE batch_order SET provider_file = %s WHERE id = %s", (file, id))


async def mark_sending(connection: Connection, id: UUID) -> None:
    """Store that the order may be at the provider from now on."""
    await connection.execute("UPDATE batch_order SET state = 'sending', sending_at = now() WHERE id = %s", (id,))


async def seconds_since_sending(connection: Connection, id: UUID) -> float:
    """Seconds since `mark_sending` by PostgreSQL's clock, which stored that time: a worker's clock may be fast by more
    than a request takes."""
    query = "SELECT extract(epoch FROM clock_timestamp() - sending_at)::float8 FROM batch_order WHERE id = %s"
    row = await (await connection.execute(query, (id,))).fetchone()
    return 0.0 if row is None or row[0] is None else float(row[0])


async def mark_not_sent(connection: Connection, id: UUID) -> None:
    """Store that the provider certainly does not have the order."""
    await connection.execute("UPDATE batch_order SET state = 'new', sending_at = NULL WHERE id = %s", (id,))


async def mark_sent(connection: Connection, id: UUID, batches: Sequence[str]) -> None:
    """Store that the provider has the order, as the batches with these ids."""
    await connection.execute(
        "UPDATE batch_order SET state = 'sent', provider_batches = %s, tries = 0, problem = '' WHERE id = %s",
        (list(batches), id),
    )


async def mark_cancelled(connection: Connection, id: UUID) -> None:
    """Store that the provider was requested to cancel the order."""
    await connection.execute("UPDATE batch_order SET cancelled_at = now() WHERE id = %s", (id,))


async def set_progress(connection: Connection, id: UUID, completed: int, failed: int) -> None:
    """Store how many calls the provider says it has completed, and failed."""
    await connection.execute(
        "UPDATE batch_order SET completed = %s, failed = %s WHERE id = %s", (completed, failed, id)
    )


async def count_reported(connection: Connection, batches: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """By batch: the (completed, failed) calls that providers report for orders that have not ended."""
    rows = await connection.execute(
        """SELECT batch_id, sum(completed), sum(failed) FROM batch_order WHERE batch_id = ANY(%s) AND state <> 'ended'
           GROUP BY 1""",
        (list(batches),),
    )
    return {id: (int(completed), int(failed)) for id, completed, failed in await rows.fetchall()}


async def other_provider_batches(connection: Connection, id: UUID, since: datetime) -> frozenset[str]:
    """The provider's batches that belong to other orders, created after `since`."""
    rows = await connection.execute(
        "SELECT unnest(provider_batches) FROM batch_order WHERE id <> %s AND created_at > %s", (id, since)
    )
    return frozenset([name for (name,) in await rows.fetchall()])


# lines ----------------------------------------------------------------------------------------------------------------


async def iterate_open_lines(connection: Connection, id: UUID) -> AsyncGenerator[list[OrderLine], None]:
    """Yield the lines of an order that are not done, by number, 200 at a time. Inside a transaction."""
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


async def count_open_lines(connection: Connection, id: UUID) -> int:
    """How many lines of an order are not done."""
    row = await (
        await connection.execute("SELECT count(*) FROM batch_line WHERE order_id = %s AND state = 'ordered'", (id,))
    ).fetchone()
    return 0 if row is None else int(row[0])


async def end_lines(connection: Connection, order: Order, done: Sequence[tuple[OrderLine, bool, bytes]]) -> None:
    """Store the results of lines: (line, whether the call succeeded, its line of a result file)."""
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


async def is_given_up(connection: Connection, id: UUID) -> bool:
    """Whether the batch of an order expired so long ago that its provider has deleted the results: OpenAI and Anthropic
    keep them for about thirty days."""
    row = await (
        await connection.execute(
            """SELECT b.expires_at < now() - interval '30 days' FROM batch_order o JOIN batch b ON b.id = o.batch_id
               WHERE o.id = %s""",
            (id,),
        )
    ).fetchone()
    return row is not None and bool(row[0])


async def mark_ended(connection: Connection, id: UUID) -> None:
    """Store that all lines of the order are done and its costs are in a journal."""
    await connection.execute("UPDATE batch_order SET state = 'ended', ended_at = now() WHERE id = %s", (id,))


async def list_recently_ended(connection: Connection) -> list[tuple[UUID, bool]]:
    """The orders that have ended within a month, but not within the last minute, each with whether that was more than a
    week ago."""
    rows = await connection.execute(
        """SELECT id, ended_at < now() - interval '7 days' FROM batch_order WHERE state = 'ended'
           AND ended_at BETWEEN now() - interval '30 days' AND now() - interval '1 minute'"""
    )
    return [(id, given_up) for id, given_up in await rows.fetchall()]
