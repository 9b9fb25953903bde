"""Records what an upstream streams while it goes on to the client. What is done with it is `cache`'s."""

from __future__ import annotations

from groundplan.gateway.caching.entry import Flight
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.surfaces.relay_wrapper import RelayWrapper

MOST_BYTES = 4 << 20
"""Of a longer stream nothing is remembered."""


class Recorder(RelayWrapper):
    """A relay that remembers what the upstream sent, for the flight of its call once the stream is complete."""

    __slots__ = ("_events", "_flight", "_room")

    def __init__(self, inner: Relay, flight: Flight) -> None:
        super().__init__(inner)
        self._flight = flight
        self._events: list[bytes] = []
        self._room = MOST_BYTES

    def feed(self, data: bytes) -> bytes:
        self._room -= len(data) + 64
        if self._room >= 0:
            self._events.append(data)
        else:
            self._events = []
        return self._inner.feed(data)

    def closing_events(self, facts: bytes) -> bytes:
        if self._room >= 0:
            self._flight.events = tuple(self._events)
        return self._inner.closing_events(facts)
