"""The body of an order of a message batch, cut into its requests while it arrives, so that its size costs no memory.

`{"requests": [{"custom_id": ..., "params": {...}}, ...]}` becomes the lines of an input file. What a request's `params`
mean is looked at later, by `batch_check`. Pure.
"""

from __future__ import annotations

import re
from typing import NoReturn

import msgspec

from groundplan.core.errors import Invalid, TooLarge
from groundplan.gateway.batches.batch_lines import LINE_BYTES, LineBody, most_lines
from groundplan.gateway.batches.batch_store import MESSAGES_ENDPOINT
from groundplan.gateway.http.strict_json import DECODE_ERRORS

_HEAD = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"requests"[ \t\r\n]*:[ \t\r\n]*\[')
_MOST_HEAD = 4096
_SPACE = re.compile(rb"[ \t\r\n]*+")
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
"""A string, the beginning of one that is not here whole, or a bracket."""
_INSIDE = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
"""What is there of a string, up to its end or an escape that is cut."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_MOST = most_lines(MESSAGES_ENDPOINT)
_FOLLOWS = {"head": b"", "first": b"{]", "comma": b"{", "request": b"", "next": b",]", "tail": b"}", "end": b""}
"""What may come, by what is expected."""
_HINT = 'Send {"requests": [{"custom_id": ..., "params": {...}}, ...]}.'


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    custom_id: str
    params: msgspec.Raw


_request = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode


class Requests:
    """`take` the body's pieces as they come, then `end`."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._expected = "head"
        self._begin = self._scanned = self._depth = 0
        self._in_string = False
        """What was looked at last is a string, such as an image, that is not here whole."""
        self._names: set[str] = set()

    @property
    def count(self) -> int:
        return len(self._names)

    @property
    def kept(self) -> int:
        """Bytes of a request that is not here to its end."""
        return len(self._rest)

    def take(self, data: bytes) -> bytes:
        """The lines of the requests that end in this piece. Raises `Invalid`."""
        self._rest += data
        lines, at = [], 0
        while True:
            if self._expected == "head":
                after = self._head()
            elif self._expected == "request":
                after = self._request_end()
                if after is not None:
                    lines.append(self._line(bytes(self._rest[self._begin : after])))
            else:
                after = self._mark(at)
            if after is None:
                break
            at = after
        kept = self._begin if self._expected == "request" else 0 if self._expected == "head" else len(self._rest)
        del self._rest[:kept]
        self._begin, self._scanned = 0, max(0, self._scanned - kept)
        if len(self._rest) > LINE_BYTES:
            self._too_large()
        return b"".join(lines)

    def end(self) -> None:
        """Nothing comes any more. Raises `Invalid` where something is missing."""
        if self._expected != "end":
            _wrong("the body ends in the middle")
        if not self._names:
            _wrong("requests is empty")

    def _head(self) -> int | None:
        found = _HEAD.match(self._rest)
        if found is None:
            if len(self._rest) > _MOST_HEAD or not _may_become_head(self._rest):
                _wrong("the body is not a list of requests")
            return None
        self._expected = "first"
        return found.end()

    def _mark(self, at: int) -> int | None:
        """Past the next sign between requests."""
        space = _SPACE.match(self._rest, at)
        at = at if space is None else space.end()
        if at == len(self._rest):
            return None
        sign = self._rest[at : at + 1]
        if sign not in _FOLLOWS[self._expected]:
            _wrong(
                f"{bytes(sign).decode('latin-1')!r} is where {_FOLLOWS[self._expected].decode() or 'nothing'} may be"
            )
        if sign == b"{":
            self._expected = "request"
            self._begin = self._scanned = at
            self._depth = 0
            return at
        self._expected = {b",": "comma", b"]": "tail", b"}": "end"}[bytes(sign)]
        return at + 1

    def _request_end(self) -> int | None:
        """Past the request that has begun; None: it is not here whole."""
        if self._in_string and not self._string_end():
            return None
        for token in _TOKEN.finditer(self._rest, self._scanned):
            sign, after = self._rest[token.start()], token.end()
            if sign == 0x22:
                if after - token.start() == 1:
                    self._in_string, self._scanned = True, after
                    self._string_end()
                    return None
                continue
            self._depth += 1 if sign in b"{[" else -1
            if not self._depth:
                self._expected = "next"
                return after
            self._scanned = after
        self._scanned = len(self._rest)
        return None

    def _string_end(self) -> bool:
        """Whether the string that is looked at ends here; what was looked at is not looked at again."""
        found = _INSIDE.match(self._rest, self._scanned)
        if found is None:
            raise AssertionError("nothing matches, too")
        self._scanned = found.end()
        if self._rest[self._scanned : self._scanned + 1] != b'"':
            return False
        self._in_string, self._scanned = False, self._scanned + 1
        return True

    def _line(self, data: bytes) -> bytes:
        number = len(self._names) + 1
        try:
            request = _request(data)
        except DECODE_ERRORS as error:
            raise Invalid(f"request {number} is wrong: {error}", code="body_invalid", hint=_HINT) from error
        name = request.custom_id
        if _NAME.fullmatch(name) is None:
            hint = "Use 1 to 64 letters, digits, _ and -."
            raise Invalid(f"the custom_id of request {number} is not a valid name", code="custom_id_invalid", hint=hint)
        if name in self._names:
            raise Invalid(f"the custom_id {name} is there twice", code="custom_id_twice", hint="Use each once.")
        if number > _MOST:
            raise Invalid(f"there are more than {_MOST} requests", code="batch_lines", hint="Make several batches.")
        self._names.add(name)
        params = request.params
        if b"\n" in bytes(params):
            params = msgspec.Raw(msgspec.json.format(bytes(params), indent=-1))
        line = _encode(LineBody(name, "POST", MESSAGES_ENDPOINT, params))
        if len(line) > LINE_BYTES:
            self._too_large()
        return line + b"\n"

    def _too_large(self) -> NoReturn:
        raise TooLarge(
            f"request {len(self._names) + 1} is larger than {LINE_BYTES >> 20} MiB",
            code="request_too_large",
            hint="Send it as a call of its own.",
        )


def _may_become_head(data: bytearray) -> bool:
    """Whether more bytes can still make a head of it."""
    squeezed = re.sub(rb"[ \t\r\n]+", b"", data)
    return b'{"requests":['.startswith(squeezed)


def _wrong(what: str) -> NoReturn:
    raise Invalid(what, code="body_invalid", hint=_HINT)
