"""The process that ships the journals of one HOME into PostgreSQL and recovers those of dead workers.

It follows every epoch's segments, writes batches (rows, audit entries and the position in one transaction) and deletes
segments that are shipped. When a worker's lock is free, it settles open attempts at their bound, returns what was not
spent and fences the epoch. Killed at any point it starts again from the position. Without PostgreSQL it waits; the
journals keep everything. It never judges a worker by time: a stopped process holds its lock and is left alone.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg

from groundplan.core import logs
from groundplan.core.clock import Clock, SystemClock
from groundplan.core.database import connect, database_url
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.home import Home
from groundplan.core.last_known_address import TimeLimitedConnection
from groundplan.core.logger import get_logger
from groundplan.core.settings import load_settings
from groundplan.gateway.caching.cache_store import AnswerStore
from groundplan.gateway.journal import ledger_store, lost_journal, open_call_store
from groundplan.gateway.journal.cleanup import discard, remove_abandoned, remove_folder
from groundplan.gateway.journal.dead_worker_sums import DeadWorkerSums, SumPending, add_sums
from groundplan.gateway.journal.ledger_rows import as_uuid
from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.journal.ledger_writer import LedgerWriter
from groundplan.gateway.journal.records import HEADER_BYTES, NewerRecord, segment_numbers, segment_path
from groundplan.gateway.journal.recovery import Attempt, CallState, EpochState
from groundplan.gateway.journal.tail import EpochTail, try_lock
from groundplan.gateway.telemetry.content_writer import ContentWriter
from groundplan.gateway.telemetry.shipper_metrics import ShipperMetrics, ShippingProgress
from groundplan.gateway.telemetry.trace_export import TraceExport
from groundplan.ledger.model import Release, Settlement

BATCH = 5000
"""Approximate records in one transaction."""
INTERVAL_S = 0.5
"""Pause between rounds: each has a fixed cost, whatever it carries."""
CALM_RECORDS = 1000
"""Fewest records of a round after which the next one does not wait for an idle core."""
BUSY_PAUSE_S = 0.01
SLOW_ROUND_S = 0.3
"""A round that took longer than this found no idle core."""
HURRY_S = 10.0
"""How long rounds do not wait for an idle core after that."""
LOST_CHECK_MS = 60_000
"""How often to look for workers whose journals are gone."""
SHOW_OPEN_AFTER_MS = 2000
"""An attempt that is open for longer is written to the ledger as open."""
GC_THRESHOLDS = (100_000, 20, 50)
"""Garbage collection thresholds. A round makes and drops tens of thousands of objects, none of them in a cycle."""
KEEP_SHIPPED_S = 60.0
"""How long a journal is kept after it was shipped to a database that may have a standby, which may lack the last
transactions when it takes over."""
_WAIT_S = 0.5

log = get_logger()


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
        any failure. Returns picodollars returned. Raises `Later`: the sum of what it spent is not ready."""
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


