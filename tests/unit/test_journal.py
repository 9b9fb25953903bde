"""The journal on a real disk: what was written is read back, damage is found at every byte, failures refuse new calls
only."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple, replace

from groundplan.core.errors import Conflict, Invalid, Unavailable
from groundplan.core.ids import new_id
from groundplan.gateway.journal import journal as journal_module
from groundplan.gateway.journal import records, segments
from groundplan.gateway.journal.journal import CROWDED_CALLS, QUIET_S, RESERVATION_SYNC_S, SMALLEST_SEGMENT, Journal
from groundplan.gateway.journal.records import HEADER_BYTES, SegmentEnd, SegmentReader
from groundplan.gateway.journal.syncing import OnDone, Sync, ThreadSync
from groundplan.ledger.model import Charge, Finish, Release, Reservation, Settlement, Usage
from groundplan.testing.journal import read_segment

EPOCH = UUID("01936f00-0000-7000-8000-000000000001")


def reservation(call: bytes, attempt: int = 0) -> Reservation:
    return Reservation(
        call, attempt, 1, "assistant", "", "k", "/v1", "d", "s", "m", 1, 10, [Charge("assistant", "2026-11", 10)]
    )


def settlement(call: bytes, attempt: int = 0) -> Settlement:
    return Settlement(call, attempt, 2, 7, "ok", 200, Usage(input=3, output=4), False, [], 5, 6, 7, 8)


def finish(call: bytes, sources: list[tuple[str, str, int, int]] | None = None) -> Finish:
    return Finish(call, 3, "w", "", "k", "/v1", "ok", 200, "", "d", "none", 1, 5, 4, [("serve", 4)], sources or [])


def open_journal(root: Path, size: int = SMALLEST_SEGMENT, sync: Sync | None = None) -> Journal:
    epoch = new_id()
    return Journal.open(root / str(epoch), epoch, asyncio.get_running_loop(), size, sync)


class Beside(ThreadSync):
    """A disk that is never waited for on the loop."""

    def sync_on_loop(self, descriptors: Sequence[int]) -> bool:  # noqa: ARG002 -- as the others
        return False


def full(*_: object) -> int:
    """What a full disk does to writing and to fsync."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def until(condition: object) -> None:
    for _ in range(15_000):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.002)
    raise AssertionError("did not happen")


def all_records(folder: Path) -> list[records.Record]:
    found: list[records.Record] = []
    last: int | None = 0
    for number in records.segment_numbers(folder):
        entries, ending = read_segment(records.segment_path(folder, number), last)
        assert ending.end is SegmentEnd.CLEAN
        found += [entry.record for entry in entries]
        last = entries[-1].sequence if entries else last
    return found


async def test_what_is_written_is_read_back_in_order_and_becomes_durable(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, sync=Beside(asyncio.get_running_loop()))
    call, release = new_id().bytes, Release(new_id().bytes, "assistant", "2026-11", 5)
    first = journal.reserve(reservation(call))
    written = [reservation(call), settlement(call), finish(call), release]
    assert all_records(journal.folder) == written[:1], "written at once, without waiting for the disk"
    pending = journal.durable(first)
    assert pending is not None
    journal.settle(settlement(call))
    journal.finish(finish(call), urgent=True)
    last = journal.release(release)
    await pending
    waiting = journal.durable(last)
    if waiting is not None:
        await waiting
    assert journal.durable(last) is None
    assert journal.lag_bytes == 0 and journal.healthy and journal.open_calls == 0
    assert all_records(journal.folder) == written
    await journal.close()
    await journal.close()
    assert not journal.healthy
    late = journal.durable(journal.settle(settlement(call)))
    await asyncio.sleep(0)
    assert late is not None and isinstance(late.exception(), Unavailable)
    assert journal._failure == "the journal is closed", "nothing was tried with descriptors that may be somebody else's"
    assert all_records(journal.folder) == written


