"""OpenAI's Responses through a real worker: its official client, both kinds of upstream, money, errors and streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from openai import APIError, APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.responses import Response as ResponseObject
from openai.types.responses import ResponseStreamEvent
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from tests.integration.patient import RetryingOpenAIHttpClient
from tests.integration.sdk_types import parse_strictly

from groundplan.blueprint.model import Keep, Rates
from groundplan.core.money import PICO
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.surfaces.responses import shapes
from groundplan.ledger import response_store
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

RATES = Rates(input=PICO, output=10 * PICO, cache_read=PICO // 10)
LOOK: Any = {
    "type": "function",
    "name": "look",
    "description": "Look",
    "strict": False,
    "parameters": {"type": "object"},
}
GROUP: Any = {"type": "namespace", "name": "files", "description": "Files", "tools": [LOOK]}
SEARCH: Any = {
    "type": "tool_search",
    "execution": "client",
    "description": "Find tools",
    "parameters": {"type": "object"},
}
FOUND: Any = {
    "type": "tool_search_output",
    "execution": "client",
    "call_id": "c",
    "status": "completed",
    "tools": [GROUP],
}
SCHEMA: Any = {"type": "json_schema", "name": "place", "schema": {"type": "object"}, "strict": True}
USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 57,
}


@dataclass
class Own:
    """An upstream that has Responses itself. `mode`: ok | failed | cut | reasons (it thinks, then calls a function).
    As OpenAI's, it knows nothing by an id that it was told not to store."""

    mode: str = "ok"
    asked: list[bytes] = field(default_factory=list)

    async def handle(self, request: Request, response: Response) -> None:
        self.asked.append(request.body)
        if request.target.endswith(b"/responses/input_tokens"):
            response.send(200, b'{"object":"response.input_tokens","input_tokens":12}')
            return
        body = json.loads(request.body)
        if (unknown := _unknown(body)) is not None:
            error = {"message": unknown, "type": "invalid_request_error", "param": "input", "code": None}
            response.send(400, json.dumps({"error": error}).encode())
            return
        part = {"type": "output_text", "text": "It is here.", "annotations": [], "logprobs": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        output = [item]
        if self.mode == "reasons":
            call = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "c1", "name": "look"}
            output = [{"id": "rs_1", "type": "reasoning", "summary": []}, {**call, "arguments": "{}"}]
        whole: dict[str, Any] = {
            "id": f"resp_{len(self.asked)}", "object": "response", "created_at": 1, "status": "completed",
            "instructions": body.get("instructions"), "previous_response_id": None,
            "model": body["model"], "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "usage": USAGE,
        }  # fmt: skip
        if not body.get("stream"):
            response.send(200, json.dumps({**whole, "status": "failed"} if self.mode == "failed" else whole).encode())
            return
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        opened = {**item, "status": "in_progress", "content": []}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.output_item.added", "output_index": 0, "item": opened},
            {"type": "response.content_part.added", **where, "part": {**part, "text": ""}},
            {"type": "response.output_text.delta", **where, "delta": "It is here.", "logprobs": []},
            {"type": "response.output_text.done", **where, "text": "It is here.", "logprobs": []},
            {"type": "response.content_part.done", **where, "part": part},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": f"response.{'failed' if self.mode == 'failed' else 'completed'}", "response": whole},
        ]  # fmt: skip
        start = response.start(200, b"content-type: text/event-stream\r\n")
        for number, event in enumerate(events if self.mode != "cut" else events[:4]):
            data = json.dumps({**event, "sequence_number": number}).encode()
            response.write(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), data), start)
            start = b""
            await asyncio.sleep(0.01)
        response.end()


def _unknown(body: dict[str, Any]) -> str | None:
    """What OpenAI says of items of a request that stores nothing, where it would have to know them."""
    thought = False
    for item in body["input"] if isinstance(body.get("input"), list) else ():
        kind, id = item.get("type"), item.get("id")
        if kind == "reasoning" and not item.get("encrypted_content"):
            return f"Item with id '{id}' not found. Items are not persisted when `store` is set to false."
        if kind == "function_call" and id and not thought:
            return f"Item '{id}' of type 'function_call' was provided without its required 'reasoning' item."
        thought = kind == "reasoning"
    return None


