"""What callers send, what upstreams get, and event streams cut at any byte."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import Deployment, Rates
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.gateway.http.server import Request
from groundplan.gateway.http.sse import EventReader, EventTooLarge, append_field, format_event, split_for_field
from groundplan.gateway.surfaces import completions, embeddings
from groundplan.gateway.surfaces.body import DECISIVE_FIELDS, OTHER_INPUT_FIELDS, REDIRECTING_FIELDS, message_parts
from groundplan.gateway.surfaces.chat import surface as chat_completions
from groundplan.gateway.surfaces.chat.chunk import remove_usage
from groundplan.gateway.surfaces.chat.relay import ChatRelay, CopiesRelay
from groundplan.gateway.surfaces.chat.surface import OpenAIChat
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.embeddings import EMBEDDINGS, OpenAIEmbeddings
from groundplan.gateway.surfaces.images import IMAGES
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.messages import surface as messages
from groundplan.gateway.surfaces.messages import to_chat as messages_to_chat
from groundplan.gateway.surfaces.moderations import MODERATIONS
from groundplan.gateway.surfaces.rerank import RERANK
from groundplan.gateway.surfaces.responses import surface as responses
from groundplan.gateway.surfaces.responses import to_chat as responses_to_chat
from groundplan.gateway.surfaces.responses.surface import RESPONSES
from groundplan.gateway.surfaces.speech import SPEECH
from groundplan.gateway.upstream.providers import CACHE_FIELDS

PDF = "data:application/pdf;base64,JVBERg=="
HOUR = {"type": "ephemeral", "ttl": "1h"}
"""As OpenRouter and LiteLLM take it in chat, for models of Anthropic."""
PLACE = Deployment(
    name="d", site="s", model="m", upstream_model="up", url="http://x/v1", rates=Rates(input=1, output=1)
)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300) | st.text(),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


OTHERS = st.text(max_size=12).filter(lambda name: name.casefold() not in DECISIVE_FIELDS)


def chat(**more: Any) -> bytes:
    return json.dumps({"model": "auto", "messages": [{"role": "user", "content": "hi"}], **more}).encode()


@given(st.dictionaries(OTHERS, json_values, max_size=6))
def test_unknown_fields_reach_the_upstream_as_they_were(extra: dict[str, Any]) -> None:
    ask = chat_completions.read(chat(**extra))
    sent = json.loads(OpenAIChat().request_body(ask, PLACE, 7, ["lead"]))
    assert {name: sent[name] for name in extra} == extra
    assert sent["model"] == "up" and sent["max_tokens"] == 7
    assert sent["messages"] == [{"role": "system", "content": "lead"}, {"role": "user", "content": "hi"}]


def test_numbers_and_order_are_the_callers_own_bytes() -> None:
    raw = (
        b'{"temperature":1.50,"model":"a","messages":[{"role":"user","content":"h\\u00e9","x":1e2}],'
        b'"seed":12345678901234567890}'
    )
    sent = OpenAIChat().request_body(chat_completions.read(raw), PLACE, 9, [])
    assert sent == (
        b'{"temperature":1.50,"model":"up","messages":[{"role":"user","content":"h\\u00e9","x":1e2}],'
        b'"seed":12345678901234567890,"max_tokens":9}'
    )


@pytest.mark.parametrize("value", [True, False, None])
def test_nothing_is_stored_at_a_provider(value: bool | None) -> None:
    sent = json.loads(OpenAIChat().request_body(chat_completions.read(chat(store=value)), PLACE, 7, []))
    assert sent["store"] is False
    assert "store" not in json.loads(OpenAIChat().request_body(chat_completions.read(chat()), PLACE, 7, []))


def test_mistrals_own_address_is_not_told_what_it_refuses() -> None:
    """It tells usage unasked."""
    asks = chat_completions.read(chat(stream=True, stream_options={"include_usage": True}, store=False))
    place = msgspec.structs.replace(PLACE, url="https://api.mistral.ai/v1")
    assert {"stream_options", "store"}.isdisjoint(json.loads(OpenAIChat().request_body(asks, place, 7, [])))
    other = msgspec.structs.replace(PLACE, url="https://proxy.example/.mistral.ai/v1")
    assert {"stream_options", "store"} <= json.loads(OpenAIChat().request_body(asks, other, 7, [])).keys()


@pytest.mark.parametrize("tools", [None, []])
def test_nothing_is_said_of_tools_in_chat_where_there_are_none(tools: Any) -> None:
    """Codex says so when it sums up a conversation; xAI, vLLM and OpenAI's chat refuse it."""
    asked = {"model": "a", "input": "x", "tools": tools, "tool_choice": "auto", "parallel_tool_calls": False}
    said: Any = {"max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "model": "a", "tools": tools}
    for choice in ({"type": "auto", "disable_parallel_tool_use": True}, {"type": "none"}):
        message = messages.read(json.dumps({**said, "tool_choice": choice}).encode(), {})
        assert {"tool_choice", "parallel_tool_calls"}.isdisjoint(messages.MESSAGES.via_chat.chat_fields(message, PLACE))
    response = responses.read(json.dumps(asked).encode())
    assert {"tool_choice", "parallel_tool_calls"}.isdisjoint(RESPONSES.via_chat.chat_fields(response, PLACE))
    forced = responses.read(json.dumps({**asked, "tool_choice": "required"}).encode())
    assert "tool_choice" in RESPONSES.via_chat.chat_fields(forced, PLACE), "that is its caller's mistake"


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://generativelanguage.googleapis.com/v1beta/openai", {"store", *CACHE_FIELDS}),
        ("https://api.groq.com/openai/v1", {*CACHE_FIELDS}),
        ("https://api.mistral.ai/v1", {"store", "prompt_cache_retention"}),
        ("https://api.openai.com/v1", set()),
        ("https://proxy.example/api.groq.com/openai/v1", set()),
    ],
)
def test_no_address_is_told_what_it_refuses_and_nothing_of_an_answer_depends_on(url: str, refused: set[str]) -> None:
    """As agents say it in every request: a fallback there would refuse what others are asked."""
    said = dict.fromkeys(CACHE_FIELDS, "24h")
    place = msgspec.structs.replace(PLACE, url=url)
    sent = json.loads(OpenAIChat().request_body(chat_completions.read(chat(store=True, **said)), place, 7, []))
    assert {"store", *said} - sent.keys() == refused and sent.get("store", False) is False
    ask = responses.read(json.dumps({"model": "a", "input": "x", **said}).encode())
    sent = json.loads(RESPONSES.codec(place).request_body(ask, place, 7, []))
    assert said.keys() - sent.keys() == refused - {"store"}
    assert set(cast("list[str]", RESPONSES.extra_facts(ask, place).get("left_out", []))) == refused - {"store"}


