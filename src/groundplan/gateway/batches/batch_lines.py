"""The lines of a batch's input file: their format, size and number. What a line asks for is not examined here. Pure."""

from __future__ import annotations

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT
from groundplan.gateway.http.strict_json import DECODE_ERRORS

MAX_LINE_BYTES = 4 << 20


def max_lines(endpoint: str) -> int:
    """The most lines that a batch may have, as in the API to which its endpoint belongs."""
    return 100_000 if endpoint == MESSAGES_ENDPOINT else 50_000


class RequestLine(msgspec.Struct, frozen=True):
    """One line of an input file."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


_line = msgspec.json.Decoder(RequestLine).decode
_BOM = b"\xef\xbb\xbf"
"""Byte order mark, which some editors write at the start of a file."""


def read_line(data: bytes, endpoint: str) -> RequestLine:
    """Decode and check one line. Raises `Invalid`."""
    if len(data) > MAX_LINE_BYTES:
        message = f"the line is longer than {MAX_LINE_BYTES >> 20} MB"
        raise Invalid(message, code="line_too_long", hint="Send what is so large as a call of its own.")
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
