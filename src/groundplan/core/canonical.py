"""Canonical JSON (RFC 8785) and digests: the same value always gives the same bytes."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value (dict, list, str, int within ±2^53, float, bool, None)."""
    return rfc8785.dumps(value)


def digest(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()
