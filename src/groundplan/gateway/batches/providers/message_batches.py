"""Anthropic's message batches: one request creates a batch with all its calls; their results are one file.

Such a batch carries no id of ours, but each of its calls does: its `custom_id` is the order's id and the call's. Where
it is not known whether the provider took an order, the batches of that time with as many calls are examined: the
results of one that has ended say to which order it belongs. So an order is never sent again while a running batch may
be that order.
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
    FoundBatches,
    OrderInput,
    OrderQuery,
    Provider,
    ProviderBatch,
    ProviderRefused,
    ProviderRequest,
    ProviderUnavailable,
    RequestCounts,
    decode_answer,
    max_upload_seconds,
    path_segment,
    split_lines,
)
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.messages.errors import status_of
from groundplan.gateway.surfaces.messages.surface import VERSION
from groundplan.gateway.surfaces.upstream_json import decode_upstream

_PATH = b"/messages/batches"
_VERSION = b"anthropic-version: %b\r\n" % VERSION
_MAX_PAGES = 50
_SKEW_SECONDS = 300.0
"""The most that the provider's clock may differ from ours."""
_LONGEST_SECONDS = 3600.0
"""The longest that the request of the largest order may be in flight."""
_MAX_FIRST_LINE = 8 << 20
"""Bytes of a result file within which its first line must end."""
_STATES = {"in_progress": "in_progress", "canceling": "cancelling", "ended": "completed"}
_encode = msgspec.json.Encoder().encode


class _RequestCounts(msgspec.Struct, frozen=True):
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
    request_counts: _RequestCounts

    @property
    def created_seconds(self) -> float:
        """Seconds since the epoch. Raises `ProviderUnavailable`."""
        try:
            return datetime.fromisoformat(self.created_at).timestamp()
        except ValueError as error:
            raise ProviderUnavailable("the provider's batch has no time", may_have_acted=False) from error


class _Page(msgspec.Struct, frozen=True):
    data: list[_Batch] = []
    has_more: bool = False


class _ErrorType(msgspec.Struct, frozen=True):
    type: str = ""


class _Error(msgspec.Struct, frozen=True):
    error: _ErrorType | None = None


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
    """The batch API of a deployment that speaks Anthropic's API."""

    separator = b",\n"

    def max_request_seconds(self, path: Path) -> float:
        return super().max_request_seconds(path) + (max_upload_seconds(path) if path.exists() else _LONGEST_SECONDS)

    def line(self, order: UUID, call: UUID, endpoint: str, body: bytes) -> bytes:  # noqa: ARG002 -- there is only one endpoint
        return _encode({"custom_id": order.hex + call.hex, "params": msgspec.Raw(body)})

    async def create(self, order_input: OrderInput) -> str:
        lines = b"%b%bidempotency-key: %b\r\n" % (JSON, order_input.headers, str(order_input.order).encode("ascii"))
        request = ProviderRequest(
            b"POST", _PATH, header_lines=lines, upload=(b'{"requests":[', order_input.path, b"]}")
        )
        return decode_answer(await self._request(request), _Batch).id

    async def find(self, query: OrderQuery) -> FoundBatches:
        """As `Provider.find`. Requests nothing where the order was not sent as far as we know, since a batch without
        our id is only found by the time at which it was sent."""
        if query.sent is None:
            return FoundBatches()
        found: list[str] = []
        undecided = ""
        for batch in await self._batches_around(query.sent):
            if batch.id in query.others or batch.request_counts.total != query.lines:
                continue
            if batch.processing_status != "ended":
                undecided = batch.id
            elif await self._belongs_to_order(batch.id, query.order):
                found.append(batch.id)
        return FoundBatches(found[::-1], undecided)

    async def _batches_around(self, sent: float) -> list[_Batch]:
        """The batches that may have been created by an order that was sent at `sent`, newest first."""
        found: list[_Batch] = []
        after = b""
        for _ in range(_MAX_PAGES):
            page = decode_answer(
                await self._request(ProviderRequest(b"GET", _PATH + b"?limit=100" + after, header_lines=_VERSION)),
                _Page,
            )
            found += page.data
            if not page.has_more or not page.data or page.data[-1].created_seconds < sent - _SKEW_SECONDS:
                break
            after = b"&after_id=" + path_segment(page.data[-1].id)
        first, last = sent - _SKEW_SECONDS, sent + _LONGEST_SECONDS + _SKEW_SECONDS
        return [batch for batch in found if first <= batch.created_seconds <= last]

    async def _belongs_to_order(self, name: str, order: UUID) -> bool:
        """Whether the calls of an ended batch are those of an order."""
        head = b""
        try:
            async with aclosing(self._results(name)) as pieces:
                async for piece in pieces:
                    head += piece
                    if b"\n" in head or len(head) > _MAX_FIRST_LINE:
                        break
        except ProviderRefused:
            return False  # deleted, or so old that its results are gone: no batch that an order still waits for
        try:
            return decode_upstream(_result, head.partition(b"\n")[0]).custom_id.startswith(order.hex)
        except Malformed:
            return False

    async def retrieve(self, name: str) -> ProviderBatch:
        batch = decode_answer(
            await self._request(ProviderRequest(b"GET", _batch_path(name), header_lines=_VERSION)), _Batch
        )
        state, found = _STATES.get(batch.processing_status, "in_progress"), batch.request_counts
        return ProviderBatch(
            id=batch.id,
            status=state,
            created_at=int(batch.created_seconds),
            output_file_id=batch.id if state == "completed" else None,
            request_counts=RequestCounts(found.total, found.succeeded, found.errored + found.canceled + found.expired),
        )

    async def cancel(self, name: str) -> None:
        try:
            await self._request(ProviderRequest(b"POST", _batch_path(name) + b"/cancel", b"", JSON + _VERSION))
        except ProviderRefused as refused:
            if refused.status not in (400, 409):
                raise

    def _results(self, name: str) -> AsyncGenerator[bytes, None]:
        return self._stream(ProviderRequest(b"GET", _batch_path(name) + b"/results", header_lines=_VERSION))

    async def content(self, name: str) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._results(name)) as pieces, aclosing(split_lines(pieces)) as found:
            async for lines in found:
                yield b"".join(to_openai_line(line) for line in lines)

    async def delete(self, name: str) -> None:
        await self._request(ProviderRequest(b"DELETE", _batch_path(name), header_lines=_VERSION))


def _batch_path(name: str) -> bytes:
    return b"%b/%b" % (_PATH, path_segment(name))


def to_openai_line(line: bytes) -> bytes:
    """A line of Anthropic's results in OpenAI's format; empty for a line that cannot be read."""
    try:
        found = decode_upstream(_result, line)
    except Malformed:
        return b""
    outcome = found.result
    response: dict[str, object] | None = None
    error: dict[str, str] | None = None
    if outcome.type == "succeeded":
        response = {"status_code": 200, "body": outcome.message}
    elif outcome.type == "errored":
        response = {"status_code": _error_status(bytes(outcome.error)), "body": outcome.error}
    else:
        code = {"canceled": "batch_cancelled", "expired": "batch_expired"}.get(outcome.type, "batch_line_failed")
        error = {"code": code, "message": f"the provider says: {outcome.type[:80]}"}
    return _encode({"custom_id": found.custom_id[-32:], "response": response, "error": error}) + b"\n"


def _error_status(error: bytes) -> int:
    try:
        fault = _error(error).error
    except DECODE_ERRORS:
        fault = None
    return status_of("" if fault is None else fault.type)