async def test_a_settlement_is_written_with_the_next_record_or_at_the_end_of_the_turn(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    calls = [new_id().bytes for _ in range(3)]
    for call in calls:
        journal.reserve(reservation(call))
    journal.settle(settlement(calls[0]))
    assert len(all_records(journal.folder)) == 3
    journal.reserve(reservation(calls[0], 1))
    assert all_records(journal.folder)[3:] == [settlement(calls[0]), reservation(calls[0], 1)]
    for call in calls[1:]:
        journal.settle(settlement(call))
    await asyncio.sleep(0)
    assert all_records(journal.folder)[5:] == [settlement(call) for call in calls[1:]]
    last = journal.durable(journal.settle(settlement(calls[0], 1)))
    if last is not None:
        await last
    assert all_records(journal.folder)[-1] == settlement(calls[0], 1)
    await journal.close()


async def test_the_end_of_a_call_that_reserved_nothing_is_written_before_anybody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer from the cache goes to its caller in the same turn: a kill right after it must not lose the call."""
    journal = open_journal(tmp_path)
    sent, cached = new_id().bytes, new_id().bytes
    journal.reserve(reservation(sent))
    journal.settle(settlement(sent))
    journal.finish(finish(cached), urgent=True)
    assert all_records(journal.folder) == [reservation(sent), settlement(sent), finish(cached)]
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(Unavailable):
        journal.finish(finish(new_id().bytes), urgent=True)
    assert journal.counters.dropped == 1 and not journal.healthy
    await journal.close()


async def test_what_ends_in_one_turn_fills_one_segment_after_the_other(tmp_path: Path) -> None:
    """More than a segment holds is waiting when the turn ends; nothing is cut, lost or out of order."""
    journal = open_journal(tmp_path, sync=Beside(asyncio.get_running_loop()))
    sources = [(str(new_id()), "handbook/" + "x" * 200, 1, 2)] * 12
    turns = []
    for _ in range(6):
        await until(lambda: bool(journal._spare_segments.ready))
        calls = [new_id().bytes for _ in range(8)]
        for call in calls:
            journal.reserve(reservation(call))
        for call in calls:
            journal.settle(settlement(call))
            journal.finish(finish(call, sources))
        ends = [record for call in calls for record in (settlement(call), finish(call, sources))]
        turns.append([*(reservation(call) for call in calls), *ends])
        last = journal.durable(journal.sequence)
        assert last is not None
        await last
        assert journal.lag_bytes == 0
    assert len(records.segment_numbers(journal.folder)) > 2
    assert all_records(journal.folder) == [record for turn in turns for record in turn]
    journal.release(Release(new_id().bytes, "assistant", "2026-11", 5))
    await journal.close()
    assert journal.lag_bytes == 0


async def test_many_waiters_share_few_syncs(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, 1 << 20)
    waiting = [journal.durable(journal.reserve(reservation(new_id().bytes))) for _ in range(50)]
    await asyncio.gather(*(future for future in waiting if future is not None))
    assert journal.counters.syncs <= 3
    await journal.close()


async def test_segments_follow_one_another_and_lose_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    written: list[records.Record] = []
    for _ in range(800):
        call = new_id().bytes
        await until(lambda: journal._room() > 8192)
        journal.reserve(reservation(call))
        journal.settle(settlement(call))
        sequence = journal.finish(finish(call))
        written += [reservation(call), settlement(call), finish(call)]
    waiting = journal.durable(sequence)
    if waiting is not None:
        await waiting
    await journal.close()
    assert len(records.segment_numbers(journal.folder)) > 3
    assert all_records(journal.folder) == written


async def test_a_disk_that_is_slow_with_one_segment_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a segment is being made, the calls of one and a half more have their room."""
    journal = open_journal(tmp_path)
    await until(lambda: not journal._spare_segments.is_allocating)
    quick, slow = threading.Event(), segments.allocate_segment

    def late(folder: Path, epoch: UUID, number: int, size: int) -> int:
        quick.wait(30)
        return slow(folder, epoch, number, size)

    monkeypatch.setattr(segments, "allocate_segment", late)
    written = 0
    while written < 2.5 * SMALLEST_SEGMENT:
        call = new_id().bytes
        journal.reserve(reservation(call))
        journal.settle(settlement(call))
        journal.finish(finish(call))
        written = journal.counters.bytes
        await asyncio.sleep(0)
    assert journal._spare_segments.is_allocating and not journal._spare_segments.ready
    quick.set()
    await until(lambda: len(journal._spare_segments.ready) == segments.SPARE_SEGMENTS)
    assert records.segment_numbers(journal.folder) == [1, 2, 3, 4, 5]
    await journal.close()


async def test_a_worker_that_gets_no_thread_for_once_makes_its_segments_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would refuse every call once the segments that it has are full, and nobody would replace it."""
    journal = open_journal(tmp_path)
    await until(lambda: len(journal._spare_segments.ready) == segments.SPARE_SEGMENTS)
    monkeypatch.setattr(segments, "_RETRY_S", 0.05)
    start, refused = threading.Thread.start, list[threading.Thread]()

    def scarce(thread: threading.Thread) -> None:
        if thread.name == "journal-room" and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    journal._next_segment()
    assert refused and len(journal._spare_segments.ready) < segments.SPARE_SEGMENTS
    await until(lambda: len(journal._spare_segments.ready) == segments.SPARE_SEGMENTS)
    await journal.close()


def test_a_segment_takes_nothing_of_a_disk_that_has_no_room_for_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again each second: what is left would be gone for PostgreSQL, which may be on the same disk."""
    disk = os.statvfs(tmp_path)
    few = SimpleNamespace(f_blocks=disk.f_blocks, f_bavail=1, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: few)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        segments.allocate_segment(tmp_path, EPOCH, 1, 8192)
    assert not list(tmp_path.iterdir())
    os.close(segments.allocate_segment(tmp_path, EPOCH, 1, 4096))


async def test_a_full_disk_refuses_new_calls_and_never_a_settlement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(tmp_path)
    await until(lambda: not journal._spare_segments.is_allocating)
    real = os.fsync
    monkeypatch.setattr(os, "fsync", full)
    admitted: list[bytes] = []
    journal.reserve(tool := replace(reservation(new_id().bytes), deployment=""))
    journal.finish(finish(tool.call))
    while True:
        call = new_id().bytes
        before = journal.sequence
        try:
            journal.reserve(reservation(call))
        except Unavailable as refusal:
            assert refusal.code == "journal_unavailable" and journal.sequence == before
            break
        admitted.append(call)
    assert journal._room() >= 0, "however long the ends of all these are"
    long = [(str(new_id()), "handbook/" + "x" * 200, 1, 2)] * 40
    for call in admitted:
        journal.settle(settlement(call))
        journal.finish(finish(call, long))
    await asyncio.sleep(0)  # what ends in one turn of the loop is one write
    assert journal.healthy and journal.counters.shortened > 0 and journal._owed_bytes == 0
    assert {path.stat().st_size for path in journal.folder.glob("*.seg")} == {SMALLEST_SEGMENT}
    assert sum(isinstance(record, Finish) for record in all_records(journal.folder)) == len(admitted) + 1 > 10
    monkeypatch.setattr(os, "fsync", real)
    await until(lambda: bool(journal._spare_segments.ready))
    journal.reserve(reservation(new_id().bytes))
    await journal.close()


@pytest.mark.parametrize("attempts", [0, 1, 6])
@pytest.mark.parametrize(
    "long", [{"sources": [("d", "x" * 900, 1, 2)] * 18}, {"route": "x" * 17_000}], ids=["sources", "route"]
)
async def test_a_finish_that_no_reader_would_believe_loses_what_makes_it_long(
    tmp_path: Path, attempts: int, long: dict[str, Any]
) -> None:
    """However much room was set aside for it: it would be taken for damage, and with it whatever the worker holds. A
    route names each deployment that a rule keeps out, of which a company may have hundreds."""
    journal, call = open_journal(tmp_path), new_id().bytes
    for attempt in range(attempts):
        journal.reserve(reservation(call, attempt))
        journal.settle(settlement(call, attempt))
    journal.finish(replace(finish(call), **long))
    journal.reserve(reservation(new_id().bytes))
    found = all_records(journal.folder)
    assert [record for record in found if isinstance(record, Finish)] == [finish(call)]
    assert isinstance(found[-1], Reservation) and journal.counters.shortened == 1 and not journal.counters.dropped
    await journal.close()


async def test_refused_calls_are_dropped_and_counted_when_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(tmp_path)
    await until(lambda: not journal._spare_segments.is_allocating)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable):
        for _ in range(10_000):
            journal.finish(finish(new_id().bytes))
    assert journal.counters.dropped == 1 and journal.healthy
    with pytest.raises(Unavailable):
        journal.release(Release(new_id().bytes, "x" * 500, "2026-11", 1))
    await journal.close()


