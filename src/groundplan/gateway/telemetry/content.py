"""Prompts and answers on their way out of a worker, for workloads that keep them. The worker only passes bytes on.

They go to the content writer beside the shipper over a loopback connection whose buffer is the bounded queue: what does
not fit, or finds no writer, is lost and counted; so is what a writer has not said to be safe when it dies. Facts are
the journal's and are never lost. Nothing waits for this.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from groundplan.blueprint.model import Keep
from groundplan.core.endpoints import lookup
from groundplan.core.home import Home
from groundplan.gateway.journal.desk import LENGTH
from groundplan.gateway.telemetry.meters import Meters

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange

SERVICE = "content-writer"
BUFFER_BYTES = 8 << 20
CALL_BYTES = 4 << 20
"""Of prompt and answer together; of a longer call nothing is kept."""
AGAIN_SECONDS = 0.5


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


def offer(gateway: Gateway, exchange: Exchange) -> None:
    """Send what a call asked and was answered, where its workload keeps it and it was chosen."""
    workload, kept = exchange.workload, exchange.kept
    keep = workload.keep if workload is not None else None
    if workload is None or kept is None or keep is None or not chosen(keep, exchange.call.bytes):
        return
    if gateway.content is None:
        gateway.meters.content_lost += 1
        return
    gateway.content.send(
        Content(
            call=exchange.call.bytes,
            at=int(gateway.clock.now().timestamp() * 1000),
            workload=workload.name,
            person=exchange.person or (exchange.key.id if exchange.key is not None else ""),
            kind=keep.content,
            seconds=keep.seconds,
            prompt=exchange.request.body,
            answer=b"".join(kept),
        )
    )


class ContentSender(asyncio.Protocol):
    """Keeps one connection to the content writer of this HOME, while `run` runs."""

    def __init__(self, home: Home, meters: Meters) -> None:
        self._home = home
        self._meters = meters
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()
        self._unsafe = 0
        """Calls that were sent and are not known to be written."""
        self._heard = b""

    def send(self, content: Content) -> None:
        """Pass one call on, or count it as lost. Never waits."""
        transport = self._transport
        size = len(content.prompt) + len(content.answer)
        if transport is None or size > CALL_BYTES or transport.get_write_buffer_size() > BUFFER_BYTES:
            self._meters.content_lost += 1
            return
        self._unsafe += 1
        data = _encode(content)
        transport.write(LENGTH.pack(len(data)) + data)

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                endpoint = lookup(self._home, SERVICE)
                if endpoint is not None:
                    port = int(endpoint.url.rpartition(":")[2])
                    with suppress(OSError, TimeoutError):
                        async with asyncio.timeout(2.0):
                            transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", port)
                        transport.write(endpoint.token.encode("ascii"))
                        self._lost.clear()
                        self._transport = transport
                        await self._lost.wait()
                await asyncio.sleep(AGAIN_SECONDS)
        finally:
            if self._transport is not None:
                self._transport.close()

    def data_received(self, data: bytes) -> None:
        """The writer tells how many more calls it is done with."""
        heard = self._heard + data
        whole = len(heard) - len(heard) % LENGTH.size
        self._unsafe -= sum(LENGTH.unpack_from(heard, at)[0] for at in range(0, whole, LENGTH.size))
        self._heard = heard[whole:]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self._transport = None
        self._meters.content_lost += max(0, self._unsafe)
        self._unsafe, self._heard = 0, b""
        self._lost.set()
