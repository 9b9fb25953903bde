"""A provider's own batch endpoint, as OpenAI has it: files up and down, orders given, found again, looked at and ended.

One request at a time over the deployment's own connections, with its key. Says of each failure whether the provider may
have acted on it. When what is asked is `orders`'s.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.upstream.http1 import Http1Connection, UpstreamConnection, UpstreamFailure
from groundplan.gateway.upstream.targets import Target

METADATA = "groundplan_order"
"""Name under which an order bears our id at the provider."""
WINDOW = "24h"
OVER = frozenset({"completed", "failed", "expired", "cancelled"})
_PAGES = 50
"""Of a hundred batches each, newest first: as far back as an order is looked for."""
_PASSING = frozenset({401, 403, 408, 425, 429})
"""Refusals that are about our key or about now, and certainly ended nothing and began nothing."""
_CHUNK = 256 << 10
_WRITE_SECONDS = 30.0
_JSON = b"content-type: application/json\r\n"
_Made = TypeVar("_Made")


class Away(Exception):
    """The provider gave no usable answer. `acted`: it may have done what was asked all the same."""

    def __init__(self, reason: str, *, acted: bool) -> None:
        super().__init__(reason)
        self.acted = acted


class Refused(Exception):
    """The provider will not do it, however often it is asked. `status` is HTTP's."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class _Counts(msgspec.Struct, frozen=True):
    total: int = 0
    completed: int = 0
    failed: int = 0


class _Problem(msgspec.Struct, frozen=True):
    message: str | None = None
    code: str | None = None


class _Problems(msgspec.Struct, frozen=True):
    data: list[_Problem] | None = None


class ProviderBatch(msgspec.Struct, frozen=True):
    """An order as the provider has it."""

    id: str
    status: str
    created_at: int = 0
    metadata: dict[str, str] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: _Counts | None = None
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


class _File(msgspec.Struct, frozen=True):
    id: str
    filename: str = ""


class _Page(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw] = []
    has_more: bool = False


class _Error(msgspec.Struct, frozen=True):
    message: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    method: bytes
    path: bytes
    body: bytes = b""
    lines: bytes = b""
    """Further header lines; with a `form` they name its type."""
    form: tuple[bytes, Path, bytes] | None = None
    """What goes before a file, the file, and what goes behind it."""


