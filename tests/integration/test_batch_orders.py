"""Batches at a provider's own batch endpoint: ordered once, found again, metered call by call, ended, paid exactly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid5

import msgspec
import psycopg
import pytest
from openai import AsyncOpenAI
from openai.types import Batch
from tests.integration.gates import wait_until_acknowledged
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.test_batch_kill import retry_until_served, run_shipper
from tests.integration.test_batches import BATCH_RATES, CHAT, LINE, contents, create_batch, input_line, input_lines

from groundplan.blueprint.model import Guardrails, Limit, PolicyRules, Rates
from groundplan.core.money import PICO
from groundplan.gateway.batches.orders.order_runner import MAX_CONCURRENT_ORDERS
from groundplan.gateway.call.admit import COST_PER_CALL
from groundplan.gateway.http.server import Request, Response
from groundplan.ledger import batch_queries
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

BATCHES = ("batches",)
CREATE_BATCH = "POST /v1/batches"


@dataclass
class World:
    """One installation whose deployment `one` has a batch endpoint, with its shipper."""

    stack: Stack
    model: ScriptedModel
    port: int
    key: str
    client: AsyncOpenAI
    timeouts: dict[str, Any] = field(default_factory=dict)
    """Timeouts of the deployment that differ from the usual ones."""
    serves: list[str] = field(default_factory=lambda: list(BATCHES))

    def apply(self, number: int = 1, limit: int = PICO // 100, limits: Any = (), **settings: Any) -> None:
        places = [
            deployment("one", self.port, rates=BATCH_RATES, serves=self.serves, **self.timeouts),
            deployment(
                "vectors", self.port, kind="embeddings", rates=Rates(input=PICO, output=0), serves=list(BATCHES)
            ),
        ]
        made = blueprint(
            number, places, [workload("assistant", ["one"], embeddings=["vectors"], **settings)], limit=limit
        )
        if limits:
            made = type(made)(
                **{name: getattr(made, name) for name in made.__struct_fields__} | {"limits": list(limits)}
            )
        self.stack.apply(made)

    def script_provider(self, **script: Any) -> None:
        self.model.script, self.model._attempts_seen = Script(tokens=20, **script), 0

    @property
    def provider_batches(self) -> list[Any]:
        """The batches that the provider has."""
        return list(self.model.batches.batches.values())

    def make_orders_due(self) -> None:
        """Make orders due now that wait because their provider failed."""
        self.stack.sql("UPDATE batch_order SET next_at = now() WHERE state <> 'ended'")

    def order_state(self) -> str:
        rows = self.stack.sql("SELECT state FROM batch_order")
        return str(rows[0][0]) if rows else ""

    async def replace_worker(self) -> None:
        """Kill the worker and start another one."""
        os.kill(self.stack.workers[0].pid, signal.SIGKILL)
        await asyncio.to_thread(self.stack.workers.pop().wait)
        self.stack.start()

    async def settled_attempts(self) -> tuple[int, Decimal]:
        """(number of attempts, their total cost) once all orders have ended and nothing else is held of the budget."""
        async with asyncio.timeout(60):
            while self.stack.sql(UNSETTLED_ORDERS):  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.1)
        ((attempts, spent, calls, rows),) = self.stack.sql(
            """SELECT count(*), coalesce(sum(a.cost_usd), 0), count(DISTINCT a.call_id), count(DISTINCT c.id)
               FROM attempt a JOIN batch_order o ON o.id = a.epoch LEFT JOIN call c ON c.id = a.call_id"""
        )
        assert calls == rows
        ((granted, limit),) = self.stack.sql(
            """SELECT coalesce(sum(s.granted_usd - s.released_usd), 0), max(p.limit_usd) FROM budget_slice s
               JOIN budget_period p USING (budget, period) JOIN gateway g USING (epoch) WHERE g.host = 'batch'"""
        )
        assert granted == spent <= limit, "money is held for nothing"
        return int(attempts), Decimal(spent)


UNSETTLED_ORDERS = """SELECT 1 FROM batch_order o LEFT JOIN shipped s ON s.epoch = o.id
    WHERE o.state <> 'ended' OR NOT coalesce(s.done, false)"""


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack, run_shipper(stack):
        url = f"http://127.0.0.1:{stack.port}/v1"
        stack_key = stack.key()
        async with AsyncOpenAI(base_url=url, api_key=stack_key, max_retries=0, timeout=30) as client:
            created = World(stack, model, port, stack_key, client)
            created.script_provider()
            created.apply()
            stack.start()
            await stack.wait_until_ready()
            yield created


async def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.02)


async def wait_until_ended(world: World, id: str, seconds: float = 60, make_due: bool = False) -> Batch:
    """The batch once it has ended; workers may be killed meanwhile."""
    async with asyncio.timeout(seconds):
        while True:
            found: Batch = await retry_until_served(lambda: world.client.batches.retrieve(id))
            if found.status in ("failed", "completed", "expired", "cancelled"):
                return found
            if make_due:
                world.make_orders_due()
            await asyncio.sleep(0.1)


async def run_batch(world: World, data: bytes, endpoint: Any = CHAT, **script: Any) -> Batch:
    """Create a batch and wait for its end, with the provider following `script`."""
    world.script_provider(**script)
    return await wait_until_ended(world, (await create_batch(world.client, data, endpoint)).id)


def completed_and_failed(batch: Batch) -> tuple[int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.completed, batch.request_counts.failed


async def test_a_batch_is_ordered_once_and_metered_call_by_call(world: World) -> None:
    batch = await run_batch(world, input_lines(12))
    assert batch.status == "completed" and completed_and_failed(batch) == (12, 0)
    (there,) = world.provider_batches
    assert there.total == 12 and there.asked["metadata"].keys() == {"groundplan_order"}
    found = await contents(world.client, batch.output_file_id)
    assert [entry["custom_id"] for entry in found] == [f"c{n}" for n in range(12)]
    for entry in found:
        facts = entry["response"]["body"]["groundplan"]
        assert facts["cost_usd"] == f"{LINE:.12f}" and facts["deployment"] == "one" and not facts["estimated"]
    assert await world.settled_attempts() == (12, 12 * LINE)
    rows = world.stack.sql("SELECT DISTINCT flags::text, outcome FROM attempt")
    assert len(rows) == 1 and "provider_batch" in rows[0][0] and rows[0][1] == "ok"
    assert world.stack.reported_labels() == [("refunds", "PAY-17")]
    ((audited,),) = world.stack.sql("SELECT count(*) FROM audit_entry WHERE action = 'call'")
    assert audited == 12
    await wait_until(lambda: world.model.batches.files == {})  # neither prompts nor answers stay at the provider
    await _check_failing_lines(world)
    await _check_refused_orders(world)
    await _check_other_endpoints(world)


async def test_ordered_responses_have_their_callers_own_instructions(world: World) -> None:
    """Where the deployment has responses itself; what the workload puts in front is told nobody."""
    path = "/v1/responses"
    world.serves = ["batches", "responses"]
    world.apply(2, system_prompt="Nobody is told this.")
    await world.stack.wait_until_ready(2)
    said = [
        {"model": "auto", "max_output_tokens": 20, "input": "q"} | more for more in ({}, {"instructions": "Short."})
    ]
    batch = await run_batch(world, b"".join(input_line(f"r{n}", body, path) for n, body in enumerate(said)), path)
    assert (batch.status, completed_and_failed(batch), len(world.provider_batches)) == ("completed", (2, 0), 1)
    first, second = [each["response"]["body"] for each in await contents(world.client, batch.output_file_id)]
    assert (first["instructions"], second["instructions"]) == (None, "Short.")
    assert first["groundplan"]["deployment"] == "one" and not first["groundplan"]["estimated"]


async def _check_failing_lines(world: World) -> None:
    """Lines that fail, lines that the provider did not make, and a line without result."""
    batch = await run_batch(world, input_lines(8), mode="error", status=400, times=2, lines=5, lines_end="expire")
    assert completed_and_failed(batch) == (3, 5)
    failures = await contents(world.client, batch.error_file_id)
    told = [f["error"]["code"] if f["error"] else f["response"]["status_code"] for f in failures]
    assert sorted(map(str, told)) == ["400", "400", "batch_expired", "batch_expired", "batch_expired"]
    assert await world.settled_attempts() == (12 + 5, (12 + 3) * LINE)
    batch = await run_batch(world, input_lines(3), lines=2, lines_end="lose")
    (lost,) = await contents(world.client, batch.error_file_id)
    assert lost["error"]["code"] == "batch_line_lost" and completed_and_failed(batch) == (2, 1)
    assert await world.settled_attempts() == (17 + 3, (15 + 3) * LINE)
    assert world.stack.sql("SELECT count(*) FROM attempt WHERE estimated AND outcome = 'failed'") == [(1,)]


async def _check_refused_orders(world: World) -> None:
    """A provider that refuses, one that is busy, and one whose answer is lost."""
    batch = await run_batch(world, input_lines(3), mode="error", status=400, only=CREATE_BATCH)
    failures = await contents(world.client, batch.error_file_id)
    assert {entry["error"]["code"] for entry in failures} == {"batch_order_refused"}
    assert "was told to fail" in failures[0]["error"]["message"]
    assert await world.settled_attempts() == (20, 18 * LINE)
    before = len(world.provider_batches)
    for mode, status in (("error", 429), ("error", 402), ("cut", 0)):  # `cut`: it was taken, and nobody said so
        batch = await run_batch(world, input_lines(3), mode=mode, status=status, times=1, only=CREATE_BATCH)
        assert batch.status == "completed" and completed_and_failed(batch) == (3, 0)
    assert len(world.provider_batches) == before + 3, "an order was given twice"
    batch = await run_batch(world, input_lines(3), mode="error", status=400, times=1, only="GET /v1/batches/")
    assert completed_and_failed(batch) == (3, 0), "what the provider has is not given up for what it says once"
    assert await world.settled_attempts() == (32, 30 * LINE)
    await wait_until(lambda: world.model.batches.files == {})


async def _check_other_endpoints(world: World) -> None:
    """Embeddings; what is sent is what a call would have been; limited calls are none of the provider's batches."""
    data = b"".join(input_line(f"e{n}", {"model": "auto", "input": ["a", "b"]}, "/v1/embeddings") for n in range(3))
    before = len(world.provider_batches)
    batch = await run_batch(world, data, "/v1/embeddings")
    assert batch.status == "completed" and len(world.provider_batches) == before + 1
    assert len((await contents(world.client, batch.output_file_id))[0]["response"]["body"]["data"]) == 2
    world.apply(2, system_prompt="Be short.")
    await world.stack.wait_until_ready(2)
    body = {"model": "auto", "max_tokens": 7, "messages": [{"role": "user", "content": "x"}], "seed": 3}
    world.script_provider(lines=0)
    batch = await create_batch(world.client, input_line("a", body))
    await wait_until(lambda: len(world.provider_batches) == before + 2)
    sent = json.loads(world.model.batches.files[world.provider_batches[-1].asked["input_file_id"]].data)
    assert len(sent["custom_id"]) == 32 and (sent["method"], sent["url"]) == ("POST", CHAT)
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "x"}]
    assert sent["body"] == {"model": "up-one", "max_tokens": 7, "seed": 3, "messages": messages}
    with psycopg.connect(world.stack.database.urls["control"]) as connection:
        shown = batch_queries.list_batches(connection, "assistant", 1)[0]
    assert (shown["status"], shown["running"], shown["problem"]) == ("in_progress", 1, None)
    assert Decimal(shown["held_usd"]) == LINE * 7 / 20, "what the order holds is the batch's, for whoever looks"
    await world.client.batches.cancel(batch.id)
    await wait_until_ended(world, batch.id)
    world.apply(
        3, limits=[Limit(name="many", covers="workload/assistant", type="requests", amount=99, period="minute")]
    )
    await world.stack.wait_until_ready(3)
    batch = await run_batch(world, input_lines(4))
    assert batch.status == "completed" and len(world.provider_batches) == before + 2
    for entry in await contents(world.client, batch.output_file_id):
        told = entry["response"]["body"]["groundplan"]
        assert Decimal(told["cost_usd"]) == 2 * LINE, "a call is not made at the batch endpoint, nor at its price"
    world.apply(4)
    await world.stack.wait_until_ready(4)
    world.script_provider(usage={"prompt_tokens": 900, "completion_tokens": 4, "total_tokens": 904})
    await create_batch(world.client, input_lines(1))
    await wait_until(lambda: world.stack.sql("SELECT 1 FROM kill_switch") != [])  # from then on nobody is told of it
    await world.settled_attempts()
    newest = world.stack.sql("SELECT flags, cost_usd < reserved_usd FROM attempt ORDER BY at DESC LIMIT 1")
    assert newest == [(["provider_batch", "over_bound", "over_input"], True)]
    ((reason,),) = world.stack.sql("SELECT reason FROM kill_switch")
    assert "counted 900 tokens of its prompt, more than were reserved for" in reason


