"""The SQL with which a worker is granted slices of budgets and limits, and gives them back.

A grant is one statement, so nothing is held open while a worker is stopped. Returns of a budget count once by their
id, those of a limit by their total. When and how much to ask for is `lease_client`'s business.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

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

# A worker that is stopped (SIGSTOP, a frozen machine) in the middle of a transaction must not keep others from the row.
_NO_IDLE_TRANSACTION = "SET idle_in_transaction_session_timeout = '250ms'"
_REGISTER = "INSERT INTO gateway (epoch, host, home, pid) VALUES (%s, %s, %s, %s) ON CONFLICT (epoch) DO NOTHING"
_GRANT_BUDGET = "SELECT amount, rest, contested FROM grant_budget(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
_GRANT_LIMIT = "SELECT amount, rest, contested FROM grant_limit(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
_RETURN_LIMIT = "SELECT return_limit(%s, %s, %s, %s)"
_HELD = """SELECT budget, period, granted_usd FROM budget_slice WHERE epoch = %s"""
_TOTALS = """SELECT budget, period, granted_usd FROM budget_period
    WHERE (budget, period) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"""
_HELD_LIMITS = "SELECT name, span, granted FROM limit_slice WHERE epoch = %s AND NOT closed"
_RESTS = """SELECT name, span, amount - granted FROM limit_span
    WHERE (name, span) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"""
_TELL_OPEN = (
    """UPDATE budget_slice SET open_usd = %s, open_at = now() WHERE epoch = %s AND budget = %s AND period = %s"""
)
_ELSEWHERE = """SELECT coalesce(sum(open_usd), 0) FROM budget_slice
    WHERE budget = %s AND period = %s AND epoch <> %s AND open_at > now() - interval '3 seconds'"""
MOVE = """INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type) VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (id) DO NOTHING"""
LOCK_PERIOD = "SELECT 1 FROM budget_period WHERE budget = %s AND period = %s FOR UPDATE"
GIVE_BACK = "UPDATE budget_period SET granted_usd = granted_usd - %s WHERE budget = %s AND period = %s"
SHRINK_SLICE = """UPDATE budget_slice SET released_usd = released_usd + %s
    WHERE epoch = %s AND budget = %s AND period = %s"""


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
        await connection.execute(_NO_IDLE_TRANSACTION)
        await connection.execute(_REGISTER, (epoch, socket.gethostname(), str(home), os.getpid()))
    except BaseException:
        await connection.close()
        raise
    return connection


async def held(connection: Connection, epoch: UUID) -> list[tuple[Key, int]]:
    """All that was ever granted to this worker and may still be of use."""
    budgets = await (await connection.execute(_HELD, (epoch,))).fetchall()
    limits = await (await connection.execute(_HELD_LIMITS, (epoch,))).fetchall()
    found = [((budget, period), from_decimal(amount)) for budget, period, amount in budgets]
    return found + [((name, span), int(amount)) for name, span, amount in limits]


async def totals(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    """What all hold or have spent of each budget."""
    names, periods = [name for name, _ in keys], [period for _, period in keys]
    rows = await (await connection.execute(_TOTALS, (names, periods))).fetchall()
    return {(name, period): from_decimal(granted) for name, period, granted in rows}


async def grant(
    connection: Connection, epoch: UUID, declared: Budget | Quota, period: str, blueprint: int, wish: Wish
) -> Granted:
    """Ask once. Raises psycopg.Error."""
    if isinstance(declared, Quota):
        asked = _of_limit(epoch, declared, period, blueprint, wish)
        row = await (await connection.execute(_GRANT_LIMIT, asked)).fetchone()
        assert row is not None
        return Granted(int(row[0]), int(row[1]), bool(row[2]))
    amounts = [to_decimal(amount) for amount in (wish.need, wish.wanting, wish.headroom)]
    asked = (
        new_id(), epoch, declared.name, period, to_decimal(declared.limit), blueprint, declared.hard, *amounts,
        wish.recall,
    )  # fmt: skip
    row = await (await connection.execute(_GRANT_BUDGET, asked)).fetchone()
    assert row is not None
    return Granted(from_decimal(row[0]), from_decimal(row[1]), bool(row[2]))


async def grant_limits(
    connection: Connection, epoch: UUID, asks: Sequence[tuple[Quota, str, int, Wish]]
) -> list[Granted]:
    """Ask once for several limits: (quota, period, number of the blueprint, wish). One commit for all of them, in which
    their rows are taken in the order in which they are named. Raises psycopg.Error."""
    async with connection.pipeline():
        cursors = [
            await connection.execute(_GRANT_LIMIT, _of_limit(epoch, quota, period, number, wish))
            for quota, period, number, wish in asks
        ]
    rows = [await cursor.fetchone() for cursor in cursors]
    return [Granted(int(row[0]), int(row[1]), bool(row[2])) for row in rows if row is not None]


def _of_limit(epoch: UUID, quota: Quota, period: str, number: int, wish: Wish) -> Sequence[Any]:
    return (
        epoch, quota.name, period, quota.limit, number, quota.ends(period),
        wish.need, wish.wanting, wish.headroom, wish.recall,
    )  # fmt: skip


async def tell_release(connection: Connection, epoch: UUID, record: Release) -> None:
    """A durable release of a budget, in one short transaction."""
    key, amount = (record.budget, record.period), to_decimal(record.amount)
    async with connection.transaction():
        await connection.execute(LOCK_PERIOD, key)
        moved = await connection.execute(MOVE, (UUID(bytes=record.id), epoch, *key, amount, "release"))
        if moved.rowcount == 1:
            await connection.execute(GIVE_BACK, (amount, *key))
            await connection.execute(SHRINK_SLICE, (amount, epoch, *key))


async def tell_open(connection: Connection, epoch: UUID, key: Key, amount: int) -> None:
    """What open calls of this worker hold of a budget of which another one is short."""
    await connection.execute(_TELL_OPEN, (to_decimal(amount), epoch, *key))


async def open_elsewhere(connection: Connection, epoch: UUID, key: Key) -> int:
    """The same of all other workers that said so a moment ago."""
    row = await (await connection.execute(_ELSEWHERE, (*key, epoch))).fetchone()
    return 0 if row is None else from_decimal(row[0])


async def tell_return(connection: Connection, epoch: UUID, key: Key, total: int) -> None:
    """All that this worker ever gave back of a quota in this span."""
    await connection.execute(_RETURN_LIMIT, (epoch, *key, total))


async def rests(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    """What nobody holds of each quota."""
    names, spans = [name for name, _ in keys], [span for _, span in keys]
    rows = await (await connection.execute(_RESTS, (names, spans))).fetchall()
    return {(name, span): int(rest) for name, span, rest in rows}
