"""The sequencer: takes recorded entries from PostgreSQL into the files of the log, one process at a time.

A batch gets its indexes in the database first, where every HOME sees them, and then becomes durable in the files.
Whatever crashes between, the next start heals, in this HOME or another one: what only the database has numbered is
appended in the same order, and what only the files have is entered there again. Does not record entries otherwise.
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
"""How long an entry may take to commit that is found at once, and how often it is looked for any other."""
_STANDS_STILL: LiteralString = "SET idle_session_timeout = '30s'"
"""After which another process takes over from one that was stopped."""
_IN_ORDER: LiteralString = "SET enable_sort = off"
"""Waiting entries are read as their index has them: very many, as of hours without this process, would be sorted anew
for each few thousand."""
Tell = Callable[[Connection[Any], Sequence[Entry]], None]
_log = logging.getLogger("groundplan.audit")


@dataclass(frozen=True, slots=True)
class Healed:
    """How many entries `heal` repaired, and the indexes of those that the files have and another database than the one
    that they were written beside has not (`orphans`)."""

    repaired: int
    orphans: dict[UUID, int]


def heal(conn: Connection[Any], log: AuditLog, tell: Tell | None = None) -> Healed:
    """Bring files and database to the same state after a crash or a restore.

    Entries that only the files have numbered get their indexes, and those that the database has lost are entered again,
    of which `tell` hears in that transaction; entries that only the database has numbered are appended again, in the
    same order. Raises `Conflict` (`audit_diverged`) where the two tell different stories.
    """
    size, numbered = log.checkpoint.size, store.next_leaf(conn)
    _check_same_story(conn, log, min(size, numbered))
    whole = known if (known := store.whole(conn)) <= numbered else archive_store.upto(conn)[0]
    complete = store.sequenced(conn, whole) == numbered - whole
    with conn.transaction():
        repaired, orphans, lost = _number(conn, log, numbered if complete else whole)
        if lost and tell is not None:
            tell(conn, lost)
    repaired += complete_files(conn, log, numbered)
    _note_whole(conn, log, orphans)
    return Healed(repaired, orphans)


def complete_files(conn: Connection[Any], log: AuditLog, numbered: int) -> int:
    """Append what only the database has numbered, from the files of an archive where it left for them; how many.
    Raises `Conflict` (`audit_diverged`), and what reading such a file does."""
    began = log.checkpoint.size
    while left := archive_store.ranges(conn, log.checkpoint.size, 1):
        _append_range(log, left[0])
    while log.checkpoint.size < numbered:
        at = log.checkpoint.size
        rows = store.sequenced_from(conn, at, BATCH)
        if not rows or [index for index, _ in rows] != list(range(at, at + len(rows))):
            raise _diverged(
                f"the files end at entry {at}, and the database lacks some of the {numbered} it had numbered"
            )
        log.append([body for _, body in rows])
    return log.checkpoint.size - began


def _append_range(log: AuditLog, of: archive_store.Range) -> None:
    """What the log lacks of a range that has left, once all of its file was checked."""
    hashes = [leaf_hash(body) for body in archive.bodies(of)]
    had = log.checkpoint.size - of.first
    own = (log.tiles.entry(of.first + place, log.checkpoint.size) for place in range(had))
    if had < 0 or any(leaf_hash(body) != hash for body, hash in zip(own, hashes, strict=False)):
        raise _diverged(f"of entries {of.first} to {of.until - 1} the files have others than have left")
    batch: list[bytes] = []
    for place, body in enumerate(archive.bodies(of)):
        if leaf_hash(body) != hashes[place]:
            raise _diverged(f"{of.file} at {of.url} changes")
        if place >= had:
            batch.append(body)
        if len(batch) == BATCH or place == len(hashes) - 1:
            log.append(batch)
            batch = []


def _note_whole(conn: Connection[Any], log: AuditLog, orphans: dict[UUID, int]) -> None:
    """So that the next start does not count all that there ever was."""
    if not orphans:
        store.set_whole(conn, log.checkpoint.size)


class Behind:
    """Behind which number waiting entries are looked for. Until a vacuum comes by, which for a large table takes days,
    each of those that have their place is still looked at in the index of those that wait. So only the last seconds
    are, and all of it now and then: transactions commit in another order than they got their numbers in."""

    def __init__(self) -> None:
        self._seen = self._settled = self._behind = -1
        self._moved = self._looked = time.monotonic()

    def number(self) -> int:
        now = time.monotonic()
        if now >= self._moved + LATE_S:
            self._moved, self._behind, self._settled = now, self._settled, self._seen
        if now >= self._looked + ALL_S:
            self._looked = now
            return -1
        return self._behind

    def saw(self, queued: Sequence[store.Queued]) -> None:
        self._seen = max(self._seen, *(entry.queued for entry in queued), -1)


def step(
    conn: Connection[Any], log: AuditLog, orphans: dict[UUID, int], limit: int = BATCH, behind: Behind | None = None
) -> int:
    """Sequence at most `limit` waiting entries; returns how many there were. `orphans` are not taken twice."""
    queued = store.unsequenced(conn, limit, -1 if behind is None else behind.number())
    if behind is not None:
        behind.saw(queued)
    fresh = [entry for entry in queued if entry.id not in orphans]
    if fresh:
        # whoever goes on in another HOME, if this process does not, signs no other entry under these numbers
        store.place(conn, [entry.id for entry in fresh], log.checkpoint.size)
        log.append([entry.body for entry in fresh])
    for entry in queued:
        if entry.id in orphans:
            store.place(conn, [entry.id], orphans.pop(entry.id))
    return len(queued)


def _number(conn: Connection[Any], log: AuditLog, start: int) -> tuple[int, dict[UUID, int], list[Entry]]:
    """Give entries of the files their indexes in the database: (how many lacked one, those not there at all, those that
    it had lost and has again, but for calls)."""
    size, repaired, orphans, lost = log.checkpoint.size, 0, dict[UUID, int](), list[Entry]()
    # a new one has not even the first
    own = bool(archive_store.upto(conn)[0]) or [index for index, _ in store.sequenced_from(conn, 0, 1)] == [0]
    for bundle in range(start // WIDTH, -(-size // WIDTH)):
        first = bundle * WIDTH
        bodies = log.tiles.entries(bundle, min(WIDTH, size - first))
        entries = [decode(data) for data in bodies]
        repaired += store.place(conn, [entry.id for entry in entries], first)
        known = store.known(conn, [entry.id for entry in entries])
        missing = [at for at, entry in enumerate(entries) if entry.id not in known]
        if own:
            try:
                store.enter(conn, [(first + at, entries[at], bodies[at]) for at in missing])
            except psycopg.errors.UniqueViolation as error:
                raise _diverged(f"of entries {first} and later one is another in the database") from error
            repaired += len(missing)
            lost += [entries[at] for at in missing if entries[at].action != store.CALL]
        else:
            orphans.update({entries[at].id: first + at for at in missing})
    return repaired, orphans, lost


def _check_same_story(conn: Connection[Any], log: AuditLog, size: int) -> None:
    if not size:
        return
    rows = store.sequenced_from(conn, size - 1, 1)
    index, body = rows[0] if rows else (-1, b"")
    if index == size - 1 and body != log.tiles.entry(size - 1, log.checkpoint.size):
        raise _diverged(f"entry {size - 1} is another one in the files than in the database")
    left = archive_store.newest(conn, log.checkpoint.size)
    with suppress(NotFound, Invalid):  # tiles that are lacking stop nobody here; `audit verify` names them
        if left is not None and not archive.within(log.tiles, log.checkpoint, left):
            raise _diverged(f"entries {left.first} to {left.until - 1} that have left are others in the files")


def _diverged(message: str) -> Conflict:
    return Conflict(
        f"audit log and database do not belong together: {message}",
        code="audit_diverged",
        hint="Restore the folder audit and the database from the same backup.",
    )


class Sequencer:
    """A thread that sequences while this process holds the database's lock and the log's; otherwise it waits for them.

    `problem` tells why it does not work at the moment (None: it works, or another process does).
    """

    def __init__(
        self, url: str, folder: Path, key: Ed25519PrivateKey, interval: float = 0.5, home: Home | None = None,
        tell: Tell | None = None,
    ) -> None:  # fmt: skip
        self._url = url
        self._folder = folder
        self._key = key
        self._interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-sequencer", daemon=True)
        self.problem: str | None = None
        self._tell = tell
        """Hears of what the database had lost, and has again."""
        self._home = home
        """Whose key is read again each time, so that it may be rotated meanwhile."""
        self._rotating = threading.Lock()
        """Of whoever asks for a new key: there is one answer."""
        self._asked = threading.Event()
        self._answered = threading.Event()
        self._rotation: Rotation | GroundplanError | None = None

    def rotate(self, timeout: float = 10.0) -> Rotation:
        """Sign with a new key from now on, between two batches; both keys sign the handing over.

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
        while not store.become_sequencer(conn):
            self.problem = None
            if self._stopping.wait(self._interval):
                return
        if self._home is not None:
            if end_rotation(self._home):
                _log.warning("a rotation of the checkpoint key that was cut off is ended")
            self._key = load_private(self._home, "checkpoint")
        conn.execute(_STANDS_STILL)
        conn.execute(_IN_ORDER)
        with AuditLog(self._folder, self._key) as log:
            healed = heal(conn, log, self._tell)
            if healed.repaired:
                _log.warning("audit log and database were brought together: %d entries", healed.repaired)
            self.problem = None
            behind, noted = Behind(), time.monotonic()
            while not self._stopping.is_set() and not self._asked.is_set():
                if step(conn, log, healed.orphans, behind=behind) < BATCH:
                    self._stopping.wait(self._interval)
                if time.monotonic() >= noted + ALL_S:
                    _note_whole(conn, log, healed.orphans)
                    noted = time.monotonic()
            step(conn, log, healed.orphans)
        if self._asked.is_set():
            self._hand_over()

    def _hand_over(self) -> None:
        """While this thread holds the database's lock and has let go of the files."""
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
