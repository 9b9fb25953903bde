"""A provider's own batch API: the interface that orders use, and its requests, sent one at a time over the deployment's
own connections with its key.

Each failure says whether the provider may have acted on the request. The formats of OpenAI are in `openai_batches`,
those of Anthropic in `message_batches`; `order_runner` decides what is requested when.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.files.blobs import in_reader
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.stalls import patient
from groundplan.gateway.upstream.connection import BODY_LIMIT, UpstreamConnection, UpstreamFailure
from groundplan.gateway.upstream.http1 import Http1Connection
from groundplan.gateway.upstream.provider_refusals import actual_status
from groundplan.gateway.upstream.targets import Target

ENDED_STATUSES = frozenset({"completed", "failed", "expired", "cancelled"})
JSON = b"content-type: application/json\r\n"
_TEMPORARY_STATUSES = frozenset({401, 402, 403, 408, 425, 429})
"""Refusals because of our key, our account or the moment: the provider certainly began and ended nothing."""
_KEY_STATUSES = frozenset({401, 403})
MAX_RESULT_LINE = BODY_LIMIT
"""Bytes of a line of a result file, as of the answer of a call."""
_CHUNK_BYTES = 256 << 10
_CHUNK_WRITE_SECONDS = 30.0
_FILE_SECONDS, _FILE_RATE = 5.0, 64 << 10
"""An upload may take this many seconds, plus one second for this many bytes."""
_SLACK_SECONDS = 1.0
_Decoded = TypeVar("_Decoded")


class ProviderUnavailable(Exception):
    """The provider gave no usable answer. `may_have_acted`: it may have done what was requested nevertheless."""

    def __init__(self, reason: str, *, may_have_acted: bool) -> None:
        super().__init__(reason)
        self.may_have_acted = may_have_acted


class ProviderKeyRefused(ProviderUnavailable):
    """The provider refused our key, or there is no key to send."""


class ProviderRefused(Exception):
    """The provider refuses the request for good; repeating it does not help. `status` is the HTTP status."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class RequestCounts(msgspec.Struct, frozen=True):
    """Numbers of calls of a provider's batch, by state."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class _Problem(msgspec.Struct, frozen=True):
    message: str | None = None
    code: str | None = None


class _Problems(msgspec.Struct, frozen=True):
    data: list[_Problem] | None = None


class ProviderBatch(msgspec.Struct, frozen=True):
    """A batch at the provider, with the field names of OpenAI's API."""

    id: str
    status: str
    created_at: int = 0
    metadata: dict[str, str] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: RequestCounts | None = None
    errors: _Problems | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the batch is in a final state."""
        return self.status in ENDED_STATUSES

    @property
    def problem(self) -> str:
        """Why it failed, in the provider's words."""
        found = [p.message or p.code or "" for p in (self.errors.data if self.errors else None) or ()]
        return "; ".join(text for text in found if text)[:500]


@dataclass(frozen=True, slots=True)
class OrderInput:
    """The input of an order: calls of `endpoint` in the file `path`; `file` is its id at the provider once uploaded.

    `headers` are complete header lines that the client's own request would have had.
    """

    order: UUID
    endpoint: str
    path: Path
    file: str = ""
    headers: bytes = b""


