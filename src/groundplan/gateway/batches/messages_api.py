"""`/v1/messages/batches`: Anthropic's message batches of a key's own workload, stored like OpenAI's batches.

Stores what is requested and shows it, like `batches_api`, which provides the connection and formats errors;
`batch_runner` makes the calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from uuid import UUID

import msgspec

from groundplan.core.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from groundplan.core.ids import new_id
from groundplan.gateway.batches import batch_store, message_shapes
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT, Batch
from groundplan.gateway.batches.message_requests import RequestSplitter
from groundplan.gateway.call.admit import MAX_COST_HEADER
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.estimate import HEADER, refuse_cost_headers
from groundplan.gateway.call.feature import valid_headers
from groundplan.gateway.database import Connection
from groundplan.gateway.files import creation_key_store, file_store, files_api, quota
from groundplan.gateway.files.blobs import MAX_INPUT_BYTES, MAX_REQUESTS_BYTES, Blobs
from groundplan.gateway.files.file_store import StoredFile
from groundplan.gateway.files.idempotent_creation import REPLAY_HEADER, IdempotentCreation, deleted_since
from groundplan.gateway.files.quota import ConnectionFactory, Quota
from groundplan.gateway.http.body_stream import HIGH_WATER
from groundplan.gateway.http.methods import WrongMethod
from groundplan.gateway.http.refusals import MEMORY_FULL
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.surfaces.messages.surface import passed_header_lines

PATH = b"/v1/messages/batches"
MAX_LISTED = 1000
HOURS = 24
_CONTENT_TYPE = b"content-type: application/x-jsonl\r\n"
_HEADERS = (b"anthropic-version", b"anthropic-beta", b"anthropic-user-profile-id")
_encode = msgspec.json.Encoder().encode


class MessageBatchesApi:
    """The handlers of `/v1/messages/batches`."""

    def __init__(self, gateway: Gateway, blobs: Blobs, connected: ConnectionFactory) -> None:
        self._gateway = gateway
        self._blobs = blobs
        self._connection = connected

    async def answer(self, path: bytes, request: Request, response: Response, key: KeyEntry, person: str) -> None:
        """Answer one request. Raises `GroundplanError`s for the caller to send."""
        method, parts = request.method, path.decode("latin-1").split("/")[4:]
        last = parts[1] if len(parts) == 2 else ""
        if len(parts) > 2 or last not in ("", "cancel", "results"):
            raise NotFound("there is no such path", code="path_unknown", hint="See /v1/messages/batches.")
        allowed = {"cancel": (b"POST",), "results": (b"GET",)}.get(
            last, (b"GET", b"DELETE") if parts else (b"GET", b"POST")
        )
        if method not in allowed:
            raise WrongMethod(*allowed)
        if not parts:
            if method == b"POST":
                await self._create(request, response, key, person)
            else:
                response.send(200, await self._list(request.target, key))
            return
        batch, done = await self._find(message_shapes.batch_id(parts[0]), key, cancel=last == "cancel")
        if last == "results" or method == b"DELETE":
            grounded = batch.grounded or files_api.is_grounded(self._gateway, key.workload)
            if grounded and batch.person not in ("", person):
                raise message_shapes.batch_not_found()
        if last == "results":
            await self._send_results(batch, response)
        elif method == b"DELETE":
            response.send(200, await self._delete(batch))
        else:
            response.send(200, _encode(message_shapes.batch_json(batch, done)))

    async def _create(self, request: Request, response: Response, key: KeyEntry, person: str) -> None:
        """Create a batch, or answer with the one that was created with this Idempotency-Key before."""
        if request.stream is None:
            raise Invalid("there is no body", code="body_invalid", hint='Send {"requests": [...]}.')
        refuse_cost_headers(request.headers, "batches", HEADER, MAX_COST_HEADER)
        passed_header_lines(request.headers)
        headers = {name.decode(): request.headers[name].decode() for name in _HEADERS if name in request.headers}
        requests, input_file, once = RequestSplitter(), new_id(), IdempotentCreation(request, PATH, key, person)
        once.add(_encode(headers))
        room = await quota.current_quota(self._gateway, self._connection, self._blobs, key.workload, once)
        room.check_announced(request)
        size = await self._blobs.keep(
            input_file, _input_lines(request, response, requests, (once, room)), most=MAX_INPUT_BYTES
        )
        now = self._gateway.clock.now()
        file = StoredFile(input_file, key.workload, file_store.MESSAGES, "requests.jsonl", size, now)
        batch = Batch(
            id=new_id(), workload=key.workload, key=UUID(key.id), person=person, endpoint=MESSAGES_ENDPOINT,
            input_file=input_file, completion_window=f"{HOURS}h", metadata=headers, status="validating", created_at=now,
            expires_at=now + timedelta(hours=HOURS), in_progress_at=None, cancelling_at=None, ended_at=None, errors=[],
            output_file=None, error_file=None, total=requests.count, held_usd=0, charges=[],
            said=valid_headers(request.headers), grounded=files_api.is_grounded(self._gateway, key.workload),
        )  # fmt: skip
        stored = await self._gateway.run_shielded(self._store(batch, file, once, room))
        if stored == batch.id:
            response.send(200, _encode(message_shapes.batch_json(batch, (0, 0))))
            return
        try:
            found, done = await self._find(stored, key, cancel=False)
        except NotFound:
            raise deleted_since() from None
        response.send(200, _encode(message_shapes.batch_json(found, done)), REPLAY_HEADER)

    async def _store(self, batch: Batch, file: StoredFile, once: IdempotentCreation, room: Quota) -> UUID:
        """Store the batch with its input file and return its id, or that of the batch that was created with this
        Idempotency-Key before. The input file is deleted unless the batch was stored, or may have been: a commit that
        failed may have succeeded all the same."""
        stored, committing = batch.id, False
        try:
            async with self._connection() as connection:
                await asyncio.to_thread(self._blobs.mark, batch.id)
                async with connection.transaction():
                    stored = await creation_key_store.claim(connection, once.key, batch.id)
                    if stored == batch.id:
                        await room.check_stored(connection, file)
                        await file_store.add(connection, file, batch.key)
                        await batch_store.add(connection, batch)
                        committing = True
        finally:
            if not committing:
                self._blobs.path(file.id).unlink(missing_ok=True)
        if stored != batch.id:
            self._blobs.unmark(batch.id)
        return stored

    async def _list(self, target: bytes, key: KeyEntry) -> bytes:
        query, limit = files_api.page_query(target, MAX_LISTED, 20)
        after, before = (
            message_shapes.batch_id(query[name]) if name in query else None for name in ("after_id", "before_id")
        )
        if after is not None and before is not None:
            raise Invalid("after_id and before_id are both there", code="page_invalid", hint="Send one of them.")
        async with self._connection() as connection:
            found = await batch_store.list_message_batches(connection, key.workload, after, before, limit + 1)
            more, found = len(found) > limit, found[:limit]
            done = await batch_store.count_done(connection, [batch.id for batch in found])
        if before is not None:
            found.reverse()
        items = [message_shapes.batch_json(batch, done.get(batch.id, (0, 0))) for batch in found]
        return message_shapes.page_json(items, more=more)

    async def _find(self, id: UUID, key: KeyEntry, *, cancel: bool) -> tuple[Batch, tuple[int, int]]:
        """A batch of the key's workload, cancelled first with `cancel`, and its (completed, failed) lines. Raises
        `NotFound`, and `Conflict` if it has ended before it was to be cancelled."""
        async with self._connection() as connection:
            batch = await _find_batch(connection, id, key)
            if cancel:
                await batch_store.request_cancel(connection, id)
                batch = await _find_batch(connection, id, key)
                if batch_store.ended_uncancelled(batch):
                    raise Conflict("the batch has ended", code="batch_ended", hint="Read its results.")
            done = await batch_store.count_done(connection, [id])
        return batch, done.get(id, (0, 0))

    async def _send_results(self, batch: Batch, response: Response) -> None:
        if batch.status not in batch_store.ENDED:
            raise Conflict("the batch has no results yet", code="batch_running", hint="Wait until it has ended.")
        await response.send_stream(200, self._result_chunks(batch), _CONTENT_TYPE)

    async def _result_chunks(self, batch: Batch) -> AsyncIterator[bytes]:
        files = [file for file in (batch.output_file, batch.error_file) if file is not None]
        async with self._connection() as connection:
            sizes = [await file_store.size_of(connection, file) for file in files]
        for file, size in zip(files, sizes, strict=True):
            async for lines in _split_lines(self._blobs.read(file, size)):
                yield b"".join(message_shapes.result_line(line) for line in lines)

    async def _delete(self, batch: Batch) -> bytes:
        if batch.status not in batch_store.ENDED:
            raise Conflict(
                "the batch has not ended", code="batch_running", hint="Cancel it first, and wait for its end."
            )
        files = [file for file in (batch.input_file, batch.output_file, batch.error_file) if file is not None]
        async with self._connection() as connection, connection.transaction():
            await batch_store.delete(connection, batch.id)
            for file in files:
                await file_store.delete(connection, file)
        for file in files:
            self._blobs.path(file).unlink(missing_ok=True)
        return _encode({"id": f"{message_shapes.PREFIX}{batch.id.hex}", "type": "message_batch_deleted"})


async def _find_batch(connection: Connection, id: UUID, key: KeyEntry) -> Batch:
    batch = await batch_store.find(connection, id)
    if batch is None or batch.workload != key.workload or batch.endpoint != MESSAGES_ENDPOINT:
        raise message_shapes.batch_not_found()
    return batch


async def _input_lines(
    request: Request, response: Response, requests: RequestSplitter, observers: tuple[IdempotentCreation, Quota]
) -> AsyncGenerator[bytes, None]:
    """Yield the lines of the input file while the body arrives; each is also given to the `observers`. Raises
    `Invalid`, `TooLarge`, and `Unavailable` if there is no memory for the part of a request that has arrived."""
    stream, received = request.stream, 0
    while stream is not None and (data := await stream.read()):
        received += len(data)
        if received > MAX_REQUESTS_BYTES:
            raise TooLarge(
                f"the requests are larger than {MAX_REQUESTS_BYTES >> 20} MB",
                code="request_too_large",
                hint="Make several batches.",
            )
        if lines := requests.feed(data):
            for observer in observers:
                observer.add(lines)
            yield lines
        if not response.resize_reservation(request, HIGH_WATER + requests.buffered_bytes):
            raise Unavailable(
                MEMORY_FULL.message,
                code=MEMORY_FULL.code,
                hint=MEMORY_FULL.hint,
                retry_after=float(MEMORY_FULL.retry_after),
            )
    requests.end()


async def _split_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Yield the complete lines of each chunk."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if lines:
            yield lines
            await asyncio.sleep(0)
    if rest:
        yield [rest]
