"""How the answer of a batch's line is kept: one line of a file, whatever the upstream's JSON looks like."""

from __future__ import annotations

import json
from typing import Any

import pytest

from groundplan.core.ids import new_id
from groundplan.gateway.batches.batch_runner import _result_line
from groundplan.gateway.batches.batch_store import ClaimedLine, error_line
from groundplan.gateway.batches.message_shapes import result_line
from groundplan.gateway.http.collected_response import CollectedResponse

HALF = b'{"choices":[{"message":{"content":"cut \\ud83d"}}]}'
"""An emoji of which a model said one half, before its tokens were used up."""


def line_for(body: bytes, status: int = 200) -> bytes:
    answer = CollectedResponse()
    answer.send(status, body)
    return _result_line(ClaimedLine(1, "c1", 0, 1, 0, new_id()), answer)


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_an_answer_that_is_indented_is_one_line_of_the_file(status: int, ends: str) -> None:
    body = {"id": "x", "choices": [{"message": {"content": "two\nlines, \\u0000"}}]}
    told = line_for(json.dumps(body, indent=2).replace("\n", ends).encode(), status)
    assert len(told.splitlines()) == 1
    assert json.loads(told)["response"] == {**json.loads(told)["response"], "status_code": status, "body": body}
    outcome = json.loads(result_line(told))["result"]
    assert outcome["type"] == ("succeeded" if status == 200 else "errored")


def test_half_of_a_character_costs_nobody_the_answer() -> None:
    body = {"choices": [{"message": {"content": "cut \ufffd"}}]}
    assert json.loads(line_for(HALF))["response"]["body"] == body
    assert json.loads(result_line(line_for(HALF)))["result"]["message"] == body


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error":"\xff"}', b"[" * 100_000 + b"]" * 100_000])
def test_what_is_no_json_is_told_as_no_body(body: bytes) -> None:
    told: dict[str, Any] = json.loads(line_for(body, 400))
    assert told["response"]["body"] is None and told["response"]["status_code"] == 400 and told["error"] is None


@pytest.mark.parametrize(
    ("code", "kind"), [("model_not_found", "not_found_error"), ("cap_range", "invalid_request_error")]
)
def test_a_message_that_names_an_unknown_model_fails_as_a_call_of_its_own_does(code: str, kind: str) -> None:
    line = json.dumps(error_line(None, "c1", code, "there is no such model")).encode()
    assert json.loads(result_line(line))["result"]["error"]["error"]["type"] == kind


def test_the_error_of_a_message_that_was_asked_for_names_its_call() -> None:
    line = line_for(b'{"error":{"message":"no"}}', 400)
    error = json.loads(result_line(line))["result"]["error"]
    assert error["request_id"] == json.loads(line)["response"]["request_id"]
