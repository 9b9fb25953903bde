"""The sequencer: moves recorded entries from PostgreSQL into the files of the log, one process at a time.

A batch gets its leaf indexes in the database first, where every HOME sees them, and is then made durable in the files.
After a crash in between, the next start repairs both, in this HOME or another one: entries that only the database has
indexed are appended in the same order, and entries that only the files have are inserted into the database again. The
sequencer records no entries of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import Connection

from groundplan.core.audit import archive, archive_store, store
from groundplan.core.audit.entry import Entry, decode
from groundplan.core.audit.keys import load_private
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.merkle import leaf_hash
from groundplan.core.audit.rotate import Rotation, end_rotation, rotate
from groundplan.core.audit.tiles import WIDTH
from groundplan.core.database import connect
from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound, Unavailable
from groundplan.core.home import Home

BATCH = 4096
LATE_S, ALL_S = 10.0, 60.0
"""Seconds: entries that commit within the first are found at once; entries that commit later are found by a scan of
the whole queue, made this often."""
_IDLE_TIMEOUT_SQL: LiteralString = "SET idle_session_timeout = '30s'"
"""Ends the session of a process that is suspended, so that another one can take over."""
_NO_SORT_SQL: LiteralString = "SET enable_sort = off"
"""Has waiting entries read in the order of their index: a long queue, as after hours without this process, would
otherwise be sorted again for each batch."""
LostListener = Callable[[Connection[Any], Sequence[Entry]], None]
_log = logging.getLogger("groundplan.audit")


@dataclass(frozen=True, slots=True)
class HealResult:
    """How many entries `heal` repaired, and the indexes of `orphans`: entries in the files that this database lacks
    because the files were written beside another database."""

    repaired: int
    orphans: dict[UUID, int]


def heal(conn: Connection[Any], log: AuditLog, on_lost: LostListener | None = None) -> HealResult:
    """Bring files and database to the same state after a crash or a restore.

    Entries that are indexed only in the files get their indexes in the database; those that the database has lost are
    inserted again, and `on_lost` is called with them in that transaction. Entries that are indexed only in the database
    are appended to the files, in the same order. Raises `Conflict` (`audit_diverged`) where the two contradict each
    other.
    """
    size, indexed_count = log.checkpoint.size, store.next_leaf(conn)
    _check_agreement(conn, log, min(size, indexed_count))
    whole = known if (known := store.contiguous_until(conn)) <= indexed_count else archive_store.archived_until(conn)[0]
    complete = store.count_sequenced(conn, whole) == indexed_count - whole
    with conn.transaction():
        repaired, orphans, lost = _index_from_files(conn, log, indexed_count if complete else whole)
        if lost and on_lost is not None:
            on_lost(conn, lost)
    repaired += complete_files(conn, log, indexed_count)
    _note_contiguous(conn, log, orphans)
    return HealResult(repaired, orphans)


def complete_files(conn: Connection[Any], log: AuditLog, indexed_count: int) -> int:
    """Append the entries that are indexed only in the database, from archive files where they were moved there; return
    how many. Raises `Conflict` (`audit_diverged`) and whatever reading an archive file raises."""
    began = log.checkpoint.size
    while left := archive_store.list_ranges(conn, log.checkpoint.size, 1):
        _append_range(log, left[0])
    while log.checkpoint.size < indexed_count:
        at = log.checkpoint.size
        rows = store.sequenced_from(conn, at, BATCH)
        if not rows or [index for index, _ in rows] != list(range(at, at + len(rows))):
            raise _divergence(
                f"the files end at entry {at}, and the database lacks some of the {indexed_count} it had numbered"
            )
        log.append([body for _, body in rows])
    return log.checkpoint.size - began


def _append_range(log: AuditLog, archived: archive_store.Range) -> None:
    """Append what the log lacks of an archived range, after the whole archive file was checked."""
    hashes = [leaf_hash(body) for body in archive.read_bodies(archived)]
    had = log.checkpoint.size - archived.first
    own = (log.tiles.entry(archived.first + place, log.checkpoint.size) for place in range(had))
    if had < 0 or any(leaf_hash(body) != hash for body, hash in zip(own, hashes, strict=False)):
        raise _divergence(f"of entries {archived.first} to {archived.until - 1} the files have others than have left")
    batch: list[bytes] = []
    for place, body in enumerate(archive.read_bodies(archived)):
        if leaf_hash(body) != hashes[place]:
            raise _divergence(f"{archived.file} at {archived.url} changes")
        if place >= had:
            batch.append(body)
        if len(batch) == BATCH or place == len(hashes) - 1:
            log.append(batch)
            batch = []


def _note_contiguous(conn: Connection[Any], log: AuditLog, orphans: dict[UUID, int]) -> None:
    """Store how far the log is known to be complete, so that the next start need not count every entry."""
    if not orphans:
        store.set_contiguous_until(conn, log.checkpoint.size)


class QueueCursor:
    """The queue number after which waiting entries are looked for.

    Until a vacuum, which takes days to reach a large table, the index of waiting entries still visits every entry that
    was sequenced. So only the last seconds of the queue are read, and the whole queue every `ALL_S`: transactions do
    not commit in the order of their queue numbers.
    """

    def __init__(self) -> None:
        self._seen = self._settled = self._behind = -1
        self._moved = self._looked = time.monotonic()

    def lower_bound(self) -> int:
        now = time.monotonic()
        if now >= self._moved + LATE_S:
            self._moved, self._behind, self._settled = now, self._settled, self._seen
        if now >= self._looked + ALL_S:
            self._looked = now
            return -1
        return self._behind

    def note_seen(self, queued: Sequence[store.QueuedEntry]) -> None:
        self._seen = max(self._seen, *(entry.queued for entry in queued), -1)


def sequence_batch(
    conn: Connection[Any],
    log: AuditLog,
    orphans: dict[UUID, int],
    limit: int = BATCH,
    cursor: QueueCursor | None = None,
) -> int:
    """Sequence at most `limit` waiting entries and return how many there were. `orphans` are in the files already and
    only get their index."""
    queued = store.unsequenced(conn, limit, -1 if cursor is None else cursor.lower_bound())
    if cursor is not None:
        cursor.note_seen(queued)
    fresh = [entry for entry in queued if entry.id not in orphans]
    if fresh:
        # before the files: a successor in another HOME must sign no other entries under these indexes
        store.assign_indexes(conn, [entry.id for entry in fresh], log.checkpoint.size)
        log.append([entry.body for entry in fresh])
    for entry in queued:
        if entry.id in orphans:
            store.assign_indexes(conn, [entry.id], orphans.pop(entry.id))
    return len(queued)


def _index_from_files(conn: Connection[Any], log: AuditLog, start: int) -> tuple[int, dict[UUID, int], list[Entry]]:
    """Give entries in the files their indexes in the database. Returns how many lacked one, the orphans, and the
    entries that the database had lost and has again (without those of calls)."""
    size, repaired, orphans, lost = log.checkpoint.size, 0, dict[UUID, int](), list[Entry]()
    # a database that holds any of this log holds its first entry, or has archived it
    own = bool(archive_store.archived_until(conn)[0]) or [index for index, _ in store.sequenced_from(conn, 0, 1)] == [0]
    for bundle in range(start // WIDTH, -(-size // WIDTH)):
        first = bundle * WIDTH
        bodies = log.tiles.entries(bundle, min(WIDTH, size - first))
        entries = [decode(data) for data in bodies]
        repaired += store.assign_indexes(conn, [entry.id for entry in entries], first)
        known = store.existing_ids(conn, [entry.id for entry in entries])
        missing = [at for at, entry in enumerate(entries) if entry.id not in known]
        if own:
            try:
                store.insert_sequenced(conn, [(first + at, entries[at], bodies[at]) for at in missing])
            except psycopg.errors.UniqueViolation as error:
                raise _divergence(f"of entries {first} and later one is another in the database") from error
            repaired += len(missing)
            lost += [entries[at] for at in missing if entries[at].action != store.CALL_ACTION]
        else:
            orphans.update({entries[at].id: first + at for at in missing})
    return repaired, orphans, lost


def _check_agreement(conn: Connection[Any], log: AuditLog, size: int) -> None:
    if not size:
        return
    rows = store.sequenced_from(conn, size - 1, 1)
    index, body = rows[0] if rows else (-1, b"")
    if index == size - 1 and body != log.tiles.entry(size - 1, log.checkpoint.size):
        raise _divergence(f"entry {size - 1} is another one in the files than in the database")
    left = archive_store.newest_range(conn, log.checkpoint.size)
    with suppress(NotFound, Invalid):  # missing tiles do not stop the sequencer; `audit verify` names them
        if left is not None and not archive.is_in_tree(log.tiles, log.checkpoint, left):
            raise _divergence(f"entries {left.first} to {left.until - 1} that have left are others in the files")


def _divergence(message: str) -> Conflict:
    return Conflict(
        f"audit log and database do not belong together: {message}",
        code="audit_diverged",
        hint="Restore the folder audit and the database from the same backup.",
    )


class Sequencer:
    """A thread that sequences while this process holds the locks of the database and of the log, and waits for them
    otherwise.

    `problem` says why nothing is sequenced at the moment (None: this process sequences, or another one does).
    """

    def __init__(
        self, url: str, folder: Path, key: Ed25519PrivateKey, interval: float = 0.5, home: Home | None = None,
        on_lost: LostListener | None = None,
    ) -> None:  # fmt: skip
        self._url = url
        self._folder = folder
        self._key = key
        self._interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-sequencer", daemon=True)
        self.problem: str | None = None
        self._tell = on_lost
        """Called with the entries that the database had lost and has again."""
        self._home = home
        """Where the signing key is read again each time, since it may have been rotated."""
        self._rotating = threading.Lock()
        """Held by the caller of `rotate`: there is one answer at a time."""
        self._asked = threading.Event()
        self._answered = threading.Event()
        self._rotation: Rotation | GroundplanError | None = None

    def rotate(self, timeout: float = 10.0) -> Rotation:
        """Switch to a new key between two batches; both keys sign the handover.

        Raises what `rotate` raises, and `Unavailable` (`audit_elsewhere`) where another process writes the log.
        """
        with self._rotating:
            return self._rotate(timeout)

    def _rotate(self, timeout: float) -> Rotation:
        self._answered.clear()
        self._asked.set()
        if not self._answered.wait(timeout):
            self._asked.clear()
            raise Unavailable(
                "this process does not write the log now", code="audit_elsewhere",
                hint="Another control process does; ask again, or stop all but one.", retry_after=5.0,
            )  # fmt: skip
        done, self._rotation = self._rotation, None
        if isinstance(done, Rotation):
            return done
        assert done is not None, "answered"
        raise done

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Finish the batch at hand and end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with connect(self._url, autocommit=True) as conn:
                    self._sequence(conn)
            except Exception as error:  # noqa: BLE001 -- the boundary of this thread: nobody else writes the log
                if self.problem != str(error):
                    _log.error("the audit log is not being written: %s", error)
                self.problem = str(error)
                self._stopping.wait(self._interval)

    def _sequence(self, conn: Connection[Any]) -> None:
        while not store.try_lock_sequencer(conn):
            self.problem = None
            if self._stopping.wait(self._interval):
                return
        if self._home is not None:
            if end_rotation(self._home):
                _log.warning("a rotation of the checkpoint key that was cut off is ended")
            self._key = load_private(self._home, "checkpoint")
        conn.execute(_IDLE_TIMEOUT_SQL)
        conn.execute(_NO_SORT_SQL)
        with AuditLog(self._folder, self._key) as log:
            healed = heal(conn, log, self._tell)
            if healed.repaired:
                _log.warning("audit log and database were brought together: %d entries", healed.repaired)
            self.problem = None
            cursor, noted = QueueCursor(), time.monotonic()
            while not self._stopping.is_set() and not self._asked.is_set():
                if sequence_batch(conn, log, healed.orphans, cursor=cursor) < BATCH:
                    self._stopping.wait(self._interval)
                if time.monotonic() >= noted + ALL_S:
                    _note_contiguous(conn, log, healed.orphans)
                    noted = time.monotonic()
            sequence_batch(conn, log, healed.orphans)
        if self._asked.is_set():
            self._hand_over()

    def _hand_over(self) -> None:
        """Rotate the key. Called while this thread holds the database's lock and has released the files."""
        try:
            if self._home is None:
                raise Unavailable("no key can be rotated here", code="audit_elsewhere", hint="Stop `up`, then rotate.")
            self._rotation = rotate(self._home)
        except GroundplanError as error:
            self._rotation = error
        except OSError as error:
            self._rotation = Unavailable(
                f"the key cannot be rotated: {error.strerror}", code="audit_write",
                hint="Free space on the disk of HOME, or repair it, and ask again, which ends it.", retry_after=5.0,
            )  # fmt: skip
        finally:
            self._asked.clear()
            self._answered.set()
