"""Upstreams that answer oddly, byte by byte: what is still an answer is given, what is none comes from elsewhere, and
every one is settled."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import Reply
from tests.integration.gateway_stack import parse_events as events_of
from tests.unit.call_rig import BOUND, Stream, call_rig, reliability, wait_until
from tests.unit.raw_upstream import (
    ANSWER,
    CHUNKED_STREAM_HEAD,
    DONE,
    END,
    HI,
    ROLE,
    STREAM_HEAD,
    THERE,
    check_complete_stream,
    chunk,
    completion_body,
    encode_events,
    json_response,
    nested_arrays,
    post,
    raw_upstream_rig,
)

from groundplan.blueprint.model import Guardrails, Keep, Rates, Reliability
from groundplan.core.money import PICO
from groundplan.gateway.call.attempts.resume import begin_continuation
from groundplan.gateway.call.model_versions import ModelVersions
from groundplan.gateway.http.errors import error_body
from groundplan.gateway.surfaces.chat.relay import ChatRelay
from groundplan.gateway.surfaces.chat.surface import read
from groundplan.gateway.surfaces.responses.to_chat import Translation
from groundplan.gateway.upstream.provider_refusals import actual_status, service_failure
from groundplan.ledger.model import Usage


@pytest.mark.parametrize("newline", [b"\r", b"\r\n", b"\n"])
@pytest.mark.parametrize("last", [True, False])
async def test_lines_that_end_with_cr(tmp_path: Path, newline: bytes, last: bool) -> None:
    """Also the last one, behind which nothing comes that would tell CR from CR LF."""
    sent = encode_events(*(ANSWER if last else ANSWER[:-1]), newline=newline)
    async with raw_upstream_rig(tmp_path, STREAM_HEAD, *(sent[at : at + 7] for at in range(0, len(sent), 7))) as rig:
        assert (await check_complete_stream(rig)).usage.output == 3


async def test_a_stream_that_begins_with_a_byte_order_mark(tmp_path: Path) -> None:
    first = chunk({"role": "assistant", "content": "Hi "})
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD, b"\xef\xbb", b"\xbf" + encode_events(first, THERE, END, DONE)
    ) as rig:
        await check_complete_stream(rig)


@pytest.mark.parametrize("guarded", [False, True])
async def test_a_whole_answer_that_begins_with_a_byte_order_mark(tmp_path: Path, guarded: bool) -> None:
    """A refusal, too; more than one mark is no JSON to anybody."""
    mark, workloads = b"\xef\xbb\xbf", {"assistant": LOOKED_AT} if guarded else None
    async with raw_upstream_rig(tmp_path, json_response(mark + completion_body()), workloads=workloads) as rig:
        reply = await rig.chat()
        assert reply.status == 200 and reply.body.startswith(b"{")
        assert reply.json["choices"][0]["message"]["content"] == "Hi there"
        (only,) = await rig.settlements()
        assert only.outcome == "ok"
        await rig.books()
    told = b'{"error":{"message":"temperature is above 2","type":"invalid_request_error","code":"out_of_range"}}'
    async with raw_upstream_rig(tmp_path / "refused", json_response(mark + told, b"400 Bad Request")) as rig:
        reply = await rig.chat()
        assert (reply.status, reply.code) == (400, "out_of_range")
    async with raw_upstream_rig(tmp_path / "twice", json_response(mark * 2 + completion_body())) as rig:
        assert (await rig.chat()).code == "upstream_failed"


async def test_events_without_data_are_none(tmp_path: Path) -> None:
    empty = b"data: \n\n"
    sent = (
        STREAM_HEAD,
        empty,
        encode_events(ROLE, HI),
        empty,
        b"event: ping\n\n" + empty + encode_events(THERE),
        encode_events(END, DONE),
    )
    async with raw_upstream_rig(tmp_path, *sent) as rig:
        await check_complete_stream(rig)


@pytest.mark.parametrize("odd", [b"{}", b'{"object":"error","message":"busy","code":503}', b'{"detail":"busy"}'])
async def test_an_event_that_is_no_chunk(tmp_path: Path, odd: bytes) -> None:
    """Beside an answer it is nothing; instead of one it is no reason to keep the client from another's."""
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD, encode_events(odd, ROLE, HI), encode_events(odd, THERE, END, odd, DONE)
    ) as rig:
        await check_complete_stream(rig)
    (tmp_path / "other").mkdir()
    async with raw_upstream_rig(tmp_path / "other", STREAM_HEAD, encode_events(odd, DONE), has_fallback=True) as rig:
        stream = await rig.stream()
        assert (stream.facts["deployment"], stream.finish, stream.done) == ("two", ["stop"], True)
        assert [each.outcome for each in await rig.settlements()] == ["failed", "ok"]


async def test_an_event_of_several_lines(tmp_path: Path) -> None:
    lines = json.dumps(json.loads(THERE), indent=1).encode().split(b"\n")
    several = b"id: 7\n" + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + encode_events(ROLE, HI) + several + encode_events(END, DONE)
    ) as rig:
        reply = await rig.chat(stream=True)
        assert reply.body.count(b"data: " + lines[0] + b"\ndata: " + lines[1]) == 1, "as it came, line by line"
        assert reply.body.endswith(b"data: [DONE]\n\n") and (await rig.settlements())[0].outcome == "ok"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_a_character_that_is_cut_in_halves(tmp_path: Path, path: str) -> None:
    """JSON may say each alone; who puts the texts together has it whole."""
    high, low = (chunk({"content": half}) for half in ("\ud83d", "\ude00"))
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + encode_events(ROLE, high, low, END, DONE)) as rig:
        asks: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9}
        if path == "/v1/responses":
            asks = {"input": "x", "max_output_tokens": 9}
        reply = await post(rig, path, {"model": "auto", "stream": True, **asks})
        assert reply.status == 200 and b'"error"' not in reply.body.replace(b'"error":null', b"")
        if path == "/v1/chat/completions":
            assert high in reply.body and low in reply.body
        assert (await rig.settlements())[0].outcome == "ok"


