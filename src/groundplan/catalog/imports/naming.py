"""Names and lines for declarations, made from names of other tools."""

from __future__ import annotations

import re

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


def slug(text: str, otherwise: str = "unnamed") -> str:
    """A name for a declaration: lower-case letters, digits and hyphens, at most 63; `otherwise` if none is left."""
    return _NOT_IN_NAMES.sub("-", text.lower()).strip("-")[:63].strip("-") or otherwise


def unique(wanted: str, taken: set[str]) -> str:
    """`wanted`, with a number appended if it is in `taken`; adds the result to `taken`."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted[:58]}-{number}"
    taken.add(name)
    return name


def one_line(text: str) -> str:
    """One short line of printable text."""
    return "".join(c if c.isprintable() else " " for c in text)[:120].strip() or "unnamed"