@dataclass
class Setup:
    stack: Stack
    own: Own
    chat: ScriptedModel
    key: str

    def client(self) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"http://127.0.0.1:{self.stack.port}/v1",
            api_key=self.key,
            max_retries=0,
            http_client=RetryingOpenAIHttpClient(),
        )

    async def ask(self, **more: Any) -> Reply:
        return await self.stack.post("/v1/responses", self.key, {"model": "auto", "input": "Where is it?", **more})

    def sent(self) -> Any:
        assert self.chat.last is not None
        return json.loads(self.chat.last.body)


def events_of(data: bytes) -> list[Any]:
    found = []
    for part in data.decode().split("\n\n"):
        if part:
            name, _, text = part.partition("\ndata: ")
            assert name == f"event: {json.loads(text)['type']}"
            found.append(
                parse_strictly(
                    ResponseStreamEvent, text, our_fields={"groundplan", "hint", "call_id", "cost_usd", "error"}
                )
            )
    return found


def test_the_callers_parameters_are_echoed_even_if_the_upstream_omits_them() -> None:
    asked = {"previous_response_id": b'"resp_1"', "instructions": b"null"}
    for upstreams in ({}, {"previous_response_id": None, "instructions": "the workload's prompt"}):
        response = shapes.fields_of(json.dumps({"id": "resp_2", **upstreams}))
        told = json.loads(shapes.with_request_fields(response, asked))
        assert told == {"id": "resp_2", "previous_response_id": "resp_1", "instructions": None}


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
        places = [
            deployment("chat", two, rates=RATES, accepts=["image"], image_tokens=100, first_token_ms=10_000),
            deployment("own", port, rates=RATES, serves=["responses", "input_tokens"], first_token_ms=10_000),
        ]
        made = [workload("assistant", ["chat", "own"], system_prompt="You are ours.")]
        made.append(workload("keeper", ["chat", "own"], keep=Keep(content="full", seconds=3600)))
        made.append(workload("redacts", ["chat"], keep=Keep(content="redacted", seconds=3600)))
        stack.apply(blueprint(1, places, made))
        stack.start()
        await stack.wait_until_ready()
        yield Setup(stack, own, chat, stack.key())


async def test_an_answer_of_a_chat_upstream_is_a_response(setup: Setup) -> None:
    setup.chat.script = Script(tokens=7, cache_read=40)
    reply = await setup.ask(
        instructions="Be brief.", max_output_tokens=30, temperature=0.5, metadata={"a": "b"}, text={"format": SCHEMA},
        reasoning={"effort": "low"}, user="u1", parallel_tool_calls=False, tools=[LOOK],
        tool_choice={"type": "function", "name": "look"},
    )  # fmt: skip
    assert reply.status == 200, reply.body
    found = parse_strictly(ResponseObject, reply.body)
    assert found.status == "completed" and found.metadata == {"a": "b"} and found.instructions == "Be brief."
    assert found.usage is not None and found.usage.input_tokens_details.cached_tokens == 40
    assert found.usage.output_tokens == 7
    uncached = found.usage.input_tokens - 40
    assert reply.json["groundplan"]["cost_usd"] == f"{(uncached + 4 + 70) / 1e6:.12f}"
    assert reply.json["groundplan"]["store"] is False
    assert setup.sent() == {
        "model": "up-chat",
        "messages": [
            {"role": "system", "content": "You are ours."},
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Where is it?"},
        ],
        "max_tokens": 30,
        "temperature": 0.5,
        "response_format": {"type": "json_schema", "json_schema": {k: v for k, v in SCHEMA.items() if k != "type"}},
        "reasoning_effort": "low",
        "user": "u1",
        "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": {k: v for k, v in LOOK.items() if k != "type"}}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
    }
    assert "store" not in (await setup.ask(store=False)).json["groundplan"]