async def test_a_piece_that_is_made_of_parts(tmp_path: Path) -> None:
    """As reasoning models of some providers send them."""
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "what is asked?"}]}]
    parts = chunk({"content": thought})
    end = chunk({}, "stop")
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + encode_events(ROLE, parts, chunk({"content": "Hi there"}), end, DONE)
    ) as rig:
        reply = await rig.chat(stream=True)
        assert parts in reply.body and reply.body.endswith(b"data: [DONE]\n\n")
        (only,) = await rig.settlements()
        assert only.outcome == "ok" and only.usage.output == 20, "what is thought counts, up to the cap"


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "what is asked?"}], "closed": True}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/completions"])
async def test_the_text_of_parts_is_told_where_a_chat_answers_another_api(
    tmp_path: Path, path: str, stream: bool
) -> None:
    """What was thought is counted, and told nowhere, as under its other names."""
    content = [THOUGHT, {"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
    body: dict[str, Any] = {"model": "auto", "stream": stream, "max_tokens": 20, "prompt": "x"}
    if path == "/v1/messages":
        body |= {"messages": [{"role": "user", "content": "x"}], "prompt": None}
    if path == "/v1/responses":
        body = {"model": "auto", "stream": stream, "max_output_tokens": 20, "input": "x"}
    body = {name: value for name, value in body.items() if value is not None}
    pieces = [chunk({"content": [part]}) for part in content[:2]]
    sent = STREAM_HEAD + encode_events(ROLE, *pieces, chunk({"content": "there"}), END, DONE)
    if not stream:
        message = {"role": "assistant", "content": content}
        sent = json_response(completion_body(choices=[{"index": 0, "message": message, "finish_reason": "stop"}]))
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, path, body)
        assert reply.status == 200 and b"what is asked" not in reply.body
        told = [json.loads(line[6:]) for line in reply.body.split(b"\n") if line.startswith(b"data: {")]
        assert "".join(_told(each) for each in told or [reply.json]) == "Hi there"
        assert (await rig.settlements())[0].outcome == "ok"


def _told(event: dict[str, Any]) -> str:
    """The text in a piece of a stream, or in a whole answer, of Messages, Responses or Completions."""
    if event.get("type", "").endswith("output_text.delta"):
        return str(event["delta"])
    if event.get("type") == "content_block_delta":
        return str(event["delta"]["text"])
    texts = [choice["text"] for choice in event.get("choices", ())]
    if event.get("object") == "response" or event.get("type") == "message":
        output = event.get("output") or [event]
        texts += [part["text"] for item in output for part in item.get("content", ())]
    return "".join(texts)


async def test_what_a_model_thought_may_be_sent_back(tmp_path: Path) -> None:
    """Of the answer that it was a part of; nobody else says what he thought."""
    async with raw_upstream_rig(tmp_path, json_response(completion_body())) as rig:
        earlier = {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "Hi"}]}
        asks = [{"role": "user", "content": "x"}, earlier, {"role": "user", "content": "y"}]
        assert (await rig.chat(messages=asks)).status == 200
        refused = await rig.chat(messages=[{"role": "user", "content": [THOUGHT]}])
        assert (refused.status, refused.code) == (400, "content_unsupported")


def piece(index: int, id: str | None, arguments: str | None, name: str | None = "look") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    call = {"index": index, "id": id, "type": "function", "function": function}
    return {key: value for key, value in call.items() if value is not None}


SAME = (
    [piece(0, "c1", '{"a":')], [piece(0, None, "1}", None)], [piece(0, "c2", '{"b":')], [piece(0, "c2", "2}")],
    [piece(0, "c3", "{}")],
)  # fmt: skip
"""As some servers number every call, also where the pieces of one come apart."""
MIXED = (
    [piece(0, "c1", ""), piece(1, "c2", "")], [piece(1, None, '{"b"', None), piece(0, None, '{"a":', None)],
    [piece(0, None, "1}", None)], [piece(2, "c3", None), piece(1, None, ":2}", None)], [piece(2, None, "{}", None)],
)  # fmt: skip
"""As others tell several calls at the same time."""
EMPTY = ([piece(0, "c1", '{"a":1}')], [piece(1, "c2", '{"b":2}'), piece(2, "c3", "")], [piece(2, None, "{}", None)])


@pytest.mark.parametrize("sent", [SAME, MIXED, EMPTY])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_calls_that_bear_the_same_number(
    tmp_path: Path, path: str, sent: tuple[list[dict[str, Any]], ...]
) -> None:
    """Or whose pieces are mixed: each is told by itself, whole and in order."""
    chunks = [chunk({"tool_calls": pieces}) for pieces in sent]
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + encode_events(ROLE, *chunks, chunk({}, "tool_calls"), DONE)
    ) as rig:
        body: dict[str, Any] = {"model": "auto", "stream": True, "max_output_tokens": 20, "input": "x"}
        if path == "/v1/messages":
            asks = [{"role": "user", "content": "x"}]
            body = {"model": "auto", "stream": True, "max_tokens": 20, "messages": asks}
        reply = await post(rig, path, body)
        told = [json.loads(line[6:]) for line in reply.body.split(b"\n") if line.startswith(b"data: ")]
        assert calls_in(told) == [("c1", '{"a":1}'), ("c2", '{"b":2}'), ("c3", "{}")]
        (only,) = await rig.settlements()
        assert only.outcome == "ok"


def calls_in(told: list[Any]) -> list[tuple[str, str]]:
    """(id, arguments) of the functions that a stream of Responses or Messages calls."""
    if "response" in told[-1]:
        output = told[-1]["response"]["output"]
        return [(item["call_id"], item["arguments"]) for item in output if item["type"] == "function_call"]
    found = []
    for begun in (each for each in told if each["type"] == "content_block_start"):
        pieces = [each for each in told if each["type"] == "content_block_delta" and each["index"] == begun["index"]]
        text = "".join(each["delta"]["partial_json"] for each in pieces)
        found.append((begun["content_block"]["id"], text))
    return found


def test_pictures_that_functions_give_are_shown_behind_their_results_in_chat() -> None:
    """As Codex looks at a file, and OpenAI's agents and LangChain give what a tool has drawn."""
    image, pdf = "data:image/png;base64,AAAA", "data:application/pdf;base64,AAAA"
    drawn = [
        {"type": "input_text", "text": "Here"}, {"type": "input_image", "image_url": image, "detail": "high"},
        {"type": "input_file", "filename": "a.pdf", "file_data": pdf},
    ]  # fmt: skip
    outputs = [{"type": "function_call_output", "call_id": f"c{n}", "output": o} for n, o in enumerate((drawn, "two"))]
    calls = [{"type": "function_call", "call_id": f"c{n}", "name": "look", "arguments": "{}"} for n in (0, 1)]
    for rest in ([], [{"role": "assistant", "content": "Hm."}]):
        made = Translation(json.dumps({"model": "auto", "input": [*calls, *outputs, *rest]}).encode())
        assert made.messages[1:4] == [
            {"role": "tool", "tool_call_id": "c0", "content": "Here\nThe image is below.\nThe file is below."},
            {"role": "tool", "tool_call_id": "c1", "content": "two"},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": image, "detail": "high"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": pdf}},
            ]},
        ] and len(made.messages) == 4 + len(rest)  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_functions_of_a_group_have_its_name_in_chat(tmp_path: Path, stream: bool) -> None:
    """Codex has those by which it asks other agents in one. Who asked is told both names, as he said them."""
    look = {"type": "function", "name": "look", "description": "Look", "parameters": {"type": "object"}}
    group = {"type": "namespace", "name": "files", "description": "Of files", "tools": [look, {**look, "name": "list"}]}
    item = {"type": "function_call", "call_id": "c0", "name": "look", "namespace": "files", "arguments": "{}"}
    said = [item, {"type": "function_call_output", "call_id": "c0", "output": "one"}]
    body = {"model": "auto", "input": said, "stream": stream, "tools": [look, group]}
    made = Translation(json.dumps(body).encode())
    told = [(each["function"]["name"], each["function"]["description"]) for each in made.fields["tools"]]
    assert told == [("look", "Look"), ("files__look", "Of files\n\nLook"), ("files__list", "Look")]
    assert made.messages[0]["tool_calls"][0]["function"]["name"] == "files__look"
    calls = [piece(0, "c1", "{}", "files__look"), piece(1, "c2", "{}", "look"), piece(2, "c3", "{}", "files__list")]
    sent = STREAM_HEAD + encode_events(ROLE, chunk({"tool_calls": calls}), chunk({}, "tool_calls"), DONE)
    if not stream:
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        sent = json_response(completion_body(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}]))
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, "/v1/responses", body)
        answer = reply.json if not stream else json.loads(reply.body.split(b"data: ")[-1])["response"]
        names = [(each.get("namespace"), each["name"]) for each in answer["output"]]
        assert names == [("files", "look"), (None, "look"), ("files", "list")]
        assert answer["tools"][1] == group


