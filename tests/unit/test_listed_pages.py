"""What a chat answer has beside its messages, in other APIs: the web pages of Perplexity and xAI, Azure's filters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from tests.integration.gateway_stack import parse_events
from tests.integration.sdk_types import parse_strictly
from tests.unit.raw_upstream import (
    DONE,
    ROLE,
    STREAM_HEAD,
    chunk,
    completion_body,
    encode_events,
    json_response,
    post,
    raw_upstream_rig,
)

from groundplan.gateway.surfaces.chat.annotations import UrlCitation, listed_pages, marked_pages

TEXT = "Kühe[1][2] muhen[2]."
LINKS = [f"https://example.org/{name}" for name in "abc"]
RESULTS = [{"title": name.upper(), "url": link, "date": "2026-01-01"} for name, link in zip("abc", LINKS, strict=True)]
LISTED: dict[str, Any] = {"citations": LINKS, "search_results": RESULTS}
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": "auto", "max_tokens": 20, "messages": [{"role": "user", "content": "x"}]},
    "/v1/responses": {"model": "auto", "max_output_tokens": 20, "input": "x"},
    "/v1/completions": {"model": "auto", "max_tokens": 20, "prompt": "x"},
}
KINDS: dict[str, tuple[Any, Any]] = {
    "/v1/messages": (Message, RawMessageStreamEvent), "/v1/responses": (Response, ResponseStreamEvent),
}  # fmt: skip
IN_RESPONSES = [
    ("[1]", LINKS[0], "A", 4), ("[2]", LINKS[1], "B", 7), ("[2]", LINKS[1], "B", 16),
]  # fmt: skip
"""(cited text, address, title, where it begins)"""


async def answer(folder: Path, path: str, upstream: bytes, *, stream: bool = False) -> list[dict[str, Any]]:
    """The whole answer, or the events of a stream."""
    async with raw_upstream_rig(folder, upstream) as rig:
        reply = await post(rig, path, {**REQUESTS[path], "stream": stream})
        assert reply.status == 200, reply.body
    found = [each for each in parse_events(reply.body) if each != "[DONE]"] if stream else [json.loads(reply.body)]
    for each in found if path in KINDS else ():
        if each.get("type") != "ping":  # the client ignores it
            parse_strictly(KINDS[path][stream], json.dumps(each))
    return found


def whole(text: str = TEXT, annotations: Any = None, **beside: Any) -> bytes:
    message = {"role": "assistant", "content": text, "annotations": annotations}
    return json_response(completion_body(choices=[{"index": 0, "message": message, "finish_reason": "stop"}], **beside))


def streamed(*, every: bool, beside: dict[str, Any]) -> bytes:
    """A stream that lists pages in `every` chunk but the last, which has empty lists, or in the last only."""
    nothing: dict[str, Any] = {name: [] for name in beside}
    early, late = (beside, nothing) if every else ({}, beside)
    pieces = [chunk({"content": part}, **early) for part in (TEXT[:5], TEXT[5:])]
    return STREAM_HEAD + encode_events(ROLE, *pieces, chunk({}, "stop", **late), DONE)


def placed(annotations: list[dict[str, Any]]) -> list[tuple[str, str, str, int]]:
    return [
        (TEXT[each["start_index"] : each["end_index"]], each["url"], each["title"], each["start_index"])
        for each in annotations
    ]


async def test_a_response_cites_a_page_where_the_text_has_its_number(tmp_path: Path) -> None:
    (response,) = await answer(tmp_path, "/v1/responses", whole(**LISTED))
    assert placed(response["output"][0]["content"][0]["annotations"]) == IN_RESPONSES
    assert response["groundplan"]["left_out"] == ["answer.citations", "answer.search_results"]
    (response,) = await answer(tmp_path, "/v1/responses", whole(citations=LINKS[:2]))
    assert "left_out" not in response["groundplan"], "all pages are cited"


@pytest.mark.parametrize("every", [False, True])
async def test_a_streamed_response_cites_them_once_its_text_is_known(tmp_path: Path, every: bool) -> None:
    events = await answer(tmp_path, "/v1/responses", streamed(every=every, beside=LISTED), stream=True)
    told = [event["annotation"] for event in events if event["type"] == "response.output_text.annotation.added"]
    assert placed(told) == IN_RESPONSES
    assert events[-1]["response"]["output"][0]["content"][0]["annotations"] == told
    assert events[-1]["groundplan"]["left_out"] == ["answer.citations", "answer.search_results"]


@pytest.mark.parametrize("listed", [{"citations": LINKS}, {"search_results": RESULTS}])
async def test_an_empty_list_at_the_end_of_a_stream_takes_none_away(tmp_path: Path, listed: dict[str, Any]) -> None:
    events = await answer(tmp_path, "/v1/responses", streamed(every=True, beside=listed), stream=True)
    told = [event["annotation"] for event in events if event["type"] == "response.output_text.annotation.added"]
    assert [each["url"] for each in told] == [link for _, link, _, _ in IN_RESPONSES]


async def test_a_message_cites_all_pages(tmp_path: Path) -> None:
    (message,) = await answer(tmp_path, "/v1/messages", whole(**LISTED))
    (block,) = message["content"]
    assert [(each["url"], each["title"]) for each in block["citations"]] == list(zip(LINKS, "ABC", strict=True))
    assert message["groundplan"]["left_out"] == ["answer.search_results"]


@pytest.mark.parametrize("every", [False, True])
async def test_a_streamed_message_cites_all_pages_once(tmp_path: Path, every: bool) -> None:
    events = await answer(tmp_path, "/v1/messages", streamed(every=every, beside=LISTED), stream=True)
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    cited = [delta["citation"]["url"] for delta in deltas if delta["type"] == "citations_delta"]
    assert cited == LINKS and events[-1]["groundplan"]["left_out"] == ["answer.search_results"]


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_name_pages_as_left_out(tmp_path: Path, stream: bool) -> None:
    sent = streamed(every=False, beside=LISTED) if stream else whole(**LISTED)
    found = await answer(tmp_path, "/v1/completions", sent, stream=stream)
    assert found[-1]["groundplan"]["left_out"] == ["answer.citations", "answer.search_results"]


@pytest.mark.parametrize("path", KINDS)
async def test_pages_listed_after_the_end_of_a_stream_are_named(tmp_path: Path, path: str) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    late = json.loads(chunk({}, usage=usage, citations=LINKS))
    events = encode_events(
        ROLE, chunk({"content": TEXT}), chunk({}, "stop"), json.dumps({**late, "choices": []}).encode(), DONE
    )
    found = await answer(tmp_path, path, STREAM_HEAD + events, stream=True)
    assert found[-1]["groundplan"]["left_out"] == ["answer.citations"]


@pytest.mark.parametrize("path", KINDS)
async def test_a_page_that_is_annotated_too_is_cited_once(tmp_path: Path, path: str) -> None:
    page = {"url": LINKS[0], "title": "A", "start_index": 0, "end_index": 4}
    annotated = [{"type": "url_citation", "url_citation": page}]
    (told,) = await answer(tmp_path, path, whole("Kühe[1].", annotated, citations=LINKS[:1]))
    block = told["content"][0] if path == "/v1/messages" else told["output"][0]["content"][0]
    assert [each["url"] for each in block.get("citations", block.get("annotations"))] == LINKS[:1]
    assert "left_out" not in told["groundplan"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", KINDS)
async def test_web_pages_of_an_answer_without_a_text_are_named(tmp_path: Path, path: str, stream: bool) -> None:
    call = {"index": 0, "id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    delta = {"tool_calls": [call], "annotations": [{"type": "url_citation", "url_citation": {"url": LINKS[0]}}]}
    if stream:
        ended = chunk({}, "tool_calls", citations=LINKS)
        upstream = STREAM_HEAD + encode_events(ROLE, chunk(delta), ended, DONE)
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": None, **delta}, "finish_reason": "tool_calls"}
        upstream = json_response(completion_body(choices=[choice], citations=LINKS))
    found = await answer(tmp_path, path, upstream, stream=stream)
    assert found[-1]["groundplan"]["left_out"] == ["answer.annotations", "answer.citations"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", REQUESTS)
async def test_what_azures_filters_say_is_named(tmp_path: Path, path: str, stream: bool) -> None:
    said = {"hate": {"filtered": False, "severity": "safe"}}
    prompt = [{"prompt_index": 0, "content_filter_results": said}]
    ends: Any = {"index": 0, "finish_reason": "stop", "content_filter_results": {}}
    if stream:
        head = json.loads(chunk({}))
        text = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": None, "content_filter_results": said}
        chunks = [
            {"id": "", "model": "", "object": "", "created": 0, "choices": [], "prompt_filter_results": prompt},
            {**head, "choices": [text]},
            {**head, "choices": [{**ends, "delta": {}}]},
        ]
        upstream = STREAM_HEAD + encode_events(*(json.dumps(each).encode() for each in chunks), DONE)
    else:
        choice = {**ends, "message": {"role": "assistant", "content": "Hi"}, "content_filter_results": said}
        upstream = json_response(completion_body(choices=[choice], prompt_filter_results=prompt))
    found = await answer(tmp_path, path, upstream, stream=stream)
    assert found[-1]["groundplan"]["left_out"] == ["answer.content_filter_results", "answer.prompt_filter_results"]


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("citations", "results", "pages"),
    [
        (None, None, []),
        (LINKS[:1], None, [(LINKS[0], None)]),
        (None, RESULTS[:1], [(LINKS[0], "A")]),
        ([{"url": LINKS[1]}], RESULTS, [(LINKS[1], "B")]),
        ([7, LINKS[0]], {"a": 1}, [("", None), (LINKS[0], None)]),
    ],
)
def test_pages_are_listed_in_one_of_two_fields(citations: Any, results: Any, pages: list[tuple[str, Any]]) -> None:
    assert [(page.url, page.title) for page in listed_pages(raw(citations), raw(results))] == pages


def test_numbers_of_no_page_are_no_citations() -> None:
    pages = [UrlCitation("a"), UrlCitation("")]
    assert [page.start_index for page in marked_pages("[0][1][2][3][1000][x] [1]", pages)] == [3, 22]


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(["url", "title", "x"]), each, max_size=3),
)


@given(VALUES, VALUES, st.text("[]12 "))
def test_no_list_of_pages_raises(citations: Any, results: Any, text: str) -> None:
    pages = listed_pages(raw(citations), raw(results))
    for page in marked_pages(text, pages):
        assert page.url and page.start_index is not None and text[page.start_index] == "["
