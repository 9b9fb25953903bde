"""Batches at Anthropic's own batch endpoint: ordered once though they bear no name, found again, metered each call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from anthropic import APIError, AsyncAnthropic
from anthropic.types.messages import MessageBatch
from tests.integration.gateway_stack import blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.test_batch_kill import run_shipper
from tests.integration.test_batch_orders import World, wait_until
from tests.integration.test_batches import BATCH_RATES, LINE
from tests.integration.test_message_batches import counts, requests, results

from groundplan.core.money import PICO
from groundplan.testing.database import Database

ORDER = "POST /v1/messages/batches"


class MessageWorld(World):
    """One installation whose deployment has Anthropic's batch endpoint."""

    asking: AsyncAnthropic

    def apply(self, number: int = 1, limit: int = PICO // 100, limits: Any = (), **settings: Any) -> None:  # noqa: ARG002
        place = deployment("one", self.port, rates=BATCH_RATES, serves=["batches"], api="anthropic")
        self.stack.apply(blueprint(number, [place], [workload("assistant", ["one"], **settings)], limit=limit))

    @property
    def provider_batches(self) -> list[Any]:
        return list(self.model.message_batches.batches.values())

    async def order(self, count: int) -> str:
        made = await self.asking.messages.batches.create(requests=requests(count))
        return str(made.id)

    async def over(self, id: str, seconds: float = 60) -> MessageBatch:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    batch = await self.asking.messages.batches.retrieve(id)
                    if batch.processing_status == "ended":
                        return batch
                except APIError:
                    pass  # whoever answered is being killed
                await asyncio.sleep(0.1)


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[MessageWorld]:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack, run_shipper(stack):
        key = stack.key()
        url = f"http://127.0.0.1:{stack.port}"
        async with AsyncAnthropic(base_url=url, api_key=key, max_retries=0, timeout=60) as client:
            made = MessageWorld(stack, model, port, key, None)  # type: ignore[arg-type]
            made.asking = client
            made.script_provider()
            made.apply()
            stack.start()
            await stack.wait_until_ready()
            yield made


async def test_a_batch_is_ordered_at_the_provider_and_metered_call_by_call(world: MessageWorld) -> None:
    world.script_provider(line_ms=20)
    id = await world.order(8)
    await wait_until(lambda: bool(world.provider_batches))
    (there,) = world.provider_batches
    params = there.requests[0]["params"]
    assert (params["model"], params["max_tokens"]) == ("up-one", 20)
    assert there.headers[b"anthropic-version"] == b"2023-06-01"
    batch = await world.over(id)
    assert counts(batch) == {"succeeded": 8}
    found = await results(world.asking, id)
    assert sorted(found) == [f"c{n}" for n in range(8)]
    for name, result in found.items():
        assert result.message.content[0].text.startswith(f"You asked: Where is {name}?")
        assert result.message.model_extra["groundplan"]["cost_usd"] == f"{LINE:.12f}"
    assert await world.settled_attempts() == (8, 8 * LINE)
    assert world.model.counted == 8
    ((flagged,),) = world.stack.sql("SELECT count(*) FROM attempt WHERE flags::text LIKE '%%provider_batch%%'")
    assert flagged == 8
    await wait_until(lambda: not world.provider_batches)  # neither prompts nor answers stay at the provider
    await _unmade(world)


async def _unmade(world: MessageWorld) -> None:
    """Calls that fail, that are not made, and one of which nothing is told."""
    world.script_provider(mode="error", status=400, times=2, lines=5, lines_end="expire")
    id = await world.order(8)
    assert counts(await world.over(id)) == {"succeeded": 3, "errored": 2, "expired": 3}
    told = [r.error.error.message for r in (await results(world.asking, id)).values() if r.type == "errored"]
    assert told == ["the scripted model was told to fail"] * 2
    assert await world.settled_attempts() == (8 + 5, (8 + 3) * LINE)
    world.script_provider(lines=2)
    id = await world.order(5)
    await wait_until(lambda: bool(world.provider_batches) and world.provider_batches[-1].completed == 2)
    await world.asking.messages.batches.cancel(id)
    assert counts(await world.over(id)) == {"succeeded": 2, "canceled": 3}
    assert await world.settled_attempts() == (13 + 2, 13 * LINE)
    world.script_provider(lines=2, lines_end="lose")
    id = await world.order(3)
    assert counts(await world.over(id)) == {"succeeded": 2, "errored": 1}
    assert await world.settled_attempts() == (15 + 3, (13 + 3) * LINE)
    assert world.stack.sql("SELECT count(*) FROM attempt WHERE estimated AND outcome = 'failed'") == [(1,)]


STEPS: dict[str, tuple[dict[str, Any], Callable[[MessageWorld], bool]]] = {
    "ordering": ({"mode": "stall", "only": ORDER, "line_ms": 100}, lambda w: len(w.provider_batches) == 1),
    "not_ordered": ({"mode": "down", "only": ORDER}, lambda w: w.order_state() == "sending"),
    "running": ({"line_ms": 150}, lambda w: bool(w.provider_batches) and w.provider_batches[0].completed == 3),
    "collecting": ({"mode": "stall", "only": "GET /v1/messages/batches/msgbatch_000001/results"},
                   lambda w: bool(w.provider_batches) and w.provider_batches[0].status == "ended"),
}  # fmt: skip


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=() if step == "ordering" else pytest.mark.soak) for step in STEPS]
)
async def test_a_worker_killed_at_any_step_orders_once_and_loses_nothing(world: MessageWorld, step: str) -> None:
    """Also where somebody else has a batch of as many calls at the provider."""
    foreign = [{"custom_id": f"x{n}", "params": requests(1)[0]["params"]} for n in range(8)]
    script, reached = STEPS[step]
    world.script_provider(**script)
    id = await world.order(8)
    await wait_until(lambda: reached(world))
    world.model.message_batches.order(foreign)
    await asyncio.sleep(0.1)
    await world.replace_worker()
    world.script_provider(line_ms=script.get("line_ms", 0))
    batch = await world.over(id)
    assert counts(batch) == {"succeeded": 8}
    await wait_until(lambda: all(each.status == "ended" for each in world.provider_batches))
    assert world.model.counted == 16, "it was ordered twice"
    assert sorted(await results(world.asking, id)) == [f"c{n}" for n in range(8)]
    assert await world.settled_attempts() == (8, 8 * LINE)
    assert [each.requests[0]["custom_id"] for each in world.provider_batches] == ["x0"], (
        "somebody else's batch was touched"
    )


async def test_an_order_is_not_sent_again_while_a_batch_that_may_be_it_runs(world: MessageWorld) -> None:
    world.script_provider(mode="cut", only=ORDER, lines=2)  # the provider takes it and does not say so
    id = await world.order(4)
    await wait_until(
        lambda: bool(world.stack.sql("SELECT 1 FROM batch_order WHERE problem LIKE 'whether the provider%%'"))
    )
    assert len(world.provider_batches) == 1 and world.order_state() == "sending"
    ((held,),) = world.stack.sql("SELECT sum(granted_usd - released_usd) FROM budget_slice")
    assert Decimal(held) == 4 * LINE
    world.script_provider()
    assert counts(await world.over(id)) == {"succeeded": 4}
    assert world.model.counted == 4 and await world.settled_attempts() == (4, 4 * LINE)