@dataclass(frozen=True, slots=True)
class OrderQuery:
    """An order that the provider may have, as it is looked for: it has `lines` calls, was created at `since` and sent
    at `sent` (seconds since the epoch; None: not sent as far as we know). `others` are batches that belong to other
    orders."""

    order: UUID
    lines: int
    since: float
    sent: float | None = None
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FoundBatches:
    """The batches at the provider that are the order, oldest first; `undecided` is a running batch that may be."""

    batches: list[str] = field(default_factory=list)
    undecided: str = ""


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One HTTP request to the provider."""

    method: bytes
    path: bytes
    body: bytes = b""
    header_lines: bytes = b""
    """Further complete header lines; they name the content type of the body or upload."""
    upload: tuple[bytes, Path, bytes] | None = None
    """A body that is streamed from a file: (bytes before it, the file, bytes after it)."""


class Provider(ABC):
    """The batch API of one deployment. Every request raises `ProviderUnavailable` or `ProviderRefused` on failure."""

    separator = b""
    """Bytes between two calls in an input file."""

    def __init__(self, gateway: Gateway, deployment: Deployment, fallback: Deployment | None = None) -> None:
        """`fallback`: the same deployment with its present key, used once the key of `deployment` is refused."""
        self._gateway = gateway
        self._deployment = deployment
        self._fallback = fallback

    def max_request_seconds(self, path: Path) -> float:  # noqa: ARG002 -- matters where the order holds the input
        """Seconds after which a request that orders the input at `path` can no longer be in flight."""
        deployment = self._deployment
        return (deployment.connect_ms + deployment.first_token_ms + deployment.idle_ms) / 1000 + _SLACK_SECONDS

    @abstractmethod
    def line(self, order: UUID, call: UUID, endpoint: str, body: bytes) -> bytes:
        """A call as it is written to the input file of an order."""

    @abstractmethod
    async def create(self, order_input: OrderInput) -> str:
        """Create the batch and return its id at the provider. A provider that heeds Idempotency-Key creates it once,
        however often it is requested."""

    @abstractmethod
    async def find(self, query: OrderQuery) -> FoundBatches:
        """Find the batches at the provider that are an order."""

    @abstractmethod
    async def retrieve(self, name: str) -> ProviderBatch:
        """The present state of a batch."""

    @abstractmethod
    async def cancel(self, name: str) -> None:
        """Request the end of a batch. One that has already ended stays as it is."""

    @abstractmethod
    def content(self, name: str) -> AsyncGenerator[bytes, None]:
        """The bytes of a result file, in OpenAI's format."""

    @abstractmethod
    async def delete(self, name: str) -> None:
        """Delete a file, so that no copy of prompts and answers stays at the provider."""

    # requests ---------------------------------------------------------------------------------------------------------

    def _target(self) -> Target:
        targets, deployment = self._gateway.targets, self._deployment
        return targets.with_key(deployment, 0) if deployment.keys else targets.of(deployment)

    async def _request(self, request: ProviderRequest) -> bytes:
        """The complete body of the answer, with our secrets removed, which some providers repeat. Raises
        `ProviderUnavailable`, `ProviderRefused`."""
        connection = await self._send(request)
        try:
            return self._target().mask_answer(await connection.read_body(self._deployment.idle_ms / 1000))
        except UpstreamFailure as failure:
            raise ProviderUnavailable(str(failure), may_have_acted=True) from failure
        finally:
            connection.release()

    async def _stream(self, request: ProviderRequest) -> AsyncGenerator[bytes, None]:
        """The body of the answer in chunks, with our secrets removed. Raises `ProviderUnavailable`,
        `ProviderRefused`."""
        connection = await self._send(request)
        idle, rest = self._deployment.idle_ms / 1000, b""
        try:
            target = self._target()
            held_back = max([len(secret) - 1 for secret in target.secrets], default=0)
            while (data := await connection.read_chunk(idle)) is not None:
                data = target.mask_answer(rest + data)
                end = max(0, len(data) - held_back)  # a secret may be split over two chunks
                rest = data[end:]
                yield data[:end]
            yield rest
        except UpstreamFailure as failure:
            raise ProviderUnavailable(str(failure), may_have_acted=False) from failure
        finally:
            connection.release()

    async def _send(self, request: ProviderRequest) -> UpstreamConnection:
        """Send the request; return the connection once status 200 was read, its body still unread. Retried once with
        the `fallback` key. Raises `ProviderUnavailable`, `ProviderRefused`."""
        try:
            return await self._send_once(request)
        except ProviderKeyRefused:
            if self._fallback is None:
                raise
            self._deployment, self._fallback = self._fallback, None
            return await self._send(request)

    async def _send_once(self, request: ProviderRequest) -> UpstreamConnection:
        """As `_send`, without a retry. Always over a new connection, so that a stale one is never the cause."""
        deployment = self._deployment
        may_have_acted = False
        connection: UpstreamConnection | None = None
        try:
            target = self._target()
        except UpstreamFailure as failure:  # there is no secret
            raise ProviderKeyRefused(str(failure), may_have_acted=False) from failure
        try:
            connection = await target.pool.connect(deployment.connect_ms / 1000)
            may_have_acted = True
            await _write(connection, target, request)
            status = await connection.read_head(deployment.first_token_ms / 1000)
            if status == 200:
                return connection
            body = target.mask_refusal(await connection.read_body(deployment.idle_ms / 1000))
        except UpstreamFailure as failure:
            if connection is not None:
                connection.release()
            raise ProviderUnavailable(str(failure), may_have_acted=may_have_acted and failure.sent) from failure
        except BaseException:
            if connection is not None:
                connection.abort()
            raise
        connection.release()
        meaning = actual_status(status, body)
        if meaning in _KEY_STATUSES:
            raise ProviderKeyRefused(f"the provider answered {status}", may_have_acted=False)
        if meaning in _TEMPORARY_STATUSES or meaning >= 500 or meaning < 400:
            raise ProviderUnavailable(
                f"the provider answered {status}", may_have_acted=meaning not in _TEMPORARY_STATUSES
            )
        raise ProviderRefused(_error_message(body) or f"the provider answered {status}", status)


