"""No body that two parsers could read differently gets past the gateway, and good ones are proven so by counting."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.core.errors import Invalid, WrongType
from groundplan.gateway.http import strict_json
from groundplan.gateway.http.request import Request
from groundplan.gateway.http.strict_json import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_STRINGS,
    check_complexity,
    check_duplicate_names,
)
from groundplan.gateway.surfaces import body as bodies
from groundplan.gateway.surfaces import completions, embeddings, images, moderations, rerank, speech
from groundplan.gateway.surfaces.body import DECISIVE_FIELDS, OTHER_INPUT_FIELDS, QUERY_CHARACTERS, UNBOUNDED_FIELDS
from groundplan.gateway.surfaces.chat import surface as chat
from groundplan.gateway.surfaces.chat.surface import ChatCompletions
from groundplan.gateway.surfaces.messages import request_types as message_types
from groundplan.gateway.surfaces.messages import surface as messages
from groundplan.gateway.surfaces.responses import request_types as response_types
from groundplan.gateway.surfaces.responses import surface as responses

NAMES = st.text(max_size=3)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.sampled_from(['a":', '":', '" :', "\n:"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)
SPACED = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : "), (",\n", "\t:\r\n")])


@given(JSON, SPACED, st.booleans())
def test_what_has_no_duplicates_passes_however_it_is_written(value: Any, separators: Any, ascii_only: bool) -> None:
    check_duplicate_names(json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode(), 0)


@given(st.dictionaries(NAMES, JSON, min_size=1, max_size=4), JSON, SPACED, st.data())
def test_a_name_that_is_there_twice_is_found_wherever_it_hides(
    value: dict[str, Any], other: Any, separators: Any, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    written = json.dumps(value, separators=separators, ensure_ascii=False)
    again = json.dumps({name: other}, separators=separators, ensure_ascii=data.draw(st.booleans()))
    if data.draw(st.booleans()):  # the same name, spelled by escapes
        spelled = "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in name)
        again = f'{{"{spelled}"{separators[1]}{json.dumps(other)}}}'
    doubled = f"{written[:-1]}{separators[0]}{again[1:]}"
    wrapped = data.draw(st.sampled_from(["%s", "[%s]", '{"m":[1,%s]}', '{"m" : %s, "n":"\\":"}'])) % doubled
    with pytest.raises(Invalid) as caught:
        check_duplicate_names(wrapped.encode(), data.draw(st.integers(0, 1)))
    assert caught.value.code == "duplicate_key"


@given(JSON, SPACED, st.sampled_from(["%s", '["\\\\\\"[", %s]', '{"\\\\":%s}']))
def test_brackets_are_those_that_stand_outside_of_strings(value: Any, separators: Any, around: str) -> None:
    written = around % json.dumps(value, separators=separators)
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", written)
    told = strict_json._brackets(written.encode())
    assert told == re.sub(r"[^\[\]]", "", outside.translate({ord("{"): "[", ord("}"): "]"})).encode()
    assert strict_json._brackets(written.encode() + b', "never ends[') == told


def test_a_large_body_with_code_in_it_is_proven_by_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent sends the JSON that its tools answered, within texts."""
    said = json.dumps({"rows": [{"name": "a", "size": 1}] * 300})
    sent = {"model": "m", "messages": [{"role": "user", "content": said}] * 3}
    monkeypatch.setattr(strict_json, "_decode", None)
    chat.read(json.dumps(sent, separators=(",", ":")).encode())
    twice = json.dumps(sent, separators=(",", ":"))[:-1] + ',"x":{"a\\\\":1,"a\\\\":2}}'
    monkeypatch.undo()
    with pytest.raises(Invalid, match="given twice"):
        chat.read(twice.encode())


CHATS = [
    b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}',
    b'{"model":"a","messages":[{"role":"user","content":"fine","content":"other"}]}',
    b'{"model":"a","messages":[{"role":"assistant"},{"role":"user","content":"fine","content":"other"}]}',
    b'{"model":"a","messages":[{"role":"user","content" :"fine","content":"other"}]}',
    b'{"model":"a","messages":[{"role":"user","content"\n:"fine","content":"other"}]}',
    b'{"model":"a","messages":[{"role":"user","c\\u006fntent":"fine","content":"other"}]}',
    b'{"model":"a","messages":[{"role":"user","content":[{"type":"text","text":"a","text":"b"}]}]}',
    b'{"model":"a","stream":true,"stream_options":{"include_usage":true,"include_usage":false},'
    b'"messages":[{"role":"user","content":"x"}]}',
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","type":"web_search"}]}',
]


