"""Stores cached answers in PostgreSQL for workloads that keep content in full, and sends them to every worker.

It runs in threads of the shipper's process. Each answer is sealed under the key of the person it was made for, so
erasing that person makes it unreadable; the digest of the request is inside the seal. Answers that were stopped,
cleared or have expired are not sent, and deleted. Whether a client may get an answer is decided by workers alone.
"""

from __future__ import annotations

import base64
import binascii
import logging
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import psycopg

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.database import connect
from groundplan.core.errors import GroundplanError, Invalid, NotFound
from groundplan.core.home import Home
from groundplan.core.last_known_address import TimeLimitedConnection
from groundplan.core.logger import get_logger
from groundplan.gateway.caching.cache_link import MAX_ANSWER_BYTES, SERVICE, StoredAnswer, StoreMessage
from groundplan.gateway.failure_log import FailureLog
from groundplan.gateway.frame_server import LENGTH, FrameServer
from groundplan.gateway.journal.ledger_rows import as_uuid
from groundplan.gateway.journal.ledger_store import Conn

CHANNEL = "groundplan_answers"
MAX_WAITING_BYTES = 32 << 20
FILL_BYTES = 64 << 20
"""Bytes of the newest answers that a worker gets when it connects."""
MAX_STORED_BYTES = 256 << 20
"""Bytes of the newest answers that are stored."""
BATCH_ANSWERS = 100
INTERVAL_S = 0.2
_POLL_S = 5.0
"""How often new answers are queried without a notification."""
_SWEEP_S = 60.0
_SEND_S = 5.0
_MAX_FRAME_BYTES = MAX_ANSWER_BYTES + (1 << 20)
_VALID = """a.expires_at > now()
  AND a.cleared = coalesce((SELECT c.number FROM answer_clear c WHERE c.workload = a.workload), 0)
  AND NOT EXISTS (SELECT 1 FROM kill_switch k WHERE k.scope = ANY(a.subjects)
    AND coalesce(k.lifted_at, 'infinity') >= a.made_at - interval '1 minute')"""
_WRITE_LOCK = "SELECT pg_advisory_xact_lock(31, 1)"
"""One replica writes at a time, so that a reader that has seen a number has seen all before it."""
_NO_IDLE_TRANSACTION = "SET idle_in_transaction_session_timeout = '5s'"
"""A stopped writer blocks the others for no longer."""
_INSERT = """INSERT INTO answer (call_id, workload, cleared, made_at, expires_at, size, subjects, sealed)
  VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (call_id) DO NOTHING"""
_NEWER = f"""SELECT a.number, CASE WHEN {_VALID} THEN a.sealed END FROM answer a
  WHERE a.number > %s ORDER BY a.number LIMIT %s"""
_FIRST = """SELECT coalesce(min(t.number), 1) - 1 FROM
  (SELECT number, sum(size) OVER (ORDER BY number DESC) AS all_newer FROM answer) t WHERE t.all_newer <= %s"""
_SWEEP = f"DELETE FROM answer a WHERE NOT ({_VALID}) OR a.number <= ({_FIRST})"
_decode = msgspec.msgpack.Decoder(StoreMessage).decode
_decode_answer = msgspec.msgpack.Decoder(StoredAnswer).decode
_encode = msgspec.msgpack.Encoder().encode
log = get_logger()
_log = logging.getLogger(__name__)


