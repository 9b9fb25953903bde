"""The SQL of files that applications sent, or that batches made. Their bytes are elsewhere (`files_api`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection

Connection = AsyncConnection[tuple[Any, ...]]

CONTENT = ("user_data", "vision", "assistants")
"""Purposes of files that calls may name."""
MESSAGES = "message_batch"
"""Purpose of what belongs to a message batch: no file of OpenAI's API."""
_COLUMNS: LiteralString = "id, workload, purpose, filename, bytes, created_at"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """`bytes` is its length."""

    id: UUID
    workload: str
    purpose: str
    """batch | batch_output | message_batch, or one of `CONTENT`"""
    filename: str
    bytes: int
    created_at: datetime


async def add(connection: Connection, file: StoredFile, key: UUID | None) -> None:
    """Once by its id."""
    await connection.execute(
        """INSERT INTO api_file (id, workload, key_id, purpose, filename, bytes, created_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (id) DO UPDATE SET bytes = EXCLUDED.bytes""",
        (file.id, file.workload, key, file.purpose, file.filename, file.bytes, file.created_at),
    )


async def find(connection: Connection, id: UUID, workload: str) -> StoredFile | None:
    """A file of that workload which is not deleted."""
    query: LiteralString = (
        f"SELECT {_COLUMNS} FROM api_file WHERE id = %s AND workload = %s AND purpose <> %s AND deleted_at IS NULL"
    )
    row = await (await connection.execute(query, (id, workload, MESSAGES))).fetchone()
    return None if row is None else StoredFile(*row)


async def listed(
    connection: Connection, workload: str, purpose: str | None, after: UUID | None, limit: int, *, newest_first: bool
) -> list[StoredFile]:
    """Files of a workload in that order, behind the one with the id `after`."""
    behind: LiteralString = "id < %s) ORDER BY id DESC" if newest_first else "id > %s) ORDER BY id"
    query: LiteralString = (
        f"SELECT {_COLUMNS} FROM api_file WHERE workload = %s AND purpose <> %s AND deleted_at IS NULL"
        f" AND (%s::text IS NULL OR purpose = %s) AND (%s::uuid IS NULL OR {behind} LIMIT %s"
    )
    rows = await connection.execute(query, (workload, MESSAGES, purpose, purpose, after, after, limit))
    return [StoredFile(*row) for row in await rows.fetchall()]


async def named(connection: Connection, workload: str, ids: Sequence[UUID]) -> list[StoredFile]:
    """Those of these files of a workload that are not deleted, the newest first."""
    query: LiteralString = (
        f"SELECT {_COLUMNS} FROM api_file WHERE id = ANY(%s) AND workload = %s AND purpose <> %s"
        " AND deleted_at IS NULL ORDER BY id DESC"
    )
    rows = await connection.execute(query, (list(ids), workload, MESSAGES))
    return [StoredFile(*row) for row in await rows.fetchall()]


async def delete(connection: Connection, id: UUID) -> bool:
    """Mark it as deleted, unless a batch that has not ended reads it; whether it is."""
    done = await connection.execute(
        """UPDATE api_file f SET deleted_at = now() WHERE f.id = %s AND NOT EXISTS (SELECT 1 FROM batch b
             WHERE b.input_file = f.id AND b.status IN ('validating', 'in_progress', 'cancelling'))""",
        (id,),
    )
    return done.rowcount == 1


async def deleted(connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
    """Those of these files that are marked as deleted."""
    rows = await connection.execute(
        "SELECT id FROM api_file WHERE id = ANY(%s) AND deleted_at IS NOT NULL", (list(ids),)
    )
    return [id for (id,) in await rows.fetchall()]