class Broken:
    """A disk that fails."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.syncs = 0

    def sync_on_loop(self, descriptors: Sequence[int]) -> bool:  # noqa: ARG002 -- as the others
        return False

    def start_writeback(self, descriptor: int, end: int) -> None:
        """Nothing comes of it."""

    def start(self, descriptors: Sequence[int], done: OnDone) -> None:
        assert descriptors
        self.syncs += 1
        self._loop.call_soon(done, "fdatasync failed: Input/output error")

    async def close(self) -> None: ...


async def test_a_failed_sync_is_never_retried(tmp_path: Path) -> None:
    broken = Broken(asyncio.get_running_loop())
    journal = open_journal(tmp_path, sync=broken)
    call = new_id().bytes
    pending = journal.durable(journal.reserve(reservation(call)))
    assert pending is not None
    with pytest.raises(Unavailable, match="Input/output error"):
        await pending
    assert not journal.healthy
    with pytest.raises(Unavailable):
        journal.reserve(reservation(new_id().bytes))
    after = journal.durable(journal.settle(settlement(call)))
    assert after is not None
    with pytest.raises(Unavailable):
        await after
    await asyncio.sleep(0.01)
    assert broken.syncs == 1
    await journal.close()


class Held:
    """Rounds end when the test says so."""

    def __init__(self) -> None:
        self.rounds: list[OnDone] = []

    def sync_on_loop(self, descriptors: Sequence[int]) -> bool:  # noqa: ARG002 -- as the others
        return False

    def start_writeback(self, descriptor: int, end: int) -> None:
        """Nothing comes of it."""

    def start(self, descriptors: Sequence[int], done: OnDone) -> None:
        assert descriptors
        self.rounds.append(done)

    async def close(self) -> None: ...


@pytest.mark.parametrize("calls", [CROWDED_CALLS, CROWDED_CALLS - 1])
async def test_a_sync_follows_the_one_before_at_once_unless_many_calls_are_open(tmp_path: Path, calls: int) -> None:
    held = Held()
    journal = open_journal(tmp_path, 1 << 20, held)
    last = [journal.reserve(reservation(new_id().bytes)) for _ in range(calls)][-1]
    first = journal.durable(last)
    await until(lambda: held.rounds)
    second = journal.durable(journal.settle(settlement(new_id().bytes)))
    held.rounds[0](None)
    assert first is not None and first.done() and second is not None and not second.done()
    assert len(held.rounds) == (1 if calls == CROWDED_CALLS else 2)
    await until(lambda: len(held.rounds) == 2)
    held.rounds[1](None)
    assert second.done()
    await journal.close()


class OnTheLoop(Held):
    """A disk that is quick, and fails when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: list[int] = []
        self.fails = False

    def sync_on_loop(self, descriptors: Sequence[int]) -> bool:
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.synced.extend(descriptors)
        return True


