"""`/v1/files`: files that applications send for batches or name in calls, and results of batches; each workload sees
its own.

An upload is written while it arrives. Purposes that nothing here serves are refused by name. Batches are in
`batches_api`, files in calls in `call.files_by_id`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import msgspec

from groundplan.core.errors import Conflict, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.database import Connection
from groundplan.gateway.files import file_store, upload_store
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.files.file_ids import file_id
from groundplan.gateway.files.file_store import Reader, StoredFile
from groundplan.gateway.files.idempotent_creation import IdempotentCreation
from groundplan.gateway.files.quota import Quota
from groundplan.gateway.http import multipart
from groundplan.gateway.http.server import Request, Response

MAX_LISTED = 1000
"""Most files in one page, whatever `limit` says."""
_MAX_LIMIT = 10_000
_MAX_FIELD_BYTES = 64
"""Bytes of a form field that are kept: every valid value is shorter."""
_ANCHOR, _SECONDS, _IN_SECONDS = "expires_after[anchor]", "expires_after[seconds]", "expires_in_seconds"
"""Form fields for the expiry of a file, of OpenAI's API and of Anthropic's."""
_FIELDS = ("purpose", _ANCHOR, _SECONDS, _IN_SECONDS)
_DAY = 86_400
_MAX_DAYS = {_IN_SECONDS: 90}
_UPLOAD_ID_VERSION = 7
"""UUID version of the ids of uploaded files; those of batch results have another."""
PURPOSES = ("batch", *file_store.CONTENT)
"""Purposes of files that callers may send."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose files may be seen: those of a workload; with a `reader` not all results of other persons' batches."""

    workload: str
    reader: Reader | None = None


def is_grounded(gateway: Gateway, workload: str) -> bool:
    """Whether the workload has sources now."""
    catalog = gateway.live.catalog
    plan = None if catalog is None else catalog.plans.get(workload)
    return plan is not None and plan.workload.grounding is not None


def caller_for(gateway: Gateway, workload: str, person: str) -> Caller:
    """The `Caller` of a request. Where a workload has sources, or had some, results of a batch depend on what its
    person may read, so only that person may see them."""
    return Caller(workload, Reader(person, is_grounded(gateway, workload)))


