"""Caches the last request head of a connection: a head with the same bytes, but for the length of its body, means the
same and need not be parsed.

Clients send the same lines with every request of a connection. Equal bytes have one meaning, so what the parser found
and the limits allowed holds again; a head that differs in more than the digits of Content-Length, or does not come
whole in one read, goes through the parser. Reads nothing by itself and answers nothing.
"""

from __future__ import annotations

import re

from groundplan.gateway.http.request import Request

MAX_MISSES = 3
"""Requests in a row that may miss before the cache is given up: some clients never send the same head twice."""
_MAX_LENGTH_DIGITS = 9
_CONTENT_LENGTH = b"content-length"
_find_content_length = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})\r\n", re.IGNORECASE).search
_UNCACHEABLE_HEADERS = (b"expect", b"upgrade", b"transfer-encoding", b"content-encoding")
"""With one of these headers, handling a request takes more than reading its body."""


class HeadCache:
    """The cached head of one connection."""

    __slots__ = ("_prefix", "_request", "_suffix", "_tries_left")

    def __init__(self) -> None:
        self._prefix = self._suffix = b""
        """The bytes of the head before the digits of its Content-Length, and those after them."""
        self._request: Request | None = None
        """The parsed head, without a body; None: nothing is cached."""
        self._tries_left = MAX_MISSES

    def remember(self, data: bytes, request: Request | None) -> None:
        """Cache the head of `data`, which the parser read as exactly one `request`; None: it read anything else."""
        self._request = None
        if not self._tries_left:
            return
        self._tries_left -= 1
        if (
            request is None
            or request.stream is not None
            or any(name in request.headers for name in _UNCACHEABLE_HEADERS)
        ):
            return
        end, line = data.find(b"\r\n\r\n") + 4, data.find(b"\r\n")
        found = _find_content_length(data, 0, end)
        # the connection has to know of HTTP/1.0 that its client understands no chunks
        if found is not None and len(data) - end == int(found[1]) and data.endswith(b" HTTP/1.1", 0, line):
            self._prefix, self._suffix = data[: found.start(1)], data[found.end(1) : end]
            method, target, client = request.method, request.target, request.client_subject
            # without its body, which would be kept for as long as the connection
            self._request = Request(0.0, method, target, request.headers, b"", request.keep_alive, client)

    def match(self, data: bytes, started: float) -> Request | None:
        """The request in `data`, if it has the cached head and is complete; else None."""
        known, before, after = self._request, self._prefix, self._suffix
        if known is None or not data.startswith(before):
            return None
        at = len(before)
        end = data.find(b"\r", at, at + _MAX_LENGTH_DIGITS + 1)
        if end < 0 or not data.startswith(after, end):
            return None
        digits, body = data[at:end], data[end + len(after) :]
        if not digits.isdigit() or len(body) != int(digits):
            return None
        self._tries_left = MAX_MISSES
        headers = known.headers
        if headers[_CONTENT_LENGTH] != digits:
            headers = {**headers, _CONTENT_LENGTH: digits}
        return Request(
            started, known.method, known.target, headers, body, known.keep_alive, known.client_subject, known
        )
