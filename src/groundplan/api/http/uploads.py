"""Files as request bodies, and options on how to read them. Stores nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import Request

from groundplan.core.errors import Invalid, TooLarge

MAX_BYTES: Final = 16 << 20
_OTHER_FILES: Final = (
    (b"\x1f\x8b", "compressed (gzip)", "Unpack it first, such as by gunzip."),
    (b"PK\x03\x04", "an archive (ZIP) or a workbook", "Unpack it, or save the sheet as CSV."),
    (b"\xd0\xcf\x11\xe0", "a workbook", "Save the sheet as CSV."),
    (b"PAR1", "Parquet", "Export it as CSV."),
    (b"%PDF", "a PDF", "Export it as CSV where the provider shows costs."),
)
"""How files begin that are no text, what they are, and what to do."""


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
    return _decode(b"".join(parts), kind)


def _decode(data: bytes, kind: str) -> str:
    """A file as text: UTF-8, or UTF-16 with its mark. Raises `Invalid` (KIND_syntax), for packed files and documents
    with what they are."""
    for mark, name, hint in _OTHER_FILES:
        if data.startswith(mark):
            raise Invalid(f"the file is {name}, not text", code=f"{kind}_syntax", hint=hint)
    try:
        text = data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
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
