"""Errors in Anthropic's shape: `{"type": "error", "error": {"type", "message", "code", "hint"}, "request_id"}`."""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.core.errors import GroundplanError
from groundplan.core.ids import id_text, new_id_bytes
from groundplan.gateway.http import errors
from groundplan.gateway.http.server import Refusal, Request, Response
from groundplan.gateway.http.strict_json import DECODE_ERRORS

ID_HEADER, _OPENAIS = b"request-id", b"x-request-id"
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
_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, Any]).decode


def shaped(kind: str, message: str, call_id: str | None = None, **more: Any) -> bytes:
    """An error's body, or the data of its event."""
    return _encode({"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": call_id})


def error_body(error: GroundplanError, call_id: str = "") -> bytes:
    """One of ours."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return shaped(kind, error.message, call_id or None, code=error.code, hint=error.hint, **error.details)


def of_error(error: GroundplanError, call_id: str = "", request_id: str = "") -> tuple[int, bytes, bytes]:
    """(status, body, header lines) of one of ours. `request_id`: of an answer that is no call."""
    status, _, lines = errors.error_response(error, call_id, ID_HEADER)
    return status, error_body(error, call_id or request_id), lines


def is_asked_by(request: Request) -> bool:
    """Whether a request is of a client of Anthropic's. There is of it what was read by then."""
    return request.target.startswith(_PATH) or b"anthropic-version" in request.headers


def name(request: Request, response: Response, id: str = "", beside: bytes = b"") -> None:
    """Give an answer that is no call an id, where the client that asks looks for it: a new one, if none is given.
    `beside`: header lines that it has, too."""
    header = ID_HEADER if is_asked_by(request) else _OPENAIS
    response.set_request_id(id or id_text(new_id_bytes()), header, beside)


def of_refusal(refusal: Refusal, request: Request, response: Response) -> bytes:
    """What the protocol itself refuses: in this shape for a client of Anthropic's, else in OpenAI's."""
    name(request, response)
    if not is_asked_by(request):
        return errors.refusal_body(refusal)
    kind = _TYPES.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "api_error")
    return shaped(kind, refusal.message, response.request_id, code=refusal.code, hint=refusal.hint)


def status_of(kind: str) -> int:
    """The HTTP status that an error of this type comes with."""
    return _STATUSES.get(kind, 500)


def of_foreign(data: bytes) -> bytes:
    """An upstream's refusal: Anthropic's own as it is, OpenAI's or any other in this shape."""
    try:
        found = _object(data)
    except DECODE_ERRORS:
        found = {}
    if found.get("type") == "error" and isinstance(found.get("error"), dict):
        return data
    inner = found.get("error")
    more: dict[str, Any] = inner if isinstance(inner, dict) else {}
    message = more.get("message")
    text = message if isinstance(message, str) else "the upstream refused the request"
    code = more.get("code") if isinstance(more.get("code"), str) else "upstream_refused"
    hint = more.get("hint") if isinstance(more.get("hint"), str) else "Check the request against what the model takes."
    return shaped("invalid_request_error", text, None, code=code, hint=hint)