def test_mistrals_own_address_is_told_of_no_user_and_the_caller_so() -> None:
    """Agents say for whom they ask in every request, by which nothing of the answer changes."""
    body = {"model": "a", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "metadata": {"user_id": "u"}}
    ask = messages.read(json.dumps(body).encode(), {})
    for url, left_out in ((PLACE.url, []), ("https://api.mistral.ai/v1", ["metadata.user_id"])):
        place = msgspec.structs.replace(PLACE, url=url)
        sent = json.loads(messages.MESSAGES.codec(place).request_body(ask, place, 7, []))
        assert ("user" in sent) == (not left_out)
        assert messages.MESSAGES.extra_facts(ask, place).get("left_out", []) == left_out


def test_only_one_cap_and_only_ours_is_sent() -> None:
    raw = b'{"max_tokens":900,"model":"a","messages":[{"role":"user","content":"x"}],"max_completion_tokens":8}'
    ask = chat_completions.read(raw)
    assert ask.cap == 8
    sent = OpenAIChat().request_body(ask, PLACE, 6, [])
    assert sent.count(b"max_") == 1 and json.loads(sent)["max_tokens"] == 6


def test_a_stream_always_asks_for_usage() -> None:
    ask = chat_completions.read(chat(stream=True, stream_options={"include_usage": False}))
    assert not ask.include_usage
    assert json.loads(OpenAIChat().request_body(ask, PLACE, 6, []))["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("asked", [b'{"include_usage":false}', b"{}", b"null"])
@pytest.mark.parametrize("codec", [(chat_completions, OpenAIChat()), (completions, completions.OpenAICompletions())])
def test_what_else_is_said_of_a_stream_goes_on(codec: Any, asked: bytes) -> None:
    surface, upstream = codec
    said = b'"include_obfuscation":false,"of_others":[1.50e3]'
    head = b'{"model":"a","prompt":"x","messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":'
    whole = b"{%b,%b}" % (said, asked[1:-1]) if asked.startswith(b'{"') else b"{%b}" % said
    sent = upstream.request_body(surface.read(head + whole + b"}"), PLACE, 6, [])
    assert said in sent and json.loads(sent)["stream_options"]["include_usage"] is True
    plain = json.loads(upstream.request_body(surface.read(head + asked + b"}"), PLACE, 6, []))
    assert plain["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"n": 0}, "copies_range"),
        ({"n": 17}, "copies_range"),
        ({"max_tokens": 0}, "cap_range"),
        ({"max_completion_tokens": -1}, "cap_range"),
        ({"messages": []}, "messages_empty"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "image_url"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "content_unsupported"),
        ({"messages": [{"role": "user", "content": 3}]}, "body_invalid"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "file", "file": {"file_data": PDF, "file_url": "u"}}]}
                ]
            },
            "file_data",
        ),
        ({"audio": {"voice": "x"}}, "field_unsupported"),
        ({"prediction": {"type": "content"}}, "field_unsupported"),
        ({"web_search_options": {}}, "field_unsupported"),
        ({"search_parameters": {"mode": "on"}}, "field_unsupported"),
        ({"search_parameters": {}}, "field_unsupported"),
        ({"enable_search": True}, "field_unsupported"),
        ({"plugins": [{"id": "web"}]}, "field_unsupported"),
        ({"moderation": {"model": "omni-moderation-latest"}}, "field_unsupported"),
        ({"models": ["dear/model"]}, "field_unsupported"),
        ({"tools": [{"type": "function", "function": {}}, {"type": "code_interpreter"}]}, "field_unsupported"),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "content_unsupported"),
        ({"modalities": ["text", "audio"]}, "field_unsupported"),
        ({"service_tier": "scale"}, "field_unsupported"),
        ({"prompt_cache_options": {"mode": "explicit", "ttl": "12h"}}, "field_unsupported"),
        ({"cache_control": HOUR}, "field_unsupported"),
        ({"messages": [{"role": "system", "content": "a", "cache_control": HOUR}]}, "field_unsupported"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": HOUR}]}]},
            "field_unsupported",
        ),
        ({"tools": [{"type": "function", "function": {"name": "a"}, "cache_control": HOUR}]}, "field_unsupported"),
        ({"tools": [{"type": "function", "function": {"name": "a", "cache_control": HOUR}}]}, "field_unsupported"),
        ({"reasoning": {"mode": "pro"}}, "field_unsupported"),
        ({"stream": "yes"}, "body_invalid"),
        ({"model": 3}, "body_invalid"),
    ],
)
def test_what_could_cost_more_than_its_bound_is_refused(more: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        chat_completions.read(chat(**more))
    assert caught.value.code == code and caught.value.hint


def test_what_switches_nothing_on_is_refused_by_nobody() -> None:
    idle = {"enable_search": False, "plugins": [], "models": [], "search_parameters": None, "fallbacks": []}
    assert chat_completions.read(chat(**idle)).fields.keys() >= idle.keys()
    body = {"model": "auto", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}], "mcp_servers": []}
    messages.read(json.dumps(body).encode(), {})
    reader_of(RESPONSES)(json.dumps({"model": "auto", "input": "a", "background": False, **idle}).encode())


