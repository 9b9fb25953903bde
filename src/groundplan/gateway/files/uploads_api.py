"""`/v1/uploads`: files that are sent in parts, as over unreliable networks. Each part is durable before it is
acknowledged; the whole is then written from the parts, and is a file like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound, TooLarge, Unavailable
from groundplan.core.ids import new_id, parse_id
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.database import Connection
from groundplan.gateway.files import file_store, files_api, quota, upload_store
from groundplan.gateway.files.blobs import MAX_FILE_BYTES, Blobs
from groundplan.gateway.files.file_store import StoredFile
from groundplan.gateway.files.idempotent_creation import IdempotentCreation
from groundplan.gateway.files.quota import ConnectionFactory, Quota
from groundplan.gateway.files.upload_store import COMPLETED, PENDING, Upload
from groundplan.gateway.http import multipart
from groundplan.gateway.http.body_stream import HIGH_WATER
from groundplan.gateway.http.methods import WrongMethod
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.policy.snapshot import KeyEntry

PATH = b"/v1/uploads"
PART_BYTES = 64 << 20
_UPLOAD_TIME = timedelta(hours=1)
"""The time in which all parts have to arrive."""
_FIELD = "data"


class _ExpiresAfter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    anchor: str
    seconds: int


class NewUpload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/uploads`."""

    bytes: int
    filename: str
    mime_type: str
    purpose: str
    expires_after: _ExpiresAfter | None = None


