"""Anthropic's Messages through a real worker: official client, both kinds of upstream, money, errors and streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anthropic import APIStatusError, AsyncAnthropic, AuthenticationError, BadRequestError, NotFoundError
from anthropic.types import ErrorResponse, Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from tests.integration import node_client
from tests.integration.gates import wait_until_acknowledged
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from tests.integration.patient import RetryingAnthropicHttpClient
from tests.integration.sdk_types import parse_strictly

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.gateway.surfaces.messages.surface import read
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

RATES = Rates(input=PICO, output=10 * PICO, cache_read=PICO // 10, cache_write=PICO * 5 // 4)
"""1 USD per million tokens of input."""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="
DOCUMENT = {"type": "document", "source": {"type": "text", "data": "x", "media_type": "text/plain"}}
UPLOAD = {"type": "container_upload", "file_id": "f"}
LOOK: Any = {"name": "look", "description": "Look", "input_schema": {"type": "object", "properties": {}}}


@dataclass
class Setup:
    stack: Stack
    native: ScriptedModel
    chat: ScriptedModel
    key: str

    def client(self, **more: Any) -> AsyncAnthropic:
        url = f"http://127.0.0.1:{self.stack.port}"
        return AsyncAnthropic(
            base_url=url, api_key=self.key, max_retries=0, http_client=RetryingAnthropicHttpClient(), **more
        )

    async def ask(self, **more: Any) -> Reply:
        headers = {"x_api_key": self.key, "anthropic_version": "2023-06-01"}
        return await self.stack.post("/v1/messages", None, body(**more), **headers)


def body(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Where is it?"}]
    return {"model": "scripted/native", "max_tokens": 20, "messages": messages, **more}


def frames(data: bytes) -> list[tuple[str, str]]:
    """(event, data) of each event."""
    found = []
    for part in data.decode().split("\n\n"):
        if part:
            name, _, text = part.partition("\ndata: ")
            found.append((name.removeprefix("event: "), text))
    return found


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    secret = tmp_path / "secret"
    secret.write_text("sk-upstream\n")
    async with scripted_upstream("native") as (native, one), scripted_upstream("chat") as (chat, two):
        async with installation(database, tmp_path) as stack:
            slow: dict[str, Any] = {"rates": RATES, "first_token_ms": 5000, "idle_ms": 1000}
            places = [
                deployment("native", one, api="anthropic", key=f"file:{secret}", **slow),
                deployment("chat", two, **slow),
                deployment("eyes", two, accepts=["image"], image_tokens=1000, **slow),
            ]
            strict_one = workload("strict", ["native", "chat"], system_prompt="You are ours.", max_output_tokens=8)
            stack.apply(blueprint(1, places, [workload("assistant", ["native", "chat", "eyes"]), strict_one]))
            stack.start()
            await stack.wait_until_ready()
            yield Setup(stack, native, chat, stack.key())


@pytest.mark.parametrize("model", ["scripted/native", "scripted/chat"])
async def test_an_answer_is_a_message_charged_by_its_totals(setup: Setup, model: str) -> None:
    for upstream in (setup.native, setup.chat):
        upstream.script = Script(tokens=7, cache_read=40, cache_write=100)
    reply = await setup.ask(model=model)
    assert reply.status == 200, reply.body
    message = parse_strictly(Message, reply.body)
    assert reply.json["content"][0].keys() == {"type", "text"}, "some clients take no null for what is not there"
    assert message.usage.input_tokens == 7
    assert message.usage.cache_read_input_tokens == 40
    assert message.usage.cache_creation_input_tokens == 100
    assert message.usage.output_tokens == 7
    # 7 at 1, 40 at 0.1, 100 at 1.25 and 7 at 10 USD a million
    assert reply.json["groundplan"]["cost_usd"] == "0.000206000000"


async def test_models_are_listed_as_each_client_reads_them(setup: Setup) -> None:
    async with setup.client() as client:
        listed = [model async for model in client.models.list()]
        assert {"auto", "scripted/native", "scripted/chat"} <= {model.id for model in listed}
        ids, first = [model.id for model in listed], await client.models.list(limit=1)
        assert [model.id for model in first.data] == ids[:1] and first.has_more
        assert [model.id async for model in first] == ids, "page by page"
        behind = await client.models.list(limit=1, after_id=ids[0])
        assert [model.id for model in behind.data] == ids[1:2] and behind.last_id == ids[1]
        before = await client.models.list(limit=1, before_id=ids[2])
        assert [model.id for model in before.data] == ids[1:2] and before.has_more
        later: dict[str, Any] = {"extra_query": {"lifecycle": "next"}}
        for wrong in ({"limit": 0}, {"after_id": ids[0], "before_id": ids[1]}, later):
            with pytest.raises(BadRequestError):
                await client.models.list(**wrong)
        one = await client.models.retrieve("scripted/native")
        assert (one.type, one.display_name) == ("model", "scripted/native")
        with pytest.raises(NotFoundError):
            await client.models.retrieve("gpt-none")
    told = await setup.stack.ask("GET", "/v1/models", setup.key, anthropic_version="2023-06-01")
    for each in told.json["data"]:
        parse_strictly(ModelInfo, json.dumps(each))
    assert (await setup.stack.ask("GET", "/v1/models", setup.key)).json["object"] == "list"


@pytest.mark.parametrize("model", ["scripted/native", "scripted/chat"])
async def test_a_stream_is_anthropics_events_with_the_facts_in_the_last(setup: Setup, model: str) -> None:
    for upstream in (setup.native, setup.chat):
        upstream.script = Script(tokens=5, cache_read=40, cache_write=100, tool=True)
    reply = await setup.ask(model=model, stream=True, tools=[LOOK])
    assert reply.status == 200, reply.body
    events = [parse_strictly(RawMessageStreamEvent, text) for _, text in frames(reply.body)[:] if '"ping"' not in text]
    assert all(name == json.loads(text)["type"] for name, text in frames(reply.body))
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    assert events[0].message.usage.input_tokens > 0, "some clients look for what was read here alone"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    end = events[-2]
    assert end.delta.stop_reason == "tool_use"
    assert (end.usage.input_tokens, end.usage.output_tokens) == (7, 5)
    facts = events[-1].model_extra["groundplan"]
    assert facts["cost_usd"] == "0.000186000000" and not facts["estimated"]


async def test_a_refusal_by_chat_has_the_id_and_type_that_the_client_looks_for(setup: Setup) -> None:
    for status, kind in ((422, "invalid_request_error"), (413, "request_too_large")):
        setup.chat.script = Script(mode="error", status=status)
        reply = await setup.ask(model="scripted/chat")
        assert (reply.status, reply.json["error"]["type"]) == (status, kind)
        assert reply.json["request_id"] == reply.headers["request-id"]


async def test_what_is_wrong_with_a_body_is_looked_up_where_it_is_described(setup: Setup) -> None:
    reply = await setup.ask(messages="x")
    assert (reply.status, reply.json["error"]["hint"]) == (400, "See Anthropic's Messages API.")


@pytest.mark.parametrize("model", ["scripted/native", "scripted/chat"])
async def test_the_official_client_streams_text_and_tool_calls(setup: Setup, model: str) -> None:
    for upstream in (setup.native, setup.chat):
        upstream.script = Script(tool=True)
    async with setup.client() as client:
        asked = client.messages.stream(
            model=model, max_tokens=50, tools=[LOOK], messages=[{"role": "user", "content": "Where is it?"}]
        )
        async with asked as stream:
            text = "".join([part async for part in stream.text_stream])
            final = await stream.get_final_message()
    assert text.strip() == "You asked: Where is it?"
    assert final.stop_reason == "tool_use"
    assert final.content[-1].type == "tool_use" and final.content[-1].input == {"what": "it"}


@pytest.mark.parametrize("model", ["scripted/native", "scripted/chat"])
async def test_a_declared_tool_call_is_returned_to_the_client(setup: Setup, model: str) -> None:
    """OpenAI ends such an answer with `stop`; a client of Messages runs tools where it ends with `tool_use`."""
    for upstream in (setup.native, setup.chat):
        upstream.script = Script(tool=True)
    asked: Any = {
        "model": model, "max_tokens": 50, "tools": [LOOK], "tool_choice": {"type": "tool", "name": "look"},
        "messages": [{"role": "user", "content": "Where is it?"}],
    }  # fmt: skip
    async with setup.client() as client:
        whole = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            streamed = await stream.get_final_message()
    for answer in (whole, streamed):
        assert (answer.content[-1].type, answer.stop_reason, answer.stop_sequence) == ("tool_use", "tool_use", None)


@pytest.mark.parametrize("model", ["scripted/native", "scripted/chat"])
async def test_a_conversation_with_tools_goes_both_ways(setup: Setup, model: str) -> None:
    async with setup.client() as client:
        answer = await client.messages.create(
            model=model,
            max_tokens=50,
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            tools=[LOOK],
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
            stop_sequences=["END"],
            temperature=0.5,
            metadata={"user_id": "u1"},
            messages=[
                {"role": "user", "content": "Where is it?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"what": "it"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "nothing", "is_error": True},
                        {"type": "text", "text": "And now?"},
                    ],
                },
            ],
        )
    assert answer.content[0].type == "text" and answer.content[0].text == "You asked: And now?"
    assert answer.model_extra is not None
    if model == "scripted/native":
        assert setup.native.last is not None
        sent = json.loads(setup.native.last.body)
        assert sent["system"][0]["cache_control"] == {"type": "ephemeral"}
        assert sent["model"] == "up-native"
        assert setup.native.last.headers[b"x-api-key"] == b"sk-upstream"
        assert b"authorization" not in setup.native.last.headers
        assert setup.native.last.headers[b"anthropic-version"] == b"2023-06-01"
        return
    assert setup.chat.last is not None
    sent = json.loads(setup.chat.last.body)
    assert b"anthropic-version" not in setup.chat.last.headers
    assert sent == {
        "model": "up-chat",
        "max_tokens": 50,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Where is it?"},
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": '{"what":"it"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_1", "content": "Error: nothing"},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Look",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stop": ["END"],
        "temperature": 0.5,
        "user": "u1",
    }
    assert answer.model_extra["groundplan"]["left_out"] == ["cache_control"]


async def test_unchanged_fields_reach_a_native_upstream_byte_for_byte(setup: Setup) -> None:
    raw = (
        b'{ "messages" : [{"role":"user","content":"caf\\u00e9"}],"max_tokens": 9,\n "model":"scripted/native" ,'
        b'"thinking":{"type":"enabled","budget_tokens":1024},"later_field": [1, 2.50] }'
    )
    headers = {"anthropic_version": "2023-06-01", "anthropic_beta": "one-2025,two-2025"}
    headers["anthropic_user_profile_id"] = "uprof_1"
    reply = await setup.stack.post("/v1/messages", setup.key, raw, **headers)
    assert reply.status == 200, reply.body
    assert setup.native.last is not None
    assert setup.native.last.body == raw.replace(b'"scripted/native"', b'"up-native"')
    assert setup.native.last.headers[b"anthropic-beta"] == b"one-2025,two-2025"
    assert setup.native.last.headers[b"anthropic-user-profile-id"] == b"uprof_1"


async def test_requests_of_claude_code_are_converted_to_chat(setup: Setup) -> None:
    """Of an agent at work, in the words of its version 2.1.332."""
    asked: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "Look it up", "cache_control": {"type": "ephemeral"}}]},
        {"role": "system", "content": [
            {"type": "text", "text": "# Environment"},
            {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "gone"}},
            {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "look"}},
            {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "look"}},
        ]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "By another model", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "YQ=="},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}, "caller": {"type": "direct"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [
                    {"type": "text", "text": "Found:"}, {"type": "tool_reference", "tool_name": "deploy"}
                ]},
                {"type": "text", "text": "Go on"},
            ],
        },
    ]  # fmt: skip
    told: dict[str, Any] = {
        "messages": asked,
        "tools": [LOOK, {**LOOK, "name": "later", "defer_loading": True}, {**LOOK, "name": "gone"}],
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "mcp_servers": [],
    }
    reply = await setup.ask(model="scripted/chat", output_config={"effort": "high"}, **told)
    assert reply.status == 200, reply.body
    assert reply.json["groundplan"]["left_out"] == [
        "cache_control",
        "defer_loading",
        "output_config.effort",
        "thinking",
    ]
    assert setup.chat.last is not None
    said = json.loads(setup.chat.last.body)
    assert [each["role"] for each in said["messages"]] == ["user", "system", "assistant", "tool", "user"]
    assert b"another model" not in setup.chat.last.body and "reasoning_effort" not in said
    assert said["messages"][3]["content"] == "Found:\nThere is the tool deploy."
    assert [each["function"]["name"] for each in said["tools"]] == ["look", "later"]
    assert (await setup.ask(model="scripted/chat", output_config={"effort": "max"})).status == 200
    assert json.loads(setup.chat.last.body)["reasoning_effort"] == "max"
    told["thinking"] = {"type": "enabled", "budget_tokens": 31_999}
    reply = await setup.ask(model="scripted/chat", max_tokens=32_000, **told)
    assert "thinking.budget_tokens" in reply.json["groundplan"]["left_out"], reply.body
    said = json.loads(setup.chat.last.body)
    assert "reasoning_effort" not in said and said.get("max_completion_tokens", said.get("max_tokens")) < 32_000
    del told["thinking"]
    assert (await setup.ask(model="scripted/native", **told)).status == 200
    assert setup.native.last is not None and json.loads(setup.native.last.body)["messages"] == asked


async def test_a_tool_that_is_named_is_read_again_where_it_is_and_none_is_defined_there(setup: Setup) -> None:
    """Each reference is another definition in the prompt, which is reserved for; rules about tools look at `tools`."""
    large = {**LOOK, "description": "Look " * 400}
    named = {"type": "tool_reference", "tool_name": "look"}
    use = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {}}

    def asked(references: int) -> dict[str, Any]:
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [named] * references}
        said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": [use]}]
        return {"tools": [large], "messages": [*said, {"role": "user", "content": [result]}]}

    assert (await setup.ask(model="scripted/native", **asked(1))).status == 200
    once, thrice = [read(json.dumps(body(**asked(count))).encode(), {}).extra_tokens for count in (1, 3)]
    assert thrice - once >= 2 * len(large["description"])
    inline = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": LOOK}}
    refused = await setup.ask(messages=[*asked(1)["messages"], {"role": "system", "content": [inline]}])
    assert (refused.status, refused.code) == (400, "content_unsupported"), refused.body


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"top_k": 5}, "top_k"),
        ({"thinking": {"type": "enabled"}}, "thinking"),
        ({"stop_sequences": list("abcde")}, "stop_sequences: more than 4"),
        ({"output_config": {"task_budget": {"total": 9}}}, "output_config.task_budget"),
        (
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            "context_management.edits 'clear_tool_uses_20250919'",
        ),
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"tools": [{**LOOK, "allowed_callers": ["code_execution_20250825"]}]}, "tools.allowed_callers"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools: bash_20250124"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "messages: the beginning of the answer, as its last message,",
        ),
        (
            {"messages": [{"role": "user", "content": [DOCUMENT]}]},
            "messages: a document block of the user",
        ),
    ],
)  # fmt: skip
async def test_fields_unknown_to_chat_are_refused_by_name_or_routed_to_a_native_upstream(
    setup: Setup, more: dict[str, Any], field: str
) -> None:
    refused = await setup.ask(model="scripted/chat", **more)
    assert refused.status == 400, refused.body
    assert refused.code == "field_untranslatable" and refused.json["error"]["field"] == field
    assert setup.chat.counted == 0
    served = await setup.ask(model="auto", **more)
    assert served.status == 200, served.body
    assert served.json["groundplan"]["deployment"] == "native"


async def test_thinking_beyond_the_workloads_cap_is_refused_by_name(setup: Setup) -> None:
    """Its provider would say that `max_tokens` is too low, which is not the caller's."""
    thinking = {"type": "enabled", "budget_tokens": 20_000}
    refused = await setup.ask(model="scripted/native", max_tokens=32_000, thinking=thinking)
    assert (refused.status, refused.code) == (400, "thinking_above_cap"), refused.body
    assert "20000" in refused.json["error"]["message"] and "max_output" in refused.json["error"]["hint"]
    assert setup.native.counted == 0
    for most, budget in ((32_000, 1023), (2000, 1024)):
        thinking = {"type": "enabled", "budget_tokens": budget}
        asked = await setup.ask(model="scripted/native", max_tokens=most, thinking=thinking)
        assert asked.status == (200 if budget < 1024 else 400), asked.body
    assert setup.native.counted == 1
    own = {"type": "enabled", "budget_tokens": 500}
    assert (await setup.ask(model="scripted/native", max_tokens=400, thinking=own)).status == 200
    assert setup.native.counted == 2, "a cap of the caller's own is its provider's to judge"


