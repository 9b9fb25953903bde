"""Chunks of one stream of chat that differ in their text alone: once one of them was read, the next ones need not be.

Nearly all of a stream is one JSON object many times over. Where a chunk has a single `content`, the bytes around that
text are known from then on, and whatever begins and ends with the same bytes, with a text between that needs no
unescaping, can say nothing else. OpenAI adds noise (`obfuscation`), which may differ, too. Everything else is read as
ever. Pure; knows nothing of what a chunk means.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

_plain = cast(Callable[[bytes, int], re.Match[bytes]], re.compile(rb"[ !#-\[\]-~\x80-\xff]*").match)
"""Bytes of a JSON string that stand for themselves; none, too."""
_PLAIN = bytes([*b" !", *range(ord("#"), ord("[") + 1), *range(ord("]"), ord("~") + 1), *range(0x80, 0x100)])
"""The same bytes."""
_ASCII = bytes(each for each in _PLAIN if each < 0x80)
_text = re.compile(rb'"content" ?: ?"').search
_LARGEST = 4096
"""Bytes of the longest chunk of HTTP/1.1 that may go straight through."""
_HEADS = {len(b"%x" % size) + size + 4: b"%x\r\n" % size for size in range(1, _LARGEST)}
"""By the bytes of a whole chunk, which two ends of lines belong to, how it begins."""
_noise = re.compile(rb'"obfuscation" ?: ?"').search
_ESCAPE, _LF = b"\\\n"
"""As numbers, which are found in bytes five times as fast as bytes are by `in`."""


class ChunkTemplate:
    """The bytes that such chunks have in common, as events: before the text, after it, and behind the noise."""

    __slots__ = ("_around", "_begin", "_end", "_middle", "_tail")

    def __init__(self, begin: bytes, middle: bytes, end: bytes) -> None:
        self._begin = begin
        self._middle = middle
        self._end = end
        self._tail = (end or middle) + b"\r\n"
        """Behind the text, or the noise, in a chunk of HTTP/1.1."""
        self._around = len(begin), len(self._tail)

    @classmethod
    def of(cls, chunk: bytes) -> ChunkTemplate | None:
        """Of a chunk of valid JSON that was found to have one choice with a text and nothing else. None where it is
        written so that its text cannot be found for certain."""
        found = _text(chunk)
        if found is None or _ESCAPE in chunk or chunk.count(b'"content"') != 1 or _LF in chunk or not _is_text(chunk):
            return None
        rest = chunk[_plain(chunk, found.end()).end() :] + b"\n\n"
        if not rest.startswith(b'"'):
            return None
        noise = _noise(rest)
        if noise is None:
            return cls(b"data: " + chunk[: found.end()], rest, b"")
        return cls(b"data: " + chunk[: found.end()], rest[: noise.end()], rest[_plain(rest, noise.end()).end() :])

    def text_bytes(self, data: bytes) -> int:
        """UTF-8 bytes of the texts in `data`, where that is whole events like these and nothing else; -1 where not."""
        begin, middle, end = self._begin, self._middle, self._end
        at = size = 0
        while data.startswith(begin, at):
            at += len(begin)
            stop = _plain(data, at).end()
            if not data.startswith(middle, stop):
                return -1
            size += stop - at
            at = stop + len(middle)
            if end:
                at = _plain(data, at).end()
                if not data.startswith(end, at):
                    return -1
                at += len(end)
            if at == len(data):
                return size if data.isascii() or _is_text(data) else -1
        return -1

    def framed_text_bytes(self, data: bytes) -> int:
        """The same of `data` that is one such event in one whole chunk of HTTP/1.1, with its frame; negative where it
        is not. Longer chunks are none."""
        total = len(data)
        head = _HEADS.get(total)
        if head is None or not data.startswith(head):
            return -1
        at = len(head)
        if not data.startswith(self._begin, at) or not data.endswith(self._tail):
            return -1
        before, behind = self._around
        at, stop = at + before, total - behind
        # what is left when all bytes that stand for themselves are taken off both ends is none of them
        if self._end:
            end, stop = stop, data.find(b'"', at)
            if not data.startswith(self._middle, stop):
                return -1
            begun = stop + len(self._middle)
            if end < begun or data[begun:end].strip(_ASCII):
                return -1
        text = data[at:stop]
        if not text.strip(_ASCII):
            return len(text)
        return len(text) if not text.strip(_PLAIN) and _is_text(text) else -1


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
