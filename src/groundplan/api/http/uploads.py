"""Files as request bodies, and options on how to read them. Stores nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import Request

from groundplan.core.errors import Invalid, TooLarge

MAX_BYTES: Final = 16 << 20


async def read_text(request: Request, kind: str, smaller: str) -> str:
    """The request body as text. Raises `TooLarge` (KIND_too_large, with the hint `smaller`) as soon as the limit is
    exceeded, and `Invalid` (KIND_syntax) if it is not text."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BYTES:
            raise TooLarge("the file is larger than 16 MiB", code=f"{kind}_too_large", hint=smaller)
        parts.append(part)
    data = b"".join(parts)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        message = f"line {line} of the file is not text in UTF-8"
        raise Invalid(message, code=f"{kind}_syntax", hint="Export it as UTF-8.") from error
    if (offset := text.find("\0")) >= 0:
        message = f"line {1 + text.count(chr(10), 0, offset)} of the file has NUL bytes"
        raise Invalid(message, code=f"{kind}_syntax", hint="Export it as text, such as CSV.")
    return text


def parse_options(given: Sequence[str], form: str) -> dict[str, str]:
    """Parse options such as `amount=Cost` into a dict. Raises `Invalid` with the expected `form`."""
    options = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise Invalid(f"{text[:40]} has no value", code="option_form", hint=f"Write {form}.")
        options[key.strip()] = value.strip()
    return options
