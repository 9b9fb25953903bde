"""A provider's own batch API: what orders need of it, and one request at a time over the deployment's own connections,
with its key.

Says of each failure whether the provider may have acted on it. How orders look at OpenAI's is `openai_batches`'s, at
Anthropic's `message_batches`'s; when what is asked is `order_runner`'s.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.files.blobs import reading
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.stalls import patient
from groundplan.gateway.upstream.connection import UpstreamConnection, UpstreamFailure
from groundplan.gateway.upstream.http1 import Http1Connection
from groundplan.gateway.upstream.provider_refusals import meant
from groundplan.gateway.upstream.targets import Target

OVER = frozenset({"completed", "failed", "expired", "cancelled"})
JSON = b"content-type: application/json\r\n"
_PASSING = frozenset({401, 402, 403, 408, 425, 429})
"""Refusals that are about our key, our account or about now, and certainly ended nothing and began nothing."""
_OF_KEYS = frozenset({401, 403})
_CHUNK = 256 << 10
_WRITE_SECONDS = 30.0
_FILE_SECONDS, _FILE_RATE = 5.0, 64 << 10
"""A file may take so long, and a second more for so many bytes."""
_SLACK_SECONDS = 1.0
_Made = TypeVar("_Made")


class Away(Exception):
    """The provider gave no usable answer. `acted`: it may have done what was asked all the same."""

    def __init__(self, reason: str, *, acted: bool) -> None:
        super().__init__(reason)
        self.acted = acted


class KeyRefused(Away):
    """Because of the key."""


class Refused(Exception):
    """The provider will not do it, however often it is asked. `status` is HTTP's."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class Counts(msgspec.Struct, frozen=True):
    """Of the calls of a batch."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class _Problem(msgspec.Struct, frozen=True):
    message: str | None = None
    code: str | None = None


class _Problems(msgspec.Struct, frozen=True):
    data: list[_Problem] | None = None


class ProviderBatch(msgspec.Struct, frozen=True):
    """An order as the provider has it, in the words of OpenAI's API."""

    id: str
    status: str
    created_at: int = 0
    metadata: dict[str, str] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: Counts | None = None
    errors: _Problems | None = None

    @property
    def over(self) -> bool:
        """Nothing more comes of it."""
        return self.status in OVER

    @property
    def problem(self) -> str:
        """Why it failed, in the provider's words."""
        found = [p.message or p.code or "" for p in (self.errors.data if self.errors else None) or ()]
        return "; ".join(text for text in found if text)[:500]


@dataclass(frozen=True, slots=True)
class Input:
    """What is ordered: calls of `endpoint`, in the file `path`, which the provider may have as `file`.

    `headers` are complete header lines that the caller's own request would have had.
    """

    order: UUID
    endpoint: str
    path: Path
    file: str = ""
    headers: bytes = b""


@dataclass(frozen=True, slots=True)
class Sought:
    """An order that the provider may have: of so many lines, written down at `since` and sent at `sent` (seconds since
    the epoch; None: not that we know). `others` are batches there that are known to be other orders."""

    order: UUID
    lines: int
    since: float
    sent: float | None = None
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """Every batch at the provider that is the order, oldest first; `open` is one of which that cannot be told yet."""

    batches: list[str] = field(default_factory=list)
    open: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: bytes
    path: bytes
    body: bytes = b""
    lines: bytes = b""
    """Further header lines; with a `form` they name its type."""
    form: tuple[bytes, Path, bytes] | None = None
    """What goes before a file, the file, and what goes behind it."""


