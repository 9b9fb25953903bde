"""How the answer of a batch's line is kept: one line of a file, whatever the upstream's JSON looks like."""

from __future__ import annotations

import json
from typing import Any

import pytest

from groundplan.core.ids import new_id
from groundplan.gateway.batches.batch_runner import _result_line
from groundplan.gateway.batches.batch_store import ClaimedLine
from groundplan.gateway.batches.message_shapes import result_line
from groundplan.gateway.batches.result_store import error_line
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
    ("code", "status", "kind"),
    [
        ("model_not_found", 404, "not_found_error"), ("cap_range", 400, "invalid_request_error"),
        ("key_expired", 401, "authentication_error"), ("upstream_unpaid", 402, "billing_error"),
        ("killed", 403, "permission_error"), ("file_too_large", 413, "request_too_large"),
        ("batch_ended", 409, "invalid_request_error"), ("rate_limit_exceeded", 429, "rate_limit_error"),
        ("internal_error", 500, "api_error"), ("deadline", 504, "timeout_error"), ("busy", 529, "overloaded_error"),
        ("budget_exhausted", None, "rate_limit_error"), ("batch_line_interrupted", None, "api_error"),
        ("batch_order_failed", None, "api_error"), ("batch_line_failed", None, "api_error"),
        ("later", None, "invalid_request_error"),
    ],
)  # fmt: skip
def test_a_message_without_an_answer_has_the_type_of_its_refusal_and_the_id_of_its_call(
    code: str, status: int | None, kind: str
) -> None:
    call = new_id()
    line = json.dumps(error_line(call, "c1", code, "it is refused", status)).encode()
    error = json.loads(result_line(line))["result"]["error"]
    assert (error["type"], error["error"]["type"], error["error"]["code"]) == ("error", kind, code)
    assert error["request_id"] == str(call)


@pytest.mark.parametrize("id", [None, 7, "", "batch_req_", "batch_req_" + "x" * 32])
def test_a_line_with_another_id_names_no_call(id: Any) -> None:
    line = json.dumps({**error_line(None, "c1", "killed", "it is stopped", 403), "id": id}).encode()
    assert json.loads(result_line(line))["result"]["error"]["request_id"] is None


def test_a_line_of_openais_has_no_status_of_its_error() -> None:
    assert error_line(None, "c1", "killed", "it is stopped")["error"] == {"code": "killed", "message": "it is stopped"}


def test_the_error_of_a_message_that_was_asked_for_names_its_call() -> None:
    line = line_for(b'{"error":{"message":"no"}}', 400)
    error = json.loads(result_line(line))["result"]["error"]
    assert error["request_id"] == json.loads(line)["response"]["request_id"]
