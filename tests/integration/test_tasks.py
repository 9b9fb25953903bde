"""Moderations, rerank, images and audio through a real worker, by OpenAI's own client, each at its kind of price."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, RateLimitError
from tests.integration.gateway_stack import Reply, Stack, blueprint, deployment, installation, scripted, workload

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.economics.price import FREE
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

CENT = PICO // 100
PRICES = {
    "chat": {},
    "judge": {"kind": "moderation", "rates": FREE},
    "sorter": {"kind": "rerank", "rates": Rates(input=PICO, output=0, request=CENT)},
    "painter": {
        "kind": "images",
        "rates": Rates(input=0, output=0, images={"1024x1024": CENT, "1024x1024/hd": 2 * CENT, "512x512": CENT // 2}),
    },
    "token-painter": {"kind": "images", "image_tokens": 60, "rates": Rates(input=PICO, output=100 * PICO)},
    "boundless": {"kind": "images", "rates": Rates(input=0, output=PICO)},
    "voice": {"kind": "speech", "rates": Rates(input=0, output=0, characters=15 * PICO)},
    "ear": {"kind": "transcription", "audio_seconds": 60, "rates": Rates(input=0, output=0, minute=6 * CENT)},
}


@dataclass
class Setup:
    stack: Stack
    model: ScriptedModel
    key: str
    client: AsyncOpenAI

    async def post(self, path: str, **body: Any) -> Reply:
        return await self.stack.post(path, self.key, body)


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    async with scripted("all") as (model, port), installation(database, tmp_path) as stack:
        places = [deployment(name, port, **more) for name, more in PRICES.items()]
        others = [place.name for place in places if place.kind != "chat"]
        stack.apply(blueprint(1, places, [workload("assistant", ["chat"], also=others)], limit=PICO))
        stack.start()
        await stack.ready()
        key = stack.key()
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{stack.port}/v1", api_key=key, max_retries=0) as client:
            yield Setup(stack, model, key, client)


def cost(answer: Any) -> str:
    return str(answer.model_extra["groundplan"]["cost_usd"])


async def test_moderations(setup: Setup) -> None:
    answer = await setup.client.moderations.create(input=["hello", "attack at dawn"], model="judge")
    assert [result.flagged for result in answer.results] == [False, True]
    assert answer.results[1].categories.violence and cost(answer) == "0.000000000000"
    assert answer.model_extra is not None and answer.model_extra["groundplan"]["estimated"] is False
    default = await setup.client.moderations.create(input="hello")
    assert not default.results[0].flagged
    with pytest.raises(BadRequestError, match="given by its address"):
        parts: Any = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/secret.png"}}]
        await setup.client.moderations.create(input=parts, model="judge")
    assert (await setup.post("/v1/moderations", input=[])).code == "input_empty"


async def test_rerank(setup: Setup) -> None:
    documents = ["how to bake bread", "the opening hours", {"text": "hours of bread"}]
    body = {"model": "sorter", "query": "opening hours", "documents": documents, "top_n": 2, "return_documents": True}
    reply = await setup.post("/v1/rerank", **body)
    assert reply.status == 200, reply.body
    results = reply.json["results"]
    assert [result["index"] for result in results] == [1, 2] and results[0]["relevance_score"] == 1.0
    assert results[1]["document"] == {"text": "hours of bread"}
    # a request, and 12 tokens of a USD a million
    assert reply.json["groundplan"]["cost_usd"] == "0.010012000000"
    many = await setup.post("/v1/rerank", model="sorter", query="q", documents=["d"] * 101)
    assert many.json["groundplan"]["cost_usd"] == "0.020102000000", "two hundreds of documents"
    wrongs: list[dict[str, Any]] = [{"documents": []}, {"query": ""}, {"top_n": 0}, {"documents": [1]}]
    for wrong in wrongs:
        assert (await setup.post("/v1/rerank", **{**body, **wrong})).status == 400
    setup.model.script = Script(mode="malformed")
    assert (await setup.post("/v1/rerank", **body)).code == "upstream_failed"


async def test_images_cost_what_their_class_costs(setup: Setup) -> None:
    answer = await setup.client.images.generate(prompt="a house", model="painter", n=3, size="1024x1024")
    assert answer.data is not None and len(answer.data) == 3 and cost(answer) == "0.030000000000"
    assert base64.b64decode(answer.data[0].b64_json or "").startswith(b"\x89PNG")
    fine = await setup.client.images.generate(prompt="a house", model="painter", size="1024x1024", quality="hd")
    assert cost(fine) == "0.020000000000"
    left_open = await setup.client.images.generate(prompt="a house", model="painter")
    assert cost(left_open) == "0.020000000000", "what is left open may be the dearest"
    tokens = await setup.client.images.generate(prompt="a red house", model="token-painter", n=2)
    assert cost(tokens) == "0.010003000000" and tokens.usage is not None and tokens.usage.output_tokens == 100


async def test_images_without_a_bound_are_refused(setup: Setup) -> None:
    for body in (
        {"model": "boundless", "prompt": "x"},
        {"model": "painter", "prompt": "x", "size": "1792x1024"},
    ):
        assert (await setup.post("/v1/images/generations", **body)).code == "image_unpriced"
    with pytest.raises(BadRequestError, match="stream is not supported"):
        await setup.client.images.generate(prompt="x", model="painter", stream=True)
    with pytest.raises(BadRequestError, match="n is 11"):
        await setup.client.images.generate(prompt="x", model="painter", n=11)
    assert setup.model.counted == 0
    for _ in range(5):
        assert (await setup.post("/v1/images/generations", model="painter", prompt="x", n=10)).status == 200
    with pytest.raises(RateLimitError, match="no room"):
        await setup.client.images.generate(prompt="x", model="painter", n=1)
    assert setup.model.counted == 5, "exactly the budget, never beyond"


async def test_failures_of_images_are_settled_like_those_of_chat(setup: Setup) -> None:
    for mode, code in (("malformed", "upstream_failed"), ("cut", "upstream_failed"), ("error", "upstream_failed")):
        setup.model.script = Script(mode=mode)
        reply = await setup.post("/v1/images/generations", model="painter", prompt="x", size="512x512")
        assert (reply.status, json.loads(reply.body)["error"]["code"]) == (503, code)
