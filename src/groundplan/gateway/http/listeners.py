"""The listening sockets of one worker and the certificate they show; a renewed certificate is shown from the next
handshake on, and no connection ends for it. Where it is told anew whose certificates callers may show, what was agreed
upon before ends with its next answer.

The sockets belong to whoever started the worker, and copies of them are opened and closed here: they themselves only
where nobody else in this process listens on them (`own`). What is served is the server's business.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from groundplan.core.endpoints import began, lives
from groundplan.core.errors import Invalid
from groundplan.core.home import Home, names_in, write_atomically
from groundplan.gateway.http.handshakes import HANDSHAKE_SECONDS, Handshakes
from groundplan.gateway.http.server import Server
from groundplan.gateway.http.tls import ServerFiles, Stamp
from groundplan.gateway.keepalive import probe

LEAVE = signal.SIGUSR2
"""Asks a worker, for which another one stands in, to leave: its calls end by themselves."""
_BACKLOG = 2048
_SPECIAL, _ESCAPED = re.compile(r'[,+"\\<>;]|^[# ]| $'), r"\\\g<0>"
LOOK_SECONDS = 2.0
"""How often the files of the certificate are looked at."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sockets:
    """What a worker listens on: `public`, within TLS where `files` are given, and then also `local` in the clear."""

    public: socket.socket
    files: ServerFiles | None = None
    local: socket.socket | None = None
    own: bool = False
    """They are closed with the front. The system goes on taking up connections, for which nobody is there any more, as
    long as any process holds them."""


class Listeners:
    """Use: `open`, `watch` as a task, `close`."""

    def __init__(self, server: Server, sockets: Sockets) -> None:
        self._server = server
        self._sockets = sockets
        self._stamp: Stamp | None = None
        self._callers: Stamp = ()
        self._public: asyncio.Server | Handshakes | None = None
        self._local: asyncio.Server | None = None
        self._refused: Stamp | None = None
        self._look = asyncio.Event()
        if sockets.files is not None and sockets.files.client_ca is not None:
            server.subject = subject_of

    async def open(self) -> None:
        """Begin to accept. Raises `Invalid` where certificate or key cannot be used."""
        files = self._sockets.files
        if files is None:
            self._public = await self._accept(self._sockets.public)
        else:
            self._stamp, self._callers = files.stamp(), files.callers()
            context, copy = files.context(), _copy(self._sockets.public)
            copy.listen(_BACKLOG)
            self._public = Handshakes(self._server, copy, context)
        if self._sockets.local is not None:
            self._local = await self._accept(self._sockets.local)

    async def _accept(self, listening: socket.socket) -> asyncio.Server:
        return await self._server.loop.create_server(self._server.protocol, sock=_copy(listening), backlog=_BACKLOG)

    def renew(self) -> bool:
        """Take up changed files; whether there were any. Files that cannot be used leave everything as it is."""
        files = self._sockets.files
        if files is None or not isinstance(self._public, Handshakes):
            return False
        found: Stamp = ()  # of files of which one is not there
        try:
            found, callers = files.stamp(), files.callers()
            if found == self._stamp:
                self._refused = None
                return False
            # also what was refused: who may read a file, and how many may be open, changes without a word in them
            context = files.context()
        except Invalid as error:
            if found != self._refused:
                self._refused = found
                _log.warning("the certificate in use stays: %s", error)
            return False
        self._public.context = context
        self._stamp, self._refused = found, None
        if callers != self._callers:
            self._callers = callers
            self._end_earlier()
            self._server.loop.call_later(HANDSHAKE_SECONDS, self._end_earlier)  # of who was being agreed with
        _log.info("the certificate in %s is shown from now on", files.cert)
        return True

    def _end_earlier(self) -> None:
        """What was agreed upon by files of before ends with its next answer, or soon where it asks nothing. What is no
        request any more looks at `distrusted` itself."""
        newest = self._public.context if isinstance(self._public, Handshakes) else None
        for connection in self._server.connections:
            agreed = None if connection.transport is None else connection.transport.get_extra_info("sslcontext")
            if agreed not in (None, newest):
                connection.distrusted = True
                connection.begin_drain()

    async def watch(self) -> None:
        """Look at the files for ever, and at once after `look`."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._look.wait()
            self._look.clear()
            self.renew()

    def look(self) -> None:
        """The files may have changed."""
        self._look.set()

    def close(self) -> None:
        """Accept no more; what is connected stays."""
        for each in (self._public, self._local):
            if each is not None:
                each.close()
        self._public = self._local = None
        for listening in (self._sockets.public, self._sockets.local) if self._sockets.own else ():
            if listening is not None:
                listening.close()


def _copy(listening: socket.socket) -> socket.socket:
    made = socket.socket(fileno=os.dup(listening.fileno()))
    probe(made)  # and so whoever connects
    return made


def subject_of(transport: asyncio.BaseTransport) -> str:
    """The subject of the certificate that a client proved to own, such as `CN=robot,O=acme`; empty without one. What
    would read as another part of it is escaped (RFC 4514)."""
    shown = transport.get_extra_info("peercert") or {}
    short = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C"}
    parts = (
        "+".join(f"{short.get(name, name)}={_SPECIAL.sub(_ESCAPED, value)}" for name, value in part)
        for part in reversed(shown.get("subject", ()))
    )
    text = ",".join(parts)
    return "".join(c if c.isprintable() else "?" for c in text)[:400]


def serving_file(home: Home, pid: int) -> Path:
    """What a worker with this pid has written since it is ready to serve."""
    return home.run / "serving" / str(pid)


def tell_serving(home: Home) -> None:
    """This worker is ready."""
    path = serving_file(home, os.getpid())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in names_in(path.parent):  # what those have left that were killed, also as they wrote it
        pid = name.lstrip(".").partition(".")[0]
        if pid.isdigit() and not lives(int(pid)):
            (path.parent / name).unlink(missing_ok=True)
    write_atomically(path, f"{began(os.getpid())}\n".encode())


def is_serving(home: Home, pid: int) -> bool:
    """Whether the worker with this pid is ready. One that was killed leaves its file behind, and in a container the
    next one may well get its pid."""
    try:
        return serving_file(home, pid).read_text().strip() == began(pid)
    except OSError:
        return False