@pytest.mark.parametrize("body", CHATS)
def test_duplicate_keys_in_a_chat_are_refused(body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        chat.read(body)
    assert caught.value.code == "duplicate_key"


SPELLINGS = [
    b'{"model":"a","MODEL":"b","messages":[{"role":"user","content":"x"}]}',
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"max_tokens":5,"Max_Tokens":5000}',
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"max_to\xe2\x84\xaaens":5000}',
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"me\\u017f\\u017fage\\u017f":[]}',
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"Max_Completion_Tokens":5000}',
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"N":16}',
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"Web_Search_Options":{}}',
    b'{"model":"a","messages":[{"role":"user","content":"fine","Content":"other"}]}',
    b'{"model":"a","messages":[{"role":"user","content":[{"type":"text","text":"a","Type":"image_url"}]}]}',
    b'{"model":"a","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","Type" : "web_search"}]}',
]


@pytest.mark.parametrize("body", SPELLINGS)
def test_a_name_in_other_letters_is_the_same_name(body: bytes) -> None:
    """To parsers of Go and .NET, which many upstreams are written in."""
    with pytest.raises(Invalid) as caught:
        chat.read(body)
    assert caught.value.code == "duplicate_key"


READ: dict[str, Callable[[bytes], Any]] = {
    "chat": chat.read,
    "responses": responses.read,
    "messages": lambda body: messages.read(body, {}),
    "rerank": lambda body: rerank.RERANK.read(Request(0.0, body=body)),
}
ADDRESS = {"url": "http://169.254.169.254/"}
TALK = {"messages": [{"role": "user", "content": "x"}]}
SAID = {"max_tokens": 5, **TALK}
EXTENDED = {"type": "ephemeral", "TTL": "1h"}
RESPELLED: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"messages": [{"role": "user", "Content": [{"type": "image_url", "image_url": ADDRESS}]}]}, "Content"),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "Video_URL": {}}]}]},
     "Video_URL"),
    ("chat", {"messages": [{"role": "assistant", "content": "x", "Tool_Calls": []}]}, "Tool_Calls"),
    ("chat", {**TALK, "tools": [{"type": "function", "function": {"name": "f"}, "Cache_Control": {}}]},
     "Cache_Control"),
    ("chat", {**TALK, "tools": [{"type": "function", "function": {"Name": "f"}}]}, "Name"),
    ("chat", {**TALK, "Functions": [{"name": "f"}]}, "Functions"),
    ("chat", {**TALK, "reasoning": {"Mode": "pro"}}, "Mode"),
    ("responses", {"input": [{"role": "user", "Content": "x"}]}, "Content"),
    ("responses", {"input": [{"role": "user", "content": [
        {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "File_URL": ADDRESS["url"]}]}]},
     "File_URL"),
    ("responses", {"input": "x", "tools": [{"type": "namespace", "name": "n", "Tools": [{"type": "mcp"}]}]}, "Tools"),
    ("messages", {"max_tokens": 5, "messages": [{"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t", "Content": [{"type": "image", "source": ADDRESS}]}]}]}, "Content"),
    ("messages", {"max_tokens": 5, "messages": [{"role": "user", "content": [
        {"type": "text", "text": "x", "cache_control": EXTENDED}]}]}, "TTL"),
    ("messages", {**SAID, "system": [{"type": "text", "text": "x", "cache_control": {"TTL": "1h"}}]}, "TTL"),
    ("messages", {**SAID, "tools": [{"Type": "web_search_20250305", "name": "web_search"}]}, "Type"),
    ("rerank", {"query": "q", "documents": ["a", {"Image": ADDRESS["url"]}]}, "Image"),
    ("rerank", {"query": "q", "documents": [{"text": "a", "Text": "b"}]}, "Text"),
]  # fmt: skip


@pytest.mark.parametrize("separators", [(",", ":"), (" , ", " : ")])
@pytest.mark.parametrize(("surface", "more", "name"), RESPELLED)
def test_a_name_that_is_read_of_a_message_or_a_tool_has_small_letters(
    surface: str, more: dict[str, Any], name: str, separators: tuple[str, str]
) -> None:
    """It passed unread here, and an upstream in Go read it: an address to fetch, a tool that runs at the provider, or a
    cache that is kept for an hour."""
    with pytest.raises(Invalid, match=repr(name)) as caught:
        READ[surface](json.dumps({"model": "a", **more}, separators=separators).encode())
    assert caught.value.code == "duplicate_key"


