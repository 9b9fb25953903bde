"""OpenAI's batch API: uploads and downloads files; creates, polls and cancels batches, and finds those of an order by
the order id in their metadata."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import UUID

import msgspec

from groundplan.gateway.batches.providers.provider import (
    JSON,
    FoundBatches,
    OrderInput,
    OrderQuery,
    ProviderBatch,
    ProviderRefused,
    ProviderRequest,
    ProviderUnavailable,
    UploadingProvider,
    decode_answer,
    path_segment,
)

METADATA = "groundplan_order"
"""Metadata field of a provider's batch that holds the id of our order."""
WINDOW = "24h"
_MAX_PAGES = 50
"""Pages of 100 batches, newest first, in which an order is looked for."""


_IN_PROGRESS = 409
"""HTTP status of a request whose Idempotency-Key belongs to one that is still being answered."""


class _File(msgspec.Struct, frozen=True):
    id: str
    filename: str = ""


class _Page(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw] = []
    has_more: bool = False


class OpenAIBatches(UploadingProvider):
    """The batch API of a deployment that speaks OpenAI's API."""

    def line(self, order: UUID, call: UUID, endpoint: str, body: bytes) -> bytes:  # noqa: ARG002 -- the metadata name the order
        call_line = {"custom_id": call.hex, "method": "POST", "url": endpoint, "body": msgspec.Raw(body)}
        return msgspec.json.encode(call_line) + b"\n"

    # orders -----------------------------------------------------------------------------------------------------------

    async def create(self, order_input: OrderInput) -> str:
        body = msgspec.json.encode(
            {
                "input_file_id": order_input.file,
                "endpoint": order_input.endpoint,
                "completion_window": WINDOW,
                "metadata": {METADATA: str(order_input.order)},
            }
        )
        lines = JSON + b"idempotency-key: %b\r\n" % str(order_input.order).encode("ascii")
        try:
            return decode_answer(
                await self._request(ProviderRequest(b"POST", b"/batches", body, lines)), ProviderBatch
            ).id
        except ProviderRefused as refused:
            if refused.status != _IN_PROGRESS:
                raise
            raise ProviderUnavailable("the provider works at this order already", may_have_acted=True) from refused

    async def find(self, query: OrderQuery) -> FoundBatches:
        found: list[str] = []
        after = b""
        for _ in range(_MAX_PAGES):
            page = decode_answer(await self._request(ProviderRequest(b"GET", b"/batches?limit=100" + after)), _Page)
            batches = [decode_answer(bytes(raw), ProviderBatch) for raw in page.data]
            found += [batch.id for batch in batches if (batch.metadata or {}).get(METADATA) == str(query.order)]
            if not page.has_more or not batches or batches[-1].created_at < query.since:
                break
            after = b"&after=" + path_segment(batches[-1].id)
        return FoundBatches(found[::-1])

    async def retrieve(self, name: str) -> ProviderBatch:
        return decode_answer(
            await self._request(ProviderRequest(b"GET", b"/batches/" + path_segment(name))), ProviderBatch
        )

    async def cancel(self, name: str) -> None:
        try:
            await self._request(ProviderRequest(b"POST", b"/batches/%b/cancel" % path_segment(name), b"", JSON))
        except ProviderRefused as refused:
            if refused.status not in (400, 409):
                raise

    # files ------------------------------------------------------------------------------------------------------------

    async def upload(self, path: Path, filename: str) -> str:
        boundary = b"groundplan-%b" % secrets.token_hex(12).encode("ascii")
        before = (
            b'--%b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n'
            b"Content-Type: application/jsonl\r\n\r\n"
        ) % (boundary, boundary, filename.encode("ascii"))
        lines = b"content-type: multipart/form-data; boundary=%b\r\n" % boundary
        request = ProviderRequest(
            b"POST", b"/files", header_lines=lines, upload=(before, path, b"\r\n--%b--\r\n" % boundary)
        )
        return decode_answer(await self._request(request), _File).id

    async def find_uploads(self, filename: str) -> list[str]:
        page = decode_answer(await self._request(ProviderRequest(b"GET", b"/files?purpose=batch&limit=1000")), _Page)
        files = [decode_answer(bytes(raw), _File) for raw in page.data]
        return [file.id for file in files if file.filename == filename]

    def content(self, name: str) -> AsyncGenerator[bytes, None]:
        return self._stream(ProviderRequest(b"GET", b"/files/%b/content" % path_segment(name)))

    async def delete(self, name: str) -> None:
        await self._request(ProviderRequest(b"DELETE", b"/files/" + path_segment(name)))
