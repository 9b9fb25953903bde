"""What newer official clients send: fields that say nothing new pass, and what is not served is refused by its name."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from groundplan.core.errors import Invalid
from groundplan.gateway.surfaces.messages import surface as messages
from groundplan.gateway.surfaces.responses import items as responses_items
from groundplan.gateway.surfaces.responses import surface as responses


def read_items(*items: dict[str, Any]) -> Any:
    return responses.read(json.dumps({"model": "m", "input": list(items)}).encode())


def read_blocks(*blocks: dict[str, Any], **more: Any) -> Any:
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": list(blocks)}]
    return messages.read(json.dumps({"model": "m", "max_tokens": 5, "messages": said, **more}).encode(), {})


def test_a_result_may_repeat_the_namespace_of_its_function() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "namespace": "n", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "name": "f", "namespace": "n", "output": "done"}
    fields = responses.chat_fields(read_items(call, result))
    asked, answered = msgspec.json.decode(fields["messages"])
    assert asked["tool_calls"][0]["function"]["name"] == "n__f"
    assert answered == {"role": "tool", "tool_call_id": "c", "content": "done"}


@pytest.mark.parametrize("kind", [{}, {"type": None}])
def test_a_reference_needs_no_type(kind: dict[str, None]) -> None:
    with pytest.raises(Invalid, match="items by reference") as caught:
        read_items({"id": "msg_1", **kind})
    assert caught.value.code == "content_unsupported"
    said = {"role": "user", "content": "hi"}
    ask = read_items({"id": "rs_1", **kind}, said)
    assert responses.request_state(ask).has_reasoning_references
    assert responses_items.without_ids([{"id": "rs_1", **kind}, said]) == [said]
    assert msgspec.json.decode(responses.chat_fields(ask)["messages"]) == [said]
    assert responses_items.stored_item({"id": "rs_1", **kind})["type"] == "item_reference"


def test_a_message_may_have_an_id_and_no_type() -> None:
    said = {"id": "msg_1", "role": "user", "content": "hi"}
    assert msgspec.json.decode(responses.chat_fields(read_items(said))["messages"]) == [
        {"role": "user", "content": "hi"}
    ]
    assert responses_items.stored_item(said)["type"] == "message"


@pytest.mark.parametrize(
    "item",
    [
        {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot"}},
        {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "", "stderr": ""}]},
        {"type": "mcp_list_tools", "id": "m", "server_label": "s", "tools": [{"name": "a", "input_schema": {}}]},
        {"type": "function_call_output", "call_id": "c", "output": {"a": 1}},
    ],
)
def test_an_item_of_a_tool_that_is_not_served_is_refused_by_its_type(item: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=f"item of type {item['type']} is not supported") as caught:
        read_items(item)
    assert caught.value.code == "content_unsupported" and caught.value.hint


def test_a_part_or_a_tool_without_a_type_is_refused_as_one() -> None:
    with pytest.raises(Invalid, match="content without a type is not supported"):
        read_items({"role": "user", "content": [{"text": "hi"}]})
    found = {"type": "tool_search_output", "execution": "client", "call_id": "c", "tools": [{"name": "a"}]}
    with pytest.raises(Invalid, match="a tool without a type is not supported"):
        read_items(found)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("web_search_tool_result", {"type": "web_search_tool_result_error", "error_code": "unavailable"}),
        ("code_execution_tool_result", {"type": "code_execution_result", "stdout": ""}),
        ("web_fetch_tool_result", {"type": "web_fetch_result", "url": "u", "content": {"type": "document"}}),
        ("tool_result", {"type": "text", "text": "a"}),
    ],
)
def test_a_result_of_a_tool_of_the_provider_is_refused_by_its_type(kind: str, content: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=f"{kind} is not supported") as caught:
        read_blocks({"type": kind, "tool_use_id": "t", "content": content})
    assert caught.value.code == "content_unsupported" and caught.value.hint


@pytest.mark.parametrize("kind", ["browser_toolset_20260801", "computer_toolset_20260801"])
def test_a_toolset_is_refused_by_its_type(kind: str) -> None:
    """One of its tools alone is served."""
    with pytest.raises(Invalid, match=f"the tool {kind} is not supported") as caught:
        read_blocks({"type": "text", "text": "a"}, tools=[{"type": kind}])
    assert "adds an unknown number of tokens" in caught.value.hint
    plain, computer = (
        read_blocks({"type": "text", "text": "a"}, tools=[{"name": "a", "type": kind}])
        for kind in ("custom", "computer_20251124")
    )
    assert computer.extra_tokens > plain.extra_tokens


def test_a_user_profile_is_told_to_be_left_out_in_chat() -> None:
    body = json.dumps({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}).encode()
    chat: Any = SimpleNamespace(api="openai", url="https://acme.example/v1")
    native: Any = SimpleNamespace(api="anthropic")
    ask = messages.read(body, {b"anthropic-user-profile-id": b"uprof_1"})
    assert messages.MESSAGES.extra_facts(ask, chat) == {"left_out": ["user_profile_id"]}
    assert messages.MESSAGES.extra_facts(ask, native) == messages.MESSAGES.extra_facts(messages.read(body, {}), chat)
