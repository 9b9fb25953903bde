"""Sends prompts and answers out of a worker, for workloads that keep them. The worker only passes bytes on.

They go to the content writer beside the shipper over a loopback connection whose buffer is the bounded queue: what does
not fit, or finds no writer, is lost and counted; so is what a writer had not acknowledged when it died. Facts are in
the journal and never lost. Nothing waits for this.
"""

from __future__ import annotations

import msgspec

from groundplan.blueprint.model import Keep
from groundplan.core.home import Home
from groundplan.gateway.frame_client import FrameClient
from groundplan.gateway.frame_server import LENGTH
from groundplan.gateway.telemetry.call_counters import CallCounters

SERVICE = "content-writer"
MAX_CALL_BYTES = 4 << 20
"""Most bytes of prompt and answer together; of a longer call nothing is kept."""


class Content(msgspec.Struct, frozen=True, array_like=True):
    """The content of one call. `person` is the id of the person it is about, else the key's."""

    call: bytes
    at: int
    """milliseconds since the epoch"""
    workload: str
    person: str
    kind: str
    """redacted | full"""
    seconds: int
    """How long it is kept."""
    prompt: bytes
    answer: bytes


_encode = msgspec.msgpack.Encoder().encode


def is_sampled(keep: Keep, call: bytes) -> bool:
    """Whether this call is in the sample that is kept; the last bytes of a UUIDv7 are random."""
    return keep.share >= 10_000 or int.from_bytes(call[-4:], "big") % 10_000 < keep.share


class ContentSender(FrameClient):
    """Sends content to the content writer of this HOME."""

    def __init__(self, home: Home, counters: CallCounters) -> None:
        super().__init__(home, SERVICE)
        self._counters = counters
        self._unacknowledged = 0
        """Calls that were sent and not yet acknowledged."""
        self._received = b""

    def send(self, content: Content) -> None:
        """Send the content of one call, or count it as lost. Never waits."""
        if len(content.prompt) + len(content.answer) > MAX_CALL_BYTES or not self.send_frame(_encode(content)):
            self._counters.content_lost += 1
        else:
            self._unacknowledged += 1

    def data_received(self, data: bytes) -> None:
        """Read acknowledgements: counts of calls that the writer is done with."""
        received = self._received + data
        complete = len(received) - len(received) % LENGTH.size
        self._unacknowledged -= sum(LENGTH.unpack_from(received, at)[0] for at in range(0, complete, LENGTH.size))
        self._received = received[complete:]

    def reset(self) -> None:
        self._counters.content_lost += max(0, self._unacknowledged)
        self._unacknowledged, self._received = 0, b""
