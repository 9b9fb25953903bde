"""Recognizes chunks of a chat stream that differ in their text alone: once one of them was parsed, the next ones need
not be.

Nearly all of a stream is one JSON object many times over. After a chunk with a single `content`, the bytes around that
text are known, and a chunk that begins and ends with the same bytes, with a text between that needs no unescaping, can
mean nothing else. OpenAI adds noise (`obfuscation`), which may differ, too. Any other chunk is parsed as usual. Pure;
does not know what a chunk means.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

_match_plain = cast(Callable[[bytes, int], re.Match[bytes]], re.compile(rb"[ !#-\[\]-~\x80-\xff]*").match)
"""Matches bytes of a JSON string that stand for themselves; possibly none."""
_PLAIN = bytes([*b" !", *range(ord("#"), ord("[") + 1), *range(ord("]"), ord("~") + 1), *range(0x80, 0x100)])
"""The same bytes."""
_ASCII = bytes(each for each in _PLAIN if each < 0x80)
_find_text = re.compile(rb'"content" ?: ?"').search
_MAX_CHUNK = 4096
"""Bytes of the longest HTTP/1.1 chunk that may be passed through."""
_CHUNK_HEADS = {len(b"%x" % size) + size + 4: b"%x\r\n" % size for size in range(1, _MAX_CHUNK)}
"""First line of a chunk, by the size of the whole chunk, which includes two line ends."""
_find_noise = re.compile(rb'"obfuscation" ?: ?"').search
_ESCAPE, _LF = b"\\\n"
"""As integers, which `in` finds in bytes five times as fast as bytes."""


class ChunkTemplate:
    """The bytes that such chunks have in common, as events: before the text, after it, and after the noise."""

    __slots__ = ("_end", "_frame_sizes", "_middle", "_prefix", "_tail")

    def __init__(self, begin: bytes, middle: bytes, end: bytes) -> None:
        self._prefix = begin
        self._middle = middle
        self._end = end
        self._tail = (end or middle) + b"\r\n"
        """What follows the text, or the noise, in an HTTP/1.1 chunk."""
        self._frame_sizes = len(begin), len(self._tail)

    @classmethod
    def of(cls, chunk: bytes) -> ChunkTemplate | None:
        """The template of a chunk: valid JSON that was found to have one choice with a text and nothing else. None if
        it is written so that its text cannot be located with certainty."""
        found = _find_text(chunk)
        if found is None or _ESCAPE in chunk or chunk.count(b'"content"') != 1 or _LF in chunk or not _is_utf8(chunk):
            return None
        rest = chunk[_match_plain(chunk, found.end()).end() :] + b"\n\n"
        if not rest.startswith(b'"'):
            return None
        noise = _find_noise(rest)
        if noise is None:
            return cls(b"data: " + chunk[: found.end()], rest, b"")
        return cls(b"data: " + chunk[: found.end()], rest[: noise.end()], rest[_match_plain(rest, noise.end()).end() :])

    def text_bytes(self, data: bytes) -> int:
        """UTF-8 bytes of the texts in `data` if it consists of complete events that match; else -1."""
        begin, middle, end = self._prefix, self._middle, self._end
        at = size = 0
        while data.startswith(begin, at):
            at += len(begin)
            stop = _match_plain(data, at).end()
            if not data.startswith(middle, stop):
                return -1
            size += stop - at
            at = stop + len(middle)
            if end:
                at = _match_plain(data, at).end()
                if not data.startswith(end, at):
                    return -1
                at += len(end)
            if at == len(data):
                return size if data.isascii() or _is_utf8(data) else -1
        return -1

    def framed_text_bytes(self, data: bytes) -> int:
        """As `text_bytes`, for one matching event in one complete HTTP/1.1 chunk, with its frame; negative if `data` is
        not that. Longer chunks are not recognized."""
        total = len(data)
        head = _CHUNK_HEADS.get(total)
        if head is None or not data.startswith(head):
            return -1
        at = len(head)
        if not data.startswith(self._prefix, at) or not data.endswith(self._tail):
            return -1
        before, behind = self._frame_sizes
        at, stop = at + before, total - behind
        # nothing may be left after stripping the bytes that stand for themselves from both ends
        if self._end:
            end, stop = stop, data.find(b'"', at)
            if not data.startswith(self._middle, stop):
                return -1
            noise_start = stop + len(self._middle)
            if end < noise_start or data[noise_start:end].strip(_ASCII):
                return -1
        elif stop < at:
            return -1  # what comes before and after the text shares bytes: no JSON
        text = data[at:stop]
        if not text.strip(_ASCII):
            return len(text)
        return len(text) if not text.strip(_PLAIN) and _is_utf8(text) else -1


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
