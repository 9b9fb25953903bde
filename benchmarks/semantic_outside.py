"""Pairs of questions for the semantic cache, each written by hand as people write: no frames, no slots.

231 questions to support, IT, HR, finance, engineering, health, travel and others; each with two or three paraphrases
as people write them (other words, another order, typing errors, a few key words) and two to four traps that change one
thing. Written by somebody who took no part in the rule and had not read it, and divided at random: `outside` was looked
at then, `outside-sealed` was not before the rule was fixed. `semantic_families` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

PAIRS = Path(__file__).with_name("semantic_outside.txt")
"""`Q: a question`, `= the same in other words`, `! kind | a trap`; `#` is a remark."""
FAMILIES = ("outside", "outside-sealed")


def generate_pairs(family: str) -> Iterator[dict[str, Any]]:
    """{"a", "b", "same", "kind", "intent"} of the half that is this family."""
    question, is_sealed = "", False
    for line in PAIRS.read_text(encoding="utf-8").splitlines():
        mark, _, content = line.partition(" ")
        if mark == "Q:":
            question, is_sealed = content, bool(sha256(content.encode()).digest()[0] & 1)
        elif mark in ("=", "!") and is_sealed == (family == "outside-sealed"):
            kind, _, text = ("repeat", "", content) if mark == "=" else content.partition(" | ")
            yield {"a": question, "b": text, "same": mark == "=", "kind": kind, "intent": question}