async def test_conversation_items_are_converted_to_messages(setup: Setup) -> None:
    image = "data:image/png;base64,AAAA"
    async with setup.client() as client:
        await client.responses.create(
            model="auto",
            input=[
                {"role": "developer", "content": "Mind the gap."},
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "Look."},
                        {"type": "input_image", "image_url": image, "detail": "low"},
                    ],
                },
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "one"},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
                {"role": "user", "content": "And?"},
            ],
        )
    function = {"name": "look", "arguments": "{}"}
    assert setup.sent()["messages"][1:] == [
        {"role": "system", "content": "Mind the gap."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image_url", "image_url": {"url": image, "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": c, "type": "function", "function": function} for c in ("c1", "c2")],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "user", "content": "And?"},
    ]  # fmt: skip


@pytest.mark.parametrize("tool", [False, True])
async def test_a_stream_of_a_chat_upstream_has_every_event_in_order(setup: Setup, tool: bool) -> None:
    setup.chat.script = Script(tokens=5, tool=tool)
    bare = {"type": "function", "name": "bare"}
    reply = await setup.ask(stream=True, tools=[LOOK, bare, {**bare, "name": "null", "strict": None}])
    assert reply.status == 200, reply.body
    found = events_of(reply.body)
    # PHP's client takes nothing but an object and a boolean here
    forms = [(tool.strict, (tool.parameters or {}).get("type")) for tool in found[0].response.tools]
    assert forms == [(False, "object")] * 3
    assert [event.sequence_number for event in found] == list(range(len(found)))
    kinds = [event.type.removeprefix("response.") for event in found]
    text = ["output_item.added", "content_part.added", *["output_text.delta"] * 5, "output_text.done"]
    text += ["content_part.done", "output_item.done"]
    call = [
        "output_item.added",
        *["function_call_arguments.delta"] * 3,
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert kinds == ["created", "in_progress", *text, *(call if tool else []), "completed"]
    whole = found[-1].response
    assert [item.type for item in whole.output] == ["message", "function_call"][: 1 + tool]
    assert whole.id == found[0].response.id and whole.usage.output_tokens == 5
    facts = found[-1].model_extra["groundplan"]
    assert facts["deployment"] == "chat" and not facts["estimated"]


@pytest.mark.parametrize("model", ["scripted/chat", "scripted/own"])
async def test_the_official_client_accepts_the_answers(setup: Setup, model: str) -> None:
    async with setup.client() as client:
        answer = await client.responses.create(model=model, input="Where is it?")
        wanted = "You asked: Where is it?" if model == "scripted/chat" else "It is here."
        assert answer.output_text.strip() == wanted and answer.model_extra is not None
        assert answer.model_extra["groundplan"]["workload"] == "assistant"
        async with client.responses.stream(model=model, input="Where is it?") as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_response()
        assert final.output_text.strip() == wanted


async def test_a_native_upstream_gets_the_callers_bytes(setup: Setup) -> None:
    raw = b'{ "input" : "caf\\u00e9", "model":"scripted/own" , "include":["x"], "later": [1, 2.50] }'
    reply = await setup.stack.post("/v1/responses", setup.key, raw)
    assert reply.status == 200, reply.body
    assert setup.own.asked[-1] == (
        b'{ "input" : "caf\\u00e9", "model":"up-own" , "include":["x"], "later": [1, 2.50] '
        b',"max_output_tokens":1024,"store":false,"instructions":"You are ours."}'
    )
    parse_strictly(ResponseObject, reply.body)
    # 10 at 1, 40 at 0.1, 7 at 10 USD a million
    assert reply.json["groundplan"]["cost_usd"] == "0.000084000000"
    streamed = await setup.ask(model="scripted/own", stream=True)
    found = events_of(streamed.body)
    assert found[-1].type == "response.completed"
    assert found[-1].model_extra["groundplan"]["cost_usd"] == "0.000084000000"


@pytest.mark.parametrize("more", [{}, {"instructions": 'Be "brief".'}])
@pytest.mark.parametrize("model", ["own", "chat"])
async def test_a_response_echoes_its_callers_own_instructions(setup: Setup, model: str, more: dict[str, str]) -> None:
    """What is put in front of them is the workload's: its callers ask, they do not read how it was told to answer."""
    body = {"model": f"scripted/{model}", "input": "Where is it?", **more}
    reply = await setup.stack.post("/v1/responses", setup.key, body)
    assert parse_strictly(ResponseObject, reply.body).instructions == more.get("instructions")
    streamed = await setup.stack.post("/v1/responses", setup.key, {**body, "stream": True})
    told = [event.response.instructions for event in events_of(streamed.body) if hasattr(event, "response")]
    assert told == [more.get("instructions")] * len(told) and len(told) >= 2
    assert b"You are ours." not in reply.body + streamed.body
    if model == "own":
        assert b"You are ours." in setup.own.asked[-1]


async def test_fields_unknown_to_chat_are_refused_by_name_or_routed_to_a_native_upstream(setup: Setup) -> None:
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"include": ["reasoning.encrypted_content", "message.output_text.logprobs"]},
         "include: message.output_text.logprobs"),
        ({"truncation": "auto"}, "truncation 'auto'"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools: custom"),
        ({"tools": [{**GROUP, "tools": [{"type": "custom", "name": "x"}]}]}, "tools: custom"),
        ({"tools": [{**LOOK, "name": "files__look"}, GROUP]}, "tools: two functions of one name"),
        ({"tools": [SEARCH]}, "tools: tool_search"),
        ({"input": [{"role": "user", "content": "a"}, FOUND]}, "input: an item of type tool_search_output"),
        ({"later_field": 1}, "later_field"),
        ({"text": {"format": {"type": "grammar", "syntax": "lark", "definition": "x"}}}, "text.format grammar"),
        ({"input": [{"role": "user", "content": "a", "later": 1}]}, "input.later"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "a", "later": 1}]}]},
         "input: input_text.later"),
        ({"tools": [{**GROUP, "name": "n" * 60}]},
         "tools: a name with its namespace's of more than 64 signs"),
    ]  # fmt: skip
    for more, name in refusals:
        refused = await setup.ask(model="scripted/chat", **more)
        assert (refused.status, refused.code) == (400, "field_untranslatable"), refused.body
        assert refused.json["error"]["field"] == name
        served = await setup.ask(**more)
        assert served.json["groundplan"]["deployment"] == "own"
    wants = {
        "include": ["reasoning.encrypted_content"],
        "client_metadata": {"thread_id": "t"},
        "reasoning": {"effort": "low", "summary": "auto"},
    }  # fmt: skip -- as Codex always does
    assert (await setup.ask(**wants)).json["groundplan"]["deployment"] == "own"
    chatted = await setup.ask(model="scripted/chat", context_management=[], **wants)
    assert chatted.json["groundplan"]["left_out"] == ["include", "reasoning.summary"], "it has no reasoning"


