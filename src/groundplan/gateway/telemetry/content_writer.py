"""Receives prompts and answers from the workers of a HOME, redacts and seals them, and writes them to PostgreSQL.

Runs in threads of the shipper's process, beside the shipping: it costs workers nothing, and a database that is away
costs content (counted), never facts. Reads nothing back; the control process deletes.
"""

from __future__ import annotations

import logging
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
from groundplan.core.last_known_address import TimeLimitedConnection
from groundplan.core.logger import get_logger
from groundplan.gateway.failure_log import FailureLog
from groundplan.gateway.frame_server import LENGTH, FrameServer
from groundplan.gateway.journal.ledger_rows import as_uuid, from_milliseconds
from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.telemetry.content_link import MAX_CALL_BYTES, SERVICE, Content
from groundplan.gateway.telemetry.content_text import kept_document
from groundplan.ledger import content_store

MAX_WAITING_BYTES = 32 << 20
BATCH_CALLS = 50
INTERVAL_S = 0.3
_MAX_FRAME = MAX_CALL_BYTES + (64 << 10)
_decode = msgspec.msgpack.Decoder(Content).decode
log = get_logger()
_log = logging.getLogger(__name__)


class ContentWriter:
    """Listens on loopback while open; one thread for each worker, one that writes."""

    def __init__(self, home: Home, url: str) -> None:
        self._home = home
        self._url = url
        self._server = FrameServer(home, SERVICE, self._receive, self._write)
        self._stop = self._server.stop
        self._waiting: deque[tuple[Content, socket.socket | None]] = deque()
        self._waiting_bytes = 0
        self.lost = 0
        """Calls whose content was dropped here."""
        self._reported_lost = 0
        self._lock = threading.Lock()

    def open(self) -> None:
        """Start, and announce the address to workers."""
        self._server.open()

    def close(self) -> None:
        """Write what waits, if the database accepts it."""
        self._server.close()

    def _receive(self, connection: socket.socket) -> None:
        """Receive everything that one worker sends."""
        for frame in self._server.frames(connection, _MAX_FRAME):
            self._enqueue(_decode(frame), connection)

    def _enqueue(self, content: Content, origin: socket.socket | None = None) -> None:
        size = len(content.prompt) + len(content.answer)
        with self._lock:
            full = self._waiting_bytes + size > MAX_WAITING_BYTES
            if full:
                self.lost += 1
            else:
                self._waiting_bytes += size
                self._waiting.append((content, origin))
        if full:
            _acknowledge([origin])

    def _write(self) -> None:
        """Write until the end; connect only once there is something to write."""
        failure_log = FailureLog(_log)
        while True:
            last = self._stop.is_set()
            if self._waiting:
                try:
                    with connect(self._url, autocommit=True, kind=TimeLimitedConnection) as conn:
                        self._drain(conn)
                        failure_log.record_success()
                        while not self._stop.wait(INTERVAL_S):
                            self._drain(conn)
                        self._drain(conn)
                except (psycopg.Error, GroundplanError, OSError) as error:
                    failure_log.record_failure("content is not written: %s", error.__class__.__name__)
                    self._stop.wait(1.0)
            if last:
                return
            self._stop.wait(INTERVAL_S)

    def _drain(self, conn: Conn) -> None:
        keys = SubjectKeys.of(self._home) if self._waiting else None
        while self._waiting and keys is not None:
            batch = [self._waiting[place] for place in range(min(BATCH_CALLS, len(self._waiting)))]
            with conn.transaction():
                content_store.add(conn, [row for content, _ in batch if (row := self._row(conn, keys, content))])
            with self._lock:
                for content, _ in batch:
                    self._waiting.popleft()
                    self._waiting_bytes -= len(content.prompt) + len(content.answer)
            _acknowledge([origin for _, origin in batch])
        if self.lost > self._reported_lost:
            log.warning("content was lost", calls=self.lost - self._reported_lost)
            self._reported_lost = self.lost

    def _row(self, conn: Conn, keys: SubjectKeys, content: Content) -> content_store.Row | None:
        """Return the row of a call; None for one that cannot be kept, which must not hold up the others."""
        try:
            return _seal_content(conn, keys, content)
        except (Invalid, NotFound, ValueError) as error:
            self.lost += 1
            log.warning("content cannot be kept", problem=error.__class__.__name__)
            return None


def _seal_content(conn: Conn, keys: SubjectKeys, content: Content) -> content_store.Row | None:
    """Return content sealed under the key of the person it is about; None without a person, since nothing is kept that
    cannot be erased."""
    person, call = as_uuid(content.person), UUID(bytes=content.call)
    if person is None:
        return None
    kept = kept_document(content.prompt, content.answer, redacted=content.kind != "full")
    at = from_milliseconds(content.at)
    # the cipher is deterministic: with the call's id in front, equal prompts of a person differ
    sealed = keys.seal(conn, person, f"{call}\n{kept.document}")
    until = at + timedelta(seconds=content.seconds)
    return content_store.Row(call, at, content.workload, content.kind, until, sealed, kept.removed, kept.is_cut)


def _acknowledge(origins: list[socket.socket | None]) -> None:
    """Acknowledge to workers the calls that must not be counted as lost; one that has gone away gets nothing."""
    for origin, count in Counter(origin for origin in origins if origin is not None).items():
        with suppress(OSError):
            origin.send(LENGTH.pack(count), socket.MSG_DONTWAIT)
