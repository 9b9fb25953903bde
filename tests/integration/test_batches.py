"""Files and batches through real workers with OpenAI's own client: reservations, results, refusals."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, ConflictError, NotFoundError
from openai.types import Batch, FileDeleted, FileObject
from tests.integration import node_client
from tests.integration.gateway_stack import (
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from tests.integration.sdk_types import parse_strictly
from tests.unit.test_gateway_presidio import searching

from groundplan.blueprint.model import Cache, Guardrails, Judge, Limit, Rates
from groundplan.cli.batches import batches_text
from groundplan.console.render import render
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.core.words import format_size
from groundplan.economics.price import FREE
from groundplan.gateway.files import file_store, files_api
from groundplan.gateway.files.blobs import Blobs
from groundplan.gateway.files.file_store import StoredFile
from groundplan.gateway.journal.shipper import Shipper
from groundplan.identity import service
from groundplan.ledger import batch_queries
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

MODERATIONS: Final = "/v1/moderations"
CHAT: Final = "/v1/chat/completions"
IMAGES: Final = "/v1/images/generations"
BATCH_RATES = Rates(input=0, output=10 * PICO, batch=Rates(input=0, output=5 * PICO))
"""Batches at half the price: 20 tokens cost 0.0001 USD."""
PAINTED = Rates(input=0, output=0, images={"1024x1024": PICO // 10_000, "any": PICO // 5_000})
LISTED_RATES = msgspec.structs.replace(BATCH_RATES, source="genai-prices 0.2.3 openai/gpt-4.1-mini")
"""The same prices from the price list, whose batch price is only for the provider's batch endpoint."""
LINE = Decimal("0.0001")
LABELS = {"groundplan-feature": "refunds", "groundplan-ticket": "PAY-17"}
CACHE = Cache(seconds=60, max_bytes=1 << 20, scope="workload")


@dataclass
class Setup:
    stack: Stack
    model: ScriptedModel
    key: str
    client: AsyncOpenAI
    model_port: int


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        places = [
            deployment("one", port, rates=BATCH_RATES),
            deployment("judge", port, kind="moderation", rates=FREE),
            deployment("vectors", port, kind="embeddings", rates=Rates(input=PICO, output=0)),
            deployment("painter", port, kind="images", rates=PAINTED, serves=["batches"]),
        ]
        workloads = [
            workload("assistant", ["one"], embeddings=["vectors"], also=["judge", "painter"]),
            workload("other", ["one"]),
        ]
        stack.apply(blueprint(1, places, workloads, limit=PICO // 100))
        stack.start()
        await stack.wait_until_ready()
        key = stack.key()
        model.script = Script(tokens=20)
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{stack.port}/v1", api_key=key, max_retries=0) as client:
            yield Setup(stack, model, key, client, port)


def input_lines(count: int, **more: Any) -> bytes:
    """An input file of `count` calls with at most 20 output tokens each."""
    body = {"model": "auto", "max_tokens": 20, **more}
    return b"".join(
        input_line(f"c{n}", {**body, "messages": [{"role": "user", "content": f"q{n}"}]}) for n in range(count)
    )


def input_line(name: str, body: dict[str, Any], url: str = CHAT) -> bytes:
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body}).encode() + b"\n"


async def create_batch(client: AsyncOpenAI, data: bytes, endpoint: Any = CHAT, window: Any = "24h") -> Batch:
    file = await client.files.create(file=("calls.jsonl", data), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window=window, metadata={"run": "7"}, extra_headers=LABELS
    )


async def wait_until(client: AsyncOpenAI, id: str, true: Callable[[Batch], bool], seconds: float = 60) -> Batch:
    async with asyncio.timeout(seconds):
        while not true(batch := await client.batches.retrieve(id)):  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.1)
    return batch


async def wait_until_ended(client: AsyncOpenAI, id: str, seconds: float = 60) -> Batch:
    return await wait_until(client, id, lambda b: b.status in ("failed", "completed", "expired", "cancelled"), seconds)


async def contents(client: AsyncOpenAI, id: str | None) -> list[Any]:
    assert id is not None
    return [json.loads(text) for text in (await client.files.content(id)).text.splitlines()]


def ship(stack: Stack) -> None:
    with psycopg.connect(stack.database.urls["shipper"], autocommit=True) as conn:
        Shipper(stack.home).run_round(conn)


def held_by_slices(stack: Stack) -> Decimal:
    """USD that all slices hold together, which must be what is granted of the budget."""
    ((granted, slices),) = stack.sql(
        "SELECT granted_usd, (SELECT sum(granted_usd - released_usd) FROM budget_slice) FROM budget_period"
    )
    assert granted == slices
    return Decimal(granted)