class Ahead(OnTheLoop):
    """One that keeps what it was to begin with."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[int] = []

    def start_writeback(self, descriptor: int, end: int) -> None:  # noqa: ARG002 -- as the others
        self.begun.append(end)


@pytest.fixture
def never_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sync follows another one closely."""
    monkeypatch.setattr(journal_module, "QUIET_S", 3600.0)


@pytest.mark.usefixtures("never_quiet")
async def test_what_ends_while_nobody_else_waits_is_durable_when_durable_returns(tmp_path: Path) -> None:
    disk = OnTheLoop()
    journal = open_journal(tmp_path, 1 << 20, disk)
    first, second, third = (new_id().bytes for _ in range(3))
    for call in (first, second, third):
        last = journal.reserve(reservation(call))
    assert journal.durable(last) is None and len(disk.synced) == 1, "there was none before"
    disk.synced.clear()
    waits = journal.durable(journal.settle(settlement(first)))
    assert waits is not None and not waits.done(), "two others are open: one round for all"
    for call in (first, second, third):
        last = journal.finish(finish(call))
    beside = journal.durable(last)
    assert beside is not None and not beside.done() and not disk.synced, "somebody waits for a round already"
    await until(lambda: disk.rounds)
    disk.rounds[0](None)
    await asyncio.gather(waits, beside)
    assert journal.durable(journal.reserve(reservation(first))) is None
    assert journal.durable(journal.finish(finish(first), urgent=True)) is None
    assert len(disk.synced) == 2 and journal.lag_bytes == 0 and journal.counters.syncs == 4
    await asyncio.sleep(0.01)
    assert len(disk.rounds) == 1, "what is durable is not synced again"
    await journal.close()
    written = [type(record) for record in all_records(journal.folder)]
    assert written == [Reservation] * 3 + [Settlement] + [Finish] * 3 + [Reservation, Finish]


@pytest.mark.usefixtures("never_quiet")
@pytest.mark.parametrize(("calls", "before"), [(1, False), (1, True), (CROWDED_CALLS, False), (2, True)])
async def test_a_hastened_reservation_is_synced_after_what_was_sent_in_its_turn(
    tmp_path: Path, calls: int, before: bool
) -> None:
    disk, sent = OnTheLoop(), list[int]()
    journal = open_journal(tmp_path, 1 << 20, disk)
    if before:
        assert journal.durable(journal.finish(finish(new_id().bytes))) is None
        disk.synced.clear()
    last = [journal.reserve(reservation(new_id().bytes)) for _ in range(calls)][-1]
    asyncio.get_running_loop().call_soon(lambda: sent.append(len(disk.synced) + len(disk.rounds)))
    journal.sync_soon()
    journal.sync_soon()
    assert not disk.synced and not disk.rounds
    await until(lambda: disk.synced or disk.rounds)
    assert sent == [0], "what was to be sent went out before"
    if calls == 1 or not before:
        assert journal.durable(last) is None and len(disk.synced) == 1 and not disk.rounds
    else:
        pending = journal.durable(last)
        assert pending is not None and len(disk.rounds) == 1 and not disk.synced, "a crowd is not held up by the disk"
        disk.rounds[0](None)
        await pending
        await asyncio.sleep(0.001)
        assert len(disk.rounds) == 1, "who asks while the disk is at it needs no other round"
    await journal.close()