@pytest.mark.parametrize(
    "beside",
    [
        {"video_url": "http://169.254.169.254/"},
        {"audio_url": {"url": "http://[::1]/"}},
        {"image_url": {"url": "http://[::ffff:10.0.0.1]/"}},
        {"image_url": {"url": "data:image/png;base64,AAAA"}},
        {"file": {"file_data": PDF}},
        {"input_audio": {"data": "AAAA", "format": "wav"}},
        {"image_embeds": "AAAA"},
    ],
)
@pytest.mark.parametrize("part", [{"type": "text"}, {"type": "text", "text": "a", "uuid": "x"}, {"type": "refusal"}])
def test_a_part_of_text_is_nothing_else_to_an_upstream_that_reads_parts_by_their_names(
    part: dict[str, Any], beside: dict[str, Any]
) -> None:
    with pytest.raises(Invalid) as caught:
        chat_completions.read(chat(messages=[{"role": "user", "content": [{**part, **beside}]}]))
    assert caught.value.code == "content_unsupported" and next(iter(beside)) in str(caught.value)
    nothing = {**part, **dict.fromkeys(beside), "cache_control": {"type": "ephemeral"}}
    assert chat_completions.read(chat(messages=[{"role": "user", "content": [nothing]}]))


@pytest.mark.parametrize(
    "beside",
    [
        {"image_url": "http://169.254.169.254/"}, {"file_url": "http://[::1]/"}, {"video_url": {"url": "http://a/"}},
        {"audio_url": "http://a/"}, {"input_audio": {"data": "AAAA"}}, {"image_embeds": "AAAA"}, {"file_data": PDF},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["input_text", "output_text", "reasoning_text", "refusal", "input_image"])
def test_a_part_of_a_responses_input_is_nothing_else_either(kind: str, beside: dict[str, Any]) -> None:
    picture = {"image_url": "data:image/png;base64,AAAA"} if kind == "input_image" else {}
    if picture.keys() & beside.keys():
        return

    def asked(part: dict[str, Any]) -> bytes:
        return json.dumps({"model": "auto", "input": [{"role": "user", "content": [part]}]}).encode()

    with pytest.raises(Invalid) as caught:
        reader_of(RESPONSES)(asked({"type": kind, "text": "a", **picture, **beside}))
    assert caught.value.code == "content_unsupported" and next(iter(beside)) in str(caught.value)
    assert reader_of(RESPONSES)(asked({"type": kind, "text": "a", **picture, **dict.fromkeys(beside)}))


def test_a_cache_of_prompts_is_written_at_the_price_that_is_known() -> None:
    for ttl in ({}, {"ttl": None}, {"ttl": "30m"}):
        chat_completions.read(chat(prompt_cache_options={"mode": "explicit", **ttl}))
        reader_of(RESPONSES)(json.dumps({"model": "auto", "input": "a", "prompt_cache_options": ttl}).encode())
    with pytest.raises(Invalid, match="prompt_cache_options"):
        reader_of(RESPONSES)(
            json.dumps({"model": "auto", "input": "a", "prompt_cache_options": {"ttl": "12h"}}).encode()
        )


def test_a_part_of_a_prompt_is_cached_at_the_price_that_is_known() -> None:
    """OpenAI's clients say it of each part, too."""

    def asked(name: str, **ttl: str) -> tuple[bytes, bytes]:
        part = {"text": "a", "prompt_cache_breakpoint": {"mode": "explicit", **ttl}}
        item = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", **part}]}
        said = {"role": name, "content": [{"type": "input_text", **part}]}
        body = chat(messages=[{"role": name, "content": [{"type": "text", **part}]}])
        return body, json.dumps({"model": "auto", "input": [said] if name == "user" else [item]}).encode()

    for name in ("user", "system"):
        for ttl in ({}, {"ttl": "30m"}):
            body, response = asked(name, **ttl)
            assert chat_completions.read(body) and responses.read(response)
        body, response = asked(name, ttl="12h")
        for read, data in ((chat_completions.read, body), (responses.read, response)):
            with pytest.raises(Invalid, match=r"prompt_cache_breakpoint\.ttl '12h'") as caught:
                read(data)
            assert caught.value.code == "field_unsupported"


@pytest.mark.parametrize(
    ("tier", "service"),
    [("fast", "priority"), ("priority", "priority"), ("default", "standard"), ("flex", "flex")],
)
def test_a_tier_is_a_class_of_service_and_fast_another_word_for_priority(tier: str, service: str) -> None:
    assert chat_completions.read(chat(service_tier=tier)).service == service
    response = responses.read(json.dumps({"model": "auto", "input": "a", "service_tier": tier}).encode())
    needed = set() if service == "standard" else {service}
    assert response.service == service and response.needs == chat_completions.read(chat(service_tier=tier)).needs
    assert response.needs == needed


def test_metadata_of_what_is_to_be_stored_leaves_with_its_storing() -> None:
    """OpenAI takes it with nothing else: "only allowed when 'store' is enabled"."""
    for store, told in ((True, False), (False, True), (None, True)):
        ask = chat_completions.read(chat(store=store, metadata={"topic": "a"}))
        sent = json.loads(OpenAIChat().request_body(ask, PLACE, 7, []))
        assert sent["store"] is False and ("metadata" in sent) == told
    sent = json.loads(OpenAIChat().request_body(chat_completions.read(chat(metadata={"topic": "a"})), PLACE, 7, []))
    assert sent["metadata"] == {"topic": "a"} and "store" not in sent


def test_what_asks_for_nothing_is_refused_by_no_interface() -> None:
    drawn = SimpleNamespace(body=b'{"model":null,"prompt":"a cat"}')
    assert IMAGES.read(drawn).model == "auto"  # type: ignore[arg-type]
    body: dict[str, Any] = {"model": "auto", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}
    tool = {
        "name": "look", "input_schema": {"type": "object"}, "defer_loading": False, "input_examples": [],
        "allowed_callers": ["direct"], "eager_input_streaming": False,
    }  # fmt: skip
    document = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
    content = [{"type": "document", "source": document, "citations": {"enabled": False}, "context": None}]
    told = {**body, "messages": [{"role": "user", "content": content}], "tools": [tool], "speed": "standard"}
    ask = messages.read(json.dumps(told).encode(), {})
    for eager in (b"false", b"true"):
        said = ask.body.replace(b'"eager_input_streaming": false', b'"eager_input_streaming": ' + eager)
        (made,) = messages_to_chat.Translation(said).fields["tools"]
        parameters = {"type": "object", "properties": {}}
        assert made == {"type": "function", "function": {"name": "look", "parameters": parameters}}, (
            "as OpenAI takes it"
        )
    for name, value in (("input_examples", [{}]), ("allowed_callers", ["code_execution"])):
        with pytest.raises(Invalid, match=f"tools.{name}"):
            messages_to_chat.Translation(json.dumps({**body, "tools": [{**tool, name: value}]}).encode())
    with pytest.raises(Invalid, match="speed"):
        messages.read(json.dumps({**body, "speed": "fast"}).encode(), {})


@pytest.mark.parametrize("blocks", [[], [{"type": "thinking", "thinking": "a", "signature": "b"}]])
def test_a_turn_in_which_nothing_was_said_is_no_message_in_chat(blocks: list[dict[str, Any]]) -> None:
    """As one that was cut off while its model thought: a message without text and calls is refused."""
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": blocks},
        {"role": "user", "content": "b"},
    ]
    told = messages_to_chat.Translation(json.dumps({"model": "auto", "max_tokens": 5, "messages": said}).encode())
    assert told.messages == [said[0], said[2]] and told.left_out == ({"thinking"} if blocks else set())


