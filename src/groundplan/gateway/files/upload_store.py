"""The SQL of uploads in parts. The parts are files themselves (`file_store`), which callers cannot name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from groundplan.gateway.database import Connection

PENDING, COMPLETED, CANCELLED = "pending", "completed", "cancelled"
_COLUMNS: LiteralString = "id, workload, filename, purpose, bytes, created_at, expires_at, seconds, status, file"


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload's row. `bytes`: length of the whole file; `seconds`: time until the file is deleted by itself; `file`:
    id of the file, once completed."""

    id: UUID
    workload: str
    filename: str
    purpose: str
    bytes: int
    created_at: datetime
    expires_at: datetime
    seconds: int | None
    status: str = PENDING
    file: UUID | None = None


async def add(connection: Connection, upload: Upload, key: UUID) -> None:
    await connection.execute(
        """INSERT INTO api_upload (id, workload, key_id, filename, purpose, bytes, created_at, expires_at, seconds)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            upload.id, upload.workload, key, upload.filename, upload.purpose, upload.bytes, upload.created_at,
            upload.expires_at, upload.seconds,
        ),
    )  # fmt: skip


async def find(connection: Connection, id: UUID, workload: str, *, lock: bool = False) -> Upload | None:
    """An upload of the workload. `lock`: no other transaction changes it until the end of this one."""
    query: LiteralString = f"SELECT {_COLUMNS} FROM api_upload WHERE id = %s AND workload = %s"
    row = await (await connection.execute(query + (" FOR UPDATE" if lock else ""), (id, workload))).fetchone()
    return None if row is None else Upload(*row)


async def parts(connection: Connection, id: UUID) -> dict[UUID, int]:
    """Length of each part that was received, by id."""
    rows = await connection.execute("SELECT id, bytes FROM api_file WHERE upload = %s AND deleted_at IS NULL", (id,))
    return dict(await rows.fetchall())


async def finish(connection: Connection, id: UUID, status: str, file: UUID | None = None) -> list[UUID]:
    """Set the final status of an upload, and mark its parts as deleted; returns their ids."""
    await connection.execute("UPDATE api_upload SET status = %s, file = %s WHERE id = %s", (status, file, id))
    rows = await connection.execute(
        "UPDATE api_file SET deleted_at = now() WHERE upload = %s AND deleted_at IS NULL RETURNING id", (id,)
    )
    return [part for (part,) in await rows.fetchall()]


async def delete_expired(connection: Connection) -> None:
    """Delete uploads that expired an hour ago; the files made of them stay."""
    await connection.execute("DELETE FROM api_upload WHERE expires_at < now() - interval '1 hour'")
