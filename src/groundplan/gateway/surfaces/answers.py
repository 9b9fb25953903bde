"""What callers get back around the model's own answer: errors in OpenAI's shape, the `groundplan` object, headers.

Decides nothing. Header values are made of our own names only; nothing of a request is reflected into a header.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from groundplan.core.errors import Exhausted, GroundplanError
from groundplan.core.money import format_usd
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.http.server import Refusal

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
_FINAL = ("budget_exhausted", "calls_per_day", "idempotency_replayed", "idempotency_mismatch")
_PATIENCE_S = 60.0
"""Longer than this no official client waits by itself; trying again before is in vain."""
_UNSAFE = re.compile(r"[^\x21-\x7e]")
_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def error_body(message: str, code: str, hint: str, kind: str, **details: Any) -> bytes:
    """`{"error": {"message", "type", "param", "code", "hint", ...}}`"""
    inner = {"message": message, "type": kind, "param": _PARAMS.get(code), "code": code, "hint": hint, **details}
    return _encode({"error": inner})


def error_type(error: GroundplanError) -> str:
    if isinstance(error, Exhausted) and error.code == "budget_exhausted":
        return "insufficient_quota"
    return _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")


def of_error(error: GroundplanError, call_id: str = "") -> tuple[int, bytes, bytes]:
    """(status, body, header lines) of an error. Official clients are told not to retry what cannot succeed soon."""
    details = dict(error.details)
    if call_id:
        details["call_id"] = call_id
    body = error_body(error.message, error.code, error.hint, error_type(error), **details)
    headers = b""
    if error.retry_after is not None:
        headers += b"retry-after: %d\r\n" % max(1, math.ceil(error.retry_after))
    long = error.status == 429 and error.retry_after is not None and error.retry_after > _PATIENCE_S
    if long or (error.status in (409, 429) and error.code in _FINAL):
        headers += b"x-should-retry: false\r\n"
    if call_id:
        headers += b"groundplan-call-id: %b\r\n" % call_id.encode("ascii")
    return error.status, body, headers


def of_upstream_refusal(data: bytes) -> bytes:
    """An upstream's own error body where it is a JSON object, else one that says as much."""
    try:
        _object(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        hint = "Check the request against what the model supports."
        return error_body("the upstream refused the request", "upstream_refused", hint, "upstream_error")
    return data


def of_refusal(refusal: Refusal) -> bytes:
    """Body of what the protocol itself refuses."""
    kind = "api_error" if refusal.status >= 500 else "invalid_request_error"
    return error_body(refusal.message, refusal.code, refusal.hint, kind)


def header_value(text: str) -> bytes:
    """ASCII of a name; anything that could end or confuse a header line becomes `?`."""
    return _UNSAFE.sub("?", text).encode("ascii")


def headers(exchange: Exchange, *, cost: bool) -> bytes:
    """`groundplan-*` lines with what is known now."""
    lines = [b"groundplan-call-id: %b\r\n" % str(exchange.call).encode("ascii")]
    if exchange.workload is not None:
        lines.append(b"groundplan-workload: %b\r\n" % header_value(exchange.workload.name))
    deployment = exchange.deployment
    if deployment is not None:
        lines.append(b"groundplan-model: %b\r\n" % header_value(deployment.model))
        lines.append(b"groundplan-deployment: %b\r\n" % header_value(deployment.name))
        lines.append(b"groundplan-site: %b\r\n" % header_value(deployment.site))
    if cost:
        lines.append(b"groundplan-cost-usd: %b\r\n" % format_usd(exchange.cost).encode("ascii"))
    if exchange.cache == "exact":
        lines.append(b"groundplan-cache: exact\r\ngroundplan-saved-usd: %b\r\n" % format_usd(exchange.saved).encode())
    if exchange.remaining is not None:
        lines.append(b"groundplan-budget-remaining-usd: %b\r\n" % format_usd(exchange.remaining).encode("ascii"))
    if exchange.crossed:
        lines.append(b"groundplan-budget-crossed: %b\r\n" % header_value(",".join(exchange.crossed)))
    if exchange.use is not None:
        lines.append(exchange.use.lines)
    if exchange.catalog is not None:
        lines.append(b"groundplan-blueprint: %d\r\n" % exchange.catalog.number)
    return b"".join(lines)


def facts(exchange: Exchange, remaining: int | None) -> bytes:
    """The `groundplan` object of a settled call."""
    deployment, workload = exchange.deployment, exchange.workload
    told: dict[str, Any] = {
        "call_id": str(exchange.call),
        "workload": workload.name if workload else None,
        "model": deployment.model if deployment else None,
        "deployment": deployment.name if deployment else None,
        "site": deployment.site if deployment else None,
        "cost_usd": format_usd(exchange.cost),
        "estimated": exchange.estimated,
        "cache": exchange.cache,
        "sources": [
            {
                "document": p.document, "path": p.path, "title": p.title, "source": p.source,
                "start_line": p.start_line, "end_line": p.end_line, "text": p.text,
            }
            for p in exchange.passages
        ],
        "budget_remaining_usd": None if remaining is None else format_usd(remaining),
        "blueprint": exchange.catalog.number if exchange.catalog else 0,
    }  # fmt: skip
    if exchange.cache == "exact":
        told["saved_usd"] = format_usd(exchange.saved)
    if exchange.interface.noted and exchange.ask is not None and deployment is not None:
        told.update(exchange.interface.notes(exchange.ask, deployment))
    return _encode(told)