class Shipper:
    """Ships all epochs of one HOME."""

    def __init__(
        self, home: Home, clock: Clock | None = None, traces: TraceExport | None = None, kept_s: float = 0.0
    ) -> None:
        self._home = home
        self._writer = LedgerWriter(home, clock or SystemClock(), traces)
        self._sums = DeadWorkerSums()
        self._kept_s = kept_s
        self._shipped_epochs: dict[UUID, tuple[float, EpochShipper]] = {}
        """Epochs that are shipped and whose folders stay for a while, and since when."""
        self._epochs: dict[UUID, EpochShipper] = {}
        self._unsupported: set[UUID] = set()
        """Epochs that a newer program wrote, which this one skips."""
        self.unread: dict[UUID, str] = {}
        """Why epochs could not be read in the last round; each round tries them again."""
        self._lost_checked_ms = self._writer.now_ms()
        """When workers whose journals are gone were last looked for: not before all had time to connect again."""

    def run_round(self, conn: Conn, *, calm: bool = False) -> int:
        """Run one round over all journals. Returns the most records that one of them had, `BATCH` where more waits.

        `calm`: the thread may be stopped at any point, so it locks no budget; another round closes the books of dead
        workers.
        Raises psycopg errors and `Unavailable`.
        """
        most, there = 0, list[UUID]()
        for folder in sorted(self._home.journal.iterdir()):
            epoch = as_uuid(folder.name)
            if epoch is not None and folder.is_dir():
                there.append(epoch)
                if epoch in self._unsupported or self._is_shipped(conn, epoch):
                    continue
                with self._skip_unreadable(epoch):
                    most = max(most, self._ship_epoch(conn, folder, epoch, calm=calm))
            elif folder.name.endswith(".new") and folder.is_dir():
                remove_abandoned(folder)
        for gone in self.unread.keys() - there:
            del self.unread[gone]
        if (now := self._writer.now_ms()) > self._lost_checked_ms + LOST_CHECK_MS:
            if calm:
                return BATCH
            self._lost_checked_ms = now
            self._write_off_lost(conn, there)
        return most

    def _retire(self, shipper: EpochShipper) -> None:
        if self._kept_s:
            self._shipped_epochs[shipper.epoch] = time.monotonic(), shipper
        else:
            shipper.remove()

    def _is_shipped(self, conn: Conn, epoch: UUID) -> bool:
        """Whether it is shipped; its folder stays for a while, and is then deleted."""
        since, shipper = self._shipped_epochs.get(epoch, (0.0, None))
        if shipper is not None and time.monotonic() >= since + self._kept_s:
            del self._shipped_epochs[epoch]
            if not shipper.is_still_shipped(conn, done=True):
                return False
            shipper.remove()
        return shipper is not None

    @contextmanager
    def _skip_unreadable(self, epoch: UUID) -> Iterator[None]:
        """Skip an epoch that this program, or this user, cannot read, with all that its worker held."""
        before = self.unread.pop(epoch, "")
        try:
            yield
        except NewerRecord as error:
            self._epochs.pop(epoch, None)
            self._unsupported.add(epoch)
            log.error("a journal waits", epoch=str(epoch), problem=str(error))
        except OSError as error:
            self._epochs.pop(epoch, None)
            self.unread[epoch] = str(error)
            if before != str(error):
                log.error("a journal waits", epoch=str(epoch), problem=str(error))

    def _write_off_lost(self, conn: Conn, there: list[UUID]) -> None:
        """Close the books of workers whose journals are gone."""
        for epoch in ledger_store.vanished_epochs(conn, str(self._home.root), there):
            with ledger_store.closing_lock(conn, epoch) as alone, conn.transaction():
                if not alone or not ledger_store.is_unfinished(conn, epoch):
                    continue
                lost_journal.write_off(conn, epoch, self._writer)
            log.error("the journal of an epoch is gone", epoch=str(epoch))

    def _ship_epoch(self, conn: Conn, folder: Path, epoch: UUID, *, calm: bool) -> int:
        lock = try_lock(folder)
        try:
            if lock is not None and calm:
                return BATCH
            shipper = self._epochs.get(epoch)
            if shipper is None:
                if lock is not None and ledger_store.was_heard_lately(conn, epoch, str(self._home.root)):
                    return 0
                segment, offset, done, gaps = ledger_store.position(conn, epoch)
                known = open_call_store.kept_attempts(conn, epoch)
                shipper = EpochShipper(folder, epoch, (segment, offset), gaps, self._kept_s, known)
                if done and lock is not None:
                    while shipper.read(dead=True) >= BATCH:  # finds out which segments are damaged
                        pass
                    if shipper.has_new:  # a shipper that had a partial copy of the journal closed its books
                        shipper.ship(conn, self._writer)
                        self._epochs[epoch] = shipper
                        return self._recover_epoch(conn, shipper)
                    self._retire(shipper)
                    return BATCH
                self._epochs[epoch] = shipper
            found = shipper.read(dead=lock is not None)
            shipper.ship(conn, self._writer)
            if lock is not None and found < BATCH:
                return self._recover_epoch(conn, shipper)
            if not shipper.delete_shipped(conn):
                del self._epochs[epoch]  # it is read again from the database's position
            return found
        finally:
            if lock is not None:
                os.close(lock)

    def _recover_epoch(self, conn: Conn, shipper: EpochShipper) -> int:
        """Recover a dead worker's epoch. Returns `BATCH`; 0 where the sum of what it spent is not ready."""
        del self._epochs[shipper.epoch]  # after a failure the epoch is read again from its files
        with ledger_store.closing_lock(conn, shipper.epoch) as alone:
            if not alone:
                return 0
            try:
                returned = shipper.close_books(conn, self._writer, self._sums)
            except SumPending:
                return 0
        self._retire(shipper)
        log.info("epoch recovered", epoch=str(shipper.epoch), returned_picodollars=returned, gaps=shipper.gaps)
        return BATCH


