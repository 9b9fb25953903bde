"""`/v1/files`, `/v1/batches` and `/v1/messages/batches` at the gateway's port, for a key's own workload.

Stores what is requested and shows it. PostgreSQL is awaited here, since these are no model calls; `batch_runner` makes
those.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec
import psycopg

from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.gateway.batches import batch_store, messages_api
from groundplan.gateway.batches.batch_store import Batch
from groundplan.gateway.batches.messages_api import MessageBatchesApi
from groundplan.gateway.batches.orders import order_store
from groundplan.gateway.call.admit import MAX_COST_HEADER
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.estimate import HEADER, refuse_cost_headers
from groundplan.gateway.call.facts_api import admit_caller
from groundplan.gateway.call.feature import valid_headers
from groundplan.gateway.call.files_by_id import FilesById
from groundplan.gateway.database import Connection, Pool, database_unavailable
from groundplan.gateway.files import creation_key_store, file_store, files_api, message_files, quota, uploads_api
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.files.file_ids import batch_id
from groundplan.gateway.files.file_store import StoredFile
from groundplan.gateway.files.files_api import Caller
from groundplan.gateway.files.idempotent_creation import REPLAY_HEADER, IdempotentCreation, deleted_since
from groundplan.gateway.files.uploads_api import UploadsApi
from groundplan.gateway.http import errors
from groundplan.gateway.http.body_stream import HIGH_WATER
from groundplan.gateway.http.methods import WrongMethod
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.surfaces.messages import errors as messages_errors
from groundplan.gateway.surfaces.metadata import check_metadata

FILES, BATCHES = b"/v1/files", b"/v1/batches"
ENDPOINTS = (
    "/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings", "/v1/moderations",
    "/v1/images/generations",
)  # fmt: skip
"""Endpoints that the calls of a batch may have."""
_PATHS = (FILES, BATCHES, messages_api.PATH, uploads_api.PATH)
_PREFIXES = tuple(path + b"/" for path in _PATHS)
_WINDOW = re.compile(r"([1-9]\d{0,3})(h|m|s)", re.ASCII)
_UNITS = {"h": 3600, "m": 60, "s": 1}
_MAX_WINDOW = 168 * 3600
_log = logging.getLogger(__name__)


class ExpiresAfter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long result files are kept, from their creation."""

    anchor: Literal["created_at"]
    seconds: int


class NewBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None


class FileFormat(Protocol):
    """How files are shown in one client's API: the modules `files_api` (OpenAI's) and `message_files` (Anthropic's)."""

    def file_json(self, file: StoredFile) -> dict[str, Any]: ...

    def deleted_json(self, file: StoredFile) -> dict[str, Any]: ...

    async def list_files(self, connection: Connection, caller: Caller, target: bytes) -> bytes: ...


