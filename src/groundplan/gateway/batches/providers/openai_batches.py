"""OpenAI's batch API: files up and down, orders given, found again by the id in their metadata, looked at and ended."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import UUID

import msgspec

from groundplan.gateway.batches.providers.provider import (
    JSON,
    Asked,
    Away,
    Found,
    Input,
    ProviderBatch,
    Refused,
    Sought,
    UploadingProvider,
    name_in_path,
    read,
)

METADATA = "groundplan_order"
"""Name under which an order bears our id at the provider."""
WINDOW = "24h"
_PAGES = 50
"""Of a hundred batches each, newest first: as far back as an order is looked for."""


_UNDER_WAY = 409
"""What is said to a request whose Idempotency-Key is that of one which is not answered yet."""


class _File(msgspec.Struct, frozen=True):
    id: str
    filename: str = ""


class _Page(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw] = []
    has_more: bool = False


class OpenAIBatches(UploadingProvider):
    """See the module."""

    def line(self, order: UUID, call: UUID, endpoint: str, body: bytes) -> bytes:  # noqa: ARG002 -- the order is named
        one = {"custom_id": call.hex, "method": "POST", "url": endpoint, "body": msgspec.Raw(body)}
        return msgspec.json.encode(one) + b"\n"

    # orders ----------------------------------------------------------------------------------------------------------

    async def create(self, given: Input) -> str:
        body = msgspec.json.encode(
            {
                "input_file_id": given.file,
                "endpoint": given.endpoint,
                "completion_window": WINDOW,
                "metadata": {METADATA: str(given.order)},
            }
        )
        lines = JSON + b"idempotency-key: %b\r\n" % str(given.order).encode("ascii")
        try:
            return read(await self._ask(Asked(b"POST", b"/batches", body, lines)), ProviderBatch).id
        except Refused as refused:
            if refused.status != _UNDER_WAY:
                raise
            raise Away("the provider works at this order already", acted=True) from refused

    async def find(self, sought: Sought) -> Found:
        found: list[str] = []
        after = b""
        for _ in range(_PAGES):
            page = read(await self._ask(Asked(b"GET", b"/batches?limit=100" + after)), _Page)
            batches = [read(bytes(raw), ProviderBatch) for raw in page.data]
            found += [batch.id for batch in batches if (batch.metadata or {}).get(METADATA) == str(sought.order)]
            if not page.has_more or not batches or batches[-1].created_at < sought.since:
                break
            after = b"&after=" + name_in_path(batches[-1].id)
        return Found(found[::-1])

    async def retrieve(self, name: str) -> ProviderBatch:
        return read(await self._ask(Asked(b"GET", b"/batches/" + name_in_path(name))), ProviderBatch)

    async def cancel(self, name: str) -> None:
        try:
            await self._ask(Asked(b"POST", b"/batches/%b/cancel" % name_in_path(name), b"", JSON))
        except Refused as refused:
            if refused.status not in (400, 409):
                raise

    # files -----------------------------------------------------------------------------------------------------------

    async def upload(self, path: Path, filename: str) -> str:
        boundary = b"groundplan-%b" % secrets.token_hex(12).encode("ascii")
        before = (
            b'--%b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n'
            b"Content-Type: application/jsonl\r\n\r\n"
        ) % (boundary, boundary, filename.encode("ascii"))
        lines = b"content-type: multipart/form-data; boundary=%b\r\n" % boundary
        asked = Asked(b"POST", b"/files", lines=lines, form=(before, path, b"\r\n--%b--\r\n" % boundary))
        return read(await self._ask(asked), _File).id

    async def uploaded(self, filename: str) -> str | None:
        page = read(await self._ask(Asked(b"GET", b"/files?purpose=batch&limit=1000")), _Page)
        files = [read(bytes(raw), _File) for raw in page.data]
        return next((file.id for file in files if file.filename == filename), None)

    def content(self, name: str) -> AsyncGenerator[bytes, None]:
        return self._read_on(Asked(b"GET", b"/files/%b/content" % name_in_path(name)))

    async def delete(self, name: str) -> None:
        await self._ask(Asked(b"DELETE", b"/files/" + name_in_path(name)))
