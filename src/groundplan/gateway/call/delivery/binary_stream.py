"""An answer of bytes, such as sound, on its way from the upstream to the client as it comes.

What it costs is known from the request, so that nothing is looked for in it. Cut short, it is cut short for the client
too: bytes have no place for an error.
"""

from __future__ import annotations

import re

from groundplan.blueprint.model import Deployment
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.stream import Streaming
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.upstream.connection import UpstreamConnection
from groundplan.ledger.model import Usage

_KIND = re.compile(
    rb'(audio/[\w.+-]{1,60}|application/octet-stream)(; ?[\w.+-]{1,40}=("[\w.+-]{1,40}"|[\w.+-]{1,40})){0,4}',
    re.ASCII | re.IGNORECASE,
)
UNNAMED = b"application/octet-stream"
"""What bytes are whose sender does not say what they are."""


def is_sound(kind: bytes) -> bool:
    """Whether a Content-Type is one of sound, and fit to be passed on."""
    return _KIND.fullmatch(kind) is not None


class BytesRelay:
    """`usage`: where what was asked for says it all."""

    __slots__ = ("complete", "done", "output_bytes", "usage")

    def __init__(self, usage: Usage | None) -> None:
        self.usage = usage
        self.output_bytes = 0
        """They are no text, so they say nothing about tokens."""
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

    __slots__ = ("kind",)

    def __init__(self, connection: UpstreamConnection, deployment: Deployment, relay: Relay, kind: bytes) -> None:
        super().__init__(connection, deployment, relay)
        self.kind = b"content-type: %b\r\n" % kind

    async def rest(self, gateway: Gateway, exchange: Exchange, sequence: int) -> None:
        exchange.sent_chunks = None if exchange.sent_chunks is None else []
        await super().rest(gateway, exchange, sequence)

    def _until_first(self, gateway: Gateway, idle: float) -> float:  # noqa: ARG002 -- its base's signature
        """Whatever comes is of the answer."""
        return idle

    def _take(self, data: bytes) -> bytes:
        return self.relay.feed(data)

    def _write(self, exchange: Exchange, out: bytes, head: bytes = b"") -> None:
        """Nothing of it is kept: it may be long, and is no text."""
        exchange.response.write(out, head)
