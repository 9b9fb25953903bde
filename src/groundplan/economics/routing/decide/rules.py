"""Declared routing rules: readable, in order, before anything learned. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from groundplan.blueprint.model import RouteRule


def first_match(rules: Sequence[RouteRule], text: str, messages: int) -> RouteRule | None:
    """The first rule whose conditions a question, of a conversation with so many messages, meets."""
    return next((rule for rule in rules if matches(rule, text, messages)), None)


def matches(rule: RouteRule, text: str, messages: int) -> bool:
    """Whether a question meets all conditions of a rule."""
    if rule.longer is not None and len(text) < rule.longer:
        return False
    if rule.shorter is not None and len(text) > rule.shorter:
        return False
    if rule.messages is not None and messages < rule.messages:
        return False
    return not rule.words or _pattern(tuple(rule.words)).search(_normalize(text)) is not None


@lru_cache(maxsize=512)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern of whole words, ignoring case and the kind of white space."""
    parts = [_normalize(word).split() for word in words]
    found = "|".join(r"\s+".join(map(re.escape, part)) for part in parts if part)
    return re.compile(rf"(?<!\w)(?:{found or '(?!)'})(?!\w)", re.IGNORECASE)


def _normalize(text: str) -> str:
    """The text with equal letters encoded in one way."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text).replace("\u2019", "'")