async def test_reasoning_of_another_model_is_omitted_in_chat_with_a_notice(setup: Setup) -> None:
    """As where a session goes on with another model, or one agent hands over to another."""
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    clear = {**sealed, "content": [{"type": "reasoning_text", "text": "It may be there."}]}
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    asks: Any = {
        "input": [
            {"role": "user", "content": "Where?"}, sealed, call, {**call, "call_id": "c2"}, clear,
            {"type": "function_call_output", "call_id": "c1", "output": "here"},
            {"type": "function_call_output", "call_id": "c2", "output": "there"},
        ],
        "tools": [LOOK],
    }  # fmt: skip
    served = await setup.ask(**asks)
    assert served.status == 200, served.body
    assert served.json["groundplan"]["deployment"] == "own", "who may be able to read it comes first"
    chatted = await setup.ask(model="scripted/chat", **asks)
    assert chatted.status == 200 and chatted.json["groundplan"]["left_out"] == ["reasoning"], chatted.body
    said = setup.sent()["messages"][-4:]
    assert [each["role"] for each in said] == ["user", "assistant", "tool", "tool"]
    assert "may be there" not in str(said) and len(said[1]["tool_calls"]) == 2


async def test_requests_without_a_cost_bound_are_refused(setup: Setup) -> None:
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"tools": [{"type": "web_search"}]}, "field_unsupported"),
        ({"tools": [{**GROUP, "tools": [{"type": "web_search"}]}]}, "field_unsupported"),
        ({"tools": [{**SEARCH, "execution": "server"}]}, "field_unsupported"),
        ({"input": [{**FOUND, "tools": [{"type": "mcp", "server_label": "x"}]}]}, "field_unsupported"),
        ({"input": [{**FOUND, "execution": "server"}]}, "content_unsupported"),
        ({"background": True}, "field_unsupported"),
        ({"conversation": "conv_1"}, "field_unsupported"),
        ({"prompt": {"id": "p"}}, "field_unsupported"),
        ({"service_tier": "flex"}, "field_unsupported"),
        ({"input": []}, "input_empty"),
        ({"max_output_tokens": 0}, "cap_range"),
        ({"previous_response_id": "resp_x"}, "response_not_found"),
        ({"previous_response_id": "resp_\0x"}, "response_not_found"),
        ({"previous_response_id": "../x"}, "response_not_found"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "content_unsupported"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "file_not_found"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://a"}]}]}, "image_url"),
    ]
    for more, code in refusals:
        refused = await setup.ask(**more)
        assert refused.code == code, refused.body
        assert b"item_reference" not in json.dumps(more).encode() or b"store: false" in refused.body
    assert setup.chat.counted == 0 and not setup.own.asked


