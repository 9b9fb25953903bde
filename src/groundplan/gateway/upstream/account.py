"""Refusals of a provider that are about our account there, though their status says that the request is wrong. Pure.

Only codes, and how a message begins, are looked at: further behind, a message may repeat what a caller sent.
"""

from __future__ import annotations

from typing import Any

import msgspec

UNKNOWN_KEY, UNPAID, NOT_ALLOWED, TOO_LARGE = 401, 402, 403, 413
_CODES = {"billing_hard_limit_reached": UNPAID, "insufficient_quota": UNPAID}
_MESSAGES = (
    ("Your credit balance is too low", UNPAID),
    ("You have reached your specified API usage limits", UNPAID),
    ("This organization has been disabled", NOT_ALLOWED),
    ("User location is not supported", NOT_ALLOWED),
    ("API key not valid", UNKNOWN_KEY),
    ("API key expired", UNKNOWN_KEY),
    ("Incorrect API key provided", UNKNOWN_KEY),
)


class _Error(msgspec.Struct, frozen=True):
    message: str = ""
    code: Any = None


class _Body(msgspec.Struct, frozen=True):
    error: _Error | str


_body = msgspec.json.Decoder(_Body | list[_Body]).decode


def meant(status: int, data: bytes) -> int:
    """The status that such a refusal should have had; any other's own."""
    error = _error(data) if status == 400 else None
    return status if error is None else said(error.message, error.code) or status


def above_rate(status: int, data: bytes) -> bool:
    """Whether a request is too large for what our account may send in a minute, as Groq tells it: whoever else serves
    the model may well take it, and a smaller one would be taken here."""
    error = _error(data) if status == TOO_LARGE else None
    return error is not None and error.code == "rate_limit_exceeded"


def _error(data: bytes) -> _Error | None:
    try:
        found = _body(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(found, list):  # as Gemini answers at its OpenAI-shaped address
        if not found:
            return None
        found = found[0]
    return _Error(found.error) if isinstance(found.error, str) else found.error


def said(message: str, code: object = None) -> int:
    """The status that an error with these words should have; 0: it is about the request."""
    if isinstance(code, str) and code in _CODES:
        return _CODES[code]
    return next((status for begin, status in _MESSAGES if message.startswith(begin)), 0)
