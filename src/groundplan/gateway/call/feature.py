"""What an application says that a call is for."""

from __future__ import annotations

import re

FEATURE = b"groundplan-feature"
"""The header."""
_FEATURE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")


def feature_of(header: bytes | None) -> str:
    """What it says, where it is a short name; anything else is left out."""
    return header.decode() if header is not None and _FEATURE.fullmatch(header) else ""
