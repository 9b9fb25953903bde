"""The requests that come on one connection in HTTP/1.1, read by httptools: heads are judged, bodies bounded.

Does not know what a request means, and answers nothing: what becomes of one, and of the connection, is `connection`'s.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

import httptools

from groundplan.gateway.http import refusals
from groundplan.gateway.http.body_stream import HELD, BodyStream
from groundplan.gateway.http.bounds import Refusal
from groundplan.gateway.http.request import Request, origin_form
from groundplan.gateway.http.upgrade_offer import without_upgrade_offer

if TYPE_CHECKING:
    from groundplan.gateway.http.server_state import ServerState

IDLE, _HEAD, BODY = 0, 1, 2
_LISTS = frozenset({b"x-forwarded-for", b"tracestate", b"traceparent", b"anthropic-beta", b"sec-websocket-protocol"})
"""Headers whose lines are one list: each proxy may add its own, and clients name each thing by itself. A trace has one
parent, and is none with two."""
_ONCE = frozenset(
    {
        b"content-length", b"transfer-encoding", b"host", b"authorization", b"x-api-key", b"api-key",
        b"groundplan-on-behalf-of",
    }
)  # fmt: skip
"""Headers by which it is decided how much is read, and who asks for whom: of two of them somebody else may go by the
other one."""
_SPOKEN = frozenset({"1.0", "1.1"})
_MANY = 1024
"""Pieces of a body that are made one: two bytes that come alone take fifty."""


class RequestReader(asyncio.Protocol, ABC):
    """The half of a connection that reads. What it found is in `_queue`, what is wrong with it in `_refusal`."""

    __slots__ = (
        "_closing", "_grown", "_head_bytes", "_head_read", "_joined", "_length", "_offered", "_parser", "_parts",
        "_phase", "_queue", "_refusal", "_request", "_since", "_size", "_tunnel", "client", "deadline", "server",
        "waits_since",
    )  # fmt: skip

    def __init__(self, server: ServerState) -> None:
        self.server = server
        self.client = ""
        self.waits_since = now = server.now()
        """When it was made, or its last request answered."""
        self.deadline = now + server.limits.head_seconds
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        """Read, and not begun yet."""
        self._closing = False
        self._since = 0.0
        """When the body that is coming began."""
        self._refusal: Refusal | None = None
        self._tunnel: BodyStream | None = None
        """Takes all that comes once another protocol is spoken."""
        self._offered = False
        """The head that was read last offers one that is not."""
        self._reset()

    def _reset(self) -> None:
        self._request = Request(0.0)
        """The one that comes next, or is coming."""
        self._phase = IDLE
        self._parts: list[bytes] = []
        self._joined = 0
        """Of them, from the first."""
        self._size = 0
        self._length: int | None = None
        self._head_bytes = 0
        """Of header lines that others of the same name replaced."""
        self._head_read = 0
        """Of reads after which the head was not complete, or which brought nothing of the body."""
        self._grown = 0
        """Bytes of the body when there were more of it last."""

    # -- what its connection does -------------------------------------------------------------------------------------
    @abstractmethod
    def write(self, data: bytes) -> None:
        """Bytes for the client."""

    @property
    @abstractmethod
    def _busy(self) -> bool:
        """A request is being answered, or waits to be."""

    @property
    @abstractmethod
    def answering(self) -> bool:
        """A request is being answered."""

    @abstractmethod
    def _begin(self, request: Request, *, eagerly: bool = False) -> None:
        """Have a request answered."""

    @abstractmethod
    def pause_reading(self) -> None:
        """For a body that has enough for now."""

    @abstractmethod
    def resume_reading(self) -> None:
        """It takes more again."""

    @abstractmethod
    def _aside(self, data: bytes) -> None:
        """Bytes that are no request."""

    # -- reading ------------------------------------------------------------------------------------------------------
    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._offered:
                self._read_anew(rest)
            elif self._tunnel is None:
                self._refuse(refusals.UPGRADE)
            else:
                self._closing = True  # nothing that comes is HTTP any more
                self._aside(rest)
        except httptools.HttpParserError:
            self._refuse(refusals.MALFORMED)

    def _read_anew(self, rest: bytes) -> None:
        """The head that was read last, without what it offers, then what came behind it."""
        left = memoryview(rest)
        while self._offered and self._refusal is None:
            request, version = self._request, self._parser.get_http_version()
            self._offered, self._parser = False, httptools.HttpRequestParser(self)
            self._reset()
            try:
                self._parser.feed_data(without_upgrade_offer(request.method, request.target, version, request.headers))
                self._parser.feed_data(left)
            except httptools.HttpParserUpgrade as upgrade:
                left = left[upgrade.args[0] :]
                if not self._offered:
                    self._refuse(refusals.UPGRADE)  # another protocol is spoken by the first request alone
            except httptools.HttpParserError:
                self._refuse(refusals.MALFORMED)

    def _came_partly(self, size: int) -> None:
        """So many bytes of a request that is not all there: it may be neither too large nor too slow."""
        limits = self.server.limits
        if self._phase == BODY:
            if not self.answering:
                self.deadline = self._since + limits.body_seconds + self._size / limits.body_bytes_per_second
            else:
                self._since = self.server.now()  # its time begins when the answer before it is over
            if self._size > self._grown:
                self._grown, self._head_read = self._size, 0
                return
        # the parser holds a header line until it ends, also one behind a body
        self._head_read += size
        if self._head_read > limits.head:
            self._refuse(refusals.too_large_head(limits) if self._phase == _HEAD else refusals.FRAMING)

    @property
    def takes_chunks(self) -> bool:
        """Whether its client knows an answer in chunks."""
        return self._parser.get_http_version() != "1.0"

    # -- parser -------------------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        if self._refusal is not None:
            return
        now = self.server.now()
        self._request.started = now
        self._phase = _HEAD
        self._head_bytes = self._head_read = 0
        if not self._busy:
            self.deadline = now + self.server.limits.head_seconds

    def on_url(self, url: bytes) -> None:
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if self._phase == BODY:
            # a trailer comes after what it could change was decided upon
            self._refuse(refusals.TRAILER)
            return
        headers = self._request.headers
        if name in headers:
            self._head_bytes += len(name) + len(value) + 4
            if name in _ONCE:
                self._refuse(refusals.twice(name))
            elif name in _LISTS:
                value = b"%b, %b" % (headers[name], value)
        headers[name] = value

    def on_headers_complete(self) -> None:
        request, limits = self._request, self.server.limits
        self._phase = BODY
        headers = request.headers
        size = sum(map(len, headers)) + sum(map(len, headers.values())) + 4 * len(headers) + len(request.target)
        if size + self._head_bytes > limits.head:
            self._refuse(refusals.too_large_head(limits))
        self._head_bytes = 0
        request.method = self._parser.get_method()
        if not request.target.startswith(b"/"):
            request.target = origin_form(request.target)
        version = self._parser.get_http_version()
        if b"host" not in headers or request.method == b"CONNECT" or version not in _SPOKEN:
            self._refuse_form(request, version)
        if b"content-encoding" in headers:
            self._refuse_coding(request)
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if b"upgrade" in headers:
            if not self._is_passed_over(headers[b"upgrade"]):
                self._upgrade(request)
                return
            if self._offered:
                return  # the head comes once more
        if length is not None or coding is not None:
            self._expect_body(request, length, coding)

    def _is_passed_over(self, protocols: bytes) -> bool:
        """Whether none of the protocols that a request offers is spoken here: it is answered as if it offered none."""
        if b"websocket" in protocols.lower():
            return False
        self._offered = self._parser.should_upgrade()
        return True

    def _upgrade(self, request: Request) -> None:
        """From here on its handler speaks another protocol over `stream`, where it can."""
        wants = b"upgrade" in request.headers.get(b"connection", b"").lower() and request.method == b"GET"
        websocket = request.headers[b"upgrade"].strip().lower() == b"websocket"
        known = self.server.upgrades is not None and self.server.upgrades(request)
        body = b"content-length" in request.headers or b"transfer-encoding" in request.headers
        alone = wants and websocket and not body and not self._busy
        if not alone or not known or self._refusal is not None:
            self._refuse(refusals.NO_WEBSOCKET if alone else refusals.UPGRADE)
            return
        self._tunnel = request.stream = BodyStream(self, self.server.loop, self.server.limits, patient=True)
        request.keep_alive = False
        request.client = self.client
        self._begin(request)

    def _expect_body(self, request: Request, length: bytes | None, coding: bytes | None) -> None:
        limits = self.server.limits
        self._head_read = -limits.head  # the head, of which this read has an end, is none of what frames the body
        if coding is not None and (length is not None or coding.strip().lower() != b"chunked"):
            self._refuse(refusals.AMBIGUOUS)
            return
        if coding is not None and self._parser.get_http_version() != "1.1":
            self._refuse(refusals.CHUNKED_EARLY)
            return
        self._length = int(length) if length is not None and length.isdigit() else None
        if self.server.streams is not None and self.server.streams(request):
            self._stream_body(request)
            return
        if (refusal := self._unwanted(request)) is not None:
            self._refuse(refusal)
        elif b"expect" in request.headers and not self._busy and self._waits_to_be_asked(request):
            self._ask()
        self._since = self.server.now()
        if not self._busy:
            self.deadline = self._since + limits.body_seconds

    def _waits_to_be_asked(self, request: Request) -> bool:
        """Whether a client sends its body once it is asked for it; none of HTTP/1.0 does."""
        return request.headers.get(b"expect", b"").lower() == b"100-continue" and self.takes_chunks

    def _ask(self) -> None:
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _unwanted(self, request: Request) -> Refusal | None:
        """Why the body that is to come is not read."""
        length, server = self._length, self.server
        limits = server.limits
        if length is not None and length > limits.body:
            return refusals.too_large_body(limits.body)
        if length and not server.has_room(length):
            return refusals.FULL  # what is only announced is not held yet: who sends nothing keeps nobody out
        scarce = length and server.is_scarce(length)
        if (length is None or length > limits.stranger or scarce) and not server.is_known(request):
            return refusals.STRANGER
        return refusals.FULL if length and scarce and not server.has_room_of(request, length) else None

    def _stream_body(self, request: Request) -> None:
        """Its handler begins now and reads the body itself; the connection ends with the answer."""
        if self._refusal is not None:
            return  # of its head: nobody is asked
        if self._length is not None and self._length > self.server.limits.streamed:
            self._refuse(refusals.too_large_body(self.server.limits.streamed))
            return
        if not self.server.hold(request, HELD):
            self._refuse(refusals.FULL)
            return
        asked = self._ask if self._waits_to_be_asked(request) else None
        request.stream = BodyStream(self, self.server.loop, self.server.limits, ask=asked)
        request.keep_alive = False
        request.client = self.client
        if self._busy:
            self._queue.append(request)
            return
        self._begin(request)

    def on_body(self, body: bytes) -> None:
        if self._refusal is None:
            self._size += len(body)
            if (stream := self._request.stream) is not None:
                if self._size > self.server.limits.streamed:
                    self._refuse(refusals.too_large_body(self.server.limits.streamed))
                else:
                    stream.feed(body)
            elif self._size > self.server.limits.body:
                self._refuse(refusals.too_large_body(self.server.limits.body))
            elif not self.server.hold(self._request, len(body)):
                self._refuse(refusals.FULL)
            else:
                self._parts.append(body)
                if len(self._parts) - self._joined == _MANY:
                    self._parts[self._joined :] = [b"".join(self._parts[self._joined :])]
                    self._joined += 1

    def on_message_complete(self) -> None:
        if self._refusal is not None or self._offered:
            return
        request = self._request
        if request.stream is not None:
            if self._tunnel is None:
                request.stream.end()
            self._reset()
            return
        keeps = self._parser.should_keep_alive()
        if keeps and b"connection" in request.headers and not self.takes_chunks:
            keeps = False  # an older client would have to be told that it may ask again, and waits for the end
        request.keep_alive = keeps
        request.client = self.client
        request.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._reset()
        self._queue.append(request)  # the first of them begins when all that came is parsed

    # -- what is wrong ------------------------------------------------------------------------------------------------
    def _refuse(self, refusal: Refusal) -> None:
        """The first thing that is wrong is told."""
        if self._refusal is None:
            self._refusal = refusal
            self.server.refused += refusal is refusals.FULL
            if self._request.stream is not None:
                self._request.stream.fail(refusal)

    def _refuse_form(self, request: Request, version: str) -> None:
        if version not in _SPOKEN:
            self._refuse(refusals.MALFORMED)  # its parser reads 0.9 and 2.0 as if they were 1.1
        elif request.method == b"CONNECT":
            self._refuse(refusals.PROXY)
        elif version != "1.0":
            self._refuse(refusals.HOST_MISSING)

    def _refuse_coding(self, request: Request) -> None:
        if request.headers[b"content-encoding"].strip().lower() not in (b"", b"identity"):
            self._refuse(refusals.COMPRESSED)
