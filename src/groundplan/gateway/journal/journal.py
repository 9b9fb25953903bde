"""The write side of the gateway journal: append-only segments of one worker, group-committed with fdatasync.

All methods belong to the event loop's thread and write with one `pwrite`, so a record survives the death of the process
as soon as the method returns (a settlement, the finish after one, and a reservation made with `soon`: with the next
record, or when the loop's turn is over); `durable` tells when it survives the loss of power. Room for the settlement
and finish of every reservation is set aside when it is made, so that only new calls are refused on a full disk.
`segments` makes the files, `syncing` makes bytes durable beside the loop, `records` reads and `shipper` ships them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from msgspec.structs import replace

from groundplan.core.errors import Conflict, Invalid, Unavailable
from groundplan.gateway.journal.records import (
    FINISH,
    HEADER_BYTES,
    MAX_FRAME,
    RELEASE,
    RESERVATION,
    SETTLEMENT,
    encode,
    encode_frame,
)
from groundplan.gateway.journal.segments import Segment, SpareSegments, create_folder
from groundplan.gateway.journal.syncing import Sync, create_sync
from groundplan.ledger.model import Finish, Release, Reservation, Settlement

SETTLEMENT_ROOM = 1024
FINISH_ROOM = 3072
"""Bytes set aside for the settlement and the finish of each reservation. Where room is short, a longer finish loses its
sources, and its route too if it is still longer then."""
SMALLEST_SEGMENT = 4 * MAX_FRAME
RESERVATION_SYNC_S = 0.025
"""How long a reservation waits for a settlement to share its sync with. A response that arrives sooner needs one sync,
not two; before the client's first byte both are awaited in any case."""
UNAWAITED_SYNC_S = 0.001
"""The same for a record whose durability nobody awaits."""
CROWDED_CALLS = 12
CROWDED_PAUSE_S = 0.001
"""While `CROWDED_CALLS` calls are open, a sync starts this long after the one before it, to carry more records. A call
waits half of that longer, on average."""
FEW_CALLS = 1
QUIET_S = 0.002
"""With at most `FEW_CALLS` open calls, or after no sync ended for `QUIET_S`, a sync on the loop itself delays hardly
any call and saves the loop turns, and the sleep, until a call learns that a sync beside the loop has ended."""


@dataclass(slots=True)
class JournalCounters:
    """Totals since the journal was opened, for status and metrics."""

    records: int = 0
    bytes: int = 0
    syncs: int = 0
    dropped: int = 0
    """Finishes of refused calls dropped for lack of room."""
    shortened: int = 0
    """Finishes that lost their list of sources, or their route, for lack of room."""


