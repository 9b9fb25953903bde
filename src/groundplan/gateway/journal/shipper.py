"""The process that ships the journals of one HOME into PostgreSQL and recovers those of dead workers.

It runs rounds over all epochs (`epoch_shipper` ships one). When a worker's lock is free, the worker is dead: its open
attempts are settled at their bound, what was not spent is returned, and the epoch is fenced. It never judges a worker
by time: a stopped process holds its lock and is left alone. Killed at any point it starts again from the position in
the database. Without PostgreSQL it waits; the journals keep everything.
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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
from groundplan.gateway.journal.cleanup import remove_abandoned
from groundplan.gateway.journal.dead_worker_sums import DeadWorkerSums, SumPending
from groundplan.gateway.journal.epoch_shipper import BATCH, EpochShipper
from groundplan.gateway.journal.ledger_rows import as_uuid
from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.journal.ledger_writer import LedgerWriter
from groundplan.gateway.journal.records import NewerRecord
from groundplan.gateway.journal.tail import try_lock
from groundplan.gateway.telemetry.content_writer import ContentWriter
from groundplan.gateway.telemetry.shipper_metrics import ShipperMetrics, ShippingProgress
from groundplan.gateway.telemetry.trace_export import TraceExport

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
GC_THRESHOLDS = (100_000, 20, 50)
"""Garbage collection thresholds. A round makes and drops tens of thousands of objects, none of them in a cycle."""
KEEP_SHIPPED_S = 60.0
"""How long a journal is kept after it was shipped to a database that may have a standby, which may lack the last
transactions when it takes over."""
_WAIT_S = 0.5

log = get_logger()


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
        for removed in self.unread.keys() - there:
            del self.unread[removed]
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
    conn: Conn, stop: threading.Event, shipper: Shipper, progress: ShippingProgress, hurry: float
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
            if found < CALM_RECORDS and began >= hurry and not is_machine_full():
                found = calm.submit(shipper.run_round, conn, calm=True).result()
                if time.monotonic() - began > SLOW_ROUND_S:
                    hurry = time.monotonic() + HURRY_S
            else:
                found = shipper.run_round(conn)
            if not shipper.unread:
                progress.record_round()
            stop.wait(BUSY_PAUSE_S if found >= BATCH else INTERVAL_S)
        shipper.run_round(conn)


def is_machine_full(loadavg: Path = Path("/proc/loadavg")) -> bool:
    """Whether more threads of the whole machine want to run than it has cores, so that none becomes idle soon."""
    try:
        running = int(loadavg.read_text(encoding="ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):  # another system than Linux
        return False
    return running - 1 > (os.cpu_count() or 1)  # one of them is this thread


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
    settings = load_settings()
    try:
        with ExitStack() as parts:
            if (traces := TraceExport.from_settings(settings)) is not None:
                parts.callback(traces.close)
            url, progress = _wait_for_url(home, stop), ShippingProgress()
            content = ContentWriter(home, url)
            for part in (content, AnswerStore(home, url), ShipperMetrics(home, progress, content, traces)):
                parts.callback(part.close)
                part.open()
            run(home, url, stop, traces, progress, KEEP_SHIPPED_S if settings.database_url is not None else 0.0)
    except GroundplanError as error:
        log.error("shipper stopped", problem=str(error))
        return error.exit_code
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
