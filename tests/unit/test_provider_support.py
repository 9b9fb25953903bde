"""What of messages, tools and formats each provider can be told: the rest is refused by its name, before any money is
reserved; what the library would lose is put into words that it does not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from any_llm.providers.anthropic import utils as anthropic
from any_llm.providers.gemini import utils as gemini

from groundplan.blueprint.model import Deployment, Rates
from groundplan.core.errors import Invalid
from groundplan.gateway.surfaces.chat import surface as chat
from groundplan.gateway.upstream.providers import _FIELDS, decode_target, first_unsupported_field, target_header
from groundplan.gateway.upstream.translation.provider_support import left_out_of_request
from groundplan.gateway.upstream.translation.requests import adapt_request

APIS = ("anthropic", "azure", "bedrock", "cohere", "gemini", "groq", "mistral", "ollama", "vertexai")
ASKED = {"role": "user", "content": "Where is it?"}
SYSTEM = {"role": "system", "content": "Be brief."}
FUNCTION = {"name": "look", "arguments": '{"what": "it"}'}
CALL = {"id": "c1", "type": "function", "function": FUNCTION}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
SIGNED = {"google": {"thought_signature": "x"}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "here"}
NESTED = {
    "type": "object",
    "properties": {
        "place": {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0}}, "required": ["x"]},
        "how": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
    },
    "required": ["place"],
}


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, **function}}


def refused(api: str, **fields: Any) -> str | None:
    asked = {"model": "m", "messages": [ASKED], **fields}
    return first_unsupported_field(api, msgspec.json.decode(json.dumps(asked), type=dict[str, msgspec.Raw]))


BOUND, FREE = tool(strict=True), tool(name="b")


@pytest.mark.parametrize(
    ("api", "tools", "told"),
    [
        *(
            (api, [BOUND, FREE], True)
            for api in ("anthropic", "bedrock", "gemini", "ollama", "vertexai", "vertexai/mistral", "vertexai/openai")
        ),
        *((api, [BOUND, FREE], False) for api in ("azure", "groq", "mistral")),
        ("cohere", [BOUND, FREE], True),
        ("cohere", [BOUND, BOUND], False),
        *((api, [FREE, tool(strict=False)], False) for api in ("anthropic", "cohere", "gemini", "mistral")),
        ("anthropic", None, False),
    ],
)
def test_that_a_tool_is_strict_is_left_out_and_told_where_a_provider_cannot_be_bound(
    api: str, tools: list[dict[str, Any]] | None, told: bool
) -> None:
    fields = msgspec.json.decode(json.dumps({"messages": [ASKED], "tools": tools}), type=dict[str, msgspec.Raw])
    assert refused(api, tools=tools) is None
    assert left_out_of_request(api, fields) == ({"tools.strict"} if told else set())
    sent = json.dumps(adapt_request(api, {"model": "m", "messages": [ASKED], "tools": tools}).get("tools"))
    assert ('"strict": true' in sent) == (not told and BOUND in (tools or []))


def pdf(**file: Any) -> dict[str, Any]:
    data = "data:application/pdf;base64,JVBERi0="
    part = {"type": "file", "file": {"file_data": data, "filename": "contract.pdf", **file}}
    return {"role": "user", "content": [part, {"type": "text", "text": "Who signs?"}]}


@pytest.mark.parametrize("api", APIS)
def test_a_pdf_is_sent_to_providers_that_read_one(api: str) -> None:
    takes = api in ("anthropic", "gemini", "vertexai")
    assert refused(api, messages=[pdf()]) == (None if takes else "messages: content of type file")
    if takes:
        assert refused(api, messages=[pdf(file_data="data:text/plain;base64,YQ==")]) == "messages: file of text/plain"
        assert refused(api, messages=[pdf(file_data=None)]) == "messages: content of type file"
        assert refused(api, messages=[pdf(detail="high")]) == "messages: file.detail"
        assert refused(api, messages=[{**pdf(), "role": "system"}]) == "messages: content of type file"
        for name in ("contract.pdf", None, ""):
            fields = msgspec.json.decode(json.dumps({"messages": [pdf(filename=name)]}), type=dict[str, msgspec.Raw])
            assert left_out_of_request(api, fields) == ({"messages.filename"} if name and api != "anthropic" else set())


@pytest.mark.parametrize("name", ["contract.pdf", None])
def test_a_pdf_reaches_anthropic_and_gemini_through_the_library(name: str | None) -> None:
    def adapted(api: str) -> list[dict[str, Any]]:
        messages = adapt_request(api, {"model": "m", "messages": [pdf(filename=name)]})["messages"]
        assert isinstance(messages, list)
        return messages

    document, text = anthropic._convert_messages_for_anthropic(adapted("anthropic"))[1][0]["content"]
    assert text == {"type": "text", "text": "Who signs?"} and document.pop("title", None) == name
    assert document == {
        "type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
    }  # fmt: skip
    for api in ("gemini", "vertexai"):
        (content,), _ = gemini._convert_messages(adapted(api), provider_name=api)
        assert content.parts is not None and content.parts[0].inline_data is not None
        assert content.parts[0].inline_data.mime_type == "application/pdf"
        assert content.parts[0].inline_data.data == b"%PDF-" and content.parts[1].text == "Who signs?"


@pytest.mark.parametrize("api", APIS)
def test_what_agents_for_node_write_into_the_part_of_an_earlier_text_is_taken(api: str) -> None:
    """Fields of the answer's message, and none of its citations."""
    part: dict[str, Any] = {
        "type": "text",
        "text": "here",
        "role": "assistant",
        "refusal": None,
        "reasoning_content": "Hm.",
        "annotations": [],
    }
    said = {"role": "assistant", "content": [part]}
    asked: dict[str, Any] = {
        "role": "user",
        "content": [{"type": "text", "text": "Where?", "annotations": [], "extra": None}],
    }
    fields = msgspec.json.decode(json.dumps({"messages": [asked, said]}), type=dict[str, msgspec.Raw])
    assert refused(api, messages=[asked, said]) is None
    assert left_out_of_request(api, fields) == {"reasoning"}
    sent = adapt_request(api, {"model": "m", "messages": [asked, said]})["messages"]
    assert sent[0]["content"] == [{"type": "text", "text": "Where?"}]
    assert sent[1] == {"role": "assistant", "content": "here"}
    for changed in ({"role": "user"}, {"annotations": [{"type": "url_citation"}]}, {"later": 1}):
        odd = {"role": "assistant", "content": [{**part, **changed}]}
        assert refused(api, messages=[ASKED, odd]) == f"messages: text.{next(iter(changed))}"
    assert refused(api, messages=[{"role": "user", "content": [part]}]) == "messages: text.role"