@pytest.mark.parametrize("arguments", ["", None, "absent", "{}"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_with_nothing(tmp_path: Path, arguments: str | None, stream: bool) -> None:
    """Whoever reads what a function is called with reads JSON."""
    function = {"name": "look"} | ({} if arguments == "absent" else {"arguments": arguments})
    call = {"index": 0, "id": "c1", "type": "function", "function": function}
    sent = STREAM_HEAD + encode_events(ROLE, chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), DONE)
    if not stream:
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        sent = json_response(completion_body(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}]))
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, "/v1/responses", {"model": "auto", "input": "x", "stream": stream})
        answer = reply.json if not stream else json.loads(reply.body.split(b"data: ")[-1])["response"]
        (item,) = answer["output"]
        assert (item["type"], item["call_id"], item["arguments"]) == ("function_call", "c1", "{}")
        assert (await rig.settlements())[0].outcome == "ok"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("stream", [False, True])
async def test_ids_of_calls_that_are_numbers_are_text(tmp_path: Path, path: str, stream: bool) -> None:
    """What the function is called with stays as it came, also where that is no text."""
    given = {"id": 7, "tool_calls": [{"id": 8}]}
    called = [
        {"index": at, "id": id, "type": "function", "function": {"name": "look", "arguments": arguments}}
        for at, (id, arguments) in enumerate([(0, json.dumps(given)), (12345678901234567890, given), ("c", "{}")])
    ]
    sent = STREAM_HEAD + encode_events(ROLE, chunk({"tool_calls": called}), chunk({}, "tool_calls"), DONE)
    if not stream:
        message = {"role": "assistant", "content": '"id": 5', "tool_calls": called}
        sent = json_response(completion_body(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}]))
    asked: dict[str, Any] = {"model": "auto", "stream": stream, "max_output_tokens": 20, "input": "x"}
    if path != "/v1/responses":
        asked = {"model": "auto", "stream": stream, "max_tokens": 20, "messages": [{"role": "user", "content": "x"}]}
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, path, asked)
        events = events_of(reply.body) if stream else [reply.json]
        found = [(each.get("call_id") or each["id"], each) for event in events for each in calls_of(event)]
        assert [id for id, _ in found] == ["0", "12345678901234567890", "c"]
        if path == "/v1/chat/completions":
            assert [each["function"] for _, each in found] == [each["function"] for each in called]
        assert (await rig.settlements())[0].outcome == "ok"


def calls_of(event: Any) -> list[dict[str, Any]]:
    """The beginnings of tool calls in an answer or event of any API."""
    if not isinstance(event, dict):
        return []
    told = [choice.get("message") or choice.get("delta") or {} for choice in event.get("choices", ())]
    found = [call for each in told for call in each.get("tool_calls") or ()]
    items = [*event.get("output", ()), *(event.get("content") or ()), event.get("item"), event.get("content_block")]
    began = event.get("type", "").endswith((".added", "_start")) or event.get("object") or event.get("role")
    kinds = ("function_call", "tool_use")
    return found + [each for each in items if began and isinstance(each, dict) and each.get("type") in kinds]


async def test_what_follows_the_end_is_no_part_of_it(tmp_path: Path) -> None:
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + encode_events(*ANSWER) + b"data: {torn\n\n" + encode_events(HI)
    ) as rig:
        await check_complete_stream(rig)


LATE = {**json.loads(ROLE), "choices": [{"index": 0, "delta": {}, "finish_reason": None, "content_filter_offsets": {}}]}
"""Azure says what its filter found behind the end of the text."""


@pytest.mark.parametrize("on_broken_stream", ["fail", "resume"])
async def test_a_cut_behind_the_finish_reason_is_no_break(tmp_path: Path, on_broken_stream: str) -> None:
    """Nobody is asked to go on with an answer that has its end."""
    sent, workloads = encode_events(*ANSWER[:-1]), {"assistant": reliability(on_broken_stream=on_broken_stream)}
    cut = CHUNKED_STREAM_HEAD + b"%x\r\n%b\r\n" % (len(sent), sent)
    async with raw_upstream_rig(tmp_path, cut, has_fallback=True, workloads=workloads) as rig:
        assert (await check_complete_stream(rig)).usage.output == 3


async def test_a_cut_behind_the_finish_reason_costs_what_was_told_also_where_nobody_listens(tmp_path: Path) -> None:
    begun, pause, ended = (
        b"%x\r\n%b\r\n" % (len(sent), sent)
        for sent in (encode_events(ROLE, HI), b": wait\n\n", encode_events(THERE, END))
    )
    more = {"one": {"billing_on_cancel": "drain"}}
    async with raw_upstream_rig(tmp_path, CHUNKED_STREAM_HEAD, begun, *[pause] * 50, ended, more=more) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request(stream=True))
        await reader.readuntil(b"Hi ")
        writer.transport.abort()
        await wait_until(lambda: rig.gateway.running_calls == 0 and not rig.gateway.background)
        (only,) = await rig.settlements()
        assert (only.outcome, only.estimated, only.usage.output) == ("cancelled", False, 3)
        await rig.books()


async def test_a_piece_behind_the_finish_reason_has_the_facts(tmp_path: Path) -> None:
    sent = encode_events(ROLE, HI, THERE, chunk({}, "stop"), json.dumps(LATE).encode(), DONE)
    async with raw_upstream_rig(tmp_path, STREAM_HEAD, sent) as rig:
        stream = await rig.stream()
        assert stream.chunks[-1]["choices"] == LATE["choices"] and stream.facts["deployment"] == "one"


PROMPT = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": []}
"""What Azure says before all else, as soon as it has looked at the prompt."""


async def test_what_is_told_of_the_prompt_is_no_first_byte(tmp_path: Path) -> None:
    early = json.dumps(PROMPT).encode()
    async with raw_upstream_rig(tmp_path, STREAM_HEAD, encode_events(early), has_fallback=True) as rig:
        stream = await rig.stream()
        assert (stream.facts["deployment"], stream.finish, stream.errors) == ("two", ["stop"], [])
    (tmp_path / "good").mkdir()
    async with raw_upstream_rig(tmp_path / "good", STREAM_HEAD, encode_events(early), encode_events(*ANSWER)) as rig:
        rig.gateway.model_versions = reported = ModelVersions("")
        reply = await rig.chat(stream=True)
        assert reply.body.startswith(encode_events(early, ROLE, HI))
        assert [version[2] for version in reported.waiting] == ["m"], "the first event names none"
        body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "max_tokens": 9, "stream": True}
    (tmp_path / "messages").mkdir()
    async with raw_upstream_rig(
        tmp_path / "messages", STREAM_HEAD, encode_events(early), encode_events(*ANSWER)
    ) as rig:
        reply = await post(rig, "/v1/messages", body)
        assert b'"id":"msg_c"' in reply.body and b'"model":"m"' in reply.body


