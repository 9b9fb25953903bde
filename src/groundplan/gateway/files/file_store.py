"""The SQL of files that applications sent, or that batches made. Their bytes are in `blobs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from groundplan.gateway.database import Connection

CONTENT = ("user_data", "vision", "assistants")
"""Purposes of files that calls may name."""
MESSAGES = "message_batch"
"""Purpose of files of a message batch, which OpenAI's API does not show."""
PART = "upload_part"
"""Purpose of the parts of an upload."""
MIN_COUNTED_BYTES = 16 << 10
"""What the smallest file counts as: a disk also runs out of files, of which ext4 has room for one in 16 KiB."""
_HIDDEN_PURPOSES = [MESSAGES, PART]
_COLUMNS: LiteralString = "id, workload, purpose, filename, bytes, created_at, expires_at"
_PRESENT: LiteralString = "deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
_VISIBLE: LiteralString = """(%(person)s::text IS NULL OR NOT EXISTS (SELECT FROM batch b
    WHERE api_file.id IN (b.output_file, b.error_file) AND b.person <> '' AND b.person <> %(person)s
      AND (b.grounded OR %(grounded)s)))"""
"""Condition: the file is not a result, from sources, of another person's batch."""
_IN_USE: LiteralString = """EXISTS (SELECT FROM batch b
    WHERE b.input_file = f.id AND b.status IN ('validating', 'in_progress', 'cancelling'))"""
"""Condition: a batch that has not ended reads the file f."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file's row; `bytes` is its length."""

    id: UUID
    workload: str
    purpose: str
    """batch | batch_output | message_batch | upload_part, or one of `CONTENT`"""
    filename: str
    bytes: int
    created_at: datetime
    expires_at: datetime | None = None
    """When it is deleted by itself; None: never."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who wants to read results of batches. `grounded`: whether the workload has sources now, so that any result may be
    from them; otherwise those of batches that were made, or ended, while it had some."""

    person: str
    grounded: bool


def _reader_parameters(reader: Reader | None) -> dict[str, Any]:
    """Parameters of a statement with `_VISIBLE`. None: nothing is hidden."""
    return {"person": reader and reader.person, "grounded": reader is not None and reader.grounded}


async def add(connection: Connection, file: StoredFile, key: UUID | None, upload: UUID | None = None) -> None:
    """Add a file, once by its id. `upload`: the upload of which it is a part."""
    await connection.execute(
        """INSERT INTO api_file (id, workload, key_id, purpose, filename, bytes, created_at, expires_at, upload)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (id) DO UPDATE SET bytes = EXCLUDED.bytes""",
        (
            file.id, file.workload, key, file.purpose, file.filename, file.bytes, file.created_at, file.expires_at,
            upload,
        ),
    )  # fmt: skip


async def find(connection: Connection, id: UUID, workload: str, reader: Reader | None = None) -> StoredFile | None:
    """A file of the workload that is not deleted. `reader`: hide results, from sources, of other persons' batches;
    None: hide none."""
    query: LiteralString = f"""SELECT {_COLUMNS} FROM api_file
        WHERE id = %(id)s AND workload = %(workload)s AND purpose <> ALL(%(not)s) AND {_PRESENT} AND {_VISIBLE}"""
    parameters = {"id": id, "workload": workload, "not": _HIDDEN_PURPOSES, **_reader_parameters(reader)}
    row = await (await connection.execute(query, parameters)).fetchone()
    return None if row is None else StoredFile(*row)


async def size_of(connection: Connection, id: UUID) -> int | None:
    """Length of a file; None where there is none."""
    row = await (await connection.execute("SELECT bytes FROM api_file WHERE id = %s", (id,))).fetchone()
    return None if row is None else int(row[0])