@pytest.mark.parametrize("api", APIS)
def test_names_that_tell_no_users_apart_are_left_out_and_told(api: str) -> None:
    """As agents send them: each has its own, and the only user may have one."""
    agents = [{"role": "assistant", "content": "a", "name": name} for name in ("triage", "refunds")]
    messages = [SYSTEM, {**ASKED, "name": "Ana"}, *agents, {**CALLED, "name": "refunds"}, RESULT]
    fields = msgspec.json.decode(json.dumps({"messages": messages}), type=dict[str, msgspec.Raw])
    assert refused(api, messages=messages) is None
    has_names = api in ("azure", "groq")
    assert left_out_of_request(api, fields) == (set() if has_names else {"messages.name"})
    sent = adapt_request(api, {"model": "m", "messages": messages})["messages"]
    names = ["Ana", "triage", "refunds", "refunds"] if has_names else []
    assert [each["name"] for each in sent if "name" in each] == names
    named_result = msgspec.json.decode(
        json.dumps({"messages": [ASKED, CALLED, {**RESULT, "name": "look"}]}), type=dict[str, msgspec.Raw]
    )
    assert left_out_of_request(api, named_result) == set()  # that of its call, which says it too


def message(**changed: Any) -> dict[str, Any]:
    return {"messages": [ASKED, CALLED, {**RESULT, **changed}]}


def assistant(**changed: Any) -> dict[str, Any]:
    return {"messages": [ASKED, {"role": "assistant", "content": "a", **changed}]}


def call(**changed: Any) -> dict[str, Any]:
    return assistant(tool_calls=[{**CALL, **changed}])


FORM = {"type": "object", "properties": {"kind": {"const": "a"}, "n": {"type": "integer", "minimum": 0}}}
"""Of an answer; told to Anthropic with the constant as an enumeration."""
OPEN = {"type": "object", "additionalProperties": {"type": "string"}}