async def test_where_no_sync_ended_lately_one_on_the_loop_makes_all_durable(tmp_path: Path) -> None:
    disk = OnTheLoop()
    journal = open_journal(tmp_path, 1 << 20, disk)
    calls = [new_id().bytes for _ in range(2 * CROWDED_CALLS)]
    for call in calls:
        last = journal.reserve(reservation(call))
    assert journal.durable(last) is None
    soon = journal.durable(journal.settle(settlement(calls[0])))
    assert soon is not None and not soon.done(), "one ended just now"
    await until(lambda: disk.rounds)
    disk.rounds[0](None)
    await soon
    await asyncio.sleep(2 * QUIET_S)
    assert journal.durable(journal.finish(finish(calls[0]))) is None
    assert len(disk.synced) == 2 and len(disk.rounds) == 1
    await journal.close()


@pytest.mark.usefixtures("never_quiet")
@pytest.mark.parametrize(("others", "begun"), [(0, True), (CROWDED_CALLS - 1, True), (CROWDED_CALLS, False)])
async def test_the_disk_begins_with_the_end_of_a_call_before_anybody_waits_for_it(
    tmp_path: Path, others: int, begun: bool
) -> None:
    """Unless many calls are open, which share a round."""
    disk = Ahead()
    journal = open_journal(tmp_path, 1 << 20, disk)
    calls = [new_id().bytes for _ in range(others + 1)]
    for call in calls:
        journal.reserve(reservation(call))
    journal.settle(settlement(calls[0]))
    last = journal.finish(finish(calls[0]), urgent=True, awaited=True)
    assert not disk.synced and not disk.rounds
    whole = [*(reservation(call) for call in calls), settlement(calls[0]), finish(calls[0])]
    assert disk.begun == ([records.HEADER_BYTES + journal.counters.bytes] if begun else [])
    if begun:
        assert all_records(journal.folder) == whole, "all of it is in the file by then"
    assert journal.durable(last) is None and len(disk.synced) == 1, "there was none before"
    assert all_records(journal.folder) == whole
    journal.finish(finish(new_id().bytes), urgent=True)
    assert len(disk.begun) == begun, "of a call without an attempt nobody waits for the disk"
    closing = asyncio.ensure_future(journal.close())
    await until(lambda: disk.rounds or closing.done())
    while disk.rounds:
        disk.rounds.pop()(None)
    await closing


async def test_for_the_end_of_a_call_that_is_awaited_nobody_is_woken_before(tmp_path: Path) -> None:
    disk, call = Ahead(), new_id().bytes
    journal = open_journal(tmp_path, 1 << 20, disk)
    journal.reserve(reservation(call))
    journal.settle(settlement(call))
    last = journal.finish(finish(call), urgent=True, awaited=True)
    await asyncio.sleep(0.001)
    assert disk.begun == [records.HEADER_BYTES + journal.counters.bytes] and not disk.rounds
    assert journal.durable(last) is None and len(disk.synced) == 1
    await journal.close()


@pytest.mark.parametrize("round_runs", [False, True])
async def test_the_end_of_a_call_is_written_at_once_or_at_the_end_of_the_turn(tmp_path: Path, round_runs: bool) -> None:
    """Never both: to have the loop turn once more for nothing takes longer than to write."""
    disk, calls = Ahead(), [new_id().bytes for _ in range(2)]
    journal = open_journal(tmp_path, 1 << 20, disk)
    for call in calls:
        last = journal.reserve(reservation(call))
    if round_runs:
        assert journal.durable(last, patient=True) is not None
        await until(lambda: disk.rounds)
    journal.settle(settlement(calls[0]), ends=True)
    journal.finish(finish(calls[0]), urgent=True, awaited=True)
    ended = [settlement(calls[0]), finish(calls[0])]
    assert (all_records(journal.folder)[2:] == ended) is not round_runs
    assert journal._flush_scheduled is round_runs
    await asyncio.sleep(0)
    assert all_records(journal.folder)[2:] == ended
    closing = asyncio.ensure_future(journal.close())
    await until(lambda: disk.rounds or closing.done())
    while disk.rounds:
        disk.rounds.pop()(None)
        await asyncio.sleep(0)
    await closing


