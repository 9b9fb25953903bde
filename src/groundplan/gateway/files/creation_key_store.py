"""The SQL of `Idempotency-Key` for batches and files: which one a request created, for a day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from groundplan.gateway.caching.idempotency import forgotten_error, mismatch_error
from groundplan.gateway.database import Connection

_DAY: LiteralString = "interval '1 day'"


@dataclass(frozen=True, slots=True)
class CreationKey:
    """The digests of an Idempotency-Key with its client (`digest`), and of the request."""

    digest: bytes
    request_digest: bytes


async def find_created(connection: Connection, key: CreationKey) -> UUID | None:
    """Id of what was created for the key; None: nothing. Raises `Conflict` where the request was another one."""
    row = await (
        await connection.execute(
            f"SELECT asked, made FROM order_key WHERE digest = %s AND at > now() - {_DAY}", (key.digest,)
        )
    ).fetchone()
    if row is not None and bytes(row[0]) != key.request_digest:
        raise mismatch_error()
    return None if row is None else row[1]


async def is_known(connection: Connection, digest: bytes) -> bool:
    """Whether anything was created for a key with this digest."""
    row = await (
        await connection.execute(
            f"SELECT EXISTS (SELECT FROM order_key WHERE digest = %s AND at > now() - {_DAY})", (digest,)
        )
    ).fetchone()
    return row is not None and bool(row[0])


async def claim(connection: Connection, key: CreationKey | None, id: UUID) -> UUID:
    """Record `id` as created for the key, in the transaction that creates it. Returns `id`, or the id of what was
    created for the key meanwhile. Raises `Conflict`."""
    if key is None:
        return id
    taken = await connection.execute(
        f"""INSERT INTO order_key AS k (digest, asked, made) VALUES (%s, %s, %s)
            ON CONFLICT (digest) DO UPDATE SET asked = EXCLUDED.asked, made = EXCLUDED.made, at = now()
            WHERE k.at <= now() - {_DAY}""",
        (key.digest, key.request_digest, id),
    )
    if taken.rowcount == 1:
        return id
    before = await find_created(connection, key)
    if before is None:
        raise forgotten_error()
    return before


async def forget(connection: Connection) -> None:
    """Delete keys that are older than a day."""
    await connection.execute(f"DELETE FROM order_key WHERE at <= now() - {_DAY}")
