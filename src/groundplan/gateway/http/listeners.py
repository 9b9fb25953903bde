"""The listening sockets of one worker and its TLS certificate. A renewed certificate is used from the next handshake
on, and no connection ends for it. When the accepted client CAs change, older connections end with their next answer.

The sockets belong to the process that started the worker; copies of them are opened and closed here, and they
themselves only if nothing else in this process listens on them (`close_sockets`). What is served is the server's
business.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from groundplan.core.endpoints import is_alive, start_ticks
from groundplan.core.errors import Invalid
from groundplan.core.home import Home, list_names, write_atomically
from groundplan.gateway.http.handshakes import HANDSHAKE_SECONDS, TlsListener
from groundplan.gateway.http.server import Server
from groundplan.gateway.http.tls import ServerFiles, Stamp
from groundplan.gateway.keepalive import enable_keepalive

LEAVE_SIGNAL = signal.SIGUSR2
"""Asks a worker that is being replaced by another one to leave once its calls have ended."""
_BACKLOG = 2048
_SPECIAL, _ESCAPED = re.compile(r'[,+"\\<>;]|^[# ]| $'), r"\\\g<0>"
FILE_CHECK_SECONDS = 2.0
"""How often the certificate files are checked for changes."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ListenSockets:
    """What a worker listens on: `public`, over TLS if `files` are given, and then also `local` in the clear."""

    public: socket.socket
    files: ServerFiles | None = None
    local: socket.socket | None = None
    close_sockets: bool = False
    """Close these sockets with the listeners. As long as any process holds them, the system goes on accepting
    connections that nobody will serve."""


class Listeners:
    """Use: `open`, `watch` as a task, `close`."""

    def __init__(self, server: Server, sockets: ListenSockets) -> None:
        self._server = server
        self._sockets = sockets
        self._files_stamp: Stamp | None = None
        self._client_ca_stamp: Stamp = ()
        self._public: asyncio.Server | TlsListener | None = None
        self._local: asyncio.Server | None = None
        self._refused_stamp: Stamp | None = None
        self._check_now = asyncio.Event()
        if sockets.files is not None and sockets.files.client_ca is not None:
            server.read_client_subject = _valid_subject

    async def open(self) -> None:
        """Begin to accept. Raises `Invalid` if certificate or key cannot be used."""
        files = self._sockets.files
        if files is None:
            self._public = await self._listen(self._sockets.public)
        else:
            self._files_stamp, self._client_ca_stamp = files.stamp(), files.client_ca_stamp()
            context, copy = files.context(), _duplicate(self._sockets.public)
            copy.listen(_BACKLOG)
            self._public = TlsListener(self._server, copy, context)
        if self._sockets.local is not None:
            self._local = await self._listen(self._sockets.local)

    async def _listen(self, listening: socket.socket) -> asyncio.Server:
        return await self._server.loop.create_server(
            self._server.create_connection, sock=_duplicate(listening), backlog=_BACKLOG
        )

    def reload_certificate(self) -> bool:
        """Reload changed certificate files; returns whether they were reloaded. Files that cannot be used change
        nothing."""
        files = self._sockets.files
        if files is None or not isinstance(self._public, TlsListener):
            return False
        found: Stamp = ()  # stays empty if one of the files is missing
        try:
            found, callers = files.stamp(), files.client_ca_stamp()
            if found == self._files_stamp:
                self._refused_stamp = None
                return False
            # also files that were refused before: who may read a file, and how many may be open, changes without a
            # change in them
            context = files.context()
        except Invalid as error:
            if found != self._refused_stamp:
                self._refused_stamp = found
                _log.warning("the certificate in use stays: %s", error)
            return False
        self._public.context = context
        self._files_stamp, self._refused_stamp = found, None
        if callers != self._client_ca_stamp:
            self._client_ca_stamp = callers
            self._drain_outdated()
            # for clients that were in a handshake
            self._server.loop.call_later(HANDSHAKE_SECONDS, self._drain_outdated)
        _log.info("the certificate in %s is shown from now on", files.cert)
        return True

    def _drain_outdated(self) -> None:
        """Drain connections that were made with an earlier context: they end with their next answer, or soon if they
        are idle. Upgraded connections check `client_ca_changed` themselves."""
        newest = self._public.context if isinstance(self._public, TlsListener) else None
        for connection in self._server.connections:
            agreed = None if connection.transport is None else connection.transport.get_extra_info("sslcontext")
            if agreed not in (None, newest):
                connection.client_ca_changed = True
                connection.begin_drain()

    async def watch(self) -> None:
        """Check the files periodically, and at once after `check_soon`; never returns."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(FILE_CHECK_SECONDS):
                    await self._check_now.wait()
            self._check_now.clear()
            self.reload_certificate()

    def check_soon(self) -> None:
        """Have `watch` check the files now."""
        self._check_now.set()

    def close(self) -> None:
        """Accept no more connections; existing ones stay."""
        for each in (self._public, self._local):
            if each is not None:
                each.close()
        self._public = self._local = None
        for listening in (self._sockets.public, self._sockets.local) if self._sockets.close_sockets else ():
            if listening is not None:
                listening.close()


def _duplicate(listening: socket.socket) -> socket.socket:
    duplicate = socket.socket(fileno=os.dup(listening.fileno()))
    enable_keepalive(duplicate)  # inherited by accepted connections
    return duplicate


def _valid_subject(transport: asyncio.BaseTransport) -> str | None:
    """`certificate_subject`, or None if the certificate has expired: a client of TLS 1.2 may resume a session, and
    OpenSSL then checks no certificate again."""
    shown = transport.get_extra_info("peercert") or {}
    if "notAfter" in shown and ssl.cert_time_to_seconds(shown["notAfter"]) < time.time():
        return None
    return certificate_subject(transport)


def certificate_subject(transport: asyncio.BaseTransport) -> str:
    """The subject of the certificate that a client proved to own, such as `CN=robot,O=acme`; empty without one.
    Characters that would begin another attribute are escaped (RFC 4514)."""
    shown = transport.get_extra_info("peercert") or {}
    short = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C"}
    parts = (
        "+".join(f"{short.get(name, name)}={_SPECIAL.sub(_ESCAPED, value)}" for name, value in part)
        for part in reversed(shown.get("subject", ()))
    )
    text = ",".join(parts)
    return "".join(c if c.isprintable() else "?" for c in text)[:400]


def serving_file(home: Home, pid: int) -> Path:
    """The file that the worker with this pid writes when it is ready to serve."""
    return home.run / "serving" / str(pid)


def mark_serving(home: Home) -> None:
    """Write the file that says that this worker is ready."""
    path = serving_file(home, os.getpid())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in list_names(path.parent):  # left by workers that were killed, perhaps while writing
        pid = name.lstrip(".").partition(".")[0]
        if pid.isdigit() and not is_alive(int(pid)):
            (path.parent / name).unlink(missing_ok=True)
    write_atomically(path, f"{start_ticks(os.getpid())}\n".encode())


def is_serving(home: Home, pid: int) -> bool:
    """Whether the worker with this pid is ready. A killed worker leaves its file behind, and in a container the next
    one may well get its pid: the file holds the start time of its process."""
    try:
        return serving_file(home, pid).read_text().strip() == start_ticks(pid)
    except OSError:
        return False