async def test_a_fallback_from_a_native_upstream_to_chat_is_invisible(setup: Setup) -> None:
    setup.native.script = Script(mode="error", status=529)
    async with setup.client() as client:
        answer = await client.messages.create(
            model="auto", max_tokens=20, messages=[{"role": "user", "content": "Hello"}]
        )
    assert answer.content[0].type == "text" and answer.content[0].text == "You asked: Hello"
    assert setup.native.counted == setup.chat.counted == 1


async def test_images_are_routed_only_to_deployments_that_accept_them(setup: Setup) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    refused = await setup.ask(model="scripted/chat", messages=[{"role": "user", "content": content}])
    assert (refused.status, refused.code) == (400, "content_unsupported")
    seen = await setup.ask(model="auto", messages=[{"role": "user", "content": content}])
    assert seen.status == 200, seen.body
    assert seen.json["groundplan"]["deployment"] == "eyes"
    assert setup.chat.last is not None
    part = json.loads(setup.chat.last.body)["messages"][0]["content"][0]
    assert part == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    use = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": content[:1]}
    answered = [{**result, "is_error": False}, {"type": "text", "text": "Is it red?"}]
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": [use]}]
    seen = await setup.ask(model="auto", messages=[*said, {"role": "user", "content": answered}], tools=[LOOK])
    assert seen.json["groundplan"]["deployment"] == "eyes"
    told = json.loads(setup.chat.last.body)["messages"][-2:]
    assert told[0] == {"role": "tool", "tool_call_id": "toolu_1", "content": "The image is below."}
    assert told[1] == {"role": "user", "content": [part, {"type": "text", "text": "Is it red?"}]}
    source = {"type": "url", "url": "http://169.254.169.254/"}
    address = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    assert (await setup.ask(messages=address)).code == "image_url"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "field_unsupported"),
        ({"mcp_servers": [{}]}, "field_unsupported"),
        ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "field_unsupported"),
        ({"compaction": {"type": "summarize"}}, "field_unsupported"),
        ({"billing_policy": {"type": "billing_policy", "bill_to": "user_profile"}}, "field_unsupported"),
        ({"speed": "fast"}, "field_unsupported"),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "field_unsupported"),
        ({"tools": [{**LOOK, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}, "field_unsupported"),
        ({"messages": []}, "messages_empty"),
        ({"max_tokens": -1}, "cap_range"),
        ({"model": 7}, "body_invalid"),
        ({"model": "nobody"}, "model_not_found"),
        ({"messages": [{"role": "user", "content": [UPLOAD]}]}, "content_unsupported"),
    ],
)  # fmt: skip
async def test_refusals_are_errors_in_anthropics_shape(setup: Setup, more: dict[str, Any], code: str) -> None:
    refused = await setup.ask(**more)
    assert refused.code == code, refused.body
    error = refused.json["error"]
    assert error["hint"] and error["message"]
    shape = {**refused.json, "error": {name: error[name] for name in ("type", "message")}}
    assert parse_strictly(ErrorResponse, json.dumps(shape)).type == "error"
    assert setup.native.counted == 0