class Journal:
    """One epoch's journal. Create it with `open`; only one process ever writes an epoch."""

    def __init__(
        self, folder: Path, epoch: UUID, loop: asyncio.AbstractEventLoop, lock: int, first: Segment, sync: Sync
    ) -> None:
        self.folder = folder
        self.epoch = epoch
        self.counters = JournalCounters()
        self._loop = loop
        self._lock = lock
        self._current = first
        self._spare_segments = SpareSegments(folder, epoch, loop, first)
        self._retiring: list[int] = []
        self._failure: str | None = None
        self._closed = False
        self._sequence = 0
        self._durable_sequence = 0
        self._durable_bytes = 0
        self._owed_bytes = 0
        self._pending: list[bytes] = []
        """Framed records that the next write includes."""
        self._pending_bytes = 0
        self._flush_scheduled = False
        self._calls: dict[bytes, int] = {}
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._wanted = False
        self._timer: asyncio.TimerHandle | None = None
        """Requests a sync of records whose durability nobody awaits."""
        self._sync_soon_scheduled = False
        self._is_syncing = False
        self._is_pausing = False
        self._quiet_at = 0.0
        self._sync = sync
        self.on_failure: Callable[[str], None] | None = None
        """Called once with the reason why nothing is written any more."""
        self._sync_round: tuple[list[int], int, int] = ([], 0, 0)
        """What the running sync makes durable: descriptors to close after it, the last sequence, the total bytes."""

    @classmethod
    def open(
        cls,
        folder: Path,
        epoch: UUID,
        loop: asyncio.AbstractEventLoop,
        segment_bytes: int = 16 << 20,
        sync: Sync | None = None,
    ) -> Journal:
        """Create HOME/journal/<epoch> with its held lock and first segment. `sync` defaults to the best available.

        Raises `Invalid` for a wrong folder name or segment size, `Conflict` when the epoch exists already and
        `Unavailable` when the disk refuses.
        """
        if folder.name != str(epoch):
            raise Invalid("a journal's folder is named after its epoch", code="journal_path", hint=f"Use .../{epoch}.")
        if segment_bytes < SMALLEST_SEGMENT:
            raise Invalid(
                "the segment is too small", code="journal_size", hint=f"Use at least {SMALLEST_SEGMENT} bytes."
            )
        if folder.exists():
            raise Conflict("this journal epoch exists already", code="journal_exists", hint="Use a new epoch id.")
        try:
            lock, descriptor = create_folder(folder, epoch, segment_bytes)
        except OSError as error:
            raise _unavailable(f"the journal cannot be made: {error.strerror}") from error
        journal = cls(folder, epoch, loop, lock, Segment(descriptor, 1, segment_bytes), sync or create_sync(loop))
        journal._spare_segments.fill()
        return journal

    # status ---------------------------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """False for good once a write or an fdatasync failed: the worker must restart with a new epoch."""
        return self._failure is None and not self._closed

    @property
    def lag_bytes(self) -> int:
        """Bytes that are written and not yet known to survive a loss of power."""
        return self.counters.bytes - self._durable_bytes

    @property
    def sequence(self) -> int:
        """Number of the last record written; 0 before the first."""
        return self._sequence

    @property
    def open_calls(self) -> int:
        """Calls with a reservation and no finish."""
        return len(self._calls)

    # writing --------------------------------------------------------------------------------------------------------

    def reserve(self, record: Reservation, *, soon: bool = False) -> int:
        """Write a reservation, with room for its settlement and finish set aside, and ask for a sync. Returns the
        sequence. A reservation without a deployment is a use of a tool, which has no settlement.

        `soon`: write it together with all others of this turn of the loop, before any callback scheduled after this
        one. Bytes sent by such a callback go out behind the record; `on_failure` is called where it cannot be written.

        Raises `Unavailable` (`journal_unavailable`) before anything is written when the journal has failed or is full,
        and `Invalid` for a record of more than 16 KiB.
        """
        if self._failure is not None or self._closed:
            raise _unavailable(self._failure or "the journal is closed")
        framed = encode_frame(RESERVATION, self._sequence + 1, encode(record))
        if len(framed) > MAX_FRAME:
            raise Invalid("the reservation is too long", code="journal_record", hint="Shorten the names in it.")
        room = SETTLEMENT_ROOM + FINISH_ROOM if record.deployment else FINISH_ROOM
        if not self._has_room(len(framed) + room):
            self._spare_segments.fill()
            raise _unavailable("there is no room in the journal")
        sequence = self._append(framed) if soon else self._write(framed)
        if self._failure is not None:
            raise _unavailable(self._failure)
        self._owed_bytes += room
        self._calls[record.call] = self._calls.get(record.call, 0) + 1
        if not self._wanted and self._timer is None:
            self._timer = self._loop.call_later(RESERVATION_SYNC_S, self._want_sync_if_due)
        return sequence

    def settle(self, record: Settlement, *, ends: bool = False) -> int:
        """Add a settlement in the room set aside for it. On a failed journal `durable` of the sequence fails.

        It is written with the next record, at the latest at the end of this turn of the loop: settlements and finishes
        of all calls that end in one turn are one write. Until then a crash settles the attempt at its bound.
        `ends`: the finish of its call is added next, which writes both.
        """
        self._owed_bytes -= SETTLEMENT_ROOM
        return self._append(encode_frame(SETTLEMENT, self._sequence + 1, encode(record)), followed=ends)

    def finish(self, record: Finish, *, urgent: bool = False, awaited: bool = False) -> int:
        """Write the end of a call, as `settle` does; `urgent` asks for a sync at once (so does `durable`). `awaited`:
        the caller awaits `durable` of it next, so the disk only starts writing here.

        The finish of a call without a reservation is written now, since nobody awaits `durable` before the client is
        answered: a cached answer survives the death of the process. As nobody waits, a journal that was synced a moment
        ago is not synced again at once for it: one sync may carry many of them. Raises `Unavailable` when it cannot be
        written: the record is dropped and counted.
        """
        reservations = self._calls.pop(record.call, 0)
        framed = encode_frame(FINISH, self._sequence + 1, encode(record))
        room = reservations * FINISH_ROOM
        self._owed_bytes -= room
        if len(framed) > MAX_FRAME or (len(framed) > room > 0 and self._room() < len(framed)):
            framed = self._shorten(record)
        if reservations:
            if awaited and urgent and not self._wanted and not self._is_syncing and len(self._calls) < CROWDED_CALLS:
                sequence = self._write(framed)
                self._sync.start_writeback(self._current.descriptor, self._current.offset)
                return sequence
            sequence = self._append(framed)
        else:
            try:
                sequence = self._write_if_room(framed)
            except Unavailable:
                self.counters.dropped += 1
                raise
        if urgent and not awaited and not self._wanted:
            if reservations or time.monotonic() >= self._quiet_at:
                self._want_sync()
            elif self._timer is None:
                self._timer = self._loop.call_later(UNAWAITED_SYNC_S, self._want_sync_if_due)
        return sequence

    def release(self, record: Release) -> int:
        """Write that a part of a slice is given back; report it only once durable. Raises `Unavailable`."""
        return self._write_if_room(encode_frame(RELEASE, self._sequence + 1, encode(record)))

    def sync_soon(self) -> None:
        """Make what was written durable while the upstream works: for a stream, whose first byte waits for its
        reservation alone. Bytes sent in this turn of the loop go out first."""
        if not self._wanted and not self._sync_soon_scheduled:
            self._sync_soon_scheduled = True
            self._loop.call_soon(self._sync_scheduled)

    def durable(self, sequence: int, *, patient: bool = False) -> asyncio.Future[None] | None:
        """Return None when the record survives a loss of power already, else a future that resolves when it does.

        `patient`: the caller can wait a fraction of a millisecond longer, so a sync beside the loop is used, which
        costs this process less. The future fails with `Unavailable` when the sync failed; then nothing of this journal
        becomes durable any more.
        """
        if sequence <= self._durable_sequence:
            return None
        if not patient and not self._closed and self._sync_at_once():
            return None
        future: asyncio.Future[None] = self._loop.create_future()
        if self._failure is not None or (self._closed and not self._is_syncing):
            _fail(future, self._failure or "the journal is closed")
            return future
        self._waiters.append((sequence, future))
        if not self._wanted and not (self._is_syncing and sequence <= self._sync_round[1]):
            self._want_sync()
        return future

    async def close(self) -> None:
        """Make everything durable, stop the work beside the loop and release the lock. Safe to repeat."""
        if self._closed:
            return
        pending = self.durable(self._sequence)
        self._closed = True
        self._spare_segments.stop()
        if pending is not None:
            await asyncio.wait([pending])
        await self._sync.close()
        await self._spare_segments.join()
        # a late record must not be written to a descriptor that another file has by then
        self._failure = self._failure or "the journal is closed"
        for segment in (self._current, *self._spare_segments.ready):
            os.close(segment.descriptor)
        for descriptor in (*self._retiring, *(self._sync_round[0] if self._is_syncing else ())):
            os.close(descriptor)
        os.close(self._lock)

    # room and segments ----------------------------------------------------------------------------------------------

    def _room(self) -> int:
        """Return the bytes that are not set aside. A change of segment may waste up to one frame."""
        room = self._current.size - self._current.offset - self._owed_bytes - self._pending_bytes
        for spare in self._spare_segments.ready:
            room += spare.size - HEADER_BYTES - MAX_FRAME
        return room

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes are free; the current segment nearly always has them."""
        current = self._current
        return current.size - current.offset - self._owed_bytes - self._pending_bytes >= size or self._room() >= size

    def _write(self, framed: bytes) -> int:
        """Write one frame now, after pending ones; the sequence is used up even when writing fails."""
        self._sequence += 1
        self._pending.append(framed)
        self._pending_bytes += len(framed)
        self._flush()
        return self._sequence

    def _write_if_room(self, framed: bytes) -> int:
        """As `_write`, for records without room set aside. Raises `Unavailable` unless it is written."""
        if self._failure is not None or self._closed or len(framed) > MAX_FRAME or self._room() < len(framed):
            raise _unavailable(self._failure or "there is no room in the journal")
        sequence = self._write(framed)
        if self._failure is not None:
            raise _unavailable(self._failure)
        return sequence

    def _append(self, framed: bytes, *, followed: bool = False) -> int:
        """As `_write`, at the latest at the end of this turn of the loop, or with the record that follows."""
        self._sequence += 1
        self._pending.append(framed)
        self._pending_bytes += len(framed)
        if not self._flush_scheduled and not followed:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_scheduled_frames)
        return self._sequence

    def _flush_scheduled_frames(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        frames, size = self._pending, self._pending_bytes
        if not frames:
            return
        self._pending, self._pending_bytes = [], 0
        if len(frames) == 1:
            self._write_frames(frames[0], 1)
        elif self._current.offset + size <= self._current.size:
            self._write_frames(b"".join(frames), len(frames))
        else:
            for framed in frames:
                self._write_frames(framed, 1)

    def _write_frames(self, data: bytes, count: int) -> None:
        """One `pwrite` of whole frames; a failure seals the journal."""
        if self._failure is not None:
            return
        current, size = self._current, len(data)
        if current.offset + size > current.size:
            if not self._spare_segments.ready:
                self._seal("there is no room in the journal")
                return
            current = self._next_segment()
        try:
            written = os.pwrite(current.descriptor, data, current.offset)
        except OSError as error:
            self._seal(f"writing failed: {error.strerror}")
            return
        if written != size:
            self._seal("writing failed: short write")
            return
        current.offset += size
        self.counters.records += count
        self.counters.bytes += size

    def _next_segment(self) -> Segment:
        self._retiring.append(self._current.descriptor)
        self._current = self._spare_segments.ready.popleft()
        self._spare_segments.fill()
        return self._current

    def _shorten(self, record: Finish) -> bytes:
        self.counters.shortened += 1
        short = replace(record, sources=[], conflicts=[], scores=[])
        if len(framed := encode_frame(FINISH, self._sequence + 1, encode(short))) <= FINISH_ROOM:
            return framed
        return encode_frame(FINISH, self._sequence + 1, encode(replace(short, route="")))

    # syncing --------------------------------------------------------------------------------------------------------

    def _want_sync(self) -> None:
        """Ask for a sync after this turn of the loop, so that requests of one turn share it."""
        self._wanted = True
        if not self._is_syncing and not self._is_pausing:
            self._loop.call_soon(self._start_sync)

    def _sync_scheduled(self) -> None:
        self._sync_soon_scheduled = False
        if self._sequence <= self._durable_sequence or self._wanted or self._closed:
            return
        if not self._sync_at_once():
            self._want_sync()

    def _want_sync_if_due(self) -> None:
        """Ask for a sync when none was requested in the time that reservations wait for one."""
        self._timer = None
        covered = self._sync_round[1] if self._is_syncing else self._durable_sequence
        if self._sequence > covered and not self._wanted and not self._closed:
            self._want_sync()

    def _start_sync(self) -> None:
        if self._is_syncing or self._is_pausing or not self._wanted:
            return
        self._flush()
        if self._failure is not None:  # no sync makes durable what could not be written
            return
        self._wanted, self._is_syncing = False, True
        retiring, self._retiring = self._retiring, []
        self._sync_round = retiring, self._sequence, self.counters.bytes
        self._sync.start([*retiring, self._current.descriptor], self._on_synced)

    def _sync_at_once(self) -> bool:
        """Sync on the loop. True when everything written is durable now; False when it is left to a sync beside the
        loop, which carries more records where there are many."""
        if self._waiters or self._is_syncing or (len(self._calls) > FEW_CALLS and time.monotonic() < self._quiet_at):
            return False
        self._flush()
        if self._failure is not None:
            return False
        try:
            if not self._sync.sync_on_loop([*self._retiring, self._current.descriptor]):
                return False
        except OSError as error:
            self._seal(f"fdatasync failed: {error.strerror}")
            return False
        self._wanted = False
        self._sync_round = self._retiring, self._sequence, self.counters.bytes
        self._retiring = []
        self._on_synced(None)
        return True

    def _on_synced(self, failed: str | None) -> None:
        retiring, sequence, written = self._sync_round
        self._is_syncing = False
        if failed is not None:
            self._retiring.extend(retiring)
            self._seal(failed)
            return
        self._durable_sequence, self._durable_bytes = sequence, written
        self._quiet_at = time.monotonic() + QUIET_S
        self.counters.syncs += 1
        if self._timer is not None and sequence == self._sequence and len(self._calls) < CROWDED_CALLS:
            self._timer.cancel()  # it has nothing left to sync, and waking up for nothing costs more than cancelling
            self._timer = None
        for descriptor in retiring:
            os.close(descriptor)
        waiters = self._waiters
        later: list[tuple[int, asyncio.Future[None]]] = []
        while waiters:
            waiter = waiters.popleft()
            if waiter[0] > sequence:
                later.append(waiter)
            elif not waiter[1].done():
                waiter[1].set_result(None)
        waiters.extend(later)
        if later:
            self._wanted = True
        if len(self._calls) >= CROWDED_CALLS and not self._closed:
            self._is_pausing = True
            self._loop.call_later(CROWDED_PAUSE_S, self._end_pause)
        elif self._wanted:
            self._start_sync()

    def _end_pause(self) -> None:
        self._is_pausing = False
        self._start_sync()

    def _seal(self, reason: str) -> None:
        """Stop writing and syncing for good: after a failure the page cache cannot be trusted to hold what was
        written."""
        first, self._failure = self._failure is None, self._failure or reason
        self._spare_segments.stop()
        if first and self.on_failure is not None:
            self.on_failure(reason)
        while self._waiters:
            _, future = self._waiters.popleft()
            _fail(future, self._failure)


def _unavailable(reason: str) -> Unavailable:
    return Unavailable(
        reason,
        code="journal_unavailable",
        hint="Nothing unrecorded is sent. Free space on the journal's disk, or mend it; a new journal is made then.",
        retry_after=1.0,
    )


def _fail(future: asyncio.Future[None], reason: str) -> None:
    if not future.done():
        future.set_exception(_unavailable(reason))
        future.exception()  # a waiter that went away must not cause a warning