async def test_broken_streams_end_with_an_error_event(setup: Setup) -> None:
    for mode in ("failed", "cut"):
        setup.own.mode = mode
        reply = await setup.ask(model="scripted/own", stream=True)
        found = events_of(reply.body)
        assert found[-1].type == "error" and found[-1].code == "stream_broken", mode
        assert [event.sequence_number for event in found] == list(range(len(found)))
    setup.chat.script = Script(mode="cut", chunk_ms=30)
    reply = await setup.ask(model="scripted/chat", stream=True)
    assert events_of(reply.body)[-1].code == "stream_broken"
    async with setup.client() as client:
        for model in ("scripted/own", "scripted/chat"):
            with pytest.raises(
                APIError, match=r"the answer broke off: .*\. What came so far is all there is; ask again\."
            ):
                async for _ in await client.responses.create(model=model, input="Where is it?", stream=True):
                    pass
        with pytest.raises(BadRequestError):
            await client.responses.create(model="auto", input="a", background=True)


@pytest.mark.parametrize(("model", "stream"), [("chat", False), ("chat", True), ("own", False), ("own", True)])
async def test_a_stored_response_is_continued_by_its_own_key_only(setup: Setup, model: str, stream: bool) -> None:
    key, other = setup.stack.key("keeper"), setup.stack.key("keeper")
    body: dict[str, Any] = {"model": f"scripted/{model}", "input": "First?", "stream": stream}
    reply = await setup.stack.post("/v1/responses", key, body)
    assert reply.status == 200, reply.body
    last = events_of(reply.body)[-1] if stream else parse_strictly(ResponseObject, reply.body)
    first = last.response if stream else last
    assert last.model_extra["groundplan"]["store"] is True
    assert setup.stack.sql("SELECT sealed LIKE 'sealed:%%', workload, deployment FROM stored_response") == [
        (True, "keeper", model)
    ]
    url = f"http://127.0.0.1:{setup.stack.port}/v1"
    async with AsyncOpenAI(base_url=url, api_key=other, max_retries=0) as client:
        for refused in (
            client.responses.retrieve(first.id),
            client.responses.delete(first.id),
            client.responses.create(model="auto", input="x", previous_response_id=first.id),
        ):
            with pytest.raises(NotFoundError):
                await refused
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0, http_client=RetryingOpenAIHttpClient()) as client:
        found = await client.responses.retrieve(first.id)
        assert found.output_text == first.output_text and found.id == first.id
        assert found.model_extra is not None and found.model_extra["store"] is True, "PHP's client reads nothing else"
        second = await client.responses.create(model="auto", input="Second?", previous_response_id=first.id)
        assert second.model_extra is not None and second.model_extra["groundplan"]["deployment"] == model
        assert second.previous_response_id == first.id, "though its upstream was not told of it"
        assert (await client.responses.retrieve(second.id)).previous_response_id == first.id
        if model == "chat":
            texts = [message["content"] for message in setup.sent()["messages"]]
            assert texts == ["First?", first.output_text, "Second?"]
        else:
            sent = json.loads(setup.own.asked[-1])
            assert "previous_response_id" not in sent and sent["store"] is False
            assert [item["role"] for item in sent["input"]] == ["user", "assistant", "user"]
        long = await setup.stack.ask("GET", f"/v1/responses/{first.id}/input_items?limit={'1' * 5000}", key)
        assert (long.status, long.code) == (400, "limit_range")
        strange = await setup.stack.ask("GET", f"/v1/responses/{first.id}/input_items?after=item_none", key)
        assert (strange.status, strange.code) == (404, "item_not_found"), "it is not the first page again"
        items = await client.responses.input_items.list(first.id)
        assert [item.type for item in items.data] == ["message"]
        with pytest.raises(APIStatusError) as caught:
            await client.responses.cancel(first.id)
        assert caught.value.status_code == 409
        await client.responses.delete(first.id)
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(first.id)


