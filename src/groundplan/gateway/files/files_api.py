"""`/v1/files`: what applications send for their batches or name in their calls, and what batches made for them; each
workload sees its own.

An upload is written while it arrives. Purposes that nothing here serves are refused by name. Batches themselves are
`batches_api`; files in calls `call.files_by_id`.
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
from groundplan.gateway.files import file_store, upload_store
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.files.file_ids import file_id
from groundplan.gateway.files.file_store import Connection, StoredFile
from groundplan.gateway.files.idempotent_creation import IdempotentCreation
from groundplan.gateway.files.quota import Quota
from groundplan.gateway.http import multipart
from groundplan.gateway.http.server import Request, Response

MOST_LISTED = 1000
"""In one page, whatever more is asked for."""
_MOST_ASKED = 10_000
_MOST_FIELD = 64
"""Bytes of a purpose: one that is served is shorter."""
_ANCHOR, _SECONDS, _IN_SECONDS = "expires_after[anchor]", "expires_after[seconds]", "expires_in_seconds"
"""When a file is deleted by itself, in OpenAI's words and in Anthropic's."""
_FIELDS = ("purpose", _ANCHOR, _SECONDS, _IN_SECONDS)
_DAY = 86_400
_MOST_DAYS = {_IN_SECONDS: 90}
_SENT = 7
"""The version of the ids of what callers send."""
PURPOSES = ("batch", *file_store.CONTENT)
"""Of files that are sent."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose files: of a workload; without the results of what others than this person ordered, where one is named."""

    workload: str
    person: str | None = None


def caller_of(gateway: Gateway, workload: str, person: str) -> Caller:
    """Where a workload has sources, what a batch came to rests on what its person may read: it is theirs alone."""
    catalog = gateway.live.catalog
    plan = None if catalog is None else catalog.plans.get(workload)
    return Caller(workload, person if plan is not None and plan.workload.grounding is not None else None)


