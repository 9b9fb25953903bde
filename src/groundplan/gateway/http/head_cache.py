"""The head that a client sent last on its connection: where the next one is the same but for the length of its body, it
says the same, and need not be parsed.

Clients send the same lines with every request of a connection. Equal bytes have one meaning, so what the parser found
and the limits allowed holds again; whatever differs in more than the digits of Content-Length, or does not come whole
in one read, goes through the parser. Reads nothing by itself and answers nothing.
"""

from __future__ import annotations

import re

from groundplan.gateway.http.request import Request

LOOKS = 3
"""Requests in a row whose heads are looked at, before that is given up: some clients never send one twice."""
_DIGITS = 9
_LENGTH = b"content-length"
_length = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})\r\n", re.IGNORECASE).search
_MORE = (b"expect", b"upgrade", b"transfer-encoding", b"content-encoding")
"""With these there is more to do than to read the body."""


class HeadCache:
    """Of one connection."""

    __slots__ = ("_after", "_before", "_looks", "_request")

    def __init__(self) -> None:
        self._before = self._after = b""
        """Its bytes before the digits of its Content-Length, and those after them."""
        self._request: Request | None = None
        """What it says; None: no head is known."""
        self._looks = LOOKS

    def look(self, data: bytes, request: Request | None) -> None:
        """Know the head of `data`, of which the parser made `request` and nothing else; None: it made something else of
        it."""
        self._request = None
        if not self._looks:
            return
        self._looks -= 1
        if request is None or request.stream is not None or any(name in request.headers for name in _MORE):
            return
        end, line = data.find(b"\r\n\r\n") + 4, data.find(b"\r\n")
        found = _length(data, 0, end)
        # of HTTP/1.0 a connection has to know that its client takes no chunks
        if found is not None and len(data) - end == int(found[1]) and data.endswith(b" HTTP/1.1", 0, line):
            self._before, self._after = data[: found.start(1)], data[found.end(1) : end]
            method, target, client = request.method, request.target, request.client
            # without its body, which would be held for as long as the connection
            self._request = Request(0.0, method, target, request.headers, b"", request.keep_alive, client)

    def again(self, data: bytes, started: float) -> Request | None:
        """The request that `data` is, where it is one with the known head, and whole."""
        known, before, after = self._request, self._before, self._after
        if known is None or not data.startswith(before):
            return None
        at = len(before)
        end = data.find(b"\r", at, at + _DIGITS + 1)
        if end < 0 or not data.startswith(after, end):
            return None
        digits, body = data[at:end], data[end + len(after) :]
        if not digits.isdigit() or len(body) != int(digits):
            return None
        self._looks = LOOKS
        headers = known.headers
        if headers[_LENGTH] != digits:
            headers = {**headers, _LENGTH: digits}
        return Request(started, known.method, known.target, headers, body, known.keep_alive, known.client, known)