async def test_a_stored_response_is_found_and_continued_for_the_person_it_was_made_for_only(setup: Setup) -> None:
    people = ("ana@acme.example", "ben@acme.example", "")
    for email in people[:2]:
        setup.stack.person(email)
    url, key, made = f"http://127.0.0.1:{setup.stack.port}/v1", setup.stack.key("keeper", acts=True), {}

    def client(person: str) -> AsyncOpenAI:
        headers = {"groundplan-on-behalf-of": person} if person else None
        http = RetryingOpenAIHttpClient()
        return AsyncOpenAI(base_url=url, api_key=key, max_retries=0, default_headers=headers, http_client=http)

    for person in people:
        async with client(person) as asks:
            made[person] = (await asks.responses.create(model="scripted/chat", input=f"I am {person}.")).id
    for person, own in made.items():
        async with client(person) as asks:
            for other in made.values():
                if other == own:
                    continue
                for refused in (
                    asks.responses.retrieve(other),
                    asks.responses.input_items.list(other),
                    asks.responses.cancel(other),
                    asks.responses.delete(other),
                    asks.responses.create(model="auto", input="x", previous_response_id=other),
                ):
                    with pytest.raises(NotFoundError) as caught:
                        await refused
                    assert caught.value.code == "response_not_found"
            assert (await asks.responses.retrieve(own)).id == own
            again = await asks.responses.create(model="auto", input="x", previous_response_id=own)
            assert again.previous_response_id == own
            await asks.responses.delete(own)


async def test_an_item_that_was_sent_twice_is_listed_once(setup: Setup) -> None:
    """Official clients page by the id of the last item: behind the first of two, the same page would come for ever."""
    key = setup.stack.key("keeper")
    twice = {"type": "message", "role": "user", "content": "Twice", "id": "msg_twice"}
    unnamed = {"type": "message", "role": "user", "content": "Unnamed", "id": None}
    body = {"model": "chat", "input": [twice, unnamed, twice]}
    made = (await setup.stack.post("/v1/responses", key, body)).json["id"]
    found: list[dict[str, Any]] = []
    more = True
    while more:
        assert len(found) < 3, found
        after = f"&after={found[-1]['id']}" if found else ""
        path = f"/v1/responses/{made}/input_items?limit=1&order=asc{after}"
        page = (await setup.stack.ask("GET", path, key)).json
        found, more = found + page["data"], page["has_more"]
    assert [each["content"][0]["text"] for each in found] == ["Twice", "Unnamed"]
    assert found[1]["id"].startswith("item_")


async def test_a_response_whose_id_is_taken_is_reported_as_not_stored(setup: Setup) -> None:
    key, told = setup.stack.key("keeper"), []
    for text in ("One?", "Two?"):
        setup.own.asked.clear()  # so that it begins to count anew
        reply = await setup.stack.post("/v1/responses", key, {"model": "scripted/own", "input": text})
        told.append((reply.json["id"], reply.json["groundplan"]["store"]))
    assert told == [("resp_1", True), ("resp_1", False)]


async def test_results_that_a_continued_response_has_already_are_sent_once_in_chat(setup: Setup) -> None:
    """Semantic Kernel's agent names the last response, and sends the results of all calls of its turn again."""
    key, url = setup.stack.key("keeper"), f"http://127.0.0.1:{setup.stack.port}/v1"
    tool: Any = {**LOOK}
    setup.chat.script = Script(tool=True)
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0, http_client=RetryingOpenAIHttpClient()) as client:
        last = await client.responses.create(model="scripted/chat", input="Where?", tools=[tool])
        call: Any = next(item for item in last.output if item.type == "function_call")
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "here"}
        asked: list[Any] = [{"role": "user", "content": "Where?"}, result]
        setup.chat.script = Script()
        for _ in range(2):
            last = await client.responses.create(
                model="scripted/chat", previous_response_id=last.id, input=asked, tools=[tool]
            )
    sent = [message for message in setup.sent()["messages"] if message["role"] == "tool"]
    assert sent == [{"role": "tool", "tool_call_id": call.call_id, "content": "here"}]