@pytest.mark.soak
async def test_an_order_is_ended_by_cancellation_expiry_and_kill_switch(world: World) -> None:
    world.script_provider(lines=4)
    batch = await create_batch(world.client, input_lines(10))
    await wait_until(lambda: bool(world.provider_batches) and world.provider_batches[0].completed == 4)
    assert (await world.client.batches.cancel(batch.id)).status == "cancelling"
    done = await wait_until_ended(world, batch.id)
    assert done.status == "cancelled" and completed_and_failed(done) == (4, 6)
    failures = await contents(world.client, done.error_file_id)
    assert {entry["error"]["code"] for entry in failures} == {"batch_cancelled"}
    assert await world.settled_attempts() == (4, 4 * LINE)
    world.script_provider(lines=2)
    done = await wait_until_ended(world, (await create_batch(world.client, input_lines(5), window="8s")).id)
    assert (
        done.status == "expired"
        and completed_and_failed(done) == (2, 3)
        and world.provider_batches[1].status == "cancelled"
    )
    failures = await contents(world.client, done.error_file_id)
    assert {entry["error"]["code"] for entry in failures} == {"batch_expired"}
    assert await world.settled_attempts() == (6, 6 * LINE)
    world.script_provider(lines=1)
    batch = await create_batch(world.client, input_lines(5))
    await wait_until(lambda: len(world.provider_batches) == 3 and world.provider_batches[2].completed == 1)
    world.stack.policy(
        "kill", "deployment/one",
        "INSERT INTO kill_switch (id, scope, reason, by) VALUES (gen_random_uuid(), 'deployment/one', 't', 'operator')",
    )  # fmt: skip
    done = await wait_until_ended(world, batch.id)
    assert world.provider_batches[2].status == "cancelled" and completed_and_failed(done) == (1, 4)
    failures = await contents(world.client, done.error_file_id)
    assert {entry["error"]["code"] for entry in failures} == {"killed"}
    assert await world.settled_attempts() == (7, 7 * LINE)


