"""What the local search service is asked about statements, `POST /support`, and what it says. Types only, no numpy."""

from __future__ import annotations

import msgspec

PATH = b"/support"
MAX_TEXTS = 96
"""Statements and places together in one request."""


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """A statement, and the places of its passage that it may be said in."""

    statement: str
    places: list[str]


class SupportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `MAX_TEXTS` texts."""

    asked: list[Asked]


class SupportAnswer(msgspec.Struct, frozen=True):
    """For each statement the cosines of its places, in their order."""

    nearness: list[list[float]]
