"""Splits a Cedar text into its policies with their lines, so that problems have a line. Knows no more of Cedar.

Strings and comments are skipped; whether a statement is valid is for the parser to decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|[{}();\[\]]|[^\s"/{}();\[\]]+|\S')


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy of a text. `line` counts from 1."""

    text: str
    line: int


def statements(text: str) -> Iterator[Statement]:
    """The policies of a text in order; text after the last `;` is one more, so that nothing is lost."""
    start: int | None = None
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token.startswith("//"):
            continue
        if start is None:
            start = match.start()
        if token == ";":
            yield _statement(text, start, match.end())
            start = None
    if start is not None:
        yield _statement(text, start, len(text))


def _statement(text: str, start: int, end: int) -> Statement:
    return Statement(text[start:end], text.count("\n", 0, start) + 1)