def form(schema: Any, **more: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": schema, **more}}}


@pytest.mark.parametrize(
    ("schema", "lost"),
    [
        (OPEN, "additionalProperties"), ({"type": "object"}, "additionalProperties"),
        ({"type": ["object", "null"]}, "additionalProperties"),
        ({**FORM, "properties": {"names": {"type": "array", "items": OPEN}}}, "additionalProperties"),
        ({"$defs": {"names": {"anyOf": [OPEN, {"type": "null"}]}}, **FORM}, "additionalProperties"),
        ({**FORM, "patternProperties": {"^x": {}}}, "patternProperties"),
        ({"anyOf": [FORM], "allOf": [FORM]}, "allOf"),
    ],
)  # fmt: skip
def test_a_form_that_claude_could_only_fill_with_nothing_is_refused_by_name(schema: Any, lost: str) -> None:
    """Anthropic's client closes each object, whatever its names were to be."""
    assert refused("anthropic", **form(schema)) == f"response_format: json_schema.schema.{lost}"
    assert refused("gemini", **form(schema)) is None


@pytest.mark.parametrize(
    "schema", [FORM, {**FORM, "additionalProperties": False}, {**FORM, "additionalProperties": True}]
)
def test_a_form_with_names_is_told_to_claude_with_its_constants(schema: Any) -> None:
    assert refused("anthropic", **form(schema)) is None
    told = adapt_request("anthropic", {"messages": [ASKED], **form(schema)})["response_format"]["json_schema"]
    assert told["name"] == "f" and told["schema"]["properties"]["kind"] == {"enum": ["a"], "type": "string"}
    assert told["schema"]["properties"]["n"] == schema["properties"]["n"]


@pytest.mark.parametrize(("more", "strict"), [({}, False), ({"strict": None}, False), ({"strict": True}, True)])
def test_azure_is_bound_to_a_form_where_the_caller_is(more: dict[str, Any], strict: bool) -> None:
    """The library binds it to each, and Azure refuses forms that are not made for that."""
    told = adapt_request("azure", {"messages": [ASKED], **form(FORM, **more)})["response_format"]["json_schema"]
    assert told == {"name": "f", "schema": FORM, "strict": strict}


@pytest.mark.parametrize("api", APIS)
def test_a_whole_conversation_can_be_told_to_each(api: str) -> None:
    """As official clients send it, who give back what they got."""
    said = {
        **CALLED, "refusal": None, "annotations": [], "audio": None, "function_call": None, "reasoning_content": "hm",
        "parsed": {"a": 1},
        "tool_calls": [{**CALL, "function": {**FUNCTION, "parsed_arguments": {"what": "it"}}}],
    }  # fmt: skip
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        ASKED, said, {**RESULT, "name": "look", "content": [{"type": "text", "text": "here"}]},
        {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "now?"}]},
    ]  # fmt: skip
    assert refused(api, messages=messages, tools=[tool(description="Look", strict=False)]) is None
    told = json.dumps(adapt_request(api, {"messages": messages})["messages"])
    assert "parsed" not in told, "what a client made of an answer is no part of it"


