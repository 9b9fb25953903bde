"""The follower of a journal sees every record once and in order, however its looks fall between the writes."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.gateway.journal import records
from groundplan.gateway.journal.records import HEADER_BYTES
from groundplan.gateway.journal.tail import EpochTail, try_lock
from groundplan.ledger.model import Release
from groundplan.testing.journal import read_segment

EPOCH = UUID("01936f00-0000-7000-8000-000000000001")
SIZE = 400


class Files:
    """A writer at the level of bytes: small segments, made one ahead, frames that may arrive in two parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sequence, self.number, self.offset = 0, 1, HEADER_BYTES
        self.late: tuple[Path, int, bytes] | None = None
        self.make(1)
        self.make(2)

    def make(self, number: int) -> None:
        data = records.segment_header(EPOCH, number).ljust(SIZE, b"\0")
        records.segment_path(self.folder, number).write_bytes(data)

    def put(self, offset: int, data: bytes, path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def write(self, split: int) -> None:
        self.complete()
        self.sequence += 1
        record = Release(self.sequence.to_bytes(16, "big"), "b", "2026-11", self.sequence)
        framed = records.encode_frame(records.RELEASE, self.sequence, records.encode(record))
        if self.offset + len(framed) > SIZE:
            self.number, self.offset = self.number + 1, HEADER_BYTES
            self.make(self.number + 1)
        path = records.segment_path(self.folder, self.number)
        split %= len(framed)
        self.put(self.offset, framed[: split or None], path)
        if split:
            self.late = (path, self.offset + split, framed[split:])
        self.offset += len(framed)

    def complete(self) -> None:
        if self.late is not None:
            path, offset, data = self.late
            self.put(offset, data, path)
            self.late = None


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.just(-1), st.integers(0, 60)), max_size=60), st.integers(1, 5), st.booleans())
def test_every_record_once_and_in_order(acts: list[int], limit: int, torn: bool) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / str(EPOCH)
        folder.mkdir()
        files = Files(folder)
        tail = EpochTail(folder, EPOCH)
        seen: list[int] = []
        for act in acts:
            if act < 0:
                seen += [read.entry.sequence for read in tail.read(limit)]
                assert seen == list(range(1, len(seen) + 1))
            else:
                files.write(act)
        cut = torn and files.late is not None
        if not cut:
            files.complete()
        seen += [read.entry.sequence for read in tail.read_rest()]
        assert seen == list(range(1, files.sequence + (0 if cut else 1)))
        assert tail.damaged == set()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.data())
def test_a_damaged_byte_is_found_and_the_other_records_are_read(count: int, draw: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / str(EPOCH)
        folder.mkdir()
        files = Files(folder)
        for _ in range(count):
            files.write(0)
        entries = [
            (number, entry)
            for number in range(1, files.number + 1)
            for entry in read_segment(records.segment_path(folder, number))[0]
        ]
        number, hit = draw.draw(st.sampled_from(entries))
        place = hit.end - 1 - draw.draw(st.integers(0, 20))
        path = records.segment_path(folder, number)
        files.put(place, bytes([path.read_bytes()[place] ^ 0x55]), path)
        tail = EpochTail(folder, EPOCH)
        seen = [read.entry.sequence for read in tail.read(1 << 30)]
        if number < files.number - 1:
            assert len(seen) == count - 1, "also of a living writer, which has gone on"
        seen += [read.entry.sequence for read in tail.read_rest()]
        assert seen == [sequence for sequence in range(1, count + 1) if sequence != hit.sequence]
        assert tail.damaged == (set() if hit.sequence == count else {number})


@pytest.mark.parametrize(
    ("lost", "damaged"),
    [({1: "zeros"}, {2}), ({1: "torn", 2: "torn"}, {1}), ({2: "torn"}, set()), ({1: "taken over"}, set())],
    ids=str,
)
def test_what_is_missing_is_damage_where_anything_was_written_later(
    tmp_path: Path, lost: dict[int, str], damaged: set[int]
) -> None:
    """Else what its worker held would be lent again, though nobody knows what it spent."""
    folder = tmp_path / str(EPOCH)
    folder.mkdir()
    files = Files(folder)
    while files.number < 2:
        files.write(0)
    missing = set[int]()
    for number, how in lost.items():
        path = records.segment_path(folder, number)
        *before, last = read_segment(path)[0]
        missing |= {entry.sequence for entry in before if how == "taken over"} | {last.sequence}
        start = before[-1].end if before else HEADER_BYTES
        if how == "taken over":
            path.unlink()
        elif how == "zeros":
            files.put(start, bytes(last.end - start), path)
        else:
            files.put(last.end - 1, b"\xff", path)
    tail = EpochTail(folder, EPOCH)
    seen = [read.entry.sequence for read in (*tail.read(1 << 30), *tail.read_rest())]
    assert seen == [sequence for sequence in range(1, files.sequence + 1) if sequence not in missing]
    assert tail.damaged == damaged


def test_a_folder_whose_segments_are_deleted_has_nothing_to_read(tmp_path: Path) -> None:
    """As of an epoch that was taken over, where its end was cut by a kill."""
    tail = EpochTail(tmp_path, EPOCH)
    assert (tail.read(5), tail.read_rest(), tail.damaged) == ([], [], set())


def test_a_lock_is_free_only_when_nobody_holds_it(tmp_path: Path) -> None:
    first = try_lock(tmp_path)
    assert first is not None
    assert try_lock(tmp_path) is None


def test_a_lock_that_the_system_does_not_give_keeps_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for twice a second."""

    def none_left(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none_left)
    with monkeypatch.context() as files:
        closed, close = list[int](), os.close

        def counted(descriptor: int) -> None:
            closed.append(descriptor)
            close(descriptor)

        files.setattr(os, "close", counted)
        with pytest.raises(OSError, match="No locks"):
            try_lock(tmp_path)
    assert len(closed) == 1


def test_segments_that_cannot_be_listed_are_not_none(tmp_path: Path) -> None:
    """As where no more files may be open: of a dead worker all would be given up that was not taken over yet."""
    Files(tmp_path)
    with no_files(), pytest.raises(OSError, match="Too many open files"):
        records.segment_numbers(tmp_path)
    assert records.segment_numbers(tmp_path) == [1, 2]


@contextmanager
def no_files() -> Iterator[None]:
    """This process may open none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