class BatchesApi:
    """The handlers of the paths of files, uploads and batches. Connects to PostgreSQL at the first request."""

    def __init__(self, gateway: Gateway, url: str, blobs: Blobs) -> None:
        self._gateway = gateway
        self._blobs = blobs
        self._pool = Pool(url, "batches")
        gateway.files = FilesById(self._pool.connection, blobs)
        self._messages = MessageBatchesApi(gateway, blobs, self._pool.connection)
        self._uploads = UploadsApi(gateway, blobs, self._pool.connection)

    def serves(self, path: bytes) -> bool:
        return path in _PATHS or path.startswith(_PREFIXES)

    async def handle(self, path: bytes, request: Request, response: Response) -> None:
        """Answer one request. Never raises."""
        error: GroundplanError
        try:
            await self._answer(path, request, response)
            return
        except DECODE_ERRORS as wrong:
            error = Invalid(f"the body has a wrong field: {wrong}", code="body_invalid", hint="See the OpenAI API.")
        except GroundplanError as caught:
            error = caught
        except psycopg.DataError:
            hint = "Leave out the character U+0000, and numbers that nobody has."
            error = Invalid("the request has what cannot be kept", code="value_unsupported", hint=hint)
        except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError):
            hint = "Try again; what has the same Idempotency-Key is ordered once."
            error = database_unavailable("the database is not reachable", hint)
        except Exception:  # noqa: BLE001 -- the boundary of one request: the worker and its calls go on
            error = errors.log_internal_error(_log, path.decode("latin-1"), response)
        if not response.started:
            anthropic = path.startswith(messages_api.PATH) or (path.startswith(FILES) and _is_anthropic(request))
            messages_errors.send_error(response, error, anthropic=anthropic)
        del error  # it references this frame: together they would stay until the next garbage collection

    async def close(self) -> None:
        await self._pool.close()

    async def _answer(self, path: bytes, request: Request, response: Response) -> None:
        key, person, _ = await admit_caller(self._gateway, request, response.peer_address)
        parts = path.decode("latin-1").split("/")[3:]
        method = request.method
        if path.startswith(FILES):
            if method == b"POST" and not parts:
                await self._upload(request, response, key, person)
            else:
                caller = files_api.caller_for(self._gateway, key.workload, person)
                await self._answer_file(method, parts, request, response, caller)
        elif path.startswith(messages_api.PATH):
            await self._messages.answer(path, request, response, key, person)
        elif path.startswith(uploads_api.PATH):
            await self._uploads.answer(parts, request, response, key)
        elif method == b"POST" and not parts:
            await self._create(request, response, key, person)
        else:
            response.send(200, await self._answer_batch(method, parts, request, key))

    # files ------------------------------------------------------------------------------------------------------------

    async def _answer_file(
        self, method: bytes, parts: list[str], request: Request, response: Response, caller: Caller
    ) -> None:
        file_format: FileFormat = message_files if _is_anthropic(request) else files_api
        if method == b"GET" and not parts:
            async with self._pool.connection() as connection:
                body = await file_format.list_files(connection, caller, request.target)
            response.send(200, body)
            return
        content = len(parts) == 2 and parts[1] == "content"
        if len(parts) > 1 and not content:
            raise _path_not_found()
        allowed = (b"GET", b"POST") if not parts else (b"GET",) if content else (b"GET", b"DELETE")
        if method not in allowed:
            raise WrongMethod(*allowed)
        async with self._pool.connection() as connection:
            file = await files_api.find_file(connection, caller, parts[0])
            if method == b"DELETE":
                await files_api.delete(connection, self._blobs, file)
                response.send(200, msgspec.json.encode(file_format.deleted_json(file)))
                return
        if content:
            await files_api.download(self._blobs, file, response)
        else:
            response.send(200, msgspec.json.encode(file_format.file_json(file)))

    async def _upload(self, request: Request, response: Response, key: KeyEntry, person: str) -> None:
        response.resize_reservation(request, HIGH_WATER)  # nothing of it is kept in memory
        file_format: FileFormat = message_files if _is_anthropic(request) else files_api
        default_purpose = message_files.PURPOSE if _is_anthropic(request) else ""
        once = IdempotentCreation(request, FILES, key, person)
        room = await quota.current_quota(self._gateway, self._pool.connection, self._blobs, key.workload, once)
        upload = files_api.Upload(self._blobs, once, room)
        file = await upload.keep(request, key.workload, self._gateway.clock.now(), default_purpose)
        file, is_repeat = await self._gateway.run_shielded(self._store_upload(file, UUID(key.id), once, room))
        response.send(200, msgspec.json.encode(file_format.file_json(file)), REPLAY_HEADER if is_repeat else b"")

    async def _store_upload(
        self, sent: StoredFile, key: UUID, once: IdempotentCreation, room: quota.Quota
    ) -> tuple[StoredFile, bool]:
        """Store an uploaded file; return the stored file, and whether it was uploaded with this Idempotency-Key before.
        The bytes of `sent` are deleted unless it was stored, or may have been: a commit that failed may have succeeded
        all the same."""
        kept, committing = sent, False
        try:
            async with self._pool.connection() as connection, connection.transaction():
                id = await creation_key_store.claim(connection, once.key, sent.id)
                if id == sent.id:
                    await room.check_stored(connection, sent)
                    await file_store.add(connection, sent, key)
                    committing = True
                elif (before := await file_store.find(connection, id, sent.workload)) is not None:
                    kept = before
                else:
                    raise deleted_since()
        finally:
            if not committing:
                self._blobs.path(sent.id).unlink(missing_ok=True)
        return kept, kept is not sent

    # batches ----------------------------------------------------------------------------------------------------------

    async def _answer_batch(self, method: bytes, parts: list[str], request: Request, key: KeyEntry) -> bytes:
        if not parts:
            if method != b"GET":
                raise WrongMethod(b"GET", b"POST")
            return await self._list_batches(request.target, key)
        cancels = len(parts) == 2 and parts[1] == "cancel"
        if len(parts) > 1 and not cancels:
            raise _path_not_found()
        if method != (allowed := b"POST" if cancels else b"GET"):
            raise WrongMethod(allowed)
        async with self._pool.connection() as connection:
            id = batch_id(parts[0])
            batch = await _find_batch(connection, id, key)
            if batch is None:
                raise NotFound("there is no such batch", code="batch_not_found", hint="Use an id of GET /v1/batches.")
            if cancels:
                await batch_store.request_cancel(connection, id)
                batch = await batch_store.find(connection, id) or batch
                if batch_store.ended_uncancelled(batch):
                    raise Conflict(
                        f"Cannot cancel a batch with status '{batch.status}'",  # OpenAI's words: clients look for them
                        code="batch_ended",
                        hint="See its errors and result files.",
                    )
            return await _batch_body(connection, batch)

    async def _create(self, request: Request, response: Response, key: KeyEntry, person: str) -> None:
        refuse_cost_headers(request.headers, "batches", HEADER, MAX_COST_HEADER)
        once = IdempotentCreation(request, BATCHES, key, person)
        once.add(request.body)
        order = msgspec.json.decode(request.body, type=NewBatch)
        now = self._gateway.clock.now()
        ends = now + timedelta(seconds=_window_seconds(order.completion_window))
        if order.endpoint not in ENDPOINTS:
            hint = f"Use one of: {', '.join(ENDPOINTS)}"
            raise Invalid(f"batches cannot call {order.endpoint[:80]}", code="endpoint_unsupported", hint=hint)
        check_metadata(order.metadata)
        if order.output_expires_after is not None:
            files_api.parse_seconds("output_expires_after", str(order.output_expires_after.seconds))
        async with self._pool.connection() as connection:
            id = None if once.key is None else await creation_key_store.find_created(connection, once.key)
            is_repeat = id is not None
            if id is None:
                batch = await self._new_batch(connection, key, person, order, (now, ends))
                grounded = files_api.is_grounded(self._gateway, key.workload)
                batch = replace(batch, said=valid_headers(request.headers), grounded=grounded)
                async with connection.transaction():
                    id = await creation_key_store.claim(connection, once.key, batch.id)
                    if not (is_repeat := id != batch.id):
                        if not await file_store.lock_for_batch(connection, batch.input_file):
                            raise files_api.file_not_found()
                        await batch_store.add(connection, batch)
                if is_repeat:
                    self._blobs.unmark(batch.id)
            stored = await _find_batch(connection, id, key)
            if stored is None:
                raise deleted_since()
            body = await _batch_body(connection, stored)
        response.send(200, body, REPLAY_HEADER if is_repeat else b"")

    async def _new_batch(
        self, connection: Connection, key: KeyEntry, person: str, order: NewBatch, time: tuple[datetime, datetime]
    ) -> Batch:
        """A new batch, not stored yet, with its mark in HOME for the batch runners. Raises `Invalid`, `NotFound`."""
        file = await files_api.find_file(connection, Caller(key.workload), order.input_file_id)
        if file.purpose != "batch" or not self._blobs.path(file.id).exists():
            raise Invalid(
                "this file is no input for a batch here",
                code="input_file_unusable",
                hint="Upload one with purpose=batch at this gateway.",
            )
        batch = _new_batch(new_id(), key, person, order, file.id, *time)
        await asyncio.to_thread(self._blobs.mark, batch.id)
        return batch

    async def _list_batches(self, target: bytes, key: KeyEntry) -> bytes:
        query, limit = files_api.page_query(target, 100, 20)
        after = batch_id(query["after"]) if "after" in query else None
        async with self._pool.connection() as connection:
            found = await batch_store.list_newest(connection, key.workload, after, limit + 1)
            done = await _count_requests(connection, [batch.id for batch in found])
        items = [batch_json(batch, done.get(batch.id, (0, 0))) for batch in found[:limit]]
        return files_api.page_json(items, more=len(found) > limit)