@pytest.mark.parametrize("api", APIS)
def test_what_asks_for_what_is_done_unasked_is_refused_by_nobody(api: str) -> None:
    idle: dict[str, Any] = {
        "presence_penalty": 0, "frequency_penalty": 0.0, "top_p": 1.0, "n": 1, "logprobs": False, "logit_bias": {},
        "parallel_tool_calls": True, "tool_choice": "auto", "service_tier": "auto", "store": True, "metadata": {},
        "modalities": ["text"],
    }  # fmt: skip
    assert refused(api, **idle) is None
    assert refused(api, **idle | {"parallel_tool_calls": False}) is None, "the answer is cut where nobody can be told"
    for said in ({"logprobs": True}, {"service_tier": "flex"}, {"logit_bias": {"1": 1}}):
        assert refused(api, **idle | said) == next(iter(said))
    assert refused(api, **idle | {"metadata": {"a": "b"}, "store": False}) == "metadata"
    assert refused(api, **idle | {"metadata": {"a": "b"}}) is None, "it is of what is stored, which is here or nowhere"
    assert refused(api, stream_options={"include_usage": True, "include_obfuscation": False}) is None
    assert refused(api, stream_options={"include_obfuscation": True}) == "stream_options.include_obfuscation"


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"tools": [{"google_search": {}}]}, "tools: type None"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools: type custom"),
        ({"tools": [{**tool(), "google_search": {}}]}, "tools: google_search"),
        ({"tools": [{**tool(), "cache_control": {"type": "ephemeral"}}]}, "tools: cache_control"),
        ({"tools": [tool(later=1)]}, "tools: function.later"),
        ({"tools": [{"type": "function"}]}, "tools: function"),
        ({"messages": [{"role": "function", "name": "look", "content": "x"}]}, "messages: role function"),
        ({"messages": [{**ASKED, "cache_control": {"type": "ephemeral"}}]}, "messages: cache_control"),
        ({"messages": [{**ASKED, "extra_content": {"cache_control": {}}}]}, "messages: extra_content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"a": 1}}]}]},
            "messages: text.cache_control",
        ),
        (
            {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
            "messages: content of type image_url",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages: content of type file"),
        ({"messages": [{"role": "user", "content": None}]}, "messages: content"),
        (assistant(extra_content={"google": {"code_execution": [{}]}}), "messages: extra_content"),
        (assistant(extra_content={"cache_control": {"type": "ephemeral"}}), "messages: extra_content"),
        (call(extra_content={"google": {"later": 1}}), "messages: tool_calls.extra_content"),
        (call(type="custom"), "messages: tool_calls of type custom"),
        (call(later=1), "messages: tool_calls.later"),
        (call(id=""), "messages: tool_calls.id"),
        (
            call(function={"name": "look", "arguments": "{}", "later": 1}),
            "messages: tool_calls.function.arguments",
        ),
        (assistant(later=0), "messages: later"),
        (message(tool_call_id="other"), "messages: tool_call_id"),
        (message(later=1), "messages: later"),
        (message(tool_call_id=["c1"]), "messages: tool_call_id"),
        (assistant(tool_calls={"c1": CALL}), "messages: tool_calls"),
        ({"tools": {"look": tool()}}, "tools"),
    ],
)  # fmt: skip
def test_what_nobody_has_a_word_for_is_refused_by_name(asked: dict[str, Any], name: str) -> None:
    assert {refused(api, **asked) for api in APIS} == {name}


@pytest.mark.parametrize(
    ("apis", "asked", "name"),
    [
        ("bedrock", {"tool_choice": "none"}, "tool_choice none"),
        ("bedrock", {"tool_choice": {"type": "function", "function": {"name": "look"}}}, "tool_choice function"),
        ("anthropic azure groq mistral", {"tool_choice": {"type": "allowed_tools"}}, "tool_choice allowed_tools"),
        ("anthropic", {"response_format": {"type": "json_object"}}, "response_format json_object"),
        ("azure", {"response_format": {"type": "json_object"}}, "response_format json_object"),
        ("gemini", {"response_format": {"type": "grammar"}}, "response_format grammar"),
        ("anthropic gemini mistral", {"response_format": {"type": ["text"]}}, "response_format ['text']"),
        ("groq", {"response_format": {"type": "json_object"}, "stream": True}, "response_format in a stream"),
        (
            "anthropic gemini ollama",
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "description": "d"}}},
            "response_format: json_schema.description",
        ),
        ("mistral", {"response_format": {"type": "json_schema"}}, "response_format: json_schema.schema"),
        ("ollama", {"tools": [tool(parameters=NESTED)]}, "tools: function.parameters.properties"),
        (
            "anthropic bedrock gemini ollama vertexai",
            call(function={"name": "look", "arguments": "{"}),
            "messages: tool_calls.function.arguments",
        ),
        (
            "anthropic bedrock gemini ollama vertexai",
            call(function={"name": "look", "arguments": "[1]"}),
            "messages: tool_calls.function.arguments",
        ),
        (
            "bedrock gemini",
            call(function={"name": "look", "arguments": '{"a":' * 300_000}),
            "messages: tool_calls.function.arguments",
        ),
        ("gemini mistral", {"messages": [{**ASKED, "name": "Ana"}, {**ASKED, "name": "Bo"}]}, "messages: name"),
        ("anthropic cohere ollama", {"messages": [ASKED, {**ASKED, "name": "Ana"}]}, "messages: name"),
        (
            "bedrock vertexai",
            {"messages": [{**SYSTEM, "name": "example_user"}, {**SYSTEM, "name": "example_assistant"}, ASKED]},
            "messages: name",
        ),
        ("azure groq anthropic", {"messages": [{**ASKED, "name": {"first": "Ana"}}]}, "messages: name"),
    ],
)  # fmt: skip
def test_what_one_has_no_word_for_is_refused_by_name(apis: str, asked: dict[str, Any], name: str) -> None:
    for api in apis.split():
        assert refused(api, **asked) == name, api


