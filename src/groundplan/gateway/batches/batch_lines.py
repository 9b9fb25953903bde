"""The lines of a batch's input file: how one is written, and how many there may be. What a line asks for is not looked
at here. Pure.
"""

from __future__ import annotations

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT
from groundplan.gateway.http.strict_json import DECODE_ERRORS

LINE_BYTES = 4 << 20


def most_lines(endpoint: str) -> int:
    """Of one batch: as many as the API has whose endpoint it calls."""
    return 100_000 if endpoint == MESSAGES_ENDPOINT else 50_000


class LineBody(msgspec.Struct, frozen=True):
    """One line of an input file."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


_line = msgspec.json.Decoder(LineBody).decode
_BOM = b"\xef\xbb\xbf"
"""Some editors put it in front of a file."""


def read_line(data: bytes, endpoint: str) -> LineBody:
    """Raises `Invalid`."""
    if len(data) > LINE_BYTES:
        told = f"the line is longer than {LINE_BYTES >> 20} MB"
        raise Invalid(told, code="line_too_long", hint="Send what is so large as a call of its own.")
    try:
        line = _line(data.removeprefix(_BOM))
    except DECODE_ERRORS as error:
        hint = 'Write {"custom_id": ..., "method": "POST", "url": ..., "body": {...}} on one line.'
        raise Invalid(f"the line is not a request: {error}", code="invalid_json_line", hint=hint) from error
    if not 1 <= len(line.custom_id) <= 256 or "\0" in line.custom_id:
        raise Invalid("custom_id is empty or too long", code="custom_id_length", hint="Use 1 to 256 characters.")
    if line.method != "POST" or line.url != endpoint:
        raise Invalid(
            f"the line is not POST {endpoint}", code="mismatched_url", hint="All lines call the batch's endpoint."
        )
    return line
