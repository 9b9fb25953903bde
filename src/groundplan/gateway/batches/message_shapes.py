"""Message batches in Anthropic's format: the state of a batch, and the results of its calls. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from groundplan.core.errors import NotFound
from groundplan.core.ids import parse_id
from groundplan.gateway.batches import batch_store, result_store
from groundplan.gateway.batches.batch_store import Batch
from groundplan.gateway.batches.orders.order_results import ResultLine
from groundplan.gateway.surfaces.messages.errors import error_json, error_type, upstream_refusal_body
from groundplan.gateway.surfaces.upstream_json import decode_upstream

PREFIX = "msgbatch_"
_RESULT_TYPES = {"batch_cancelled": "canceled", "batch_expired": "expired"}
_STATUSES = {
    "batch_line_failed": 500, "batch_line_interrupted": 500, "batch_line_lost": 500, "batch_line_malformed": 500,
    "batch_order_failed": 500, "budget_exhausted": 429, "internal_error": 500,
}  # fmt: skip
"""The HTTP statuses of errors that are no refusals of a request and have no status of their own, by their codes."""
_encode = msgspec.json.Encoder().encode
_result = msgspec.json.Decoder(ResultLine).decode


def batch_id(text: str) -> UUID:
    """The id of a message batch, from its text. Raises `NotFound`."""
    try:
        return parse_id(text, PREFIX)
    except ValueError as error:
        raise batch_not_found() from error


def batch_not_found() -> NotFound:
    """The error for a message batch that does not exist."""
    hint = "Use an id of GET /v1/messages/batches."
    return NotFound("there is no such message batch", code="batch_not_found", hint=hint)


def batch_json(batch: Batch, done: tuple[int, int]) -> dict[str, Any]:
    """A batch in Anthropic's format; `done` are its (completed, failed) lines, shown once it has ended, as Anthropic
    does."""
    name = f"{PREFIX}{batch.id.hex}"
    ended = batch.status in batch_store.ENDED
    succeeded, failed = done if ended else (0, 0)
    canceled, expired = batch.cancelled, batch.expired
    state = "ended" if ended else "canceling" if batch.status == "cancelling" else "in_progress"
    return {
        "id": name,
        "type": "message_batch",
        "processing_status": state,
        "request_counts": {
            "processing": 0 if ended else batch.total,
            "succeeded": succeeded,
            "errored": batch.total if batch.status == "failed" else failed - canceled - expired,
            "canceled": canceled,
            "expired": expired,
        },
        "ended_at": _time(batch.ended_at),
        "created_at": _time(batch.created_at),
        "expires_at": _time(batch.expires_at),
        "archived_at": None,
        "cancel_initiated_at": _time(batch.cancelling_at),
        "results_url": f"/v1/messages/batches/{name}/results" if ended else None,
    }


def page_json(items: Sequence[dict[str, Any]], *, more: bool) -> bytes:
    """A page of a list in Anthropic's format; `more`: whether further pages follow."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return _encode({"data": items, "has_more": more, "first_id": first, "last_id": last})


def result_line(line: bytes) -> bytes:
    """A line of a batch's output or error file as one of Anthropic's results."""
    found = decode_upstream(_result, line)
    return _encode({"custom_id": found.custom_id, "result": _outcome(found)}) + b"\n"


def _outcome(found: ResultLine) -> dict[str, Any]:
    if found.response is not None:
        body = found.response.body
        if found.response.status_code == 200:
            return {"type": "succeeded", "message": body}
        call = found.response.request_id if isinstance(found.response.request_id, str) else ""
        error = upstream_refusal_body(found.response.status_code, bytes(body), call)
        return {"type": "errored", "error": msgspec.Raw(error)}
    code = (found.error.code if found.error is not None else None) or "internal_error"
    if code in _RESULT_TYPES:
        return {"type": _RESULT_TYPES[code]}
    status = found.error.status_code if found.error is not None else None
    kind = error_type(_STATUSES.get(code, 400) if status is None else status)
    message = (found.error.message if found.error is not None else None) or "the call was not made"
    hint = "What is wrong is in the message; order the call again once that is mended."
    return {"type": "errored", "error": msgspec.Raw(error_json(kind, message, _call_id(found), code=code, hint=hint))}


def _call_id(found: ResultLine) -> str | None:
    """The id of a line's call, from the line's own id."""
    try:
        return str(parse_id(found.id, result_store.LINE_PREFIX)) if isinstance(found.id, str) else None
    except ValueError:
        return None


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
