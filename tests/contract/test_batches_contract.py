"""What the gateway asks of a provider's batch API, held by the shipped scripted model and by the gateway's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, NotFoundError
from openai.types import Batch, FileObject
from tests.integration.gateway_stack import blueprint, deployment, installation, scripted, workload

from groundplan.testing.scripted import Script, ScriptedModel

OVER = ("completed", "failed", "expired", "cancelled")
NAME = "8b2f"


@dataclass
class Place:
    """Somebody who offers OpenAI's files and batches; `model` makes the calls in the end."""

    client: AsyncOpenAI
    model: ScriptedModel

    async def upload(self, count: int = 4) -> FileObject:
        body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "Where is it?"}]}
        line: dict[str, Any] = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        data = b"".join(json.dumps({"custom_id": f"c{n}", **line}).encode() + b"\n" for n in range(count))
        return await self.client.files.create(file=("calls.jsonl", data), purpose="batch")

    async def order(self, count: int = 4) -> Batch:
        file = await self.upload(count)
        return await self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"order": NAME}
        )

    async def over(self, batch: Batch) -> Batch:
        async with asyncio.timeout(30):
            while batch.status not in OVER:
                await asyncio.sleep(0.1)
                batch = await self.client.batches.retrieve(batch.id)
        return batch


@pytest.fixture(params=["scripted", pytest.param("gateway", marks=pytest.mark.soak)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with scripted("contract") as (model, port):
        if request.param == "scripted":
            async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0) as client:
                yield Place(client, model)
            return
        database = request.getfixturevalue("database")
        async with installation(database, tmp_path) as stack:
            stack.apply(blueprint(1, [deployment("contract", port)], [workload("assistant", ["contract"])]))
            stack.start()
            await stack.ready()
            url = f"http://127.0.0.1:{stack.port}/v1"
            async with AsyncOpenAI(base_url=url, api_key=stack.key(), max_retries=0) as client:
                yield Place(client, model)


async def test_a_batch_gives_each_call_its_result_by_its_name(place: Place) -> None:
    made = await place.order()
    assert made.status in ("validating", "in_progress") and made.metadata == {"order": NAME}
    batch = await place.over(made)
    assert batch.status == "completed" and batch.output_file_id is not None and batch.error_file_id is None
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed) == (4, 4)
    found = [json.loads(text) for text in (await place.client.files.content(batch.output_file_id)).text.splitlines()]
    assert sorted(entry["custom_id"] for entry in found) == ["c0", "c1", "c2", "c3"]
    for entry in found:
        assert entry["error"] is None and entry["response"]["status_code"] == 200
        assert entry["response"]["body"]["usage"]["completion_tokens"] > 0
    assert place.model.counted == 4


async def test_a_batch_is_found_again_by_its_metadata(place: Place) -> None:
    first, second = await place.order(1), await place.order(1)
    found = [batch async for batch in place.client.batches.list(limit=1)]
    assert [batch.id for batch in found] == [second.id, first.id], "newest first, page by page"
    assert all(batch.metadata == {"order": NAME} for batch in found)


async def test_a_cancelled_batch_keeps_what_was_made(place: Place) -> None:
    place.model.script = Script(line_ms=100, latency_ms=100)
    made = await place.order(30)
    async with asyncio.timeout(20):
        while (counts := (await place.client.batches.retrieve(made.id)).request_counts) is None or not counts.completed:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await place.client.batches.cancel(made.id)).status == "cancelling"
    batch = await place.over(made)
    assert batch.status == "cancelled" and batch.output_file_id is not None and batch.error_file_id is not None
    errors = [json.loads(text) for text in (await place.client.files.content(batch.error_file_id)).text.splitlines()]
    assert {entry["error"]["code"] for entry in errors} == {"batch_cancelled"}


async def test_files_are_listed_read_and_deleted(place: Place) -> None:
    file = await place.upload(1)
    listed = [each async for each in place.client.files.list(purpose="batch")]
    assert file.id in [each.id for each in listed] and file.filename == "calls.jsonl"
    assert (await place.client.files.content(file.id)).content.startswith(b'{"custom_id": "c0"')
    assert (await place.client.files.delete(file.id)).deleted
    for ask in (place.client.files.retrieve(file.id), place.client.batches.retrieve("batch_" + "0" * 32)):
        with pytest.raises(NotFoundError):
            await ask


async def test_what_cannot_be_made_is_refused(place: Place) -> None:
    with pytest.raises(APIStatusError):
        await place.client.files.create(file=b"x", purpose="fine-tune")
    file = await place.upload(1)
    with pytest.raises(APIStatusError):
        await place.client.batches.create(input_file_id=file.id, endpoint="/v1/videos", completion_window="24h")
