"""Server-sent events: cutting a byte stream into events, and putting events together. Any cut of the bytes gives the
same events. Reads `data:` only; other fields are dropped, as OpenAI clients do. What an event says is others' to know.
"""

from __future__ import annotations

MAX_EVENT = 8 << 20
"""Bytes of one event, where its stream has no images."""
DONE = b"[DONE]"
END = b"data: [DONE]\n\n"
BOM = b"\xef\xbb\xbf"
_CR, _LF = b"\r\n"
"""As numbers, which are found in bytes five times as fast as bytes are by `in`: those are tried for a number first."""


class EventTooLarge(Exception):
    """One event is larger than what is read of one."""


class EventReader:
    """Feed bytes, get the data of each complete event that has any. `most`: bytes of the longest that is read."""

    __slots__ = ("_ended_in_cr", "_more", "_most", "_rest", "_size")

    def __init__(self, most: int = MAX_EVENT) -> None:
        self._most = most
        self._rest = b""
        self._more: list[bytes] = []
        """What came after `_rest` and ends no event."""
        self._size = 0
        """Bytes of `_more`."""
        self._ended_in_cr = False
        """What was read last ended a line with CR, which an LF may belong to that is still to come."""

    @property
    def between(self) -> bool:
        """Whether what came so far ends with an event."""
        return not (self._rest or self._ended_in_cr)

    def feed(self, data: bytes) -> list[bytes]:
        """Data of the events that are complete now (several `data:` lines are joined by LF). Raises `EventTooLarge`."""
        rest = self._rest
        if not rest and data.startswith(b"data: ") and data.find(b"\n") == len(data) - 2 and data.endswith(b"\n\n"):
            line = data[6:-2]
            if line and _CR not in line:
                return [line]  # one event of one line, which is what nearly every read brings
        if self._ended_in_cr and data:
            self._ended_in_cr, data = False, data.removeprefix(b"\n")
        if _CR in data:
            self._ended_in_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if rest and self._goes_on(data):
            return []
        if self._more:
            rest = b"".join((rest, *self._more))
            self._more, self._size = [], 0
        buffer = rest + data if rest else data
        *events, self._rest = buffer.split(b"\n\n")
        if len(self._rest) > self._most:
            raise EventTooLarge
        return [told for event in events if (told := _data(event))]

    def _goes_on(self, data: bytes) -> bool:
        """Keep what ends no event for later: an image is one line of megabytes that comes in many reads, and each byte
        is copied once, not at every read. Raises `EventTooLarge`."""
        last = self._more[-1] if self._more else self._rest
        if data.find(b"\n\n") >= 0 or (data.startswith(b"\n") and last.endswith(b"\n")):
            return False
        if data:
            self._more.append(data)
            self._size += len(data)
            if len(self._rest) + self._size > self._most:
                raise EventTooLarge
        return True


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and _LF not in event:
        return event[6:]
    lines = event.removeprefix(BOM).split(b"\n")
    lines = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def event(data: bytes) -> bytes:
    """One event."""
    return (
        b"data: %b\n\n" % data.replace(b"\r\n", b"\n").replace(b"\n", b"\ndata: ")
        if _LF in data
        else b"data: %b\n\n" % data
    )


def named_event(kind: str, data: bytes) -> bytes:
    """One event by its name, which must be fit for a line."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\n", b"\ndata: ") if _LF in data else data
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), lines)


def splice(data: bytes, name: bytes, value: bytes) -> bytes:
    """JSON object `data` with one more field at its end; every other byte stays as it was."""
    head = data.rstrip()
    if not head.endswith(b"}"):
        return data
    inner = head[:-1].rstrip()
    comma = b'"' if inner.endswith(b"{") else b',"'
    return b"".join((inner, comma, name, b'":', value, b"}"))


def ending(data: bytes, name: bytes, value: bytes) -> tuple[int, bytes]:
    """As `splice`, for a large one that is not to be made a second time: how many bytes of `data` stay, and what
    follows them."""
    kept = len(data.rstrip()) - 1
    if data[kept : kept + 1] != b"}":
        return len(data), b""
    while data[kept - 1 : kept].isspace():
        kept -= 1
    comma = b"" if data[kept - 1 : kept] == b"{" else b","
    return kept, b'%b"%b":%b}' % (comma, name, value)