async def test_an_end_that_nobody_is_in_a_hurry_for_is_left_to_a_round(tmp_path: Path) -> None:
    """As that of a stream: to begin with it here would hold up everybody for as long as the disk takes it."""
    disk, call = Ahead(), new_id().bytes
    journal = open_journal(tmp_path, 1 << 20, disk)
    journal.reserve(reservation(call))
    journal.settle(settlement(call))
    pending = journal.durable(journal.finish(finish(call), urgent=True), patient=True)
    await until(lambda: disk.rounds)
    assert disk.begun == disk.synced == [] and pending is not None
    disk.rounds.pop()(None)
    await pending
    await journal.close()


async def test_the_disk_does_not_begin_with_what_the_next_round_takes_along(tmp_path: Path) -> None:
    disk = Ahead()
    journal = open_journal(tmp_path, 1 << 20, disk)
    calls = [new_id().bytes for _ in range(2)]
    for call in calls:
        last = journal.reserve(reservation(call))
    assert journal.durable(last, patient=True) is not None
    await until(lambda: disk.rounds)
    journal.finish(finish(calls[0]), urgent=True, awaited=True)
    assert disk.begun == []
    await until(lambda: disk.rounds)
    disk.rounds.pop()(None)
    await until(lambda: disk.rounds)
    disk.rounds.pop()(None)
    await journal.close()


@pytest.mark.parametrize("ends", [True, False])
async def test_a_reservation_that_nobody_waits_for_is_synced_unless_another_sync_was_sooner(
    tmp_path: Path, ends: bool
) -> None:
    disk = OnTheLoop()
    journal = open_journal(tmp_path, 1 << 20, disk)
    call = new_id().bytes
    last, timer = journal.reserve(reservation(call)), journal._timer
    if ends:
        assert journal.durable(journal.finish(finish(call))) is None
    assert len(disk.synced) == (1 if ends else 0)
    assert timer is not None and timer.cancelled() == ends, "nobody is woken for nothing"
    await asyncio.sleep(20 * RESERVATION_SYNC_S)
    assert len(disk.rounds) == (0 if ends else 1)
    while disk.rounds:
        disk.rounds.pop()(None)
    assert journal.durable(last) is None
    journal.reserve(reservation(new_id().bytes))
    await until(lambda: disk.rounds)
    disk.rounds.pop()(None)
    assert journal.lag_bytes == 0, "the next one has its time again"
    await journal.close()


async def test_whoever_is_patient_waits_for_a_round(tmp_path: Path) -> None:
    disk = OnTheLoop()
    journal = open_journal(tmp_path, 1 << 20, disk)
    last = journal.reserve(reservation(new_id().bytes))
    pending = journal.durable(last, patient=True)
    assert pending is not None and not disk.synced
    await until(lambda: disk.rounds)
    disk.rounds[0](None)
    await pending
    assert journal.durable(last, patient=True) is None
    await journal.close()


@pytest.mark.usefixtures("never_quiet")
async def test_what_is_hastened_during_a_round_is_in_the_next_one(tmp_path: Path) -> None:
    disk = OnTheLoop()
    journal = open_journal(tmp_path, 1 << 20, disk)
    assert journal.durable(journal.finish(finish(new_id().bytes))) is None
    disk.synced.clear()
    for _ in range(2):
        last = journal.reserve(reservation(new_id().bytes))
    waits = journal.durable(last)
    await until(lambda: disk.rounds)
    second = journal.reserve(reservation(new_id().bytes))
    journal.sync_soon()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    disk.rounds[0](None)
    assert waits is not None and waits.done() and not disk.synced
    await until(lambda: len(disk.rounds) == 2)
    pending = journal.durable(second)
    assert pending is not None
    disk.rounds[1](None)
    await pending
    await journal.close()


async def test_a_disk_that_fails_on_the_loop_seals_the_journal(tmp_path: Path) -> None:
    disk = OnTheLoop()
    journal = open_journal(tmp_path, sync=disk)
    call = new_id().bytes
    sequence = journal.reserve(reservation(call))
    disk.fails = True
    pending = journal.durable(sequence)
    assert pending is not None and not journal.healthy
    with pytest.raises(Unavailable, match="Input/output error"):
        await pending
    disk.fails = False
    again = journal.durable(sequence)
    assert again is not None and not disk.synced and not disk.rounds
    with pytest.raises(Unavailable):
        await again
    await journal.close()


async def test_reservations_of_one_turn_are_one_write_before_what_is_called_soon(tmp_path: Path) -> None:
    journal, loop = open_journal(tmp_path), asyncio.get_running_loop()
    written, calls = [], [new_id().bytes for _ in range(3)]
    for call in calls:
        journal.reserve(reservation(call), soon=True)
        loop.call_soon(lambda: written.append(len(all_records(journal.folder))))
    assert journal.counters.records == 0 and journal.open_calls == 3
    await asyncio.sleep(0)
    assert written == [3, 3, 3]
    await journal.close()


