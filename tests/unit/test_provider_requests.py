"""A conversation that began at another provider: the ids of its calls become such as the next one takes."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace
from tests.integration.gateway_stack import deployment

from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.messages.surface import MESSAGES
from groundplan.gateway.upstream.providers import VERTEX_MISTRAL
from groundplan.gateway.upstream.translation import call_ids
from groundplan.gateway.upstream.translation.call_ids import accepted_id
from groundplan.gateway.upstream.translation.requests import adapt_request

OPENAI, CLAUDE, KIMI, MISTRAL = (
    "call_PTLP8xhu3uwZk4l3nlnrrJha",
    "toolu_01A09q90qw90lq91781",
    "functions.look:0",
    "D681PevKs",
)
VLLM = "chatcmpl-tool-0123456789abcdef0123456789abcdef"
"""Six signs more than OpenAI takes."""


def adapted_call_ids(api: str, *names: str) -> list[str]:
    """The ids that a provider is told of parallel calls with these ids; each result bears that of its call."""
    function = {"name": "look", "arguments": "{}"}
    asked: list[dict[str, Any]] = [
        {"role": "assistant", "tool_calls": [{"id": name, "type": "function", "function": function} for name in names]},
        *({"role": "tool", "tool_call_id": name, "content": "here"} for name in reversed(names)),
    ]
    said, *results = adapt_request(api, {"messages": asked})["messages"]
    ids = [call["id"] for call in said["tool_calls"]]
    assert [result["tool_call_id"] for result in results] == ids[::-1]
    return ids


@pytest.mark.parametrize(
    ("api", "taken"),
    [
        ("mistral", {MISTRAL}), (VERTEX_MISTRAL, {MISTRAL}),
        ("anthropic", {OPENAI, CLAUDE, MISTRAL}), ("bedrock", {OPENAI, CLAUDE, MISTRAL}),
        ("azure", {OPENAI, CLAUDE, KIMI, MISTRAL}), ("cohere", {OPENAI, CLAUDE, KIMI, MISTRAL}),
    ],
)  # fmt: skip
def test_ids_of_calls_are_such_as_the_provider_takes(api: str, taken: set[str]) -> None:
    given = [OPENAI, CLAUDE, KIMI, MISTRAL]
    ids = adapted_call_ids(api, *given)
    assert {name for name, own in zip(given, ids, strict=True) if name == own} == taken
    assert len(set(ids)) == 4 and ids == adapted_call_ids(api, *given), "always the same, for caches at the provider"
    assert all(re.fullmatch("[A-Za-z0-9]{9}", own) for own in set(ids) - taken)


def conversation(*names: str, messages: bool) -> bytes:
    """A request in OpenAI's chat, or in Anthropic's Messages, with two turns of calls with these ids."""
    turns = list[dict[str, Any]]()
    for name in names:
        given, function = {"id": "do not touch: 1"}, {"name": "look", "arguments": '{"id": "do not touch: 2"}'}
        if messages:
            use = {"type": "tool_use", "id": name, "name": "look", "input": given}
            result = {"type": "tool_result", "tool_use_id": name, "content": '"tool_use_id": "do not touch"'}
            turns += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
        else:
            call = {"id": name, "type": "function", "function": function, "beside": given}
            turns += [{"role": "assistant", "content": None, "tool_calls": [call]}]
            turns += [{"role": "tool", "tool_call_id": name, "content": '"tool_call_id": "do not touch"'}]
    return json.dumps({"model": "auto", "max_tokens": 9, "messages": turns}, indent=1).encode()


@pytest.mark.parametrize(
    ("place", "messages", "api"),
    [
        ({"url": "https://api.mistral.ai/v1"}, False, "mistral"),
        ({"model": "mistral/mistral-large-latest"}, False, "mistral"),
        ({}, False, ""),
        ({"model": "openai/gpt-4.1-mini"}, False, "openai.com"),
        ({"url": "https://acme.openai.azure.com/openai/v1"}, False, "openai.com"),
        ({"url": "https://api.openai.com.example/v1"}, False, ""),
        ({"api": "anthropic"}, True, "anthropic"),
    ],
)
def test_requests_that_go_on_as_they_came_bear_ids_that_are_taken(
    place: dict[str, str], messages: bool, api: str
) -> None:
    asked = replace(deployment("one", 1), upstream_model="auto", **place)
    names = (OPENAI, CLAUDE, KIMI, MISTRAL, VLLM)
    interface: Interface = MESSAGES if messages else CHAT

    def forwarded(body: bytes) -> bytes:
        read = interface.read(SimpleNamespace(body=body, headers={}))  # type: ignore[arg-type]
        return interface.codec(asked).request_body(read, asked, 9, [])

    sent, owned = forwarded(conversation(*names, messages=messages)), tuple(accepted_id(api, name) for name in names)
    assert json.loads(sent) == json.loads(conversation(*owned, messages=messages))
    given = conversation(*owned, messages=messages)
    assert forwarded(given) == given, "nothing to exchange: as it came"


@pytest.mark.parametrize("odd", [b"[1]", b'[{"tool_calls":1,"tool_call_id":2}]', b'[{"content":[7,"tool_use_id"]}]'])
def test_conversations_of_other_shapes_stay_as_they_are(odd: bytes) -> None:
    mistral = replace(deployment("one", 1), url="https://api.mistral.ai/v1")
    assert call_ids.with_chat_ids(mistral, Raw(odd)) is None and call_ids.with_anthropic_ids(odd) is None


@pytest.mark.parametrize("api", ["bedrock", "gemini", "vertexai", "mistral"])
@pytest.mark.parametrize(
    ("came", "read"),
    [
        ("It is sunny.", False), ("nan", False), ("NaN", True), ('{"price": NaN}', True), ("[-Infinity]", True),
        ("1e999", True), ("7" * 5000, True), ("[" * 300_000, True), ('{"a": 1}', False),
    ],
)  # fmt: skip
def test_what_came_of_a_tool_and_only_python_takes_for_json_stays_text(api: str, came: str, read: bool) -> None:
    """As tools write it that put numbers of Python or JavaScript down: no provider takes a request with that in it."""
    result = {"role": "tool", "tool_call_id": "c", "content": came}
    (made,) = adapt_request(api, {"messages": [result]})["messages"]
    assert made["content"] == (
        came if api == "mistral" or not read else json.dumps({"result": came}, separators=(",", ":"))
    )


@pytest.mark.parametrize("api", ["bedrock", "gemini", "vertexai"])
@pytest.mark.parametrize(
    "came", ['[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]', "7", "null"]
)
def test_what_came_of_a_tool_is_an_object_and_no_image(api: str, came: str) -> None:
    """The library shows Gemini images that it finds in a list of JSON: each costs more than what is reserved for its
    bytes, and no guardrail saw it."""
    (made,) = adapt_request(api, {"messages": [{"role": "tool", "tool_call_id": "c", "content": came}]})["messages"]
    assert made["content"] == f'{{"result":{came}}}'
