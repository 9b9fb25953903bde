"""Reads the requests of one HTTP/1.1 connection with httptools: checks their heads and bounds their bodies.

Does not know what a request means and answers nothing: how requests are answered, and the connection ended, is
`connection`'s.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

import httptools

from groundplan.gateway.http import refusals
from groundplan.gateway.http.body_stream import STREAM_MEMORY, BodyStream
from groundplan.gateway.http.bounds import Refusal
from groundplan.gateway.http.request import Request, origin_form
from groundplan.gateway.http.upgrade_offer import without_upgrade_offer

if TYPE_CHECKING:
    from groundplan.gateway.http.server_state import ServerState

IDLE, _HEAD, BODY = 0, 1, 2
_LIST_HEADERS = frozenset(
    {b"x-forwarded-for", b"tracestate", b"traceparent", b"anthropic-beta", b"sec-websocket-protocol"}
)
"""Headers whose lines are joined into one list: each proxy may add its own line, and some clients send each item as a
line of its own. A trace has one parent: two joined `traceparent` lines make it invalid."""
_SINGLE_HEADERS = frozenset(
    {
        b"content-length", b"transfer-encoding", b"host", b"authorization", b"x-api-key", b"api-key",
        b"groundplan-on-behalf-of",
    }
)  # fmt: skip
"""Headers that decide how much is read and who is calling: with two of them, another server could go by the other
one."""
_HTTP_VERSIONS = frozenset({"1.0", "1.1"})
MAX_HEADER_LINES = 100
"""Header lines of one request, as most servers allow: a line of four bytes takes many times as much in memory."""
MAX_QUEUED = 64
"""Requests of one connection that wait for the answers to earlier ones. One read may bring thousands, each of which
takes many times its bytes in memory; after it, nothing is read while any of them waits."""
_PIECES_TO_JOIN = 1024
"""Number of body pieces that are joined into one: a piece of two bytes takes fifty in memory."""


class RequestReader(asyncio.Protocol, ABC):
    """The reading half of a connection. Complete requests are in `_queue`; what is wrong with the current one is in
    `_refusal`."""

    __slots__ = (
        "_body_started",
        "_closing",
        "_content_length",
        "_framing_bytes",
        "_ignores_upgrade",
        "_joined_parts",
        "_last_size",
        "_parser",
        "_parts",
        "_phase",
        "_queue",
        "_refusal",
        "_repeated_lines",
        "_replaced_header_bytes",
        "_request",
        "_size",
        "_tunnel",
        "client_subject",
        "deadline",
        "server",
        "waiting_since",
    )  # fmt: skip

    def __init__(self, server: ServerState) -> None:
        self.server = server
        self.client_subject = ""
        self.waiting_since = now = server.now()
        """When the connection was made, or its last request answered."""
        self.deadline = now + server.limits.head_seconds
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        """Requests that were read and not started yet."""
        self._closing = False
        self._body_started = 0.0
        """When the body of the current request began."""
        self._refusal: Refusal | None = None
        self._tunnel: BodyStream | None = None
        """Receives all further bytes once another protocol is spoken."""
        self._ignores_upgrade = False
        """The last head offers an upgrade that this server does not support, and is parsed again without the offer."""
        self._reset()

    def _reset(self) -> None:
        self._request = Request(0.0)
        """The request that is being read, or comes next."""
        self._phase = IDLE
        self._parts: list[bytes] = []
        self._joined_parts = 0
        """How many of the first `_parts` are already joined pieces."""
        self._size = 0
        self._content_length: int | None = None
        self._repeated_lines = self._replaced_header_bytes = 0
        """Header lines with the name of an earlier one, and the bytes of those that they replaced."""
        self._framing_bytes = 0
        """Bytes of reads that did not complete the head, or brought nothing of the body."""
        self._last_size = 0
        """`_size` as of the last read that brought some of the body."""

    # -- what its connection does -------------------------------------------------------------------------------------
    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write bytes to the client."""

    @property
    @abstractmethod
    def _is_busy(self) -> bool:
        """Whether a request is being answered or waits to be."""

    @property
    @abstractmethod
    def is_answering(self) -> bool:
        """Whether a request is being answered."""

    @abstractmethod
    def _start_request(self, request: Request, *, eagerly: bool = False) -> None:
        """Start answering a request."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Stop reading from the client: a body stream has enough for now."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Read from the client again."""

    @abstractmethod
    def _receive_other(self, data: bytes) -> None:
        """Receive bytes that are not part of a request."""

    # -- reading ------------------------------------------------------------------------------------------------------
    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._ignores_upgrade:
                self._reparse_without_upgrade(rest)
            elif self._tunnel is None:
                self._refuse(refusals.UPGRADE)
            else:
                self._closing = True  # further bytes are not HTTP
                self._receive_other(rest)
        except httptools.HttpParserError:
            self._refuse(refusals.MALFORMED)

    def _reparse_without_upgrade(self, rest: bytes) -> None:
        """Parse the last head again without its upgrade offer, then the bytes that followed it."""
        remaining = memoryview(rest)
        while self._ignores_upgrade and self._refusal is None:
            request, version = self._request, self._parser.get_http_version()
            self._ignores_upgrade, self._parser = False, httptools.HttpRequestParser(self)
            self._reset()
            try:
                self._parser.feed_data(without_upgrade_offer(request.method, request.target, version, request.headers))
                self._parser.feed_data(remaining)
            except httptools.HttpParserUpgrade as upgrade:
                remaining = remaining[upgrade.args[0] :]
                if not self._ignores_upgrade:
                    self._refuse(refusals.UPGRADE)  # only the first request of a connection may switch the protocol
            except httptools.HttpParserError:
                self._refuse(refusals.MALFORMED)

    def _check_partial_request(self, size: int) -> None:
        """Check a request of which `size` more bytes came and which is not complete: refuse it where it is too large,
        and set its deadline."""
        limits = self.server.limits
        if self._phase == BODY:
            if not self.is_answering:
                self.deadline = self._body_started + limits.body_seconds + self._size / limits.body_bytes_per_second
            else:
                self._body_started = self.server.now()  # its time begins when the previous answer is complete
            if self._size > self._last_size:
                self._last_size, self._framing_bytes = self._size, 0
                return
        # the parser keeps a header line until it ends, also one after a body
        self._framing_bytes += size
        if self._framing_bytes > limits.head_bytes:
            self._refuse(refusals.too_large_head(limits) if self._phase == _HEAD else refusals.BODY_FRAMING)

    @property
    def supports_chunked(self) -> bool:
        """Whether the client understands an answer in chunks."""
        return self._parser.get_http_version() != "1.0"

    # -- parser -------------------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        if self._refusal is not None:
            return
        if len(self._queue) >= MAX_QUEUED:
            self._refuse(refusals.TOO_MANY_QUEUED)
            return
        now = self.server.now()
        self._request.started = now
        self._phase = _HEAD
        self._repeated_lines = self._replaced_header_bytes = self._framing_bytes = 0
        if not self._is_busy:
            self.deadline = now + self.server.limits.head_seconds

    def on_url(self, url: bytes) -> None:
        if self._refusal is None:
            self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if self._phase == BODY:
            # a trailer comes too late for the decisions that it could change
            self._refuse(refusals.TRAILER)
            return
        headers = self._request.headers
        if len(headers) + self._repeated_lines >= MAX_HEADER_LINES:
            self._refuse(refusals.too_many_header_lines(MAX_HEADER_LINES))
            return
        if name in headers:
            self._repeated_lines += 1
            self._replaced_header_bytes += len(name) + len(value) + 4
            if name in _SINGLE_HEADERS:
                self._refuse(refusals.duplicate_header(name))
            elif name in _LIST_HEADERS:
                value = b"%b, %b" % (headers[name], value)
        headers[name] = value

    def on_headers_complete(self) -> None:
        request, limits = self._request, self.server.limits
        self._phase = BODY
        headers = request.headers
        size = sum(map(len, headers)) + sum(map(len, headers.values())) + 4 * len(headers) + len(request.target)
        if size + self._replaced_header_bytes > limits.head_bytes:
            self._refuse(refusals.too_large_head(limits))
        self._replaced_header_bytes = 0
        request.method = self._parser.get_method()
        if not request.target.startswith(b"/"):
            request.target = origin_form(request.target)
        version = self._parser.get_http_version()
        if b"host" not in headers or request.method == b"CONNECT" or version not in _HTTP_VERSIONS:
            self._refuse_request_line(request, version)
        if b"content-encoding" in headers:
            self._refuse_content_encoding(request)
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if b"upgrade" in headers:
            if not self._ignore_upgrade(headers[b"upgrade"]):
                self._start_websocket(request)
                return
            if self._ignores_upgrade:
                return  # the head is parsed once more
        if length is not None or coding is not None:
            self._expect_body(request, length, coding)

    def _ignore_upgrade(self, protocols: bytes) -> bool:
        """Whether a request that offers other protocols is answered as if it offered none: where WebSocket is not among
        them."""
        if b"websocket" in protocols.lower():
            return False
        self._ignores_upgrade = self._parser.should_upgrade()
        return True

    def _start_websocket(self, request: Request) -> None:
        """Hand the connection to the request's handler as a WebSocket, over `stream`; refuse it where that is not
        possible."""
        wants = b"upgrade" in request.headers.get(b"connection", b"").lower() and request.method == b"GET"
        websocket = request.headers[b"upgrade"].strip().lower() == b"websocket"
        known = self.server.accepts_websocket is not None and self.server.accepts_websocket(request)
        body = b"content-length" in request.headers or b"transfer-encoding" in request.headers
        alone = wants and websocket and not body and not self._is_busy
        if not alone or not known or self._refusal is not None:
            self._refuse(refusals.NO_WEBSOCKET if alone else refusals.UPGRADE)
            return
        self._tunnel = request.stream = BodyStream(self, self.server.loop, self.server.limits, allows_silence=True)
        request.keep_alive = False
        request.client_subject = self.client_subject
        self._start_request(request)

    def _expect_body(self, request: Request, length: bytes | None, coding: bytes | None) -> None:
        limits = self.server.limits
        self._framing_bytes = -limits.head_bytes  # the head ends in this read, and is not part of the body's framing
        if coding is not None and (length is not None or coding.strip().lower() != b"chunked"):
            self._refuse(refusals.AMBIGUOUS_LENGTH)
            return
        if coding is not None and self._parser.get_http_version() != "1.1":
            self._refuse(refusals.CHUNKED_HTTP10)
            return
        self._content_length = int(length) if length is not None and length.isdigit() else None
        if self.server.is_streamed is not None and self.server.is_streamed(request):
            self._stream_body(request)
            return
        if (refusal := self._body_refusal(request)) is not None:
            self._refuse(refusal)
        elif b"expect" in request.headers and self._expects_continue(request) and not (self._is_busy or self._refusal):
            self._send_continue()
        self._body_started = self.server.now()
        if not self._is_busy:
            self.deadline = self._body_started + limits.body_seconds

    def _expects_continue(self, request: Request) -> bool:
        """Whether the client sends its body only after `100 Continue`; a client of HTTP/1.0 never waits for that."""
        return request.headers.get(b"expect", b"").lower() == b"100-continue" and self.supports_chunked

    def _await_rest(self) -> None:
        """Give the client time for the rest of a request that began to arrive while an earlier one was answered; ask
        for its body where the client waits for that."""
        limits, now, request = self.server.limits, self.server.now(), self._request
        if self._phase == _HEAD:
            self.deadline = now + limits.head_seconds
            return
        self._body_started, self.deadline = now, now + limits.body_seconds + self._size / limits.body_bytes_per_second
        if not self._size and b"expect" in request.headers and self._expects_continue(request):
            self._send_continue()

    def _send_continue(self) -> None:
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _body_refusal(self, request: Request) -> Refusal | None:
        """Why the body that is to come is not read; None: it is."""
        length, server = self._content_length, self.server
        limits = server.limits
        if length is not None and length > limits.body_bytes:
            return refusals.too_large_body(limits.body_bytes)
        if length and not server.has_room(length):
            # an announced body is not held yet, so a client that sends nothing keeps nobody out
            return refusals.MEMORY_FULL
        scarce = length and server.would_be_scarce(length)
        if (length is None or length > limits.unknown_caller_body_bytes or scarce) and not server.is_known_caller(
            request
        ):
            return refusals.UNKNOWN_CALLER
        return refusals.MEMORY_FULL if length and scarce and not server.has_room_for(request, length) else None

    def _stream_body(self, request: Request) -> None:
        """Start the request's handler, which reads the body itself; the connection ends with the answer."""
        if self._refusal is not None:
            return  # the head was refused: the handler is not called
        if self._content_length is not None and self._content_length > self.server.limits.streamed_body_bytes:
            self._refuse(refusals.too_large_body(self.server.limits.streamed_body_bytes))
            return
        if not self.server.reserve_body(request, STREAM_MEMORY):
            self._refuse(refusals.MEMORY_FULL)
            return
        send_continue = self._send_continue if self._expects_continue(request) else None
        request.stream = BodyStream(self, self.server.loop, self.server.limits, send_continue=send_continue)
        request.keep_alive = False
        request.client_subject = self.client_subject
        if self._is_busy:
            self._queue.append(request)
            return
        self._start_request(request)

    def on_body(self, body: bytes) -> None:
        if self._refusal is None:
            self._size += len(body)
            if (stream := self._request.stream) is not None:
                if self._size > self.server.limits.streamed_body_bytes:
                    self._refuse(refusals.too_large_body(self.server.limits.streamed_body_bytes))
                else:
                    stream.feed(body)
            elif self._size > self.server.limits.body_bytes:
                self._refuse(refusals.too_large_body(self.server.limits.body_bytes))
            elif not self.server.reserve_body(self._request, len(body)):
                self._refuse(refusals.MEMORY_FULL)
            else:
                self._parts.append(body)
                if len(self._parts) - self._joined_parts == _PIECES_TO_JOIN:
                    self._parts[self._joined_parts :] = [b"".join(self._parts[self._joined_parts :])]
                    self._joined_parts += 1

    def on_message_complete(self) -> None:
        if self._refusal is not None or self._ignores_upgrade:
            return
        request = self._request
        if request.stream is not None:
            if self._tunnel is None:
                request.stream.end()
            self._reset()
            return
        keeps = self._parser.should_keep_alive()
        if keeps and b"connection" in request.headers and not self.supports_chunked:
            keeps = False  # an older client would have to be told that the connection stays open, and waits for its end
        request.keep_alive = keeps
        request.client_subject = self.client_subject
        request.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._reset()
        self._queue.append(request)  # the first of them is started when all received bytes are parsed

    # -- what is wrong ------------------------------------------------------------------------------------------------
    def _refuse(self, refusal: Refusal) -> None:
        """Refuse the current request; the first refusal counts."""
        if self._refusal is None:
            self._refusal = refusal
            self.server.refused_bodies += refusal is refusals.MEMORY_FULL
            if self._request.stream is not None:
                self._request.stream.fail(refusal)

    def _refuse_request_line(self, request: Request, version: str) -> None:
        if version not in _HTTP_VERSIONS:
            self._refuse(refusals.MALFORMED)  # the parser reads 0.9 and 2.0 as if they were 1.1
        elif request.method == b"CONNECT":
            self._refuse(refusals.NOT_A_PROXY)
        elif version != "1.0":
            self._refuse(refusals.HOST_MISSING)

    def _refuse_content_encoding(self, request: Request) -> None:
        if request.headers[b"content-encoding"].strip().lower() not in (b"", b"identity"):
            self._refuse(refusals.COMPRESSED_BODY)