def test_also_where_a_stream_goes_on() -> None:
    asks = b'{"model": "auto", "messages": [{"role": "user", "content": "a"}], "stream": true}'
    story = begin_continuation(read(asks))
    first = story.relay(ChatRelay(include_usage=False))
    for data in (json.dumps(PROMPT).encode(), ROLE, HI):
        first.feed(data)
    story.record_broken(first, Usage())
    second = story.relay(ChatRelay(include_usage=False))
    told = [second.feed(data) for data in (ROLE, THERE, chunk({}, "stop"), json.dumps(LATE).encode(), DONE)]
    end = events_of(second.closing_events(b'{"cost":1}'))
    assert events_of(b"".join(told))[-1]["choices"][0]["finish_reason"] == "stop"
    assert events_of(b"".join(told))[-1]["id"] == "c", "of the chunks that had text"
    assert end == [{**LATE, "groundplan": {"cost": 1}}, "[DONE]"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_choices_that_are_null_are_none(tmp_path: Path, path: str) -> None:
    """As servers written in Go tell the usage. OpenAI's clients go through the list."""
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    ended = json.dumps({**json.loads(ROLE), "choices": None, "usage": usage}).encode()
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD, encode_events(ROLE, HI, THERE, chunk({}, "stop"), ended, DONE)
    ) as rig:
        body: dict[str, Any] = {
            "model": "auto",
            "max_tokens": 9,
            "stream": True,
            "messages": [{"role": "user", "content": "a"}],
        }
        if path == "/v1/responses":
            body = {"model": "auto", "input": "a", "stream": True}
        body |= {"stream_options": {"include_usage": True}} if "chat" in path else {}
        reply = await post(rig, path, body)
        assert reply.status == 200 and b"error" not in reply.body.replace(b'"error":null', b"")
        if "chat" in path:
            assert events_of(reply.body)[-2] | {"groundplan": 0} == {
                **json.loads(ROLE), "choices": [], "usage": usage, "groundplan": 0
            }  # fmt: skip
        (only,) = await rig.settlements()
        assert (only.outcome, only.usage.output, only.estimated) == ("ok", 3, False)


DATABRICKS = {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm "}]}]}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/completions"])
@pytest.mark.parametrize("delta", [{"reasoning_content": "hm "}, DATABRICKS], ids=["DeepSeek", "Databricks"])
async def test_what_is_reasoned_and_not_told_is_no_stall(tmp_path: Path, path: str, delta: dict[str, Any]) -> None:
    """A model of a chat says that it is at work, where its client's API has no word for it."""
    thought = encode_events(chunk(delta))
    asks: dict[str, Any] = {
        "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "a"}]},
        "/v1/responses": {"input": "a"},
        "/v1/completions": {"prompt": "a"},
    }
    more = {"one": {"idle_ms": 200, "first_token_ms": 300}}
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + encode_events(ROLE), *[thought] * 200, encode_events(HI, THERE, END, DONE), more=more
    ) as rig:
        reply = await post(rig, path, {"model": "auto", "stream": True, **asks[path]})
        assert b"stream_broken" not in reply.body and b"Hi " in reply.body, reply.body
        assert b"answer.reasoning" in reply.body
        (only,) = await rig.settlements()
        assert only.outcome == "ok"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_a_stream_that_has_only_begun_has_the_time_of_a_first_token(tmp_path: Path, path: str) -> None:
    """Many tell at once that they have begun, and think for long before the first word."""
    messages = {"messages": [{"role": "user", "content": "a"}]}
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    response = {"id": "r", "object": "response", "status": "completed", "model": "m", "output": [], "usage": usage}
    asks: dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]] = {
        "/v1/chat/completions": (messages, [json.loads(ROLE)], [json.loads(HI), json.loads(END)], {}),
        "/v1/responses": (
            {"input": "a"},
            [{"type": "response.created", "response": response | {"status": "in_progress"}}],
            [{"type": "response.output_text.delta", "delta": "Hi "},
             {"type": "response.completed", "response": response}],
            {"serves": ["responses"]},
        ),
        "/v1/messages": (
            messages | {"max_tokens": 9},
            [{"type": "message_start", "message": message}],
            [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi "}},
             {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
             {"type": "message_stop"}],
            {"api": "anthropic"},
        ),
    }  # fmt: skip
    body, begin, rest, more = asks[path]
    begun, said = (encode_events(*(json.dumps(each).encode() for each in told)) for told in (begin, rest))
    more = {"one": {"idle_ms": 60, "first_token_ms": 5000, **more}}
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + begun, *[b""] * 60, said, more=more) as rig:
        reply = await post(rig, path, {"model": "auto", "stream": True, **body})
        assert b"stream_broken" not in reply.body and b"Hi " in reply.body, reply.body
        (only,) = await rig.settlements()
        assert only.outcome == "ok"


async def test_pings_of_messages_keep_a_stream_open(tmp_path: Path) -> None:
    """Anthropic's models may think for long and tell nothing of it but these."""
    message: dict[str, Any] = {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 1},
    }  # fmt: skip
    begin, ping, end = (
        encode_events(*(json.dumps(each).encode() for each in told))
        for told in (
            ({"type": "message_start", "message": message}, {"type": "content_block_start", "content_block": {}}),
            ({"type": "ping"},),
            ({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
             {"type": "message_stop"}),
        )
    )  # fmt: skip
    more = {"one": {"api": "anthropic", "idle_ms": 200}}
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + begin, *[ping] * 150, end, more=more) as rig:
        body = {"model": "auto", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "a"}]}
        reply = await post(rig, "/v1/messages", body)
        assert reply.body.count(b"event: ping") == 150 and b"event: message_stop" in reply.body


@pytest.mark.parametrize("coding", [b"none", b"Identity"])
async def test_what_is_said_not_to_be_compressed_is_not(tmp_path: Path, coding: bytes) -> None:
    head = STREAM_HEAD[:-2] + b"content-encoding: " + coding + b"\r\n\r\n"
    async with raw_upstream_rig(tmp_path, head, encode_events(*ANSWER)) as rig:
        await check_complete_stream(rig)


async def test_trailers_change_nothing_of_the_head(tmp_path: Path) -> None:
    sent = encode_events(*ANSWER)
    end = b"\r\n0\r\ncontent-type: text/html\r\nretry-after: 9\r\n\r\n"
    async with raw_upstream_rig(tmp_path, CHUNKED_STREAM_HEAD + b"%x\r\n" % len(sent) + sent + end) as rig:
        await check_complete_stream(rig)


async def test_any_number_of_heads_before_the_answer(tmp_path: Path) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\ncontent-type: text/html\r\n\r\n"
    async with raw_upstream_rig(tmp_path, early, STREAM_HEAD, encode_events(*ANSWER)) as rig:
        await check_complete_stream(rig)


