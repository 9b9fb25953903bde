"""The body of an order of a message batch, cut into requests wherever its bytes are cut."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.errors import Invalid, TooLarge
from groundplan.gateway.batches import message_requests, messages_api
from groundplan.gateway.batches.batch_lines import max_lines
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT
from groundplan.gateway.batches.message_requests import RequestSplitter
from groundplan.gateway.batches.message_shapes import result_line
from groundplan.gateway.batches.providers.message_batches import to_openai_line
from groundplan.gateway.files.blobs import MAX_INPUT_BYTES, MAX_REQUESTS_BYTES

SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text()
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3))
PARAMS = st.dictionaries(st.text(), VALUES, max_size=4)


def read(body: bytes, *cuts: int) -> list[dict[str, Any]]:
    requests, lines, at = RequestSplitter(), b"", 0
    for cut in [*sorted(cuts), len(body)]:
        lines += requests.feed(body[at:cut])
        at = cut
    requests.end()
    return [json.loads(line) for line in lines.splitlines()]


@given(st.lists(PARAMS, min_size=1, max_size=4), st.sampled_from([None, 1]), st.booleans(), st.data())
def test_every_request_is_a_line_wherever_the_body_is_cut(
    params: list[dict[str, Any]], indent: int | None, plain: bool, data: st.DataObject
) -> None:
    asked = [{"custom_id": f"c{n}", "params": each} for n, each in enumerate(params)]
    body = json.dumps({"requests": asked}, indent=indent, ensure_ascii=plain).encode("utf-8", "surrogatepass")
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    assert read(body, *cuts) == [
        {"custom_id": each["custom_id"], "method": "POST", "url": "/v1/messages", "body": each["params"]}
        for each in asked
    ]


def test_what_is_there_of_a_long_string_is_looked_at_once() -> None:
    """An image of megabytes comes in hundreds of pieces: from its beginning each time it would take seconds."""
    requests, said = RequestSplitter(), b"b" * 1000
    requests.feed(b'{"requests": [{"custom_id":"a","params":{"x":"')
    for _ in range(20):
        for piece in (said, b"\\", b'"', said, b"\\\\"):
            assert requests.feed(piece) == b""
            assert len(requests._rest) - requests._scanned <= (piece == b"\\")
    (line,) = requests.feed(b'","y":"}"}}]}').splitlines()
    requests.end()
    assert json.loads(line)["body"] == {"x": f'{said.decode()}"{said.decode()}\\' * 20, "y": "}"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"requests": {}}',
        b'{"requests": []}',
        b'{"requests": [{"custom_id":"a","params":{}}',
        b'{"requests": [{"custom_id":"a","params":{}}]',
        b'{"requests": [{"custom_id":"a","params":{}},]}',
        b'{"requests": [,{"custom_id":"a","params":{}}]}',
        b'{"requests": [{"custom_id":"a","params":{}} {"custom_id":"b","params":{}}]}',
        b'{"requests": [{"custom_id":"a","params":{}}], "more": 1}',
        b'{"requests": [{"custom_id":"a","params":{}}]} {}',
        b'{"requests": ["a"]}',
        b'{"requests": [{"custom_id":"a","params":{]}}]}',
        b'{"requests": [{"custom_id":"a","params":{"x": 1,}}]}',
        b'{"requests": [{"custom_id":"a","params":{}},{"custom_id":"a","params":{}}]}',
        b'{"other": 1, "requests": [{"custom_id":"a","params":{}}]}',
    ],
)
def test_what_is_no_list_of_requests_is_refused(body: bytes) -> None:
    for cuts in ([], list(range(len(body)))):
        with pytest.raises(Invalid):
            read(body, *cuts)


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (b'{"requests": [5]}', "'5' stands where '{' or ']' is expected"),
        (b'{"requests": [{"custom_id":"a","params":{}},]}', "']' stands where '{' is expected"),
        (b'{"requests": [{"custom_id":"a","params":{}}]} {}', "'{' stands where the end is expected"),
    ],
)
def test_what_stands_where_something_else_is_expected_is_told(body: bytes, wrong: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(body)
    assert caught.value.message == wrong


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_requests, "MAX_LINE_BYTES", 10_000)
    requests = RequestSplitter()
    with pytest.raises(TooLarge):
        for _ in range(20):
            requests.feed(b'{"requests":[{"custom_id":"a","params":{"x":"' if not requests._rest else b"y" * 1000)
    with pytest.raises(Invalid):
        RequestSplitter().feed(b" " * 5000)
    wide = RequestSplitter()
    wide.feed(b'{"requests":[')
    for _ in range(50):
        wide.feed(b" " * 1000)
    assert len(wide._rest) == 0, "spaces between requests are not kept"


@pytest.mark.parametrize("size", [300, 301])
async def test_a_batch_is_as_large_as_at_anthropic(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(messages_api, "MAX_REQUESTS_BYTES", 300)
    body = b'{"requests":[{"custom_id":"a","params":{}}]}'
    body += b" " * (size - len(body))

    class Stream:
        async def read(self) -> bytes:
            nonlocal body
            piece, body = body[:100], body[100:]
            return piece

    request: Any = SimpleNamespace(stream=Stream())
    response: Any = SimpleNamespace(resize_reservation=lambda *_: True)
    lines = messages_api._input_lines(request, response, RequestSplitter(), cast(Any, ()))
    if size == 300:
        assert len([line async for line in lines]) == 1
    else:
        with pytest.raises(TooLarge) as refused:
            [line async for line in lines]
        assert refused.value.code == "request_too_large"


def test_what_is_kept_of_the_largest_body_fits_into_a_file() -> None:
    one = b'{"custom_id":"a","params":{}}'
    longer = len(RequestSplitter().feed(b'{"requests":[' + one)) - len(one)
    assert MAX_REQUESTS_BYTES + longer * max_lines(MESSAGES_ENDPOINT) <= MAX_INPUT_BYTES


@pytest.mark.parametrize(
    ("result", "back"),
    [
        ({"type": "succeeded", "message": {"id": "m"}}, {"type": "succeeded", "message": {"id": "m"}}),
        ({"type": "canceled"}, {"type": "canceled"}),
        ({"type": "expired"}, {"type": "expired"}),
    ],
)
def test_a_result_keeps_its_meaning_on_its_way(result: dict[str, Any], back: dict[str, Any]) -> None:
    line = to_openai_line(json.dumps({"custom_id": "o" * 32 + "c" * 32, "result": result}).encode())
    assert json.loads(line)["custom_id"] == "c" * 32
    assert json.loads(result_line(line)) == {"custom_id": "c" * 32, "result": back}


def test_an_error_keeps_its_kind_and_its_status() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}, "request_id": None}
    line = to_openai_line(json.dumps({"custom_id": "c" * 64, "result": {"type": "errored", "error": error}}).encode())
    assert json.loads(line)["response"]["status_code"] == 529
    assert json.loads(result_line(line))["result"] == {"type": "errored", "error": error}
    assert to_openai_line(b"no json") == b""
