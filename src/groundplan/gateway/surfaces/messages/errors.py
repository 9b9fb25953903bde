"""Errors in Anthropic's shape: `{"type": "error", "error": {"type", "message", "code", "hint"}, "request_id"}`."""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.core.errors import GroundplanError
from groundplan.core.ids import id_text, new_id_bytes
from groundplan.gateway.http import errors
from groundplan.gateway.http.server import Refusal, Request, Response
from groundplan.gateway.upstream import provider_refusals

ID_HEADER, _OPENAI_ID_HEADER = b"request-id", b"x-request-id"
_PATH = b"/v1/messages"
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUSES = {kind: status for status, kind in _TYPES.items()}
_TOO_LONG = "prompt is too long"
"""What Anthropic says of such a prompt. Claude Code looks for it, and then sums the conversation up."""
_encode = msgspec.json.Encoder().encode


def error_json(kind: str, message: str, call_id: str | None = None, **more: Any) -> bytes:
    """The body of an error, or the data of an error event."""
    return _encode({"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": call_id})


def error_body(error: GroundplanError, call_id: str = "") -> bytes:
    """The body of one of the gateway's errors."""
    return error_json(
        error_type(error.status), error.message, call_id or None, code=error.code, hint=error.hint, **error.details
    )


def error_response(error: GroundplanError, call_id: str = "", request_id: str = "") -> tuple[int, bytes, bytes]:
    """(status, body, header lines) of one of the gateway's errors. `request_id`: for a response that is no call."""
    status, _, lines = errors.error_response(error, call_id, ID_HEADER)
    return status, error_body(error, call_id or request_id), lines


def send_error(response: Response, error: GroundplanError, *, anthropic: bool) -> None:
    """Answer a request that is no call with an error, in Anthropic's shape or in OpenAI's."""
    response.send(
        *(error_response(error, request_id=response.request_id) if anthropic else errors.error_response(error))
    )


def is_anthropic_request(request: Request) -> bool:
    """Whether a request, perhaps read only in part, is from a client of Anthropic's API."""
    return request.target.startswith(_PATH) or b"anthropic-version" in request.headers


def set_request_id(request: Request, response: Response, id: str = "", beside: bytes = b"") -> None:
    """Give an answer that is no call an id, where the client that asks looks for it: a new one, if none is given.
    `beside`: header lines that it has, too."""
    header = ID_HEADER if is_anthropic_request(request) else _OPENAI_ID_HEADER
    response.set_request_id(id or id_text(new_id_bytes()), header, beside)


def refusal_body(refusal: Refusal, request: Request, response: Response) -> bytes:
    """The body of a refusal by the HTTP layer: in Anthropic's shape for its clients, else in OpenAI's."""
    set_request_id(request, response)
    if not is_anthropic_request(request):
        return errors.refusal_body(refusal)
    return error_json(
        error_type(refusal.status), refusal.message, response.request_id, code=refusal.code, hint=refusal.hint
    )


def error_type(status: int) -> str:
    """Anthropic's type of errors of an HTTP status."""
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def status_of(kind: str) -> int:
    """The HTTP status of errors of this type."""
    return _STATUSES.get(kind, 500)


def upstream_refusal_body(status: int, data: bytes, call_id: str = "") -> bytes:
    """An upstream's refusal: Anthropic's own unchanged, OpenAI's or any other in Anthropic's shape. Of a prompt that is
    too long it has Anthropic's words, by which clients know that they have to shorten the conversation."""
    found = errors.upstream_error_fields(data) or {}
    if found.get("type") == "error" and isinstance(found.get("error"), dict):
        return data
    inner = found.get("error")
    more: dict[str, Any] = inner if isinstance(inner, dict) else found  # older vLLM has no object in `error`
    text = errors.reported_message(found) or "the upstream refused the request"
    code = more.get("code") if isinstance(more.get("code"), str) else "upstream_refused"
    hint = more.get("hint") if isinstance(more.get("hint"), str) else "Check the request against what the model takes."
    if provider_refusals.prompt_too_long(status, data):
        text = text if _TOO_LONG in text.lower() else f"{_TOO_LONG}: {text}"
        code, hint = provider_refusals.TOO_LONG_CODES[0], "Send a shorter prompt, or name a model that reads more."
    return error_json(error_type(status), text, call_id or None, code=code, hint=hint)