def test_what_one_has_a_word_for_is_told() -> None:
    for api in ("anthropic", "bedrock", "gemini", "mistral", "vertexai", "cohere", "azure", "groq"):
        assert refused(api, tools=[tool(parameters=NESTED)]) is None, api
    for api in ("azure", "groq"):
        several = [{**ASKED, "name": "Ana"}, {**ASKED, "name": "Bo"}]
        assert refused(api, messages=several, tools=[tool(strict=True)]) is None
    for api in APIS:  # Gemini's signature is nothing to others, who are asked where Gemini fails
        assert refused(api, **assistant(extra_content=SIGNED)) is None
        assert refused(api, **call(extra_content=SIGNED)) is None
        made = adapt_request(api, {"messages": assistant(extra_content=SIGNED)["messages"]})["messages"][-1]
        assert ("extra_content" in made) == (api in ("gemini", "vertexai"))
    assert refused("bedrock", tool_choice="auto") is None
    assert refused("mistral", **call(function={"name": "look", "arguments": "{"})) is None


@pytest.mark.parametrize("tools", [[{"google_search": {}}], [{"code_execution": {}}], [{"function": {"name": "x"}}]])
def test_a_tool_that_says_nothing_about_its_type_is_taken_for_no_function(tools: list[dict[str, Any]]) -> None:
    with pytest.raises(Invalid) as caught:
        chat.read(json.dumps({"model": "m", "messages": [ASKED], "tools": tools}).encode())
    assert caught.value.code == "field_unsupported" and "without a type" in caught.value.message


def test_system_messages_are_one_where_the_provider_has_one() -> None:
    messages = [
        {"role": "system", "content": "One."},
        {"role": "system", "content": [{"type": "text", "text": "Two."}]},
        ASKED,
        {"role": "developer", "content": "Three."},
    ]
    for api in ("anthropic", "bedrock", "gemini", "vertexai"):
        assert adapt_request(api, {"messages": messages})["messages"] == [
            {"role": "system", "content": "One.\n\nTwo.\n\nThree."}, ASKED
        ]  # fmt: skip
    roles = [message["role"] for message in adapt_request("mistral", {"messages": messages})["messages"]]
    assert roles == ["system", "system", "user", "system"]


def test_messages_are_in_the_words_of_the_library() -> None:
    said = {
        "role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}],
        "tool_calls": [{**CALL, "index": 0, "function": {"name": "look", "arguments": ""}}], "annotations": [],
        "extra_content": {"google": {"thought_signature": "x"}}, "reasoning_content": "hm",
    }  # fmt: skip
    result = {**RESULT, "name": "look", "content": [{"type": "text", "text": "[1]"}]}
    made = adapt_request("gemini", {"messages": [ASKED, said, result]})["messages"]
    function = {"name": "look", "arguments": "{}"}
    assert made[1] == {
        "role": "assistant", "content": "a\nno", "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        "extra_content": {"google": {"thought_signature": "x"}},
    }  # fmt: skip
    assert made[2] == {"role": "tool", "tool_call_id": "c1", "content": '{"result":[1]}'}
    made = adapt_request("bedrock", {"messages": [ASKED, said, result], "stop": "x"})
    assert made["messages"][2]["content"] == '{"result":[1]}' and made["stop"] == ["x"]
    assert adapt_request("mistral", {"messages": [said]})["messages"][0]["reasoning"] == "hm"
    refusal = {"role": "assistant", "content": None, "refusal": "no"}
    assert adapt_request("ollama", {"messages": [refusal]})["messages"] == [{"role": "assistant", "content": "no"}]


@pytest.mark.parametrize("api", APIS)
def test_where_to_stop_is_told_as_a_list(api: str) -> None:
    """One text is as good for OpenAI; Azure, Bedrock and Ollama refuse it."""
    assert adapt_request(api, {"messages": [ASKED], "stop": "x"})["stop"] == ["x"]
    assert adapt_request(api, {"messages": [ASKED], "stop": ["x", "y"]})["stop"] == ["x", "y"]


