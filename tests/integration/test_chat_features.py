"""What official clients of OpenAI's chat can send, on a real gateway: bytes, tools, formats, images, files, n."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic, beta_async_tool
from openai import AsyncOpenAI, BadRequestError
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel
from tests.integration import node_client
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, parse_events, workload
from tests.integration.patient import RetryingAnthropicHttpClient, RetryingOpenAIHttpClient
from tests.integration.sdk_types import parse_strictly

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.testing.database import Database

IMAGE = "data:image/png;base64,AAAA"
LOGPROBS = {"content": [{"token": "here", "logprob": -0.5, "bytes": [104], "top_logprobs": []}], "refusal": None}


@dataclass
class Echo:
    """An upstream that answers with what the request asks for, and keeps the request's bytes."""

    asked: list[bytes] = field(default_factory=list)

    async def handle(self, request: Request, response: Response) -> None:
        self.asked.append(request.body)
        body = json.loads(request.body)
        message: dict[str, Any] = {"role": "assistant", "content": "It is here.", "refusal": None}
        reason = "stop"
        if body.get("tools") and body["messages"][-1]["role"] != "tool":
            function = {"name": body["tools"][0]["function"]["name"], "arguments": '{"what":"it"}'}
            message |= {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
            reason = "tool_calls"
        elif body.get("response_format"):
            message["content"] = '{"place":"here"}'
        probabilities = LOGPROBS if body.get("logprobs") else None
        choice = {"message": message, "finish_reason": reason, "logprobs": probabilities}
        choices = [{"index": index, **choice} for index in range(body.get("n") or 1)]
        usage = {"prompt_tokens": 9, "completion_tokens": 4 * len(choices), "total_tokens": 9 + 4 * len(choices)}
        base = {"id": "c1", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            whole = {**base, "object": "chat.completion", "choices": choices, "usage": usage}
            response.send(200, json.dumps(whole).encode())
            return
        pieces = []
        for each in choices:
            delta = {"role": "assistant", "content": message["content"]}
            if "tool_calls" in message:
                delta["tool_calls"] = [{"index": 0, **message["tool_calls"][0]}]
            piece = {"index": each["index"], "delta": delta, "finish_reason": None, "logprobs": probabilities}
            pieces += [[piece], [{"index": each["index"], "delta": {}, "finish_reason": reason, "logprobs": None}]]
        response_head = response.start(200, b"content-type: text/event-stream\r\n")
        for choices_now, used in [*((piece, None) for piece in pieces), ([], usage)]:
            chunk = {**base, "object": "chat.completion.chunk", "choices": choices_now, "usage": used}
            response.write(b"data: %b\n\n" % json.dumps(chunk).encode(), response_head)
            response_head = b""
        response.end(b"data: [DONE]\n\n")


@dataclass
class Setup:
    stack: Stack
    upstream: Echo
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.stack.port}/v1"

    def client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.url, api_key=self.key, max_retries=0, http_client=RetryingOpenAIHttpClient())


class Place(BaseModel):
    place: str


