"""The SQL with which a worker is granted slices of budgets and limits, and gives them back.

Each operation is one message, so that a worker that is stopped (SIGSTOP, a frozen machine) keeps no row locked:
PostgreSQL has all of it, or nothing. Returns of a budget count once by their id, those of a limit by their total.
`lease_client` decides when and how much to ask for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg import AsyncClientCursor
from psycopg.errors import UniqueViolation

from groundplan.blueprint.model import Budget
from groundplan.core.ids import new_id
from groundplan.core.money import MAX_AMOUNT, from_decimal, to_decimal
from groundplan.gateway import database
from groundplan.gateway.budgets.leases import Key, Quota
from groundplan.gateway.database import Connection
from groundplan.gateway.stalls import patient
from groundplan.ledger.model import Release

RECALL_CHANNEL = "groundplan_recall"
"""Payload `NAME PERIOD EPOCH`: that worker is short of it."""
FREED_CHANNEL = "groundplan_freed"
"""Payload `NAME PERIOD`: there is room again where a worker was refused."""

_REGISTER = """INSERT INTO gateway (epoch, host, home, pid) SELECT %s, %s, %s, %s
    WHERE NOT EXISTS (SELECT FROM shipped s WHERE s.epoch = %s AND s.done) ON CONFLICT DO NOTHING"""
"""Names no index: two connections of a worker may register it at the same moment, and it has two unique ones."""
_GRANT_BUDGETS = """SELECT g.amount, g.rest, g.contested FROM unnest(
      %s::uuid[], %s::text[], %s::text[], %s::numeric[], %s::int[], %s::bool[], %s::numeric[], %s::numeric[],
      %s::numeric[], %s::bool[])
    WITH ORDINALITY AS a(id, name, span, most, number, hard, need, wanting, headroom, recall, place),
    grant_budget(
      a.id, %s, a.name, a.span, a.most, a.number, a.hard, a.need, a.wanting, a.headroom, a.recall) AS g
    ORDER BY a.place"""
_GRANT_LIMITS = """SELECT g.amount, g.rest, g.contested FROM unnest(
      %s::text[], %s::text[], %s::bigint[], %s::int[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bool[])
    WITH ORDINALITY AS a(name, span, most, number, ends, need, wanting, headroom, recall, place),
    grant_limit(%s, a.name, a.span, a.most, a.number, a.ends::timestamptz, a.need, a.wanting, a.headroom, a.recall) AS g
    ORDER BY a.place"""
_RETURN_LIMITS = """SELECT return_limit(%s, a.name, a.span, a.total)
    FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS a(name, span, total)"""
_GRANTED_TOTALS_OF = """SELECT budget, period, granted_usd FROM budget_slice
    WHERE epoch = %s AND (budget, period) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"""
_GRANTED_PERIODS = """WITH RECURSIVE every (period) AS (
      SELECT min(period) FROM budget_slice WHERE epoch = %(epoch)s
      UNION ALL SELECT (SELECT min(s.period) FROM budget_slice s WHERE s.epoch = %(epoch)s AND s.period > e.period)
        FROM every e WHERE e.period IS NOT NULL)
    SELECT period FROM every WHERE period IS NOT NULL"""
_GRANTED_TOTALS_IN = "SELECT budget, period, granted_usd FROM budget_slice WHERE epoch = %s AND period = %s"
_COMMITTED_TOTALS = """SELECT budget, period, granted_usd FROM budget_period
    WHERE (budget, period) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"""
_LIMIT_TOTALS = "SELECT name, span, granted, released FROM limit_slice WHERE epoch = %s AND NOT closed"
_BOOK_DEBTS = """SELECT a.name, a.span, g.amount FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::numeric[])
    WITH ORDINALITY AS a(id, name, span, usd, place),
    grant_budget(a.id, %s, a.name, a.span, a.usd, 0, false, a.usd, a.usd, 0, false) AS g ORDER BY a.place"""
_UNALLOCATED = """SELECT name, span, amount - granted FROM limit_span
    WHERE (name, span) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"""
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
_REPORT_OPEN = (
    """UPDATE budget_slice SET open_usd = %s, open_at = now() WHERE epoch = %s AND budget = %s AND period = %s"""
)
_OPEN_ELSEWHERE = """SELECT budget, period, sum(open_usd) FROM budget_slice
    WHERE (budget, period) IN (SELECT * FROM unnest(%s::text[], %s::text[])) AND epoch <> %s
      AND open_at > now() - interval '3 seconds' GROUP BY 1, 2"""
INSERT_MOVEMENT = """INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type)
    VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING"""
LOCK_PERIOD = "SELECT 1 FROM budget_period WHERE budget = %s AND period = %s FOR UPDATE"
RETURN_TO_PERIOD = "UPDATE budget_period SET granted_usd = granted_usd - %s WHERE budget = %s AND period = %s"
SHRINK_SLICE = """UPDATE budget_slice SET released_usd = released_usd + %s
    WHERE epoch = %s AND budget = %s AND period = %s"""
_RELEASE = """SELECT 1 FROM budget_period WHERE budget = %(budget)s AND period = %(period)s FOR UPDATE;
    INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type)
      VALUES (%(id)s, %(epoch)s, %(budget)s, %(period)s, %(amount)s, 'release');
    UPDATE budget_period SET granted_usd = granted_usd - %(amount)s WHERE budget = %(budget)s AND period = %(period)s;
    UPDATE budget_slice SET released_usd = released_usd + %(amount)s
      WHERE epoch = %(epoch)s AND budget = %(budget)s AND period = %(period)s"""
"""One message and one transaction, also several of them; fails where a release was reported before."""


@dataclass(frozen=True, slots=True)
class RequestedAmounts:
    """The amounts that a worker asks for, in picodollars or in the quota's unit.

    `need` is the least that serves one waiter, `wanting` what all waiters lack, `headroom` what the next seconds may
    need.
    """

    need: int
    wanting: int
    headroom: int
    recall: bool
    """Where there is nothing left, recall what other workers hold idle."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a request: `unallocated` is what no worker holds after it; `contested`: others want it too."""

    amount: int
    unallocated: int
    contested: bool


