"""Anthropic's message batches: one request orders all calls, and what each came to is one file of results.

Such a batch bears no name of ours, but each of its calls does: its `custom_id` is the order's id and the call's. Where
nobody knows whether the provider took an order, the batches of that time with as many calls are looked at: the results
of one that has ended say whose it was. So an order is never sent again while one that runs may be it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from uuid import UUID

import msgspec

from groundplan.gateway.batches.providers.provider import (
    JSON,
    Asked,
    Away,
    Counts,
    Found,
    Input,
    Provider,
    ProviderBatch,
    Refused,
    Sought,
    file_seconds,
    name_in_path,
    read,
)
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.messages.errors import status_of
from groundplan.gateway.surfaces.messages.surface import VERSION
from groundplan.gateway.surfaces.upstream_json import decode_upstream

_PATH = b"/messages/batches"
_VERSION = b"anthropic-version: %b\r\n" % VERSION
_PAGES = 50
_SKEW_SECONDS = 300.0
"""Most that the provider's clock may differ from ours."""
_LONGEST_SECONDS = 3600.0
"""Longest that the largest order may be under way."""
_MOST_HEAD = 8 << 20
"""Of a file of results, in which its first line must end."""
_STATES = {"in_progress": "in_progress", "canceling": "cancelling", "ended": "completed"}
_encode = msgspec.json.Encoder().encode


class _Tally(msgspec.Struct, frozen=True):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        return self.processing + self.succeeded + self.errored + self.canceled + self.expired


class _Batch(msgspec.Struct, frozen=True):
    id: str
    processing_status: str
    created_at: str
    request_counts: _Tally

    @property
    def made_at(self) -> float:
        """Seconds since the epoch. Raises `Away`."""
        try:
            return datetime.fromisoformat(self.created_at).timestamp()
        except ValueError as error:
            raise Away("the provider's batch has no time", acted=False) from error


class _Page(msgspec.Struct, frozen=True):
    data: list[_Batch] = []
    has_more: bool = False


class _Fault(msgspec.Struct, frozen=True):
    type: str = ""


class _Error(msgspec.Struct, frozen=True):
    error: _Fault | None = None


class _Outcome(msgspec.Struct, frozen=True):
    type: str
    message: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Result(msgspec.Struct, frozen=True):
    custom_id: str
    result: _Outcome


_result = msgspec.json.Decoder(_Result).decode
_error = msgspec.json.Decoder(_Error).decode


class MessageBatches(Provider):
    """See the module."""

    joint = b",\n"

    def longest(self, path: Path) -> float:
        return super().longest(path) + (file_seconds(path) if path.exists() else _LONGEST_SECONDS)

    def line(self, order: UUID, call: UUID, endpoint: str, body: bytes) -> bytes:  # noqa: ARG002 -- there is one
        return _encode({"custom_id": order.hex + call.hex, "params": msgspec.Raw(body)})

    async def create(self, given: Input) -> str:
        lines = b"%b%bidempotency-key: %b\r\n" % (JSON, given.headers, str(given.order).encode("ascii"))
        asked = Asked(b"POST", _PATH, lines=lines, form=(b'{"requests":[', given.path, b"]}"))
        return read(await self._ask(asked), _Batch).id

    async def find(self, sought: Sought) -> Found:
        """Asks for nothing where the order was not sent as far as we know: what bears no name cannot be looked for."""
        if sought.sent is None:
            return Found()
        found: list[str] = []
        open_one = ""
        for batch in await self._since(sought.sent):
            if batch.id in sought.others or batch.request_counts.total != sought.lines:
                continue
            if batch.processing_status != "ended":
                open_one = batch.id
            elif await self._is_of(batch.id, sought.order):
                found.append(batch.id)
        return Found(found[::-1], open_one)

    async def _since(self, sent: float) -> list[_Batch]:
        """Those that were made when an order was sent at `sent`, newest first."""
        found: list[_Batch] = []
        after = b""
        for _ in range(_PAGES):
            page = read(await self._ask(Asked(b"GET", _PATH + b"?limit=100" + after, lines=_VERSION)), _Page)
            found += page.data
            if not page.has_more or not page.data or page.data[-1].made_at < sent - _SKEW_SECONDS:
                break
            after = b"&after_id=" + name_in_path(page.data[-1].id)
        first, last = sent - _SKEW_SECONDS, sent + _LONGEST_SECONDS + _SKEW_SECONDS
        return [batch for batch in found if first <= batch.made_at <= last]

    async def _is_of(self, name: str, order: UUID) -> bool:
        """Whether the calls of an ended batch are an order's."""
        head = b""
        try:
            async with aclosing(self._results(name)) as pieces:
                async for piece in pieces:
                    head += piece
                    if b"\n" in head or len(head) > _MOST_HEAD:
                        break
        except Refused:
            return False  # deleted, or so old that its results are gone: none of ours that is waited for
        try:
            return decode_upstream(_result, head.partition(b"\n")[0]).custom_id.startswith(order.hex)
        except Malformed:
            return False

    async def retrieve(self, name: str) -> ProviderBatch:
        batch = read(await self._ask(Asked(b"GET", _at(name), lines=_VERSION)), _Batch)
        state, found = _STATES.get(batch.processing_status, "in_progress"), batch.request_counts
        return ProviderBatch(
            id=batch.id,
            status=state,
            created_at=int(batch.made_at),
            output_file_id=batch.id if state == "completed" else None,
            request_counts=Counts(found.total, found.succeeded, found.errored + found.canceled + found.expired),
        )

    async def cancel(self, name: str) -> None:
        try:
            await self._ask(Asked(b"POST", _at(name) + b"/cancel", b"", JSON + _VERSION))
        except Refused as refused:
            if refused.status not in (400, 409):
                raise

    def _results(self, name: str) -> AsyncGenerator[bytes, None]:
        return self._read_on(Asked(b"GET", _at(name) + b"/results", lines=_VERSION))

    async def content(self, name: str) -> AsyncGenerator[bytes, None]:
        rest = b""
        async with aclosing(self._results(name)) as pieces:
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                yield b"".join(told_as_openai(line) for line in lines)
        yield told_as_openai(rest)

    async def delete(self, name: str) -> None:
        await self._ask(Asked(b"DELETE", _at(name), lines=_VERSION))


def _at(name: str) -> bytes:
    return b"%b/%b" % (_PATH, name_in_path(name))


def told_as_openai(line: bytes) -> bytes:
    """A line of Anthropic's results as one of OpenAI's; nothing for one that cannot be read."""
    try:
        found = decode_upstream(_result, line)
    except Malformed:
        return b""
    told = found.result
    response: dict[str, object] | None = None
    error: dict[str, str] | None = None
    if told.type == "succeeded":
        response = {"status_code": 200, "body": told.message}
    elif told.type == "errored":
        response = {"status_code": _status(bytes(told.error)), "body": told.error}
    else:
        code = {"canceled": "batch_cancelled", "expired": "batch_expired"}.get(told.type, "batch_line_failed")
        error = {"code": code, "message": f"the provider says: {told.type[:80]}"}
    return _encode({"custom_id": found.custom_id[-32:], "response": response, "error": error}) + b"\n"


def _status(error: bytes) -> int:
    try:
        fault = _error(error).error
    except DECODE_ERRORS:
        fault = None
    return status_of("" if fault is None else fault.type)
