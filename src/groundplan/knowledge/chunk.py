"""Cutting a document into passages along its own structure. Pure: text in, chunks out, the same for the same text.

A passage is a verbatim span, so that it can be quoted with its lines. Sections are never mixed; a block (paragraph,
list, table, fenced code) stays whole where it fits. Nothing is dropped but white space between passages. Rows of a
table that begin a passage keep the table's head beside them, since without it nobody knows what they say. Meaning is
not judged.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from groundplan.knowledge.model import Chunk

MAX_CHARS = 400
"""Most characters of a passage, about 70 tokens of English: small ones are found more exactly, and are given with the
text around them. Of 472 labelled questions, passages of 400 characters cover .91 of the answers in 1000 tokens, those
of 200 tokens .88."""

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(?P<title>.*?)[ \t]*#*[ \t]*")
_FENCE = re.compile(r" {0,3}(?P<mark>`{3,}|~{3,})")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？]")
_WHITE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class _Block:
    """A span of whole lines; `level` is 1 to 6 for a heading, 0 otherwise."""

    start: int
    end: int
    level: int = 0
    title: str = ""


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    headings: tuple[str, ...]
    head: str = ""


@dataclass(frozen=True, slots=True)
class _Table:
    """What stands behind the head row of a table: from the row of dashes to its end."""

    start: int
    end: int
    head: str


def split_passages(text: str, *, markdown: bool, start: int = 0, limit: int = MAX_CHARS) -> list[Chunk]:
    """Passages of `text[start:]` of at most `limit` characters, in order; empty for white space only."""
    found: list[Chunk] = []
    line, counted = 1, 0
    for span in _spans(text, _blocks(text, start, markdown=markdown), limit, markdown=markdown):
        first, last = _trim(text, span.start, span.end)
        if first == last:
            continue
        line += text.count("\n", counted, first)
        counted = first
        body = text[first:last]
        found.append(Chunk(len(found), body, first, last, line, line + body.count("\n"), span.headings, span.head))
    return found


def first_heading(text: str, start: int = 0) -> str | None:
    """The title of the first Markdown heading, if there is one."""
    return next((block.title for block in _blocks(text, start, markdown=True) if block.level and block.title), None)


def _lines(text: str, start: int, stop: int | None = None) -> Iterator[tuple[int, int]]:
    """Spans of lines with their line end; `stop` is the end of one."""
    stop = len(text) if stop is None else stop
    while start < stop:
        end = text.find("\n", start, stop) + 1 or stop
        yield start, end
        start = end


def _blocks(text: str, start: int, *, markdown: bool) -> Iterator[_Block]:
    """Headings, fenced code and runs of lines that are not blank. Blank lines belong to no block."""
    fence = ""
    begin: int | None = None
    end = start
    for first, last in _lines(text, start):
        line = text[first:last].rstrip("\n")
        heading = _HEADING.fullmatch(line) if markdown and not fence else None
        if begin is not None and (heading or (not fence and not line.strip())):
            yield _Block(begin, end)
            begin = None
        if heading:
            yield _Block(first, last, len(heading[1]), heading["title"])
            continue
        if markdown:
            fence = _fence_after(fence, line)
        if begin is None and line.strip():
            begin = first
        end = last
    if begin is not None:
        yield _Block(begin, end)


def _fence_after(fence: str, line: str) -> str:
    """The mark of the code fence that is open after this line, or nothing."""
    match = _FENCE.match(line)
    if match is None:
        return fence
    if not fence:
        return match["mark"]
    closes = match["mark"].startswith(fence) and not line[match.end() :].strip()
    return "" if closes else fence


def _spans(text: str, blocks: Iterator[_Block], limit: int, *, markdown: bool) -> Iterator[_Span]:
    """Blocks of one section joined up to the limit; a heading goes with what follows it."""
    path: list[tuple[int, str]] = []
    begin: int | None = None
    end = 0
    bare = False  # whether only headings are collected so far
    for block in blocks:
        fits = begin is not None and block.end - begin <= limit
        if begin is not None and not (fits and (bare or not block.level)):
            yield from _pieces(text, _Span(begin, end, _titles(path)), limit, markdown=markdown)
            begin = None
        if block.level:
            path = [(level, title) for level, title in path if level < block.level] + [(block.level, block.title)]
        if begin is None:
            begin, bare = block.start, True
        bare = bare and bool(block.level)
        end = block.end
    if begin is not None:
        yield from _pieces(text, _Span(begin, end, _titles(path)), limit, markdown=markdown)


def _titles(path: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(title for _, title in path if title)


def _pieces(text: str, span: _Span, limit: int, *, markdown: bool) -> Iterator[_Span]:
    """The span, cut where it is longer than the limit: after a line, a sentence, a word, or anywhere."""
    start, end = span.start, span.end
    if end - start <= limit:
        yield span
        return
    tables = deque(_tables(text, start, end, limit) if markdown and "|" in text[start:end] else ())
    while start < end:
        cut = _cut(text, start, start + limit) if end - start > limit else end
        while tables and tables[0].end <= start:
            tables.popleft()
        head = tables[0].head if tables and tables[0].start <= start else ""
        yield _Span(start, cut, span.headings, head)
        start = cut


def _tables(text: str, start: int, end: int, most: int) -> Iterator[_Table]:
    """The tables of some lines; of a head as much as `most` characters hold, whole cells."""
    fence, before = "", ""
    begin: int | None = None
    head = ""
    for first, last in _lines(text, start, end):
        line = text[first:last].strip()
        fenced = bool(fence)
        fence = _fence_after(fence, text[first:last].rstrip("\n"))
        if begin is not None and (not line or fence):
            yield _Table(begin, first, head)
            begin = None
        elif begin is None and not fenced and "|" in before and _under_head(line):
            begin, head = first, _head(before, most)
        before = "" if fenced or fence else line
    if begin is not None:
        yield _Table(begin, end, head)


def _under_head(line: str) -> bool:
    """Whether a line is the row of dashes below the head of a table."""
    return "|" in line and "-" in line and not line.strip(" \t|:-")


def _head(row: str, most: int) -> str:
    if len(row) <= most:
        return row
    cut = row.rfind("|", 0, most)
    return row[: cut + 1] if cut > 0 else row[:most]


def _cut(text: str, start: int, most: int) -> int:
    """Best place to end a piece in (start, most]: not in its first half unless there is no other."""
    least = start + (most - start) // 2
    line = text.rfind("\n", least, most)
    if line >= 0:
        return line + 1
    for pattern in (_SENTENCE_END, _WHITE):
        places = [match.end() for match in pattern.finditer(text, least, most)]
        if places:
            return places[-1]
    return most


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space at its ends (whole indentation of the first line is kept out too)."""
    part = text[start:end]
    stripped = part.strip()
    if not stripped:
        return start, start
    first = start + len(part) - len(part.lstrip())
    return first, first + len(stripped)