async def connect(url: str, epoch: UUID, home: Path, seconds: float) -> Connection:
    """Connect, and register the worker in the database, which may take `seconds`. Raises psycopg.Error,
    TimeoutError."""
    connection = await database.connect(url)
    try:
        async with patient(seconds):
            await register(connection, epoch, home)
    except BaseException:
        await connection.close()
        raise
    return connection


async def register(connection: Connection, epoch: UUID, home: Path) -> None:
    """Insert the worker's `gateway` row; whichever of its connections is first does so. A worker that stood still until
    its books were closed and its row was deleted is not registered again."""
    await connection.execute(_REGISTER, (epoch, socket.gethostname(), str(home), os.getpid(), epoch))


async def granted_totals(
    connection: Connection, epoch: UUID, forgotten: Callable[[str], bool], seconds: float
) -> dict[Key, int]:
    """Return all that was ever granted to this worker of budgets, except in periods that are `forgotten`: of many keys
    there may be one each for every day of months. One query for each period, so that calls get turns between them; each
    may take `seconds`. Raises psycopg.Error, TimeoutError."""
    async with patient(seconds):
        periods = await (await connection.execute(_GRANTED_PERIODS, {"epoch": epoch})).fetchall()
    rows = []
    for (period,) in periods:
        if not forgotten(period):
            async with patient(seconds):
                rows += await (await connection.execute(_GRANTED_TOTALS_IN, (epoch, period))).fetchall()
    return _amounts_by_key(rows)


async def granted_totals_of(connection: Connection, epoch: UUID, keys: Sequence[Key]) -> dict[Key, int]:
    """As `granted_totals`, of these keys."""
    names, periods = [name for name, _ in keys], [period for _, period in keys]
    return _amounts_by_key(await (await connection.execute(_GRANTED_TOTALS_OF, (epoch, names, periods))).fetchall())


def _amounts_by_key(rows: Sequence[tuple[Any, ...]]) -> dict[Key, int]:
    """Amounts by key from rows of (budget, period, USD)."""
    return {(budget, period): from_decimal(amount) for budget, period, amount in rows}


async def limit_totals(connection: Connection, epoch: UUID) -> dict[Key, tuple[int, int]]:
    """Return (granted, returned) of each quota whose window this worker may still use."""
    rows = await (await connection.execute(_LIMIT_TOTALS, (epoch,))).fetchall()
    return {(name, span): (int(granted), int(released)) for name, span, granted, released in rows}


async def book_debts(connection: Connection, epoch: UUID, debts: Mapping[Key, int]) -> dict[Key, int]:
    """Grant this worker what it has used or released of budgets beyond what the database knows, whatever is left of
    them, in the given order. Returns the amounts granted. The next grant tells the database the limit of a period that
    is new there."""
    names, periods = [name for name, _ in debts], [period for _, period in debts]
    parameters = ([new_id() for _ in debts], names, periods, [to_decimal(amount) for amount in debts.values()], epoch)
    rows = await (await connection.execute(_BOOK_DEBTS, parameters)).fetchall()
    return {(name, period): from_decimal(amount) for name, period, amount in rows}