def run(
    home: Home, url: str, stop: threading.Event, traces: TraceExport | None = None,
    progress: ShippingProgress | None = None, kept_s: float = 0.0,
) -> None:  # fmt: skip
    """Ship until `stop`, then once more. Raises `Unavailable` where another shipper serves this HOME."""
    home.journal.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(home.journal / "shipper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise Unavailable(
            "another shipper serves this HOME", code="shipper_running", hint="Stop it, or use another --home."
        ) from error
    last_problem, hurry = "", 0.0
    while True:
        try:
            with connect(url, autocommit=True, kind=TimeLimitedConnection) as conn:
                shipper = Shipper(home, traces=traces, kept_s=kept_s)
                _run_connected(conn, stop, shipper, progress or ShippingProgress(), hurry)
            break
        except (psycopg.Error, GroundplanError, OSError) as error:
            hurry = time.monotonic() + HURRY_S  # PostgreSQL gives up a round that waits too long for an idle core
            problem = str(error).splitlines()[0] if str(error) else error.__class__.__name__
            if problem != last_problem:
                log.warning("waiting", problem=problem)
            last_problem = problem
            if stop.wait(_WAIT_S):
                break
    os.close(lock)


def _run_connected(
    conn: Conn, stop: threading.Event, shipper: Shipper, progress: ShippingProgress, hurry: float = 0.0
) -> None:
    """With one connection; what is in memory is thrown away with it, so that a failure needs no unwinding. Until
    `hurry` no round waits for an idle core."""
    ledger_store.limit_idle_transactions(conn)
    found = 0
    # A round of half a second keeps a core for several milliseconds, which calls would wait for; what piles up must not
    # wait for an idle core, nor may what workers wait for while it is locked. The scheduling class belongs to a thread
    # and cannot be left again, hence the second one.
    with ThreadPoolExecutor(1, "calm", initializer=_lower_priority) as calm:
        while not stop.is_set():
            began = time.monotonic()
            if found < CALM_RECORDS and began >= hurry:
                found = calm.submit(shipper.run_round, conn, calm=True).result()
                if time.monotonic() - began > SLOW_ROUND_S:
                    hurry = time.monotonic() + HURRY_S
            else:
                found = shipper.run_round(conn)
            if not shipper.unread:
                progress.record_round()
            stop.wait(BUSY_PAUSE_S if found >= BATCH else INTERVAL_S)
        shipper.run_round(conn)


def _lower_priority() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main(arguments: list[str] | None = None) -> int:
    """Command line of the process."""
    parser = argparse.ArgumentParser(prog="groundplan-shipper", description="Takes journals over into PostgreSQL.")
    parser.add_argument("--home", type=Path, required=True)
    home = Home(parser.parse_args(arguments).home.absolute())
    logs.configure("shipper")
    os.nice(5)  # answering callers comes first; the journal can wait
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    traces = TraceExport.from_settings(load_settings())
    content: ContentWriter | None = None
    cached: AnswerStore | None = None
    told: ShipperMetrics | None = None
    try:
        url = _wait_for_url(home, stop)
        content = ContentWriter(home, url)
        content.open()
        cached = AnswerStore(home, url)
        cached.open()
        progress = ShippingProgress()
        told = ShipperMetrics(home, progress, content, traces)
        told.open()
        run(home, url, stop, traces, progress, KEEP_SHIPPED_S if load_settings().database_url is not None else 0.0)
    except GroundplanError as error:
        log.error("shipper stopped", problem=str(error))
        return error.exit_code
    finally:
        if told is not None:
            told.close()
        if content is not None:
            content.close()
        if cached is not None:
            cached.close()
        if traces is not None:
            traces.close()
    return 0


def _wait_for_url(home: Home, stop: threading.Event) -> str:
    """The address of the database, as soon as there is one."""
    settings = load_settings()
    while True:
        try:
            return database_url(home, settings, "shipper")
        except Unavailable:
            if stop.wait(_WAIT_S):
                raise


if __name__ == "__main__":
    sys.exit(main())
