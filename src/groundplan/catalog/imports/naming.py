"""Names and lines as declarations have them, from whatever another tool calls its things."""

from __future__ import annotations

import re

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


def slug(text: str, otherwise: str = "unnamed") -> str:
    """A name as declarations have it: lower case letters, digits and hyphens, at most 63; `otherwise` where none is
    left."""
    return _NOT_IN_NAMES.sub("-", text.lower()).strip("-")[:63].strip("-") or otherwise


def unique(wanted: str, taken: set[str]) -> str:
    """`wanted`, or with a number where it is taken; takes it."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted[:58]}-{number}"
    taken.add(name)
    return name


def one_line(text: str) -> str:
    """One short line of printable text."""
    return "".join(c if c.isprintable() else " " for c in text)[:120].strip() or "unnamed"
