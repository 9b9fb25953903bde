"""Ships the journal of one epoch into PostgreSQL, and closes the books of its worker once that is dead.

It follows the epoch's segments, writes batches (rows, audit entries and the position in one transaction) and deletes
segments that are shipped. Which epochs are shipped, and whose workers are dead, is decided in `shipper`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from groundplan.gateway.journal import ledger_store, open_call_store
from groundplan.gateway.journal.cleanup import discard, remove_folder
from groundplan.gateway.journal.dead_worker_sums import DeadWorkerSums, add_sums
from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.journal.ledger_writer import LedgerWriter
from groundplan.gateway.journal.records import HEADER_BYTES, segment_numbers, segment_path
from groundplan.gateway.journal.recovery import Attempt, CallState, EpochState
from groundplan.gateway.journal.tail import EpochTail
from groundplan.ledger.model import Release, Settlement

BATCH = 5000
"""Approximate records in one transaction."""
SHOW_OPEN_AFTER_MS = 2000
"""An attempt that is open for longer is written to the ledger as open."""


class EpochShipper:
    """The shipping of one epoch: the position of its reader, and the calls that have not ended."""

    def __init__(
        self, folder: Path, epoch: UUID, position: tuple[int, int], gaps: int, kept_s: float = 0.0,
        kept_attempts: Iterable[Attempt] = (),
    ) -> None:  # fmt: skip
        self.folder = folder
        self.epoch = epoch
        self.tail = EpochTail(folder, epoch)
        self.state = EpochState()
        for attempt in kept_attempts:
            self.state.add_known_attempt(attempt)
        self._start_position = position
        self._lost_segments = (
            f"segments {first} to {last} of its journal"
            if (first := max(1, position[0])) <= (last := self.tail.segment - 1)
            else ""
        )
        """Segments that were deleted after they were shipped, and that the database does not have (any more)."""
        self._is_older = False
        """The files end before the database's position: they were restored, and later records may be gone."""
        self._known_gaps = gaps + bool(self._lost_segments)
        self._kept_s = kept_s
        self._unneeded_since: dict[int, float] = {}
        """Segments that are not needed any more, and since when."""
        self._touched: dict[bytes, CallState] = {}
        """Calls with new records, in the order of the journal, which is nearly that of their ids: so they are
        written."""
        self._releases: list[Release] = []
        self._shipped_to = self._last_position = position
        self._read_to = (0, 0)
        """Position after the last record that was read."""
        self._reported_damage: set[int] = set()

    @property
    def gaps(self) -> int:
        """Number of segments of this epoch in which records are missing."""
        return max(self._known_gaps, len(self.tail.damaged))

    def read(self, *, dead: bool) -> int:
        """Read new records into memory; returns how many. For a `dead` writer, records after damage come last."""
        found = self.tail.read(BATCH)
        if at_end := dead and len(found) < BATCH:
            found += self.tail.read_rest()
        if found:
            self._read_to = found[-1].segment, found[-1].entry.end
            self._last_position = max(self._last_position, self._read_to)
        shipped = self._start_position
        if at_end and not self._is_older and self._read_to < shipped and shipped[1] > HEADER_BYTES:
            self._is_older = True
            self._known_gaps += 1
        apply, touched, begun = self.state.apply, self._touched, True
        for read in found:
            record = read.entry.record
            new = (read.segment, read.entry.end) > shipped
            call = apply(record, read.segment)
            if call is None:
                if new and isinstance(record, Release):
                    self._releases.append(record)
            elif new:
                touched[call.call] = call
                begun = begun and not (isinstance(record, Settlement) and record.attempt not in call.attempts)
            elif call.has_ended:
                self.state.drop_call(call.call)
        if not (begun or self.gaps):
            self._lost_segments = "segments of its journal in which they began"
            self._known_gaps += 1
        return len(found)

    def ship(self, conn: Conn, writer: LedgerWriter) -> None:
        """Write what is new, if anything, to the database. May be repeated after any failure."""
        overdue = self._overdue_attempts(writer.now_ms())
        if not (self._touched or self._releases or overdue or self._is_older or self._has_moved()):
            return
        touched = self._touched.values()
        ended = [call for call in touched if call.has_ended]
        closed = [a for call in touched for a in call.attempts.values() if not (a.is_open or a.is_written_closed)]
        noted = [*overdue, *(a for a in closed if not self.state.calls[a.reservation.call].has_ended)]
        if self._releases:
            with conn.transaction():  # separate: workers wait for the rows that it locks
                ledger_store.apply_releases(conn, self.epoch, self._releases)
        with conn.transaction():
            writer.write(conn, self.epoch, ended, closed, overdue)
            open_call_store.keep(conn, self.epoch, noted)
            open_call_store.delete(conn, [call.call for call in ended if call.has_kept_attempts])
            if self._lost_segments:
                ledger_store.report_lost(conn, self.epoch, self._lost_segments)
            if self._is_older:
                ledger_store.report_truncated(conn, self.epoch)
            for segment in self.tail.damaged - self._reported_damage:
                ledger_store.report_gap(conn, self.epoch, segment)
            ledger_store.set_position(conn, self.epoch, self._position, self.gaps)
        if writer.traces is not None:
            writer.traces.enqueue(ended, self.epoch)
        for attempt in overdue:
            attempt.is_written_open = True
        for attempt in noted:
            self.state.calls[attempt.reservation.call].has_kept_attempts = True
        for attempt in closed:
            attempt.is_written_closed = True
        self._on_shipped(ended)

    def close_books(self, conn: Conn, writer: LedgerWriter, sums: DeadWorkerSums) -> int:
        """Settle what a dead worker left open and close its books, once everything was shipped. May be repeated after
        any failure. Returns picodollars returned. Raises `SumPending`: the sum of what it spent is not ready."""
        opened = self.state.open_attempts()
        calls = [call for call in self.state.settle_crashed() if call.attempts or call.finish or call.tool_use]
        with conn.transaction():
            ledger_store.fence(conn, self.epoch)
            left, late = sums.finished_sum(conn, self.epoch), [UUID(bytes=each.reservation.call) for each in opened]
            before = ledger_store.costs_of(conn, self.epoch, late) if left is not None else {}
            writer.write(conn, self.epoch, calls, opened, [])
            open_call_store.delete_epoch(conn, self.epoch)
            if self.gaps:
                ledger_store.settle_vanished_attempts(conn, self.epoch)
            if left is None:
                left = sums.sum_unspent(conn, self.epoch)
            else:
                left = add_sums(left, before, ledger_store.costs_of(conn, self.epoch, late))
        returned = ledger_store.return_unspent(conn, self.epoch, write_off=self.gaps > 0, added_up=left)
        with conn.transaction():
            ledger_store.set_position(conn, self.epoch, self._last_position, self.gaps, done=True)
        if writer.traces is not None:
            writer.traces.enqueue(calls, self.epoch)
        return returned

    def delete_shipped(self, conn: Conn) -> bool:
        """Delete the segments before the current one that no open call needs; damaged ones are set aside. Returns False
        where the database has lost what was in them."""
        needed = min((call.segment for call in self.state.calls.values()), default=self.tail.segment)
        now = time.monotonic()
        passed = [number for number in segment_numbers(self.folder) if number < min(needed, self.tail.segment)]
        over = [number for number in passed if now - self._unneeded_since.setdefault(number, now) >= self._kept_s]
        if over and not self.is_still_shipped(conn):
            return False
        for number in over:
            del self._unneeded_since[number]
            discard(segment_path(self.folder, number), damaged=number in self.tail.damaged)
        return True

    def is_still_shipped(self, conn: Conn, *, done: bool = False) -> bool:
        """Whether the database still has what was shipped to it, where that is a while ago: another server may have
        taken its place, which is only found by a query. `done`: everything."""
        if not self._kept_s:
            return True
        segment, offset, over, _ = ledger_store.position(conn, self.epoch)
        return over if done else (segment, offset) >= self._shipped_to

    def remove(self) -> None:
        """Delete the folder of a recovered epoch, except damaged segments, which are set aside."""
        for number in segment_numbers(self.folder):
            discard(segment_path(self.folder, number), damaged=number in self.tail.damaged)
        remove_folder(self.folder)

    @property
    def has_new(self) -> bool:
        """Whether anything was read that the database does not have."""
        return bool(self._touched or self._releases)

    @property
    def _position(self) -> tuple[int, int]:
        """Position up to which everything is shipped. While records that the database has are read again, for calls
        that are still open, the database's own position counts."""
        return max(self._shipped_to, self.tail.position)

    def _has_moved(self) -> bool:
        return self.tail.position > self._shipped_to or bool(self.tail.damaged - self._reported_damage)

    def _overdue_attempts(self, now_ms: int) -> list[Attempt]:
        return [
            attempt
            for attempt in self.state.open_attempts()
            if attempt.reservation.at < now_ms - SHOW_OPEN_AFTER_MS and not attempt.is_written_open
        ]

    def _on_shipped(self, ended: Iterable[CallState]) -> None:
        self._shipped_to, self._lost_segments = self._position, ""
        self._reported_damage |= self.tail.damaged
        self._releases.clear()
        for summed in (self.state.releases, self.state.released, self.state.spent):
            summed.clear()  # PostgreSQL has the sums; with a budget a day for each key there are ever more of them
        self._touched.clear()
        for call in ended:
            self.state.drop_call(call.call)