class _Complete(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    part_ids: list[str]
    md5: str | None = None


class UploadsApi:
    """The API of uploads."""

    def __init__(self, gateway: Gateway, blobs: Blobs, connected: ConnectionFactory) -> None:
        self._gateway = gateway
        self._blobs = blobs
        self._connected = connected

    async def answer(self, parts: Sequence[str], request: Request, response: Response, key: KeyEntry) -> None:
        """Answer one request. `parts`: the segments of its path below `/v1/uploads`."""
        if len(parts) not in (0, 2) or (parts and parts[1] not in _ACTIONS):
            raise NotFound("there is no such path", code="path_unknown", hint="See docs/batches.md, and OpenAI's API.")
        if request.method != b"POST":
            raise WrongMethod(b"POST")
        if not parts:
            body = await self._create(request, key)
        elif parts[1] == "parts":
            body = await self._add_part(_id(parts[0], "upload_"), request, response, key)
        elif parts[1] == "complete":
            body = await self._complete(_id(parts[0], "upload_"), request, key)
        else:
            body = await self._cancel(_id(parts[0], "upload_"), key)
        response.send(200, msgspec.json.encode(body))

    async def _create(self, request: Request, key: KeyEntry) -> dict[str, Any]:
        order, now = msgspec.json.decode(request.body, type=NewUpload), self._gateway.clock.now()
        if order.purpose not in files_api.PURPOSES:
            hint = f"Use one of: {', '.join(files_api.PURPOSES)}"
            raise Invalid(f"the purpose {order.purpose[:40]!r} is not served", code="purpose_unsupported", hint=hint)
        if order.bytes < 1:
            raise Invalid("bytes is below 1", code="upload_bytes", hint="Say how many bytes the whole file has.")
        if order.bytes > MAX_FILE_BYTES:
            message = f"the file is larger than {MAX_FILE_BYTES >> 20} MB"
            raise TooLarge(message, code="file_too_large", hint="Cut it into several files.")
        seconds = None
        if (after := order.expires_after) is not None:
            if after.anchor != "created_at":
                hint = "Use created_at."
                raise Invalid("expires_after is counted from something else", code="expires_after_anchor", hint=hint)
            seconds = files_api.parse_seconds("expires_after", str(after.seconds))
        (await self._quota(request, key)).check(order.bytes)
        name = multipart.shorten_filename(order.filename) or "file"
        upload = Upload(new_id(), key.workload, name, order.purpose, order.bytes, now, now + _UPLOAD_TIME, seconds)
        async with self._connected() as connection:
            await upload_store.add(connection, upload, UUID(key.id))
        return _upload_json(upload, now)

    async def _add_part(self, id: UUID, request: Request, response: Response, key: KeyEntry) -> dict[str, Any]:
        """Receive one part and make it durable."""
        async with self._connected() as connection:
            await self._find_pending(connection, id, key)
        response.resize_reservation(request, HIGH_WATER)  # nothing of it is kept in memory
        multipart.form_stream(request)
        room = await self._quota(request, key)
        room.check_announced(request)
        part = new_id()
        size = await self._blobs.keep(part, _form_data(request, room), PART_BYTES)
        now = self._gateway.clock.now()
        await self._gateway.run_shielded(self._record_part(id, part, size, now, key, room))
        return {
            "id": f"part_{part.hex}",
            "object": "upload.part",
            "created_at": int(now.timestamp()),
            "upload_id": f"upload_{id.hex}",
        }

    async def _record_part(self, id: UUID, part: UUID, size: int, now: datetime, key: KeyEntry, room: Quota) -> None:
        committing = False
        try:
            async with self._connected() as connection, connection.transaction():
                upload = await self._find_pending(connection, id, key, lock=True)
                file = StoredFile(part, key.workload, file_store.PART, "", size, now, upload.expires_at)
                await room.check_stored(connection, file)
                await file_store.add(connection, file, UUID(key.id), id)
                committing = True
        finally:
            if not committing:
                self._blobs.path(part).unlink(missing_ok=True)

    async def _complete(self, id: UUID, request: Request, key: KeyEntry) -> dict[str, Any]:
        body = msgspec.json.decode(request.body, type=_Complete)
        file_id, digest = new_id(), None if body.md5 is None else hashlib.md5(usedforsecurity=False)
        try:
            async with self._connected() as connection:
                upload = await self._find_pending(connection, id, key)
                stored_parts = await upload_store.parts(connection, id)
            parts = [(part, stored_parts[part]) for part in _part_ids(body, upload, stored_parts)]
            size = await self._blobs.keep(file_id, self._joined_parts(parts, digest))
        except (Conflict, Invalid, Unavailable) as error:
            return await self._outcome_or_raise(id, key, error)
        if digest is not None and body.md5 is not None and digest.hexdigest() != body.md5.lower():
            self._blobs.path(file_id).unlink(missing_ok=True)
            raise Invalid("the file has another md5", code="upload_md5", hint="Send the parts again.")
        return await self._gateway.run_shielded(self._finish(id, file_id, size, key, await self._quota(request, key)))

    async def _outcome_or_raise(self, id: UUID, key: KeyEntry, error: GroundplanError) -> dict[str, Any]:
        """The completed upload where another request has ended it meanwhile, so that its parts are gone. Raises `error`
        while the upload is pending."""
        async with self._connected() as connection:
            upload = await _find_upload(connection, id, key)
        if upload.status == PENDING:
            raise error
        if upload.status != COMPLETED:
            raise _upload_ended(upload.status)
        return await self._json_with_file(upload)

    async def _finish(self, id: UUID, file_id: UUID, size: int, key: KeyEntry, room: Quota) -> dict[str, Any]:
        """Turn the parts into a file, unless another request has done so meanwhile."""
        now, committing, merged_parts = self._gateway.clock.now(), False, list[UUID]()
        try:
            async with self._connected() as connection, connection.transaction():
                upload = await _find_upload(connection, id, key, lock=True)
                if upload.status != COMPLETED:
                    upload = await self._find_pending(connection, id, key)
                    ends = None if upload.seconds is None else now + timedelta(seconds=upload.seconds)
                    file = StoredFile(file_id, key.workload, upload.purpose, upload.filename, size, now, ends)
                    merged_parts = await upload_store.finish(connection, id, COMPLETED, file_id)
                    await room.check_stored(connection, file)
                    await file_store.add(connection, file, UUID(key.id))
                    committing = True
        finally:
            if not committing:
                self._blobs.path(file_id).unlink(missing_ok=True)
        for part in merged_parts:
            self._blobs.path(part).unlink(missing_ok=True)
        async with self._connected() as connection:
            upload = await _find_upload(connection, id, key)
        return await self._json_with_file(upload)

    async def _cancel(self, id: UUID, key: KeyEntry) -> dict[str, Any]:
        async def cancel_upload() -> tuple[Upload, list[UUID]]:
            async with self._connected() as connection, connection.transaction():
                upload = await _find_upload(connection, id, key, lock=True)
                if upload.status == COMPLETED:
                    raise _upload_ended(upload.status)
                dropped_parts = await upload_store.finish(connection, id, upload_store.CANCELLED)
                return await _find_upload(connection, id, key), dropped_parts

        upload, dropped_parts = await self._gateway.run_shielded(cancel_upload())
        for part in dropped_parts:
            self._blobs.path(part).unlink(missing_ok=True)
        return _upload_json(upload, self._gateway.clock.now())

    async def _joined_parts(self, parts: Sequence[tuple[UUID, int]], digest: Any) -> AsyncGenerator[bytes, None]:
        """The bytes of `parts`, which are (id, length). Raises `Unavailable`."""
        for part, length in parts:
            async for data in self._blobs.read(part, length):
                if digest is not None:
                    digest.update(data)
                yield data

    async def _quota(self, request: Request, key: KeyEntry) -> Quota:
        once = IdempotentCreation(request, PATH, key, "")
        once.digest = None  # a repeated part is another part: it is never replayed
        return await quota.current_quota(self._gateway, self._connected, self._blobs, key.workload, once)

    async def _find_pending(self, connection: Connection, id: UUID, key: KeyEntry, *, lock: bool = False) -> Upload:
        """An upload that still accepts parts. Raises `NotFound`, `Conflict`."""
        upload = await _find_upload(connection, id, key, lock=lock)
        status = _status(upload, self._gateway.clock.now())
        if status != PENDING:
            raise _upload_ended(status)
        return upload

    async def _json_with_file(self, upload: Upload) -> dict[str, Any]:
        """The upload in OpenAI's shape, with its file if that still exists."""
        file = None
        if upload.file is not None:
            async with self._connected() as connection:
                file = await file_store.find(connection, upload.file, upload.workload)
        return _upload_json(upload, self._gateway.clock.now(), file)


_ACTIONS = ("parts", "complete", "cancel")


def _id(text: str, prefix: str) -> UUID:
    try:
        return parse_id(text, prefix)
    except ValueError as error:
        raise _upload_not_found() from error


def _upload_not_found() -> NotFound:
    hint = "Use an id of POST /v1/uploads, with a key of the same workload; it is forgotten an hour after its time."
    return NotFound("there is no such upload", code="upload_not_found", hint=hint)


async def _find_upload(connection: Connection, id: UUID, key: KeyEntry, *, lock: bool = False) -> Upload:
    """Raises `NotFound`."""
    upload = await upload_store.find(connection, id, key.workload, lock=lock)
    if upload is None:
        raise _upload_not_found()
    return upload


def _upload_ended(status: str) -> Conflict:
    return Conflict(f"this upload is {status}", code="upload_over", hint="Begin another one: POST /v1/uploads.")


def _status(upload: Upload, now: datetime) -> str:
    return "expired" if upload.status == PENDING and upload.expires_at <= now else upload.status


def _upload_json(upload: Upload, now: datetime, file: StoredFile | None = None) -> dict[str, Any]:
    return {
        "id": f"upload_{upload.id.hex}",
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": int(upload.created_at.timestamp()),
        "expires_at": int(upload.expires_at.timestamp()),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": _status(upload, now),
        "file": None if file is None else files_api.file_json(file),
    }


def _part_ids(body: _Complete, upload: Upload, stored_parts: dict[UUID, int]) -> list[UUID]:
    """The ids of the parts that make up the file, in order. Raises `Invalid`."""
    ids = list[UUID]()
    for text in body.part_ids:
        try:
            ids.append(parse_id(text, "part_"))
        except ValueError:
            ids.append(upload.id)
    if not ids or len(set(ids)) != len(ids) or not stored_parts.keys() >= set(ids):
        hint = "Name the ids that POST /v1/uploads/ID/parts gave, each once and in order."
        raise Invalid("part_ids has what is no part of this upload", code="upload_parts", hint=hint)
    if (size := sum(stored_parts[id] for id in ids)) != upload.bytes:
        hint = "Send what is missing, or begin again with the right number of bytes."
        message = f"the parts have {size} bytes together, and the upload was announced with {upload.bytes}"
        raise Invalid(message, code="upload_bytes", hint=hint)
    return ids


async def _form_data(request: Request, room: Quota) -> AsyncGenerator[bytes, None]:
    """The bytes of the form's only field. Raises `Invalid`, `TooLarge`."""
    has_data_field = False
    async for event in multipart.form_events(multipart.form_stream(request), request.headers.get(b"content-type")):
        if isinstance(event, multipart.Part):
            if event.name != _FIELD or has_data_field:
                hint = f"Send the bytes in the field `{_FIELD}`, and nothing else."
                raise Invalid("the form has another field", code="upload_field", hint=hint)
            has_data_field = True
        elif isinstance(event, multipart.Data):
            room.add(event.data)
            yield event.data
    if not has_data_field:
        raise Invalid("there is no data in the form", code="file_missing", hint=f"Send a field named {_FIELD}.")
