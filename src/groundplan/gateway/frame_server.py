"""A local server that receives frames from the workers of a HOME, in the shipper's process: on loopback, by a token.

One thread accepts, one for each worker receives, one works. The owner defines what a frame means and what the work is.
"""

from __future__ import annotations

import logging
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

from groundplan.core.endpoints import announce_retrying, listen_locally, withdraw
from groundplan.core.home import Home
from groundplan.gateway.failure_log import FailureLog

LENGTH = struct.Struct("<I")
"""Length prefix of each frame."""
TOKEN_BYTES = 64
"""Length of the hexadecimal token that a worker sends first."""
TOKEN_SECONDS = 5.0
"""Time limit for the token: any process on this machine may connect, and each connection has a thread."""
RETRY_SECONDS = 0.2
"""Pause before the next worker is accepted after one could not be."""
_log = logging.getLogger(__name__)


class FrameServer:
    """Serves between `open` and `close`. `stop` is set when it is time to end."""

    def __init__(
        self, home: Home, service: str, take: Callable[[socket.socket], None], work: Callable[[], None]
    ) -> None:
        """`take` handles one worker's connection for as long as it lasts; `work` runs until `stop`."""
        self._home = home
        self._service = service
        self._serve = take
        self._work = work
        self._token = secrets.token_hex(TOKEN_BYTES // 2)
        self.stop = threading.Event()

    def open(self) -> None:
        """Start, and announce the address to workers."""
        self._listener = listen_locally()
        self._threads = [
            threading.Thread(target=target, name=f"{self._service}-{name}", daemon=True)
            for target, name in ((self._accept, "accept"), (self._work, "work"))
        ]
        for thread in self._threads:
            thread.start()
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        announce_retrying(self._home, self._service, url, self._token, self.stop)

    def close(self) -> None:
        """Stop receiving, and let the work end."""
        withdraw(self._home, self._service)
        self.stop.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def frames(self, connection: socket.socket, most: int) -> Iterator[bytes]:
        """Yield a worker's frames, until it disconnects, or sends one of more than `most` bytes. Raises OSError."""
        while not self.stop.is_set():
            size = LENGTH.unpack(receive_exactly(connection, LENGTH.size))[0]
            if size > most:
                return
            yield receive_exactly(connection, size)

    def _accept(self) -> None:
        """Accept until `stop`; where the process has no more files or threads, workers try again later."""
        failure_log = FailureLog(_log)
        while not self.stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if not self.stop.is_set():
                    failure_log.record_failure("%s takes no worker now: %s", self._service, error)
                self.stop.wait(RETRY_SECONDS)
                continue
            taking = threading.Thread(target=self._admit, args=(connection,), name=f"{self._service}-take", daemon=True)
            try:
                taking.start()
            except RuntimeError as error:
                connection.close()
                failure_log.record_failure("%s takes no worker now: %s", self._service, error)
                self.stop.wait(RETRY_SECONDS)
            else:
                failure_log.record_success()

    def _admit(self, connection: socket.socket) -> None:
        """Serve a worker that sends the token; others get no reply."""
        with connection, suppress(OSError, msgspec.MsgspecError):
            connection.settimeout(TOKEN_SECONDS)
            if secrets.compare_digest(receive_exactly(connection, TOKEN_BYTES), self._token.encode("ascii")):
                connection.settimeout(None)
                self._serve(connection)


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """Receive exactly `size` bytes. Raises OSError where the other side closes before."""
    parts: list[bytes] = []
    while size:
        data = connection.recv(min(size, 1 << 20))
        if not data:
            raise ConnectionResetError
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