async def test_unstored_reasoning_does_not_prevent_continuing(setup: Setup) -> None:
    """Official clients send an answer's items back as they came, or name the response."""
    setup.own.mode = "reasons"
    tool: Any = {**LOOK}
    result: Any = {"type": "function_call_output", "call_id": "c1", "output": "here"}
    key = setup.stack.key("keeper")
    url = f"http://127.0.0.1:{setup.stack.port}/v1"
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0, http_client=RetryingOpenAIHttpClient()) as client:
        asked: list[Any] = [{"role": "user", "content": "Where?"}]
        first = await client.responses.create(model="scripted/own", input=asked, tools=[tool])
        assert [item.type for item in first.output] == ["reasoning", "function_call"]
        asked += [item.model_dump(mode="json") for item in first.output]
        again = await client.responses.create(model="scripted/own", input=[*asked, result], tools=[tool])
        assert again.model_extra is not None and again.model_extra["groundplan"]["left_out"] == ["reasoning"]
        sent = json.loads(setup.own.asked[-1])["input"]
        assert [item.get("type") for item in sent] == [None, "function_call", "function_call_output"]
        assert not any("id" in item for item in sent)
        call: Any = {name: value for name, value in asked[2].items() if name != "id"}
        refers: Any = [asked[0], {"type": "item_reference", "id": "rs_1"}, call, result]  # as the AI SDK sends it
        assert (await client.responses.create(model="scripted/own", input=refers, tools=[tool])).output
        assert json.loads(setup.own.asked[-1])["input"] == [refers[0], *refers[2:]]
        named = await client.responses.create(model="auto", previous_response_id=first.id, input=[result], tools=[tool])
        assert named.model_extra is not None and "left_out" not in named.model_extra["groundplan"]
        named_items = json.loads(setup.own.asked[-1])["input"]
        assert [item.get("type") for item in named_items] == [item.get("type") for item in sent]
        assert not any("id" in item for item in named_items)
        listed = await client.responses.input_items.list(named.id, order="asc")
        assert "fc_1" in [item.id for item in listed.data], "they are told as they were"
        via_chat = await client.responses.create(model="scripted/chat", input=[*asked, result], tools=[tool])
        assert via_chat.model_extra is not None and via_chat.model_extra["groundplan"]["left_out"] == ["reasoning"]
        assert [message["role"] for message in setup.sent()["messages"]] == ["user", "assistant", "tool"]
        encrypted = {"id": "rs_2", "type": "reasoning", "summary": [], "encrypted_content": "x"}
        whole = [*asked[:1], encrypted, asked[2], result]
        await client.responses.create(model="scripted/own", input=whole, tools=[tool])
        assert json.loads(setup.own.asked[-1])["input"] == whole, "as it came"


async def test_input_tokens_are_counted_by_a_native_upstream_and_estimated_for_others(setup: Setup) -> None:
    key = setup.stack.key("keeper")
    async with AsyncOpenAI(
        base_url=f"http://127.0.0.1:{setup.stack.port}/v1",
        api_key=key,
        max_retries=0,
        http_client=RetryingOpenAIHttpClient(),
    ) as client:
        count = client.responses.input_tokens.count
        own = await count(model="scripted/own", input="Where is it?", instructions="Be brief.")
        assert own.input_tokens == 12 and json.loads(setup.own.asked[-1]) == {
            "model": "up-own", "input": "Where is it?", "instructions": "Be brief.",
        }  # fmt: skip
        first = await client.responses.create(model="scripted/chat", input="word " * 100)
        short = await count(model="scripted/chat", input="Second?")
        long = await count(model="scripted/chat", previous_response_id=first.id)
        assert 0 < short.input_tokens < 60 < 125 < long.input_tokens, "what was said before counts"
        assert long.model_extra is not None and long.model_extra["groundplan"]["estimated"] is True
        assert float(long.model_extra["groundplan"]["cost_usd"]) == 0 and setup.chat.counted == 1
        wrongs: list[tuple[Any, str]] = [({"input": ""}, "input_empty")]
        wrongs.append(({"input": "x", "conversation": "c"}, "field_unsupported"))
        for wrong, code in wrongs:
            with pytest.raises(BadRequestError) as caught:
                await count(model="scripted/chat", **wrong)
            assert caught.value.code == code
    assert setup.stack.sql("SELECT count(*) FROM stored_response") == [(1,)], "a count is no response"


