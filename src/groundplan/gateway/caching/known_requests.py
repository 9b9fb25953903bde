"""Remembers the bytes of requests that were answered from the cache, so that a repeated one is not parsed again.

The parsed request and its digest follow from the bytes alone; whether and how it is answered does not, and is looked up
each time. Each client has its own, so that nobody learns from response times what others ask. Keeps no answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from groundplan.gateway.call.ask import Ask, fork_ask
from groundplan.gateway.call.exchange import Exchange

MAX_BODY_BYTES = 16 << 10
"""Longer bodies are not remembered."""
MAX_BYTES = 8 << 20
"""For all remembered requests; the oldest goes first."""
TIMES, ENTRY_BYTES = 3, 800
"""A body counts this many times its size, since the parsed request has its parts, and as many bytes more, which the
shortest one takes: it is most of what short requests take."""

_RequestKey = tuple[str, str, str, bytes]
"""(key, person, endpoint, body)"""


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """The parsed request of a body, and its digest."""

    ask: Ask
    said: bytes


class KnownRequests:
    """The remembered requests of one worker."""

    __slots__ = ("_known", "_size")

    def __init__(self) -> None:
        self._known: dict[_RequestKey, KnownRequest] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._known)

    def read_ask(self, exchange: Exchange) -> Ask:
        """What an identified call asks; fills in its `said` where that is known. Raises `Invalid` with what is wrong
        with it."""
        known = self._known.get(_request_key(exchange)) if self._known else None
        if known is None:
            return exchange.interface.read(exchange.request)
        exchange.body_digest = known.said
        return known.ask

    def remember(self, exchange: Exchange) -> None:
        """Remember the request of a call that was answered from the cache, if it follows from the body alone."""
        ask, workload, body = exchange.ask, exchange.workload, exchange.request.body
        if ask is None or workload is None or not exchange.body_digest or not exchange.interface.depends_on_body_only:
            return
        # the ask must be as it was read: one that is stored, or names files, was changed since
        if len(body) > MAX_BODY_BYTES or workload.keep is not None or ask.body is not body:
            return
        by = _request_key(exchange)
        if by in self._known:
            return
        # what the cached answer left out says nothing of the next one
        self._known[by] = KnownRequest(fork_ask(ask) if ask.left_out else ask, exchange.body_digest)
        self._size += _counted_bytes(body)
        while self._size > MAX_BYTES:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._size -= _counted_bytes(oldest[3])


def _counted_bytes(body: bytes) -> int:
    return TIMES * len(body) + ENTRY_BYTES


def _request_key(exchange: Exchange) -> _RequestKey:
    key = exchange.key
    return "" if key is None else key.id, exchange.person, exchange.endpoint, exchange.request.body
