"""Relays an answer of bytes, such as audio, from the upstream to the client as it comes.

Its cost is known from the request, so its content is not parsed. Where the upstream breaks off, the client's connection
is cut too: bytes have no place for an error.
"""

from __future__ import annotations

import re

from groundplan.blueprint.model import Deployment
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.stream import Streaming
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.upstream.connection import BodyMemory, UpstreamConnection
from groundplan.ledger.model import Usage

_CONTENT_TYPE = re.compile(
    rb'(audio/[\w.+-]{1,60}|application/octet-stream)(; ?[\w.+-]{1,40}=("[\w.+-]{1,40}"|[\w.+-]{1,40})){0,4}',
    re.ASCII | re.IGNORECASE,
)
UNKNOWN_TYPE = b"application/octet-stream"
"""Content-Type of bytes whose sender names none."""


def is_audio(kind: bytes) -> bool:
    """Whether a Content-Type is audio or bytes, and safe to pass on."""
    return _CONTENT_TYPE.fullmatch(kind) is not None


class BytesRelay:
    """A relay that passes bytes on unchanged. `usage`: where it follows from the request; otherwise None."""

    __slots__ = ("complete", "done", "output_bytes", "usage")

    def __init__(self, usage: Usage | None) -> None:
        self.usage = usage
        self.output_bytes = 0
        """Always 0: audio bytes say nothing about tokens."""
        self.done = False
        self.complete = False

    def feed(self, data: bytes) -> bytes:
        self.complete = True
        return data

    def closing_events(self, facts: bytes) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b""

    def error_event(self, reason: str, call_id: str) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b""


class BinaryStreaming(Streaming):
    """See the module."""

    __slots__ = ("content_type_lines",)

    def __init__(self, connection: UpstreamConnection, deployment: Deployment, relay: Relay, kind: bytes) -> None:
        super().__init__(connection, deployment, relay)
        self.content_type_lines = b"content-type: %b\r\n" % kind

    async def relay_rest(self, gateway: Gateway, exchange: Exchange, sequence: int, memory: BodyMemory) -> None:
        exchange.sent_chunks = None if exchange.sent_chunks is None else []
        await super().relay_rest(gateway, exchange, sequence, memory)

    def _idle_seconds(self, gateway: Gateway, idle: float) -> float:  # noqa: ARG002 -- its base's signature
        """Any data is part of the answer."""
        return idle

    def _feed(self, data: bytes) -> bytes:
        return self.relay.feed(data)

    def _write(self, exchange: Exchange, out: bytes, head: bytes = b"") -> None:
        """Write without recording: the answer may be long, and is no text."""
        exchange.response.write(out, head)
