"""Takes prompts and answers from the workers of a HOME, redacts and seals them, and puts them into PostgreSQL.

Threads of the shipper's process, beside the shipping: workers stay free of it, and a database that is away costs
content (counted), never facts. Reads nothing back; deleting is the control process's.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter, deque
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import msgspec
import psycopg

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.database import connect
from groundplan.core.errors import GroundplanError, Invalid, NotFound
from groundplan.core.home import Home
from groundplan.core.last_known_address import Bounded
from groundplan.core.logger import get_logger
from groundplan.gateway.journal.frame_server import LENGTH, FrameServer
from groundplan.gateway.journal.ledger_rows import as_uuid, moment
from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.telemetry.content_link import CALL_BYTES, SERVICE, Content
from groundplan.gateway.telemetry.content_text import document
from groundplan.ledger import content_store

WAITING_BYTES = 32 << 20
AT_ONCE = 50
INTERVAL_S = 0.3
_FRAME_MOST = CALL_BYTES + (64 << 10)
_decode = msgspec.msgpack.Decoder(Content).decode
log = get_logger()


class ContentWriter:
    """Listens on loopback while open; one thread for each worker, one that writes."""

    def __init__(self, home: Home, url: str) -> None:
        self._home = home
        self._url = url
        self._server = FrameServer(home, SERVICE, self._take, self._write)
        self._stop = self._server.stop
        self._waiting: deque[tuple[Content, socket.socket | None]] = deque()
        self._bytes = 0
        self.lost = 0
        """Calls whose content was dropped here."""
        self._told = 0
        self._changed = threading.Lock()

    def open(self) -> None:
        """Start, and tell workers where."""
        self._server.open()

    def close(self) -> None:
        """Write what waits, if the database takes it."""
        self._server.close()

    def _take(self, connection: socket.socket) -> None:
        """Everything that one worker sends."""
        for frame in self._server.frames(connection, _FRAME_MOST):
            self._put(_decode(frame), connection)

    def _put(self, content: Content, origin: socket.socket | None = None) -> None:
        size = len(content.prompt) + len(content.answer)
        with self._changed:
            full = self._bytes + size > WAITING_BYTES
            if full:
                self.lost += 1
            else:
                self._bytes += size
                self._waiting.append((content, origin))
        if full:
            _done_with([origin])

    def _write(self) -> None:
        """Until the end; a connection is made only once there is something to write."""
        while True:
            last = self._stop.is_set()
            if self._waiting:
                try:
                    with connect(self._url, autocommit=True, kind=Bounded) as conn:
                        self._drain(conn)
                        while not self._stop.wait(INTERVAL_S):
                            self._drain(conn)
                        self._drain(conn)
                except (psycopg.Error, GroundplanError, OSError) as error:
                    log.warning("content is not written", problem=error.__class__.__name__)
                    self._stop.wait(1.0)
            if last:
                return
            self._stop.wait(INTERVAL_S)

    def _drain(self, conn: Conn) -> None:
        keys = SubjectKeys.of(self._home) if self._waiting else None
        while self._waiting and keys is not None:
            batch = [self._waiting[place] for place in range(min(AT_ONCE, len(self._waiting)))]
            with conn.transaction():
                content_store.add(conn, [row for content, _ in batch if (row := self._row(conn, keys, content))])
            with self._changed:
                for content, _ in batch:
                    self._waiting.popleft()
                    self._bytes -= len(content.prompt) + len(content.answer)
            _done_with([origin for _, origin in batch])
        if self.lost > self._told:
            log.warning("content was lost", calls=self.lost - self._told)
            self._told = self.lost

    def _row(self, conn: Conn, keys: SubjectKeys, content: Content) -> content_store.Row | None:
        """None for what cannot be kept: it must not hold up the others."""
        try:
            return _sealed(conn, keys, content)
        except (Invalid, NotFound, ValueError) as error:
            self.lost += 1
            log.warning("content cannot be kept", problem=error.__class__.__name__)
            return None


def _sealed(conn: Conn, keys: SubjectKeys, content: Content) -> content_store.Row | None:
    """Sealed under the key of whom it is about; None where nobody is, so that nothing is kept that cannot be erased."""
    person, call = as_uuid(content.person), UUID(bytes=content.call)
    if person is None:
        return None
    kept = document(content.prompt, content.answer, redacted=content.kind != "full")
    at = moment(content.at)
    # the cipher is deterministic: the id of the call in front hides that somebody asked the same before
    sealed = keys.seal(conn, person, f"{call}\n{kept.document}")
    until = at + timedelta(seconds=content.seconds)
    return content_store.Row(call, at, content.workload, content.kind, until, sealed, kept.found, kept.cut)


def _done_with(origins: list[socket.socket | None]) -> None:
    """Tell workers how many of their calls are not to be counted as lost; one that is gone hears nothing."""
    for origin, count in Counter(origin for origin in origins if origin is not None).items():
        with suppress(OSError):
            origin.send(LENGTH.pack(count), socket.MSG_DONTWAIT)