async def test_what_waits_for_the_end_of_a_turn_keeps_its_room_and_its_place(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await until(lambda: not journal._spare_segments.is_allocating)
    first, second = new_id().bytes, new_id().bytes
    room = journal._room()
    journal.reserve(reservation(first), soon=True)
    assert journal._room() < room - 4096, "its own, its settlement's and its finish's"
    journal.reserve(reservation(second))
    assert [record.call for record in all_records(journal.folder) if isinstance(record, Reservation)] == [first, second]
    await journal.close()


async def test_who_sends_is_told_once_that_what_it_reserved_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, loop = open_journal(tmp_path), asyncio.get_running_loop()
    await until(lambda: not journal._spare_segments.is_allocating)
    told: list[str] = []
    order: list[str] = []

    def note(why: str) -> None:
        told.append(why)
        order.append("told")

    journal.on_failure = note
    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(2):
        journal.reserve(reservation(new_id().bytes), soon=True)
        loop.call_soon(order.append, "sent")
    await asyncio.sleep(0)
    monkeypatch.undo()
    assert len(told) == 1 and "No space left" in told[0]
    assert order == ["told", "sent", "sent"]
    with pytest.raises(Unavailable):
        journal.reserve(reservation(new_id().bytes), soon=True)
    await journal.close()


async def test_finishes_that_nobody_waits_for_share_a_sync_while_the_journal_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "QUIET_S", 60.0)  # as long as a slow machine may take
    monkeypatch.setattr(journal_module, "UNAWAITED_SYNC_S", 0.5)
    disk = OnTheLoop()
    journal = open_journal(tmp_path, 1 << 20, disk)
    for _ in range(3):
        journal.finish(finish(new_id().bytes), urgent=True)
    await until(lambda: len(disk.rounds) == 1)
    disk.rounds.pop()(None)
    last = 0
    for _ in range(5):
        last = journal.finish(finish(new_id().bytes), urgent=True)
        await asyncio.sleep(0)
    assert not disk.rounds, "one ended a moment ago"
    await until(lambda: len(disk.rounds) == 1)
    disk.rounds.pop()(None)
    assert journal.durable(last) is None
    await journal.close()


async def test_a_failed_write_seals_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(tmp_path)
    await until(lambda: not journal._spare_segments.is_allocating)
    monkeypatch.setattr(os, "pwrite", lambda _, data, __: len(data) - 1)
    with pytest.raises(Unavailable):
        journal.reserve(reservation(new_id().bytes))
    monkeypatch.undo()
    with pytest.raises(Unavailable):
        journal.reserve(reservation(new_id().bytes))
    await journal.close()


async def test_what_could_not_be_written_is_not_durable_once_a_sync_after_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    journal, call = open_journal(tmp_path, sync=held), new_id().bytes
    await until(lambda: not journal._spare_segments.is_allocating)
    assert journal.durable(journal.reserve(reservation(call))) is not None
    lost = journal.settle(settlement(call))
    monkeypatch.setattr(os, "pwrite", full)
    journal._start_sync()
    for done in held.rounds:
        done(None)
    late = journal.durable(lost)
    assert late is not None and isinstance(late.exception(), Unavailable)
    await journal.close()


