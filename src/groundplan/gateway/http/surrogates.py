"""Lone surrogates in JSON: one of the two escapes of a character beyond U+FFFF, without the other. Clients that cut a
text by UTF-16 units send them. JSON may contain them; a decoder of UTF-8 rejects them. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_LONE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def has_lone_surrogate(data: bytes) -> bool:
    return _LONE.search(data) is not None


def replace_surrogates(data: bytes, error: msgspec.DecodeError) -> bytes:
    """`data`, which could not be decoded, with U+FFFD in place of each lone surrogate. Raises `error` if there is none:
    then something else is wrong."""
    replaced, found = _LONE.subn(rb"\\ufffd", data)
    if not found:
        raise error
    return replaced


def decode_json(data: bytes) -> Any:
    """The value of a JSON text, with lone surrogates replaced if necessary. Raises `DecodeError`."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        return msgspec.json.decode(replace_surrogates(data, error))


def decodable_json(data: bytes) -> bytes:
    """A JSON text that any decoder reads: `data` itself, or with lone surrogates replaced. Raises `DecodeError` if it
    is not JSON."""
    try:
        msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        data = replace_surrogates(data, error)
        msgspec.json.decode(data)
    return data
