"""Prompts and answers on their way out of a worker, for workloads that keep them. The worker only passes bytes on.

They go to the content writer beside the shipper over a loopback connection whose buffer is the bounded queue: what does
not fit, or finds no writer, is lost and counted; so is what a writer has not said to be safe when it dies. Facts are
the journal's and are never lost. Nothing waits for this.
"""

from __future__ import annotations

import msgspec

from groundplan.blueprint.model import Keep
from groundplan.core.home import Home
from groundplan.gateway.journal.frame_client import FrameClient
from groundplan.gateway.journal.frame_server import LENGTH
from groundplan.gateway.telemetry.meters import Meters

SERVICE = "content-writer"
CALL_BYTES = 4 << 20
"""Of prompt and answer together; of a longer call nothing is kept."""


class Content(msgspec.Struct, frozen=True, array_like=True):
    """One call. `person` is whom it is about: a person's id, else the key's."""

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


def chosen(keep: Keep, call: bytes) -> bool:
    """Whether this call is among the share that is kept; the end of a UUIDv7 is chance."""
    return keep.share >= 10_000 or int.from_bytes(call[-4:], "big") % 10_000 < keep.share


class ContentSender(FrameClient):
    """Calls that go to the content writer of this HOME."""

    def __init__(self, home: Home, meters: Meters) -> None:
        super().__init__(home, SERVICE)
        self._meters = meters
        self._unsafe = 0
        """Calls that were sent and are not known to be written."""
        self._heard = b""

    def send(self, content: Content) -> None:
        """Pass one call on, or count it as lost. Never waits."""
        if len(content.prompt) + len(content.answer) > CALL_BYTES or not self.push(_encode(content)):
            self._meters.content_lost += 1
        else:
            self._unsafe += 1

    def data_received(self, data: bytes) -> None:
        """The writer tells how many more calls it is done with."""
        heard = self._heard + data
        whole = len(heard) - len(heard) % LENGTH.size
        self._unsafe -= sum(LENGTH.unpack_from(heard, at)[0] for at in range(0, whole, LENGTH.size))
        self._heard = heard[whole:]

    def forget(self) -> None:
        self._meters.content_lost += max(0, self._unsafe)
        self._unsafe, self._heard = 0, b""