def test_arguments_and_schemas_have_names_in_any_letters() -> None:
    data = {"URL": "x", "Type": "y", "Content": {"Name": 1}}
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in data}}
    called = {"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps(data)}}
    offered = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    spoken = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [called]}]
    chat.read(json.dumps({"model": "a", "messages": spoken, "tools": offered, "metadata": data}).encode())
    used = [{"type": "tool_use", "id": "1", "name": "f", "input": data}]
    answered = [{"type": "tool_result", "tool_use_id": "1", "content": json.dumps(data)}]
    turns = [{"role": "assistant", "content": used}, {"role": "user", "content": answered}]
    tools = [{"name": "f", "input_schema": schema}]
    READ["messages"](json.dumps({"model": "a", "max_tokens": 5, "messages": turns, "tools": tools}).encode())


def test_every_name_that_is_read_below_the_top_is_known() -> None:
    for kind in (
        chat._Message, chat._Tool, chat._Function, bodies._Part, bodies._Image, bodies._Audio, bodies._File,
        bodies.CacheOptions, bodies.Reasoning, chat._StreamOptions, response_types.Item, response_types.Part,
        response_types.Tool, message_types.Message, message_types.Block, message_types.Source, message_types.Tool,
        message_types.ToolReference, message_types.CacheControl, message_types.ContextManagement, message_types.Edit,
    ):  # fmt: skip
        read = set(kind.__struct_fields__)
        assert read <= strict_json.ITEM_NAMES, read - strict_json.ITEM_NAMES
    assert strict_json.ITEM_FIELDS - {"item"} <= DECISIVE_FIELDS


def test_names_with_capital_letters_that_nobody_reads_pass() -> None:
    own = {"firstName": {"minLength": 1}, "ID": {}, "id": {}, "Name": {}, "name": {}}
    schema = {"type": "object", "properties": own, "additionalProperties": False}
    asked = {
        "model": "a",
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
        "enableThinking": True,
        "straße": 1,
    }
    assert chat.read(json.dumps(asked).encode()).fields.keys() == asked.keys()


def test_every_field_that_a_surface_reads_is_among_the_names_that_are_looked_for() -> None:
    for decoder in (
        chat._chat,
        completions._request_decoder,
        responses._request_decoder,
        messages._messages,
        embeddings._embeddings,
        images._images,
        moderations._moderation,
        rerank._rerank,
        speech._speech,
    ):
        read = set(decoder.type.__struct_fields__)
        assert read <= DECISIVE_FIELDS, read - DECISIVE_FIELDS
    for known in (strict_json._ORDINARY_NAMES, bodies._UNCHECKED_FIELDS):
        assert len({name.casefold() for name in known}) == len(known), "what needs no look has no name in two spellings"
    for refused in (
        chat._REFUSED_FIELDS,
        completions._REFUSED_FIELDS,
        responses._REFUSED_FIELDS,
        messages._REFUSED_FIELDS,
        images.REFUSED_FIELDS,
        OTHER_INPUT_FIELDS,
    ):
        assert refused <= DECISIVE_FIELDS, refused - DECISIVE_FIELDS


@pytest.mark.parametrize("name", sorted(UNBOUNDED_FIELDS))
@pytest.mark.parametrize(
    ("read", "more"),
    [
        (chat.read, {"messages": [{"role": "user", "content": "x"}]}),
        (completions.read, {"prompt": "x"}),
        (responses.read, {"input": "x"}),
        (lambda body: messages.read(body, {}), {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}),
    ],
)
def test_what_some_upstreams_take_for_the_cap_is_refused(
    name: str, read: Callable[[bytes], Any], more: dict[str, Any]
) -> None:
    """`n_predict` beside `max_tokens`, say: llama.cpp obeys the former."""
    read(json.dumps({"model": "a", name: None, **more}).encode())
    with pytest.raises(Invalid) as caught:
        read(json.dumps({"model": "a", name: 5000, **more}).encode())
    assert caught.value.code == "field_unsupported" and name in caught.value.message


CAPS = {"max_tokens", "max_completion_tokens", "max_output_tokens"}