STOPS: dict[str, str] = {
    "key_revoked": "UPDATE api_key SET revoked_at = now() WHERE id = {key}",
    "killed": "INSERT INTO kill_switch (id, scope, reason, by) VALUES (gen_random_uuid(), {scope}, 't', 'operator')",
}


@pytest.mark.parametrize(
    ("code", "scope"),
    [("key_revoked", "")]
    + [
        pytest.param("killed", scope, marks=() if scope == "provider/scripted" else pytest.mark.soak)
        for scope in ("key/{key}", "workload/assistant", "deployment/one", "model/scripted/one", "provider/scripted",
                      "company")
    ],
)  # fmt: skip
async def test_a_kill_ends_orders_at_the_provider_at_once(world: World, code: str, scope: str) -> None:
    """However seldom they are looked at by then."""
    world.script_provider(lines=1)
    batch = await create_batch(world.client, input_lines(5))
    await wait_until(
        lambda: (
            bool(world.provider_batches) and world.provider_batches[0].completed == 1 and world.order_state() == "sent"
        )
    )
    world.stack.sql("UPDATE batch_order SET next_at = now() + interval '100 seconds'")
    await asyncio.sleep(1)
    ((key,),) = world.stack.sql("SELECT key_id::text FROM batch")
    other = world.stack.key()
    world.stack.policy(
        "key", key, STOPS[code].format(key=f"'{key}'", scope="'" + scope.format(key=key) + "'")
    )  # fmt: skip
    world.client.api_key = other
    await wait_until(lambda: world.provider_batches[0].status == "cancelled", 10)
    if scope in ("company", "workload/assistant"):
        world.stack.policy("kill", scope, "UPDATE kill_switch SET lifted_at = now()")  # so that somebody may ask
        await world.stack.wait_until_acknowledged()
    done = await wait_until_ended(world, batch.id)
    assert completed_and_failed(done) == (1, 4) and done.status == "completed"
    failures = await contents(world.client, done.error_file_id)
    told = {(entry["error"]["code"], "had not made this call" in entry["error"]["message"]) for entry in failures}
    assert told == {(code, True)} or scope in ("company", "workload/assistant")
    assert await world.settled_attempts() == (1, LINE)