def test_what_mistral_thought_comes_back_to_mistral_and_to_nobody_else() -> None:
    """In parts, as its own API says it, or in the library's words; signed or not."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]}
    text = {"type": "text", "text": "a"}
    in_parts = {"role": "assistant", "content": [{**thought, "signature": "s", "closed": True}, text]}
    in_words = {"role": "assistant", "content": "a", "reasoning_content": "hm",
                "extra_content": {"mistral": {"signature": "s"}}}  # fmt: skip
    told = {"role": "assistant", "content": "a", "reasoning": "hm", "extra_content": in_words["extra_content"]}
    for said in (in_parts, in_words):
        assert refused("mistral", messages=[ASKED, said, ASKED]) is None
        assert adapt_request("mistral", {"messages": [said]})["messages"] == [told]
    assert adapt_request("gemini", {"messages": [in_words]})["messages"] == [{"role": "assistant", "content": "a"}]
    unsigned = {"role": "assistant", "content": [thought, text]}
    assert adapt_request("mistral", {"messages": [unsigned]})["messages"] == [
        {"role": "assistant", "content": "a", "reasoning": "hm"}
    ]
    elsewhere: tuple[tuple[str, dict[str, Any]], ...] = (
        ("groq", unsigned),
        ("mistral", {"role": "user", "content": [thought]}),
        ("mistral", {"role": "assistant", "content": [{**thought, "thinking": "hm"}]}),
    )
    for api, message in elsewhere:
        assert "content of type thinking" in (refused(api, messages=[ASKED, message]) or "")


def test_an_image_of_no_media_type_gets_its_own() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,/9g=", "detail": "auto"}}
    assert chat.read(json.dumps({"model": "m", "messages": [{"role": "user", "content": [picture]}]}).encode()).images
    text = {"type": "text", "text": "What is it?"}
    (made,) = adapt_request("anthropic", {"messages": [{"role": "user", "content": [text, picture]}]})["messages"]
    image = {"url": "data:image/jpeg;base64,/9g=", "detail": "auto"}
    assert made["content"] == [text, {"type": "image_url", "image_url": image}]


def test_a_tools_schema_goes_whole_to_gemini() -> None:
    made = adapt_request("gemini", {"messages": [ASKED], "tools": [tool(parameters=NESTED, description="Look")]})
    assert made["tools"] == [
        {"function_declarations": [{"name": "look", "description": "Look", "parameters_json_schema": NESTED}]}
    ]
    assert "response_format" not in adapt_request("anthropic", {"messages": [], "response_format": {"type": "text"}})


def test_the_page_names_every_field_that_a_provider_can_be_told() -> None:
    page = (Path(__file__).parents[2] / "docs" / "refused.md").read_text()
    rows = {
        row.split("|")[1].strip().lower().replace(" ", ""): row for row in page.splitlines() if row.startswith("| ")
    }
    penalties = {"presence_penalty", "frequency_penalty"}
    usual = {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "n"}
    for api in APIS:
        row = rows["gemini,vertexai" if api in ("gemini", "vertexai") else api]
        told = {name for name in _FIELDS[api] - penalties - usual - {"tools"} if f"`{name}`" in row}
        assert told == _FIELDS[api] - penalties - usual - {"tools"}, api
        assert ("penalties" in row) == (penalties <= _FIELDS[api]), api
        assert all(name in _FIELDS[api] for name in re.findall(r"`([a-z_]+)`", row) if name not in _VALUES), api


_VALUES = {"auto", "required", "allowed_tools"}


@pytest.mark.parametrize("name", ["gateway", "jürgen", "ключ", "鍵", "🔑", 'a "b" \\n'])
def test_the_files_of_a_place_are_told_to_the_service_however_they_are_called(name: str) -> None:
    made = Deployment(
        name="d", site="s", model="m", upstream_model="up", url="http://x/v1", rates=Rates(input=1, output=1),
        api="gemini", key=f"file:/home/{name}/key",
    )  # fmt: skip
    line = target_header(made)
    assert line.isascii() and line.count(b"\r\n") == 1
    assert decode_target(line.partition(b": ")[2].strip()).key == made.key