@pytest.mark.parametrize(("rates", "each"), [(BATCH_RATES, LINE), (LISTED_RATES, 2 * LINE)], ids=["declared", "listed"])
async def test_a_batch_is_called_line_by_line_at_the_batch_price(setup: Setup, rates: Rates, each: Decimal) -> None:
    """At the declared batch price; if only the price list has one, at the price of any call."""
    client = setup.client
    if rates is not BATCH_RATES:
        places, workloads = [deployment("one", setup.model_port, rates=rates)], [workload("assistant", ["one"])]
        setup.stack.apply(blueprint(2, places, workloads, limit=PICO // 100))
        await setup.stack.wait_until_ready(2)
    made = await create_batch(client, input_lines(12))
    assert made.status == "validating" and made.metadata == {"run": "7"}
    batch = await wait_until_ended(client, made.id)
    assert batch.status == "completed", batch
    assert batch.request_counts is not None and batch.error_file_id is None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (12, 12, 0)
    assert batch.completed_at is not None and batch.in_progress_at is not None
    found = await contents(client, batch.output_file_id)
    assert [entry["custom_id"] for entry in found] == [f"c{n}" for n in range(12)]
    for entry in found:
        assert entry["error"] is None and entry["response"]["status_code"] == 200
        answer = entry["response"]["body"]
        assert answer["choices"][0]["message"]["content"] and answer["usage"]["completion_tokens"] == 20
        assert Decimal(answer["groundplan"]["cost_usd"]) == each
        assert entry["response"]["request_id"] == answer["groundplan"]["call_id"]
    assert setup.model.counted == 12
    await check_types(setup, batch)
    assert [b.id async for b in client.batches.list(limit=1)] == [batch.id]
    long = await setup.stack.ask("GET", f"/v1/batches?limit={'1' * 5000}", setup.key)
    assert (long.status, long.code) == (400, "limit_range")
    ship(setup.stack)
    assert setup.stack.reported_labels() == [("refunds", "PAY-17")] and held_by_slices(setup.stack) >= 12 * each
    with psycopg.connect(setup.stack.database.urls["control"]) as connection:
        (shown,) = batch_queries.list_batches(connection, "assistant", 10)
        assert batch_queries.list_batches(connection, "other", 10) == []
        kept = batch_queries.file_totals(connection, "assistant")
    assert (shown["id"], shown["status"], shown["completed"], shown["failed"]) == (batch.id, "completed", 12, 0)
    assert (shown["held_usd"], shown["problem"], shown["workload"]) == ("0.000000000000", None, "assistant")
    assert (kept[0]["files"], kept[0]["bytes"] > 0) == (2, True), "what was ordered, and what came of it"
    for told in (
        batches_text({"batches": [shown], "files": kept}),
        bytes(render("batches_part.html", batches=[shown], files=kept).body).decode(),
    ):
        assert "12 of 12" in told and format_size(kept[0]["bytes"]) in told and shown["id"] in told


async def test_the_reservation_of_a_batch_covers_the_price_of_its_calls(setup: Setup) -> None:
    """The whole of it, and each line: the price list's price of batches is of none of its calls."""
    stack, client = setup.stack, setup.client
    places = [deployment("one", setup.model_port, rates=LISTED_RATES)]
    stack.apply(blueprint(2, places, [workload("assistant", ["one"])], limit=PICO // 100))
    await stack.wait_until_ready(2)
    batch = await wait_until_ended(client, (await create_batch(client, input_lines(3))).id)
    assert batch.status == "completed", batch
    for entry in await contents(client, batch.output_file_id):
        assert Decimal(entry["response"]["body"]["groundplan"]["cost_usd"]) == 2 * LINE
    ship(stack)
    assert stack.sql("SELECT DISTINCT reserved_usd, cost_usd, tier, flags FROM attempt") == [
        (2 * LINE, 2 * LINE, "", [])
    ]
    batch = await wait_until_ended(client, (await create_batch(client, input_lines(60))).id)
    assert batch.errors is not None and batch.errors.data is not None
    (error,) = batch.errors.data
    assert error.code == "budget_exhausted" and "the first 47 of its 60 lines would fit" in (error.message or "")


async def test_a_line_changed_by_a_guardrail_still_has_the_batch_price(setup: Setup) -> None:
    masking = Guardrails(input={"personal_data": "mask"})
    places = [deployment("one", setup.model_port, rates=BATCH_RATES)]
    setup.stack.apply(blueprint(2, places, [workload("assistant", ["one"], guardrails=masking)], limit=PICO // 100))
    await setup.stack.wait_until_ready(2)
    messages = [{"role": "user", "content": "Write to ana@acme.example"}]
    body = {"model": "auto", "max_tokens": 20, "messages": messages}
    batch = await wait_until_ended(setup.client, (await create_batch(setup.client, input_line("a", body))).id)
    (entry,) = await contents(setup.client, batch.output_file_id)
    assert Decimal(entry["response"]["body"]["groundplan"]["cost_usd"]) == LINE
    assert setup.model.last is not None and b"ana@acme" not in setup.model.last.body
    ship(setup.stack)
    assert setup.stack.sql("SELECT reserved_usd, cost_usd, flags FROM attempt") == [(LINE, LINE, [])]


async def test_a_judge_guardrail_checks_the_answer_of_a_line(setup: Setup) -> None:
    """Although a line has no API key of its own."""
    rules = Guardrails(judge=Judge(deployment="judge", question="Is it advice?", refuse_on="yes"), budget_ms=10_000)
    places = [deployment(name, setup.model_port, rates=BATCH_RATES) for name in ("one", "judge")]
    workloads = [workload("assistant", ["one"], also=["judge"], guardrails=rules)]
    setup.stack.apply(blueprint(2, places, workloads, limit=PICO // 100))
    await setup.stack.wait_until_ready(2)
    setup.model.script = Script(say="no")
    batch = await wait_until_ended(setup.client, (await create_batch(setup.client, input_lines(2))).id)
    assert batch.request_counts is not None and batch.request_counts.completed == 2
    assert setup.model.counted == 4


async def check_types(setup: Setup, batch: Batch) -> None:
    """Files and batches, alone and listed, are of the official client's types."""
    ask, key = setup.stack.ask, setup.key
    assert parse_strictly(Batch, (await ask("GET", f"/v1/batches/{batch.id}", key)).body).id == batch.id
    assert (
        parse_strictly(FileObject, (await ask("GET", f"/v1/files/{batch.output_file_id}", key)).body).purpose
        == "batch_output"
    )
    for path, kind in (("/v1/batches", Batch), ("/v1/files", FileObject)):
        page = (await ask("GET", path, key)).json
        assert page["object"] == "list" and page["data"] and page["has_more"] is False
        for each in page["data"]:
            parse_strictly(kind, json.dumps(each))
    file = await setup.client.files.create(file=b"{}", purpose="batch")
    parse_strictly(FileDeleted, (await ask("DELETE", f"/v1/files/{file.id}", key)).body)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/responses", {"model": "auto", "input": "q", "max_output_tokens": 20}),
        ("/v1/completions", {"model": "auto", "prompt": "q", "max_tokens": 20}),
    ],
)
async def test_every_endpoint_that_answers_with_text_can_be_called(
    setup: Setup, endpoint: Any, body: dict[str, Any]
) -> None:
    data = b"".join(input_line(f"c{n}", body, endpoint) for n in range(3))
    batch = await wait_until_ended(setup.client, (await create_batch(setup.client, data, endpoint)).id)
    assert batch.status == "completed", batch
    for entry in await contents(setup.client, batch.output_file_id):
        answer = entry["response"]["body"]
        assert answer["object"] == ("response" if endpoint == "/v1/responses" else "text_completion")
        assert Decimal(answer["groundplan"]["cost_usd"]) == LINE
    if endpoint == "/v1/responses":
        earlier = input_line("a", {**body, "previous_response_id": "resp_" + "0" * 32}, endpoint)
        batch = await wait_until_ended(setup.client, (await create_batch(setup.client, earlier, endpoint)).id)
        assert batch.status == "failed" and batch.errors is not None and batch.errors.data is not None
        assert batch.errors.data[0].code == "field_unsupported"


@node_client.needed
async def test_the_official_node_client_creates_a_batch(setup: Setup) -> None:
    setup.model.script = Script(tokens=20, latency_ms=150)
    printed = await node_client.run_script("node_batches.cjs", f"http://127.0.0.1:{setup.stack.port}/v1", setup.key)
    wanted = {"status": "completed", "names": ["n0", "n1"], "listed": True, "vectors": 2, "flagged": [False, True]}
    assert json.loads(printed) == {**wanted, "deleted": True, "cancelled": "cancelling"}


async def test_a_batch_of_embeddings_and_lines_that_fail(setup: Setup) -> None:
    client = setup.client
    data = b"".join(input_line(f"e{n}", {"model": "auto", "input": ["a", "b"]}, "/v1/embeddings") for n in range(3))
    batch = await wait_until_ended(client, (await create_batch(client, data, "/v1/embeddings")).id)
    assert batch.status == "completed"
    assert len((await contents(client, batch.output_file_id))[0]["response"]["body"]["data"]) == 2
    setup.model.script, setup.model._attempts_seen = Script(mode="error", status=400, times=2), 0
    batch = await wait_until_ended(client, (await create_batch(client, input_lines(5))).id)
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (3, 2)
    failures = await contents(client, batch.error_file_id)
    assert len(failures) == 2 and failures[0]["response"]["status_code"] == 400
    assert {e["custom_id"] for e in failures + await contents(client, batch.output_file_id)} == {
        f"c{n}" for n in range(5)
    }


async def test_a_batch_beyond_its_budget_is_refused_and_says_how_many_lines_would_fit(setup: Setup) -> None:
    batch = await wait_until_ended(setup.client, (await create_batch(setup.client, input_lines(140))).id)
    assert batch.status == "failed" and batch.errors is not None and batch.errors.data is not None
    (error,) = batch.errors.data
    assert error.code == "budget_exhausted" and error.message is not None
    assert "the first 100 of its 140 lines would fit" in error.message
    assert setup.model.counted == 0 and setup.stack.sql("SELECT * FROM budget_slice") == []
    whole = await wait_until_ended(setup.client, (await create_batch(setup.client, input_lines(100))).id, 60)
    assert whole.status == "completed" and whole.request_counts is not None
    assert whole.request_counts.completed == 100 and setup.model.counted == 100  # none is made twice
    assert held_by_slices(setup.stack) == 100 * LINE


async def test_idle_slices_are_recalled_for_a_batch(setup: Setup) -> None:
    assert (await setup.stack.chat(setup.key)).status == 200  # the worker now holds more than it spent
    batch = await wait_until_ended(setup.client, (await create_batch(setup.client, input_lines(97))).id, 60)
    assert batch.status == "completed", batch.errors


async def test_invalid_input_fails_the_batch_and_lists_its_lines(setup: Setup) -> None:
    good = {"model": "auto", "messages": [{"role": "user", "content": "x"}]}
    data = (
        input_line("a", good)
        + input_line("a", good)
        + b"nonsense\n"
        + input_line("b", {**good, "stream": True})
        + input_line("c", {**good, "model": "unknown"})
        + input_line("d", good, "/v1/embeddings")
        + input_line("", good)
    )
    batch = await wait_until_ended(setup.client, (await create_batch(setup.client, data)).id)
    assert batch.status == "failed" and batch.errors is not None and batch.errors.data is not None
    assert [(error.line, error.code) for error in batch.errors.data] == [
        (2, "custom_id_twice"),
        (3, "invalid_json_line"),
        (4, "field_unsupported"),
        (5, "model_not_found"),
        (6, "mismatched_url"),
        (7, "custom_id_length"),
    ]
    with psycopg.connect(setup.stack.database.urls["control"]) as connection:
        (shown,) = batch_queries.list_batches(connection, "assistant", 10)
    assert shown["problem"] == f"line 2: {batch.errors.data[0].message}"
    long = await wait_until_ended(
        setup.client, (await create_batch(setup.client, input_lines(1, stop="x" * (4 << 20)))).id
    )
    assert long.errors is not None and [e.code for e in long.errors.data or ()] == ["line_too_long"]
    marked = await wait_until_ended(
        setup.client, (await create_batch(setup.client, b"\xef\xbb\xbf" + input_lines(1))).id
    )
    assert marked.status == "completed", "as some editors begin a file"
    empty = await wait_until_ended(setup.client, (await create_batch(setup.client, b"\n\n")).id)
    assert empty.errors is not None and empty.errors.data is not None and empty.errors.data[0].code == "batch_empty"
    for name in ("groundplan_estimate", "groundplan_max_cost_usd"):  # of one call: nobody pays for more than was said
        refused = await setup.stack.post("/v1/batches", setup.key, b"{}", **{name: "1"})
        assert (refused.status, refused.code) == (400, "header_unsupported")
    odd = await wait_until_ended(setup.client, (await create_batch(setup.client, input_lines(1, model="x\0"))).id)
    assert odd.errors is not None and ["'x\ufffd'" in str(e.message) for e in odd.errors.data or ()] == [True]


async def test_a_cancelled_batch_releases_its_reservation(setup: Setup) -> None:
    setup.model.script = Script(tokens=20, latency_ms=300)
    batch = await create_batch(setup.client, input_lines(60))
    await wait_until(setup.client, batch.id, lambda b: b.request_counts is not None and b.request_counts.completed >= 4)
    setup.model.script = Script(tokens=20, latency_ms=1500)  # what is asked from now on takes longer than cancelling
    assert held_by_slices(setup.stack) >= 60 * LINE
    assert (await setup.client.batches.cancel(batch.id)).status == "cancelling"
    batch = await wait_until_ended(setup.client, batch.id)
    assert batch.status == "cancelled" and batch.cancelled_at is not None and batch.request_counts is not None
    done = batch.request_counts.completed
    assert 4 <= done == setup.model.counted < 30 and batch.request_counts.failed == 60 - done
    failures = await contents(setup.client, batch.error_file_id)
    assert {entry["error"]["code"] for entry in failures} == {"batch_cancelled"}
    assert len(await contents(setup.client, batch.output_file_id)) == done
    ((left,),) = setup.stack.sql(
        "SELECT count(*) FROM budget_slice WHERE epoch::text = %s AND granted_usd > released_usd", batch.id
    )
    assert left == 0 and held_by_slices(setup.stack) < 40 * LINE
    assert (await setup.client.batches.cancel(batch.id)).status == "cancelled", "its answer may have been lost"


async def test_a_batch_that_has_ended_cannot_be_cancelled(setup: Setup) -> None:
    completed = await wait_until_ended(setup.client, (await create_batch(setup.client, input_lines(1))).id)
    failed = await wait_until_ended(setup.client, (await create_batch(setup.client, b"no json")).id)
    assert (completed.status, failed.status) == ("completed", "failed")
    for batch in (completed, failed):
        with pytest.raises(ConflictError, match=f"Cannot cancel a batch with status '{batch.status}'") as refused:
            await setup.client.batches.cancel(batch.id)
        assert refused.value.code == "batch_ended" and refused.value.response.headers["x-should-retry"] == "false"
        assert await setup.client.batches.retrieve(batch.id) == batch


async def test_a_batch_expires(setup: Setup) -> None:
    for window, latency in (("2s", 400), ("8s", 1600)):  # a busy machine may make no line within two seconds
        setup.model.script = Script(tokens=20, latency_ms=latency)
        batch = await wait_until_ended(
            setup.client, (await create_batch(setup.client, input_lines(60), window=window)).id
        )
        assert batch.status == "expired" and batch.expired_at is not None
        if batch.output_file_id is not None:
            break
    assert batch.output_file_id is not None
    failures = await contents(setup.client, batch.error_file_id)
    assert {entry["error"]["code"] for entry in failures} == {"batch_expired"}


@pytest.mark.parametrize("how", ["rotated", "revoked", "both"])
async def test_a_batch_continues_with_the_rotated_key(setup: Setup, how: str) -> None:
    """A key that is revoked has no successor in this, and one that is revoked is none."""
    setup.model.script = Script(tokens=20, latency_ms=400)
    batch = await create_batch(setup.client, input_lines(16))
    await wait_until(setup.client, batch.id, lambda b: bool(b.request_counts and b.request_counts.completed))
    ((id,),) = setup.stack.sql("SELECT id FROM api_key")
    with psycopg.connect(setup.stack.database.urls["control"]) as conn:
        new, secret, _ = service.rotate_key(conn, "operator", id, timedelta(0))
        _, reader = service.create_key(conn, "operator", "assistant")
        if how != "rotated":
            service.revoke_key(conn, "operator", id if how == "revoked" else new.id)
    assert secret
    async with AsyncOpenAI(base_url=setup.client.base_url, api_key=reader, max_retries=5) as client:
        await setup.stack.wait_until_acknowledged()
        batch = await wait_until_ended(client, batch.id)
        assert batch.request_counts is not None and batch.status == "completed"
        if how == "rotated":
            assert (batch.request_counts.completed, batch.request_counts.failed) == (16, 0)
        else:
            failures = await contents(client, batch.error_file_id)
            codes = {each["response"]["body"]["error"]["code"] for each in failures}
            assert codes == {"key_revoked" if how == "revoked" else "key_expired"}
    ship(setup.stack)
    keys = {key for (key,) in setup.stack.sql("SELECT DISTINCT key_id FROM call WHERE status = 'ok'")}
    assert keys == ({id, new.id} if how == "rotated" else {id})


async def test_a_batch_whose_marker_file_was_lost_is_continued(setup: Setup) -> None:
    setup.model.script = Script(tokens=20, latency_ms=300)
    batch = await create_batch(setup.client, input_lines(20))
    await wait_until(setup.client, batch.id, lambda b: b.request_counts is not None and b.request_counts.completed > 0)
    setup.model.script = Script(tokens=20, latency_ms=600)  # so that the batch does not end before its worker
    setup.stack.workers[0].terminate()
    await asyncio.to_thread(setup.stack.workers.pop().wait, 60)
    (mark,) = (setup.stack.home.root / "batches").iterdir()
    mark.unlink()
    setup.model.script = Script(tokens=20)
    setup.stack.start()
    await setup.stack.wait_until_ready()
    await asyncio.to_thread(ship, setup.stack)  # releases the lines that it had claimed and not started
    batch = await wait_until_ended(setup.client, batch.id)
    assert batch.status == "completed" and batch.request_counts is not None
    assert batch.request_counts.completed == 20 == setup.model.counted, "a worker that ends lets its calls end"


FEW = Limit(name="few", covers="workload/assistant", type="requests", amount=2, period="day")


async def apply_limits(setup: Setup, number: int, *limits: Limit) -> None:
    """Other limits from now on."""
    places = [deployment("one", setup.model_port, rates=BATCH_RATES)]
    made = blueprint(number, places, [workload("assistant", ["one"])], limit=PICO // 100)
    setup.stack.apply(msgspec.structs.replace(made, limits=list(limits)))
    await setup.stack.wait_until_ready(number)


@pytest.mark.parametrize("end", ["cancelled", "expired"])
async def test_lines_that_wait_for_a_limit_end_when_their_batch_ends(setup: Setup, end: str) -> None:
    await apply_limits(setup, 2, FEW)
    batch = await create_batch(setup.client, input_lines(6), window="6s" if end == "expired" else "24h")
    await wait_until(setup.client, batch.id, lambda b: b.request_counts is not None and b.request_counts.completed == 2)
    if end == "cancelled":
        await setup.client.batches.cancel(batch.id)
    batch = await wait_until_ended(setup.client, batch.id, 30)
    assert batch.status == end and batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 4)
    failures = await contents(setup.client, batch.error_file_id)
    assert [entry["error"]["code"] for entry in failures] == [f"batch_{end}"] * 4
    assert setup.stack.sql(f"SELECT {end} FROM batch") == [(4,)]


ONE_AT_A_TIME = Limit(name="one", covers="deployment/one", type="concurrent", amount=1, period="now")
ONE_A_DAY = Limit(name="one", covers="deployment/one", type="requests", amount=1, period="day")


@pytest.mark.parametrize("why", ["limit", "room", "pause"])
async def test_lines_wait_for_a_deployment_whose_limit_is_used_up(setup: Setup, why: str) -> None:
    """A limit of it is used up, as many run there as may, or it asked to be called later while another one has no
    room for the rest of the day."""
    places = [
        deployment(name, setup.model_port, rates=BATCH_RATES, **({"concurrent": 1} if why == "room" else {}))
        for name in (("one", "two") if why == "pause" else ("one",))
    ]
    made = blueprint(2, places, [workload("assistant", [each.name for each in places])], limit=PICO // 100)
    limits = {"limit": [ONE_AT_A_TIME], "pause": [ONE_A_DAY]}.get(why, [])
    setup.stack.apply(msgspec.structs.replace(made, limits=limits))
    await setup.stack.wait_until_ready(2)
    setup.model.script = Script(tokens=20, latency_ms=1500 if why == "room" else 600)
    if why == "pause":
        setup.model.script = Script(tokens=20, mode="error", status=429, retry_after="2", times=3, latency_ms=50)
    batch = await wait_until_ended(setup.client, (await create_batch(setup.client, input_lines(4))).id)
    assert batch.status == "completed" and batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (4, 0)
    ship(setup.stack)
    made_once = "SELECT count(*), count(DISTINCT call_id) FROM attempt WHERE outcome = 'ok'"
    assert setup.stack.sql(made_once) == [(4, 4)]
    ((spent,),) = setup.stack.sql("SELECT sum(cost_usd) FROM call")
    assert Decimal(spent) == 4 * LINE


async def test_a_waiting_line_does_not_block_a_call_with_the_same_question(setup: Setup) -> None:
    """Of concurrent calls with the same question one is sent to the model, and the others wait for its answer."""
    place = deployment("one", setup.model_port, rates=BATCH_RATES)
    setup.stack.apply(blueprint(2, [place], [workload("assistant", ["one"], cache=CACHE)], limit=PICO // 100))
    await setup.stack.wait_until_ready(2)
    setup.model.script = Script(mode="error", status=429, retry_after="40")
    batch = await create_batch(setup.client, input_lines(1))
    async with asyncio.timeout(30):
        while not setup.model.counted:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    began = time.monotonic()
    assert (await setup.stack.chat(setup.key, "q0")).status == 503
    assert time.monotonic() - began < 10 and setup.model.counted == 1
    await setup.client.batches.cancel(batch.id)
    assert (await wait_until_ended(setup.client, batch.id)).status == "cancelled"


async def test_a_line_that_needs_more_than_a_whole_limit_fails_without_waiting(setup: Setup) -> None:
    await apply_limits(
        setup, 2, Limit(name="few", covers="workload/assistant", type="tokens", amount=10, period="minute")
    )
    batch = await wait_until_ended(setup.client, (await create_batch(setup.client, input_lines(1))).id, 30)
    assert batch.status == "completed"
    (failure,) = await contents(setup.client, batch.error_file_id)
    assert failure["response"]["status_code"] == 429
    assert failure["response"]["body"]["error"]["code"] == "rate_limit_exceeded"


async def test_lines_wait_while_postgresql_is_too_slow_to_say_whether_a_limit_has_room(setup: Setup) -> None:
    await apply_limits(setup, 2, msgspec.structs.replace(FEW, amount=50))
    with psycopg.connect(setup.stack.database.urls["owner"]) as conn:
        conn.execute("LOCK TABLE limit_span IN EXCLUSIVE MODE")
        batch = await create_batch(setup.client, input_lines(6))
        await asyncio.sleep(2)
        assert setup.model.counted == 0
    batch = await wait_until_ended(setup.client, batch.id, 60)
    assert batch.request_counts is not None and batch.request_counts.completed == 6


async def test_lines_that_wait_for_a_limit_are_continued_by_the_next_worker(setup: Setup) -> None:
    """They have not been sent: a worker that is stopped neither waits for them nor loses them."""
    await apply_limits(setup, 2, FEW)
    batch = await create_batch(setup.client, input_lines(6))
    await wait_until(setup.client, batch.id, lambda b: b.request_counts is not None and b.request_counts.completed == 2)
    async with asyncio.timeout(30):
        while setup.stack.sql("SELECT count(*) FROM batch_line WHERE state = 'running'") != [(4,)]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    began = time.monotonic()
    setup.stack.workers[0].terminate()
    await asyncio.to_thread(setup.stack.workers.pop().wait, 60)
    assert time.monotonic() - began < 10
    setup.stack.start()
    await setup.stack.wait_until_ready(2)
    await apply_limits(setup, 3)
    await asyncio.to_thread(ship, setup.stack)
    batch = await wait_until_ended(setup.client, batch.id)
    assert batch.status == "completed" and batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed, setup.model.counted) == (6, 0, 6)


async def test_a_blocked_batch_does_not_block_others(setup: Setup) -> None:
    """Its input is not there any more; or what a newer release wrote, before which this one is back, cannot be read."""
    lost = await setup.client.files.create(file=("calls.jsonl", input_lines(2)), purpose="batch")
    setup.model.script = Script(tokens=20, latency_ms=300)
    good = await create_batch(setup.client, input_lines(2))
    stack, ids = setup.stack, [uuid.UUID(int=1), uuid.UUID(int=2)]
    (stack.home.root / "files" / str(uuid.UUID(hex=lost.id.removeprefix("file-")))).unlink()
    for id, status in zip(ids, ("validating", "in_progress"), strict=True):
        stack.sql(
            """INSERT INTO batch (id, workload, key_id, person, endpoint, input_file, completion_window, status,
                 created_at, expires_at, total) SELECT %s, workload, key_id, person, endpoint, %s, completion_window,
                 %s, created_at, expires_at, 0 FROM batch WHERE id <> ALL(%s)""",
            id, uuid.UUID(hex=lost.id.removeprefix("file-")), status, ids,
        )  # fmt: skip
    stack.sql(
        """INSERT INTO batch_order (id, batch_id, deployment, blueprint, next_at)
           VALUES (%s, %s, '{"name": 1}', 1, now() + interval '1 hour')""",
        new_id(), ids[1],
    )  # fmt: skip
    for id in ids:
        (stack.home.root / "batches" / str(id)).touch()  # they come before all others
    assert (await wait_until_ended(setup.client, good.id)).status == "completed"
    assert (
        await wait_until_ended(setup.client, (await create_batch(setup.client, input_lines(2))).id)
    ).status == "completed"
    assert stack.sql("SELECT status FROM batch WHERE id = ANY(%s) ORDER BY id", ids) == [
        ("failed",),
        ("in_progress",),
    ], "what is lost does not come back; what a newer release wrote can be read by it again"
    log = (stack.home.logs / "gateway.log").read_text()
    assert [log.count(f"batch {id} waits") for id in ids] == [0, 1]


async def test_an_upstreams_refusal_may_be_any_json(setup: Setup) -> None:
    """Even with numbers that PostgreSQL has no type for."""
    setup.model.script = Script(tokens=20, latency_ms=500)
    batch = await create_batch(setup.client, input_lines(2))
    await wait_until(setup.client, batch.id, lambda b: b.status == "in_progress")
    setup.stack.sql(
        "UPDATE batch_line SET state = 'done', ok = false, result = '{\"error\":1e-99999}' WHERE number = 2"
    )
    batch = await wait_until_ended(setup.client, batch.id)
    assert batch.status == "completed" and batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)


async def test_a_batch_of_moderations(setup: Setup) -> None:
    body = {"model": "auto", "input": ["hello", "attack"]}
    batch = await wait_until_ended(
        setup.client, (await create_batch(setup.client, input_line("m", body, MODERATIONS), MODERATIONS)).id
    )
    (entry,) = await contents(setup.client, batch.output_file_id)
    assert [result["flagged"] for result in entry["response"]["body"]["results"]] == [False, True]


async def test_a_batch_of_images(setup: Setup) -> None:
    """Each line is a call at the price of its images, also where the deployment has a batch endpoint."""
    asked = {"model": "auto", "prompt": "a cat", "size": "1024x1024"}
    data = input_line("a", {**asked, "n": 2}, IMAGES) + input_line("b", {**asked, "size": "auto"}, IMAGES)
    batch = await wait_until_ended(setup.client, (await create_batch(setup.client, data, IMAGES)).id)
    assert batch.status == "completed" and batch.error_file_id is None, batch
    found = {each["custom_id"]: each["response"]["body"] for each in await contents(setup.client, batch.output_file_id)}
    assert [len(found[name]["data"]) for name in "ab"] == [2, 1] and found["a"]["data"][0]["b64_json"]
    ship(setup.stack)
    rows = setup.stack.sql("SELECT c.endpoint, a.cost_usd FROM call c JOIN attempt a ON a.call_id = c.id")
    assert [(endpoint, int(cost * 10_000)) for endpoint, cost in rows] == [("images.generations", 2)] * 2
    assert held_by_slices(setup.stack) <= Decimal("0.01")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"stream": True}, "field_unsupported"),
        ({"n": 11}, "copies_range"),
        ({"image_url": "http://127.0.0.1/a.png"}, "field_unsupported"),
    ],
)
async def test_a_batch_of_images_without_a_cost_bound_is_refused(setup: Setup, body: dict[str, Any], code: str) -> None:
    data = input_line("a", {"model": "auto", "prompt": "a", **body}, IMAGES)
    batch = await wait_until_ended(setup.client, (await create_batch(setup.client, data, IMAGES)).id)
    assert batch.status == "failed" and batch.errors is not None and batch.errors.data is not None
    assert [each.code for each in batch.errors.data] == [code] and setup.model.counted == 0


async def test_a_batch_makes_at_most_a_thousand_images(setup: Setup) -> None:
    data = b"".join(input_line(f"c{n}", {"prompt": "a", "n": 10, "size": "1024x1024"}, IMAGES) for n in range(102))
    batch = await wait_until_ended(setup.client, (await create_batch(setup.client, data, IMAGES)).id)
    assert batch.status == "failed" and batch.errors is not None and batch.errors.data is not None
    assert [(each.code, each.line) for each in batch.errors.data] == [("batch_images", 101), ("batch_images", 102)]


async def test_a_batch_for_an_endpoint_without_a_cost_bound_is_refused(setup: Setup) -> None:
    for endpoint in ("/v1/images/edits", "/v1/videos", "/v1/audio/speech"):
        with pytest.raises(BadRequestError, match=endpoint) as refused:
            await create_batch(setup.client, input_lines(1), endpoint)
        assert refused.value.code == "endpoint_unsupported" and "/v1/images/generations" in str(refused.value.body)


async def test_files_are_stored_listed_and_deleted_per_workload(setup: Setup) -> None:
    client, stack = setup.client, setup.stack
    data = input_lines(3) * 2000
    file = await client.files.create(file=("a.jsonl", data), purpose="batch")
    assert (file.bytes, file.filename, file.purpose, file.object) == (len(data), "a.jsonl", "batch", "file")
    (path,) = (stack.home.root / "files").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_bytes() == data
    assert (await client.files.content(file.id)).content == data
    assert await client.files.retrieve(file.id) == file
    second = await client.files.create(file=("n" * 300 + ".jsonl", b"{}\n"), purpose="batch")
    assert second.filename == "n" * 194 + ".jsonl", "what it is stays known"
    assert [f.id async for f in client.files.list()] == [second.id, file.id]
    assert [f.id async for f in client.files.list(limit=1)] == [second.id, file.id]
    assert [f.id async for f in client.files.list(limit=1, order="asc")] == [file.id, second.id]
    assert [f.id async for f in client.files.list(limit=10_000)] == [second.id, file.id], "as many as OpenAI allows"
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{stack.port}/v1", api_key=stack.key("other")) as other:
        assert [f async for f in other.files.list()] == []
        for ask in (other.files.retrieve(file.id), other.files.delete(file.id), other.files.content(file.id)):
            with pytest.raises(NotFoundError):
                await ask
        with pytest.raises(NotFoundError):
            await other.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    assert (await client.files.delete(file.id)).deleted
    assert not path.exists()
    with pytest.raises(NotFoundError):
        await client.files.retrieve(file.id)


async def test_files_whose_rows_were_deleted_are_removed_from_disk(database: Database, tmp_path: Path) -> None:
    """Rows deleted by another gateway on the same database, or by one that was killed before it cleared its disk."""
    blobs, now = Blobs(Home(tmp_path)), datetime.now(UTC)
    blobs.ready()
    kept, gone, of_an_order = (new_id() for _ in range(3))
    async with await psycopg.AsyncConnection.connect(database.urls["gateway"], autocommit=True) as connection:
        for id in (kept, gone, of_an_order):
            blobs.path(id).write_bytes(b"prompts")
            if id != of_an_order:
                file = StoredFile(id, "assistant", "user_data", "a.txt", 7, now)
                await file_store.add(connection, file, None)
        await files_api.remove_deleted(connection, blobs)
        assert set(blobs.kept()) == {kept, gone, of_an_order}
        assert await file_store.delete(connection, gone)
        brief = StoredFile(of_an_order, "assistant", "user_data", "a.txt", 7, now, now - timedelta(seconds=1))
        await files_api.remove_deleted(connection, blobs)
        assert set(blobs.kept()) == {kept, of_an_order}
        await file_store.add(connection, brief, None)
        await files_api.remove_deleted(connection, blobs)
        assert blobs.kept() == [kept], "its time is over"
        named = await connection.execute("SELECT id FROM api_file WHERE filename <> ''")
        assert await named.fetchall() == [(kept,)], "a name may say of whom a file is"
        await connection.execute("UPDATE api_file SET deleted_at = now()")  # as where a person is erased
        await files_api.remove_deleted(connection, blobs)
        named = await connection.execute("SELECT id FROM api_file WHERE filename <> ''")
        assert not blobs.kept() and not await named.fetchall()


async def test_files_written_by_a_killed_gateway_without_a_row_are_removed_from_disk(
    database: Database, tmp_path: Path
) -> None:
    """Without a row nobody could read or delete the file, and an erasure would not find it."""
    blobs, now = Blobs(Home(tmp_path)), datetime.now(UTC)
    blobs.ready()
    entered, stray, sent_just_now = (new_id() for _ in range(3))
    output = uuid.uuid5(new_id(), "output")  # of a batch, which makes it again under the same id
    async with await psycopg.AsyncConnection.connect(database.urls["gateway"], autocommit=True) as connection:
        for id in (entered, stray, sent_just_now, output):
            blobs.path(id).write_bytes(b"prompts")
            if id != sent_just_now:
                os.utime(blobs.path(id), (0, 0))
        await file_store.add(connection, StoredFile(entered, "assistant", "user_data", "a.txt", 7, now), None)
        await files_api.remove_deleted(connection, blobs)
        assert set(blobs.kept()) == {entered, sent_just_now, output}


async def test_a_batch_created_again_with_its_idempotency_key_is_the_same_batch(setup: Setup) -> None:
    """As whoever got no answer does, at once or later; a file, too."""
    client, told = setup.client, {"Idempotency-Key": "night-7"}
    files = [("calls.jsonl", input_lines(2))] * 2 + [("calls.jsonl", input_lines(3))]
    made = [client.files.create(file=file, purpose="batch", extra_headers={"Idempotency-Key": "f"}) for file in files]
    file = await made[0]
    assert (await made[1]).id == file.id
    with pytest.raises(ConflictError, match="was used for another request"):
        await made[2]
    assert [path.name for path in (setup.stack.home.root / "files").iterdir()] == [str(uuid.UUID(file.id[5:]))]

    async def ordered(**more: Any) -> Batch:
        return await client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h", extra_headers=told, **more
        )

    first, second = await asyncio.gather(ordered(), ordered())
    assert first.id == second.id and (await wait_until_ended(client, first.id)).status == "completed"
    assert (await client.files.delete(file.id)).deleted
    reply = await client.with_options(default_headers=told).batches.with_raw_response.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h"
    )
    again = reply.parse()
    assert (again.id, again.status, reply.headers["groundplan-replay"]) == (first.id, "completed", "true")
    with pytest.raises(ConflictError, match="was used for another request"):
        await ordered(metadata={"run": "8"})
    with pytest.raises(ConflictError, match="is deleted"):
        await client.files.create(file=files[0], purpose="batch", extra_headers={"Idempotency-Key": "f"})
    assert setup.model.counted == 2 and len((await client.batches.list()).data) == 1
    setup.stack.sql("UPDATE order_key SET at = now() - interval '25 hours'")
    with pytest.raises(NotFoundError):
        await ordered()  # a day later it is another order, for which the file is missing


async def test_files_are_kept_within_the_declared_time_and_number(setup: Setup) -> None:
    client, stack = setup.client, setup.stack
    file = await client.files.create(
        file=("calls.jsonl", input_lines(1)), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    made = await client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h",
        output_expires_after={"anchor": "created_at", "seconds": 7200},
    )  # fmt: skip
    batch = await wait_until_ended(client, made.id)
    output = await client.files.retrieve(batch.output_file_id or "")
    assert output.expires_at is not None and output.expires_at - output.created_at in (7200, 7201)
    stack.sql("UPDATE api_file SET expires_at = now() WHERE purpose = 'batch'")
    assert [each.id async for each in client.files.list()] == [output.id]
    with pytest.raises(NotFoundError):
        await client.files.content(file.id)
    places, room = [deployment("one", setup.model_port, rates=BATCH_RATES)], 2 * file_store.MIN_COUNTED_BYTES + 100_000
    assert max(output.bytes, file.bytes) < file_store.MIN_COUNTED_BYTES
    stack.apply(blueprint(2, places, [workload("assistant", ["one"], file_bytes=room)], limit=PICO // 100))
    await stack.wait_until_ready(2)
    for _ in range(2):  # what is sent again needs no room
        await client.files.create(file=bytes(90_000), purpose="user_data", extra_headers={"Idempotency-Key": "f"})
    for size in (1, 20_000, 200_000):  # the smallest one, as it comes, and before
        with pytest.raises(APIStatusError, match="the files of this workload would be") as full:
            await client.files.create(file=bytes(size), purpose="user_data")
        assert full.value.status_code == 413 and full.value.code == "files_full"
    assert len(list((stack.home.root / "files").iterdir())) == 3
    assert (await stack.post("/v1/messages/batches", setup.key, {"requests": ["x" * 20_000]})).code == "files_full"


async def test_unsupported_files_and_batches_are_refused_by_name(setup: Setup) -> None:
    client = setup.client
    with pytest.raises(BadRequestError, match="is not served"):
        await client.files.create(file=b"x", purpose="evals")
    with pytest.raises(BadRequestError, match="expires_after has '60' seconds"):
        await client.files.create(file=b"x", purpose="batch", expires_after={"anchor": "created_at", "seconds": 60})
    file = await client.files.create(file=b"x", purpose="batch")
    with pytest.raises(BadRequestError, match="batches cannot call"):
        await client.batches.create(input_file_id=file.id, endpoint="/v1/videos", completion_window="24h")
    unkept = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", "metadata": {"a": "x\0"}}
    for reply in (
        await setup.stack.post("/v1/batches", setup.key, unkept),
        await setup.stack.ask("GET", "/v1/files?purpose=%00", setup.key),
    ):
        assert (reply.status, reply.code) == (400, "value_unsupported"), "an error of the caller, which is not retried"
    for pairs in ({f"k{n}": "" for n in range(17)}, {"k" * 65: ""}, {"k": "v" * 513}):
        reply = await setup.stack.post("/v1/batches", setup.key, {**unkept, "metadata": pairs})
        assert (reply.status, reply.code) == (400, "metadata_invalid")
    most = {f"{n:k>64}": "v" * 512 for n in range(16)}
    assert (await setup.stack.post("/v1/batches", setup.key, {**unkept, "metadata": most})).json["metadata"] == most
    assert (await setup.stack.ask("PUT", "/v1/files", setup.key)).status == 405
    upload = await client.uploads.create(bytes=1, filename="x", mime_type="text/plain", purpose="user_data")
    for path in ("/v1/files", f"/v1/uploads/{upload.id}/parts"):
        assert (await setup.stack.post(path, setup.key, b"")).code == "form_missing"
        wrong = await setup.stack.post(path, setup.key, {}, content_type="application/json")
        assert (wrong.status, wrong.code) == (415, "content_type")
    assert (await setup.stack.post("/v1/files", "gp_wrong", {})).status == 401
    assert len(list((setup.stack.home.root / "files").iterdir())) == 1
    setup.model.script = Script(tokens=20, latency_ms=500)
    busy = await create_batch(setup.client, input_lines(20))
    with pytest.raises(ConflictError):
        await client.files.delete(busy.input_file_id)


async def test_lines_answered_from_the_cache_cost_nothing(setup: Setup) -> None:
    stack, client = setup.stack, setup.client
    made = blueprint(
        2, [deployment("one", setup.model_port, rates=BATCH_RATES)], [workload("assistant", ["one"], cache=CACHE)]
    )
    stack.apply(made)
    await stack.wait_until_ready(2)
    body = {"model": "auto", "max_tokens": 20, "messages": [{"role": "user", "content": "the same"}]}
    batch = await wait_until_ended(
        client, (await create_batch(client, b"".join(input_line(f"s{n}", body) for n in range(6)))).id
    )
    assert batch.status == "completed" and setup.model.counted == 1
    found = [entry["response"]["body"]["groundplan"] for entry in await contents(client, batch.output_file_id)]
    assert sorted(facts["cache"] for facts in found) == ["exact"] * 5 + ["none"]
    assert sum(Decimal(facts["cost_usd"]) for facts in found) == LINE
    assert (await stack.chat(setup.key, "the same")).json["groundplan"]["cache"] == "exact"
    assert held_by_slices(stack) <= 6 * LINE


async def test_a_guardrail_of_another_process_checks_each_line(setup: Setup) -> None:
    number = "536-90-4399"
    rules = Guardrails(input={"secrets": "block"}, presidio_input="block", budget_ms=10_000)
    places = [deployment("one", setup.model_port, rates=BATCH_RATES)]
    setup.stack.apply(blueprint(2, places, [workload("assistant", ["one"], guardrails=rules)], limit=PICO // 100))
    await setup.stack.wait_until_ready(2)
    body = {"model": "auto", "max_tokens": 20}
    texts = ["What is it?", f"I am {number}.", "And this?"]
    asked = [input_line(f"c{n}", {**body, "messages": [{"role": "user", "content": t}]}) for n, t in enumerate(texts)]
    async with searching(setup.stack.home.root) as bodies:
        batch = await wait_until_ended(setup.client, (await create_batch(setup.client, b"".join(asked))).id)
    assert batch.request_counts is not None, batch
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 1)
    assert [entry["custom_id"] for entry in await contents(setup.client, batch.output_file_id)] == ["c0", "c2"]
    (failure,) = await contents(setup.client, batch.error_file_id)
    assert (failure["custom_id"], failure["response"]["body"]["error"]["code"]) == ("c1", "guardrail_presidio")
    assert number not in json.dumps(failure) and setup.model.counted == 2 and len(bodies) == 3


async def test_writing_the_lines_of_a_batch_does_not_lock_its_budget(setup: Setup) -> None:
    """Lines are written before the reservation is taken, since for a large batch that takes a second."""
    await setup.client.chat.completions.create(model="auto", max_tokens=5, messages=[{"role": "user", "content": "x"}])
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%hold_batch%%'"
    with psycopg.connect(setup.stack.database.urls["owner"]) as owner:
        owner.execute("SELECT 1 FROM budget_period FOR UPDATE")
        made = await create_batch(setup.client, input_lines(3))
        async with asyncio.timeout(20):
            while not (found := setup.stack.sql(waiting)):  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.05)
        written = setup.stack.sql(
            "SELECT 1 FROM pg_locks WHERE pid = %s AND relation = 'batch_line'::regclass AND mode = 'RowExclusiveLock'",
            found[0][0],
        )
    assert written == [(1,)]
    assert (await wait_until_ended(setup.client, made.id)).status == "completed"
