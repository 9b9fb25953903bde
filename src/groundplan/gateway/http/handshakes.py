"""Takes clients into TLS, a bounded number of them at once.

An event loop's own server tells nobody of a client before TLS is agreed upon, so whoever opened connections and said
nothing could take all files that a worker may have open. Among too many the one that has taken longest is ended: who is
well needs a moment. Does not speak TLS itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import suppress

from groundplan.gateway.failure_log import FailureLog
from groundplan.gateway.http.server import Server

HANDSHAKE_SECONDS = 10.0
_FEWEST = 64
_SHARE = 4
"""Beside the clients that a worker may have, one to so many may be on their way."""
_AT_ONCE = 64
"""Clients that are taken before others have a turn."""
_REST_SECONDS = 0.2
"""No more are taken for so long where one could not be, as where no file can be opened: to be told again and again that
one waits would take all of the processor."""
_log = logging.getLogger(__name__)


class Handshakes:
    """Of one listening socket, which is closed at the end; each client is shown the newest `context`."""

    def __init__(self, server: Server, listening: socket.socket, context: ssl.SSLContext) -> None:
        self.context = context
        self._server = server
        self._listening = listening
        self._most = max(_FEWEST, server.limits.connections // _SHARE)
        self._shaking: dict[socket.socket, asyncio.Task[None]] = {}
        """The one that began first comes first."""
        self._rest: asyncio.TimerHandle | None = None
        self._problem = FailureLog(_log)
        listening.setblocking(False)
        self._accept()

    def _accept(self) -> None:
        self._rest = None
        self._server.loop.add_reader(self._listening, self._take)

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, _ = self._listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(error)
                return
            self._problem.over()
            if len(self._shaking) >= self._most:
                self._end_oldest()
            self._shaking[client] = self._server.loop.create_task(self._shake(client))

    def _pause(self, error: OSError) -> None:
        self._problem.tell("no client can be taken: %s", error)
        self._server.loop.remove_reader(self._listening)
        self._rest = self._server.loop.call_later(_REST_SECONDS, self._accept)

    def _end_oldest(self) -> None:
        oldest = next(iter(self._shaking))
        self._shaking.pop(oldest).cancel()

    async def _shake(self, client: socket.socket) -> None:
        """Ends with the handshake; from then on the client is one of the server's."""
        loop, seconds = self._server.loop, HANDSHAKE_SECONDS
        try:
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(
                self._server.protocol, client, ssl=self.context, ssl_handshake_timeout=seconds
            )
        except OSError:  # it spoke no TLS that we do, too slowly, or is gone: nothing can be said to it
            client.close()
        except BaseException:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()
            raise
        finally:
            self._shaking.pop(client, None)

    def close(self) -> None:
        """Take no more; who is on the way stays."""
        if self._rest is not None:
            self._rest.cancel()
        else:
            self._server.loop.remove_reader(self._listening)
        self._listening.close()