async def committed_totals(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    """Return what all workers hold or have spent of each budget."""
    names, periods = [name for name, _ in keys], [period for _, period in keys]
    return _amounts_by_key(await (await connection.execute(_COMMITTED_TOTALS, (names, periods))).fetchall())


async def grant_budgets(
    connection: Connection, epoch: UUID, asks: Sequence[tuple[Budget, str, int, RequestedAmounts]]
) -> list[Grant]:
    """Ask once for several budgets: (budget, period, number of the blueprint, amounts). One statement, and so one
    commit, for all of them; their rows are locked in the given order. Raises psycopg.Error."""
    columns = [list(column) for column in zip(*(_budget_row(*each) for each in asks), strict=True)]
    rows = await (await connection.execute(_GRANT_BUDGETS, (*columns, epoch))).fetchall()
    return [Grant(from_decimal(amount), from_decimal(rest), bool(contested)) for amount, rest, contested in rows]


def _budget_row(budget: Budget, period: str, number: int, amounts_requested: RequestedAmounts) -> Sequence[Any]:
    decimals = [
        to_decimal(amount) for amount in (amounts_requested.need, amounts_requested.wanting, amounts_requested.headroom)
    ]
    return (
        new_id(),
        budget.name,
        period,
        to_decimal(budget.limit),
        number,
        budget.hard,
        *decimals,
        amounts_requested.recall,
    )


async def grant_limits(
    connection: Connection, epoch: UUID, asks: Sequence[tuple[Quota, str, int, RequestedAmounts]]
) -> list[Grant]:
    """As `grant_budgets`, for limits."""
    limit_rows = [_limit_row(quota, period, number, wish) for quota, period, number, wish in asks]
    columns = [list(column) for column in zip(*limit_rows, strict=True)]
    rows = await (await connection.execute(_GRANT_LIMITS, (*columns, epoch))).fetchall()
    return [Grant(int(amount), int(rest), bool(contested)) for amount, rest, contested in rows]


def _limit_row(quota: Quota, period: str, number: int, requested: RequestedAmounts) -> Sequence[Any]:
    # after usage that no provider can mean, more is owed than a bigint holds, and others are asked for with it
    need, wanting, headroom = (
        min(each, MAX_AMOUNT) for each in (requested.need, requested.wanting, requested.headroom)
    )
    return (
        quota.name, period, quota.limit, number, str(quota.end_of(period)), need, wanting, headroom, requested.recall,
    )  # fmt: skip


async def report_releases(connection: Connection, epoch: UUID, records: Sequence[Release]) -> None:
    """Report durable releases of budgets, in the order of their keys."""
    cursor = AsyncClientCursor(connection)
    statements = [
        cursor.mogrify(_RELEASE, _release_parameters(epoch, record)) for record in sorted(records, key=_key_of)
    ]
    try:
        await cursor.execute(";".join(statements).encode())
    except UniqueViolation:  # the shipper reported one, or an answer was lost
        for record in records if len(records) > 1 else ():
            await report_releases(connection, epoch, [record])


def _key_of(record: Release) -> Key:
    return record.budget, record.period


def _release_parameters(epoch: UUID, record: Release) -> dict[str, Any]:
    key = {"budget": record.budget, "period": record.period}
    return {**key, "id": UUID(bytes=record.id), "epoch": epoch, "amount": to_decimal(record.amount)}


async def report_open_amount(connection: Connection, epoch: UUID, key: Key, amount: int) -> None:
    """Report what open calls of this worker hold of a budget that another worker lacks."""
    await connection.execute(_REPORT_OPEN, (to_decimal(amount), epoch, *key))


async def open_amounts_elsewhere(connection: Connection, epoch: UUID, keys: Sequence[Key]) -> dict[Key, int]:
    """Return what open calls of all other workers hold of these budgets, as reported in the last seconds."""
    names, periods = [name for name, _ in keys], [period for _, period in keys]
    return _amounts_by_key(await (await connection.execute(_OPEN_ELSEWHERE, (names, periods, epoch))).fetchall())


async def report_returns(connection: Connection, epoch: UUID, totals: Mapping[Key, int]) -> None:
    """Report all that this worker ever returned of each quota in its span."""
    names, spans = [name for name, _ in totals], [span for _, span in totals]
    await connection.execute(_RETURN_LIMITS, (epoch, names, spans, list(totals.values())))


async def read_clock(connection: Connection) -> float:
    """Return PostgreSQL's time, in seconds since the epoch."""
    row = await (await connection.execute(_CLOCK)).fetchone()
    assert row is not None
    return float(row[0])


async def unallocated_amounts(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    """Return the amount of each quota that no worker holds."""
    names, spans = [name for name, _ in keys], [span for _, span in keys]
    rows = await (await connection.execute(_UNALLOCATED, (names, spans))).fetchall()
    return {(name, span): int(rest) for name, span, rest in rows}
