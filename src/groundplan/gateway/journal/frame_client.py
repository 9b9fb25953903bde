"""A worker's connection to a `frame_server`, which is made anew whenever it is lost, and frames that never wait.

What a frame says, and what becomes of one that could not be sent, is the subclass's.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from groundplan.core.endpoints import lookup
from groundplan.core.home import Home
from groundplan.gateway.journal.frame_server import LENGTH

BUFFER_BYTES = 8 << 20
"""More than this is not left waiting for a server that takes nothing."""
AGAIN_SECONDS = 0.5
CONNECT_SECONDS = 2.0


class FrameClient(asyncio.Protocol):
    """Keeps one connection to a service of this HOME, while `run` runs. Subclasses read what it says
    (`data_received`)."""

    def __init__(self, home: Home, service: str) -> None:
        self._home = home
        self._service = service
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()

    def push(self, data: bytes) -> bool:
        """Send one frame; False where nobody takes it. Never waits."""
        transport = self._transport
        if transport is None or transport.get_write_buffer_size() > BUFFER_BYTES:
            return False
        transport.write(LENGTH.pack(len(data)) + data)
        return True

    def wanted(self) -> bool:
        """Whether it is time to connect."""
        return True

    def forget(self) -> None:
        """What a connection that is gone had begun counts no more."""

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                endpoint = lookup(self._home, self._service)
                if endpoint is not None and self.wanted():
                    port = int(endpoint.url.rpartition(":")[2])
                    with suppress(OSError, TimeoutError):
                        async with asyncio.timeout(CONNECT_SECONDS):
                            transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", port)
                        transport.write(endpoint.token.encode("ascii"))
                        self._lost.clear()
                        self._transport = transport
                        await self._lost.wait()
                await asyncio.sleep(AGAIN_SECONDS)
        finally:
            if self._transport is not None:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self._transport = None
        self.forget()
        self._lost.set()