class _Worker:
    """One connected worker, and the number of the last answer that it was sent."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.position: int | None = None
        self.is_lost = False


class AnswerStore:
    """Listens on loopback while open: one thread for each worker, and one that writes and sends."""

    def __init__(self, home: Home, url: str) -> None:
        self._home = home
        self._url = url
        self._server = FrameServer(home, SERVICE, self._receive, self._run)
        self._stop = self._server.stop
        self._waiting: deque[StoredAnswer] = deque()
        self._dropped: deque[bytes] = deque()
        self._bytes = 0
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._swept = 0.0

    def open(self) -> None:
        """Start, and announce the address to workers."""
        self._server.open()

    def close(self) -> None:
        """Stop, after writing the waiting answers if the database takes them."""
        self._server.close()
        for worker in self._workers:
            with suppress(OSError):
                worker.connection.shutdown(socket.SHUT_RDWR)

    # from workers -----------------------------------------------------------------------------------------------------

    def _receive(self, connection: socket.socket) -> None:
        """Receive the messages of one worker, until it disconnects."""
        worker = _Worker(connection)
        with self._lock:
            self._workers.append(worker)
        try:
            for frame in self._server.frames(connection, _MAX_FRAME_BYTES):
                self._enqueue(_decode(frame))
        finally:
            worker.is_lost = True

    def _enqueue(self, message: StoreMessage) -> None:
        with self._lock:
            self._dropped.extend(message.dropped)
            if message.kept is not None and self._bytes + _size(message.kept) <= MAX_WAITING_BYTES:
                self._bytes += _size(message.kept)
                self._waiting.append(message.kept)

    # with PostgreSQL --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failure_log = FailureLog(_log)
        while not self._stop.is_set():
            try:
                with connect(self._url, autocommit=True, kind=TimeLimitedConnection) as conn:
                    conn.execute(f"LISTEN {CHANNEL}".encode())
                    conn.execute(_NO_IDLE_TRANSACTION.encode())
                    failure_log.record_success()
                    queried_at = 0.0
                    while not self._stop.is_set():
                        self._write_waiting(conn)
                        was_notified = any(True for _ in conn.notifies(timeout=INTERVAL_S, stop_after=1))
                        new = any(worker.position is None for worker in self._workers)
                        if was_notified or new or time.monotonic() - queried_at > _POLL_S:
                            queried_at = time.monotonic()
                            self._send_new(conn)
                        self._sweep(conn)
                    self._write_waiting(conn)
            except (psycopg.Error, GroundplanError, OSError) as error:
                failure_log.record_failure("answers are not kept: %s", error.__class__.__name__)
                self._stop.wait(1.0)

    def _write_waiting(self, conn: Conn) -> None:
        """Write the waiting answers, and delete the dropped ones."""
        keys = SubjectKeys.of(self._home) if self._waiting else None
        while self._waiting and keys is not None:
            batch = [self._waiting[place] for place in range(min(BATCH_ANSWERS, len(self._waiting)))]
            with conn.transaction():
                conn.execute(_WRITE_LOCK.encode())
                for kept in batch:
                    if (row := _row_or_none(conn, keys, kept)) is not None:
                        conn.execute(_INSERT.encode(), row)
                conn.execute(f"NOTIFY {CHANNEL}".encode())
            with self._lock:
                for kept in batch:
                    self._waiting.popleft()
                    self._bytes -= _size(kept)
        if self._dropped:
            with self._lock:
                dropped = [UUID(bytes=call) for call in self._dropped]
            conn.execute(b"DELETE FROM answer WHERE call_id = ANY(%s)", (dropped,))
            for _ in dropped:  # only after PostgreSQL took it: otherwise it is tried again
                self._dropped.popleft()

    def _send_new(self, conn: Conn) -> None:
        """Send every worker the answers that are new to it."""
        with self._lock:
            self._workers = [worker for worker in self._workers if not worker.is_lost]
            workers = list(self._workers)
        keys = SubjectKeys.of(self._home) if workers else None
        for worker in workers:
            if worker.position is None:
                row = conn.execute(_FIRST.encode(), (FILL_BYTES,)).fetchone()
                worker.position = int(row[0]) if row is not None else 0
            while keys is not None and not worker.is_lost and self._send_batch(conn, keys, worker):
                pass

    def _send_batch(self, conn: Conn, keys: SubjectKeys, worker: _Worker) -> bool:
        """Send the next answers; returns whether there may be more."""
        rows = conn.execute(_NEWER.encode(), (worker.position, BATCH_ANSWERS)).fetchall()
        for number, sealed in rows:
            data = _unseal(conn, keys, sealed) if sealed is not None else None
            worker.position = number
            if data is not None and not self._send(worker, data):
                return False
        return len(rows) == BATCH_ANSWERS

    @staticmethod
    def _send(worker: _Worker, data: bytes) -> bool:
        """Send one frame. False where the worker takes nothing: it is disconnected, and connects again."""
        frame = memoryview(LENGTH.pack(len(data)) + data)
        end = time.monotonic() + _SEND_S
        try:
            while frame:
                try:
                    frame = frame[worker.connection.send(frame, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.01)
        except OSError:
            worker.is_lost = True
            with suppress(OSError):
                worker.connection.shutdown(socket.SHUT_RDWR)
            return False
        return True

    def _sweep(self, conn: Conn) -> None:
        if time.monotonic() - self._swept > _SWEEP_S:
            self._swept = time.monotonic()
            conn.execute(_SWEEP.encode(), (MAX_STORED_BYTES,))


def _row_or_none(conn: Conn, keys: SubjectKeys, kept: StoredAnswer) -> tuple[object, ...] | None:
    """As `_row`; None also for an answer that cannot be stored, which must not hold up the others."""
    try:
        return _row(conn, keys, kept)
    except (Invalid, NotFound) as error:
        log.warning("an answer cannot be kept", problem=error.__class__.__name__)
        return None


def _row(conn: Conn, keys: SubjectKeys, kept: StoredAnswer) -> tuple[object, ...] | None:
    """The table row of an answer; None where it has no owner whose erasure could delete it. Raises `Invalid` where the
    owner's key cannot be read."""
    owner, call = as_uuid(kept.owner), UUID(bytes=kept.call)
    if owner is None:
        return None
    # the cipher is deterministic: the id of the call in front hides that two answers are the same
    sealed = keys.seal(conn, owner, f"{call}\n{base64.b64encode(_encode(kept)).decode()}")
    made, until = (datetime.fromtimestamp(at, UTC) for at in (kept.made, kept.until))
    return call, kept.workload, kept.cleared, made, until, _size(kept), kept.subjects, sealed


def _unseal(conn: Conn, keys: SubjectKeys, sealed: str) -> bytes | None:
    """The encoded answer; None where its person was erased, or it belongs to another HOME."""
    try:
        text = keys.unseal(conn, sealed)
        if text is None:
            return None
        data = base64.b64decode(text.partition("\n")[2], validate=True)
        _decode_answer(data)
    except (GroundplanError, binascii.Error, msgspec.MsgspecError):
        return None
    return data


def _size(kept: StoredAnswer) -> int:
    return (
        sum(len(part) for part in kept.events or [kept.whole or b""])
        + sum(len(p.text_with_head) for p in kept.passages)
        + 1024
    )