def _is_anthropic(request: Request) -> bool:
    """Whether the client speaks Anthropic's API."""
    return b"anthropic-version" in request.headers


async def _find_batch(connection: Connection, id: UUID, key: KeyEntry) -> Batch | None:
    """The batch with this id, if it is one of OpenAI's API and of the key's workload."""
    batch = await batch_store.find(connection, id)
    return None if batch is None or batch.workload != key.workload or batch.endpoint not in ENDPOINTS else batch


async def _batch_body(connection: Connection, batch: Batch) -> bytes:
    done = await _count_requests(connection, [batch.id])
    return msgspec.json.encode(batch_json(batch, done.get(batch.id, (0, 0))))


async def _count_requests(connection: Connection, ids: list[UUID]) -> dict[UUID, tuple[int, int]]:
    """(completed, failed) calls of each batch, including those that providers report."""
    here, there = await batch_store.count_done(connection, ids), await order_store.count_reported(connection, ids)
    both = [(id, here.get(id, (0, 0)), there.get(id, (0, 0))) for id in here.keys() | there.keys()]
    return {id: (mine[0] + theirs[0], mine[1] + theirs[1]) for id, mine, theirs in both}


def _new_batch(
    id: UUID, key: KeyEntry, person: str, order: NewBatch, file: UUID, now: datetime, ends: datetime
) -> Batch:
    return Batch(
        id=id, workload=key.workload, key=UUID(key.id), person=person, endpoint=order.endpoint, input_file=file,
        completion_window=order.completion_window, metadata=order.metadata, status="validating", created_at=now,
        expires_at=ends, in_progress_at=None, cancelling_at=None, ended_at=None, errors=[], output_file=None,
        error_file=None, total=0, held_usd=0, charges=[],
        output_seconds=None if order.output_expires_after is None else order.output_expires_after.seconds,
    )  # fmt: skip


