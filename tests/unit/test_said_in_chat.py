"""Requests of other APIs in OpenAI's chat: what each piece of one becomes there, and the name by which one is refused
that chat has no word for."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from msgspec.structs import replace
from tests.integration.gateway_stack import deployment

from groundplan.core.errors import Invalid
from groundplan.gateway.surfaces.chat.answer_types import AnswerMessage, CalledFunction, ToolCall
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.messages import to_chat as messages_to_chat
from groundplan.gateway.surfaces.messages.from_chat import _content_blocks
from groundplan.gateway.surfaces.messages.from_chat_stream import MessagesChatRelay, stop_reason
from groundplan.gateway.surfaces.messages.surface import MESSAGES
from groundplan.gateway.surfaces.messages.surface import read as read_messages
from groundplan.gateway.surfaces.responses import to_chat as responses_to_chat
from groundplan.ledger.model import Usage

ASKED = {"role": "user", "content": "a"}
LOOK: dict[str, Any] = {"name": "look", "input_schema": {"type": "object"}}
USE: dict[str, Any] = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
RESULT: dict[str, Any] = {"type": "tool_result", "tool_use_id": "t1"}
TEXT = {"type": "text", "text": "b"}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
PAGES = {"type": "base64", "media_type": "application/pdf", "data": "AA=="}
GONE = {"type": "tool_removal", "tool": {"name": "look"}}


def told(*blocks: dict[str, Any], role: str = "user") -> dict[str, Any]:
    """A conversation that has such a message in its middle."""
    return {"messages": [ASKED, {"role": role, "content": list(blocks)}, ASKED]}


def message(**more: Any) -> messages_to_chat.Translation:
    return messages_to_chat.Translation(
        json.dumps({"model": "m", "max_tokens": 9, "messages": [ASKED], **more}).encode()
    )


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (told({**TEXT, "citations": [{"type": "char_location"}]}), "text.citations"),
        (told({**USE, "caller": {"type": "code_execution"}}, role="assistant"), "tool_use.caller"),
        (told({**PICTURE, "transform": 1}), "image.transform"),
        ({"system": [{**TEXT, "later": 1}]}, "system.later"),
        (told({**TEXT, "later": 1}, role="assistant"), "text.later"),
        (told({"type": "document", "source": PAGES, "later": 1}), "document.later"),
        (told({**GONE, "later": 1}, role="system"), "tool_removal.later"),
        (told({**RESULT, "later": 1}), "tool_result.later"),
        (told({**RESULT, "content": [{**TEXT, "later": 1}]}), "text.later"),
        ({"messages": [{**ASKED, "name": "x"}]}, "messages.name"),
        ({"messages": [{**ASKED, "role": "tool"}]}, "messages.role 'tool'"),
        (told(USE, TEXT, role="assistant"), "messages: text after a tool_use"),
        (told({"type": "server_tool_use"}, role="assistant"), "messages: a server_tool_use block of the assistant"),
        (told(TEXT, RESULT), "messages: a tool_result after other content"),
        (told(RESULT, role="system"), "messages: a tool_result block of the system"),
        (told(GONE), "messages: a tool_removal block of the user"),
        (told(PICTURE, role="system"), "messages: a image block of the system"),
        (told({"type": "document", "source": {"type": "url"}}), "messages: a document block of the user"),
        (told({**RESULT, "content": [{"type": "search_result"}]}), "tool_result: a search_result block"),
        ({"tool_choice": {"type": "later"}}, "tool_choice 'later'"),
        ({"metadata": {"later": "x"}}, "metadata.later"),
        ({"service_tier": "flex"}, "service_tier 'flex'"),
        ({"thinking": {"type": "later"}}, "thinking"),
    ],
)
def test_what_chat_has_no_word_for_of_a_message_is_named(more: dict[str, Any], name: str) -> None:
    with pytest.raises(Invalid) as refused:
        message(**more)
    assert refused.value.details["field"] == name


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"system": [TEXT, TEXT]}, [{"role": "system", "content": "b\n\nb"}, ASKED]),
        (told(TEXT, TEXT, role="assistant"), [ASKED, {"role": "assistant", "content": "bb"}, ASKED]),
        (told({"type": "thinking"}, role="assistant"), [ASKED, ASKED]),
        (
            told({**RESULT, "content": [TEXT, PICTURE]}, {**RESULT, "tool_use_id": "t2", "is_error": True}, TEXT),
            [
                ASKED,
                {"role": "tool", "tool_call_id": "t1", "content": "b\nThe image is below."},
                {"role": "tool", "tool_call_id": "t2", "content": "Error: "},
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}, TEXT],
                },
                ASKED,
            ],
        ),
        (
            told({"type": "document", "source": PAGES, "title": "x.pdf"}, {"type": "document", "source": PAGES}),
            [
                ASKED,
                {
                    "role": "user",
                    "content": [
                        {"type": "file", "file": {"filename": name, "file_data": "data:application/pdf;base64,AA=="}}
                        for name in ("x.pdf", "document.pdf")
                    ],
                },
                ASKED,
            ],
        ),
        (told(TEXT, GONE, role="system"), [ASKED, {"role": "system", "content": "b"}, ASKED]),
    ],
)
def test_what_a_message_says_is_said_in_chat(more: dict[str, Any], said: list[Any]) -> None:
    assert message(**more).fields["messages"] == said


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ({"stop_sequences": []}, {}),
        ({"stop_sequences": list("abcd")}, {"stop": list("abcd")}),
        ({"tools": []}, {}),
        ({"tools": [LOOK], **told(GONE, role="system")}, {}),
        (
            {"tools": [{**LOOK, "type": "custom", "strict": True, "description": "d"}]},
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "look",
                            "parameters": {"properties": {}, "type": "object"},
                            "description": "d",
                            "strict": True,
                        },
                    }
                ]
            },
        ),
        ({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tool_choice": {"type": "tool", "name": "look"}},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        ),
        ({"metadata": {"user_id": None}}, {}),
        ({"metadata": {"user_id": "u" * 64}}, {"user": "u" * 64}),
        ({"metadata": {"user_id": "u" * 65}}, {"user": sha256(b"u" * 65).hexdigest()}),
        ({"service_tier": "auto"}, {}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        (
            {"output_format": {"type": "json_schema", "schema": {"type": "object"}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
    ],
)
def test_what_a_message_asks_for_is_asked_for_in_chat(more: dict[str, Any], fields: dict[str, Any]) -> None:
    made = message(**more).fields
    assert {name: value for name, value in made.items() if name != "messages"} == fields


@pytest.mark.parametrize(
    ("sent", "of"),
    [
        (True, {"cap_field": "max_completion_tokens"}),
        (True, {"cap_field": "max_completion_tokens", "api": "azure"}),
        (False, {"cap_field": "max_completion_tokens", "model": "openai/gpt-5-chat-latest"}),
        (False, {"cap_field": "max_completion_tokens", "api": "bedrock"}),
        (False, {}),
        (False, {"api": "gemini"}),
    ],
)
@pytest.mark.parametrize("effort", ["high", "low"])
def test_the_default_effort_of_messages_goes_to_models_that_reason(sent: bool, of: dict[str, Any], effort: str) -> None:
    """Elsewhere it is told as left out. Any other effort goes to everybody who may be asked."""
    place = replace(deployment("chat", 1), **{"model": "openai/gpt-5.1", **of})
    body = {"model": "auto", "max_tokens": 9, "messages": [ASKED], "output_config": {"effort": effort}}
    ask = read_messages(json.dumps(body).encode(), {})
    said = json.loads(MESSAGES.codec(place).request_body(ask, place, 9, []))
    is_sent = sent or effort != "high"
    assert said.get("reasoning_effort") == (effort if is_sent else None)
    assert MESSAGES.extra_facts(ask, place) == ({} if is_sent else {"left_out": ["output_config.effort"]})


@pytest.mark.parametrize(
    ("finish", "stop", "calls", "told"),
    [
        (None, None, False, ("end_turn", None)),
        ("later", None, False, ("end_turn", None)),
        ("stop", None, True, ("tool_use", None)),
        ("stop", "END", True, ("tool_use", None)),
        ("stop", "END", False, ("stop_sequence", "END")),
        ("stop", "", False, ("end_turn", None)),
        ("stop", 151_643, False, ("end_turn", None)),  # vLLM names a token
        ("tool_calls", None, True, ("tool_use", None)),
        ("tool_calls", None, False, ("end_turn", None)),
        ("function_call", None, False, ("end_turn", None)),
        ("length", "END", True, ("max_tokens", None)),
        ("content_filter", None, False, ("refusal", None)),
    ],
)
def test_why_a_message_ended(finish: str | None, stop: object, calls: bool, told: tuple[str, str | None]) -> None:
    assert stop_reason(finish, stop, calls=calls) == told


@pytest.mark.parametrize(
    ("arguments", "cut", "names"), [(("{}", "{"), True, ["f0"]), (("", "{}"), False, ["f0", "f1"])]
)
def test_of_an_answer_that_was_cut_only_its_last_call_is_left_out(
    arguments: tuple[str, ...], cut: bool, names: list[str]
) -> None:
    def made(*given: str) -> AnswerMessage:
        calls = [
            ToolCall(id=f"c{n}", function=CalledFunction(name=f"f{n}", arguments=each)) for n, each in enumerate(given)
        ]
        return AnswerMessage(tool_calls=calls)

    assert [each["name"] for each in _content_blocks(made(*arguments), cut=cut)] == names
    for wrong, at_end in ((("{", "{}"), True), (("{}", "{"), False)):
        with pytest.raises(Malformed):
            _content_blocks(made(*wrong), cut=at_end)


def streamed(*pieces: dict[str, Any]) -> MessagesChatRelay:
    """A stream of a model that said these: of a choice, or of what is beside it."""
    relay = MessagesChatRelay("m", 40)
    for piece in pieces:
        choices = [{"index": 0, "delta": piece.pop("delta", {}), "finish_reason": piece.pop("finish_reason", None)}]
        relay.feed(json.dumps({"id": "c", "choices": choices, **piece}).encode())
    return relay


def calling(index: int, arguments: str = "", **more: Any) -> dict[str, Any]:
    return {"delta": {"tool_calls": [{"index": index, "function": {"arguments": arguments, **more}}]}}


def test_a_stream_is_counted_as_it_was_last_told_at_the_tier_that_was_named() -> None:
    told = {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    relay = streamed({"service_tier": "priority"}, told, {"usage": {"prompt_tokens": -1, "completion_tokens": 3}})
    assert relay.usage == Usage(input=7, output=3, service_tier="priority")
    assert streamed({"delta": {"content": "said"}}).usage_or_estimate == Usage(input=10, output=1), (
        "about, where nobody counted"
    )


@pytest.mark.parametrize(
    ("pieces", "wrong"),
    [
        ([calling(0, "{}")], "without a name"),
        ([calling(0, "{}", name="look"), calling(1, "{}", name="look"), calling(0, "{}")], "earlier tool call"),
        ([calling(0, "{", name="look"), {"delta": {"content": "b"}}, calling(0, "}")], "earlier tool call"),
    ],
)
def test_calls_that_no_message_can_tell_break_a_stream(pieces: list[dict[str, Any]], wrong: str) -> None:
    with pytest.raises(Malformed, match=wrong):
        streamed(*pieces)


# responses -----------------------------------------------------------------------------------------------------------


def response(**more: Any) -> responses_to_chat.Translation:
    return responses_to_chat.Translation(json.dumps({"model": "m", "input": "a", **more}).encode())


def item(*parts: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"input": [{"type": "message", "role": role, "content": list(parts)}]}


def allowed(*names: str) -> dict[str, Any]:
    tools = [{"type": "function", "name": name} for name in names]
    return {"type": "allowed_tools", "mode": "required", "tools": tools}


WORDS = {"type": "input_text", "text": "b"}
FUNCTION = {"type": "function", "name": "look"}
FILE = {"type": "input_file", "filename": "x.pdf", "file_data": "data:application/pdf;base64,AA=="}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (item(WORDS, role="tool"), "input: the role 'tool'"),
        (item({"type": "input_image", "image_url": "data:x"}, role="assistant"), "input: content of type input_image"),
        (item({"type": "input_image", "file_id": None}), "input: content of type input_image"),
        (item({"type": "input_file"}), "input: content of type input_file"),
        (item({"type": "refusal", "refusal": "no"}), "input: content of type refusal"),
        ({"input": [{**CALL, "later": 1}]}, "input: function_call.later"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c1", "output": "x", "later": 1}]},
            "input: function_call_output.later",
        ),
        ({"tools": [{**FUNCTION, "later": 1}]}, "tools: later"),
        ({"tools": [{"type": "namespace", "name": "g", "tools": [], "later": 1}]}, "tools: namespace.later"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice 'allowed_tools'"),
        ({"tools": [FUNCTION], "tool_choice": allowed("look", "find")}, "tool_choice: a tool that is not in tools"),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
            "tool_choice: a tool that is no function",
        ),
        ({"text": {"later": 1}}, "text.later"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ],
)
def test_what_chat_has_no_word_for_of_a_response_is_named(more: dict[str, Any], name: str) -> None:
    with pytest.raises(Invalid) as refused:
        response(**more)
    assert refused.value.details["field"] == name


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"instructions": "b"}, [{"role": "system", "content": "b"}, ASKED]),
        (item(WORDS), [{"role": "user", "content": "b"}]),
        (item(WORDS, WORDS), [{"role": "user", "content": [TEXT, TEXT]}]),
        (item(WORDS, WORDS, role="developer"), [{"role": "system", "content": "bb"}]),
        (item({"type": "refusal", "refusal": "no"}, role="assistant"), [{"role": "assistant", "content": "no"}]),
        (
            item(FILE),
            [{"role": "user", "content": [{"type": "file", "file": {k: FILE[k] for k in ("filename", "file_data")}}]}],
        ),
        (
            {
                "input": [
                    {"type": "item_reference", "id": "rs_1"},
                    {"type": "reasoning", "id": "rs_2", "summary": []},
                    CALL,
                ]
            },
            [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
                }
            ],
        ),
        (
            {
                "input": [
                    {**CALL, "namespace": "g"},
                    {"type": "function_call_output", "call_id": "c1", "output": [WORDS, FILE]},
                    {"role": "user", "content": "a"},
                ]
            },
            [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "g__look", "arguments": "{}"}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "b\nThe file is below."},
                {
                    "role": "user",
                    "content": [{"type": "file", "file": {k: FILE[k] for k in ("filename", "file_data")}}],
                },
                ASKED,
            ],
        ),
    ],
)
def test_what_a_response_is_asked_is_said_in_chat(more: dict[str, Any], said: list[Any]) -> None:
    assert response(**more).fields["messages"] == said


def test_results_are_right_behind_their_calls_in_chat_whatever_was_said_between() -> None:
    """Chat refuses calls that another message follows; of ids that come again the newest call is meant."""

    def result(name: str, text: str) -> dict[str, Any]:
        return {"type": "function_call_output", "call_id": name, "output": text}

    def called(*names: str) -> dict[str, Any]:
        function = {"name": "look", "arguments": "{}"}
        calls = [{"id": name, "type": "function", "function": function} for name in names]
        return {"role": "assistant", "content": None, "tool_calls": calls}

    def told(name: str, text: str) -> dict[str, Any]:
        return {"role": "tool", "tool_call_id": name, "content": text}

    other, note = {**CALL, "call_id": "c2"}, {"role": "assistant", "content": "wait"}
    given = [CALL, other, ASKED, result("c2", "2"), note, result("c1", "1"), CALL, ASKED, result("c1", "again")]
    assert response(input=given).fields["messages"] == [
        called("c1", "c2"), told("c2", "2"), told("c1", "1"), ASKED, note, called("c1"), told("c1", "again"), ASKED,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ({"tools": []}, {}),
        (
            {"tools": [{**FUNCTION, "strict": False, "description": None}]},
            {"tools": [{"type": "function", "function": {"name": "look", "strict": False}}]},
        ),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        ({"tool_choice": FUNCTION}, {"tool_choice": {"type": "function", "function": {"name": "look"}}}),
        (
            {"tool_choice": allowed("look"), "tools": [{**FUNCTION, "name": "find"}, FUNCTION]},
            {"tool_choice": "required", "tools": [{"type": "function", "function": {"name": "look"}}]},
        ),
        ({"tools": [FUNCTION], "tool_choice": {**allowed(), "mode": "auto"}}, {"tool_choice": "auto"}),
        ({"text": {"verbosity": "low", "format": {"type": "text"}}}, {"verbosity": "low"}),
        (
            {"text": {"format": {"type": "json_object"}, "verbosity": None}},
            {"response_format": {"type": "json_object"}},
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": None}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
        ),
        ({"reasoning": {"effort": "low", "summary": None}}, {"reasoning_effort": "low"}),
        ({"truncation": "disabled", "top_logprobs": 0, "stream_options": {"include_obfuscation": False}}, {}),
    ],
)
def test_what_a_response_asks_for_is_asked_for_in_chat(more: dict[str, Any], fields: dict[str, Any]) -> None:
    made = response(**more).fields
    assert {name: value for name, value in made.items() if name != "messages"} == fields


def test_functions_of_a_group_are_told_what_it_is_for_once() -> None:
    group = {"type": "namespace", "name": "g", "description": "Files.", "tools": [
        {**FUNCTION, "description": "Look."}, {**FUNCTION, "name": "read"}]}  # fmt: skip
    made = response(tools=[group])
    assert made.groups == {"g__look": ("g", "look"), "g__read": ("g", "read")}
    assert [each["function"] for each in made.fields["tools"]] == [
        {"name": "g__look", "description": "Files.\n\nLook."},
        {"name": "g__read"},
    ]


WRONG_TYPE = "a value in it is of the wrong type"


@pytest.mark.parametrize(
    ("translate", "more", "field", "wrong"),
    [
        (message, {"thinking": "x"}, "thinking", WRONG_TYPE),
        (message, {"tool_choice": "auto"}, "tool_choice", WRONG_TYPE),
        (message, {"metadata": {"user_id": 5}}, "metadata", WRONG_TYPE),
        (message, {"tools": [{}]}, "tools", "an object in it has no 'input_schema'"),
        (message, {"tools": [{**LOOK, "name": []}], **told(GONE, role="system")}, "tools", WRONG_TYPE),
        (message, {"system": [{"type": "text"}]}, "system", "an object in it has no 'text'"),
        (message, told({"type": "tool_result"}), "messages", "an object in it has no 'tool_use_id'"),
        (response, {"text": "x"}, "text", WRONG_TYPE),
        (response, {"tools": [5]}, "tools", WRONG_TYPE),
        (response, {"input": [{"type": "message"}]}, "input", "an object in it has no 'role'"),
    ],
)
def test_a_field_that_cannot_be_read_is_named_with_what_is_wrong(
    translate: Callable[..., object], more: dict[str, Any], field: str, wrong: str
) -> None:
    with pytest.raises(Invalid) as caught:
        translate(**more)
    error = caught.value
    assert (error.code, error.details["field"]) == ("body_invalid", field)
    assert error.message == f"{field} cannot be read: {wrong}" and "API" in error.hint
