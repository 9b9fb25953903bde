"""What bodies that are read while they arrive take of a worker's room: as much as is in memory of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.gateway_stack import parse_reply
from tests.unit.call_rig import Rig, call_rig, wait_until

from groundplan.core.home import Home
from groundplan.gateway.batches.batches_api import BatchesApi
from groundplan.gateway.call import pipeline
from groundplan.gateway.call.pipeline import Pipeline
from groundplan.gateway.files import quota
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.files.quota import Quota
from groundplan.gateway.http.body_stream import HIGH_WATER, STREAM_MEMORY

FILE = (
    b'--xyz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
)
ORDER = b'{"requests": [{"custom_id": "a", "params": {"text": "'


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the disk there is enough."""

    async def room(*_: object) -> Quota:
        return Quota(limit=1 << 40, stored=0)

    monkeypatch.setattr(quota, "current_quota", room)


def serve_files(rig: Rig, folder: Path) -> None:
    """Files and batches, too, without a database."""
    batches = BatchesApi(rig.gateway, "postgresql://127.0.0.1:1/none", Blobs(Home(folder), free=0))
    rig.server.handler, rig.server.is_streamed = (
        Pipeline(rig.gateway, batches=batches).handle,
        pipeline.has_streamed_body,
    )


async def begun(rig: Rig, path: str, kind: str, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has sent so much of 100 MB."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    head = f"POST {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\ncontent-type: {kind}\r\n"
    writer.write(head.encode() + b"content-length: 100000000\r\n\r\n" + data)
    return reader, writer


@pytest.mark.parametrize(
    ("path", "kind", "data", "kept"),
    [
        ("/v1/files", "multipart/form-data; boundary=xyz", FILE + bytes(2 << 20), 0),
        ("/v1/messages/batches", "application/json", ORDER, len(ORDER)),
        ("/v1/messages/batches", "application/json", ORDER + b"a" * (2 << 20), 2 << 20),
    ],
)
async def test_data_written_to_disk_takes_no_memory(
    tmp_path: Path, path: str, kind: str, data: bytes, kept: int
) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        serve_files(rig, tmp_path)
        _, writer = await begun(rig, path, kind, data)
        await wait_until(
            lambda: (
                max(1, kept) <= rig.server.held_bytes <= HIGH_WATER + kept + len(ORDER)
                and rig.server.held_bytes != STREAM_MEMORY
            )
        )
        writer.close()
        await wait_until(lambda: rig.server.held_bytes == 0)


async def test_a_large_batch_request_without_memory_is_refused(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        serve_files(rig, tmp_path)
        rig.server.held_bytes = full = rig.server.limits.total_body_bytes - (2 << 20)  # of others
        reader, writer = await begun(rig, "/v1/messages/batches", "application/json", ORDER + b"a" * (3 << 20))
        reply = parse_reply(await asyncio.wait_for(reader.read(), 20))
        assert reply.status == 503 and "all that is held" in reply.json["error"]["message"], reply.body
        writer.close()
        await wait_until(lambda: rig.server.held_bytes == full)
        rig.server.held_bytes = 0
