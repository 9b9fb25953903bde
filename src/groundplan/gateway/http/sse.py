"""Server-sent events: cutting a byte stream into events, and reading a chat chunk's few facts. Any cut of the bytes
gives the same events. Reads `data:` only; other fields are dropped, as OpenAI clients do.
"""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.gateway.call.meter import ReportedUsage

MAX_EVENT = 8 << 20
"""Bytes of one event, where its stream has no images."""
DONE = b"[DONE]"
END = b"data: [DONE]\n\n"


class EventTooLarge(Exception):
    """One event is larger than what is read of one."""


class EventReader:
    """Feed bytes, get the data of each complete event. `most`: bytes of the longest that is read."""

    __slots__ = ("_more", "_most", "_rest", "_size")

    def __init__(self, most: int = MAX_EVENT) -> None:
        self._most = most
        self._rest = b""
        self._more: list[bytes] = []
        """What came after `_rest` and ends no line."""
        self._size = 0
        """Bytes of `_more`."""

    def feed(self, data: bytes) -> list[bytes]:
        """Data of the events that are complete now (several `data:` lines are joined by LF). Raises `EventTooLarge`."""
        rest = self._rest
        whole = not rest and data.endswith(b"\n\n") and data.startswith(b"data: ")
        if whole and data.find(b"\n") == len(data) - 2 and b"\r" not in data:
            return [data[6:-2]]  # one event of one line, which is what nearly every read brings
        if rest and b"\n" not in data and b"\r" not in data:
            # an image is one line of megabytes that comes in many reads: each byte is copied once, not at every read
            self._more.append(data)
            self._size += len(data)
            if len(rest) + self._size > self._most:
                raise EventTooLarge
            return []
        if self._more:
            rest = b"".join((rest, *self._more))
            self._more, self._size = [], 0
        buffer = rest + data if rest else data
        if b"\r" in buffer:
            held = buffer.endswith(b"\r")
            buffer = (buffer[:-1] if held else buffer).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            tail = b"\r" if held else b""
        else:
            tail = b""
        *events, rest = buffer.split(b"\n\n")
        self._rest = rest + tail
        if len(self._rest) > self._most:
            raise EventTooLarge
        return [found for event in events if (found := _data(event)) is not None]


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


_NULL = msgspec.Raw(b"null")


def _size(raw: msgspec.Raw) -> int:
    """Bytes of a JSON value; 0 for null."""
    data = bytes(raw)
    return 0 if data == b"null" else len(data)


class _Delta(msgspec.Struct, frozen=True, gc=False):
    content: str | None = None
    tool_calls: msgspec.Raw = _NULL
    reasoning_content: str | None = None


class _Choice(msgspec.Struct, frozen=True, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """One `chat.completion.chunk`, as far as the gateway needs it."""

    choices: list[_Choice] = []
    usage: ReportedUsage | None = None
    error: msgspec.Raw = _NULL
    service_tier: Any = None

    def only_text(self) -> str | None:
        """The text of a chunk that has nothing else in it; None for any other chunk."""
        if self.usage is not None or self.error is not _NULL or len(self.choices) != 1:
            return None
        choice = self.choices[0]
        delta = choice.delta
        if delta is None or choice.finish_reason or delta.tool_calls is not _NULL or delta.reasoning_content:
            return None
        return delta.content

    def output_bytes(self) -> int:
        """UTF-8 bytes of what this chunk adds to the answer: no fewer than its tokens."""
        size = 0
        for choice in self.choices:
            delta = choice.delta
            if delta is not None:
                size += len((delta.content or "").encode()) + len((delta.reasoning_content or "").encode())
                size += _size(delta.tool_calls)
        return size

    def failed(self) -> bool:
        return _size(self.error) > 0

    def finishes(self) -> bool:
        return any(choice.finish_reason for choice in self.choices)


read_chunk = msgspec.json.Decoder(Chunk).decode


def event(data: bytes) -> bytes:
    """One event."""
    return (
        b"data: %b\n\n" % data.replace(b"\r\n", b"\n").replace(b"\n", b"\ndata: ")
        if b"\n" in data
        else b"data: %b\n\n" % data
    )


def named_event(kind: str, data: bytes) -> bytes:
    """One event by its name, which must be fit for a line."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\n", b"\ndata: ") if b"\n" in data else data
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), lines)


def without_usage(data: bytes) -> bytes:
    """The chunk without `usage`, for a client that did not ask for it."""
    fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    if fields.pop("usage", None) is None:
        return data
    return msgspec.json.encode(fields)


def splice(data: bytes, name: bytes, value: bytes) -> bytes:
    """JSON object `data` with one more field at its end; every other byte stays as it was."""
    head = data.rstrip()
    if not head.endswith(b"}"):
        return data
    inner = head[:-1].rstrip()
    comma = b"" if inner.endswith(b"{") else b","
    return b'%b%b"%b":%b}' % (inner, comma, name, value)