class Provider(ABC):
    """One deployment's batch API. All that is asked of it raises `Away` and `Refused`."""

    joint = b""
    """What is between two calls in the file of an input."""

    def __init__(self, gateway: Gateway, deployment: Deployment, instead: Deployment | None = None) -> None:
        """`instead`: it with the key that it has now, which is asked with where its own opens nothing any more."""
        self._gateway = gateway
        self._deployment = deployment
        self._instead = instead

    def longest(self, path: Path) -> float:  # noqa: ARG002 -- those whose orders hold the input itself look at it
        """Seconds after which a request that orders the input at `path` cannot be under way any more."""
        place = self._deployment
        return (place.connect_ms + place.first_token_ms + place.idle_ms) / 1000 + _SLACK_SECONDS

    @abstractmethod
    def line(self, order: UUID, call: UUID, endpoint: str, body: bytes) -> bytes:
        """A call in the file of an order's input."""

    @abstractmethod
    async def create(self, given: Input) -> str:
        """Order it; the provider's name of the batch. One that heeds Idempotency-Key takes it once, however often it is
        asked."""

    @abstractmethod
    async def find(self, sought: Sought) -> Found:
        """Whether the provider has an order."""

    @abstractmethod
    async def retrieve(self, name: str) -> ProviderBatch: ...

    @abstractmethod
    async def cancel(self, name: str) -> None:
        """Ask for its end. What has ended already stays as it is."""

    @abstractmethod
    def content(self, name: str) -> AsyncGenerator[bytes, None]:
        """The bytes of a file of results, as OpenAI's."""

    @abstractmethod
    async def delete(self, name: str) -> None:
        """Leave no copy of prompts and answers at the provider."""

    # requests --------------------------------------------------------------------------------------------------------

    def _target(self) -> Target:
        targets, deployment = self._gateway.targets, self._deployment
        return targets.with_key(deployment, 0) if deployment.keys else targets.of(deployment)

    async def _ask(self, asked: Asked) -> bytes:
        """The whole answer, without our secret, which some repeat. Raises `Away`, `Refused`."""
        connection = await self._send(asked)
        try:
            return self._target().clean(await connection.body(self._deployment.idle_ms / 1000))
        except UpstreamFailure as failure:
            raise Away(str(failure), acted=True) from failure
        finally:
            connection.release()

    async def _read_on(self, asked: Asked) -> AsyncGenerator[bytes, None]:
        """An answer piece by piece, without our secret. Raises `Away`, `Refused`."""
        connection = await self._send(asked)
        idle, rest = self._deployment.idle_ms / 1000, b""
        try:
            target = self._target()
            kept = max([len(each) - 1 for each in target.secrets], default=0)
            while (data := await connection.chunk(idle)) is not None:
                data = target.clean(rest + data)
                upto = max(0, len(data) - kept)  # our secret may come in two pieces
                rest = data[upto:]
                yield data[:upto]
            yield rest
        except UpstreamFailure as failure:
            raise Away(str(failure), acted=False) from failure
        finally:
            connection.release()

    async def _send(self, asked: Asked) -> UpstreamConnection:
        """A connection whose answer has a good head. Raises `Away`, `Refused`."""
        try:
            return await self._tried(asked)
        except KeyRefused:
            if self._instead is None:
                raise
            self._deployment, self._instead = self._instead, None
            return await self._send(asked)

    async def _tried(self, asked: Asked) -> UpstreamConnection:
        """As `_send`. Always a new one, so that a stale one is never the reason."""
        deployment = self._deployment
        acted = False
        connection: UpstreamConnection | None = None
        try:
            target = self._target()
        except UpstreamFailure as failure:  # there is no secret
            raise KeyRefused(str(failure), acted=False) from failure
        try:
            connection = await target.pool.connect(deployment.connect_ms / 1000)
            acted = True
            await _write(connection, target, asked)
            status = await connection.head(deployment.first_token_ms / 1000)
            if status == 200:
                return connection
            told = target.hide(await connection.body(deployment.idle_ms / 1000))
        except UpstreamFailure as failure:
            if connection is not None:
                connection.release()
            raise Away(str(failure), acted=acted and failure.sent) from failure
        except BaseException:
            if connection is not None:
                connection.abort()
            raise
        connection.release()
        about = meant(status, told)
        if about in _OF_KEYS:
            raise KeyRefused(f"the provider answered {status}", acted=False)
        if about in _PASSING or about >= 500 or about < 400:
            raise Away(f"the provider answered {status}", acted=about not in _PASSING)
        raise Refused(_said(told) or f"the provider answered {status}", status)


class UploadingProvider(Provider):
    """One whose orders name a file: the input is put there before it is ordered."""

    @abstractmethod
    async def uploaded(self, filename: str) -> str | None:
        """The provider's name of the newest input of that name, where it has one."""

    @abstractmethod
    async def upload(self, path: Path, filename: str) -> str:
        """The provider's name of an input that it has now."""


async def _write(connection: UpstreamConnection, target: Target, asked: Asked) -> None:
    size = len(asked.body)
    if asked.form is not None:
        size = len(asked.form[0]) + asked.form[1].stat().st_size + len(asked.form[2])
    head = b"%b %b%b HTTP/1.1\r\nhost: %b\r\n%buser-agent: groundplan\r\naccept: application/json\r\n%b" % (
        asked.method, target.pool.prefix, asked.path, target.host, target.authorization, asked.lines,
    )  # fmt: skip
    length = b"" if asked.method in (b"GET", b"DELETE") else b"content-length: %d\r\n" % size
    if asked.form is None:
        connection.send(head + length + b"\r\n" + asked.body)
        return
    if not isinstance(connection, Http1Connection):
        raise UpstreamFailure("refused", "files go over HTTP/1.1 only", sent=False)
    connection.send(head + length + b"\r\n")
    try:
        async with patient(file_seconds(asked.form[1])):
            await _write_file(connection, asked.form)
    except TimeoutError as error:
        raise UpstreamFailure("timeout", "the provider takes the file too slowly", sent=True) from error


def file_seconds(path: Path) -> float:
    """The longest that a file may take on its way. Raises `OSError`."""
    return _FILE_SECONDS + path.stat().st_size / _FILE_RATE


async def _write_file(connection: Http1Connection, form: tuple[bytes, Path, bytes]) -> None:
    before, path, behind = form
    connection.unfinished = True
    connection.send(before)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while data := await reading(os.read, descriptor, _CHUNK):
            if connection.status or connection.lost:
                return  # it has answered already: what it says is read next
            connection.send(data)
            await connection.drained(_WRITE_SECONDS)
    finally:
        os.close(descriptor)
    connection.send(behind)
    connection.unfinished = False


class _Error(msgspec.Struct, frozen=True):
    message: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error | None = None


def read(data: bytes, kind: type[_Made]) -> _Made:
    """A provider's answer. Raises `Away`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except DECODE_ERRORS as error:
        raise Away("the provider's answer is not what its batch API promises", acted=True) from error


def _said(data: bytes) -> str:
    try:
        error = msgspec.json.decode(data, type=_Refusal).error
    except DECODE_ERRORS:
        return ""
    return "" if error is None else error.message[:500]


def name_in_path(text: str) -> bytes:
    """A provider's name as a part of a path; nothing in it can change which path that is. Raises `Away`."""
    if not text or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in text) or text.startswith("."):
        raise Away("the provider uses a name that is none", acted=False)
    return text.encode("ascii")