async def list_page(
    connection: Connection,
    workload: str,
    purpose: str | None,
    after: UUID | None,
    limit: int,
    *,
    newest_first: bool,
    reader: Reader | None = None,
) -> list[StoredFile]:
    """At most `limit` files of a workload behind the one with the id `after`; `reader` as in `find`."""
    behind: LiteralString = "id < %(after)s) ORDER BY id DESC" if newest_first else "id > %(after)s) ORDER BY id"
    query: LiteralString = f"""SELECT {_COLUMNS} FROM api_file
        WHERE workload = %(workload)s AND purpose <> ALL(%(not)s) AND {_PRESENT} AND {_VISIBLE}
          AND (%(purpose)s::text IS NULL OR purpose = %(purpose)s)
          AND (%(after)s::uuid IS NULL OR {behind} LIMIT %(limit)s"""
    parameters = {
        "workload": workload, "not": _HIDDEN_PURPOSES, "purpose": purpose, "after": after, "limit": limit,
        **_reader_parameters(reader),
    }  # fmt: skip
    return [StoredFile(*row) for row in await (await connection.execute(query, parameters)).fetchall()]


async def find_many(
    connection: Connection, workload: str, ids: Sequence[UUID], reader: Reader | None
) -> list[StoredFile]:
    """Those of the files `ids` of a workload that are not deleted, newest first; `reader` as in `find`."""
    query: LiteralString = f"""SELECT {_COLUMNS} FROM api_file
        WHERE id = ANY(%(ids)s) AND workload = %(workload)s AND purpose <> ALL(%(not)s) AND {_PRESENT} AND {_VISIBLE}
        ORDER BY id DESC"""
    rows = await connection.execute(
        query, {"ids": list(ids), "workload": workload, "not": _HIDDEN_PURPOSES, **_reader_parameters(reader)}
    )
    return [StoredFile(*row) for row in await rows.fetchall()]


async def lock_for_batch(connection: Connection, id: UUID) -> bool:
    """Lock a file until the end of this transaction, in which a batch is created that reads it; whether it exists."""
    query: LiteralString = f"SELECT FROM api_file WHERE id = %s AND {_PRESENT} FOR KEY SHARE"
    return await (await connection.execute(query, (id,))).fetchone() is not None


async def delete(connection: Connection, id: UUID) -> bool:
    """Mark a file as deleted, and erase its name, unless a batch that has not ended reads it; whether it was marked."""
    return bool(await _mark_deleted(connection, "SELECT f.id FROM api_file f WHERE f.id = %s FOR UPDATE", (id,)))


async def mark_expired(connection: Connection) -> None:
    """Mark expired files as deleted, once no batch reads them."""
    over: LiteralString = f"f.expires_at <= now() AND f.deleted_at IS NULL AND NOT {_IN_USE}"
    await _mark_deleted(connection, f"SELECT f.id FROM api_file f WHERE {over} FOR UPDATE SKIP LOCKED")


async def _mark_deleted(connection: Connection, locked: LiteralString, parameters: Sequence[Any] = ()) -> int:
    """Mark the files that the query `locked` selects and locks, except those that a batch reads; how many. Batches are
    checked after locking, since one that is being created is not visible before."""
    async with connection.transaction():
        ids = [id for (id,) in await (await connection.execute(locked, parameters)).fetchall()]
        if not ids:
            return 0
        query: LiteralString = (
            f"UPDATE api_file f SET deleted_at = now(), filename = '' WHERE f.id = ANY(%s) AND NOT {_IN_USE}"
        )
        return (await connection.execute(query, (ids,))).rowcount


async def stored_bytes(connection: Connection, workload: str, *, alone: bool = False) -> int:
    """Bytes of all files of a workload, each with `MIN_COUNTED_BYTES` at least. `alone`: no other transaction adds one
    until the end of this one."""
    if alone:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 414))", (workload,))
    row = await (
        await connection.execute(
            "SELECT coalesce(sum(greatest(bytes, %s)), 0) FROM api_file WHERE workload = %s AND deleted_at IS NULL",
            (MIN_COUNTED_BYTES, workload),
        )
    ).fetchone()
    return 0 if row is None else int(row[0])


async def find_deleted(connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
    """Those of the files that are marked as deleted; erases their names too, since erasing a person only marks
    them."""
    rows = await connection.execute(
        "UPDATE api_file SET filename = '' WHERE id = ANY(%s) AND deleted_at IS NOT NULL RETURNING id", (list(ids),)
    )
    return [id for (id,) in await rows.fetchall()]


async def known_ids(connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Those of the ids that are in the database, deleted files included."""
    rows = await connection.execute("SELECT id FROM api_file WHERE id = ANY(%s)", (list(ids),))
    return {id for (id,) in await rows.fetchall()}