async def test_a_deployment_killed_while_the_input_is_uploaded_gets_no_order(world: World) -> None:
    uploading, acknowledged, upload = asyncio.Event(), asyncio.Event(), world.model.batches._upload

    async def upload_slowly(request: Request, response: Response) -> None:
        uploading.set()
        await acknowledged.wait()
        await upload(request, response)

    world.model.batches._upload = upload_slowly  # type: ignore[method-assign]
    batch = await create_batch(world.client, input_lines(3))
    await asyncio.wait_for(uploading.wait(), 30)
    world.stack.policy("kill", "deployment/one", STOPS["killed"].format(scope="'deployment/one'"))
    await wait_until_acknowledged(world.stack)
    acknowledged.set()
    done = await wait_until_ended(world, batch.id)
    assert completed_and_failed(done) == (0, 3) and not world.provider_batches
    failures = await contents(world.client, done.error_file_id)
    assert {entry["error"]["code"] for entry in failures} == {"killed"}
    await wait_until(lambda: not world.model.batches.files)
    assert await world.settled_attempts() == (0, Decimal())


@pytest.mark.parametrize("code", ["batch_place_changed", "policy_denied"])
async def test_a_release_that_removes_a_deployment_ends_its_orders(world: World, code: str) -> None:
    """Its deployment is not the workload's any more, or a rule refuses it."""
    world.script_provider(lines=1)
    batch = await create_batch(world.client, input_lines(5))
    await wait_until(
        lambda: (
            bool(world.provider_batches) and world.provider_batches[0].completed == 1 and world.order_state() == "sent"
        )
    )
    world.stack.sql("UPDATE batch_order SET next_at = now() + interval '100 seconds'")
    await asyncio.sleep(1)
    assert world.provider_batches[0].status == "in_progress"
    places = [deployment(name, world.port, rates=BATCH_RATES, serves=world.serves) for name in ("one", "other")]
    named = ["other"] if code == "batch_place_changed" else ["one", "other"]
    made = blueprint(2, places, [workload("assistant", named)], limit=PICO // 100)
    if code == "policy_denied":
        text = 'forbid (principal, action == Action::"call", resource) when { context.deployment == "one" };'
        rule = PolicyRules(name="p", text=text, owner="sam@acme.example", enforced=True)
        made = msgspec.structs.replace(made, policies=[rule])
    world.stack.apply(made)
    await wait_until(lambda: world.provider_batches[0].status == "cancelled", 10)
    done = await wait_until_ended(world, batch.id)
    assert completed_and_failed(done) == (1, 4) and done.status == "completed"
    failures = await contents(world.client, done.error_file_id)
    told = {(entry["error"]["code"], "had not made this call" in entry["error"]["message"]) for entry in failures}
    assert told == {(code, True)}
    assert await world.settled_attempts() == (1, LINE)


async def test_a_line_is_not_ordered_once_its_workload_is_guarded(world: World) -> None:
    """Its input may have been written, and put there, long before the provider takes the order."""
    world.script_provider(mode="error", status=429, only="POST /v1/batches")
    batch = await create_batch(world.client, input_lines(2))
    await wait_until(lambda: world.order_state() == "new" and _of_order(world, "provider_file") is not None)
    world.apply(2, guardrails=Guardrails(input={"secrets": "mask"}))
    await world.stack.wait_until_ready(2)
    world.script_provider()
    done = await wait_until_ended(world, batch.id)
    assert completed_and_failed(done) == (0, 2) and not world.provider_batches and not world.model.batches.files
    failures = await contents(world.client, done.error_file_id)
    assert {entry["error"]["code"] for entry in failures} == {"batch_place_changed"}
    assert await world.settled_attempts() == (0, LINE - LINE)


async def test_a_line_that_is_no_longer_permitted_is_left_out_of_its_order(world: World) -> None:
    """It costs nothing, and an order without any line is none."""
    world.script_provider(mode="error", status=429, only="POST /v1/files")
    dear = input_line("dear", {"model": "auto", "max_tokens": 40, "messages": [{"role": "user", "content": "x"}]})
    some, none = await create_batch(world.client, input_lines(1) + dear), await create_batch(world.client, dear)
    await wait_until(lambda: world.stack.sql("SELECT count(*) FROM batch_order WHERE problem <> ''")[0][0] == 2)
    world.apply(2, max_cost_per_call=int(LINE * PICO * 3 / 2))
    await world.stack.wait_until_ready(2)
    world.script_provider()
    for batch, expected in ((some, (1, 1)), (none, (0, 1))):
        done = await wait_until_ended(world, batch.id, make_due=True)
        assert completed_and_failed(done) == expected
        (failed,) = await contents(world.client, done.error_file_id)
        assert (failed["custom_id"], failed["error"]["code"]) == ("dear", COST_PER_CALL)
    assert len(world.provider_batches) == 1 and await world.settled_attempts() == (1, LINE)


@pytest.mark.soak
async def test_an_order_accepted_twice_by_the_provider_is_flagged_ended_and_paid(world: World) -> None:
    world.script_provider(lines=2)
    batch = await create_batch(world.client, input_lines(4))
    await wait_until(lambda: bool(world.provider_batches) and world.provider_batches[0].completed == 2)
    first = world.provider_batches[0]
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{world.port}/v1", api_key="x") as provider:
        await provider.batches.create(
            input_file_id=first.asked["input_file_id"], endpoint=first.asked["endpoint"], completion_window="24h",
            metadata=first.asked["metadata"],
        )  # fmt: skip
    await wait_until(lambda: world.provider_batches[1].completed == 2)
    world.script_provider()
    done = await wait_until_ended(world, batch.id)
    assert done.request_counts is not None and done.request_counts.completed == 4
    assert (await world.settled_attempts())[0] == world.model.counted, "a call that the provider made is in no row"
    ((flagged,),) = world.stack.sql("SELECT count(*) FROM attempt WHERE flags::text LIKE '%%sent_twice%%'")
    assert flagged >= 2 and world.provider_batches[1].status in ("cancelled", "completed")


def _status(world: World) -> str:
    return str(world.provider_batches[0].status) if world.provider_batches else ""


STEPS: dict[str, tuple[dict[str, Any], Callable[[World], bool]]] = {
    "checked": ({"mode": "down", "only": "GET /v1/batches"}, lambda w: w.order_state() == "new"),
    "uploading": ({"mode": "stall", "only": "POST /v1/files"}, lambda w: len(w.model.batches.files) == 1),
    "ordering": ({"mode": "stall", "only": CREATE_BATCH}, lambda w: len(w.provider_batches) == 1),
    "not_ordered": ({"mode": "down", "only": CREATE_BATCH}, lambda w: w.order_state() == "sending"),
    "running": ({"line_ms": 150}, lambda w: bool(w.provider_batches) and w.provider_batches[0].completed == 3),
    "collecting": ({"mode": "stall", "only": "GET /v1/files/"}, lambda w: _status(w) == "completed"),
}  # fmt: skip


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=() if step == "ordering" else pytest.mark.soak) for step in STEPS]
)
async def test_a_worker_killed_at_any_step_orders_once_and_loses_nothing(world: World, step: str) -> None:
    script, reached = STEPS[step]
    world.script_provider(**script)
    batch = await create_batch(world.client, input_lines(8))
    await wait_until(lambda: reached(world))
    await asyncio.sleep(0.1)
    await world.replace_worker()
    world.script_provider()
    done = await wait_until_ended(world, batch.id, 60)
    assert done.status == "completed" and done.request_counts is not None and done.request_counts.completed == 8
    assert len(world.provider_batches) == 1 and world.model.counted == 8, "it was ordered twice"
    assert sorted(e["custom_id"] for e in await contents(world.client, done.output_file_id)) == [
        f"c{n}" for n in range(8)
    ]
    assert await world.settled_attempts() == (8, 8 * LINE)
    assert len(await _journals(world)) <= 1


