"""Accepts clients over TLS, with a bounded number of handshakes at once.

An event loop's own server announces a client only after the TLS handshake, so clients that connect and say nothing
could use up all files that a worker may have open. When there are too many handshakes, the oldest is ended: a healthy
client needs a moment. Does not implement TLS itself.
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
_MIN_HANDSHAKES = 64
_CONNECTIONS_PER_HANDSHAKE = 4
"""One handshake may be in progress per so many connections that the worker may have."""
_ACCEPTS_PER_TURN = 64
"""Clients that are accepted before other tasks have a turn."""
_PAUSE_SECONDS = 0.2
"""Accepting pauses for so long after an error, such as no free file descriptor: being woken again and again for a
waiting client would take all of the processor."""
_LOG_SECONDS = 60.0
"""How long a reason for which certificates of clients are refused is not logged again."""
_NO_CERTIFICATE = "PEER_DID_NOT_RETURN_A_CERTIFICATE"
"""OpenSSL's reason where a client shows none."""
_log = logging.getLogger(__name__)


class TlsListener:
    """Accepts clients on one socket, which it closes at the end; each new client is shown the current `context`."""

    def __init__(self, server: Server, listening: socket.socket, context: ssl.SSLContext) -> None:
        self.context = context
        self._server = server
        self._listening = listening
        self._max_handshakes = max(_MIN_HANDSHAKES, server.limits.connections // _CONNECTIONS_PER_HANDSHAKE)
        self._handshakes: dict[socket.socket, asyncio.Task[None]] = {}
        """Handshakes in progress, the oldest first."""
        server.handshakes = self._handshakes
        self._pause_timer: asyncio.TimerHandle | None = None
        self._failure_log = FailureLog(_log)
        self._silent_until: dict[str, float] = {}
        """Until when a reason for refusing certificates is not logged, by the loop's clock."""
        listening.setblocking(False)
        self._start_accepting()

    def _start_accepting(self) -> None:
        self._pause_timer = None
        self._server.loop.add_reader(self._listening, self._accept_clients)

    def _accept_clients(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                client, address = self._listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(error)
                return
            self._failure_log.record_success()
            if len(self._handshakes) >= self._max_handshakes:
                self._end_oldest()
            self._handshakes[client] = self._server.loop.create_task(self._handshake(client, address[0]))

    def _pause(self, error: OSError) -> None:
        self._failure_log.record_failure("no client can be taken: %s", error)
        self._server.loop.remove_reader(self._listening)
        self._pause_timer = self._server.loop.call_later(_PAUSE_SECONDS, self._start_accepting)

    def _end_oldest(self) -> None:
        oldest = next(iter(self._handshakes))
        self._handshakes.pop(oldest).cancel()

    async def _handshake(self, client: socket.socket, address: str) -> None:
        """Do the handshake; after it, the client is one of the server's connections."""
        loop, seconds = self._server.loop, HANDSHAKE_SECONDS
        try:
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(
                self._server.create_connection, client, ssl=self.context, ssl_handshake_timeout=seconds
            )
        except (
            OSError
        ) as error:  # the client spoke no supported TLS, was too slow, or is gone: nothing can be sent to it
            client.close()
            self._log_refused_certificate(error, address)
        except BaseException:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()
            raise
        finally:
            self._handshakes.pop(client, None)

    def _log_refused_certificate(self, error: OSError, address: str) -> None:
        """Log why a client's certificate is refused: the client itself sees only that its connection ends."""
        reason = getattr(error, "verify_message", None)
        if isinstance(error, ssl.SSLError) and error.reason == _NO_CERTIFICATE:
            reason = "none was shown"
        now = self._server.loop.time()
        if reason is not None and now >= self._silent_until.get(reason, now):
            self._silent_until[reason] = now + _LOG_SECONDS
            _log.warning("the certificate of a client at %s is refused: %s", address, reason)

    def close(self) -> None:
        """Accept no more clients; handshakes in progress go on."""
        if self._pause_timer is not None:
            self._pause_timer.cancel()
        else:
            self._server.loop.remove_reader(self._listening)
        self._listening.close()
