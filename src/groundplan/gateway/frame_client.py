"""A worker's connection to a `frame_server`, reconnected whenever it is lost. Sending a frame never waits.

Subclasses define what a frame contains, and handle frames that could not be sent.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from groundplan.core.endpoints import lookup
from groundplan.core.home import Home
from groundplan.gateway.frame_server import LENGTH

MAX_BUFFER_BYTES = 8 << 20
"""Most bytes that wait for a server that reads nothing."""
RECONNECT_SECONDS = 0.5
CONNECT_SECONDS = 2.0


class FrameClient(asyncio.Protocol):
    """Keeps one connection to a service of this HOME, while `run` runs. Subclasses read its replies
    (`data_received`)."""

    def __init__(self, home: Home, service: str) -> None:
        self._home = home
        self._service = service
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()

    def send_frame(self, data: bytes) -> bool:
        """Send one frame; False where there is no connection, or too much waits. Never blocks."""
        transport = self._transport
        if transport is None or transport.get_write_buffer_size() > MAX_BUFFER_BYTES:
            return False
        transport.write(LENGTH.pack(len(data)) + data)
        return True

    def should_connect(self) -> bool:
        """Whether to connect now."""
        return True

    def reset(self) -> None:
        """Drop state of a connection that is lost."""

    async def run(self) -> None:
        """Connect, and reconnect, until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                endpoint = lookup(self._home, self._service)
                if endpoint is not None and self.should_connect():
                    port = int(endpoint.url.rpartition(":")[2])
                    with suppress(OSError, TimeoutError):
                        async with asyncio.timeout(CONNECT_SECONDS):
                            transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", port)
                        transport.write(endpoint.token.encode("ascii"))
                        self._lost.clear()
                        self._transport = transport
                        await self._lost.wait()
                await asyncio.sleep(RECONNECT_SECONDS)
        finally:
            if self._transport is not None:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self._transport = None
        self.reset()
        self._lost.set()
