"""Web pages that a chat answer cites, in Responses and Messages, and on their way back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from tests.integration.gateway_stack import deployment, parse_events
from tests.integration.sdk_types import parse_strictly
from tests.unit.raw_upstream import (
    DONE,
    END,
    HI,
    ROLE,
    STREAM_HEAD,
    THERE,
    chunk,
    encode_events,
    json_response,
    post,
    raw_upstream_rig,
)

from groundplan.core.errors import Invalid
from groundplan.gateway.resuming.chat import ContinuedChat
from groundplan.gateway.resuming.continued_relay import ContinuedRelay, SentAnswer
from groundplan.gateway.resuming.responses import ContinuedResponse
from groundplan.gateway.surfaces.chat.annotations import UrlCitation, shift_annotation, url_citations
from groundplan.gateway.surfaces.chat.relay import ChatRelay
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.surfaces.messages.native import AnthropicMessages, TokenCount
from groundplan.gateway.surfaces.messages.surface import read
from groundplan.gateway.surfaces.messages.to_chat import Translation
from groundplan.gateway.surfaces.messages.web_citations import message_citation, without_foreign_citations
from groundplan.gateway.surfaces.responses.stream import ResponsesChatRelay, ResponsesRelay

PAGE = {"url": "https://example.org/a", "title": "A", "start_index": 3, "end_index": 8}
BARE = {"url": "https://example.org/b"}
ANNOTATIONS = [
    {"type": "url_citation", "url_citation": PAGE},
    {"type": "file", "file": {"hash": "h", "content": []}},
    {"type": "url_citation", "url_citation": {"url": 7}},
    {"type": "url_citation", "url_citation": BARE},
]
"""One page, one annotation of another kind, one that cannot be read, and one page of which little is known."""
IN_RESPONSES = [
    {"type": "url_citation", **PAGE},
    {"type": "url_citation", **BARE, "title": "", "start_index": 0, "end_index": 0},
]
IN_MESSAGES: list[dict[str, Any]] = [
    {"type": "web_search_result_location", "url": PAGE["url"], "title": "A", "cited_text": "", "encrypted_index": ""},
    {"type": "web_search_result_location", **BARE, "title": None, "cited_text": "", "encrypted_index": ""},
]
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
STREAM = encode_events(
    ROLE, HI, THERE, chunk({"annotations": ANNOTATIONS[:2]}), chunk({"annotations": ANNOTATIONS[2:]})
)
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "auto", "input": "a b"},
    "/v1/messages": {"model": "auto", "max_tokens": 20, "messages": [{"role": "user", "content": "a b"}]},
}


def whole_answer(**message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    completion = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return json_response(json.dumps({**completion, "usage": USAGE}).encode())


async def test_a_response_has_the_web_pages_of_a_chat_answer(tmp_path: Path) -> None:
    answer = whole_answer(content="Hi there", annotations=ANNOTATIONS)
    async with raw_upstream_rig(tmp_path, answer) as rig:
        reply = await post(rig, "/v1/responses", REQUESTS["/v1/responses"])
    response = parse_strictly(Response, reply.body)
    assert response.output_text == "Hi there"
    assert reply.json["output"][0]["content"][0]["annotations"] == IN_RESPONSES


async def test_a_streamed_response_tells_each_web_page_in_an_event(tmp_path: Path) -> None:
    async with raw_upstream_rig(tmp_path, STREAM_HEAD, STREAM, encode_events(END, DONE)) as rig:
        reply = await post(rig, "/v1/responses", {**REQUESTS["/v1/responses"], "stream": True})
    events = parse_events(reply.body)
    for event in events:
        parse_strictly(ResponseStreamEvent, json.dumps(event))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    told = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    assert [(event["annotation_index"], event["annotation"]) for event in told] == list(enumerate(IN_RESPONSES))
    (item,) = events[-1]["response"]["output"]
    assert {event["item_id"] for event in told} == {item["id"]}
    (part,) = [event["part"] for event in events if event["type"] == "response.content_part.done"]
    assert part["annotations"] == item["content"][0]["annotations"] == IN_RESPONSES


async def test_a_message_has_the_web_pages_of_a_chat_answer(tmp_path: Path) -> None:
    answer = whole_answer(content="Hi there", refusal="No more.", annotations=ANNOTATIONS)
    async with raw_upstream_rig(tmp_path, answer) as rig:
        reply = await post(rig, "/v1/messages", REQUESTS["/v1/messages"])
    parse_strictly(Message, reply.body)
    text, refusal = reply.json["content"]
    assert text == {"type": "text", "text": "Hi there", "citations": IN_MESSAGES}
    assert refusal == {"type": "text", "text": "No more."}


async def test_a_streamed_message_tells_each_web_page_in_a_delta(tmp_path: Path) -> None:
    async with raw_upstream_rig(tmp_path, STREAM_HEAD, STREAM, encode_events(END, DONE)) as rig:
        reply = await post(rig, "/v1/messages", {**REQUESTS["/v1/messages"], "stream": True})
    events = parse_events(reply.body)
    for event in events:
        if event["type"] != "ping":  # the client ignores it
            parse_strictly(RawMessageStreamEvent, json.dumps(event))
    deltas = [(event["index"], event["delta"]) for event in events if event["type"] == "content_block_delta"]
    cited = [(index, delta["citation"]) for index, delta in deltas if delta["type"] == "citations_delta"]
    assert cited == [(0, one) for one in IN_MESSAGES]
    assert "".join(delta.get("text", "") for _, delta in deltas) == "Hi there"


@pytest.mark.parametrize("path", REQUESTS)
async def test_without_a_text_nothing_is_cited(tmp_path: Path, path: str) -> None:
    call = {"index": 0, "id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    first, later = chunk({"annotations": ANNOTATIONS}), chunk({"tool_calls": [call], "annotations": ANNOTATIONS})
    async with raw_upstream_rig(tmp_path, STREAM_HEAD, encode_events(ROLE, first, later, first, END, DONE)) as rig:
        reply = await post(rig, path, {**REQUESTS[path], "stream": True})
    assert reply.status == 200 and b"example.org" not in reply.body
    assert parse_events(reply.body)[-1]["type"] in ("response.completed", "message_stop")


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("annotations", [None, [], {}, "a", [None, 1, "a", [], {}, {"type": "url_citation"}]])
async def test_annotations_of_any_shape_cost_nobody_an_answer(tmp_path: Path, path: str, annotations: Any) -> None:
    async with raw_upstream_rig(tmp_path, whole_answer(content="Hi there", annotations=annotations)) as rig:
        reply = await post(rig, path, REQUESTS[path])
        assert reply.status == 200, reply.body
        (settlement,) = await rig.settlements()
        assert settlement.outcome == "ok"
    part = (reply.json.get("output") or [reply.json])[0]["content"][0]
    assert part["text"] == "Hi there" and part.get("annotations", []) == [] and "citations" not in part


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=12), each, max_size=4),
)


@given(VALUES | st.lists(st.fixed_dictionaries({"type": st.just("url_citation"), "url_citation": VALUES})))
def test_no_annotation_raises(value: Any) -> None:
    raw = msgspec.Raw(json.dumps(value).encode())
    assert all(isinstance(one, UrlCitation) for one in url_citations(raw))


def conversation(*citations: dict[str, Any] | None) -> dict[str, Any]:
    blocks = [{"type": "text", "text": "Hi there", "citations": list(citations)}]
    return {
        "model": "auto",
        "max_tokens": 20,
        "messages": [
            {"role": "user", "content": "a b"},
            {"role": "assistant", "content": blocks},
            {"role": "user", "content": "c"},
        ],
    }


async def test_chat_gets_an_earlier_answer_back_without_its_web_pages(tmp_path: Path) -> None:
    async with raw_upstream_rig(tmp_path, whole_answer(content="Hi")) as rig:
        reply = await post(rig, "/v1/messages", conversation(*IN_MESSAGES))
    assert reply.status == 200, reply.body
    assert reply.json["groundplan"]["left_out"] == ["citations"]
    translation = Translation(json.dumps(conversation(*IN_MESSAGES)).encode())
    assert translation.messages[1] == {"role": "assistant", "content": "Hi there"}


def test_chat_refuses_citations_that_it_did_not_make() -> None:
    own = {**IN_MESSAGES[0], "encrypted_index": "Eo8B"}
    with pytest.raises(Invalid) as refused:
        Translation(json.dumps(conversation(*IN_MESSAGES, own)).encode())
    assert refused.value.details["field"] == "text.citations"


def test_anthropic_gets_only_its_own_citations_back() -> None:
    own = {**IN_MESSAGES[0], "encrypted_index": "Eo8B"}
    messages = conversation(IN_MESSAGES[0], own, IN_MESSAGES[1])["messages"]
    found = without_foreign_citations(json.dumps(messages).encode())
    assert found is not None and json.loads(found)[1]["content"][0]["citations"] == [own]
    foreign = without_foreign_citations(json.dumps(conversation(*IN_MESSAGES)["messages"]).encode())
    assert foreign is not None and json.loads(foreign)[1]["content"][0]["citations"] is None


@pytest.mark.parametrize("codec", [AnthropicMessages(), TokenCount()])
def test_what_is_sent_to_anthropic_has_no_citation_of_another_provider(codec: AnthropicMessages) -> None:
    own = {**IN_MESSAGES[0], "encrypted_index": "Eo8B"}
    ask = read(json.dumps(conversation(*IN_MESSAGES, own)).encode(), {})
    sent = json.loads(codec.request_body(ask, deployment("one", 1, api="anthropic"), 20, []))
    assert sent["messages"][1]["content"][0]["citations"] == [own]


async def test_a_text_behind_a_call_has_citations_of_its_own(tmp_path: Path) -> None:
    call = {"index": 0, "id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    pieces: list[dict[str, Any]] = [{"annotations": ANNOTATIONS[:1]}, {"tool_calls": [call]}, {"content": "more"}]
    events = encode_events(ROLE, HI, *map(chunk, pieces), END, DONE)
    async with raw_upstream_rig(tmp_path, STREAM_HEAD, events) as rig:
        reply = await post(rig, "/v1/responses", {**REQUESTS["/v1/responses"], "stream": True})
    first, _, second = parse_events(reply.body)[-1]["response"]["output"]
    assert first["content"][0]["annotations"] == IN_RESPONSES[:1] and second["content"][0]["annotations"] == []


def test_a_page_in_an_annotation_of_another_kind_is_not_cited() -> None:
    assert url_citations(msgspec.Raw(json.dumps([{"type": "later", "url_citation": PAGE}]).encode())) == []


def test_a_place_that_is_no_number_stays_as_it_came() -> None:
    odd = {"start_index": True, "end_index": "4", "url": "u"}
    assert shift_annotation(odd, 3) == odd and shift_annotation({"start_index": 1}, 3) == {"start_index": 4}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "a"}],
        conversation({"encrypted_index": "x"})["messages"],
        {},
        [1],
        [{"content": [{"citations": 1}, 2], "encrypted_index": ""}],
    ],
)
def test_what_has_no_foreign_citation_stays_as_it_came(messages: Any) -> None:
    assert without_foreign_citations(json.dumps(messages).encode()) is None
    assert without_foreign_citations(b'"encrypted_index" is no JSON') is None


def test_the_quoted_text_of_a_page_is_told_where_it_is_known() -> None:
    assert message_citation(UrlCitation("u", content="quoted"))["cited_text"] == "quoted"


BROKEN = "The answer to what was asked is "
"""What the client has when the first stream breaks."""


def cited_rest(*texts: str, together: bool) -> list[bytes]:
    """The stream of a deployment that continues an answer in these pieces, and cites their last three characters:
    `together` with the last piece, or behind it."""
    length = len("".join(texts))
    page = {"url": "https://example.org/a", "title": "A", "start_index": length - 3, "end_index": length}
    annotations = [{"type": "url_citation", "url_citation": page}, 7, {"type": "file"}]
    *first, last = ({"content": text} for text in texts)
    cited = [{**last, "annotations": annotations}] if together else [last, {"annotations": annotations}]
    return [*map(chunk, (*first, *cited)), END, DONE]


RESTS = [("forty", " two"), (BROKEN[-20:], "forty two"), (f"{BROKEN[-20:]}forty two",)]
"""The rest of the answer, also behind a repetition of what the client has."""
RELAYS: dict[str, tuple[Callable[[], Relay], Callable[[Relay, SentAnswer | None], ContinuedRelay]]] = {
    "chat": (lambda: ChatRelay(include_usage=False), ContinuedChat),
    "responses": (lambda: ResponsesChatRelay({}, "resp_1", "m", 40, {}), ContinuedResponse),
}


def resumed_events(surface: str, rest: tuple[str, ...], *, together: bool) -> list[dict[str, Any]]:
    """The events of a stream that breaks behind `BROKEN` and is continued by `rest`; see `cited_rest`. Of a response
    the whole one is checked before its last event is made, as it is when it is stored."""
    make_relay, continued = RELAYS[surface]
    first = continued(make_relay(), None)
    out = first.feed(ROLE) + first.feed(chunk({"content": BROKEN}))
    second = continued(make_relay(), first.sent)
    out += b"".join(second.feed(data) for data in (ROLE, *cited_rest(*rest, together=together)))
    if isinstance(second, ContinuedResponse):
        (part,) = json.loads(second.response_json())["output"][0]["content"]
        cited = [part["text"][each["start_index"] : each["end_index"]] for each in part["annotations"]]
        assert cited == ["".join(rest)[-3:]]
    return [event for event in parse_events(out + second.closing_events(b"{}")) if isinstance(event, dict)]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("rest", RESTS)
def test_the_place_of_a_citation_in_a_resumed_chat_is_that_in_the_whole_text(
    rest: tuple[str, ...], together: bool
) -> None:
    found = resumed_events("chat", rest, together=together)
    deltas = [event["choices"][0]["delta"] for event in found if event.get("choices")]
    text = "".join(delta.get("content") or "" for delta in deltas)
    (annotations,) = [delta["annotations"] for delta in deltas if "annotations" in delta]
    page = annotations[0]["url_citation"]
    assert text == f"{BROKEN}forty two"
    assert text[page["start_index"] : page["end_index"]] == "two" and annotations[1:] == [7, {"type": "file"}]


@pytest.mark.parametrize("together", [False, True])
def test_a_text_that_may_be_a_repetition_comes_before_what_cites_it(together: bool) -> None:
    """`was` is a word of the text that was sent, but not its end, so it is new."""
    deltas = [each["choices"][0]["delta"] for each in resumed_events("chat", ("was",), together=together)[:-1]]
    text, _, cited = next(
        ("".join(each.get("content") or "" for each in deltas[: number + 1]), number, delta["annotations"])
        for number, delta in enumerate(deltas)
        if "annotations" in delta
    )
    page = cited[0]["url_citation"]
    assert text == f"{BROKEN}was" and text[page["start_index"] : page["end_index"]] == "was"
    found = resumed_events("responses", ("was",), together=together)
    kinds = [event["type"] for event in found]
    before = found[: kinds.index("response.output_text.annotation.added")]
    sent = [event["delta"] for event in before if event["type"] == "response.output_text.delta"]
    assert "".join(sent) == f"{BROKEN}was"


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("rest", RESTS)
def test_a_resumed_response_has_the_citations_of_its_rest(rest: tuple[str, ...], together: bool) -> None:
    found = resumed_events("responses", rest, together=together)
    for event in found:
        parse_strictly(ResponseStreamEvent, json.dumps(event))
    text = "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta")
    assert text == f"{BROKEN}forty two"
    (added,) = [event for event in found if event["type"] == "response.output_text.annotation.added"]
    annotation = added["annotation"]
    assert text[annotation["start_index"] : annotation["end_index"]] == "two" and added["annotation_index"] == 0
    assert found.index(added) > max(n for n, event in enumerate(found) if event["type"] == "response.output_text.delta")
    (item,) = found[-1]["response"]["output"]
    (done,) = [event["part"] for event in found if event["type"] == "response.content_part.done"]
    assert item["content"][0]["annotations"] == done["annotations"] == [annotation]


def test_a_later_message_of_a_resumed_response_has_no_citation_of_the_one_before() -> None:
    """Also if its upstream does not end it."""
    first = ContinuedResponse(ResponsesChatRelay({}, "resp_1", "m", 40, {}), None)
    first.feed(ROLE)
    first.feed(chunk({"content": BROKEN}))
    second = ContinuedResponse(ResponsesRelay({}), first.sent)
    response = {"id": "resp_2", "object": "response", "status": "in_progress", "output": []}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
    for number, text in enumerate(("forty two", "More.")):
        name, where = f"msg_{number}", {"item_id": f"msg_{number}", "output_index": number, "content_index": 0}
        item = {"id": name, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        events += [
            {"type": "response.output_item.added", "output_index": number, "item": item},
            {"type": "response.content_part.added", **where, "part": part},
            {"type": "response.output_text.delta", **where, "delta": text, "logprobs": []},
        ]
        if not number:
            page = {"type": "url_citation", **PAGE}
            cited = {"type": "response.output_text.annotation.added", **where, "annotation": page}
            done = {**item, "status": "completed", "content": [{**part, "text": text, "annotations": [page]}]}
            events += [
                {**cited, "annotation_index": 0},
                {"type": "response.output_item.done", "output_index": number, "item": done},
            ]
    ended = {**response, "status": "completed", "usage": {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}}
    events.append({"type": "response.completed", "response": ended})
    out = b"".join(
        second.feed(json.dumps({**event, "sequence_number": number}).encode()) for number, event in enumerate(events)
    )
    told = parse_events(out + second.closing_events(b"{}"))
    ends = [event["item"] for event in told if event["type"] == "response.output_item.done"]
    parts = [item["content"][0] for item in ends]
    assert [(part["text"], len(part["annotations"])) for part in parts] == [(f"{BROKEN}forty two", 1), ("More.", 0)]
