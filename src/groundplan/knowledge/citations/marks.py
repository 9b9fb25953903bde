"""What an answer cites: its sentences with the numbers of passages that stand in them, `[1]` or `[1, 3]`. Pure.

Where a sentence cites twice, each mark answers for the words since the one before. "According to the passage [1]:" says
nothing by itself, so it answers for the sentence that follows. Sentences without a mark are none of this. Characters
count from 0; spans are half open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CHARS = 40_000
"""Characters of an answer that are looked at."""
MAX_STATEMENTS = 64
"""Statements of an answer that are looked at."""
_MARK = re.compile(r"\[\s*(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\s*\]")
# each begins where a run of blanks or of full stops does: else a long one would be gone through from each of its places
_GONE = re.compile(rf"(?<!\s)\s*{_MARK.pattern}")
_MARKS = re.compile(rf"(?:{_MARK.pattern}[\s,;]*)+")
_END = re.compile(
    rf"(?<![.!?:;।؟۔])[.!?:;।؟۔]+[\"')*_”’]*(?:\s*{_MARK.pattern})*(?=\s|$)|[。！？｡]+[\"')*_”’」』）]*(?:\s*{_MARK.pattern})*|\n+"
)
_SHORT = re.compile(r"\b(?:e\.g|i\.e|etc|approx|no|nr|vs|dr|mr|mrs|ms|st|cf|incl|z\.b|bzw|ca)\.$", re.IGNORECASE)

_INTRODUCES = re.compile(
    r"(?:according to|based on|as (?:said|stated|written|described|noted) (?:in|by)|from|in|per|the|see|source)"
    r"(?: the| this| that| your| our)?(?: provided| given)?"
    r"(?: (?:passage|document|source|text|excerpt|context|handbook|policy)s?)?\s*:",
    re.IGNORECASE,
)
"""Words before a colon, without their mark, that only say where what follows is from."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Words of an answer, without its marks, and the passages that they cite, counted from 1."""

    start: int
    end: int
    text: str
    passages: tuple[int, ...]


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the sentences of a text; marks after a full stop belong to the sentence before it."""
    start = 0
    for found in _END.finditer(text):
        if found.group().startswith(".") and _SHORT.search(text[max(start, found.start() - 8) : found.start() + 1]):
            continue
        if text[start : found.end()].strip():
            yield start, found.end()
        start = found.end()
    if text[start:].strip():
        yield start, len(text)


def statements(answer: str) -> list[Statement]:
    """Everything in an answer that cites something, in its order."""
    found: list[Statement] = []
    introduced: Statement | None = None
    for start, end in sentences(answer[:MAX_CHARS]):
        here = _statements(answer, start, end)
        if introduced is not None and not here:
            here = [_introduced_statement(introduced, answer, start, end)]
        elif introduced is not None:
            found.append(introduced)
        introduced = None
        if len(here) == 1 and _INTRODUCES.fullmatch(here[0].text):
            introduced = here.pop()
        found += here
        if len(found) >= MAX_STATEMENTS:
            return found[:MAX_STATEMENTS]
    return found if introduced is None else [*found, introduced]


def _introduced_statement(introduced: Statement, answer: str, start: int, end: int) -> Statement:
    """The sentence from `start` to `end`, cited by the words that introduce it."""
    said = answer[start:end].rstrip()
    return Statement(introduced.start, start + len(said), " ".join(said.split()), introduced.passages)


def _statements(answer: str, start: int, end: int) -> list[Statement]:
    groups = list(_MARKS.finditer(answer, start, end))
    found: list[Statement] = []
    begin = start
    for place, group in enumerate(groups):
        # what follows the last mark of a sentence is said with it
        until = end if place == len(groups) - 1 else group.end()
        text = " ".join(_GONE.sub("", answer[begin:until]).split())
        numbers = [int(n) for mark in _MARK.findall(group.group()) for n in re.findall(r"\d+", mark)]
        if any(letter.isalnum() for letter in text):
            lead = len(answer[begin:until]) - len(answer[begin:until].lstrip())
            tail = len(answer[begin:until].rstrip())
            found.append(Statement(begin + lead, begin + tail, text, tuple(dict.fromkeys(numbers))))
        elif found:
            last, until = found[-1], len(answer[:until].rstrip())
            found[-1] = Statement(last.start, until, last.text, tuple(dict.fromkeys((*last.passages, *numbers))))
        begin = group.end()
    return found