async def test_an_epoch_is_opened_once_and_named_after_its_folder(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    loop = asyncio.get_running_loop()
    with pytest.raises(Conflict):
        Journal.open(journal.folder, journal.epoch, loop)
    with pytest.raises(Invalid):
        Journal.open(tmp_path / "other", EPOCH, loop)
    with pytest.raises(Invalid):
        Journal.open(tmp_path / str(EPOCH), EPOCH, loop, 100)
    with pytest.raises(Invalid):
        journal.reserve(Reservation(b"c" * 16, 0, 1, "w" * 20_000, "", "", "", "", "", "", 1, 1, []))
    await journal.close()


def segment(count: int) -> tuple[bytes, list[records.Entry]]:
    """A small segment with `count` records and pages of zeros, and what is in it."""
    data = records.segment_header(EPOCH, 1)
    for number in range(count):
        call = number.to_bytes(16, "big")
        record, kind = (reservation(call), 1) if number % 2 else (settlement(call), 2)
        data += records.encode_frame(kind, number + 1, records.encode(record))
    data += bytes(10_000)
    reader = SegmentReader(data, EPOCH, 1, 0)
    return data, list(reader)


def read(data: bytes) -> tuple[list[records.Entry], SegmentEnd, int]:
    reader = SegmentReader(data, EPOCH, 1, 0)
    found = list(reader)
    assert reader.ending is not None
    return found, reader.ending.end, reader.ending.offset


def test_cut_at_every_byte_the_records_before_the_cut_are_read() -> None:
    data, entries = segment(6)
    used = entries[-1].end
    for cut in range(HEADER_BYTES, used + 1):
        found, end, offset = read(data[:cut])
        whole = [entry for entry in entries if entry.end <= cut]
        assert found == whole
        boundary = whole[-1].end if whole else HEADER_BYTES
        assert offset == boundary
        rest_is_zero = not data[boundary:cut].strip(b"\0")
        assert end is (SegmentEnd.CLEAN if rest_is_zero else SegmentEnd.TORN)
        # zeros after the cut, as in a preallocated file: a record of which only zeros were to come is whole
        filled = data[:cut] + bytes(len(data) - cut)
        assert read(filled)[0] == [entry for entry in entries if filled[: entry.end] == data[: entry.end]]


def test_damaged_at_every_byte_no_wrong_record_is_read_and_the_damage_is_found() -> None:
    data, entries = segment(6)
    starts = [HEADER_BYTES, *(entry.end for entry in entries)]
    for place in range(entries[-1].end):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        found, end, offset = read(bytes(damaged))
        if place < HEADER_BYTES:
            assert end is SegmentEnd.CORRUPT and all(entry.after_gap for entry in found)
            continue
        hit = next(index for index, entry in enumerate(entries) if place < entry.end)
        expected = [entry.sequence for index, entry in enumerate(entries) if index != hit]
        assert [entry.sequence for entry in found] == expected
        assert [entry.record for entry in found] == [entries[sequence - 1].record for sequence in expected]
        assert offset == starts[hit]
        assert end is (SegmentEnd.TORN if hit == len(entries) - 1 else SegmentEnd.CORRUPT)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_overwritten_stretch_never_makes_a_wrong_record(draw: st.DataObject) -> None:
    data, entries = segment(8)
    start = draw.draw(st.integers(HEADER_BYTES, entries[-1].end - 1))
    garbage = draw.draw(st.binary(min_size=1, max_size=200) | st.integers(1, 200).map(bytes))
    damaged = (data[:start] + garbage + data[start + len(garbage) :])[: len(data)]
    found, end, _ = read(damaged)
    right = {entry.sequence: entry.record for entry in entries}
    assert all(right[entry.sequence] == entry.record for entry in found)
    untouched = [entry for entry in entries if entry.end <= start]
    assert [entry.sequence for entry in found[: len(untouched)]] == [entry.sequence for entry in untouched]
    if damaged == data:
        assert end is SegmentEnd.CLEAN
    elif any(entry.sequence > len(found) for entry in found):
        assert end is SegmentEnd.CORRUPT


def test_a_missing_segment_before_this_one_is_a_gap() -> None:
    data, entries = segment(3)
    reader = SegmentReader(data, EPOCH, 1, 7)
    assert list(reader) == [] and reader.ending is not None and reader.ending.end is SegmentEnd.TORN
    later = records.segment_header(EPOCH, 2) + records.encode_frame(
        4, 9, records.encode(Release(b"r" * 16, "b", "p", 1))
    )
    reader = SegmentReader(later, EPOCH, 2, 7)
    assert [entry.after_gap for entry in reader] == [True]
    assert reader.ending is not None and reader.ending.end is SegmentEnd.CORRUPT
    assert entries


@pytest.mark.parametrize(("kind", "payload"), [(9, b"?"), (records.RELEASE, records.encode(["r", 1]))])
def test_what_a_newer_program_wrote_is_no_damage(kind: int, payload: bytes) -> None:
    """After it was replaced by the one of before."""
    data = records.segment_header(EPOCH, 1) + records.encode_frame(kind, 1, payload)
    with pytest.raises(Unavailable, match="journal_newer"):
        list(SegmentReader(data + bytes(4096), EPOCH, 1, 0))


def test_records_of_a_program_that_knew_fewer_or_more_fields_are_read() -> None:
    """As after an upgrade, and while workers of both programs run."""
    made = Reservation(b"c" * 16, 0, 1, "w", "p", "k", "chat", "d", "s", "m", 1, 5, [], True, "judge", streamed=True)
    fields = list(astuple(made))
    frames = [
        records.encode_frame(records.RESERVATION, number, records.encode(values))
        for number, values in enumerate((fields[:-1], fields, [*fields, "later"]), 1)
    ]
    data = records.segment_header(EPOCH, 1) + b"".join(frames)
    found = [entry.record for entry in SegmentReader(data + bytes(4096), EPOCH, 1, 0)]
    assert found == [replace(made, streamed=False), made, made]


def test_a_file_that_is_not_a_segment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        read_segment(tmp_path / "x.seg")