def query_of(target: bytes) -> dict[str, str]:
    """The query parameters of a request's target; the last value of each name."""
    values_by_name = parse_qs(target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
    return {name: values[-1] for name, values in values_by_name.items()}


def query_values(target: bytes, names: Sequence[str]) -> list[str]:
    """All values of the query parameters `names`, each once."""
    values_by_name = parse_qs(target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
    return list(dict.fromkeys(value for name in names for value in values_by_name.get(name, ())))


def page_query(target: bytes, most: int, usual: int, orders: Sequence[str] = ("desc",)) -> tuple[dict[str, str], int]:
    """(query parameters, limit) of a list. `usual`: the default limit. Raises `Invalid`."""
    query = query_of(target)
    text = query.get("limit", str(usual))
    if len(text) > 9 or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise Invalid(f"limit is {text[:20]!r}", code="limit_range", hint=f"Use 1 to {most}.")
    if query.get("order", "desc") not in orders:
        hint = f"Use one of: {', '.join(orders)}; or leave order out."
        raise Invalid(f"order is {query['order'][:20]!r}", code="field_unsupported", hint=hint)
    return query, int(text)


def parse_seconds(field: str, text: str) -> int:
    """Parse the time until a file expires. Raises `Invalid`."""
    days = _MAX_DAYS.get(field, 30)
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    if not 3_600 <= seconds <= days * _DAY:
        hint = f"Use 3600 (an hour) to {days * _DAY} ({days} days)."
        raise Invalid(f"{field} has {text[:20]!r} seconds", code="expires_after_range", hint=hint)
    return seconds


def file_json(file: StoredFile) -> dict[str, Any]:
    """A file in OpenAI's shape."""
    return {
        "id": f"file-{file.id.hex}",
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at.timestamp()),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "expires_at": None if file.expires_at is None else int(file.expires_at.timestamp()),
    }


def page_json(items: list[dict[str, Any]], *, more: bool) -> bytes:
    ids = [item["id"] for item in items]
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    return msgspec.json.encode({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": more})


class Upload:
    """The upload of a form with `purpose` and one file, written to disk as it arrives."""

    def __init__(self, blobs: Blobs, once: IdempotentCreation, room: Quota) -> None:
        self._blobs = blobs
        self._once = once
        self._room = room
        self._fields: dict[str, bytes] = {}
        self._filename: str | None = None

    async def keep(self, request: Request, workload: str, at: datetime, usual: str = "") -> StoredFile:
        """Write the file of the form. `usual`: the purpose where the form names none. Raises `Invalid`; then nothing
        remains."""
        stream = multipart.form_stream(request)
        self._room.check_announced(request)
        id = new_id()
        events = multipart.form_events(stream, request.headers.get(b"content-type"))
        size = await self._blobs.keep(id, self._file(events))
        purpose = self._fields.get("purpose", usual.encode()).decode("latin-1")
        if self._filename is None or purpose not in PURPOSES:
            self._blobs.path(id).unlink(missing_ok=True)
            if self._filename is None:
                raise Invalid("there is no file in the form", code="file_missing", hint="Send a field named file.")
            hint = f"Use one of: {', '.join(PURPOSES)}"
            raise Invalid(f"the purpose {purpose[:40]!r} is not served", code="purpose_unsupported", hint=hint)
        try:
            ends = self._ends(at)
        except Invalid:
            self._blobs.path(id).unlink(missing_ok=True)
            raise
        self._once.add(b"\0".join((self._filename.encode(), *(self._fields.get(name, b"") for name in _FIELDS))))
        return StoredFile(id, workload, purpose, self._filename, size, at, ends)

    def _ends(self, at: datetime) -> datetime | None:
        """When the file is deleted by itself. Raises `Invalid`."""
        if _IN_SECONDS in self._fields:
            field = text = _IN_SECONDS
        elif _SECONDS in self._fields or _ANCHOR in self._fields:
            field, text = "expires_after", _SECONDS
            if self._fields.get(_ANCHOR) != b"created_at":
                hint = "Use created_at."
                raise Invalid("expires_after is counted from something else", code="expires_after_anchor", hint=hint)
        else:
            return None
        return at + timedelta(seconds=parse_seconds(field, self._fields.get(text, b"").decode("latin-1")))

    async def _file(self, events: AsyncIterator[multipart.Event]) -> AsyncGenerator[bytes, None]:
        part: multipart.Part | None = None
        async for event in events:
            if isinstance(event, multipart.Part):
                part = event
                self._check(event)
            elif isinstance(event, multipart.Data) and part is not None:
                if part.filename is not None:
                    self._room.add(event.data)
                    self._once.add(event.data)
                    yield event.data
                else:
                    value = self._fields.get(part.name, b"") + event.data
                    self._fields[part.name] = value[:_MAX_FIELD_BYTES]

    def _check(self, part: multipart.Part) -> None:
        if part.filename is not None and (part.name != "file" or self._filename is not None):
            raise Invalid("there is more than one file", code="file_field", hint="Send one file in the field `file`.")
        if part.filename is not None:
            self._filename = multipart.shorten_filename(part.filename) or "file.jsonl"
        elif part.name not in _FIELDS:
            raise Invalid(f"{part.name} is not supported", code="field_unsupported", hint=f"Leave {part.name} out.")


async def list_files(connection: Connection, caller: Caller, target: bytes) -> bytes:
    """`GET /v1/files`"""
    query, requested_limit = page_query(target, _MAX_LIMIT, _MAX_LIMIT, ("asc", "desc"))
    after, limit = file_id(query["after"]) if "after" in query else None, min(requested_limit, MAX_LISTED)
    newest_first = query.get("order") != "asc"
    files = await file_store.list_page(
        connection,
        caller.workload,
        query.get("purpose"),
        after,
        limit + 1,
        newest_first=newest_first,
        reader=caller.reader,
    )
    return page_json([file_json(file) for file in files[:limit]], more=len(files) > limit)


async def find_file(connection: Connection, caller: Caller, text: str) -> StoredFile:
    """A file of the caller's workload. Raises `NotFound`."""
    file = await file_store.find(connection, file_id(text), caller.workload, caller.reader)
    if file is None:
        raise file_not_found()
    return file


def file_not_found() -> NotFound:
    return NotFound("there is no such file", code="file_not_found", hint="Use an id of GET /v1/files.")


async def delete(connection: Connection, blobs: Blobs, file: StoredFile) -> None:
    """`DELETE /v1/files/ID`. Raises `Conflict`."""
    if not await file_store.delete(connection, file.id):
        raise Conflict("a batch still reads this file", code="file_in_use", hint="Cancel the batch, or wait for it.")
    blobs.path(file.id).unlink(missing_ok=True)


async def remove_deleted(connection: Connection, blobs: Blobs) -> None:
    """Remove from disk the files that expired, those whose deletion was not finished here (by another gateway on the
    same database, or one that was killed), and those that a killed gateway wrote without adding their rows."""
    kept = await asyncio.to_thread(blobs.kept)
    await file_store.mark_expired(connection)
    await upload_store.delete_expired(connection)
    deleted = await file_store.find_deleted(connection, kept) if kept else []
    # ids of another version are derived from those of batches and orders, which manage these files
    sent = [id for id in kept if id.version == _UPLOAD_ID_VERSION]
    strays = set(sent) - await file_store.known_ids(connection, sent) if sent else set()
    for id in (*deleted, *(id for id in strays if blobs.is_old(id))):
        blobs.path(id).unlink(missing_ok=True)


def deleted_json(file: StoredFile) -> dict[str, Any]:
    return {"id": f"file-{file.id.hex}", "object": "file", "deleted": True}


async def download(blobs: Blobs, file: StoredFile, response: Response) -> None:
    """`GET /v1/files/ID/content`"""
    kind = b"content-type: application/%b\r\n" % (b"octet-stream" if file.purpose in file_store.CONTENT else b"jsonl")
    await response.send_stream(200, blobs.read(file.id, file.bytes), kind)
