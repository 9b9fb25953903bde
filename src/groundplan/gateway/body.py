"""Reading JSON bodies of callers: one error for each thing that can be wrong with the bytes, and the text in messages.

What the fields mean belongs to the API surfaces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.strict_json import refuse_duplicates

Read = TypeVar("Read")


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_parts = msgspec.json.Decoder(list[_Part])
_text = msgspec.json.Decoder(str)


def read_fields(
    body: bytes, decoder: msgspec.json.Decoder[Read], nested: Callable[[Read], int] | None = None
) -> tuple[dict[str, msgspec.Raw], Read]:
    """The top-level fields as raw JSON, in order, and the typed part of them. Raises `Invalid`.

    `nested` tells how many names the typed part knows to be in objects below the top; it may know too few, which costs
    time only.
    """
    try:
        if not body.isascii():
            body.decode("utf-8")
        fields, typed = _fields.decode(body), decoder.decode(body)
        refuse_duplicates(body, len(fields) + (nested(typed) if nested is not None else 0))
        return fields, typed
    except UnicodeDecodeError as error:
        raise Invalid("the body is not UTF-8", code="body_encoding", hint="Send JSON in UTF-8.") from error
    except msgspec.ValidationError as error:
        raise Invalid(
            f"the body has a wrong field: {error}", code="body_invalid", hint="See the OpenAI API."
        ) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(f"the body is not JSON: {error}", code="body_not_json", hint="Send a JSON object.") from error


def message_text(content: msgspec.Raw) -> str:
    """Text of a message's content: a string, a list of text parts, or null. Raises `Invalid` for other parts."""
    raw = bytes(content)
    if raw.startswith(b'"'):
        return _decoded_text(raw)
    if raw == b"null":
        return ""
    parts = _content_parts(raw)
    for part in parts:
        if part.type not in ("text", "refusal"):
            raise Invalid(
                f"content of type {part.type[:40]} is not supported", code="content_unsupported", hint="Send text only."
            )
    return " ".join(part.text for part in parts)


def _decoded_text(raw: bytes) -> str:
    try:
        return _text.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"the body is not JSON: {error}", code="body_not_json", hint="Send a JSON object.") from error


def _content_parts(raw: bytes) -> list[_Part]:
    try:
        return _parts.decode(raw)
    except msgspec.ValidationError as error:
        raise Invalid(
            f"the body has a wrong field: {error} in content", code="body_invalid", hint="See the OpenAI API."
        ) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Invalid(f"the body is not JSON: {error}", code="body_not_json", hint="Send a JSON object.") from error
