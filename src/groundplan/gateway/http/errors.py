"""Error bodies and headers in OpenAI's format. Decides nothing; the other headers of an answer are in `answers`."""

from __future__ import annotations

import logging
import math
from typing import Any

import msgspec

from groundplan.core.errors import Exhausted, GroundplanError, Misconfigured, Unavailable
from groundplan.gateway.http.methods import allow_header
from groundplan.gateway.http.server import Refusal, Response
from groundplan.gateway.http.strict_json import DECODE_ERRORS

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
_MAX_RETRY_AFTER_SECONDS = 60.0
"""Clients wait this long by themselves. Longer waits are not sent in a header: most clients would not wait, and those
for .NET and RubyLLM wait for days without a word to their caller. Retrying earlier is in vain, and so it is where no
time is given."""
_encode = msgspec.json.Encoder().encode
_refusal = msgspec.json.Decoder(dict[str, Any] | list[dict[str, Any]]).decode


def error_body(message: str, code: str, hint: str, kind: str, **details: Any) -> bytes:
    """`{"error": {"message", "type", "param", "code", "hint", ...}}`"""
    param = details.get("field") or _PARAMS.get(code)
    inner = {"message": message, "type": kind, "param": param, "code": code, "hint": hint, **details}
    return _encode({"error": inner})


def error_type(error: GroundplanError) -> str:
    if isinstance(error, Exhausted) and error.code == "budget_exhausted":
        return "insufficient_quota"
    return _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")


def error_response(
    error: GroundplanError, call_id: str = "", id_header: bytes = b"x-request-id"
) -> tuple[int, bytes, bytes]:
    """(status, body, header lines) of an error. Official clients are told not to retry what cannot succeed soon."""
    details = dict(error.details)
    if call_id:
        details["call_id"] = call_id
    body = error_body(
        message_with_hint(error.message, error.hint), error.code, error.hint, error_type(error), **details
    )
    headers = allow_header(error)
    soon = error.retry_after is not None and error.retry_after <= _MAX_RETRY_AFTER_SECONDS
    if error.retry_after is not None and soon:
        wait = max(1.0, error.retry_after)
        headers += b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (math.ceil(wait), math.ceil(wait * 1000))
    in_vain = error.status == 409 or isinstance(error, Misconfigured)  # a conflict is about what has happened already
    if in_vain or (error.status == 429 and not soon):
        headers += b"x-should-retry: false\r\n"
    if call_id:
        id = call_id.encode("ascii")
        headers += b"groundplan-call-id: %b\r\n%b: %b\r\n" % (id, id_header, id)
    return error.status, body, headers


def message_with_hint(message: str, hint: str) -> str:
    """The problem and what to do about it in one text: most clients show only the message."""
    return f"{message}. {hint}" if hint else message


def upstream_error_body(data: bytes, status: int = 400) -> bytes:
    """An upstream's error body in OpenAI's shape, of which clients show the message: its own if it has that shape,
    else with its message in an `error` beside its other fields. A body that is no JSON is replaced."""
    fields = upstream_error_fields(data)
    if fields is None:
        hint = "Check the request against what the model supports."
        return error_body("the upstream refused the request", "upstream_refused", hint, "upstream_error")
    is_list = data.lstrip()[:1] == b"["
    error = fields.get("error")
    inner: dict[str, Any] = error if isinstance(error, dict) else {}
    message = reported_message(fields)
    if not message or isinstance(inner.get("message"), str):
        return _encode(fields) if is_list else data
    kind, code = (inner.get(name, fields.get(name)) for name in ("type", "code"))
    inner = {
        **inner,
        "message": message,
        "type": kind if isinstance(kind, str) else _TYPES.get(status, "invalid_request_error"),
        "param": inner.get("param"),
        "code": code if isinstance(code, str) else "upstream_refused",
    }
    return _encode({**fields, "error": inner})


def upstream_error_fields(data: bytes) -> dict[str, Any] | None:
    """The fields of an upstream's error body; None if it is no JSON object. Of a list, as Google sends one at its
    OpenAI-shaped address, those of the first."""
    try:
        found: dict[str, Any] | list[dict[str, Any]] = _refusal(data)
    except DECODE_ERRORS:
        return None
    if isinstance(found, dict):
        return found
    return found[0] if found else None


def reported_message(fields: dict[str, Any]) -> str:
    """What an upstream's error says: in `error` (OpenAI; a mere text at LM Studio and TGI), `message` (Mistral, older
    vLLM), `detail` (FastAPI), `errors` (Cloudflare) or `base_resp` (MiniMax); empty if nothing."""
    for name in ("error", "message", "detail", "errors", "base_resp"):
        if text := _text_of(fields.get(name), levels=3):
            return text
    return ""


def _text_of(value: object, levels: int) -> str:
    if isinstance(value, str) or levels == 0:
        return value if isinstance(value, str) else ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_text_of(each, levels - 1) for each in value[:10])))
    if not isinstance(value, dict):
        return ""
    if isinstance(value.get("msg"), str):  # of Pydantic: what is wrong with one field
        where = value.get("loc")
        names = ".".join(map(str, where)) if isinstance(where, list) else ""
        return f"{names}: {value['msg']}" if names else str(value["msg"])
    found = (_text_of(value.get(name), levels - 1) for name in ("message", "detail", "status_msg"))
    return next(filter(None, found), "")


def log_internal_error(log: logging.Logger, what: str, response: Response) -> Unavailable:
    """Log an unexpected exception of a request that is not a model call, under the response's id, and return the error
    to answer with."""
    log.exception("a request to %s failed", what, extra={"request_id": response.request_id})
    hint = "Look for the id of this answer in HOME/logs."
    return Unavailable("the gateway failed", code="internal_error", hint=hint)


def refusal_body(refusal: Refusal, *_: object) -> bytes:
    """Body of a refusal by the protocol itself."""
    kind = "api_error" if refusal.status >= 500 else "invalid_request_error"
    return error_body(message_with_hint(refusal.message, refusal.hint), refusal.code, refusal.hint, kind)