@pytest.mark.parametrize(
    ("read", "more", "own"),
    [
        (chat.read, {"messages": [{"role": "user", "content": "x"}]}, {"max_tokens", "max_completion_tokens"}),
        (completions.read, {"prompt": "x"}, {"max_tokens"}),
        (responses.read, {"input": "x"}, {"max_output_tokens"}),
        (lambda body: messages.read(body, {}), {"messages": [{"role": "user", "content": "x"}]}, {"max_tokens"}),
    ],
)
def test_the_cap_of_another_surface_is_refused(
    read: Callable[[bytes], Any], more: dict[str, Any], own: set[str]
) -> None:
    """`max_completion_tokens` of an older completion, say, which some upstreams take before its `max_tokens`."""
    asked = {"model": "a", **more, **dict.fromkeys(own, 5)}
    read(json.dumps(asked).encode())
    for name in CAPS - own:
        with pytest.raises(Invalid) as caught:
            read(json.dumps({**asked, name: 5000}).encode())
        assert caught.value.code == "field_unsupported" and name in caught.value.message


def test_ordinary_bodies_are_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(_: bytes) -> Any:
        raise AssertionError("parsed again")

    monkeypatch.setattr(strict_json, "_decode", parsed)
    monkeypatch.setattr(strict_json, "_check_exactly", parsed)
    messages = [
        {"role": "system", "content": "Be: brief"},
        {"role": "user", "content": 'Say "a" : b, then c.'.replace(" :", "")},
        {"role": "assistant"},
    ]
    for more in (
        {},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"temperature": 0.2, "max_tokens": 5},
    ):
        for separators in ((",", ":"), (", ", ": ")):
            chat.read(json.dumps({"model": "a", "messages": messages, **more}, separators=separators).encode())
    embeddings.read(b'{"model":"a","input":["x","y"]}')


