"""Lone surrogates in JSON: one of the two escapes of a character beyond U+FFFF, without the other. Whoever cuts a text
by UTF-16 sends them apart. JSON may hold them, a decoder of UTF-8 does not bear them. Pure.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

_LONE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def without_surrogates(data: bytes, error: msgspec.DecodeError) -> bytes:
    """`data`, which could not be decoded, with a sign for each lone surrogate. Raises `error` where there is none:
    something else is wrong."""
    made, found = _LONE.subn(rb"\\ufffd", data)
    if not found:
        raise error
    return made


def value_of(data: bytes) -> Any:
    """The value of a JSON text, with such signs where they are needed. Raises `DecodeError`."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        return msgspec.json.decode(without_surrogates(data, error))


def readable(data: bytes) -> bytes:
    """A JSON text as any decoder reads it: itself, or with such signs. Raises `DecodeError` where it is none."""
    try:
        msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        data = without_surrogates(data, error)
        msgspec.json.decode(data)
    return data