@pytest.mark.parametrize(
    ("path", "odd"),
    [
        ("/v1/responses", [{"type": "response.created"}, {"type": "response.content_part.added"}]),
        ("/v1/responses", [{"type": "response.output_text.delta", "delta": "Hi "}]),
        (
            "/v1/responses",
            [{"type": "response.created", "response": {"id": "r"}}, {"type": "response.output_item.added"}],
        ),
        ("/v1/messages", [{"type": "message_start"}, {"type": "content_block_stop", "index": 0}]),
        ("/v1/messages", [{"type": "message_start", "message": {}}, {"type": "content_block_start", "index": []}]),
    ],
)
async def test_an_event_that_cannot_be_remembered(tmp_path: Path, path: str, odd: list[dict[str, Any]]) -> None:
    """It reaches the client as it came; should the stream break, nobody can go on with it, and the client is told."""
    sent = STREAM_HEAD + encode_events(*(json.dumps(each).encode() for each in odd))
    native = {"api": "anthropic"} if path == "/v1/messages" else {"serves": ["responses"]}
    asks: dict[str, Any] = {"model": "auto", "stream": True, "input": "x"}
    if path == "/v1/messages":
        asks = {"model": "auto", "stream": True, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    rules = {"assistant": reliability(on_broken_stream="resume")}
    async with raw_upstream_rig(tmp_path, sent, has_fallback=True, workloads=rules, more={"one": native}) as rig:
        reply = await post(rig, path, asks)
        last = events_of(reply.body)[-1]
        told = last.get("error", last)
        assert last["type"] == "error" and "not what its API promises" in told["message"]
        assert reply.body.count(json.dumps(odd[-1]["type"]).encode()) == 1
        await rig.books()


# what was not finished -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("reason", ["error", "abort", "network_error", "insufficient_system_resource"])
async def test_an_answer_that_was_not_finished(tmp_path: Path, path: str, reason: str) -> None:
    """Also one of which its upstream says so in no error, but as if it were how a model ends: OpenRouter, Mistral, vLLM
    as it is shut down, Z.ai, DeepSeek."""
    asks: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9}
    if path == "/v1/responses":
        asks = {"input": "x", "max_output_tokens": 9}
    if path == "/v1/completions":
        asks = {"prompt": "x", "max_tokens": 9}
    half = json.loads(completion_body())
    half["choices"][0]["finish_reason"] = reason
    cases = {
        "whole": (json_response(json.dumps(half).encode()),),
        "before": (STREAM_HEAD, encode_events(chunk({}, reason), DONE)),
        "within": (STREAM_HEAD, encode_events(ROLE, HI), encode_events(chunk({}, reason), DONE)),
    }
    for name, pieces in cases.items():
        (tmp_path / name).mkdir()
        async with raw_upstream_rig(tmp_path / name, *pieces, has_fallback=True) as rig:
            reply = await post(rig, path, {"model": "auto", "stream": name != "whole", **asks})
            outcomes = [each.outcome for each in await rig.settlements()]
            assert reply.status == 200 and outcomes == ["failed", "ok"][: 1 if name == "within" else 2]
            if name == "within":
                assert b"did not finish its answer" in reply.body
            else:
                assert reply.headers["groundplan-deployment"] == "two"
            await rig.books()


# copies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [True, False])
async def test_one_copy_of_several_that_does_not_end(tmp_path: Path, done: bool) -> None:
    sent = encode_events(ROLE, HI, chunk({"content": "Ho"}, index=1), chunk({}, "stop"), *([DONE] if done else []))
    async with raw_upstream_rig(tmp_path, STREAM_HEAD, sent) as rig:
        stream = await rig.stream(n=2)
        assert not stream.done and "ended early" in stream.errors[0]["message"]
        (only,) = await rig.settlements()
        assert only.outcome == "failed" and 0 < only.cost <= 2 * BOUND
        await rig.books()


async def test_an_upstream_that_makes_fewer_copies_than_asked(tmp_path: Path) -> None:
    late = chunk({}, None)  # some send an empty piece behind the end
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD, encode_events(ROLE, HI, THERE, chunk({}, "stop"), late, DONE)
    ) as rig:
        await check_complete_stream(rig, n=2)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("done", [True, False])
async def test_an_upstream_that_makes_fewer_texts_than_asked(tmp_path: Path, native: bool, done: bool) -> None:
    """The older completions, by its own or by its chat."""
    texts = [{"index": 0, "text": "Hi ", "finish_reason": None}, {"index": 0, "text": "there", "finish_reason": "stop"}]
    own = [json.dumps({"id": "c", "object": "text_completion", "choices": [each]}).encode() for each in texts]
    chat = [ROLE, HI, THERE, chunk({}, "stop")]
    sent = encode_events(*(own if native else chat), *([DONE] if done else []))
    serves = {"one": {"serves": ["completions"]}} if native else {}
    async with raw_upstream_rig(tmp_path, STREAM_HEAD, sent, more=serves) as rig:
        reply = await post(rig, "/v1/completions", {"model": "auto", "prompt": "x", "n": 2, "stream": True})
        *_, last = events_of(reply.body)
        if done:
            assert last == "[DONE]" and b'"groundplan":' in reply.body
        else:
            assert last["error"]["code"] == "stream_broken"
        assert (await rig.settlements())[0].outcome == ("ok" if done else "failed")


async def test_a_copy_that_had_not_begun_when_the_stream_was_cut(tmp_path: Path) -> None:
    """One after the other, as some servers make them; nothing says that the first one was all."""
    async with raw_upstream_rig(tmp_path, STREAM_HEAD, encode_events(ROLE, HI, THERE, chunk({}, "stop"))) as rig:
        stream = await rig.stream(n=2)
        assert not stream.done and "ended early" in stream.errors[0]["message"]
        assert (await rig.settlements())[0].outcome == "failed"


async def test_the_end_of_a_response_without_a_response(tmp_path: Path) -> None:
    begun = b'{"type":"response.created","response":{"id":"r","object":"response"}}'
    native = {"one": {"serves": ["responses"]}}
    full = {"assistant": {"keep": Keep(content="full", seconds=60)}}
    sent = STREAM_HEAD + encode_events(begun, b'{"type":"response.completed"}')
    async with raw_upstream_rig(tmp_path, sent, more=native, workloads=full) as rig:
        reply = await post(rig, "/v1/responses", {"model": "auto", "input": "x", "stream": True})
        assert (reply.status, reply.code) == (503, "upstream_failed"), "nobody has anything of it yet"
        assert (await rig.settlements())[0].outcome == "failed"


# whole answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("finish", "status"), [("length", 200), ("content_filter", 200), ("tool_calls", 503)])
async def test_a_call_in_which_an_answer_was_cut_off_is_no_failure(tmp_path: Path, finish: str, status: int) -> None:
    """Messages have arguments as values: half of them cannot be told, and nobody else would be cut off later."""
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": text}}
        for n, text in enumerate(('{"a": 1}', '{"a": '))
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi", "tool_calls": calls},
        "finish_reason": finish,
    }
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
    async with raw_upstream_rig(tmp_path, json_response(completion_body(choices=[choice], usage=usage))) as rig:
        body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}
        reply = await post(rig, "/v1/messages", body)
        assert reply.status == status
        if status == 200:
            assert [block["type"] for block in reply.json["content"]] == ["text", "tool_use"]
            assert reply.json["content"][1]["input"] == {"a": 1}
            assert reply.json["stop_reason"] == {"length": "max_tokens"}.get(finish, "refusal")
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("finish", "arguments", "told"),
    [
        ("length", '{"a": ', "incomplete"), ("content_filter", '{"a": ', "incomplete"), ("length", "", "completed"),
        ("length", '{"a": 1}', "completed"), ("tool_calls", '{"a": 1}', "completed"),
    ],
)  # fmt: skip
async def test_a_call_that_was_cut_off_is_told_as_incomplete(
    tmp_path: Path, finish: str, arguments: str, told: str, stream: bool
) -> None:
    """A response tells what came of it; whoever goes by its status calls nothing with half of the arguments."""
    calls = [
        {"index": n, "id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": text}}
        for n, text in enumerate(('{"b": 2}', arguments))
    ]
    delta = {"role": "assistant", "content": "Hi", "tool_calls": calls}
    sent = json_response(completion_body(choices=[{"index": 0, "message": delta, "finish_reason": finish}]))
    if stream:
        sent = STREAM_HEAD + encode_events(ROLE, chunk(delta), chunk({}, finish), DONE)
    async with raw_upstream_rig(tmp_path, sent) as rig:
        asks = {"model": "auto", "input": "x", "max_output_tokens": 9, "stream": stream}
        reply = await post(rig, "/v1/responses", asks)
        lines = [line[6:] for line in reply.body.split(b"\n") if line.startswith(b"data: ")]
        response = json.loads(lines[-1])["response"] if stream else reply.json
        statuses = [(item["type"], item["status"]) for item in response["output"]]
        assert statuses == [("message", "completed"), ("function_call", "completed"), ("function_call", told)]