@pytest.mark.parametrize("depth", [1100, 100_000])
@pytest.mark.parametrize(("start", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused_wherever_it_is(depth: int, start: bytes, end: bytes) -> None:
    deep = start * depth + (b"1" if start != b"[" else b"") + end * depth
    for body in (
        b'{"model":"a","messages":[{"role":"user","content":"x"}],"metadata":' + deep + b"}",
        b'{"model":"a","messages":[{"role":"user","content":' + deep + b"}]}",
        b'{"model":"a","messages":' + deep + b"}",
        deep,
        start * depth,
    ):
        with pytest.raises(Invalid) as caught:
            chat.read(body)
        assert caught.value.code in ("body_not_json", "body_invalid", "content_unsupported")


@pytest.mark.parametrize("size", [0, 2_000, 5_000, 100_000, 200_000])
@pytest.mark.parametrize("text", [b"[[{{", b"word [", b"word "])
@pytest.mark.parametrize(("start", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_five_hundred_levels_are_read_and_one_more_is_not(start: bytes, end: bytes, text: bytes, size: int) -> None:
    """The body itself is the first; brackets in a text are none, however long it is."""

    def nested(levels: int) -> bytes:
        deep = start * (levels - 1) + b"1" + end * (levels - 1)
        said = text + b" " * (size // 2) + text * (size // 2 // len(text))
        return b'{"model":"a","messages":[{"role":"user","content":"' + said + b'"}],"metadata":' + deep + b"}"

    assert MAX_DEPTH == 500
    assert chat.read(nested(500)).model == "a"
    check_duplicate_names(nested(500), 0)
    with pytest.raises(Invalid) as caught:
        chat.read(nested(501))
    assert caught.value.code == "body_not_json" and "more than 500 levels" in caught.value.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"model":"a","messages":[{"role":"user","content":"x\\ud83d"}]}', "half of a surrogate pair"),
        (b'\xef\xbb\xbf{"model":"a","messages":[{"role":"user","content":"x"}]}', "byte order mark"),
    ],
)
def test_what_is_wrong_with_the_characters_of_a_body_is_named(body: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        chat.read(body)
    assert caught.value.code == "body_not_json"


@pytest.mark.parametrize("part", [b"[]", b"{}", b'{"a":0}', b'[{"a":"[[[["}]'])
def test_a_body_of_more_parts_than_can_be_looked_at_while_others_wait_is_refused(part: bytes) -> None:
    opened = part.count(b"[") - part.count(b"[[[[") * 4 + part.count(b"{")
    most = (MAX_CONTAINERS - 3) // opened  # the body itself, its messages and the list
    head = b'{"model":"a","messages":[],"metadata":['
    check_complexity(head + b",".join([part] * most) + b"]}")
    with pytest.raises(Invalid) as caught:
        check_complexity(head + b",".join([part] * (most + opened)) + b"]}")
    assert caught.value.code == "body_too_complex"


def test_a_body_of_more_names_and_texts_is_refused_and_quotes_in_a_text_are_none() -> None:
    check_complexity(b'["' + b'\\"' * (5 * MAX_STRINGS) + b'"]')
    check_complexity(b"[" + b",".join([b'"a"'] * MAX_STRINGS) + b"]")
    with pytest.raises(Invalid) as caught:
        check_complexity(b"[" + b",".join([b'"a"'] * (MAX_STRINGS + 1)) + b',"' + b" " * MAX_STRINGS + b'"]')
    assert caught.value.code == "body_too_complex"


@given(st.lists(st.sampled_from([b"[", b"]", b'"]["', b'"\\\\"', b'"\\"["', b"0"]), max_size=60), st.integers(480, 501))
def test_the_deepest_level_is_found_whatever_is_around_it(more: list[bytes], levels: int) -> None:
    """Not only where brackets are counted one by one."""
    depth, deepest = levels, levels
    for each in more:
        depth += {b"[": 1, b"]": -1}.get(each, 0)
        deepest = max(deepest, depth)
    for before in (b"", b"[]" * 300):
        body = before + b"[" * levels + b"".join(more)
        if deepest <= MAX_DEPTH:
            check_complexity(body)
            continue
        with pytest.raises(Invalid):
            check_complexity(body)


@pytest.mark.parametrize("end", [b"", b"\\"])
def test_a_text_that_never_ends_takes_no_longer_than_another(end: bytes) -> None:
    """Each escaped quote in it could begin one, too."""
    body = b'{"a":[' + b"[]," * 600 + b'"' + b'\\"' * 200_000 + end
    began = time.perf_counter()
    check_complexity(body)
    assert time.perf_counter() - began < 5
    with pytest.raises(Invalid, match="not JSON"):
        chat.read(body)


@pytest.mark.parametrize("size", [0, 5_000, 200_000])
def test_levels_are_counted_to_the_last_where_there_are_no_other_brackets(size: int) -> None:
    for levels in (500, 501):
        body = b"[" * levels + b'"' + b" " * size + b'"' + b"]" * levels
        if levels == 500:
            check_complexity(body)
            continue
        with pytest.raises(Invalid, match="more than 500 levels"):
            check_complexity(body)


@pytest.mark.parametrize(
    "given_type",
    [
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"application/jsonx",
        b"",
    ],
)
def test_a_body_of_another_type_is_refused_with_what_to_send(given_type: bytes) -> None:
    with pytest.raises(WrongType) as caught:
        ChatCompletions().check_content_type(given_type)
    assert caught.value.status == 415 and "application/json" in caught.value.hint


@pytest.mark.parametrize("given_type", [None, b"application/json", b"Application/JSON; charset=utf-8"])
def test_json_is_read(given_type: bytes | None) -> None:
    ChatCompletions().check_content_type(given_type)


@given(st.text(alphabet=st.sampled_from('ab \\"\n\u00e9\U0001f600'), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_the_beginning_of_a_long_question_is_what_it_begins_with(piece: str) -> None:
    text = piece * (40_000 // len(piece))
    for ascii_only in (True, False):
        raw = json.dumps(text, ensure_ascii=ascii_only)
        query = chat.read(f'{{"model":"a","messages":[{{"role":"user","content":{raw}}}]}}'.encode()).query
        assert len(query) >= min(len(text), QUERY_CHARACTERS) and text.startswith(query)


@pytest.mark.parametrize("space", ["", " ", "\n", " \t "])
@pytest.mark.parametrize("many", [10, 1000])
def test_large_bodies_hide_no_name_behind_space_and_cost_no_second_parse_for_colons_in_texts(
    space: str, many: int
) -> None:
    text = json.dumps("a: b " + 'say "x" and c : d, ' * many + "x" * 5000)
    good = f'{{"a"{space}:1,"b":{text}}}'.encode()
    strict_json.check_duplicate_names(good, 0 if space else 2)
    for twice in (f'{{"a"{space}:1,"b":{text},"a":2}}', f'{{"b":{text},"a":2,"a"{space}:1}}'):
        with pytest.raises(Invalid):
            strict_json.check_duplicate_names(twice.encode(), 2)


def test_many_brackets_beside_each_other_or_in_text_are_no_depth() -> None:
    for content in (b'"' + b"[{" * 2000 + b'"', b'"\\"' + b"[" * 2000 + b'"'):
        assert chat.read(b'{"model":"a","messages":[{"role":"user","content":' + content + b"}]}").messages == 1
    many = b",".join([b'{"role":"user","content":"x"}'] * 800)
    assert chat.read(b'{"model":"a","messages":[' + many + b"]}").messages == 800
