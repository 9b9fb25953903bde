"""The SQL with which a worker is granted slices of budgets and limits, and gives them back.

Whatever is said is one message, so that a worker that is stopped (SIGSTOP, a frozen machine) keeps nobody from a row:
PostgreSQL has all of it, or nothing. Returns of a budget count once by their id, those of a limit by their total. When
and how much to ask for is `lease_client`'s business.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg import AsyncClientCursor, AsyncConnection
from psycopg.errors import UniqueViolation

from groundplan.blueprint.model import Budget
from groundplan.core.ids import new_id
from groundplan.core.money import from_decimal, to_decimal
from groundplan.gateway import database
from groundplan.gateway.budgets.leases import Key, Quota
from groundplan.ledger.model import Release

Connection = AsyncConnection[tuple[Any, ...]]

RECALL_CHANNEL = "groundplan_recall"
"""`NAME PERIOD EPOCH`: that worker is short of it."""
FREED_CHANNEL = "groundplan_freed"
"""`NAME PERIOD`: there is room again where somebody was refused."""

_REGISTER = """INSERT INTO gateway (epoch, host, home, pid) SELECT %s, %s, %s, %s
    WHERE NOT EXISTS (SELECT FROM shipped s WHERE s.epoch = %s AND s.done) ON CONFLICT (epoch) DO NOTHING"""
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
_HELD_OF = """SELECT budget, period, granted_usd FROM budget_slice
    WHERE epoch = %s AND (budget, period) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"""
_PERIODS = """WITH RECURSIVE every (period) AS (
      SELECT min(period) FROM budget_slice WHERE epoch = %(epoch)s
      UNION ALL SELECT (SELECT min(s.period) FROM budget_slice s WHERE s.epoch = %(epoch)s AND s.period > e.period)
        FROM every e WHERE e.period IS NOT NULL)
    SELECT period FROM every WHERE period IS NOT NULL"""
_HELD_IN = "SELECT budget, period, granted_usd FROM budget_slice WHERE epoch = %s AND period = %s"
_TOTALS = """SELECT budget, period, granted_usd FROM budget_period
    WHERE (budget, period) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"""
_HELD_LIMITS = "SELECT name, span, granted, released FROM limit_slice WHERE epoch = %s AND NOT closed"
_OWE = """SELECT a.name, a.span, g.amount FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::numeric[]) WITH ORDINALITY
      AS a(id, name, span, usd, place),
    grant_budget(a.id, %s, a.name, a.span, a.usd, 0, false, a.usd, a.usd, 0, false) AS g ORDER BY a.place"""
_RESTS = """SELECT name, span, amount - granted FROM limit_span
    WHERE (name, span) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"""
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
_TELL_OPEN = (
    """UPDATE budget_slice SET open_usd = %s, open_at = now() WHERE epoch = %s AND budget = %s AND period = %s"""
)
_ELSEWHERE = """SELECT budget, period, sum(open_usd) FROM budget_slice
    WHERE (budget, period) IN (SELECT * FROM unnest(%s::text[], %s::text[])) AND epoch <> %s
      AND open_at > now() - interval '3 seconds' GROUP BY 1, 2"""
MOVE = """INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type) VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (id) DO NOTHING"""
LOCK_PERIOD = "SELECT 1 FROM budget_period WHERE budget = %s AND period = %s FOR UPDATE"
GIVE_BACK = "UPDATE budget_period SET granted_usd = granted_usd - %s WHERE budget = %s AND period = %s"
SHRINK_SLICE = """UPDATE budget_slice SET released_usd = released_usd + %s
    WHERE epoch = %s AND budget = %s AND period = %s"""
_RELEASE = """SELECT 1 FROM budget_period WHERE budget = %(budget)s AND period = %(period)s FOR UPDATE;
    INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type)
      VALUES (%(id)s, %(epoch)s, %(budget)s, %(period)s, %(amount)s, 'release');
    UPDATE budget_period SET granted_usd = granted_usd - %(amount)s WHERE budget = %(budget)s AND period = %(period)s;
    UPDATE budget_slice SET released_usd = released_usd + %(amount)s
      WHERE epoch = %(epoch)s AND budget = %(budget)s AND period = %(period)s"""
"""One message and one transaction, also several of them, which fails where one was told before."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a worker asks for, in picodollars or in the quota's unit.

    `need` is the least that helps anybody, `wanting` what all who wait lack, `headroom` what the next seconds may need.
    """

    need: int
    wanting: int
    headroom: int
    recall: bool
    """Call back what others hold idle where there is nothing."""


@dataclass(frozen=True, slots=True)
class Granted:
    """`rest` is what nobody holds after it; `contested`: others want it too."""

    amount: int
    rest: int
    contested: bool


async def connect(url: str, epoch: UUID, home: Path) -> Connection:
    """A connection of a worker that is known to the database. Raises psycopg.Error."""
    connection = await database.connect(url)
    try:
        await register(connection, epoch, home)
    except BaseException:
        await connection.close()
        raise
    return connection


async def register(connection: Connection, epoch: UUID, home: Path) -> None:
    """From here on the worker is known to the database; whoever of it connects first says so. One that stood still
    until its books were closed, and was forgotten, is none any more."""
    await connection.execute(_REGISTER, (epoch, socket.gethostname(), str(home), os.getpid(), epoch))


async def held(connection: Connection, epoch: UUID, forgotten: Callable[[str], bool]) -> dict[Key, int]:
    """All that was ever granted to this worker of budgets, but for periods that are `forgotten`: of many keys there may
    be one each for every day of months. Calls have a turn after those of each period."""
    rows = []
    for (period,) in await (await connection.execute(_PERIODS, {"epoch": epoch})).fetchall():
        if not forgotten(period):
            rows += await (await connection.execute(_HELD_IN, (epoch, period))).fetchall()
    return _granted(rows)


async def held_of(connection: Connection, epoch: UUID, keys: Sequence[Key]) -> dict[Key, int]:
    """As `held`, of these."""
    names, periods = [name for name, _ in keys], [period for _, period in keys]
    return _granted(await (await connection.execute(_HELD_OF, (epoch, names, periods))).fetchall())


def _granted(rows: Sequence[tuple[Any, ...]]) -> dict[Key, int]:
    """Of (budget, period, USD)."""
    return {(budget, period): from_decimal(amount) for budget, period, amount in rows}


async def held_limits(connection: Connection, epoch: UUID) -> dict[Key, tuple[int, int]]:
    """The same of quotas, where it may still be of use, and what of it was given back."""
    rows = await (await connection.execute(_HELD_LIMITS, (epoch,))).fetchall()
    return {(name, span): (int(granted), int(released)) for name, span, granted, released in rows}


async def owe(connection: Connection, epoch: UUID, debts: Mapping[Key, int]) -> dict[Key, int]:
    """What this worker has used of budgets, or given back, beyond what the database knows to be granted: it is granted
    now, whatever is left, in the order of these. What was granted. The limit of a period that is new there is told by
    the next grant."""
    names, periods = [name for name, _ in debts], [period for _, period in debts]
    asked = ([new_id() for _ in debts], names, periods, [to_decimal(amount) for amount in debts.values()], epoch)
    rows = await (await connection.execute(_OWE, asked)).fetchall()
    return {(name, period): from_decimal(amount) for name, period, amount in rows}


async def totals(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    """What all hold or have spent of each budget."""
    names, periods = [name for name, _ in keys], [period for _, period in keys]
    return _granted(await (await connection.execute(_TOTALS, (names, periods))).fetchall())


async def grant_budgets(
    connection: Connection, epoch: UUID, asks: Sequence[tuple[Budget, str, int, Wish]]
) -> list[Granted]:
    """Ask once for several budgets: (budget, period, number of the blueprint, wish). One statement, and so one commit,
    for all of them; their rows are taken in the order in which they are named. Raises psycopg.Error."""
    columns = [list(column) for column in zip(*(_of_budget(*each) for each in asks), strict=True)]
    rows = await (await connection.execute(_GRANT_BUDGETS, (*columns, epoch))).fetchall()
    return [Granted(from_decimal(amount), from_decimal(rest), bool(contested)) for amount, rest, contested in rows]


def _of_budget(budget: Budget, period: str, number: int, wish: Wish) -> Sequence[Any]:
    amounts = [to_decimal(amount) for amount in (wish.need, wish.wanting, wish.headroom)]
    return (new_id(), budget.name, period, to_decimal(budget.limit), number, budget.hard, *amounts, wish.recall)


async def grant_limits(
    connection: Connection, epoch: UUID, asks: Sequence[tuple[Quota, str, int, Wish]]
) -> list[Granted]:
    """As `grant_budgets`, of limits."""
    asked = [_of_limit(quota, period, number, wish) for quota, period, number, wish in asks]
    columns = [list(column) for column in zip(*asked, strict=True)]
    rows = await (await connection.execute(_GRANT_LIMITS, (*columns, epoch))).fetchall()
    return [Granted(int(amount), int(rest), bool(contested)) for amount, rest, contested in rows]


def _of_limit(quota: Quota, period: str, number: int, wish: Wish) -> Sequence[Any]:
    return (
        quota.name, period, quota.limit, number, str(quota.ends(period)),
        wish.need, wish.wanting, wish.headroom, wish.recall,
    )  # fmt: skip


async def tell_releases(connection: Connection, epoch: UUID, records: Sequence[Release]) -> None:
    """Durable releases of budgets, in the order of these."""
    cursor = AsyncClientCursor(connection)
    said = [cursor.mogrify(_RELEASE, _values(epoch, record)) for record in sorted(records, key=_place)]
    try:
        await cursor.execute(";".join(said).encode())
    except UniqueViolation:  # the shipper told one, or an answer was lost
        for record in records if len(records) > 1 else ():
            await tell_releases(connection, epoch, [record])


def _place(record: Release) -> Key:
    return record.budget, record.period


def _values(epoch: UUID, record: Release) -> dict[str, Any]:
    key = {"budget": record.budget, "period": record.period}
    return {**key, "id": UUID(bytes=record.id), "epoch": epoch, "amount": to_decimal(record.amount)}


async def tell_open(connection: Connection, epoch: UUID, key: Key, amount: int) -> None:
    """What open calls of this worker hold of a budget of which another one is short."""
    await connection.execute(_TELL_OPEN, (to_decimal(amount), epoch, *key))


async def open_elsewhere(connection: Connection, epoch: UUID, keys: Sequence[Key]) -> dict[Key, int]:
    """The same of all other workers that said so a moment ago, of each of these that any hold something of."""
    names, periods = [name for name, _ in keys], [period for _, period in keys]
    return _granted(await (await connection.execute(_ELSEWHERE, (names, periods, epoch))).fetchall())


async def tell_returns(connection: Connection, epoch: UUID, totals: Mapping[Key, int]) -> None:
    """All that this worker ever gave back of each quota in its span."""
    names, spans = [name for name, _ in totals], [span for _, span in totals]
    await connection.execute(_RETURN_LIMITS, (epoch, names, spans, list(totals.values())))


async def clock(connection: Connection) -> float:
    """PostgreSQL's, in seconds since the epoch."""
    row = await (await connection.execute(_CLOCK)).fetchone()
    assert row is not None
    return float(row[0])


async def rests(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    """What nobody holds of each quota."""
    names, spans = [name for name, _ in keys], [span for _, span in keys]
    rows = await (await connection.execute(_RESTS, (names, spans))).fetchall()
    return {(name, span): int(rest) for name, span, rest in rows}