def batch_json(batch: Batch, done: tuple[int, int]) -> dict[str, Any]:
    """A batch in OpenAI's format; `done` are its (completed, failed) lines."""
    ended: dict[str, int | None] = {f"{state}_at": None for state in ("completed", "failed", "expired", "cancelled")}
    if batch.status in batch_store.ENDED:
        ended[f"{batch.status}_at"] = _seconds(batch.ended_at)
    return {
        "id": f"batch_{batch.id.hex}",
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": f"file-{batch.input_file.hex}",
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": None if batch.output_file is None else f"file-{batch.output_file.hex}",
        "error_file_id": None if batch.error_file is None else f"file-{batch.error_file.hex}",
        "created_at": _seconds(batch.created_at),
        "in_progress_at": _seconds(batch.in_progress_at),
        "expires_at": _seconds(batch.expires_at),
        "finalizing_at": None,
        "cancelling_at": _seconds(batch.cancelling_at),
        **ended,
        "request_counts": {"total": batch.total, "completed": done[0], "failed": done[1]},
        "metadata": batch.metadata,
    }


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())


def _window_seconds(text: str) -> int:
    """The seconds of a completion window such as `24h`. Raises `Invalid`."""
    match = _WINDOW.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= _MAX_WINDOW:
        raise Invalid(f"completion_window is {text[:20]!r}", code="window_range", hint="Write 24h, at most 168h.")
    return seconds


def _path_not_found() -> NotFound:
    return NotFound("there is no such path", code="path_unknown", hint="See /v1/files and /v1/batches.")
