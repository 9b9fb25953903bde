"""The SQL of batches: what was requested, each line's state, and the money that a batch holds until its lines are made.

A line goes from pending to running before it is sent, in the transaction that moves its money to the worker, and from
running to done once. `batch_runner` decides; the content of lines is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from groundplan.blueprint.model import Budget
from groundplan.core.ids import new_id
from groundplan.core.money import from_decimal, to_decimal
from groundplan.gateway.batches.result_store import ERROR_CODE, error_line
from groundplan.gateway.budgets.grant_store import RECALL_CHANNEL
from groundplan.gateway.database import Connection

_encode = msgspec.json.Encoder().encode

MESSAGES_ENDPOINT = "/v1/messages"
"""The endpoint of Anthropic's message batches, whose `metadata` are headers of their creation; all other batches are
OpenAI's."""
ENDED = frozenset({"failed", "completed", "expired", "cancelled"})
_COLUMNS: LiteralString = """b.id, b.workload, b.key_id, b.person, b.endpoint, b.input_file, b.completion_window,
    b.metadata, b.status, b.created_at, b.expires_at, b.in_progress_at, b.cancelling_at, b.ended_at, b.errors,
    b.output_file, b.error_file, b.total, b.held_usd, b.charges, b.cancelled, b.expired, b.output_seconds, b.said,
    b.grounded"""

SHORT_TRANSACTION: LiteralString = "SET LOCAL idle_in_transaction_session_timeout = '2s'"
"""For a transaction on a connection that is also used for longer ones: moving the money of a batch locks the rows of
its budgets until the commit, and a worker that is stopped in the middle blocks all others for no longer than this."""
_MAX_COUNT_ROWS = 100
"""Rows of counts that a batch may have before they are summed up."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as it is stored.

    `errors` are in OpenAI's format, `charges` are the (budget, period) pairs that its calls belong to.
    """

    id: UUID
    workload: str
    key: UUID
    person: str
    endpoint: str
    input_file: UUID
    completion_window: str
    metadata: dict[str, str] | None
    status: str
    created_at: datetime
    expires_at: datetime
    in_progress_at: datetime | None
    cancelling_at: datetime | None
    ended_at: datetime | None
    errors: list[dict[str, Any]]
    output_file: UUID | None
    error_file: UUID | None
    total: int
    held_usd: Any
    charges: list[list[str]]
    cancelled: int = 0
    """Lines that were cancelled before they were made: known once the batch has ended."""
    expired: int = 0
    """Lines that expired before they were made, likewise."""
    output_seconds: int | None = None
    """How long its result files are kept; None: until they are deleted."""
    said: dict[str, str] = field(default_factory=dict)
    """Headers of the request that created it which its calls have, too: the feature, and the ticket."""
    grounded: bool = False
    """Whether its workload had sources when it was created, or when it ended."""


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One call of a batch: the position of its line in the input file (bytes), and the most that it can cost
    (`bound`, picodollars)."""

    number: int
    custom_id: str
    offset: int
    length: int
    bound: int
    order: UUID | None = None
    """The order at a provider that it belongs to; None: a worker makes it as a call."""
    error: tuple[str, str] | None = None
    """(code, message) of a line that is not made."""
    error_status: int | None = None
    """The HTTP status of that error, if it is a refusal."""
    max_tokens: tuple[int, int] = (0, 0)
    """The most tokens of prompt and answer that a line of an order can have."""


@dataclass(frozen=True, slots=True)
class ClaimedLine:
    """A line that this worker is to send, once, as the call `call`; `held` is the money that came with it
    (picodollars)."""

    number: int
    custom_id: str
    offset: int
    length: int
    held: int
    call: UUID


async def add(connection: Connection, batch: Batch) -> None:
    """Store a new batch."""
    await connection.execute(
        """INSERT INTO batch (id, workload, key_id, person, endpoint, input_file, completion_window, metadata, status,
             created_at, expires_at, total, output_seconds, said, grounded)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            batch.id, batch.workload, batch.key, batch.person, batch.endpoint, batch.input_file,
            batch.completion_window, None if batch.metadata is None else Jsonb(batch.metadata), batch.status,
            batch.created_at, batch.expires_at, batch.total, batch.output_seconds, Jsonb(batch.said),
            batch.grounded,
        ),
    )  # fmt: skip


