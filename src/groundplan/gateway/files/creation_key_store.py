"""The SQL of an `Idempotency-Key` at what is made in PostgreSQL: which batch or file its request made, for a day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from groundplan.gateway.batches.batch_store import Connection
from groundplan.gateway.caching.idempotency import forgotten_error, mismatch_error

_DAY: LiteralString = "interval '1 day'"


@dataclass(frozen=True, slots=True)
class OrderKey:
    """Digests of the key with its caller, and of what is asked with it."""

    digest: bytes
    asked: bytes


async def made(connection: Connection, key: OrderKey) -> UUID | None:
    """What was made for it; None: nothing. Raises `Conflict` where something else was asked."""
    row = await (
        await connection.execute(
            f"SELECT asked, made FROM order_key WHERE digest = %s AND at > now() - {_DAY}", (key.digest,)
        )
    ).fetchone()
    if row is not None and bytes(row[0]) != key.asked:
        raise mismatch_error()
    return None if row is None else row[1]


async def known(connection: Connection, digest: bytes) -> bool:
    """Whether anything was made for a key of this digest."""
    row = await (
        await connection.execute(
            f"SELECT EXISTS (SELECT FROM order_key WHERE digest = %s AND at > now() - {_DAY})", (digest,)
        )
    ).fetchone()
    return row is not None and bool(row[0])


async def take(connection: Connection, key: OrderKey | None, id: UUID) -> UUID:
    """Note that this is made for it, in the transaction that makes it; what it was is told where something was made
    meanwhile. Raises `Conflict`."""
    if key is None:
        return id
    taken = await connection.execute(
        f"""INSERT INTO order_key AS k (digest, asked, made) VALUES (%s, %s, %s)
            ON CONFLICT (digest) DO UPDATE SET asked = EXCLUDED.asked, made = EXCLUDED.made, at = now()
            WHERE k.at <= now() - {_DAY}""",
        (key.digest, key.asked, id),
    )
    if taken.rowcount == 1:
        return id
    before = await made(connection, key)
    if before is None:
        raise forgotten_error()
    return before


async def forget(connection: Connection) -> None:
    """Those that are older."""
    await connection.execute(f"DELETE FROM order_key WHERE at <= now() - {_DAY}")
