"""Forms with files, cut into parts while their bytes arrive: any cut of the bytes gives the same parts.

The bytes are taken apart by `python-multipart`; this bounds what a form may hold and words what is wrong. It keeps
nothing of a file and does not know what the fields mean.
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
"""Most that all fields which are no files may have together."""
LARGE_BYTES = 16 << 20
"""Most that those of them may have together which are named as large ones."""
MOST_PARTS = 64
_LONGEST_NAME, _ENDING = 200, 12
"""Characters of a file's name, and of its end."""
_HINT = "Send multipart/form-data, as OpenAI's clients do."
_NAME = re.compile(r"[A-Za-z0-9_\-\[\].]{1,64}", re.ASCII)
_EXTENDED = re.compile(rb";\s*filename\*\s*=\s*\"?utf-8'[a-z-]{0,20}'([^;\"\s]+)", re.IGNORECASE)
"""A file's name with other letters than English ones, as .NET writes it beside one in which it cannot be read, and
some of Java's clients alone."""


@dataclass(frozen=True, slots=True)
class Part:
    """The head of one part. `filename` is None for a field that is no file."""

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


def short_name(name: str) -> str:
    """A file's name without what cannot be printed; of a long one its end stays, by which it is known what it is."""
    name = "".join(c for c in name if c.isprintable())
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - _ENDING] + name[-_ENDING:]


class FormReader:
    """Feed bytes, get the parts' heads, data and ends in order. Raises `Invalid`. `large`: fields that are no files and
    may be as large as some."""

    def __init__(self, content_type: bytes | None, large: frozenset[str] = frozenset()) -> None:
        if not is_form(content_type):
            raise WrongType("the body is not multipart/form-data", code="content_type", hint=_HINT)
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 1 <= len(boundary) <= 200:
            raise Invalid("the form's Content-Type names no boundary", code="form_boundary", hint=_HINT)
        self._events: deque[Event] = deque()
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._parts = 0
        self._large = large
        self._sizes = [0, 0]
        """Of fields that are no files, and of large ones."""
        self._file = self._is_large = False
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
        if self._parts > MOST_PARTS:
            raise Invalid(f"the form has more than {MOST_PARTS} parts", code="form_parts", hint=_HINT)

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
        self._file, self._is_large = filename is not None, name in self._large
        text = None if filename is None else filename.decode("utf-8", "replace")
        self._events.append(Part(name, text, self._headers.get(b"content-type", b"")))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._file:
            self._sizes[self._is_large] += end - start
            if self._sizes[self._is_large] > (LARGE_BYTES if self._is_large else FIELD_BYTES):
                raise TooLarge("the form's fields are too large", code="form_fields", hint="Send data as a file.")
        if end > start:
            self._events.append(Data(data[start:end]))

    def _end(self) -> None:
        self.complete = True


def stream_of(request: Request) -> BodyStream:
    """The form that a request is to have. Raises `WrongType` for another body, `Invalid` for none."""
    if request.stream is None:
        if not is_form(kind := request.headers.get(b"content-type")) and kind is not None:
            raise WrongType("the body is not multipart/form-data", code="content_type", hint=_HINT)
        raise Invalid("there is no form", code="form_missing", hint=_HINT)
    return request.stream


async def events(
    stream: BodyStream, content_type: bytes | None, large: frozenset[str] = frozenset()
) -> AsyncIterator[Event]:
    """What a streamed form is made of. Raises `Invalid`, also for one that ends early."""
    reader = FormReader(content_type, large)
    while data := await stream.read():
        for event in reader.feed(data):
            yield event
    if not reader.complete:
        raise Invalid("the form ends early", code="form_malformed", hint=_HINT)