async def find(connection: Connection, id: UUID, lock: LiteralString = "") -> Batch | None:
    """The batch with this id. `lock`: `FOR UPDATE SKIP LOCKED`, `FOR SHARE`, ... inside a transaction."""
    query: LiteralString = f"SELECT {_COLUMNS} FROM batch b WHERE b.id = %s AND b.deleted_at IS NULL {lock}"
    row = await (await connection.execute(query, (id,))).fetchone()
    return None if row is None else Batch(*row)


async def is_expired(connection: Connection, id: UUID) -> bool:
    """Whether the batch has expired by PostgreSQL's clock."""
    row = await (await connection.execute("SELECT expires_at <= now() FROM batch WHERE id = %s", (id,))).fetchone()
    return row is not None and bool(row[0])


async def try_lock_check(connection: Connection, id: UUID) -> bool:
    """Take the lock for checking a batch's lines, until this session ends; False: another session has it. The batch's
    row stays unlocked, so that it can be cancelled meanwhile."""
    row = await (
        await connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 404))", (str(id),))
    ).fetchone()
    return row is not None and bool(row[0])


async def list_unfinished(connection: Connection) -> list[tuple[UUID, UUID]]:
    """(batch, its input file) of all batches that have not ended."""
    rows = await connection.execute(
        "SELECT id, input_file FROM batch WHERE status IN ('validating', 'in_progress', 'cancelling')"
    )
    return [(id, file) for id, file in await rows.fetchall()]


async def list_abandoned(connection: Connection) -> list[UUID]:
    """The batches that should have ended long ago: no gateway with their HOME ends them. A batch ends within seconds of
    its expiry, unless one of its orders waits for a provider that cannot be reached."""
    rows = await connection.execute(
        """SELECT id FROM batch b WHERE status IN ('validating', 'in_progress', 'cancelling')
             AND expires_at <= now() - CASE
               WHEN EXISTS (SELECT FROM batch_order o WHERE o.batch_id = b.id AND o.state <> 'ended')
               THEN interval '1 day' ELSE interval '1 hour' END"""
    )
    return [id for (id,) in await rows.fetchall()]


async def list_newest(connection: Connection, workload: str, after: UUID | None, limit: int) -> list[Batch]:
    """The workload's batches of OpenAI's API, newest first, those after `after`."""
    query: LiteralString = (
        f"SELECT {_COLUMNS} FROM batch b WHERE b.workload = %s AND b.endpoint <> %s"
        " AND (%s::uuid IS NULL OR b.id < %s) ORDER BY b.id DESC LIMIT %s"
    )
    rows = await connection.execute(query, (workload, MESSAGES_ENDPOINT, after, after, limit))
    return [Batch(*row) for row in await rows.fetchall()]


async def list_message_batches(
    connection: Connection, workload: str, after: UUID | None, before: UUID | None, limit: int
) -> list[Batch]:
    """The workload's message batches: those after `after`, newest first, or those right before `before`, oldest
    first."""
    order: LiteralString = "ASC" if before is not None else "DESC"
    query: LiteralString = (
        f"SELECT {_COLUMNS} FROM batch b WHERE b.workload = %s AND b.endpoint = %s AND b.deleted_at IS NULL"
        " AND (%s::uuid IS NULL OR b.id < %s) AND (%s::uuid IS NULL OR b.id > %s)"
        f" ORDER BY b.id {order} LIMIT %s"
    )
    rows = await connection.execute(query, (workload, MESSAGES_ENDPOINT, after, after, before, before, limit))
    return [Batch(*row) for row in await rows.fetchall()]