async def test_unstored_items_requested_by_include_are_refused(setup: Setup) -> None:
    key = setup.stack.key("keeper")
    async with AsyncOpenAI(
        base_url=f"http://127.0.0.1:{setup.stack.port}/v1",
        api_key=key,
        max_retries=0,
        http_client=RetryingOpenAIHttpClient(),
    ) as client:
        kept = await client.responses.create(model="scripted/chat", input="Where?")
        again = await client.responses.retrieve(
            kept.id, include=["web_search_call.action.sources", "reasoning.encrypted_content"]
        )
        assert again.output_text == kept.output_text, "there is nothing of this that could be missing"
    for query, code in (
        ("include=message.output_text.logprobs", "field_unsupported"),
        ("include[]=message.output_text.logprobs", "field_unsupported"),
        ("include=everything", "include_unknown"),
        ("stream=true", "field_unsupported"),
        ("stream=true&starting_after=3", "field_unsupported"),
    ):
        refused = await setup.stack.ask("GET", f"/v1/responses/{kept.id}?{query}", key)
        assert (refused.status, refused.code) == (400, code), query
    assert (await setup.stack.ask("GET", f"/v1/responses/{kept.id}?stream=false", key)).status == 200


async def test_an_estimate_counts_the_continued_response(setup: Setup) -> None:
    """It is what the call reserves: with that as its cap it is made, with less it is refused."""
    key = setup.stack.key("keeper")
    ask: dict[str, Any] = {"model": "chat", "max_output_tokens": 20}
    first = await setup.stack.post("/v1/responses", key, {**ask, "input": "word " * 500})
    assert first.status == 200, first.body
    ask |= {"input": "Second?", "previous_response_id": first.json["id"]}
    told = (await setup.stack.post("/v1/responses", key, ask, groundplan_estimate="1")).json
    most = Decimal(told["most_usd"])
    assert most > Decimal("0.0025"), "2,500 bytes at 1 USD a million"
    for cap, status in ((most - Decimal("0.000000000001"), 403), (most, 200)):
        made = await setup.stack.post("/v1/responses", key, ask, groundplan_max_cost_usd=f"{cap:f}")
        assert made.status == status, made.body
    unknown = await setup.stack.post(
        "/v1/responses", key, {**ask, "previous_response_id": "resp_x"}, groundplan_estimate="1"
    )
    assert (unknown.status, unknown.code) == (404, "response_not_found")
    assert setup.chat.counted == 2


async def test_nothing_is_stored_unless_content_is_kept_in_full_and_requested(setup: Setup) -> None:
    for name, more, told in (
        ("assistant", {}, False),
        ("redacts", {"store": True}, False),
        ("keeper", {"store": False}, None),
    ):
        reply = await setup.stack.post("/v1/responses", setup.stack.key(name), {"model": "auto", "input": "a", **more})
        assert reply.json["groundplan"].get("store") is told
    assert setup.stack.sql("SELECT count(*) FROM stored_response") == [(0,)]
    reply = await setup.stack.post("/v1/responses", setup.stack.key("keeper"), {"model": "auto", "input": "a"})
    assert setup.stack.sql("SELECT count(*) FROM stored_response") == [(1,)]
    with psycopg.connect(setup.stack.database.urls["control"]) as conn:
        assert response_store.apply_rules(conn, [("keeper", True, 3600)]) == {}
        assert response_store.apply_rules(conn, [("keeper", False, 3600)]) == {"keeper": 1}
    assert (await setup.stack.ask("GET", f"/v1/responses/{reply.json['id']}", setup.key)).code == "response_not_found"