async def test_the_official_client_raises_its_own_errors(setup: Setup) -> None:
    async with setup.client() as client:
        made = await client.messages.create(model="auto", max_tokens=5, messages=[{"role": "user", "content": "a"}])
        assert made.model_extra is not None and made._request_id == made.model_extra["groundplan"]["call_id"]
        with pytest.raises(BadRequestError) as caught:
            await client.messages.create(model="auto", max_tokens=-1, messages=[{"role": "user", "content": "a"}])
    assert isinstance(caught.value.body, dict) and caught.value.body["error"]["code"] == "cap_range"
    url = f"http://127.0.0.1:{setup.stack.port}"
    async with AsyncAnthropic(base_url=url, api_key="gp_wrong", max_retries=0) as client:
        with pytest.raises(AuthenticationError):
            await client.messages.create(model="auto", max_tokens=5, messages=[{"role": "user", "content": "a"}])
    async with AsyncAnthropic(base_url=url, auth_token=setup.key, max_retries=0) as client:
        assert await client.messages.create(model="auto", max_tokens=5, messages=[{"role": "user", "content": "a"}])


@node_client.needed
@pytest.mark.parametrize("model", ["scripted/native", "scripted/chat"])
async def test_the_official_node_client_accepts_the_answers(setup: Setup, model: str) -> None:
    for upstream in (setup.native, setup.chat):
        upstream.script = Script(tool=True)
    url = f"http://127.0.0.1:{setup.stack.port}"
    found = json.loads(await node_client.run_script("node_messages.cjs", url, setup.key, model))
    assert found.pop("counted") > 0
    assert {"auto", "scripted/native", "scripted/chat"} <= set(found.pop("models"))
    said = "You asked: Where is it?"
    assert {name: found.pop(name).strip() for name in ("whole", "text", "again")} == dict.fromkeys(
        ("whole", "text", "again"), said
    )
    assert found == {
        "tool": {"what": "it"}, "stop": "tool_use", "same": True, "ends": ["message_start", "message_stop"],
        "ran": "tool_use", "refused": {
            "model": ["NotFoundError", 404, "model_not_found"], "cap": ["BadRequestError", 400, "cap_range"],
            "key": ["AuthenticationError", 401, "invalid_api_key"],
        },
    }  # fmt: skip
    last = (setup.native if model == "scripted/native" else setup.chat).last
    assert last is not None
    asked = json.loads(last.body)
    roles = ["user", "assistant", "user" if model == "scripted/native" else "tool"]
    assert "thread" not in asked and [each["role"] for each in asked["messages"]] == roles, "nothing is held elsewhere"


