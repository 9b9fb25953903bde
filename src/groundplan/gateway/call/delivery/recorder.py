"""Records what an upstream streams while it is relayed to the client. What is done with the record is up to `cache`."""

from __future__ import annotations

from groundplan.gateway.caching.entry import Flight
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.surfaces.relay_wrapper import RelayWrapper

MAX_RECORDED_BYTES = 4 << 20
"""A longer stream is not recorded."""


class Recorder(RelayWrapper):
    """A relay that records what the upstream sent, and gives it to the flight of its call once the stream is
    complete."""

    __slots__ = ("_bytes_left", "_events", "_flight")

    def __init__(self, inner: Relay, flight: Flight) -> None:
        super().__init__(inner)
        self._flight = flight
        self._events: list[bytes] = []
        self._bytes_left = MAX_RECORDED_BYTES

    def feed(self, data: bytes) -> bytes:
        self._bytes_left -= len(data) + 64
        if self._bytes_left >= 0:
            self._events.append(data)
        else:
            self._events = []
        return self._inner.feed(data)

    def closing_events(self, facts: bytes) -> bytes:
        if self._bytes_left >= 0:
            self._flight.events = tuple(self._events)
        return self._inner.closing_events(facts)