DEEP = nested_arrays(100_000)
LOOKED_AT = {"guardrails": Guardrails(output={"secrets": "block"}, budget_ms=10_000)}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("deep", "rules"), [(DEEP, {}), (nested_arrays(3000), LOOKED_AT)])
async def test_an_answer_that_is_nested_too_deep_comes_from_elsewhere(
    tmp_path: Path, stream: bool, deep: bytes, rules: dict[str, Any]
) -> None:
    """Where it is looked at, every level costs a step of the interpreter."""
    sent = json_response(completion_body()[:-1] + b',"x":' + deep + b"}")
    if stream:
        sent = STREAM_HEAD + encode_events(ROLE[:-1] + b',"x":' + deep + b"}")
    async with raw_upstream_rig(tmp_path, sent, has_fallback=True, workloads={"assistant": rules}) as rig:
        rig.gateway.model_versions = ModelVersions("")  # which looks at what came, too
        reply = await rig.chat(stream=stream)
        assert reply.status == 200 and deployment_of(reply, stream) == "two"
        assert [each.outcome for each in await rig.settlements()] == ["failed", "ok"]
        await rig.books()


def deployment_of(reply: Reply, stream: bool) -> str:
    facts = Stream(reply).facts if stream else reply.json["groundplan"]
    return str(facts["deployment"])


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/v1/embeddings", {"model": "auto", "input": "x"}, b'{"data":[%b]}' % DEEP),
        ("/v1/messages", {"model": "auto", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}, DEEP),
        ("/v1/responses", {"model": "auto", "input": "x"}, DEEP),
        ("/v1/completions", {"model": "auto", "prompt": "x"}, DEEP),
    ],
)
async def test_every_surface_refuses_what_is_nested_too_deep(
    tmp_path: Path, path: str, body: dict[str, Any], answer: bytes
) -> None:
    more: dict[str, Any] = {"kind": "embeddings"} if "embeddings" in path else {}
    place = {"embeddings": ["one"]} if more else {}
    async with raw_upstream_rig(
        tmp_path, json_response(answer), more={"one": more}, workloads={"assistant": place}
    ) as rig:
        reply = await post(rig, path, body)
        assert (reply.status, "internal_error" in reply.body.decode()) == (503, False), reply.body
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_no_utf_8_comes_from_elsewhere(tmp_path: Path, stream: bool) -> None:
    """Also where the bytes are in a field of a stream that is passed on unread."""
    sent = json_response(completion_body().replace(b"Hi", b"H\xe9"))
    if stream:
        sent = STREAM_HEAD + encode_events(HI.replace(b"chat.completion.chunk", b"chat.completion.ch\xfbnk"), DONE)
    async with raw_upstream_rig(tmp_path, sent, has_fallback=True) as rig:
        reply = await rig.chat(stream=stream)
        assert reply.status == 200 and deployment_of(reply, stream) == "two"


_TWO_TEXTS = {"model": "auto", "input": ["x", "y"], "encoding_format": "base64"}
_TWO_VECTORS = b'{"data":[{"embedding":[0.1]},%b],"usage":{"prompt_tokens":2}}'


@pytest.mark.parametrize(
    ("kind", "path", "body", "sent"),
    [
        ("embeddings", "/v1/embeddings", _TWO_TEXTS, json_response(b'{"data":["x","y"]}')),
        ("embeddings", "/v1/embeddings", _TWO_TEXTS, json_response(_TWO_VECTORS % b'"x"')),
        ("embeddings", "/v1/embeddings", _TWO_TEXTS, json_response(_TWO_VECTORS % b'{"x\xe9":1}')),
        (
            "rerank",
            "/v1/rerank",
            {"model": "auto", "query": "q", "documents": ["x", "y"]},
            json_response(
                b'{"results":[{"index":0,"relevance_score":0.1},{"index":1,"relevance_score":0.2}],"i":"\\ud800"}'
            ),
        ),
        (
            "chat",
            "/v1/chat/completions",
            {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "x"}]},
            STREAM_HEAD
            + encode_events(HI[:-1] + b',"\xe9":1,"usage":{"prompt_tokens":1,"completion_tokens":1}}', DONE),
        ),
    ],
)
async def test_what_is_wrong_in_a_part_that_few_answers_are_read_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, path: str, body: dict[str, Any], sent: bytes
) -> None:
    place = {"embeddings": {"embeddings": ["one"]}, "rerank": {"also": ["one"]}}.get(kind, {})
    async with raw_upstream_rig(tmp_path, sent, more={"one": {"kind": kind}}, workloads={"assistant": place}) as rig:
        reply = await post(rig, path, body)
        assert (reply.status, "internal_error" in reply.body.decode()) == (503, False), reply.body
        assert caplog.text == ""
        await rig.books()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_that_is_about_our_account(tmp_path: Path, stream: bool) -> None:
    """Whoever asked can do nothing about it. What only repeats such words is the caller's own."""
    told = b'{"error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}'
    async with raw_upstream_rig(tmp_path, json_response(told, b"400 Bad Request"), has_fallback=True) as rig:
        reply = await rig.chat(stream=stream)
        assert reply.status == 200 and reply.headers["groundplan-deployment"] == "two"
        first, second = await rig.settlements()
        assert (first.outcome, first.cost, first.http_status, second.outcome) == ("not_billed", 0, 400, "ok")
        await rig.books()
    repeated = told.replace(b"Your credit", b"no such model: Your credit")
    (tmp_path / "other").mkdir()
    async with raw_upstream_rig(
        tmp_path / "other", json_response(repeated, b"400 Bad Request"), has_fallback=True
    ) as rig:
        reply = await rig.chat(stream=stream)
        assert (reply.status, reply.body) == (400, repeated) and not rig.gateway.health.has_problems


GONE = b'{"error":{"message":"The model `m` has been decommissioned","code":"model_decommissioned"}}'
FIREWORKS = b'{"error":{"message":"Account acme is suspended","code":"PRECONDITION_FAILED"}}'


@pytest.mark.parametrize(
    ("status", "told", "why"),
    [
        (b"400 Bad Request", GONE, "no such model"),
        (b"410 Gone", b"{}", "no such model"),
        (b"412 Precondition Failed", FIREWORKS, "not paid"),
    ],
)
async def test_a_model_or_an_account_that_is_gone_is_no_mistake_of_the_caller(
    tmp_path: Path, status: bytes, told: bytes, why: str
) -> None:
    async with raw_upstream_rig(tmp_path, json_response(told, status), has_fallback=True) as rig:
        for _ in range(3):
            assert (await rig.chat()).headers["groundplan-deployment"] == "two"
        assert rig.gateway.health.has_problems, "and others are asked first from now on"
        assert [each.cost for each in await rig.settlements()][::2] == [0, 0, 0]
    (tmp_path / "alone").mkdir()
    async with raw_upstream_rig(tmp_path / "alone", json_response(told, status)) as rig:
        reply = await rig.chat()
        assert (reply.status, reply.code) == (503, "upstream_failed") and why in reply.json["error"]["message"]
        assert reply.json["error"]["hint"].startswith("Correct the ")


