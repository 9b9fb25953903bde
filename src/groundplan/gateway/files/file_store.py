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
PART = "upload_part"
"""Purpose of what another file is made of."""
_HIDDEN = [MESSAGES, PART]
_COLUMNS: LiteralString = "id, workload, purpose, filename, bytes, created_at, expires_at"
_KEPT: LiteralString = "deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
_OWN: LiteralString = """(%(person)s::text IS NULL OR NOT EXISTS (SELECT FROM batch b
    WHERE api_file.id IN (b.output_file, b.error_file) AND b.person <> '' AND b.person <> %(person)s))"""
"""Whether a file is none of the results of somebody else's batch."""
_READ: LiteralString = """EXISTS (SELECT FROM batch b
    WHERE b.input_file = f.id AND b.status IN ('validating', 'in_progress', 'cancelling'))"""
"""Whether a batch that has not ended reads the file f."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """`bytes` is its length."""

    id: UUID
    workload: str
    purpose: str
    """batch | batch_output | message_batch | upload_part, or one of `CONTENT`"""
    filename: str
    bytes: int
    created_at: datetime
    expires_at: datetime | None = None
    """None: it is kept until it is deleted."""


async def add(connection: Connection, file: StoredFile, key: UUID | None, upload: UUID | None = None) -> None:
    """Once by its id. `upload`: of which it is a part."""
    await connection.execute(
        """INSERT INTO api_file (id, workload, key_id, purpose, filename, bytes, created_at, expires_at, upload)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (id) DO UPDATE SET bytes = EXCLUDED.bytes""",
        (
            file.id, file.workload, key, file.purpose, file.filename, file.bytes, file.created_at, file.expires_at,
            upload,
        ),
    )  # fmt: skip


async def find(connection: Connection, id: UUID, workload: str, person: str | None = None) -> StoredFile | None:
    """A file of that workload which is not deleted. `person`: without the results of what others ordered; None: with
    them."""
    query: LiteralString = f"""SELECT {_COLUMNS} FROM api_file
        WHERE id = %(id)s AND workload = %(workload)s AND purpose <> ALL(%(not)s) AND {_KEPT} AND {_OWN}"""
    named = {"id": id, "workload": workload, "not": _HIDDEN, "person": person}
    row = await (await connection.execute(query, named)).fetchone()
    return None if row is None else StoredFile(*row)


async def size_of(connection: Connection, id: UUID) -> int | None:
    """How long it is; None where there is none."""
    row = await (await connection.execute("SELECT bytes FROM api_file WHERE id = %s", (id,))).fetchone()
    return None if row is None else int(row[0])


async def listed(
    connection: Connection,
    workload: str,
    purpose: str | None,
    after: UUID | None,
    limit: int,
    *,
    newest_first: bool,
    person: str | None = None,
) -> list[StoredFile]:
    """Files of a workload in that order, behind the one with the id `after`; `person` as of `find`."""
    behind: LiteralString = "id < %(after)s) ORDER BY id DESC" if newest_first else "id > %(after)s) ORDER BY id"
    query: LiteralString = f"""SELECT {_COLUMNS} FROM api_file
        WHERE workload = %(workload)s AND purpose <> ALL(%(not)s) AND {_KEPT} AND {_OWN}
          AND (%(purpose)s::text IS NULL OR purpose = %(purpose)s)
          AND (%(after)s::uuid IS NULL OR {behind} LIMIT %(limit)s"""
    named = {
        "workload": workload, "not": _HIDDEN, "purpose": purpose, "after": after, "limit": limit, "person": person
    }  # fmt: skip
    return [StoredFile(*row) for row in await (await connection.execute(query, named)).fetchall()]


async def named(
    connection: Connection, workload: str, ids: Sequence[UUID], person: str | None = None
) -> list[StoredFile]:
    """Those of these files of a workload that are not deleted, the newest first; `person` as of `find`."""
    query: LiteralString = f"""SELECT {_COLUMNS} FROM api_file
        WHERE id = ANY(%(ids)s) AND workload = %(workload)s AND purpose <> ALL(%(not)s) AND {_KEPT} AND {_OWN}
        ORDER BY id DESC"""
    rows = await connection.execute(query, {"ids": list(ids), "workload": workload, "not": _HIDDEN, "person": person})
    return [StoredFile(*row) for row in await rows.fetchall()]


async def hold(connection: Connection, id: UUID) -> bool:
    """Whether it is there, and stays until the end of this transaction, in which a batch is ordered that reads it."""
    query: LiteralString = f"SELECT FROM api_file WHERE id = %s AND {_KEPT} FOR KEY SHARE"
    return await (await connection.execute(query, (id,))).fetchone() is not None


async def delete(connection: Connection, id: UUID) -> bool:
    """Mark it as deleted, and forget its name, unless a batch that has not ended reads it; whether it is."""
    return bool(await _mark(connection, "SELECT f.id FROM api_file f WHERE f.id = %s FOR UPDATE", (id,)))


async def expire(connection: Connection) -> None:
    """Mark as deleted whose time is over, once no batch reads them."""
    over: LiteralString = f"f.expires_at <= now() AND f.deleted_at IS NULL AND NOT {_READ}"
    await _mark(connection, f"SELECT f.id FROM api_file f WHERE {over} FOR UPDATE SKIP LOCKED")


async def _mark(connection: Connection, locked: LiteralString, parameters: Sequence[Any] = ()) -> int:
    """Those that are locked, but for what a batch reads: whether one does is looked at only then, since one that is
    ordered at this moment is not seen before. How many."""
    async with connection.transaction():
        ids = [id for (id,) in await (await connection.execute(locked, parameters)).fetchall()]
        if not ids:
            return 0
        query: LiteralString = (
            f"UPDATE api_file f SET deleted_at = now(), filename = '' WHERE f.id = ANY(%s) AND NOT {_READ}"
        )
        return (await connection.execute(query, (ids,))).rowcount


async def stored(connection: Connection, workload: str, *, alone: bool = False) -> int:
    """Bytes of all files of a workload. `alone`: nobody else adds one until the end of this transaction."""
    if alone:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 414))", (workload,))
    row = await (
        await connection.execute(
            "SELECT coalesce(sum(bytes), 0) FROM api_file WHERE workload = %s AND deleted_at IS NULL", (workload,)
        )
    ).fetchone()
    return 0 if row is None else int(row[0])


async def deleted(connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
    """Those of these files that are marked as deleted, of which the names are forgotten, too: whoever erases a person
    may only mark them."""
    rows = await connection.execute(
        "UPDATE api_file SET filename = '' WHERE id = ANY(%s) AND deleted_at IS NOT NULL RETURNING id", (list(ids),)
    )
    return [id for (id,) in await rows.fetchall()]


async def entered(connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Those of these files that are known here, also as deleted."""
    rows = await connection.execute("SELECT id FROM api_file WHERE id = ANY(%s)", (list(ids),))
    return {id for (id,) in await rows.fetchall()}
