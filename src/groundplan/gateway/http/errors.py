"""Errors in OpenAI's shape, for callers. Decides nothing; what stands around an answer is in `answers`."""

from __future__ import annotations

import logging
import math
from typing import Any

import msgspec

from groundplan.core.errors import Exhausted, GroundplanError, Misconfigured, Unavailable
from groundplan.gateway.http.methods import lines_of
from groundplan.gateway.http.server import Refusal, Response
from groundplan.gateway.http.strict_json import UNREADABLE

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
_PARAMS = {"model_not_found": "model", "messages_empty": "messages", "copies_range": "n", "cap_range": "max_tokens"}
_PATIENCE_S = 60.0
"""A client waits as long by itself, and longer ones are not told in a header: most would not wait, and those for .NET
and RubyLLM wait for days without a word to whoever called them. Trying again before is in vain, and so it is where no
time is told."""
_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def error_body(message: str, code: str, hint: str, kind: str, **details: Any) -> bytes:
    """`{"error": {"message", "type", "param", "code", "hint", ...}}`"""
    param = details.get("field") or _PARAMS.get(code)
    inner = {"message": message, "type": kind, "param": param, "code": code, "hint": hint, **details}
    return _encode({"error": inner})


def error_type(error: GroundplanError) -> str:
    if isinstance(error, Exhausted) and error.code == "budget_exhausted":
        return "insufficient_quota"
    return _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")


def of_error(error: GroundplanError, call_id: str = "", id_header: bytes = b"x-request-id") -> tuple[int, bytes, bytes]:
    """(status, body, header lines) of an error. Official clients are told not to retry what cannot succeed soon."""
    details = dict(error.details)
    if call_id:
        details["call_id"] = call_id
    body = error_body(worded(error.message, error.hint), error.code, error.hint, error_type(error), **details)
    headers = lines_of(error)
    soon = error.retry_after is not None and error.retry_after <= _PATIENCE_S
    if error.retry_after is not None and soon:
        wait = max(1.0, error.retry_after)
        headers += b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (math.ceil(wait), math.ceil(wait * 1000))
    in_vain = error.status == 409 or isinstance(error, Misconfigured)  # which is about what has happened already
    if in_vain or (error.status == 429 and not soon):
        headers += b"x-should-retry: false\r\n"
    if call_id:
        id = call_id.encode("ascii")
        headers += b"groundplan-call-id: %b\r\n%b: %b\r\n" % (id, id_header, id)
    return error.status, body, headers


def worded(message: str, hint: str) -> str:
    """What is wrong and what to do: most clients show the message and nothing else."""
    return f"{message}. {hint}" if hint else message


def of_upstream_refusal(data: bytes) -> bytes:
    """An upstream's own error body where it is a JSON object, else one that says as much."""
    try:
        _object(data)
    except UNREADABLE:
        hint = "Check the request against what the model supports."
        return error_body("the upstream refused the request", "upstream_refused", hint, "upstream_error")
    return data


def failed(log: logging.Logger, what: str, response: Response) -> Unavailable:
    """An exception that nobody foresaw, at the boundary of a request that is no call: it is logged with the id that its
    client is told."""
    log.exception("a request to %s failed", what, extra={"request_id": response.id})
    hint = "Look for the id of this answer in HOME/logs."
    return Unavailable("the gateway failed", code="internal_error", hint=hint)


def of_refusal(refusal: Refusal, *_: object) -> bytes:
    """Body of what the protocol itself refuses."""
    kind = "api_error" if refusal.status >= 500 else "invalid_request_error"
    return error_body(worded(refusal.message, refusal.hint), refusal.code, refusal.hint, kind)