@pytest.mark.parametrize(
    "told",
    [
        b'{"code":"The caller does not have permission","error":"Content violates usage guidelines. Failed check: X"}',
        b'{"error":{"message":"m requires moderation","code":403,"metadata":{"reasons":["x"],"flagged_input":"a"}}}',
    ],
)
async def test_what_a_provider_does_not_answer_is_its_callers_matter(tmp_path: Path, told: bytes) -> None:
    """It is told with the status of a key that may not do this. Whatever somebody asks, others are still answered
    there."""
    async with raw_upstream_rig(tmp_path, json_response(told, b"403 Forbidden"), has_fallback=True) as rig:
        for _ in range(3):
            reply = await rig.chat()
            assert reply.status == 403 and reply.json["error"]["message"] in told.decode()
        assert not rig.gateway.health._failures and rig.models["two"].counted == 0
        await rig.books()
    assert actual_status(403, b'{"error":{"message":"Your key may not do this","metadata":{}}}') == 403
    (tmp_path / "fee").mkdir()
    rates = {"rates": Rates(input=0, output=0, flagged=PICO // 20)}
    async with raw_upstream_rig(tmp_path / "fee", json_response(told, b"403 Forbidden"), more={"one": rates}) as rig:
        assert (await rig.chat()).status == 403
        (settled,) = await rig.settlements()
        assert (settled.cost, settled.flags) == (PICO // 20, ["flagged"]), "and no more than was reserved"
        await rig.books()


SGLANG = b'{"error":{"object":"error","message":"The input (9000 tokens) is longer than the model\'s","code":%d}}'


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("code", "elsewhere"), [(400, False), (429, True), (502, True)])
async def test_an_error_of_status_200_that_says_which_it_has(
    tmp_path: Path, stream: bool, code: int, elsewhere: bool
) -> None:
    """What a caller asks wrongly keeps no other one away, and what was not worked on is not paid."""
    told = SGLANG % code
    pieces = (STREAM_HEAD, encode_events(told, DONE)) if stream else (json_response(told),)
    async with raw_upstream_rig(tmp_path, *pieces, has_fallback=True) as rig:
        reply = await rig.chat(stream=stream)
        first = (await rig.settlements())[0]
        assert (first.http_status, first.cost) == (code, BOUND if code == 502 else 0)
        if elsewhere:
            assert reply.headers["groundplan-deployment"] == "two" and rig.gateway.health._failures
        else:
            assert (reply.status, reply.body) == (400, told) and not rig.gateway.health._failures
        await rig.books()


MINIMAX = (
    b'{"id":"1","choices":null,"created":1,"model":"m","object":"chat.completion","usage":{"total_tokens":0},'
    b'"base_resp":{"status_code":%d,"status_msg":"told why"}}'
)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("code", "status"), [(1008, 402), (1002, 429), (2013, 400), (1013, 200)])
async def test_an_error_in_minimaxs_own_form_is_one(
    tmp_path: Path, path: str, stream: bool, code: int, status: int
) -> None:
    """What was not worked on is not paid, and what a caller asks wrongly is told in the shape of its API."""
    told = MINIMAX % code
    pieces = (STREAM_HEAD, encode_events(told, DONE)) if stream else (json_response(told),)
    async with raw_upstream_rig(tmp_path, *pieces, has_fallback=True) as rig:
        asked = {"model": "auto", "stream": stream, "max_tokens": 20, "messages": [{"role": "user", "content": "x"}]}
        reply = await post(rig, path, asked)
        first = (await rig.settlements())[0]
        assert (first.http_status, bool(first.cost)) == (status, status == 200)
        if status == 400:
            assert (reply.status, reply.json["error"]["message"]) == (400, "told why")
        else:
            assert (reply.status, reply.headers["groundplan-deployment"]) == (200, "two")
        await rig.books()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_minimax_says_in_every_chunk_that_there_is_no_error(tmp_path: Path, path: str) -> None:
    usage = json.loads(END)["usage"]
    fine: dict[str, Any] = {"base_resp": {"status_code": 0, "status_msg": "unknown field"}}
    sent = [chunk({"role": "assistant", "content": "Hi "}, **fine), chunk({"content": "there"}, "stop", **fine)]
    last = json.dumps({"choices": [], "usage": usage, **fine}).encode()
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + encode_events(*sent, last, DONE)) as rig:
        asked = {"model": "auto", "stream": True, "max_tokens": 20, "messages": [{"role": "user", "content": "x"}]}
        assert b"there" in (await post(rig, path, asked)).body
        (only,) = await rig.settlements()
        assert (only.outcome, only.usage.output) == ("ok", 3)


async def test_a_list_of_errors_of_status_200_is_told_as_its_first_one(tmp_path: Path) -> None:
    """So Gemini tells them at its OpenAI-shaped address."""
    told = b'[{"error":{"code":429,"message":"Resource exhausted","status":"RESOURCE_EXHAUSTED"}}]'
    async with raw_upstream_rig(tmp_path, json_response(told), has_fallback=True) as rig:
        reply = await rig.chat()
        first = (await rig.settlements())[0]
        assert (reply.status, first.http_status, first.cost) == (200, 429, 0), reply.body


async def test_an_error_of_status_200_about_the_prompt_goes_to_whoever_reads_more(tmp_path: Path) -> None:
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD, encode_events(SGLANG % 400, DONE), has_fallback=True, more=SMALL
    ) as rig:
        assert (await rig.stream()).facts["deployment"] == "two"


@pytest.mark.parametrize("code", ["tool_use_failed", "json_validate_failed"])
async def test_an_answer_that_came_out_wrong_comes_from_elsewhere(tmp_path: Path, code: str) -> None:
    """Its provider says so as if the request were wrong, and may bill what was made."""
    told = b'{"error":{"message":"Failed to call a function","code":"%b","failed_generation":"<f"}}' % code.encode()
    async with raw_upstream_rig(tmp_path, json_response(told, b"400 Bad Request"), has_fallback=True) as rig:
        assert (await rig.chat()).headers["groundplan-deployment"] == "two"
        first, _ = await rig.settlements()
        assert (first.outcome, first.http_status, first.cost) == ("failed", 400, BOUND)
        await rig.books()
    (tmp_path / "alone").mkdir()
    async with raw_upstream_rig(tmp_path / "alone", json_response(told, b"400 Bad Request")) as rig:
        reply = await rig.chat()
        assert (reply.status, reply.body) == (400, told)


GROQ = (
    b'{"error":{"message":"Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 7014",'
    b'"type":"tokens","code":"rate_limit_exceeded"}}'
)


