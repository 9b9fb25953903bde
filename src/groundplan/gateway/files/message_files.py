"""`/v1/files` in Anthropic's shapes: the same files, for clients that send `anthropic-version`.

Files that are uploaded this way may be named in calls.
"""

from __future__ import annotations

import mimetypes
from datetime import UTC, datetime
from typing import Any

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.database import Connection
from groundplan.gateway.files import file_store, files_api
from groundplan.gateway.files.file_ids import file_id, known_id
from groundplan.gateway.files.file_store import StoredFile
from groundplan.gateway.files.files_api import Caller

PURPOSE = "user_data"
_PAGE = "page_"
_UNSUPPORTED = ("before_id", "scope_id")
_IDS = ("ids", "ids[]")
MAX_IDS = 100


def file_json(file: StoredFile) -> dict[str, Any]:
    return {
        "id": f"file-{file.id.hex}",
        "type": "file",
        "filename": file.filename,
        "mime_type": mimetypes.guess_type(file.filename)[0] or "application/octet-stream",
        "size_bytes": file.bytes,
        "created_at": _time(file.created_at),
        "expires_at": None if file.expires_at is None else _time(file.expires_at),
        "downloadable": True,
    }


def deleted_json(file: StoredFile) -> dict[str, Any]:
    return {"id": f"file-{file.id.hex}", "type": "file_deleted"}


async def list_files(connection: Connection, caller: Caller, target: bytes) -> bytes:
    """A page of files, newest first: those with the named ids, or those behind a cursor or a file id. Raises `Invalid`,
    `NotFound`."""
    if ids := files_api.query_values(target, _IDS):
        return await _list_named(connection, caller, ids, files_api.query_of(target))
    query, limit = files_api.page_query(target, files_api.MAX_LISTED, 20)
    if (unsupported := next((name for name in _UNSUPPORTED if name in query), None)) is not None:
        hint = "Leave it out; go on behind a page with after_id or page."
        raise Invalid(f"{unsupported} is not supported", code="field_unsupported", hint=hint)
    last = query.get("page", "").removeprefix(_PAGE) or query.get("after_id")
    after = file_id(last) if last else None
    found = await file_store.list_page(
        connection, caller.workload, None, after, limit + 1, newest_first=True, reader=caller.reader
    )
    return _page(found[:limit], more=len(found) > limit)


async def _list_named(connection: Connection, caller: Caller, ids: list[str], query: dict[str, str]) -> bytes:
    """One page with those of the ids that the caller may see. Raises `Invalid`."""
    if "page" in query or "limit" in query or len(ids) > MAX_IDS:
        hint = f"Name up to {MAX_IDS} ids, without page and limit."
        raise Invalid("these ids cannot be listed", code="page_invalid", hint=hint)
    named = [found for text in ids if (found := known_id(text)) is not None]
    return _page(await file_store.find_many(connection, caller.workload, named, caller.reader), more=False)


def _page(files: list[StoredFile], *, more: bool) -> bytes:
    shown = [file_json(file) for file in files]
    first, end = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return msgspec.json.encode(
        {
            "data": shown,
            "has_more": more,
            "first_id": first,
            "last_id": end,
            "next_page": f"{_PAGE}{end}" if more else None,
        }
    )


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
