"""Anthropic's message batches through real workers, call by call, with the official client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from anthropic import APIStatusError, AsyncAnthropic, BadRequestError, NotFoundError
from anthropic.types.messages import (
    DeletedMessageBatch,
    MessageBatch,
    MessageBatchIndividualResponse,
)
from tests.integration.gateway_stack import (
    GROUNDING,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from tests.integration.sdk_types import parse_strictly
from tests.integration.test_batch_kill import UNRECOVERED, run_shipper
from tests.integration.test_batches import BATCH_RATES, LABELS, LINE, held_by_slices, ship

from groundplan.core.money import PICO
from groundplan.ledger import batch_queries
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel


@dataclass
class Setup:
    stack: Stack
    native: ScriptedModel
    chat: ScriptedModel
    key: str
    client: AsyncAnthropic


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    async with scripted_upstream("native") as (native, one), scripted_upstream("chat") as (chat, two):
        async with installation(database, tmp_path) as stack:
            places = [
                deployment("native", one, rates=BATCH_RATES, api="anthropic"),
                deployment("chat", two, rates=BATCH_RATES),
            ]
            declared = [workload("assistant", ["native", "chat"]), workload("other", ["chat"])]
            stack.apply(blueprint(1, places, declared, limit=PICO // 100))
            stack.start()
            await stack.wait_until_ready()
            key = stack.key()
            native.script = chat.script = Script(tokens=20)
            async with AsyncAnthropic(
                base_url=f"http://127.0.0.1:{stack.port}", api_key=key, max_retries=0, timeout=60
            ) as client:
                yield Setup(stack, native, chat, key, client)


def request(name: str, **more: Any) -> Any:
    messages = [{"role": "user", "content": f"Where is {name}?"}]
    return {"custom_id": name, "params": {"model": "auto", "max_tokens": 20, "messages": messages, **more}}


def requests(count: int, **more: Any) -> list[Any]:
    return [request(f"c{n}", **more) for n in range(count)]


async def ended(client: AsyncAnthropic, id: str, seconds: float = 30) -> MessageBatch:
    async with asyncio.timeout(seconds):
        while (batch := await client.messages.batches.retrieve(id)).processing_status != "ended":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return batch


async def results(client: AsyncAnthropic, id: str) -> dict[str, Any]:
    return {each.custom_id: each.result async for each in await client.messages.batches.results(id)}


def counts(batch: MessageBatch) -> dict[str, int]:
    return {name: count for name, count in batch.request_counts.model_dump().items() if count}


@pytest.mark.parametrize("model", ["scripted/native", "scripted/chat"])
async def test_a_batch_is_called_line_by_line_at_the_batch_price(setup: Setup, model: str) -> None:
    batches = setup.client.messages.batches
    made = await batches.create(requests=requests(6, model=model), extra_headers=LABELS)
    assert made.processing_status == "in_progress" and counts(made) == {"processing": 6}
    assert made.results_url is None and made.ended_at is None
    batch = await ended(setup.client, made.id)
    assert counts(batch) == {"succeeded": 6} and batch.ended_at is not None
    found = await results(setup.client, batch.id)
    assert sorted(found) == [f"c{n}" for n in range(6)]
    for result in found.values():
        assert result.type == "succeeded" and result.message.content[0].text.startswith("You asked: Where is c")
        assert result.message.usage.output_tokens == 20
        assert Decimal(result.message.model_extra["groundplan"]["cost_usd"]) == LINE
    assert setup.native.counted + setup.chat.counted == 6
    assert held_by_slices(setup.stack) >= 6 * LINE
    ship(setup.stack)
    assert setup.stack.reported_labels() == [("refunds", "PAY-17")]
    await _types(setup, batch.id)
    with psycopg.connect(setup.stack.database.urls["control"]) as connection:
        (shown,) = batch_queries.list_batches(connection, "assistant", 10)
    assert (shown["id"], shown["completed"], shown["endpoint"]) == (batch.id, 6, "/v1/messages")


async def _types(setup: Setup, id: str) -> None:
    """Everything is of the official client's types, and none of OpenAI's files and batches."""
    ask, key = setup.stack.ask, setup.key
    path = f"/v1/messages/batches/{id}"
    parse_strictly(MessageBatch, (await ask("GET", path, key)).body)
    for line in (await ask("GET", f"{path}/results", key)).body.splitlines():
        told = json.loads(line)
        assert told["result"]["message"].pop("groundplan")["cost_usd"]
        parse_strictly(MessageBatchIndividualResponse, json.dumps(told))
    whole = {path: path.read_bytes() for path in (setup.stack.home.root / "files").iterdir()}
    for file, data in whole.items():
        file.write_bytes(data[:-1])
    assert (await ask("GET", f"{path}/results", key)).code == "file_damaged"
    for file, data in whole.items():
        file.write_bytes(data)
    assert (await ask("GET", "/v1/files", key)).json["data"] == []
    assert (await ask("GET", "/v1/batches", key)).json["data"] == []
    assert (await ask("GET", f"/v1/batches/batch_{id.removeprefix('msgbatch_')}", key)).status == 404
    parse_strictly(DeletedMessageBatch, (await ask("DELETE", path, key)).body)
    assert (await ask("GET", path, key)).status == 404
    assert list((setup.stack.home.root / "files").iterdir()) == []


async def test_a_call_that_may_not_be_made_fails_alone_and_the_others_are_made(setup: Setup) -> None:
    asked = [request("no_model", model="gpt-none"), request("no_cap", max_tokens="x")]
    setup.native.script = Script(tokens=20, mode="error", status=400, after=1)
    asked += [request("one", model="scripted/native"), request("other", model="scripted/native")]
    batch = await ended(setup.client, (await setup.client.messages.batches.create(requests=asked)).id)
    assert counts(batch) == {"succeeded": 1, "errored": 3}
    found = await results(setup.client, batch.id)
    assert sorted(found[name].type for name in ("one", "other")) == ["errored", "succeeded"], "the second is refused"
    told = {name: result.error.error for name, result in found.items() if result.type == "errored"}
    types = {name: error.type for name, error in told.items()}
    assert types.pop("no_model") == "not_found_error" and set(types.values()) == {"invalid_request_error"}
    unmade = {found[name].error.request_id for name in ("no_model", "no_cap")}
    assert len(unmade) == 2 and None not in unmade
    assert told["no_model"].model_extra["code"] == "model_not_allowed" or "gpt-none" in told["no_model"].message
    assert "max_tokens" in told["no_cap"].message
    assert any("told to fail" in error.message for error in told.values())


async def test_a_batch_that_its_budget_has_no_room_for_is_refused_whole(setup: Setup) -> None:
    setup.stack.apply(
        blueprint(
            2,
            [deployment("native", 1, rates=BATCH_RATES, api="anthropic")],
            [workload("assistant", ["native"])],
            limit=PICO // 1000,
        )
    )
    await setup.stack.wait_until_ready(2)
    batch = await ended(setup.client, (await setup.client.messages.batches.create(requests=requests(11))).id)
    assert counts(batch) == {"errored": 11}
    error = next(iter((await results(setup.client, batch.id)).values())).error.error
    assert error.type == "rate_limit_error" and "the first 10 of its 11 lines would fit" in error.message
    assert setup.native.counted == 0 and setup.stack.sql("SELECT sum(granted_usd) FROM budget_slice") == [(None,)]


async def test_files_are_anthropics_for_its_client(setup: Setup) -> None:
    """Uploaded without a purpose, which may be named in calls; both of its APIs of files find them."""
    for files in (setup.client.files, setup.client.beta.files):
        first, second = [
            await files.upload(file=(name, b"%PDF-1.4\n", "application/pdf")) for name in ("a.pdf", "b.bin")
        ]
        assert (first.filename, first.mime_type, first.size_bytes) == ("a.pdf", "application/pdf", 9)
        assert second.mime_type == "application/octet-stream" and second.created_at.tzinfo is not None
        assert [each.id async for each in files.list(limit=1)] == [second.id, first.id]
        assert (await files.retrieve_metadata(first.id)).filename == "a.pdf"
        assert await (await files.download(first.id)).read() == b"%PDF-1.4\n"
        for each in (first, second):
            assert (await files.delete(each.id)).type == "file_deleted"
        with pytest.raises(NotFoundError) as gone:
            await files.retrieve_metadata(first.id)
        assert isinstance(gone.value.body, dict) and gone.value.body["error"]["code"] == "file_not_found"
    with pytest.raises(BadRequestError, match="is not supported"):
        await setup.client.beta.files.list(before_id="a")
    for ids, more in ((["a"], {"limit": "5"}), (["a"], {"page": "page_a"}), ([str(n) for n in range(101)], {})):
        with pytest.raises(BadRequestError, match="these ids cannot be listed"):
            await setup.client.files.list(ids=ids, extra_query=more)
    brief = await setup.client.files.upload(file=("a.pdf", b"a"), expires_in_seconds=3600)
    assert brief.expires_at is not None and (brief.expires_at - brief.created_at).total_seconds() == 3600
    with pytest.raises(BadRequestError, match="expires_in_seconds has '60' seconds"):
        await setup.client.files.upload(file=("a.pdf", b"a"), expires_in_seconds=60)


async def test_it_is_cancelled_listed_and_deleted(setup: Setup) -> None:
    batches = setup.client.messages.batches
    setup.native.script = Script(tokens=20, latency_ms=300)
    made = await batches.create(requests=requests(30, model="scripted/native"))
    with pytest.raises(APIStatusError) as running:
        await batches.delete(made.id)
    assert running.value.status_code == 409
    with pytest.raises(APIStatusError):
        await setup.client.get(f"/v1/messages/batches/{made.id}/results", cast_to=object)
    at_once = await batches.create(requests=requests(30))
    assert (await batches.cancel(at_once.id)).processing_status in ("canceling", "ended")
    async with asyncio.timeout(60):
        while not setup.native.counted:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.02)
    assert (await batches.cancel(made.id)).processing_status == "canceling"
    for id, total in ((made.id, 30), (at_once.id, 30)):
        batch = await ended(setup.client, id)
        told = counts(batch)
        assert told["canceled"] > 0 and sum(told.values()) == total and batch.cancel_initiated_at is not None
        kinds = [result.type for result in (await results(setup.client, id)).values()]
        assert {kind: kinds.count(kind) for kind in set(kinds)} == told, (
            "each call has a result, also if none was begun"
        )
        assert (await batches.cancel(id)).processing_status == "ended", "its answer may have been lost"
    assert held_by_slices(setup.stack) >= setup.native.counted * LINE
    whole = await ended(setup.client, (await batches.create(requests=requests(1))).id)
    with pytest.raises(APIStatusError, match="the batch has ended") as over:
        await batches.cancel(whole.id)
    assert over.value.status_code == 409
    await batches.delete(whole.id)
    await _pages(setup, made.id, at_once.id)


async def _pages(setup: Setup, first: str, second: str) -> None:
    batches = setup.client.messages.batches
    setup.native.script = Script(tokens=20)
    names = [first, second] + [(await batches.create(requests=[request("a")])).id for _ in range(2)]
    assert [batch.id async for batch in batches.list(limit=2)] == names[::-1]
    page = await batches.list(before_id=names[0], limit=2)
    assert [each.id for each in page.data] == names[1:3][::-1] and page.has_more
    assert [each.id async for each in batches.list(limit=3, after_id=names[2])] == names[:2][::-1]
    assert (await batches.delete(names[1])).type == "message_batch_deleted"
    with pytest.raises(NotFoundError):
        await batches.retrieve(names[1])
    assert names[1] not in [batch.id async for batch in batches.list()]
    other = AsyncAnthropic(
        base_url=f"http://127.0.0.1:{setup.stack.port}", api_key=setup.stack.key("other"), max_retries=0
    )
    with pytest.raises(NotFoundError):
        await other.messages.batches.retrieve(names[0])
    await other.close()
    stack, path = setup.stack, f"/v1/messages/batches/{names[0]}/results"
    ben = stack.person("ben@acme.example")
    key = stack.key(person=ben)
    assert (await stack.ask("GET", path, key)).status == 200
    stack.sql("UPDATE batch SET person = 'ana', grounded = true")
    assert (await stack.ask("GET", path, key)).status == 404, "it was made while the workload had sources"
    stack.sql("UPDATE batch SET grounded = false")
    assert (await stack.ask("GET", path, key)).status == 200
    made = [workload("assistant", ["chat"], embeddings=["chat"], grounding=GROUNDING)]
    place = deployment("chat", 1, rates=BATCH_RATES)
    stack.apply(blueprint(2, [place], made, limit=PICO // 100))
    await stack.wait_until_ready(2)
    assert (await stack.ask("GET", path, key)).status == 404, "they may say what only their person may read"
    whole = path.removesuffix("/results")
    assert (await stack.ask("DELETE", whole, key)).status == 404, "nobody deletes results that are not theirs to read"
    assert (await stack.ask("GET", whole, key)).status == 200
    assert (await stack.ask("POST", f"{whole}/cancel", key)).status == 200, "what the workload pays for, it may stop"
    stack.sql("UPDATE batch SET person = %s", ben)
    assert (await stack.ask("DELETE", whole, key)).status == 200


async def test_a_batch_created_again_with_its_idempotency_key_is_the_same_batch(setup: Setup) -> None:
    """As whoever got no answer does."""
    batches, told = setup.client.messages.batches, {"Idempotency-Key": "night-7"}
    first, second = await asyncio.gather(
        *(batches.create(requests=requests(2), extra_headers=told) for _ in range(2)),
    )
    assert first.id == second.id and counts(await ended(setup.client, first.id)) == {"succeeded": 2}
    again = await batches.create(requests=requests(2), extra_headers=told)
    assert (again.id, again.processing_status) == (first.id, "ended")
    with pytest.raises(BadRequestError, match="is not for batches"):
        await batches.create(requests=requests(2), extra_headers={"groundplan-max-cost-usd": "0.001"})
    with pytest.raises(APIStatusError) as other:
        await batches.create(requests=requests(3), extra_headers=told)
    assert other.value.status_code == 409 and "was used for another request" in str(other.value)
    assert setup.native.counted + setup.chat.counted == 2
    assert len(list((setup.stack.home.root / "files").iterdir())) == 2, "its requests and its results"
    await batches.delete(first.id)
    with pytest.raises(APIStatusError) as gone:
        await batches.create(requests=requests(2), extra_headers=told)
    assert gone.value.status_code == 409 and "is deleted" in str(gone.value)


@pytest.mark.soak
async def test_whoever_is_killed_every_call_has_one_result_and_one_row(setup: Setup) -> None:
    stack, count = setup.stack, 24
    setup.chat.script = Script(tokens=20, latency_ms=80)
    async with run_shipper(stack):
        made = await setup.client.messages.batches.create(requests=requests(count, model="scripted/chat"))
        for _ in range(3):
            await asyncio.sleep(0.4)
            stack.workers[0].kill()
            await asyncio.to_thread(stack.workers.pop(0).wait)
            stack.start()
        patient = setup.client.with_options(max_retries=8)
        batch = await ended(patient, made.id, 60)
        found = await results(patient, made.id)
        assert sorted(found) == sorted(f"c{n}" for n in range(count)) and sum(counts(batch).values()) == count
        codes = {r.error.error.model_extra["code"] for r in found.values() if r.type == "errored"}
        assert codes <= {"batch_line_interrupted", "budget_exhausted"}
        await asyncio.to_thread(stack.stop)
        async with asyncio.timeout(60):
            while stack.sql(UNRECOVERED):  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.2)
    ((rows, calls),) = stack.sql(
        "SELECT count(*), count(DISTINCT l.call_id) FROM batch_line l JOIN call c ON c.id = l.call_id"
    )
    assert rows == calls == count, "a call without its one row in the ledger"
    ((attempts, spent),) = stack.sql("SELECT count(*), sum(cost_usd) FROM attempt")
    assert setup.chat.counted <= attempts <= count and held_by_slices(stack) == spent <= count * LINE


async def test_the_beta_client_and_a_pretty_body_are_understood(setup: Setup) -> None:
    made = await setup.client.beta.messages.batches.create(
        requests=[request("a", model="scripted/native")], betas=["output-128k-2025-02-19"]
    )
    await ended(setup.client, made.id)
    assert setup.native.last is not None
    assert b"output-128k-2025-02-19" in setup.native.last.headers[b"anthropic-beta"]
    body = json.dumps({"requests": [request("a", system='say "[{" \n')]}, indent=4).encode()
    reply = await setup.stack.post("/v1/messages/batches?beta=true", setup.key, body)
    assert reply.status == 200 and counts(await ended(setup.client, reply.json["id"])) == {"succeeded": 1}


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ([], "body_invalid"),
        ([request("a"), request("a")], "custom_id_twice"),
        ([request("a b")], "custom_id_invalid"),
        ([{"custom_id": "a"}], "body_invalid"),
        ([request("a") | {"more": 1}], "body_invalid"),
    ],
)
async def test_an_order_that_is_wrong_is_refused_in_anthropics_words(setup: Setup, asked: Any, code: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        await setup.client.messages.batches.create(requests=asked)
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["type"] == "error" and refused.value.body["error"]["code"] == code
    assert [path.name for path in (setup.stack.home.root / "files").iterdir()] == []