def query_of(target: bytes) -> dict[str, str]:
    """The parameters behind a path; the last of each name."""
    found = parse_qs(target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
    return {name: values[-1] for name, values in found.items()}


def each_of(target: bytes, names: Sequence[str]) -> list[str]:
    """All values of parameters with one of these names, each once."""
    found = parse_qs(target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
    return list(dict.fromkeys(value for name in names for value in found.get(name, ())))


def page_of(target: bytes, most: int, usual: int, orders: Sequence[str] = ("desc",)) -> tuple[dict[str, str], int]:
    """The parameters of a list and how many are wanted. Raises `Invalid`."""
    query = query_of(target)
    text = query.get("limit", str(usual))
    if len(text) > 9 or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise Invalid(f"limit is {text[:20]!r}", code="limit_range", hint=f"Use 1 to {most}.")
    if query.get("order", "desc") not in orders:
        hint = f"Use one of: {', '.join(orders)}; or leave order out."
        raise Invalid(f"order is {query['order'][:20]!r}", code="field_unsupported", hint=hint)
    return query, int(text)


def check_seconds(field: str, text: str) -> int:
    """For how long files are kept. Raises `Invalid`."""
    days = _MOST_DAYS.get(field, 30)
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    if not 3_600 <= seconds <= days * _DAY:
        hint = f"Use 3600 (an hour) to {days * _DAY} ({days} days)."
        raise Invalid(f"{field} has {text[:20]!r} seconds", code="expires_after_range", hint=hint)
    return seconds


def file_json(file: StoredFile) -> dict[str, Any]:
    """As OpenAI shows a file."""
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
    """A form with `purpose` and one file, written down as it arrives."""

    def __init__(self, blobs: Blobs, once: IdempotentCreation, room: Quota) -> None:
        self._blobs = blobs
        self._once = once
        self._room = room
        self._fields: dict[str, bytes] = {}
        self._filename: str | None = None

    async def keep(self, request: Request, workload: str, at: datetime, usual: str = "") -> StoredFile:
        """What is on the blobs now. `usual`: its purpose, where the form names none. Raises `Invalid`; then nothing
        is."""
        stream = multipart.form_stream(request)
        self._room.expect(request)
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
        self._once.take(b"\0".join((self._filename.encode(), *(self._fields.get(name, b"") for name in _FIELDS))))
        return StoredFile(id, workload, purpose, self._filename, size, at, ends)

    def _ends(self, at: datetime) -> datetime | None:
        """When it is deleted by itself. Raises `Invalid`."""
        if _IN_SECONDS in self._fields:
            field = text = _IN_SECONDS
        elif _SECONDS in self._fields or _ANCHOR in self._fields:
            field, text = "expires_after", _SECONDS
            if self._fields.get(_ANCHOR) != b"created_at":
                hint = "Use created_at."
                raise Invalid("expires_after is counted from something else", code="expires_after_anchor", hint=hint)
        else:
            return None
        return at + timedelta(seconds=check_seconds(field, self._fields.get(text, b"").decode("latin-1")))

    async def _file(self, events: AsyncIterator[multipart.Event]) -> AsyncGenerator[bytes, None]:
        part: multipart.Part | None = None
        async for event in events:
            if isinstance(event, multipart.Part):
                part = event
                self._check(event)
            elif isinstance(event, multipart.Data) and part is not None:
                if part.filename is not None:
                    self._room.take(event.data)
                    self._once.take(event.data)
                    yield event.data
                else:
                    said = self._fields.get(part.name, b"") + event.data
                    self._fields[part.name] = said[:_MOST_FIELD]

    def _check(self, part: multipart.Part) -> None:
        if part.filename is not None and (part.name != "file" or self._filename is not None):
            raise Invalid("there is more than one file", code="file_field", hint="Send one file in the field `file`.")
        if part.filename is not None:
            self._filename = multipart.shorten_filename(part.filename) or "file.jsonl"
        elif part.name not in _FIELDS:
            raise Invalid(f"{part.name} is not supported", code="field_unsupported", hint=f"Leave {part.name} out.")


async def listed(connection: Connection, caller: Caller, target: bytes) -> bytes:
    """`GET /v1/files`"""
    query, asked = page_of(target, _MOST_ASKED, _MOST_ASKED, ("asc", "desc"))
    after, limit = file_id(query["after"]) if "after" in query else None, min(asked, MOST_LISTED)
    newest_first = query.get("order") != "asc"
    found = await file_store.listed(
        connection,
        caller.workload,
        query.get("purpose"),
        after,
        limit + 1,
        newest_first=newest_first,
        person=caller.person,
    )
    return page_json([file_json(file) for file in found[:limit]], more=len(found) > limit)


async def found(connection: Connection, caller: Caller, text: str) -> StoredFile:
    """A file of the caller's workload. Raises `NotFound`."""
    file = await file_store.find(connection, file_id(text), caller.workload, caller.person)
    if file is None:
        raise absent()
    return file


def absent() -> NotFound:
    return NotFound("there is no such file", code="file_not_found", hint="Use an id of GET /v1/files.")


async def delete(connection: Connection, blobs: Blobs, file: StoredFile) -> None:
    """`DELETE /v1/files/ID`. Raises `Conflict`."""
    if not await file_store.delete(connection, file.id):
        raise Conflict("a batch still reads this file", code="file_in_use", hint="Cancel the batch, or wait for it.")
    blobs.path(file.id).unlink(missing_ok=True)


async def sweep(connection: Connection, blobs: Blobs) -> None:
    """Take off the blobs what is over, and what is deleted where whoever deleted it did not: another gateway on the
    same database, or one that was killed in the middle; and what one that was killed wrote down and never entered,
    which nobody can read or delete."""
    kept = await asyncio.to_thread(blobs.kept)
    await file_store.expire(connection)
    await upload_store.forget(connection)
    gone = await file_store.deleted(connection, kept) if kept else []
    # those of another version are made from the ids of batches and orders, and are theirs
    sent = [id for id in kept if id.version == _SENT]
    strays = set(sent) - await file_store.entered(connection, sent) if sent else set()
    for id in (*gone, *(id for id in strays if blobs.is_old(id))):
        blobs.path(id).unlink(missing_ok=True)


def deleted_json(file: StoredFile) -> dict[str, Any]:
    return {"id": f"file-{file.id.hex}", "object": "file", "deleted": True}


async def download(blobs: Blobs, file: StoredFile, response: Response) -> None:
    """`GET /v1/files/ID/content`"""
    kind = b"content-type: application/%b\r\n" % (b"octet-stream" if file.purpose in file_store.CONTENT else b"jsonl")
    await response.send_stream(200, blobs.read(file.id, file.bytes), kind)
