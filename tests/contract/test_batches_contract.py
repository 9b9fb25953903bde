"""The contract of a provider's batch API, which the shipped scripted model and the gateway's own batches keep."""

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
from tests.integration.gateway_stack import blueprint, deployment, installation, scripted_upstream, workload

from groundplan.testing.scripted import Script, ScriptedModel

ENDED = ("completed", "failed", "expired", "cancelled")
NAME = "8b2f"


@dataclass
class BatchProvider:
    """A server of OpenAI's files and batches; `model` answers the calls of a batch."""

    client: AsyncOpenAI
    model: ScriptedModel

    async def upload(self, count: int = 4) -> FileObject:
        body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "Where is it?"}]}
        line: dict[str, Any] = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        data = b"".join(json.dumps({"custom_id": f"c{n}", **line}).encode() + b"\n" for n in range(count))
        return await self.client.files.create(file=("calls.jsonl", data), purpose="batch")

    async def create_batch(self, count: int = 4) -> Batch:
        file = await self.upload(count)
        return await self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"order": NAME}
        )

    async def wait_until_ended(self, batch: Batch) -> Batch:
        async with asyncio.timeout(30):
            while batch.status not in ENDED:
                await asyncio.sleep(0.1)
                batch = await self.client.batches.retrieve(batch.id)
        return batch


@pytest.fixture(params=["scripted", pytest.param("gateway", marks=pytest.mark.soak)])
async def provider(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BatchProvider]:
    async with scripted_upstream("contract") as (model, port):
        if request.param == "scripted":
            async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0) as client:
                yield BatchProvider(client, model)
            return
        database = request.getfixturevalue("database")
        async with installation(database, tmp_path) as stack:
            stack.apply(blueprint(1, [deployment("contract", port)], [workload("assistant", ["contract"])]))
            stack.start()
            await stack.wait_until_ready()
            url = f"http://127.0.0.1:{stack.port}/v1"
            async with AsyncOpenAI(base_url=url, api_key=stack.key(), max_retries=0) as client:
                yield BatchProvider(client, model)


async def test_a_batch_has_a_result_for_each_custom_id(provider: BatchProvider) -> None:
    created = await provider.create_batch()
    assert created.status in ("validating", "in_progress") and created.metadata == {"order": NAME}
    batch = await provider.wait_until_ended(created)
    assert batch.status == "completed" and batch.output_file_id is not None and batch.error_file_id is None
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed) == (4, 4)
    results = [
        json.loads(text) for text in (await provider.client.files.content(batch.output_file_id)).text.splitlines()
    ]
    assert sorted(entry["custom_id"] for entry in results) == ["c0", "c1", "c2", "c3"]
    for entry in results:
        assert entry["error"] is None and entry["response"]["status_code"] == 200
        assert entry["response"]["body"]["usage"]["completion_tokens"] > 0
    assert provider.model.counted == 4


async def test_listed_batches_have_their_metadata(provider: BatchProvider) -> None:
    first, second = await provider.create_batch(1), await provider.create_batch(1)
    listed = [batch async for batch in provider.client.batches.list(limit=1)]
    assert [batch.id for batch in listed] == [second.id, first.id], "newest first, page by page"
    assert all(batch.metadata == {"order": NAME} for batch in listed)


async def test_a_cancelled_batch_keeps_its_completed_results(provider: BatchProvider) -> None:
    provider.model.script = Script(line_ms=100, latency_ms=100)
    created = await provider.create_batch(30)
    async with asyncio.timeout(20):
        client = provider.client
        while (counts := (await client.batches.retrieve(created.id)).request_counts) is None or not counts.completed:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await provider.client.batches.cancel(created.id)).status == "cancelling"
    batch = await provider.wait_until_ended(created)
    assert batch.status == "cancelled" and batch.output_file_id is not None and batch.error_file_id is not None
    errors = [json.loads(text) for text in (await provider.client.files.content(batch.error_file_id)).text.splitlines()]
    assert {entry["error"]["code"] for entry in errors} == {"batch_cancelled"}


async def test_files_are_listed_read_and_deleted(provider: BatchProvider) -> None:
    file = await provider.upload(1)
    listed = [each async for each in provider.client.files.list(purpose="batch")]
    assert file.id in [each.id for each in listed] and file.filename == "calls.jsonl"
    assert (await provider.client.files.content(file.id)).content.startswith(b'{"custom_id": "c0"')
    assert (await provider.client.files.delete(file.id)).deleted
    for ask in (provider.client.files.retrieve(file.id), provider.client.batches.retrieve("batch_" + "0" * 32)):
        with pytest.raises(NotFoundError):
            await ask


async def test_invalid_purposes_and_endpoints_are_refused(provider: BatchProvider) -> None:
    with pytest.raises(APIStatusError):
        await provider.client.files.create(file=b"x", purpose="fine-tune")
    file = await provider.upload(1)
    with pytest.raises(APIStatusError):
        await provider.client.batches.create(input_file_id=file.id, endpoint="/v1/videos", completion_window="24h")
