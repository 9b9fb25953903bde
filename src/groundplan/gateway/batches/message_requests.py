"""Splits the body of a message batch's creation into its requests while it arrives, so that its size costs no memory.

`{"requests": [{"custom_id": ..., "params": {...}}, ...]}` becomes the lines of an input file. What a request's `params`
mean is checked later, by `batch_check`. Pure.
"""

from __future__ import annotations

import re
from typing import NoReturn

import msgspec

from groundplan.core.errors import Invalid, TooLarge
from groundplan.gateway.batches.batch_lines import MAX_LINE_BYTES, RequestLine, max_lines
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT
from groundplan.gateway.http.strict_json import DECODE_ERRORS

_HEAD = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"requests"[ \t\r\n]*:[ \t\r\n]*\[')
_MAX_HEAD = 4096
_SPACE = re.compile(rb"[ \t\r\n]*+")
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
"""A complete string, the opening quote of an incomplete one, or a bracket."""
_INSIDE = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
"""The rest of a string as far as it has arrived, up to its closing quote or an incomplete escape."""
_CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_MAX_REQUESTS = max_lines(MESSAGES_ENDPOINT)
_ALLOWED_NEXT = {"head": b"", "first": b"{]", "comma": b"{", "request": b"", "next": b",]", "tail": b"}", "end": b""}
"""Bytes that may come next, by the state of the parser."""
_HINT = 'Send {"requests": [{"custom_id": ..., "params": {...}}, ...]}.'


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    custom_id: str
    params: msgspec.Raw


_request = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode


class RequestSplitter:
    """An incremental parser: `feed` the chunks of the body as they arrive, then `end`."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._expected = "head"
        self._begin = self._scanned = self._depth = 0
        self._in_string = False
        """Whether the scan stopped inside a string, such as an image, that has not arrived completely."""
        self._custom_ids: set[str] = set()

    @property
    def count(self) -> int:
        """Requests that have arrived completely."""
        return len(self._custom_ids)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of a request that has not arrived completely."""
        return len(self._rest)

    def feed(self, data: bytes) -> bytes:
        """Take a chunk of the body; return the lines of the requests that end in it. Raises `Invalid`, `TooLarge`."""
        self._rest += data
        lines, at = [], 0
        while True:
            if self._expected == "head":
                after = self._parse_head()
            elif self._expected == "request":
                after = self._scan_request()
                if after is not None:
                    lines.append(self._line(bytes(self._rest[self._begin : after])))
            else:
                after = self._parse_separator(at)
            if after is None:
                break
            at = after
        consumed = self._begin if self._expected == "request" else 0 if self._expected == "head" else len(self._rest)
        del self._rest[:consumed]
        self._begin, self._scanned = 0, max(0, self._scanned - consumed)
        if len(self._rest) > MAX_LINE_BYTES:
            self._too_large()
        return b"".join(lines)

    def end(self) -> None:
        """Finish after the last chunk. Raises `Invalid` if the body is incomplete or has no request."""
        if self._expected != "end":
            _invalid_body("the body ends in the middle")
        if not self._custom_ids:
            _invalid_body("requests is empty")

    def _parse_head(self) -> int | None:
        """The offset behind the opening of the list; None: it has not arrived completely."""
        found = _HEAD.match(self._rest)
        if found is None:
            if len(self._rest) > _MAX_HEAD or not _may_become_head(self._rest):
                _invalid_body("the body is not a list of requests")
            return None
        self._expected = "first"
        return found.end()

    def _parse_separator(self, at: int) -> int | None:
        """The offset behind the next separator, or of the next request; None: more of the body is needed."""
        space = _SPACE.match(self._rest, at)
        at = at if space is None else space.end()
        if at == len(self._rest):
            return None
        sign = self._rest[at : at + 1]
        if sign not in _ALLOWED_NEXT[self._expected]:
            allowed = " or ".join(repr(chr(each)) for each in _ALLOWED_NEXT[self._expected]) or "the end"
            _invalid_body(f"{bytes(sign).decode('latin-1')!r} stands where {allowed} is expected")
        if sign == b"{":
            self._expected = "request"
            self._begin = self._scanned = at
            self._depth = 0
            return at
        self._expected = {b",": "comma", b"]": "tail", b"}": "end"}[bytes(sign)]
        return at + 1

    def _scan_request(self) -> int | None:
        """The offset behind the request that has begun; None: it has not arrived completely."""
        if self._in_string and not self._skip_string():
            return None
        for token in _TOKEN.finditer(self._rest, self._scanned):
            sign, after = self._rest[token.start()], token.end()
            if sign == 0x22:
                if after - token.start() == 1:
                    self._in_string, self._scanned = True, after
                    self._skip_string()
                    return None
                continue
            self._depth += 1 if sign in b"{[" else -1
            if not self._depth:
                self._expected = "next"
                return after
            self._scanned = after
        self._scanned = len(self._rest)
        return None

    def _skip_string(self) -> bool:
        """Scan to the end of the present string; False: it has not arrived completely. Nothing is scanned twice."""
        found = _INSIDE.match(self._rest, self._scanned)
        if found is None:
            raise AssertionError("the pattern also matches the empty string")
        self._scanned = found.end()
        if self._rest[self._scanned : self._scanned + 1] != b'"':
            return False
        self._in_string, self._scanned = False, self._scanned + 1
        return True

    def _line(self, data: bytes) -> bytes:
        """A complete request as a line of the input file. Raises `Invalid`, `TooLarge`."""
        number = len(self._custom_ids) + 1
        try:
            request = _request(data)
        except DECODE_ERRORS as error:
            raise Invalid(f"request {number} is wrong: {error}", code="body_invalid", hint=_HINT) from error
        name = request.custom_id
        if _CUSTOM_ID.fullmatch(name) is None:
            hint = "Use 1 to 64 letters, digits, _ and -."
            raise Invalid(f"the custom_id of request {number} is not a valid name", code="custom_id_invalid", hint=hint)
        if name in self._custom_ids:
            raise Invalid(f"the custom_id {name} is there twice", code="custom_id_twice", hint="Use each once.")
        if number > _MAX_REQUESTS:
            raise Invalid(
                f"there are more than {_MAX_REQUESTS} requests", code="batch_lines", hint="Make several batches."
            )
        self._custom_ids.add(name)
        params = request.params
        if b"\n" in bytes(params):
            params = msgspec.Raw(msgspec.json.format(bytes(params), indent=-1))
        line = _encode(RequestLine(name, "POST", MESSAGES_ENDPOINT, params))
        if len(line) > MAX_LINE_BYTES:
            self._too_large()
        return line + b"\n"

    def _too_large(self) -> NoReturn:
        raise TooLarge(
            f"request {len(self._custom_ids) + 1} is larger than {MAX_LINE_BYTES >> 20} MiB",
            code="request_too_large",
            hint="Send it as a call of its own.",
        )


def _may_become_head(data: bytearray) -> bool:
    """Whether the data may be the beginning of a valid body."""
    squeezed = re.sub(rb"[ \t\r\n]+", b"", data)
    return b'{"requests":['.startswith(squeezed)


def _invalid_body(message: str) -> NoReturn:
    raise Invalid(message, code="body_invalid", hint=_HINT)