class UploadingProvider(Provider):
    """A provider whose orders name a file: the input is uploaded before the batch is created."""

    @abstractmethod
    async def find_uploads(self, filename: str) -> list[str]:
        """The provider's ids of the input files with this name, newest first."""

    @abstractmethod
    async def upload(self, path: Path, filename: str) -> str:
        """Upload an input file and return its id at the provider."""


async def _write(connection: UpstreamConnection, target: Target, request: ProviderRequest) -> None:
    size = len(request.body)
    if request.upload is not None:
        size = len(request.upload[0]) + request.upload[1].stat().st_size + len(request.upload[2])
    head = b"%b %b%b HTTP/1.1\r\nhost: %b\r\n%buser-agent: groundplan\r\naccept: application/json\r\n%b" % (
        request.method, target.pool.prefix, request.path, target.host, target.authorization_line, request.header_lines,
    )  # fmt: skip
    length = b"" if request.method in (b"GET", b"DELETE") else b"content-length: %d\r\n" % size
    if request.upload is None:
        connection.send(head + length + b"\r\n" + request.body)
        return
    if not isinstance(connection, Http1Connection):
        raise UpstreamFailure("refused", "files go over HTTP/1.1 only", sent=False)
    connection.send(head + length + b"\r\n")
    try:
        async with patient(max_upload_seconds(request.upload[1])):
            await _write_file(connection, request.upload)
    except TimeoutError as error:
        raise UpstreamFailure("timeout", "the provider takes the file too slowly", sent=True) from error


def max_upload_seconds(path: Path) -> float:
    """The most seconds that the upload of a file may take. Raises `OSError`."""
    return _FILE_SECONDS + path.stat().st_size / _FILE_RATE


async def _write_file(connection: Http1Connection, upload: tuple[bytes, Path, bytes]) -> None:
    before, path, after = upload
    connection.is_request_incomplete = True
    connection.send(before)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while data := await in_reader(os.read, descriptor, _CHUNK_BYTES):
            if connection.status or connection.lost:
                return  # the provider has answered already; the caller reads that answer
            connection.send(data)
            await connection.drain(_CHUNK_WRITE_SECONDS)
    finally:
        os.close(descriptor)
    connection.send(after)
    connection.is_request_incomplete = False


async def split_lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[list[bytes], None]:
    """Yield the lines that end in each piece, and the last one. Lines of more than `MAX_RESULT_LINE` bytes are left
    out."""
    begun: list[bytes] = []
    size = 0
    async for piece in pieces:
        *ended, rest = piece.split(b"\n")
        if ended:
            size += len(ended[0])
            lines = [line for line in ended[1:] if len(line) <= MAX_RESULT_LINE]
            if size <= MAX_RESULT_LINE:
                lines.insert(0, b"".join((*begun, ended[0])))
            begun, size = [], 0
            yield lines
        size += len(rest)
        if size > MAX_RESULT_LINE:
            begun.clear()
        else:
            begun.append(rest)
    if begun:
        yield [b"".join(begun)]


class _Error(msgspec.Struct, frozen=True):
    message: str = ""


class _ErrorBody(msgspec.Struct, frozen=True):
    error: _Error | None = None


def decode_answer(data: bytes, kind: type[_Decoded]) -> _Decoded:
    """Decode a provider's answer. Raises `ProviderUnavailable`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except DECODE_ERRORS as error:
        raise ProviderUnavailable(
            "the provider's answer is not what its batch API promises", may_have_acted=True
        ) from error


def _error_message(data: bytes) -> str:
    try:
        error = msgspec.json.decode(data, type=_ErrorBody).error
    except DECODE_ERRORS:
        return ""
    return "" if error is None else error.message[:500]


def path_segment(text: str) -> bytes:
    """A provider's id as one segment of a path, checked so that it cannot name another path. Raises
    `ProviderUnavailable`."""
    if not text or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in text) or text.startswith("."):
        raise ProviderUnavailable("the provider uses a name that is none", may_have_acted=False)
    return text.encode("ascii")