def test_a_user_of_messages_is_one_that_chat_takes() -> None:
    """Claude Code's has some 150 signs, and OpenAI takes 64."""
    body = {"model": "auto", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}
    users = []
    for name in ("ana", "u" * 64, "user_" + "f" * 140, "user_" + "f" * 140, "user_" + "e" * 140):
        told = messages_to_chat.Translation(json.dumps({**body, "metadata": {"user_id": name}}).encode())
        users.append(told.fields["user"])
    assert users[:2] == ["ana", "u" * 64] and users[2] == users[3] != users[4]
    assert max(map(len, users)) == 64


def test_what_asks_a_response_for_nothing_is_no_obstacle_to_chat() -> None:
    tool = {
        "type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False, "defer_loading": False,
        "allowed_callers": ["direct"], "output_schema": None,
    }  # fmt: skip
    said = {"type": "output_text", "text": '{"a": 1}', "annotations": [], "logprobs": [], "parsed": {"a": 1}}
    items = [
        {
            "type": "message",
            "role": "assistant",
            "id": "m",
            "status": "completed",
            "content": [said],
            "phase": "commentary",
        },
        {
            "type": "function_call",
            "call_id": "c",
            "name": "look",
            "arguments": "{}",
            "parsed_arguments": {},
            "caller": {"type": "direct"},
        },
        {"type": "function_call_output", "call_id": "c", "output": "here"},
    ]  # as OpenAI's client for Node gives back what it parsed
    body = {"model": "auto", "input": items, "tools": [tool], "max_tool_calls": 3, "prompt_cache_retention": "24h"}
    fields = responses_to_chat.Translation(json.dumps(body).encode()).fields
    function = {"name": "look", "parameters": {"type": "object"}, "strict": False}
    assert fields["tools"] == [{"type": "function", "function": function}] and "max_tool_calls" not in fields
    assert fields["messages"][0]["content"] == '{"a": 1}' and fields["prompt_cache_retention"] == "24h"
    assert "parsed" not in json.dumps(fields)
    for more in ({"tools": [{**tool, "defer_loading": True}]}, {"stream_options": {"include_obfuscation": True}}):
        with pytest.raises(Invalid, match="cannot be said"):
            responses_to_chat.Translation(json.dumps({**body, **more}).encode())


