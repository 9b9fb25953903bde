"""What the gateway asks of an upstream besides talking, held by the shipped scripted model as by any real one: right
answers are understood with their usage, and each way of failing is noticed as it is for chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.unit.call_rig import upstream

from groundplan.blueprint.model import Deployment, Rates
from groundplan.gateway.http.server import Request
from groundplan.gateway.surfaces.images import IMAGES
from groundplan.gateway.surfaces.interface import Answered, Interface, Malformed
from groundplan.gateway.surfaces.moderations import MODERATIONS
from groundplan.gateway.surfaces.rerank import RERANK
from groundplan.gateway.upstream.http1 import UpstreamFailure, UpstreamPool
from groundplan.ledger.model import Usage, UsageDetails
from groundplan.testing.scripted import Script, ScriptedModel

RATES = Rates(input=1, output=1, images={"any": 1})
PLACE = Deployment(
    name="one", site="here", model="m", upstream_model="token-model", url="http://u/v1", rates=RATES, image_tokens=50
)
TASKS: dict[str, tuple[Interface, dict[str, Any], Usage | None]] = {
    "moderations": (MODERATIONS, {"model": "m", "input": "hello"}, None),
    "rerank": (RERANK, {"model": "m", "query": "a", "documents": ["a b", "c"]}, Usage(input=4)),
    "images": (
        IMAGES,
        {"model": "m", "prompt": "a b", "n": 2},
        Usage(input=2, output=100, images_made=2, details=UsageDetails(input_text=2)),
    ),
}


@dataclass
class Far:
    model: ScriptedModel
    pool: UpstreamPool

    async def ask(self, task: str) -> Answered:
        """As the gateway does: read, forwarded, sent, understood."""
        interface, body, _ = TASKS[task]
        request = Request(0.0)
        request.body = json.dumps(body).encode()
        ask, codec = interface.read(request), interface.codec(PLACE)
        data = codec.forward(ask, PLACE, 10, [])
        assert json.loads(data) == {**body, "model": "token-model"}
        connection = await self.pool.connect(1.0)
        path = self.pool.prefix + codec.path(PLACE)
        connection.send(b"POST %b HTTP/1.1\r\nhost: u\r\ncontent-length: %d\r\n\r\n%b" % (path, len(data), data))
        try:
            assert await connection.head(1.0) == 200
            return codec.answer(await connection.body(1.0), ask)
        finally:
            connection.release()


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    async with upstream("contract") as (model, server, port):
        pool = UpstreamPool(f"http://127.0.0.1:{port}/v1", server.loop)
        yield Far(model, pool)
        pool.close()


@pytest.mark.parametrize("task", TASKS)
async def test_an_answer_is_understood_with_what_it_used(far: Far, task: str) -> None:
    answered = await far.ask(task)
    assert answered.usage == TASKS[task][2] and json.loads(answered.data)
    assert far.model.counted == 1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", ["malformed", "empty", "error_event", "wrong_type"])
async def test_an_answer_that_is_none_is_noticed(far: Far, task: str, mode: str) -> None:
    far.model.script = Script(mode=mode)
    with pytest.raises(Malformed):
        await far.ask(task)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("mode", "kind"), [("cut", "cut"), ("down", "cut"), ("stall", "timeout")])
async def test_an_upstream_that_fails_fails_as_in_chat(far: Far, task: str, mode: str, kind: str) -> None:
    far.model.script = Script(mode=mode)
    with pytest.raises(UpstreamFailure) as caught:
        await far.ask(task)
    assert caught.value.kind == kind