async def test_a_stream_that_breaks_ends_with_an_error_event(setup: Setup) -> None:
    setup.native.script = Script(mode="error_event", chunk_ms=30)
    reply = await setup.ask(stream=True)
    name, text = frames(reply.body)[-1]
    assert name == "error" and json.loads(text)["error"]["code"] == "stream_broken"
    async with setup.client() as client:
        with pytest.raises(APIStatusError):
            async for _ in await client.messages.create(
                model="scripted/native", max_tokens=5, messages=[{"role": "user", "content": "a"}], stream=True
            ):
                pass


@pytest.mark.parametrize("model", ["scripted/native", "scripted/chat"])
async def test_odd_streams_are_normalised_and_broken_ones_end_with_an_error(setup: Setup, model: str) -> None:
    for mode in ("no_done", "crlf", "cut", "malformed", "no_finish", "huge", "stall_late"):
        for upstream in (setup.native, setup.chat):
            upstream.script = Script(mode=mode, chunk_ms=30)
        reply = await setup.ask(model=model, stream=True)
        mended = mode in ("no_done", "crlf")
        assert frames(reply.body)[-1][0] == ("message_stop" if mended else "error"), (mode, reply.body)
        assert (b"groundplan" in reply.body) is mended


async def test_tokens_are_counted_by_a_native_upstream_and_estimated_for_others(setup: Setup) -> None:
    async with setup.client() as client:
        counted = await client.messages.count_tokens(
            model="scripted/native", messages=[{"role": "user", "content": "a b c"}]
        )
        assert counted.input_tokens == 7
        estimate = await client.messages.count_tokens(
            model="scripted/chat", messages=[{"role": "user", "content": "a b c"}]
        )
    assert parse_strictly(MessageTokensCount, counted.to_json()).input_tokens == 7
    assert counted.model_extra is not None and estimate.model_extra is not None
    assert counted.model_extra["groundplan"]["cost_usd"] == "0.000000000000"
    assert not counted.model_extra["groundplan"]["estimated"]
    assert estimate.input_tokens > 0 and estimate.model_extra["groundplan"]["estimated"]
    assert setup.native.counted == setup.chat.counted == 0
    stop = "INSERT INTO kill_switch (id, scope, reason, by) VALUES (gen_random_uuid(), 'company', 'r', 'operator')"
    setup.stack.policy("kill", "company", stop)
    await wait_until_acknowledged(setup.stack)
    headers = {"x_api_key": setup.key, "anthropic_version": "2023-06-01"}
    for model in ("scripted/native", "scripted/chat"):
        asked = {"model": model, "messages": [{"role": "user", "content": "a"}]}
        refused = await setup.stack.post("/v1/messages/count_tokens", None, asked, **headers)
        assert (refused.status, refused.code) == (403, "killed")