def test_an_answer_is_reasoned_for_once() -> None:
    """`pro` reasons several times, and the cap is that of one."""
    for told in ({"effort": "high"}, {"mode": None}, {"mode": "standard", "effort": "low"}):
        reader_of(RESPONSES)(json.dumps({"model": "auto", "input": "a", "reasoning": told}).encode())
        chat_completions.read(chat(reasoning=told))
    for mode in ("pro", "deeper"):
        with pytest.raises(Invalid, match=r"reasoning\.mode") as caught:
            reader_of(RESPONSES)(json.dumps({"model": "auto", "input": "a", "reasoning": {"mode": mode}}).encode())
        assert caught.value.code == "field_unsupported" and "no bound" in caught.value.hint


def reader_of(interface: Interface) -> Callable[[bytes], object]:
    return lambda body: interface.read(SimpleNamespace(body=body, headers={}))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(OTHER_INPUT_FIELDS))
def test_what_embeds_or_ranks_reads_its_texts_and_nothing_beside_them(name: str) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    more = {"model": "auto", name: [{"role": "user", "content": [image]}]}
    for interface, body in ((EMBEDDINGS, {"input": "a"}), (RERANK, {"query": "a", "documents": ["b"]})):
        reader_of(interface)(json.dumps({**body, **more, name: None}).encode())
        with pytest.raises(Invalid, match=name):
            reader_of(interface)(json.dumps({**body, **more}).encode())
    with pytest.raises(Invalid, match="not text"):
        reader_of(RERANK)(json.dumps({"model": "auto", "query": "a", "documents": [{"content": [image]}]}).encode())