async def _journals(world: World) -> list[str]:
    """Journals that are not taken over, besides a living worker's."""
    await asyncio.sleep(0)
    over = "SELECT epoch FROM gateway WHERE state = 'live' UNION SELECT epoch FROM shipped WHERE done"
    known = {str(epoch) for (epoch,) in world.stack.sql(over)}
    return [path.name for path in world.stack.home.journal.iterdir() if path.is_dir() and path.name not in known]


def _of_order(world: World, column: str) -> Any:
    return world.stack.sql(f"SELECT {column} FROM batch_order")[0][0]


@pytest.mark.parametrize("old", ["gone", "refused"])
async def test_an_order_continues_with_the_rotated_provider_key(world: World, tmp_path: Path, old: str) -> None:
    """What was ordered with a key that opens nothing any more is fetched, and paid, all the same."""

    def keyed(number: int, name: str) -> None:
        place = deployment("one", world.port, rates=BATCH_RATES, serves=world.serves, key=f"file:{tmp_path / name}")
        world.stack.apply(blueprint(number, [place], [workload("assistant", ["one"])], limit=PICO // 100))

    for name in ("first", "second"):
        (tmp_path / name).write_text(f"secret-of-the-{name}")
    keyed(2, "first")
    await world.stack.wait_until_ready(2)
    world.script_provider(lines=1)
    batch = await create_batch(world.client, input_lines(3))
    await wait_until(
        lambda: (
            bool(world.provider_batches) and world.provider_batches[0].completed == 1 and world.order_state() == "sent"
        )
    )
    if old == "gone":
        (tmp_path / "first").unlink()
    else:
        answer = world.model._serve_batches

        async def checked(api: Any, target: bytes, request: Request, response: Response) -> None:
            if request.headers[b"authorization"] != b"Bearer secret-of-the-second":
                response.send(401, b"{}")
            else:
                await answer(api, target, request, response)

        world.model._serve_batches = checked  # type: ignore[method-assign, assignment]
    keyed(3, "second")
    world.script_provider()
    world.make_orders_due()
    assert completed_and_failed(await wait_until_ended(world, batch.id, 20)) == (3, 0)
    assert await world.settled_attempts() == (3, 3 * LINE)


async def test_an_unreachable_provider_is_not_polled_more_often_after_a_cancellation(world: World) -> None:
    world.script_provider(lines=1)
    batch = await create_batch(world.client, input_lines(3))
    await wait_until(
        lambda: (
            bool(world.provider_batches) and world.provider_batches[0].completed == 1 and world.order_state() == "sent"
        )
    )
    world.script_provider(lines=1, mode="error", status=503, only="GET /v1/batches/")
    world.stack.sql("UPDATE batch_order SET tries = 12, next_at = now() + interval '100 seconds'")
    await world.client.batches.cancel(batch.id)
    await wait_until(lambda: "503" in _of_order(world, "problem"))
    tries = _of_order(world, "tries")
    await asyncio.sleep(2)
    assert _of_order(world, "tries") == tries, "it is asked twice a second"
    world.script_provider(lines=1)
    world.make_orders_due()
    done = await wait_until_ended(world, batch.id)
    assert done.status == "cancelled" and completed_and_failed(done) == (1, 2)


async def test_an_order_whose_results_cannot_be_stored_reports_it_and_loses_nothing(world: World) -> None:
    world.script_provider(mode="error", status=503, only="GET /v1/files/")
    batch = await create_batch(world.client, input_lines(3))
    await wait_until(lambda: _status(world) == "completed")
    in_the_way = world.stack.home.root / "files" / str(uuid5(_of_order(world, "id"), "0 output")) / "x"
    in_the_way.mkdir(parents=True)
    world.script_provider()
    await wait_until(lambda: "cannot be kept" in _of_order(world, "problem"))
    assert "waits" not in (world.stack.home.logs / "gateway.log").read_text()
    in_the_way.rmdir()
    in_the_way.parent.rmdir()
    done = await wait_until_ended(world, batch.id)
    assert done.status == "completed" and completed_and_failed(done) == (3, 0)
    assert await world.settled_attempts() == (3, 3 * LINE)


async def test_lines_without_result_of_an_ended_order_are_charged_at_their_bound(world: World) -> None:
    world.script_provider(lines=4)
    batch = await create_batch(world.client, input_lines(10))
    await wait_until(lambda: bool(world.provider_batches) and world.provider_batches[0].completed == 4)
    world.script_provider(lines=4, mode="error", status=503, only="GET /v1/files/")
    await world.client.batches.cancel(batch.id)
    await wait_until(lambda: _status(world) == "cancelled" and world.provider_batches[0].output is not None)
    assert world.provider_batches[0].output is not None
    del world.model.batches.files[world.provider_batches[0].output]
    world.script_provider(lines=4)
    done = await wait_until_ended(world, batch.id, make_due=True)
    assert done.status == "cancelled" and completed_and_failed(done) == (0, 10)
    codes = [entry["error"]["code"] for entry in await contents(world.client, done.error_file_id)]
    assert (codes.count("batch_line_lost"), codes.count("batch_cancelled")) == (4, 6)
    assert await world.settled_attempts() == (4, 4 * LINE)


@pytest.mark.parametrize("what", ["GET /v1/batches/", "GET /v1/files/"], ids=["batch", "results"])
async def test_an_order_that_the_provider_does_not_find_at_once_is_not_lost(world: World, what: str) -> None:
    """Of what it told of itself a moment before, since not all of its machines know yet."""
    batch = await run_batch(world, input_lines(3), mode="error", status=404, only=what, times=2)
    assert batch.status == "completed" and completed_and_failed(batch) == (3, 0)
    assert await world.settled_attempts() == (3, 3 * LINE)


async def test_many_orders_at_a_silent_provider_hold_few_database_connections(world: World) -> None:
    world.timeouts = {"first_token_ms": 3000}
    world.apply(2)
    await world.stack.wait_until_ready(2)
    world.script_provider(mode="stall", only="GET /v1/batches")
    batches = [await create_batch(world.client, input_lines(1)) for _ in range(MAX_CONCURRENT_ORDERS + 6)]
    await wait_until(lambda: world.stack.sql("SELECT count(*) FROM batch_order")[0][0] == len(batches))
    await asyncio.sleep(1.5)
    query = """SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND query LIKE '%%batch_order%%' AND pid <> pg_backend_pid()"""
    ((count,),) = world.stack.sql(query)
    assert count <= MAX_CONCURRENT_ORDERS + 2, "with a hundred batches nothing else of the installation could connect"
    world.script_provider()
    for batch in batches:
        assert (await wait_until_ended(world, batch.id, make_due=True)).status == "completed"