@beta_async_tool
async def look(what: str) -> str:
    """A tool that Anthropic's client runs by itself."""
    return f"{what} is there"


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    upstream, loop = Echo(), asyncio.get_running_loop()
    server = Server(upstream.handle, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(server.drain, 0.2)
        opened.callback(listener.close)
        stack = await opened.enter_async_context(installation(database, tmp_path))
        port = listener.sockets[0].getsockname()[1]
        places = [deployment("echo", port, accepts=["image"], image_tokens=100, first_token_ms=10_000)]
        places.append(
            deployment(
                "reader", port, accepts=["file"], rates=Rates(input=PICO, output=10 * PICO), first_token_ms=10_000
            )
        )
        tasks = [workload(name, ["echo", "reader"]) for name in ("assistant", "other")]
        stack.apply(blueprint(1, places, tasks))
        stack.start()
        await stack.wait_until_ready()
        yield Setup(stack, upstream, stack.key())


async def test_a_request_is_forwarded_byte_for_byte(setup: Setup) -> None:
    raw = (
        b'{ "messages" : [{"role":"user","content":"caf\\u00e9","name":"x"}],\n  "model":"auto" ,'
        b'"later_field": [1, 2.50, {"a" :1}], "max_tokens" : 7 , "seed":1e1 }'
    )
    reply = await setup.stack.post("/v1/chat/completions", setup.key, raw)
    assert reply.status == 200, reply.body
    assert setup.upstream.asked[-1] == raw.replace(b'"auto"', b'"up-echo"')
    streamed = raw.replace(b'"max_tokens" : 7', b'"stream":true')
    reply = await setup.stack.post("/v1/chat/completions", setup.key, streamed)
    wanted = streamed.replace(b'"auto"', b'"up-echo"').rstrip(b"}")
    assert setup.upstream.asked[-1] == wanted + b',"max_tokens":1024,"stream_options":{"include_usage":true}}'


async def test_features_of_the_official_client_work(setup: Setup) -> None:
    user: Any = [{"role": "user", "content": "Where is it?"}]
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    async with setup.client() as client:
        answer = await client.chat.completions.create(model="auto", messages=user, tools=[tool], tool_choice="required")
        calls: Any = answer.choices[0].message.tool_calls
        assert calls[0].function.arguments == '{"what":"it"}'
        assert answer.model_extra is not None and answer._request_id == answer.model_extra["groundplan"]["call_id"]
        parsed = await client.chat.completions.parse(model="auto", messages=user, response_format=Place)
        assert parsed.choices[0].message.parsed == Place(place="here")
        told = await client.responses.parse(model="auto", input="Where is it?", text_format=Place)
        assert told.output_parsed == Place(place="here")
        content: Any = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
        await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": content}])
        assert json.loads(setup.upstream.asked[-1])["messages"][0]["content"] == content
        answer = await client.chat.completions.create(
            model="auto", messages=user, logprobs=True, top_logprobs=2, n=3, extra_body={"x": {"y": 1}}
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        assert answer.choices[2].logprobs is not None and answer.choices[2].logprobs.content is not None
        assert answer.choices[2].logprobs.content[0].token == "here"
        assert json.loads(setup.upstream.asked[-1])["x"] == {"y": 1}
        seen: set[int] = set()
        stream = await client.chat.completions.create(model="auto", messages=user, n=3, stream=True, tools=[tool])
        async for chunk in stream:
            seen |= {choice.index for choice in chunk.choices}
        assert seen == {0, 1, 2}
    url = setup.url.removesuffix("/v1")
    async with AsyncAnthropic(
        base_url=url, api_key=setup.key, max_retries=0, http_client=RetryingAnthropicHttpClient()
    ) as other:
        ran = other.beta.messages.tool_runner(model="auto", max_tokens=20, messages=user, tools=[look])
        assert [block.type for block in (await ran.until_done()).content] == ["text"]
    assert json.loads(setup.upstream.asked[-1])["messages"][-1]["content"] == "it is there"


async def test_answers_and_events_have_the_official_clients_types(setup: Setup) -> None:
    body: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "logprobs": True, "n": 2}
    parse_strictly(ChatCompletion, (await setup.stack.post("/v1/chat/completions", setup.key, body)).body)
    reply = await setup.stack.post("/v1/chat/completions", setup.key, {**body, "stream": True})
    *chunks, done = parse_events(reply.body)
    assert done == "[DONE]" and len(chunks) == 4
    for chunk in chunks:
        parse_strictly(ChatCompletionChunk, json.dumps(chunk))


FILE = "data:application/pdf;base64,JVBERi0xLjQK"


async def test_files_go_to_deployments_that_accept_them_and_are_reserved_at_their_full_size(setup: Setup) -> None:
    user: Any = {"role": "user", "content": [{"type": "text", "text": "What?"}]}
    user["content"].append({"type": "file", "file": {"filename": "a.pdf", "file_data": FILE}})
    async with setup.client() as client:
        answer = await client.chat.completions.create(model="scripted/reader", messages=[user], max_tokens=10)
        assert json.loads(setup.upstream.asked[-1])["messages"] == [user]
        assert answer.model_extra is not None and answer.model_extra["groundplan"]["deployment"] == "reader"
        part: Any = {"type": "input_file", "filename": "a.pdf", "file_data": FILE}
        items: Any = [{"role": "user", "content": [{"type": "input_text", "text": "What?"}, part]}]
        told = await client.responses.create(model="scripted/reader", input=items)
        assert told.output_text == "It is here."
        assert json.loads(setup.upstream.asked[-1])["messages"][0]["content"][1] == user["content"][1]
    document = {"type": "base64", "media_type": "application/pdf", "data": FILE.partition(",")[2]}
    content = [{"type": "document", "title": "a.pdf", "source": document}, {"type": "text", "text": "What?"}]
    body = {"model": "scripted/reader", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}
    reply = await setup.stack.post("/v1/messages", setup.key, body)
    assert reply.status == 200, reply.body
    assert json.loads(setup.upstream.asked[-1])["messages"][0]["content"][0] == user["content"][1]
    chat = {"model": "scripted/reader", "max_tokens": 10, "messages": [user]}
    estimate = await setup.stack.post("/v1/chat/completions", setup.key, chat, groundplan_estimate="1")
    assert Decimal(estimate.json["most_usd"]) == Decimal("0.008192") + Decimal("0.0001"), "all of the context"


@pytest.mark.parametrize(
    ("part", "model", "code"),
    [
        ({"file_data": FILE}, "scripted/echo", "content_unsupported"),
        ({"file_id": "file-1", "file_data": FILE}, "scripted/reader", "file_twice"),
        ({"file_data": "https://elsewhere.example/a.pdf"}, "scripted/reader", "file_data"),
        ({"file_data": "data:application/pdf;base64,no base64"}, "scripted/reader", "file_data"),
    ],
)
async def test_missing_or_unsupported_files_are_refused_by_name(
    setup: Setup, part: dict[str, str], model: str, code: str
) -> None:
    content = [{"type": "file", "file": {"filename": "a.pdf", **part}}]
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    refused = await setup.stack.post("/v1/chat/completions", setup.key, body)
    assert (refused.status, refused.code) == (400, code) and "file" in refused.json["error"]["message"]
    assert setup.upstream.asked == []


async def test_files_are_referenced_by_their_ids(setup: Setup) -> None:
    """Uploaded once, named in chat, responses and messages; the upstream gets their bytes."""
    pdf, png = b"%PDF-1.4\n", b"\x89PNG\r\n\x1a\n" + bytes(4)
    user: Any = {"role": "user", "content": [{"type": "text", "text": "What?"}]}
    async with setup.client() as client:
        file = await client.files.create(file=("a.pdf", pdf), purpose="user_data")
        image = await client.files.create(file=("b.bin", png), purpose="vision")
        assert (file.purpose, image.purpose) == ("user_data", "vision")
        assert (await client.files.content(file.id)).content == pdf
        part: Any = {"type": "file", "file": {"file_id": file.id}}
        asked: Any = {"role": "user", "content": [*user["content"], part], "later_field": 1}
        tool: Any = {"role": "assistant", "content": "x", "later": {"file_id": file.id}}
        answer = await client.chat.completions.create(model="scripted/reader", messages=[tool, asked, asked])
        bytes_of = {"filename": "a.pdf", "file_data": FILE}
        sent = {**asked, "content": [*user["content"], {"type": "file", "file": bytes_of}]}
        assert json.loads(setup.upstream.asked[-1])["messages"] == [tool, sent, sent]
        assert answer.model_extra is not None and answer.model_extra["groundplan"]["deployment"] == "reader"
        items: Any = [{"role": "user", "content": [{"type": "input_file", "file_id": file.id}]}]
        await client.responses.create(model="scripted/reader", input=items)
        assert json.loads(setup.upstream.asked[-1])["messages"][0]["content"] == [{"type": "file", "file": bytes_of}]
        items = [{"role": "user", "content": [{"type": "input_image", "file_id": image.id, "detail": "low"}]}]
        await client.responses.create(model="scripted/echo", input=items)
        url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        seen = json.loads(setup.upstream.asked[-1])["messages"][0]["content"][0]
        assert seen == {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
        document = {"type": "document", "title": "a.pdf", "source": {"type": "file", "file_id": file.id}}
        body = {"model": "scripted/reader", "max_tokens": 9, "messages": [{"role": "user", "content": [document]}]}
        reply = await setup.stack.post("/v1/messages", setup.key, body)
        assert reply.status == 200, reply.body
        assert json.loads(setup.upstream.asked[-1])["messages"][0]["content"] == [{"type": "file", "file": bytes_of}]
        chat = {"model": "scripted/reader", "max_tokens": 10, "messages": [asked]}
        estimate = await setup.stack.post("/v1/chat/completions", setup.key, chat, groundplan_estimate="1")
        assert Decimal(estimate.json["most_usd"]) == Decimal("0.008192") + Decimal("0.0001"), "all of the context"


async def test_files_that_cannot_be_inlined_are_refused_by_name(setup: Setup) -> None:
    other, asked = setup.stack.key("other"), "/v1/chat/completions"

    def body(*ids: str, model: str = "scripted/reader") -> dict[str, Any]:
        content = [{"type": "file", "file": {"file_id": id}} for id in ids]
        return {"model": model, "messages": [{"role": "user", "content": content}]}

    async with setup.client() as client:
        mine = await client.files.create(file=("a.pdf", b"%PDF-1.4\n"), purpose="user_data")
        large = await client.files.create(file=("l.pdf", b"%PDF-" + bytes(12 << 20)), purpose="user_data")
        lines = await client.files.create(file=("l.jsonl", b"{}"), purpose="batch")
        wrong = await setup.stack.post(asked, other, body(mine.id))
        assert (wrong.status, wrong.code) == (404, "file_not_found"), "another workload's is not even there"
        assert "/v1/files" in wrong.json["error"]["hint"]
        for ids, status, code in (
            ([large.id], 413, "file_too_large"),
            ([lines.id], 400, "file_purpose"),
            (["file-abc"], 404, "file_not_found"),
            (["\0"], 404, "file_not_found"),
            ([f"file-{number:032x}" for number in range(17)], 400, "files_range"),
        ):
            reply = await setup.stack.post(asked, setup.key, body(*ids))
            assert (reply.status, reply.code) == (status, code), reply.body
        taken = await setup.stack.post(asked, setup.key, body(mine.id, model="scripted/echo"))
        assert (taken.status, taken.code) == (400, "content_unsupported"), "no deployment takes files"
        image = {"role": "user", "content": [{"type": "input_image", "file_id": mine.id}]}
        shown = await setup.stack.post("/v1/responses", setup.key, {"model": "scripted/echo", "input": [image]})
        assert (shown.status, shown.code) == (400, "file_kind")
        await client.files.delete(mine.id)
        gone = await setup.stack.post(asked, setup.key, body(mine.id))
        assert (gone.status, gone.code) == (404, "file_not_found")
        with pytest.raises(BadRequestError, match="not served"):
            await client.files.create(file=b"x", purpose="fine-tune")
    address = [{"type": "input_file", "file_data": FILE, "file_url": "http://127.0.0.1/secret"}]
    reply = await setup.stack.post(
        "/v1/responses", setup.key, {"model": "scripted/reader", "input": [{"role": "user", "content": address}]}
    )
    assert (reply.status, reply.code) == (400, "file_data"), "an address beside the content is one all the same"
    assert setup.upstream.asked == []


@node_client.needed
async def test_the_official_node_client_accepts_the_answers(setup: Setup) -> None:
    printed = await node_client.run_script("node_client.cjs", setup.url, setup.key)
    found = json.loads(printed)
    assert found.pop("events") > 5
    here = "It is here."
    wanted = {"whole": here, "text": here, "deployment": "echo", "response": here, "code": "model_not_found"}
    assert found == wanted


@node_client.needed
async def test_further_features_of_the_official_node_client_work(setup: Setup) -> None:
    found = json.loads(await node_client.run_script("node_features.cjs", setup.url, setup.key))
    arguments = '{"what":"it"}'
    assert found == {
        "called": {"name": "look", "arguments": arguments},
        "streamed": arguments,
        "parsed": {"place": "here"},
        "indexes": [0, 1, 2],
        "logprob": -0.5,
        "seen": "It is here.",
        "reader": "reader",
        "ran": "It is here.",
    }
    asked = [json.loads(body) for body in setup.upstream.asked]
    assert asked[0]["tools"][0]["function"]["parameters"]["required"] == ["what"]
    assert asked[2]["response_format"]["json_schema"]["name"] == "place"
    assert (asked[3]["n"], asked[3]["top_logprobs"]) == (3, 2)
    assert asked[4]["messages"][0]["content"][1]["image_url"]["url"] == IMAGE
    assert asked[5]["messages"][0]["content"][1]["file"]["file_data"] == FILE
    assert asked[7]["messages"][-1] == {"role": "tool", "tool_call_id": "call_1", "content": "it is there"}