class Provider:
    """One deployment's batch endpoint."""

    def __init__(self, gateway: Gateway, deployment: Deployment) -> None:
        self._gateway = gateway
        self._deployment = deployment

    # orders ----------------------------------------------------------------------------------------------------------

    async def create(self, file: str, endpoint: str, order: UUID) -> ProviderBatch:
        """Order what is in a file. A provider that heeds Idempotency-Key takes it once, however often it is asked.

        Raises `Away`, `Refused`.
        """
        body = msgspec.json.encode(
            {
                "input_file_id": file,
                "endpoint": endpoint,
                "completion_window": WINDOW,
                "metadata": {METADATA: str(order)},
            }
        )
        lines = _JSON + b"idempotency-key: %b\r\n" % str(order).encode("ascii")
        return _read(await self._ask(_Asked(b"POST", b"/batches", body, lines)), ProviderBatch)

    async def find(self, order: UUID, since: float) -> list[ProviderBatch]:
        """Every batch that bears the order's id, oldest first; none is older than `since` (seconds since the epoch)."""
        found: list[ProviderBatch] = []
        after = b""
        for _ in range(_PAGES):
            page = _read(await self._ask(_Asked(b"GET", b"/batches?limit=100" + after)), _Page)
            batches = [_read(bytes(raw), ProviderBatch) for raw in page.data]
            found += [batch for batch in batches if (batch.metadata or {}).get(METADATA) == str(order)]
            if not page.has_more or not batches or batches[-1].created_at < since:
                break
            after = b"&after=" + _name(batches[-1].id)
        return found[::-1]

    async def retrieve(self, name: str) -> ProviderBatch:
        return _read(await self._ask(_Asked(b"GET", b"/batches/" + _name(name))), ProviderBatch)

    async def cancel(self, name: str) -> None:
        """Ask for its end. What has ended already stays as it is."""
        try:
            await self._ask(_Asked(b"POST", b"/batches/%b/cancel" % _name(name), b"", _JSON))
        except Refused as refused:
            if refused.status not in (400, 409):
                raise

    # files -----------------------------------------------------------------------------------------------------------

    async def upload(self, path: Path, filename: str) -> str:
        """The provider's name of a file that it has now."""
        boundary = b"groundplan-%b" % secrets.token_hex(12).encode("ascii")
        before = (
            b'--%b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n'
            b"Content-Type: application/jsonl\r\n\r\n"
        ) % (boundary, boundary, filename.encode("ascii"))
        lines = b"content-type: multipart/form-data; boundary=%b\r\n" % boundary
        asked = _Asked(b"POST", b"/files", lines=lines, form=(before, path, b"\r\n--%b--\r\n" % boundary))
        return _read(await self._ask(asked), _File).id

    async def uploaded(self, filename: str) -> str | None:
        """The newest file of that name, where there is one."""
        page = _read(await self._ask(_Asked(b"GET", b"/files?purpose=batch&limit=1000")), _Page)
        files = [_read(bytes(raw), _File) for raw in page.data]
        return next((file.id for file in files if file.filename == filename), None)

    async def content(self, name: str) -> AsyncIterator[bytes]:
        """The bytes of a file. Raises `Away`, `Refused`."""
        connection = await self._send(_Asked(b"GET", b"/files/%b/content" % _name(name)))
        idle = self._deployment.idle_ms / 1000
        try:
            while (data := await connection.chunk(idle)) is not None:
                yield data
        except UpstreamFailure as failure:
            raise Away(str(failure), acted=False) from failure
        finally:
            connection.release()

    async def delete(self, name: str) -> None:
        """Leave no copy of prompts and answers at the provider."""
        await self._ask(_Asked(b"DELETE", b"/files/" + _name(name)))

    # requests --------------------------------------------------------------------------------------------------------

    def _target(self) -> Target:
        targets, deployment = self._gateway.targets, self._deployment
        return targets.with_key(deployment, 0) if deployment.keys else targets.of(deployment)

    async def _ask(self, asked: _Asked) -> bytes:
        """The whole answer. Raises `Away`, `Refused`."""
        connection = await self._send(asked)
        try:
            return await connection.body(self._deployment.idle_ms / 1000)
        except UpstreamFailure as failure:
            raise Away(str(failure), acted=True) from failure
        finally:
            connection.release()

    async def _send(self, asked: _Asked) -> UpstreamConnection:
        """A connection whose answer has a good head. Always a new one, so that a stale one is never the reason."""
        deployment = self._deployment
        acted = False
        connection: UpstreamConnection | None = None
        try:
            target = self._target()
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
        if status in _PASSING or status >= 500 or status < 400:
            raise Away(f"the provider answered {status}", acted=status not in _PASSING)
        raise Refused(_said(told) or f"the provider answered {status}", status)


async def _write(connection: UpstreamConnection, target: Target, asked: _Asked) -> None:
    size = len(asked.body)
    if asked.form is not None:
        size = len(asked.form[0]) + asked.form[1].stat().st_size + len(asked.form[2])
    head = b"%b %b%b HTTP/1.1\r\nhost: %b\r\n%buser-agent: groundplan\r\naccept: application/json\r\n%b" % (
        asked.method, target.pool.prefix, asked.path, target.host, target.authorization, asked.lines,
    )  # fmt: skip
    length = b"" if asked.method in (b"GET", b"DELETE") else b"content-length: %d\r\n" % size
    connection.send(head + length + b"\r\n" + asked.body)
    if asked.form is None:
        return
    if not isinstance(connection, Http1Connection):
        raise UpstreamFailure("refused", "files go over HTTP/1.1 only", sent=False)
    before, path, behind = asked.form
    connection.unfinished = True
    connection.send(before)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while data := await asyncio.to_thread(os.read, descriptor, _CHUNK):
            if connection.status or connection.lost:
                return  # it has answered already: what it says is read next
            connection.send(data)
            await connection.drained(_WRITE_SECONDS)
    finally:
        os.close(descriptor)
    connection.send(behind)
    connection.unfinished = False


def _read(data: bytes, kind: type[_Made]) -> _Made:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Away("the provider's answer is not what its batch API promises", acted=True) from error


def _said(data: bytes) -> str:
    try:
        error = msgspec.json.decode(data, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return "" if error is None else error.message[:500]


def _name(text: str) -> bytes:
    """A provider's name as a part of a path; nothing in it can change which path that is."""
    if not text or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in text) or text.startswith("."):
        raise Away("the provider uses a name that is none", acted=False)
    return text.encode("ascii")
