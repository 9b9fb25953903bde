"""Pairs of questions for the semantic cache, one by one as people write them: no frames, no things put into them.

231 questions to support, IT, people of HR, finance, engineering, health, travel and others; of each two or three
paraphrases as people write (other words, another order, typing errors, a few words alone) and two to four traps that
change one thing. Written by whoever wrote nothing of the rule, before reading it, and divided by chance: `outside` was
looked at then, `outside-sealed` was not before the rule was fixed. `semantic_families` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

PAIRS = Path(__file__).with_name("semantic_outside.txt")
"""`Q: a question`, `= the same in other words`, `! kind | a trap`; `#` is a remark."""
FAMILIES = ("outside", "outside-sealed")


def outside(family: str) -> Iterator[dict[str, Any]]:
    """{"a", "b", "same", "kind", "intent"} of one half."""
    question, sealed = "", False
    for line in PAIRS.read_text(encoding="utf-8").splitlines():
        mark, _, said = line.partition(" ")
        if mark == "Q:":
            question, sealed = said, bool(sha256(said.encode()).digest()[0] & 1)
        elif mark in ("=", "!") and sealed == (family == "outside-sealed"):
            kind, _, text = ("repeat", "", said) if mark == "=" else said.partition(" | ")
            yield {"a": question, "b": text, "same": mark == "=", "kind": kind, "intent": question}
