"""The messages of `POST /support`, by which the search service compares the meaning of statements. Types only, no
numpy."""

from __future__ import annotations

import msgspec

PATH = b"/support"
MAX_TEXTS = 96
"""Statements and places together in one request."""


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """A statement, and the places of its passage that may support it."""

    statement: str
    places: list[str]


class SupportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The statements to compare, with at most `MAX_TEXTS` texts together."""

    asked: list[Asked]


class SupportAnswer(msgspec.Struct, frozen=True):
    """For each statement the cosines with its places, in their order."""

    nearness: list[list[float]]