@pytest.mark.parametrize("status", [b"413 Payload Too Large", b"429 Too Many Requests"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_that_is_above_a_minutes_tokens_goes_elsewhere(
    tmp_path: Path, stream: bool, status: bytes
) -> None:
    """As Groq tells it, and OpenAI. However many are too large, smaller ones are still asked there first; and where
    nobody else is, the caller is told that it is the size."""
    async with raw_upstream_rig(tmp_path, json_response(GROQ, status), has_fallback=True) as rig:
        for _ in range(4):
            reply = await rig.chat(stream=stream)
            assert reply.status == 200 and reply.headers["groundplan-deployment"] == "two"
        assert not rig.gateway.health.has_problems and not rig.gateway.health._failures
        found = await rig.settlements()
        assert [each.outcome for each in found] == ["not_billed", "ok"] * 4
        await rig.books()
    (tmp_path / "alone").mkdir()
    async with raw_upstream_rig(tmp_path / "alone", json_response(GROQ, status)) as rig:
        reply = await rig.chat(stream=stream)
        assert (reply.status, reply.code, "retry-after" in reply.headers) == (413, "above_rate", False)
        await rig.books()
    (tmp_path / "own").mkdir()
    own = GROQ.replace(b"rate_limit_exceeded", b"request_too_large")
    async with raw_upstream_rig(tmp_path / "own", json_response(own, status), has_fallback=True) as rig:
        reply = await rig.chat(stream=stream)
        if status.startswith(b"413"):
            assert (reply.status, reply.body) == (413, own), "any other is about the request itself"
        else:
            assert reply.status == 200 and rig.gateway.health._failures, "or of how many there are"


async def test_how_soon_a_request_is_refused_says_nothing_of_how_soon_one_is_answered(tmp_path: Path) -> None:
    """Else who answers a mistake at once draws calls, and others are far slower than it."""
    sharing = {"assistant": {"reliability": Reliability(balance="latency")}}
    async with raw_upstream_rig(
        tmp_path, json_response(b"{}", b"400 Bad Request"), has_fallback=True, workloads=sharing
    ) as rig:
        told = [(await rig.chat()).status for _ in range(9)]
        assert told.count(400) and rig.gateway.latencies.of("one", False).peak == 0
        assert "one" not in rig.gateway.health._answer_speeds


@pytest.mark.parametrize("alone", [True, False])
async def test_a_model_that_thinks_is_given_up_only_for_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """Where nobody says for how long its first word is waited for, and nobody else could say it."""
    hasty = {"first_token_ms": 50, "idle_ms": 10}
    monkeypatch.setattr("groundplan.gateway.call.attempts.attempt.FIRST_TOKEN_MS", 50)
    slow = json_response(completion_body())
    async with raw_upstream_rig(tmp_path, slow, has_fallback=not alone, delay=0.15, more={"one": hasty}) as rig:
        reply = await rig.chat()
        assert (reply.status, reply.headers["groundplan-deployment"]) == (200, "one" if alone else "two")
        await rig.books()
    (tmp_path / "said").mkdir()
    said = {"one": hasty | {"first_token_declared": True}}  # as long as it is unless said
    if not alone:
        monkeypatch.undo()
        said = {"one": hasty}
    async with raw_upstream_rig(tmp_path / "said", slow, delay=0.15, more=said) as rig:
        reply = await rig.chat()
        assert (reply.status, "workload's `deadline`" in reply.json["error"]["hint"]) == (503, True)


async def test_what_nobody_does_with_a_model_is_no_model_that_is_not_there(tmp_path: Path) -> None:
    """As OpenRouter tells it. Whoever asks for it goes elsewhere, and others are still asked there first."""
    told = b'{"error":{"message":"No endpoints found that support tool use. To learn more, visit: x","code":404}}'
    nowhere = b"404 Not Found"
    async with raw_upstream_rig(tmp_path, json_response(told, nowhere), has_fallback=True) as rig:
        for _ in range(4):
            assert (await rig.chat()).headers["groundplan-deployment"] == "two"
        assert not rig.gateway.health.has_problems and not rig.gateway.health._failures
        await rig.books()
    for name in ("alone", "both", "none"):
        (tmp_path / name).mkdir()
        said = told.replace(b"that support tool use", b"for m") if name == "none" else told
        async with raw_upstream_rig(tmp_path / name, json_response(said, nowhere), both_raw=name == "both") as rig:
            reply = await rig.chat()
            assert (reply.status, reply.code) == {
                "alone": (404, "404"), "both": (400, "request_unfit"), "none": (503, "upstream_failed"),
            }[name]  # fmt: skip
            assert bool(rig.gateway.health._failures) == (name == "none")
            await rig.books()


async def test_a_key_that_is_not_there_is_told_with_where_it_belongs(tmp_path: Path) -> None:
    """Asking again, as callers were told to, never helps."""
    async with call_rig(tmp_path, ["one"], more={"one": {"key": "env:NOT_THERE_AT_ALL"}}) as rig:
        reply = await rig.chat()
        assert (reply.status, reply.code) == (503, "upstream_failed")
        assert "env:NOT_THERE_AT_ALL is empty or not set" in reply.json["error"]["message"]
        assert reply.json["error"]["hint"] == "Set NOT_THERE_AT_ALL where `groundplan up` starts."


def test_what_the_translating_service_could_not_ask_is_told_in_its_words() -> None:
    body = error_body("the secret env:K is empty or not set", "secret_missing", "Set K.", "invalid_request_error")
    assert service_failure(503, body) == ("the secret env:K is empty or not set", "Set K.")
    assert service_failure(503, b'{"error":{"message":"overloaded","code":"busy"}}') is None
    assert service_failure(500, body) is None


VLLM = (
    b'{"object":"error","message":"This model\'s maximum context length is 8192 tokens. However, you requested 9000."}'
)
SMALL = {"one": {"context_tokens": 8192}, "two": {"context_tokens": 128_000}}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "told",
    [
        VLLM,
        b'{"error":{"message":"Please reduce the length of the messages.","code":"context_length_exceeded"}}',
        b'{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9000 tokens > 8192"}}',
        b'{"error":{"code":400,"message":"the request exceeds","type":"exceed_context_size_error","n_ctx":8192}}',
        b'[{"error":{"code":400,"message":"The input token count (9000) exceeds the maximum number of tokens."}}]',
    ],
)
async def test_a_prompt_that_is_too_long_goes_to_whose_context_is_larger(
    tmp_path: Path, told: bytes, stream: bool
) -> None:
    async with raw_upstream_rig(
        tmp_path, json_response(told, b"400 Bad Request"), has_fallback=True, more=SMALL
    ) as rig:
        for _ in range(4):
            reply = await rig.chat(stream=stream)
            assert reply.status == 200 and reply.headers["groundplan-deployment"] == "two"
        assert not rig.gateway.health.has_problems and not rig.gateway.health._failures
        assert [each.outcome for each in await rig.settlements()] == ["not_billed", "ok"] * 4
        await rig.books()


async def test_a_prompt_that_is_too_long_for_all_is_the_callers_own(tmp_path: Path) -> None:
    same = {name: {"context_tokens": 8192} for name in ("one", "two")}
    async with raw_upstream_rig(tmp_path, json_response(VLLM, b"400 Bad Request"), has_fallback=True, more=same) as rig:
        reply = await rig.chat()
        assert reply.status == 400 and rig.models["two"].counted == 0
        assert reply.json["error"]["message"] == json.loads(VLLM)["message"]
    (tmp_path / "down").mkdir()
    async with raw_upstream_rig(
        tmp_path / "down", json_response(VLLM, b"400 Bad Request"), has_fallback=True, more=SMALL
    ) as rig:
        rig.play("two", mode="down")
        reply = await rig.chat()
        assert (reply.status, reply.code) == (503, "upstream_failed"), "whoever reads more may be well soon"
        await rig.books()


@pytest.mark.parametrize("status", [418, 450, 497])
async def test_a_refusal_with_any_status_reaches_the_caller(tmp_path: Path, status: int) -> None:
    told = b'{"error":{"message":"not like this"}}'
    async with raw_upstream_rig(tmp_path, json_response(told, b"%d Odd" % status)) as rig:
        reply = await rig.chat()
        assert (reply.status, reply.body) == (status, told)
        assert [each.outcome for each in await rig.settlements()] == ["not_billed"]
        await rig.books()
