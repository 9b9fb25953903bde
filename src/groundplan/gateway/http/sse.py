"""Server-sent events: splits a byte stream into events, and formats events. However the bytes are cut, the events are
the same. Reads `data:` only; other fields are dropped, as OpenAI clients do. Does not interpret the data."""

from __future__ import annotations

MAX_EVENT = 8 << 20
"""Most bytes of one event in a stream without images."""
DONE = b"[DONE]"
END = b"data: [DONE]\n\n"
BOM = b"\xef\xbb\xbf"
_CR, _LF = b"\r\n"
"""As integers, which `in` finds in bytes five times as fast as bytes: it tries bytes as an integer first."""


class EventTooLarge(Exception):
    """An event is larger than the reader accepts."""


class EventReader:
    """Feed bytes, get the data of each complete event that has any. `max_event`: bytes of the largest one."""

    __slots__ = ("_ended_in_cr", "_max_event", "_pending", "_pending_bytes", "_rest")

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._rest = b""
        self._pending: list[bytes] = []
        """Bytes that came after `_rest` and complete no event."""
        self._pending_bytes = 0
        """Bytes in `_pending`."""
        self._ended_in_cr = False
        """The last bytes ended a line with CR; an LF that belongs to it may still come."""

    @property
    def is_between_events(self) -> bool:
        """Whether the bytes so far end with a complete event."""
        return not (self._rest or self._ended_in_cr)

    @property
    def unfinished_bytes(self) -> int:
        """Bytes that are kept of an event that is not complete."""
        return len(self._rest) + self._pending_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """Data of the events that are complete now (several `data:` lines are joined by LF). Raises `EventTooLarge`."""
        rest = self._rest
        if not rest and data.startswith(b"data: ") and data.find(b"\n") == len(data) - 2 and data.endswith(b"\n\n"):
            line = data[6:-2]
            if line and _CR not in line:
                return [line]  # one event of one line, as in nearly every read
        if self._ended_in_cr and data:
            self._ended_in_cr, data = False, data.removeprefix(b"\n")
        if _CR in data:
            self._ended_in_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if rest and self._append_pending(data):
            return []
        if self._pending:
            rest = b"".join((rest, *self._pending))
            self._pending, self._pending_bytes = [], 0
        buffer = rest + data if rest else data
        *events, self._rest = buffer.split(b"\n\n")
        if len(self._rest) > self._max_event:
            raise EventTooLarge
        return [event_data for event in events if (event_data := _event_data(event))]

    def _append_pending(self, data: bytes) -> bool:
        """Keep bytes that complete no event for later; False if they may complete one. An image is one line of
        megabytes that comes in many reads: so each byte is copied once, not at every read. Raises `EventTooLarge`."""
        last = self._pending[-1] if self._pending else self._rest
        if data.find(b"\n\n") >= 0 or (data.startswith(b"\n") and last.endswith(b"\n")):
            return False
        if data:
            self._pending.append(data)
            self._pending_bytes += len(data)
            if len(self._rest) + self._pending_bytes > self._max_event:
                raise EventTooLarge
        return True


def _event_data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and _LF not in event:
        return event[6:]
    lines = event.removeprefix(BOM).split(b"\n")
    lines = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def format_event(data: bytes) -> bytes:
    """One event as bytes."""
    return (
        b"data: %b\n\n" % data.replace(b"\r\n", b"\n").replace(b"\n", b"\ndata: ")
        if _LF in data
        else b"data: %b\n\n" % data
    )


def format_named_event(kind: str, data: bytes) -> bytes:
    """One event with a name, which must not contain line ends."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\n", b"\ndata: ") if _LF in data else data
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), lines)


def append_field(data: bytes, name: bytes, value: bytes) -> bytes:
    """JSON object `data` with one more field at its end; every other byte stays the same."""
    head = data.rstrip()
    if not head.endswith(b"}"):
        return data
    inner = head[:-1].rstrip()
    comma = b'"' if inner.endswith(b"{") else b',"'
    return b"".join((inner, comma, name, b'":', value, b"}"))


def split_for_field(data: bytes, name: bytes, value: bytes) -> tuple[int, bytes]:
    """As `append_field`, without copying a large `data`: (how many bytes of `data` to keep, what follows them)."""
    end = len(data.rstrip()) - 1
    if data[end : end + 1] != b"}":
        return len(data), b""
    while data[end - 1 : end].isspace():
        end -= 1
    comma = b"" if data[end - 1 : end] == b"{" else b","
    return end, b'%b"%b":%b}' % (comma, name, value)