async def delete(connection: Connection, id: UUID) -> None:
    """Mark the batch as deleted: it is not shown any more; what it cost stays in the ledger."""
    await connection.execute("UPDATE batch SET deleted_at = now() WHERE id = %s", (id,))


async def count_done(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """(completed, failed) lines of each batch."""
    rows = await connection.execute(
        "SELECT batch_id, sum(completed), sum(failed) FROM batch_done WHERE batch_id = ANY(%s) GROUP BY 1", (list(ids),)
    )
    return {id: (completed, failed) for id, completed, failed in await rows.fetchall()}


async def compact_counts(connection: Connection, id: UUID, most: int = _MAX_COUNT_ROWS) -> None:
    """Sum up a batch's rows of counts into one where there are more than `most`: each statement that ends lines adds
    one."""
    await connection.execute(
        """WITH gone AS (DELETE FROM batch_done WHERE batch_id = %(id)s
             AND (SELECT count(*) FROM batch_done WHERE batch_id = %(id)s) > %(most)s RETURNING completed, failed)
           INSERT INTO batch_done (batch_id, completed, failed)
           SELECT %(id)s, sum(completed), sum(failed) FROM gone HAVING count(*) > 0""",
        {"id": id, "most": most},
    )


async def request_cancel(connection: Connection, id: UUID) -> None:
    """Store that the batch is to be cancelled; no effect where it has ended."""
    await connection.execute(
        """UPDATE batch SET status = 'cancelling', cancelling_at = now()
           WHERE id = %s AND status IN ('validating', 'in_progress')""",
        (id,),
    )


def ended_uncancelled(batch: Batch) -> bool:
    """Whether a batch has ended without a request to cancel it."""
    return batch.status in ENDED and batch.cancelling_at is None


# money and lines ------------------------------------------------------------------------------------------------------


async def hold_budgets(
    connection: Connection, id: UUID, charges: Sequence[tuple[Budget, str]], number: int, total: int
) -> int | None:
    """Take `total` (picodollars) from every budget for the batch and return None; or take nothing and return the least
    that one of them has left. `number`: of the blueprint."""
    names, periods = [b.name for b, _ in charges], [period for _, period in charges]
    limits, hards = [to_decimal(b.limit) for b, _ in charges], [b.hard for b, _ in charges]
    row = await (
        await connection.execute(
            "SELECT hold_batch(%s, %s::text[], %s::text[], %s::numeric[], %s::boolean[], %s, %s)",
            (id, names, periods, limits, hards, number, to_decimal(total)),
        )
    ).fetchone()
    return None if row is None or row[0] is None else from_decimal(row[0])


async def recall_idle(connection: Connection, id: UUID, charges: Sequence[tuple[Budget, str]]) -> None:
    """Ask workers to give back what they hold idle of these budgets, for the batch."""
    for budget, period in charges:
        await connection.execute(
            "UPDATE budget_period SET wanted_at = now() WHERE budget = %s AND period = %s", (budget.name, period)
        )
        notice = f"{budget.name} {period} {id}"
        await connection.execute("SELECT pg_notify(%s, %s)", (RECALL_CHANNEL, notice))


async def add_lines(connection: Connection, id: UUID, lines: Sequence[BatchLine]) -> None:
    """Store the lines of a checked batch, in the transaction that begins it."""
    copying = """COPY batch_line (batch_id, number, custom_id, place, length, held_usd, order_id, state, call_id, ok,
        result, most_input, most_output) FROM STDIN"""
    async with connection.cursor() as cursor, cursor.copy(copying) as copy:
        for line in lines:
            state, call = ("pending", None) if line.order is None else ("ordered", new_id())
            ok, result = None, None
            if line.error is not None:
                state, ok, result = (
                    "done",
                    False,
                    _encode(error_line(None, line.custom_id, *line.error, line.error_status)).decode(),
                )
            position, held = (line.offset, line.length), to_decimal(line.bound)
            await copy.write_row(
                (
                    id,
                    line.number,
                    line.custom_id,
                    *position,
                    held,
                    line.order,
                    state,
                    call,
                    ok,
                    result,
                    *line.max_tokens,
                )
            )


async def mark_begun(
    connection: Connection, id: UUID, lines: int, charges: Sequence[tuple[Budget, str]], total: int
) -> bool:
    """Store that the batch has begun with so many `lines` and holds `total` of each budget; False: it has ended
    meanwhile."""
    begun = await connection.execute(
        """UPDATE batch SET status = CASE status WHEN 'validating' THEN 'in_progress' ELSE status END,
             in_progress_at = now(), total = %s, held_usd = %s, charges = %s
           WHERE id = %s AND status IN ('validating', 'cancelling')""",
        (lines, to_decimal(total), Jsonb([[b.name, period] for b, period in charges]), id),
    )
    return begun.rowcount == 1


async def mark_failed(connection: Connection, id: UUID, errors: Sequence[dict[str, Any]]) -> None:
    """Store that the batch cannot be begun, because of `errors`."""
    document = _encode(list(errors)).replace(b"\\u0000", b"\\ufffd").decode()  # jsonb has no NUL; input may have one
    await connection.execute(
        """UPDATE batch SET status = 'failed', ended_at = now(), errors = %s::jsonb
           WHERE id = %s AND status IN ('validating', 'cancelling')""",
        (document, id),
    )


async def claim_lines(connection: Connection, batch: Batch, worker: UUID, most: int) -> None:
    """Turn up to `most` pending lines into running ones of this worker, with their money; `list_claimed` returns
    them."""
    async with connection.transaction():
        current = await find(connection, batch.id, "FOR SHARE")
        if current is None or current.status != "in_progress":
            return
        rows = await (
            await connection.execute(
                """SELECT number, held_usd FROM batch_line WHERE batch_id = %s AND state = 'pending'
                   ORDER BY number LIMIT %s FOR UPDATE SKIP LOCKED""",
                (batch.id, most),
            )
        ).fetchall()
        if not rows:
            return
        total = sum(from_decimal(held) for _, held in rows)
        for number, _ in rows:
            await connection.execute(
                """UPDATE batch_line SET state = 'running', epoch = %s, call_id = %s
                   WHERE batch_id = %s AND number = %s""",
                (worker, new_id(), batch.id, number),
            )
        if total:
            await connection.execute("SELECT move_hold(%s, %s, %s)", (batch.id, worker, to_decimal(total)))


async def list_claimed(connection: Connection, batch: UUID, worker: UUID) -> list[ClaimedLine]:
    """The running lines of a batch that this worker has claimed."""
    rows = await connection.execute(
        """SELECT number, custom_id, place, length, held_usd, call_id FROM batch_line
           WHERE batch_id = %s AND epoch = %s AND state = 'running' ORDER BY number""",
        (batch, worker),
    )
    return [
        ClaimedLine(n, name, at, size, from_decimal(held), call)
        for n, name, at, size, held, call in await rows.fetchall()
    ]


async def end_line(connection: Connection, batch: UUID, line: ClaimedLine, *, ok: bool, result: bytes) -> None:
    """Store the result of a running line; no effect on one that is done."""
    await connection.execute(
        """UPDATE batch_line SET state = 'done', ok = %s, result = %s
           WHERE batch_id = %s AND number = %s AND call_id = %s AND state = 'running'""",
        (ok, result.decode(), batch, line.number, line.call),
    )


async def recover_lines(connection: Connection, batch: UUID, message: str) -> None:
    """Release the running lines of workers that have ended and whose journals were taken over: lines that may have been
    billed are done, with the error `message`; all others are pending again.

    What such a worker held went back to the budgets with its other money, so a line that is pending again holds
    nothing."""
    async with connection.transaction():
        rows = await connection.execute(
            """SELECT l.number, l.custom_id, l.call_id,
                 s.gaps > 0
                 OR EXISTS (SELECT 1 FROM attempt a WHERE a.call_id = l.call_id AND a.outcome <> 'not_billed')
               FROM batch_line l JOIN shipped s ON s.epoch = l.epoch AND s.done
               WHERE l.batch_id = %s AND l.state = 'running' FOR UPDATE OF l SKIP LOCKED""",
            (batch,),
        )
        for number, custom_id, call, sent in await rows.fetchall():
            if sent:
                result = Jsonb(error_line(call, custom_id, "batch_line_interrupted", message))
                await connection.execute(
                    """UPDATE batch_line SET state = 'done', ok = false, result = %s::jsonb::text
                       WHERE batch_id = %s AND number = %s""",
                    (result, batch, number),
                )
            else:
                await connection.execute(
                    """UPDATE batch_line SET state = 'pending', epoch = NULL, call_id = NULL, held_usd = 0
                       WHERE batch_id = %s AND number = %s""",
                    (batch, number),
                )


async def end_pending(connection: Connection, batch: UUID, code: str, message: str) -> None:
    """End all pending lines with an error, and give back what was held for them. PostgreSQL builds their `error_line`s:
    building fifty thousand here would keep calls waiting."""
    async with connection.transaction():
        await find(connection, batch, "FOR UPDATE")
        rows = await connection.execute(
            """WITH pending AS (SELECT number, held_usd FROM batch_line WHERE batch_id = %(batch)s AND state = 'pending'
                 ORDER BY number FOR UPDATE), ended AS (
                 UPDATE batch_line l SET state = 'done', ok = false, held_usd = 0, result = jsonb_build_object(
                   'id', 'batch_req_' || replace(gen_random_uuid()::text, '-', ''), 'custom_id', l.custom_id,
                   'response', null, 'error', jsonb_build_object('code', %(code)s::text, 'message', %(message)s::text)
                   )::text
                 FROM pending p WHERE l.batch_id = %(batch)s AND l.number = p.number)
               SELECT coalesce(sum(held_usd), 0) FROM pending""",
            {"batch": batch, "code": code, "message": message},
        )
        row = await rows.fetchone()
        if row is not None and row[0]:
            await connection.execute("SELECT move_hold(%s, NULL, %s)", (batch, row[0]))


async def has_open_lines(connection: Connection, batch: UUID) -> bool:
    """Whether there are lines that are pending, running or ordered."""
    row = await (
        await connection.execute(
            "SELECT EXISTS (SELECT FROM batch_line WHERE batch_id = %s AND state <> 'done')", (batch,)
        )
    ).fetchone()
    return row is not None and bool(row[0])


async def mark_ended(
    connection: Connection, id: UUID, status: str, files: tuple[UUID | None, UUID | None], *, grounded: bool
) -> None:
    """Store that the batch has ended, with its result files (output, errors); its lines' results are deleted, and its
    slices closed. `grounded`: whether its workload has sources now."""
    await connection.execute(
        f"""UPDATE batch b SET status = %s, ended_at = now(), output_file = %s, error_file = %s,
             cancelled = l.cancelled, expired = l.expired, grounded = b.grounded OR %s
           FROM (SELECT count(*) FILTER (WHERE code = 'batch_cancelled') AS cancelled,
               count(*) FILTER (WHERE code = 'batch_expired') AS expired
             FROM (SELECT {ERROR_CODE} AS code FROM batch_line WHERE batch_id = %s AND NOT ok) r) l
           WHERE b.id = %s""",
        (status, *files, grounded, id, id),
    )
    await connection.execute("UPDATE batch_line SET result = NULL WHERE batch_id = %s", (id,))
    await compact_counts(connection, id, 1)
    await connection.execute("UPDATE budget_slice SET closed = true WHERE epoch = %s", (id,))
