"""Parses multipart forms while their bytes arrive: however the bytes are cut, the parts are the same.

`python-multipart` does the parsing; this module bounds what a form may hold and words the errors. It keeps nothing of a
file and does not know what the fields mean.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from groundplan.core.errors import Invalid, TooLarge, WrongType
from groundplan.gateway.http.body_stream import BodyStream
from groundplan.gateway.http.request import Request

FIELD_BYTES = 256 << 10
"""Most bytes of all fields that are not files, together."""
LARGE_FIELD_BYTES = 16 << 20
"""Most bytes of all `large_fields` together."""
MAX_PARTS = 64
_LONGEST_NAME, _ENDING = 200, 12
"""Characters kept of a file's name, and of its end."""
_HINT = "Send multipart/form-data, as OpenAI's clients do."
_NAME = re.compile(r"[A-Za-z0-9_\-\[\].]{1,64}", re.ASCII)
_EXTENDED = re.compile(rb";\s*filename\*\s*=\s*\"?utf-8'[a-z-]{0,20}'([^;\"\s]+)", re.IGNORECASE)
"""A filename with non-ASCII characters, as .NET sends it besides an unreadable one, and some Java clients alone."""


@dataclass(frozen=True, slots=True)
class Part:
    """The head of one part. `filename` is None for a field that is not a file."""

    name: str
    filename: str | None
    content_type: bytes


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of the newest part."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The newest part is complete."""


Event = Part | Data | End


def is_form(content_type: bytes | None) -> bool:
    if content_type is None or content_type == b"application/json":
        return False
    return content_type.partition(b";")[0].strip().lower() == b"multipart/form-data"


def shorten_filename(name: str) -> str:
    """A filename without unprintable characters; a long one keeps its end, which tells its type."""
    name = "".join(c for c in name if c.isprintable())
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - _ENDING] + name[-_ENDING:]


class FormReader:
    """Parses a form: feed it bytes, get the parts' heads, data and ends in order. Raises `Invalid`. `large_fields`:
    fields that are not files and may be larger than others."""

    def __init__(self, content_type: bytes | None, large_fields: frozenset[str] = frozenset()) -> None:
        if not is_form(content_type):
            raise WrongType("the body is not multipart/form-data", code="content_type", hint=_HINT)
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 1 <= len(boundary) <= 200:
            raise Invalid("the form's Content-Type names no boundary", code="form_boundary", hint=_HINT)
        self._events: deque[Event] = deque()
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._parts = 0
        self._large_fields = large_fields
        self._sizes = [0, 0]
        """Bytes of fields that are not files: of ordinary ones, and of large ones."""
        self._is_file = self._is_large = False
        self.complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._head,
                "on_part_data": self._data,
                "on_part_end": lambda: self._events.append(End()),
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> list[Event]:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Invalid(f"the form is malformed: {error}", code="form_malformed", hint=_HINT) from error
        found = list(self._events)
        self._events.clear()
        return found

    def _begin(self) -> None:
        self._parts += 1
        self._headers = {}
        if self._parts > MAX_PARTS:
            raise Invalid(f"the form has more than {MAX_PARTS} parts", code="form_parts", hint=_HINT)

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.strip().lower()] = self._value.strip()
        self._name = self._value = b""

    def _head(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or _NAME.fullmatch(name) is None:
            raise Invalid("a part of the form has no usable name", code="form_malformed", hint=_HINT)
        extended = _EXTENDED.search(disposition)
        filename = options.get(b"filename") if extended is None else unquote_to_bytes(extended[1])
        self._is_file, self._is_large = filename is not None, name in self._large_fields
        text = None if filename is None else filename.decode("utf-8", "replace")
        self._events.append(Part(name, text, self._headers.get(b"content-type", b"")))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._sizes[self._is_large] += end - start
            if self._sizes[self._is_large] > (LARGE_FIELD_BYTES if self._is_large else FIELD_BYTES):
                raise TooLarge("the form's fields are too large", code="form_fields", hint="Send data as a file.")
        if end > start:
            self._events.append(Data(data[start:end]))

    def _end(self) -> None:
        self.complete = True


def form_stream(request: Request) -> BodyStream:
    """The stream of a request that must carry a form. Raises `WrongType` for another body, `Invalid` for none."""
    if request.stream is None:
        if not is_form(kind := request.headers.get(b"content-type")) and kind is not None:
            raise WrongType("the body is not multipart/form-data", code="content_type", hint=_HINT)
        raise Invalid("there is no form", code="form_missing", hint=_HINT)
    return request.stream


async def form_events(
    stream: BodyStream, content_type: bytes | None, large_fields: frozenset[str] = frozenset()
) -> AsyncIterator[Event]:
    """The parts of a streamed form. Raises `Invalid`, also if the form ends early."""
    reader = FormReader(content_type, large_fields)
    while data := await stream.read():
        for event in reader.feed(data):
            yield event
    if not reader.complete:
        raise Invalid("the form ends early", code="form_malformed", hint=_HINT)
