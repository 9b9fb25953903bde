"""Refusals of a provider that are about our account there, though their status says that the request is wrong. Pure.

Only codes, and how a message begins, are looked at: further behind, a message may repeat what a caller sent.
"""

from __future__ import annotations

from typing import Any

import msgspec

UNPAID, UNKNOWN_KEY = 402, 401
_CODES = {"billing_hard_limit_reached": UNPAID, "insufficient_quota": UNPAID}
_MESSAGES = (
    ("Your credit balance is too low", UNPAID),
    ("API key not valid", UNKNOWN_KEY),
    ("API key expired", UNKNOWN_KEY),
)


class _Error(msgspec.Struct, frozen=True):
    message: str = ""
    code: Any = None


class _Body(msgspec.Struct, frozen=True):
    error: _Error


_body = msgspec.json.Decoder(_Body | list[_Body]).decode


def meant(status: int, data: bytes) -> int:
    """The status that such a refusal should have had; any other's own."""
    if status != 400:
        return status
    try:
        found = _body(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return status
    if isinstance(found, list):  # as Gemini answers at its OpenAI-shaped address
        if not found:
            return status
        found = found[0]
    return said(found.error.message, found.error.code) or status


def said(message: str, code: object = None) -> int:
    """The status that an error with these words should have; 0: it is about the request."""
    if isinstance(code, str) and code in _CODES:
        return _CODES[code]
    return next((status for begin, status in _MESSAGES if message.startswith(begin)), 0)
