"""Normalises numbers in texts for comparison, whatever their separators. Pure.

The number of digits after `.` or `,` decides whether it separates decimals; `1.500` is one thousand five hundred.
"""

from __future__ import annotations

import re
from typing import Final

_THOUSANDS: Final = re.compile(r"(?<=\d)[\u00a0\u2009\u202f'’](?=\d{3}(?!\d))")
"""Separators of thousands in some languages, besides `.` and `,`."""


def join_digits(text: str) -> str:
    """The text without these separators within numbers."""
    return _THOUSANDS.sub("", text)


def normalise_number(number: str) -> str:
    """The number in a form for comparison: `1,500` and `1500` are equal, and so are `30.00` and `30`; `1.8` stays."""
    text = re.sub(r"[.,](?=\d{3}(?:\D|$))", "", number).replace(",", ".")
    return re.sub(r"\.0+$", "", text).lstrip("0") or "0"
