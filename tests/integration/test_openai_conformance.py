"""Every answer of models, chat and embeddings, and every error, is of the types of OpenAI's pinned client, strictly;
and what that client does by itself (time out, try again, page, decode) works on a real gateway.

What may be asked of chat is in test_chat_features.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject
from tests.integration.gateway_stack import (
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

from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

OF_ERRORS = {"hint", "call_id", "cost_usd", "budget", "covers", "needed_usd", "remaining_usd", "frees_at"}
"""What we add to an error."""
HELLO: Any = [{"role": "user", "content": "Hello there"}]


@dataclass
class Setup:
    stack: Stack
    model: ScriptedModel
    key: str

    def client(self, **more: Any) -> AsyncOpenAI:
        options = {"api_key": self.key, "max_retries": 0, **more}
        return AsyncOpenAI(
            base_url=f"http://127.0.0.1:{self.stack.port}/v1", http_client=RetryingOpenAIHttpClient(), **options
        )

    async def idle(self) -> None:
        """Until no call runs, also none of a client that went away."""
        async with asyncio.timeout(60):
            while '\ngroundplan_gateway_running{worker="0"} 0\n' not in await self.metrics():  # noqa: ASYNC110 -- a process of its own
                await asyncio.sleep(0.05)

    async def metrics(self) -> str:
        return (await self.stack.ask("GET", "/metrics", None)).body.decode()


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        places = [
            deployment("one", port, first_token_ms=15_000),
            deployment("vectors", port, kind="embeddings", first_token_ms=15_000),
        ]
        stack.apply(blueprint(1, places, [workload("assistant", ["one"], embeddings=["vectors"], deadline_ms=20_000)]))
        stack.start()
        await stack.wait_until_ready()
        yield Setup(stack, model, stack.key())


async def test_models_are_of_the_clients_types(setup: Setup) -> None:
    reply = await setup.stack.ask("GET", "/v1/models", setup.key)
    listed = reply.json
    assert listed["object"] == "list" and listed["data"]
    for each in listed["data"]:
        parse_strictly(Model, json.dumps(each))
    async with setup.client() as client:
        assert [model.id async for model in client.models.list()] == [each["id"] for each in listed["data"]]
        assert (await client.models.retrieve(listed["data"][0]["id"])).id == listed["data"][0]["id"]


@pytest.mark.parametrize("more", [{}, {"max_tokens": 2}, {"n": 2}])
async def test_chat_answers_are_of_the_clients_types(setup: Setup, more: dict[str, Any]) -> None:
    reply = await setup.stack.post("/v1/chat/completions", setup.key, {"model": "auto", "messages": HELLO, **more})
    assert reply.status == 200, reply.body
    answer = parse_strictly(ChatCompletion, reply.body)
    assert len(answer.choices) == more.get("n", 1)


@pytest.mark.parametrize("usage", [False, True])
async def test_every_chunk_is_of_the_clients_types(setup: Setup, usage: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    reply = await setup.stack.chat(setup.key, stream=True, **options)
    *chunks, end = parse_events(reply.body)
    assert end == "[DONE]"
    found = [parse_strictly(ChatCompletionChunk, json.dumps(chunk)) for chunk in chunks]
    # who did not ask for usage gets no chunk without choices, which breaks naive clients
    assert all(chunk.choices for chunk in found[:-1]) and bool(found[-1].choices) is not usage
    assert (found[-1].usage is not None) is usage
    assert len({chunk.id for chunk in found}) == 1


@pytest.mark.parametrize("text", ["one text", ["two", "texts"]])
async def test_vectors_are_of_the_clients_types_and_decoded_by_it(setup: Setup, text: str | list[str]) -> None:
    reply = await setup.stack.post(
        "/v1/embeddings", setup.key, {"model": "auto", "input": text, "encoding_format": "float"}
    )
    plain = parse_strictly(CreateEmbeddingResponse, reply.body)
    async with setup.client() as client:
        decoded = await client.embeddings.create(model="auto", input=text)  # asks for base64 by itself
    assert len(plain.data) == len(decoded.data) == (1 if isinstance(text, str) else 2)
    for one, other in zip(plain.data, decoded.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/v1/chat/completions", {"model": "auto"}, 400, openai.BadRequestError),
        ("/v1/chat/completions", {"model": "auto", "messages": []}, 400, openai.BadRequestError),
        ("/v1/chat/completions", b"{", 400, openai.BadRequestError),
        ("/v1/chat/completions", {"model": "no/such", "messages": HELLO}, 404, openai.NotFoundError),
        ("/v1/chat/completions", {"model": "auto", "messages": HELLO, "n": 0}, 400, openai.BadRequestError),
        ("/v1/embeddings", {"model": "auto"}, 400, openai.BadRequestError),
        ("/v1/embeddings", {"model": "no/such", "input": "x"}, 404, openai.NotFoundError),
        ("/v1/nothing", {}, 404, openai.NotFoundError),
    ],
)
async def test_errors_are_of_the_clients_types(
    setup: Setup, path: str, body: Any, status: int, kind: type[openai.APIStatusError]
) -> None:
    reply = await setup.stack.post(path, setup.key, body)
    assert reply.status == status, reply.body
    assert set(reply.json) == {"error"}
    error = parse_strictly(ErrorObject, json.dumps(reply.json["error"]), our_fields=OF_ERRORS)
    assert error.message and error.code
    async with setup.client() as client:
        with pytest.raises(kind) as caught:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            await client.post(
                path.removeprefix("/v1"),
                cast_to=object,
                content=content,
                options={"headers": {"content-type": "application/json"}},
            )
    assert caught.value.code == error.code
    assert setup.model.counted == 0


async def test_a_wrong_key_is_an_authentication_error(setup: Setup) -> None:
    async with setup.client(api_key="gp_wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="auto", messages=HELLO)
    parse_strictly(ErrorObject, json.dumps(caught.value.body), our_fields=OF_ERRORS)


async def test_a_failing_upstream_is_a_server_error_that_the_client_tries_again(setup: Setup) -> None:
    setup.model.script = Script(mode="error", times=1)
    async with setup.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="auto", messages=HELLO)
    parse_strictly(ErrorObject, json.dumps(caught.value.body), our_fields=OF_ERRORS)
    setup.model.script = Script(mode="error", times=1)
    setup.model._attempts_seen = 0
    async with setup.client(max_retries=2) as client:
        assert (await client.chat.completions.create(model="auto", messages=HELLO)).choices
    assert setup.model.counted == 3


async def test_a_stream_that_breaks_is_an_error_of_the_client(setup: Setup) -> None:
    setup.model.script = Script(mode="cut", tokens=20)
    async with setup.client() as client:
        stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                pass
    assert caught.value.code == "stream_broken"
    assert isinstance(caught.value.body, dict)
    parse_strictly(ErrorObject, json.dumps(caught.value.body), our_fields=OF_ERRORS)


async def test_a_client_that_times_out_is_told_so_and_the_next_call_is_served(setup: Setup) -> None:
    setup.model.script = Script(latency_ms=60_000)
    async with setup.client(timeout=0.5) as client:
        while not setup.model.counted:  # on a busy machine its call may not come so far
            with pytest.raises(openai.APITimeoutError):
                await client.chat.completions.create(model="auto", messages=HELLO)
    await setup.idle()  # its call may come so far later
    setup.model.script, before = Script(), setup.model.counted
    async with setup.client() as client:
        assert (await client.chat.completions.create(model="auto", messages=HELLO)).choices
    assert setup.model.counted == before + 1


async def test_retries_with_an_idempotency_key_ask_the_model_once(setup: Setup) -> None:
    setup.model.script = Script(latency_ms=1500)
    async with setup.client(timeout=1.0, max_retries=8) as client:
        answers = [
            await client.chat.completions.create(
                model="auto", messages=HELLO, extra_headers={"Idempotency-Key": "order-7"}
            )
            for _ in range(2)
        ]
    assert setup.model.counted == 1
    assert answers[0].id == answers[1].id


async def test_many_at_once_over_one_client(setup: Setup) -> None:
    async with setup.client(timeout=30) as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model="auto", messages=HELLO, max_tokens=3) for _ in range(50))
        )
    assert len({answer.id for answer in answers}) == 50 == setup.model.counted


NO_CALLS = [
    ("GET", "/v1/models", 200), ("GET", "/v1/models/no/such", 404), ("GET", "/v1/files", 200),
    ("GET", "/v1/files/file-no", 404), ("GET", "/v1/batches", 200), ("POST", "/v1/batches", 400),
    ("GET", "/v1/messages/batches", 200), ("GET", "/v1/messages/batches/no", 404), ("GET", "/v1/messages", 405),
    ("GET", "/v1/chat/completions", 200), ("GET", "/v1/responses/resp_no", 404), ("GET", "/v1/assistants", 400),
    ("GET", "/v1/nothing", 404), ("HEAD", "/v1/models", 200), ("GET", "/v1/realtime", 400),
    ("OPTIONS", "/v1/files", 405), ("GET", "/api/nothing", 404), ("GET", "/mcp", 405),
]  # fmt: skip
"""Method, path and status of what makes no call."""


async def test_answers_that_are_no_calls_have_an_id_where_clients_look_for_it(setup: Setup) -> None:
    ids = []
    for method, path, status in NO_CALLS:
        for version in ({}, {"anthropic-version": "2023-06-01"}):
            reply = await setup.stack.ask(method, path, setup.key, b"{}" if method == "POST" else b"", **version)
            name = "request-id" if version or path.startswith("/v1/messages") else "x-request-id"
            assert reply.status == status, (method, path, reply.status, reply.body)
            assert {"request-id", "x-request-id"} & set(reply.headers) == {name}, (method, path, reply.headers)
            ids.append(reply.headers[name])
            if reply.body and reply.json.get("type") == "error":
                assert reply.json["request_id"] == ids[-1]
    called = await setup.stack.chat(setup.key)
    assert called.headers["x-request-id"] == called.headers["groundplan-call-id"]
    assert len({UUID(each) for each in ids}) == len(ids)
    async with setup.client() as client:
        assert (await client.files.list())._request_id
        with pytest.raises(openai.NotFoundError) as caught:
            await client.files.retrieve("file-no")
        assert caught.value.request_id
        sent = await client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
        assert sent._request_id and (await client.files.content(sent.id)).response.headers["x-request-id"]


@pytest.mark.parametrize(("target", "name"), [("/v1/chat/completions", "x-request-id"), ("/v1/messages", "request-id")])
async def test_what_the_protocol_refuses_has_an_id(setup: Setup, target: str, name: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.stack.port)
    writer.write(f"POST {target} HTTP/1.1\r\nhost: g\r\ncontent-length: 999999999\r\n\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 30)).decode().partition("\r\n\r\n")
    writer.close()
    told = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    assert head.startswith("HTTP/1.1 413 ") and told["connection"] == "close" and UUID(told[name])
    assert json.loads(body).get("request_id", told[name]) == told[name]