@pytest.mark.parametrize("name", sorted(REDIRECTING_FIELDS))
def test_no_surface_lets_an_upstream_ask_another_model(name: str) -> None:
    """Nor search, nor reach an address that the caller chooses."""
    more = {"model": "auto", name: [{"model": "dear"}]}
    asked: list[tuple[Callable[[bytes], object], dict[str, Any]]] = [
        (chat_completions.read, {"messages": [{"role": "user", "content": "a"}]}),
        (responses.read, {"input": "a"}),
        (completions.read, {"prompt": "a"}),
        (lambda body: messages.read(body, {}), {"max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}),
        (embeddings.read, {"input": "a"}),
        (reader_of(RERANK), {"query": "a", "documents": ["b"]}),
        (reader_of(MODERATIONS), {"input": "a"}),
        (reader_of(IMAGES), {"prompt": "a"}),
        (reader_of(SPEECH), {"input": "a", "voice": "b"}),
    ]
    for read, body in asked:
        read(json.dumps({**body, **more, name: None}).encode())
        with pytest.raises(Invalid) as caught:
            read(json.dumps({**body, **more}).encode())
        assert caught.value.code == "field_unsupported" and name in caught.value.message


def test_a_conversation_is_cleared_by_its_provider_and_not_summed_up_there() -> None:
    def read(edit: str) -> None:
        body = {"model": "auto", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}
        messages.read(json.dumps({**body, "context_management": {"edits": [{"type": edit}]}}).encode(), {})

    read("clear_tool_uses_20250919")
    with pytest.raises(Invalid, match="compact_20260112"):
        read("compact_20260112")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for read in (chat_completions.read, embeddings.read):
        try:
            read(raw)
        except GroundplanError as error:
            assert error.code.startswith("body_")


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(Invalid):
        chat_completions.read(b'{"model":"a","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_embeddings_take_texts_and_tokens() -> None:
    for value in ("a", ["a", "b"], [1, 2], [[1], [2, 3]]):
        ask = embeddings.read(json.dumps({"model": "auto", "input": value}).encode())
        assert json.loads(OpenAIEmbeddings().request_body(ask, PLACE, 0, []))["input"] == value
    with pytest.raises(Invalid):
        embeddings.read(b'{"model":"auto","input":[]}')


def _request(body: bytes) -> Request:
    request = Request(0.0)
    request.body = body
    return request


@pytest.mark.parametrize(
    ("interface", "asked"),
    [
        (EMBEDDINGS, b'"input" : ["caf\\u00e9"]'),
        (MODERATIONS, b'"input" : "caf\\u00e9"'),
        (RERANK, b'"query":"a" ,"documents" : [ "caf\\u00e9"]'),
        (IMAGES, b'"prompt" : "caf\\u00e9"'),
        (SPEECH, b'"input" : "caf\\u00e9", "voice":"x"'),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_what_is_asked_goes_on_as_the_bytes_that_came(interface: Interface, asked: bytes) -> None:
    raw = b'{ %b,\n "model":"auto" ,"later": [1, 2.50] }' % asked
    sent = interface.codec(PLACE).request_body(interface.read(_request(raw)), PLACE, 0, [])
    assert sent == raw.replace(b'"auto"', msgspec.json.encode(PLACE.upstream_model))


texts = st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)


@given(st.lists(texts, max_size=6), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 200), max_size=8))
def test_any_cut_of_the_bytes_gives_the_same_events(data: list[str], newline: bytes, cuts: list[int]) -> None:
    stream = b"".join(b": note" + newline + b"data: " + text.encode() + newline * 2 for text in data)
    reader, found, at = EventReader(), [], 0
    for cut in [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]:
        found += reader.feed(stream[at:cut])
        at = cut
    found += reader.feed(newline * 2)
    assert found == [text.encode() for text in data if text]


def test_an_event_without_an_end_is_bounded() -> None:
    reader = EventReader(1000)
    reader.feed(b"data: ")
    for _ in range(99):
        assert reader.feed(b"0123456789") == []
    with pytest.raises(EventTooLarge):
        reader.feed(b"0123456789")


def test_a_large_event_in_small_reads_is_put_together_once() -> None:
    """An image of megabytes: with a copy at each read this would take most of a minute."""
    reader, piece, began = EventReader(), bytes(64).replace(b"\0", b"A"), time.process_time()
    reader.feed(b"data: ")
    for _ in range(65_536):
        assert reader.feed(piece) == []
    assert reader.feed(b"\r\n\r\ndata: next\n\n") == [piece * 65_536, b"next"]
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"])
def test_an_event_of_many_lines_in_small_reads_is_put_together_once(newline: bytes) -> None:
    reader, line, began = EventReader(), b"data: " + b"A" * 50 + newline, time.process_time()
    for _ in range(65_536):
        assert reader.feed(line) == []
    assert reader.feed(newline + b"data: next" + newline * 2) == [b"\n".join([b"A" * 50] * 65_536), b"next"]
    assert time.process_time() - began < 5.0


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_splice_adds_one_field_and_changes_nothing_else(value: dict[str, Any]) -> None:
    raw = json.dumps(value).encode()
    spliced = append_field(raw, b"groundplan_x", b'{"a":1}')
    assert json.loads(spliced) == {**value, "groundplan_x": {"a": 1}}
    assert spliced.startswith(raw[:-1])
    for spaced in (raw, raw[:-1] + b" \n}\n", b"[]", b""):
        kept, end = split_for_field(spaced, b"groundplan_x", b'{"a":1}')
        assert spaced[:kept] + end == append_field(spaced, b"groundplan_x", b'{"a":1}')


def chunk(content: str | None = None, finish: str | None = None, usage: bool = False, choices: bool = True) -> bytes:
    made: dict[str, Any] = {"choices": []}
    if choices:
        made["choices"] = [{"index": 0, "delta": {"content": content} if content else {}, "finish_reason": finish}]
    if usage:
        made["usage"] = {"prompt_tokens": 2, "completion_tokens": 3}
    return json.dumps(made).encode()


def test_the_last_chunk_that_a_client_gets_anyway_is_held_back() -> None:
    relay = ChatRelay(include_usage=False)
    assert relay.feed(chunk("a")) == format_event(chunk("a"))
    assert relay.feed(chunk(finish="stop")) == b""
    assert relay.feed(chunk(choices=False, usage=True)) == b""
    assert relay.feed(b"[DONE]") == b""
    assert relay.done and relay.held == chunk(finish="stop") and relay.usage is not None and relay.usage.output == 3
    asked = ChatRelay(include_usage=True)
    asked.feed(chunk(finish="stop"))
    assert asked.feed(chunk(choices=False, usage=True)) == format_event(chunk(finish="stop"))
    assert asked.held == chunk(choices=False, usage=True)


def test_usage_inside_a_data_chunk_is_taken_out_for_a_client_that_did_not_ask() -> None:
    relay = ChatRelay(include_usage=False)
    relay.feed(chunk(finish="stop", usage=True))
    assert relay.held is not None and b"usage" not in relay.held and relay.usage is not None
    assert remove_usage(chunk("a")) == chunk("a")


@pytest.mark.parametrize(
    "came",
    [
        [chunk("a"), chunk(finish="stop", usage=True)],  # DeepSeek, Mistral, Together
        [chunk("a", usage=True), chunk(finish="stop", usage=True)],  # Gemini, in words of OpenAI's
        [chunk("a", usage=True), chunk(finish="stop"), chunk(choices=False, usage=True)],
        [chunk("a"), chunk(finish="stop", usage=True), chunk("b")],
    ],
)
@pytest.mark.parametrize("each", [False, True])
def test_usage_is_told_behind_the_answer_as_openai_does(came: list[bytes], each: bool) -> None:
    """OpenAI's client for Java takes a chunk with usage for the end, and lost the words in it."""
    options = {"include_usage": True, **({"continuous_usage_stats": True} if each else {})}
    relay = OpenAIChat().new_relay(chat_completions.read(chat(stream=True, stream_options=options)))
    out = b"".join(map(relay.feed, came)) + relay.closing_events(b'{"a":1}')
    *told, done = [line.removeprefix("data: ") for line in out.decode().split("\n\n") if line]
    found = [json.loads(data) for data in told]
    assert done == "[DONE]" and [one for one in found if "groundplan" in one] == found[-1:]
    if each:
        assert [{k: v for k, v in one.items() if k != "groundplan"} for one in found] == list(map(json.loads, came))
        return
    assert [bool(one["choices"]) for one in found] == [True] * (len(found) - 1) + [False]
    assert [one for one in found if one.get("usage")] == found[-1:] and found[-1]["usage"]["completion_tokens"] == 3


def test_chunks_of_several_copies_keep_their_order() -> None:
    relay = CopiesRelay(include_usage=False, copies=2)
    other = chunk("other").replace(b'"index": 0', b'"index": 1')
    assert relay.feed(other) == format_event(other) != format_event(chunk("other"))
    first = chunk(finish="stop")
    assert relay.feed(first) == b""
    assert relay.feed(other) == format_event(first) + format_event(other), "the other one goes on without a pause"
    one, late = ChatRelay(include_usage=False), chunk("late")
    assert one.feed(first) == b""
    assert one.feed(late) == format_event(first) and one.held == late, "the last one, whatever it has"


def test_tool_calls_count_as_output_and_pass_unchanged() -> None:
    relay = ChatRelay(include_usage=False)
    delta = b'{"content":null,"tool_calls":[{"index":0}]}'
    raw = b'{"choices":[{"index":0,"delta":%b,"finish_reason":null}],"usage":null}' % delta
    assert relay.feed(raw) == format_event(raw)
    assert relay.output_bytes == len(b'[{"index":0}]')


@pytest.mark.parametrize("data", [b"{", b'{"error":{"message":"x"}}', b"\xff", b"[]"])
def test_a_chunk_that_is_none_breaks_the_stream(data: bytes) -> None:
    with pytest.raises(Malformed):
        ChatRelay(include_usage=False).feed(data)


def test_files_that_many_messages_name_are_gathered_once() -> None:
    """Each is added to those before it: as copies of all of them they would take many seconds."""
    message = {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}, {"type": "text", "text": "x"}]}
    body = json.dumps({"model": "m", "messages": [message] * 60_000}).encode()
    began = time.thread_time()
    ask = chat_completions.read(body)
    assert ask.files == ("f",) and ask.query == " x" and ask.needs == {"file"}
    assert time.thread_time() - began < 4, "of computing, whatever else the machine does"


@pytest.mark.parametrize(
    ("part", "media", "wrong", "hint"),
    [
        (b'{"type":"image_url"}', True, "a part of type image_url has no image_url", "See the OpenAI API."),
        (b'{"type":"file"}', True, "a part of type file has no file", "See the OpenAI API."),
        (b'{"type":"file"}', False, "content of type file is not supported", "Send text and images."),
        (b'{"type":"odd"}', True, "content of type odd is not supported", "Send text, images, audio and files."),
    ],
)
def test_a_part_that_is_not_taken_is_told_from_one_that_lacks_its_content(
    part: bytes, media: bool, wrong: str, hint: str
) -> None:
    with pytest.raises(Invalid) as caught:
        message_parts(msgspec.Raw(b"[%b]" % part), media=media)
    assert (caught.value.message, caught.value.hint) == (wrong, hint)
