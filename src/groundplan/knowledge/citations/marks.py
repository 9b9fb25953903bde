"""Finds the citations of an answer: statements with the numbers of passages that they cite, `[1]` or `[1, 3]`. Pure.

If a sentence has several marks, each belongs to the words since the mark before. "According to the passage [1]:" states
nothing by itself, so its mark belongs to the sentence that follows. Sentences without a mark are ignored. Characters
count from 0; spans are half open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CHARS = 40_000
"""Most characters of an answer that are examined."""
MAX_STATEMENTS = 64
"""Most statements of an answer that are examined."""
_CITATION_MARK = re.compile(r"\[\s*(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\s*\]")
# each begins at the start of a run of blanks or of full stops: else a long run would be scanned from each of its places
_REMOVED_MARK = re.compile(rf"(?<!\s)\s*{_CITATION_MARK.pattern}")
_MARK_GROUP = re.compile(rf"(?:{_CITATION_MARK.pattern}[\s,;]*)+")
_SENTENCE_END = re.compile(
    rf"(?<![.!?:;।؟۔])[.!?:;।؟۔]+[\"')*_”’]*(?:\s*{_CITATION_MARK.pattern})*(?=\s|$)|[。！？｡]+[\"')*_”’」』）]*(?:\s*{_CITATION_MARK.pattern})*|\n+"
)
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|approx|no|nr|vs|dr|mr|mrs|ms|st|cf|incl|z\.b|bzw|ca)\.$", re.IGNORECASE)

_INTRODUCTION = re.compile(
    r"(?:according to|based on|as (?:said|stated|written|described|noted) (?:in|by)|from|in|per|the|see|source)"
    r"(?: the| this| that| your| our)?(?: provided| given)?"
    r"(?: (?:passage|document|source|text|excerpt|context|handbook|policy)s?)?\s*:",
    re.IGNORECASE,
)
"""Words before a colon, without their mark, that only name the source of the following sentence."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A part of an answer, its text without marks, and the passages that it cites, counted from 1."""

    start: int
    end: int
    text: str
    passages: tuple[int, ...]


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the sentences of a text; marks after a full stop belong to the sentence before them."""
    start = 0
    for found in _SENTENCE_END.finditer(text):
        if found.group().startswith(".") and _ABBREVIATION.search(
            text[max(start, found.start() - 8) : found.start() + 1]
        ):
            continue
        if text[start : found.end()].strip():
            yield start, found.end()
        start = found.end()
    if text[start:].strip():
        yield start, len(text)


def statements(answer: str) -> list[Statement]:
    """The statements of an answer that cite passages, in order."""
    found: list[Statement] = []
    introduced: Statement | None = None
    for start, end in sentences(answer[:MAX_CHARS]):
        here = _cited_statements(answer, start, end)
        if introduced is not None and not here:
            here = [_introduced_statement(introduced, answer, start, end)]
        elif introduced is not None:
            found.append(introduced)
        introduced = None
        if len(here) == 1 and _INTRODUCTION.fullmatch(here[0].text):
            introduced = here.pop()
        found += here
        if len(found) >= MAX_STATEMENTS:
            return found[:MAX_STATEMENTS]
    return found if introduced is None else [*found, introduced]


def _introduced_statement(introduced: Statement, answer: str, start: int, end: int) -> Statement:
    """The sentence from `start` to `end`, with the citation of the words that introduce it."""
    sentence = answer[start:end].rstrip()
    return Statement(introduced.start, start + len(sentence), " ".join(sentence.split()), introduced.passages)


def _cited_statements(answer: str, start: int, end: int) -> list[Statement]:
    groups = list(_MARK_GROUP.finditer(answer, start, end))
    found: list[Statement] = []
    begin = start
    for number, group in enumerate(groups):
        # the rest of a sentence after its last mark belongs to that mark
        stop = end if number == len(groups) - 1 else group.end()
        text = " ".join(_REMOVED_MARK.sub("", answer[begin:stop]).split())
        numbers = [int(n) for mark in _CITATION_MARK.findall(group.group()) for n in re.findall(r"\d+", mark)]
        if any(letter.isalnum() for letter in text):
            leading = len(answer[begin:stop]) - len(answer[begin:stop].lstrip())
            trailing = len(answer[begin:stop].rstrip())
            found.append(Statement(begin + leading, begin + trailing, text, tuple(dict.fromkeys(numbers))))
        elif found:
            last, stop = found[-1], len(answer[:stop].rstrip())
            found[-1] = Statement(last.start, stop, last.text, tuple(dict.fromkeys((*last.passages, *numbers))))
        begin = group.end()
    return found