async def test_an_upstream_that_cannot_count_tokens_gets_estimates_and_stays_in_use(setup: Setup) -> None:
    """Many that speak Messages have no path for it; what has one has limits of its own there."""
    asked = {"model": "scripted/native", "messages": [{"role": "user", "content": "a b c"}]}
    headers = {"x_api_key": setup.key, "anthropic_version": "2023-06-01"}
    for status, code in ((404, 200), (405, 200), (501, 200), (429, 503), (500, 503)):
        setup.native.script = Script(
            mode="error", status=status, only="POST /v1/messages/count_tokens", retry_after="60"
        )
        for _ in range(4):
            counted = await setup.stack.post("/v1/messages/count_tokens", None, asked, **headers)
            assert counted.status == code, (status, counted.body)
            if code == 200:
                facts = parse_strictly(MessageTokensCount, counted.body).model_extra["groundplan"]
                assert facts["estimated"] and facts["deployment"] is None
        setup.native.script = Script()
        reply = await setup.ask(model="auto")
        assert reply.json["groundplan"]["deployment"] == "native", (status, reply.body)


@pytest.mark.parametrize("own", ["Mind the gap.", [{"type": "text", "text": "Mind the gap."}], None])
async def test_the_workloads_prompt_and_cap_apply_to_both_kinds_of_upstream(
    setup: Setup, own: str | list[Any] | None
) -> None:
    key = setup.stack.key("strict")
    for name, upstream in (("native", setup.native), ("chat", setup.chat)):
        more = {"system": own} if own is not None else {}
        reply = await setup.stack.post("/v1/messages", key, body(model=f"scripted/{name}", **more))
        assert reply.status == 200, reply.body
        assert upstream.last is not None
        sent = json.loads(upstream.last.body)
        assert sent["max_tokens"] == 8
        told = sent["system"] if name == "native" else sent["messages"][:-1]
        texts = [block["text"] if name == "native" else block["content"] for block in told]
        assert texts == ["You are ours.", "Mind the gap."][: 1 if own is None else 2]
