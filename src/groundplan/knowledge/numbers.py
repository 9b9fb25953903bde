"""Numbers in texts as they are compared: the same however they are set. Pure.

Which of `.` and `,` stands before decimals is told by how many digits follow; `1.500` is one thousand five hundred.
"""

from __future__ import annotations

import re
from typing import Final

_THOUSANDS: Final = re.compile(r"(?<=\d)[\u00a0\u2009\u202f'’](?=\d{3}(?!\d))")
"""What some languages set between thousands besides `.` and `,`."""


def join_digits(text: str) -> str:
    """A text with its numbers in one piece each."""
    return _THOUSANDS.sub("", text)


def normalise_number(number: str) -> str:
    """`1,500` and `1500` are the same, and so are `30.00` and `30`; `1.8` stays."""
    text = re.sub(r"[.,](?=\d{3}(?:\D|$))", "", number).replace(",", ".")
    return re.sub(r"\.0+$", "", text).lstrip("0") or "0"
