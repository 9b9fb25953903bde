"""The older completions through a real worker: official client, an upstream of its own and one with chat only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from openai import AsyncOpenAI
from openai.types import Completion
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    parse_events,
    scripted_upstream,
    workload,
)
from tests.integration.patient import RetryingOpenAIHttpClient
from tests.integration.sdk_types import parse_strictly

from groundplan.blueprint.model import Rates
from groundplan.core.errors import Invalid
from groundplan.core.money import PICO
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.resuming.completions import obstacle
from groundplan.gateway.surfaces.completions import COMPLETIONS, read
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

RATES = Rates(input=PICO, output=10 * PICO)


@dataclass
class Own:
    """An upstream that has completions. `cut`: its streams break."""

    cut: bool = False
    asked: list[bytes] = field(default_factory=list)

    async def handle(self, request: Request, response: Response) -> None:
        self.asked.append(request.body)
        body = json.loads(request.body)
        prompt = body["prompt"]
        many = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
        base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
        usage = {"prompt_tokens": 5, "completion_tokens": 3 * many, "total_tokens": 5 + 3 * many}
        if not body.get("stream"):
            choices = [{"index": i, "text": " here", "finish_reason": "stop", "logprobs": None} for i in range(many)]
            response.send(200, json.dumps({**base, "choices": choices, "usage": usage}).encode())
            return
        start = response.start(200, b"content-type: text/event-stream\r\n")
        for index in range(many):
            for text, finish in ((" he", None), ("re", None), ("", "stop")):
                choice = {"index": index, "text": text, "finish_reason": finish, "logprobs": None}
                response.write(b"data: %b\n\n" % json.dumps({**base, "choices": [choice]}).encode(), start)
                start = b""
                await asyncio.sleep(0.02)
            if self.cut:
                response.end()
                return
        response.write(b"data: %b\n\n" % json.dumps({**base, "choices": [], "usage": usage}).encode())
        response.end(b"data: [DONE]\n\n")


@dataclass
class Setup:
    stack: Stack
    own: Own
    chat: ScriptedModel
    key: str

    async def ask(self, **more: Any) -> Reply:
        return await self.stack.post("/v1/completions", self.key, {"model": "auto", "prompt": "Where is it?", **more})


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    own, loop = Own(), asyncio.get_running_loop()
    server = Server(own.handle, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(server.drain, 0.2)
        opened.callback(listener.close)
        chat, two = await opened.enter_async_context(scripted_upstream("chat"))
        stack = await opened.enter_async_context(installation(database, tmp_path))
        port = listener.sockets[0].getsockname()[1]
        slow: dict[str, Any] = {"rates": RATES, "first_token_ms": 5000}
        places = [deployment("chat", two, **slow), deployment("own", port, serves=["completions"], **slow)]
        plain = workload("plain", ["chat", "own"])
        stack.apply(blueprint(1, places, [workload("assistant", ["chat", "own"], system_prompt="Be brief."), plain]))
        stack.start()
        await stack.wait_until_ready()
        yield Setup(stack, own, chat, stack.key())


async def test_completions_work_with_both_kinds_of_upstream(setup: Setup) -> None:
    setup.chat.script = Script(tokens=4)
    reply = await setup.ask(temperature=0, seed=0, stop=["x"], best_of=1, echo=False, presence_penalty=0)
    assert reply.status == 200, reply.body
    found = parse_strictly(Completion, reply.body)
    assert found.usage is not None and found.usage.completion_tokens == 4
    assert found.choices[0].text and found.choices[0].finish_reason == "stop"
    assert reply.json["groundplan"]["cost_usd"] == f"{(found.usage.prompt_tokens + 40) / 1e6:.12f}"
    assert setup.chat.last is not None
    assert json.loads(setup.chat.last.body) == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}],
        "temperature": 0,
        "seed": 0,
        "stop": ["x"],
        "model": "up-chat",
        "max_tokens": 16,
    }
    raw = b'{ "prompt" : ["a","b"], "model":"scripted/own" ,"suffix":"z", "echo":true,"later": [1, 2.50] }'
    reply = await setup.stack.post("/v1/completions", setup.key, raw)
    found = parse_strictly(Completion, reply.body)
    assert [choice.text for choice in found.choices] == [" here", " here"]
    assert reply.json["groundplan"]["cost_usd"] == "0.000065000000"
    assert setup.own.asked[-1] == raw.replace(b'["a","b"]', b'["Be brief.\\n\\na","Be brief.\\n\\nb"]').replace(
        b"scripted/own", b"up-own"
    ).rstrip(b" }") .replace(b"2.50]", b"2.50] ,\"max_tokens\":16}")  # fmt: skip


async def test_the_official_client_streams(setup: Setup) -> None:
    url = f"http://127.0.0.1:{setup.stack.port}/v1"
    async with AsyncOpenAI(
        base_url=url, api_key=setup.key, max_retries=0, http_client=RetryingOpenAIHttpClient()
    ) as client:
        for model, wanted in (("scripted/chat", "You asked: Where is it?"), ("scripted/own", "here")):
            text, facts = "", None
            async for part in await client.completions.create(model=model, prompt="Where is it?", stream=True):
                text += "".join(choice.text for choice in part.choices)
                facts = (part.model_extra or {}).get("groundplan", facts)
            assert text.strip() == wanted and facts is not None and not facts["estimated"]
    reply = await setup.ask(
        model="scripted/own", prompt=["a", "b"], stream=True, stream_options={"include_usage": True}
    )
    *chunks, done = parse_events(reply.body)
    assert done == "[DONE]" and chunks[-1]["usage"]["completion_tokens"] == 6
    assert "groundplan" in chunks[-1] and [c["choices"][0]["index"] for c in chunks[:-1]] == [0, 0, 0, 1, 1, 1]
    setup.own.cut = True
    reply = await setup.ask(model="scripted/own", prompt=["a", "b"], stream=True)
    assert parse_events(reply.body)[-1]["error"]["code"] == "stream_broken"


@pytest.mark.parametrize(("prompt", "texts"), [(b"[ 40, 1309]", 1), (b"[[40,1309], [7]]", 2)])
async def test_token_prompts_are_forwarded_unchanged(setup: Setup, prompt: bytes, texts: int) -> None:
    key = setup.stack.key("plain")
    raw = b'{"prompt" : %b, "model":"auto", "max_tokens" : 5 }' % prompt
    reply = await setup.stack.post("/v1/completions", key, raw)
    assert reply.status == 200, reply.body
    assert len(parse_strictly(Completion, reply.body).choices) == texts
    assert reply.json["groundplan"]["deployment"] == "own", "chat has no word for tokens"
    assert setup.own.asked == [raw.replace(b'"auto"', b'"up-own"')] and setup.chat.counted == 0
    refused = await setup.stack.post("/v1/completions", key, raw.replace(b"auto", b"scripted/chat"))
    assert (refused.code, refused.json["error"]["field"]) == ("field_untranslatable", "prompt: tokens")
    estimate = await setup.stack.post("/v1/completions", key, raw, groundplan_estimate="1")
    assert estimate.json["deployments"][0]["most_prompt_tokens"] > len(raw), "no fewer than its bytes and its tokens"


def test_token_prompts_stay_with_one_model_and_are_not_resumed() -> None:
    places = tuple(
        structs.replace(deployment(name, 1, serves=["completions"]), model=model)
        for name, model in (("one", "a/x"), ("two", "a/x"), ("three", "b/y"))
    )
    tokens, text = (read(b'{"model":"auto","prompt":%b}' % prompt) for prompt in (b"[1, 2]", b'"1 2"'))
    assert [place.name for place in COMPLETIONS.eligible_deployments(tokens, places)] == ["one", "two"]
    assert [place.name for place in COMPLETIONS.eligible_deployments(text, places)] == ["one", "two", "three"]
    assert tokens.extra_tokens == 2 and "tokens" in obstacle(tokens) and obstacle(text) == ""
    with pytest.raises(Invalid, match="text of its own in front"):
        COMPLETIONS.cost_bound(tokens, places[0], 9, 16)


async def test_parameters_unknown_to_chat_are_refused_by_name_or_routed_to_a_native_upstream(setup: Setup) -> None:
    for more in (
        {"echo": True},
        {"suffix": "z"},
        {"logprobs": 2},
        {"logprobs": 0},
        {"best_of": 3},
        {"later": 1},
        {"prompt": ["a", "b"]},
    ):
        refused = await setup.ask(model="scripted/chat", **more)
        assert (refused.status, refused.code) == (400, "field_untranslatable"), refused.body
        assert refused.json["error"]["field"].startswith(next(iter(more)))
        assert (await setup.ask(**more)).json["groundplan"]["deployment"] == "own"
    for wrong, code in (
        ({"prompt": [1, 2]}, "content_unsupported"),
        ({"prompt": [[1, 2], [3]]}, "content_unsupported"),
        ({"prompt": ["a", [3]]}, "content_unsupported"),
        ({"prompt": [1, [3]], "model": "scripted/own"}, "content_unsupported"),
        ({"prompt": {}}, "body_invalid"),
        ({"prompt": []}, "prompts_range"),
        ({"n": 0}, "copies_range"),
        ({"best_of": 99}, "copies_range"),
        ({"max_tokens": 0}, "cap_range"),
    ):
        assert (await setup.ask(**wrong)).code == code
