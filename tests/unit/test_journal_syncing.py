"""The two ways to sync beside the loop: what each tells, also of what fails."""

from __future__ import annotations

import asyncio
import errno
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from groundplan.gateway.journal.syncing import (
    FIRST_PAUSE_S,
    MAX_SUBMITTED,
    QUICK_S,
    TAIL_BYTES,
    KernelSync,
    LoopSync,
    Sync,
    ThreadSync,
    create_sync,
)

Make = Callable[[asyncio.AbstractEventLoop], Sync]


def by_the_kernel(loop: asyncio.AbstractEventLoop) -> Sync:
    made = KernelSync.open(loop)
    assert made is not None, "the kernel of a Linux machine offers it"
    return made


both = pytest.mark.parametrize("make", [by_the_kernel, ThreadSync])


async def sync_round(sync: Sync, descriptors: list[int]) -> str | None:
    """What a round says in the end."""
    done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    sync.start(descriptors, done.set_result)
    assert not done.done(), "nobody is told before `start` is over"
    return await asyncio.wait_for(done, 10)


@both
@pytest.mark.parametrize("count", [1, MAX_SUBMITTED, 2 * MAX_SUBMITTED + 3])
async def test_all_of_a_round_is_synced_round_after_round(tmp_path: Path, make: Make, count: int) -> None:
    sync = make(asyncio.get_running_loop())
    files = [os.open(tmp_path / str(n), os.O_RDWR | os.O_CREAT) for n in range(count)]
    for _ in range(3):
        for file in files:
            os.write(file, b"x" * 4096)
        assert await sync_round(sync, files) is None
    await sync.close()
    for file in files:
        os.close(file)


@both
async def test_one_that_fails_fails_the_round_and_not_the_next(tmp_path: Path, make: Make) -> None:
    sync = make(asyncio.get_running_loop())
    good = os.open(tmp_path / "good", os.O_RDWR | os.O_CREAT)
    gone = os.dup(good)
    os.close(gone)
    assert await sync_round(sync, [good, gone]) == f"fdatasync failed: {os.strerror(errno.EBADF)}"
    ours, theirs = os.pipe()
    assert await sync_round(sync, [theirs]) == f"fdatasync failed: {os.strerror(errno.EINVAL)}"
    assert await sync_round(sync, [good]) is None
    await sync.close()
    for descriptor in (good, ours, theirs):
        os.close(descriptor)


@both
async def test_a_slow_disk_is_not_waited_for_on_the_loop_again_and_again(
    monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    sync = make(asyncio.get_running_loop())
    now, takes, synced = 100.0, QUICK_S / 2, list[int]()

    def disk(descriptor: int) -> None:
        nonlocal now
        now += takes
        synced.append(descriptor)

    monkeypatch.setattr(os, "fdatasync", disk)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert sync.sync_on_loop([3]) and sync.sync_on_loop([4])
    takes = 3 * QUICK_S
    pauses = []
    for _ in range(12):
        assert sync.sync_on_loop([5]), "it is tried again after a while"
        began = now
        while not sync.sync_on_loop([6]):
            now += FIRST_PAUSE_S / 2
            if now - began > 61:
                raise AssertionError("never again")
        pauses.append(round((now - began) / FIRST_PAUSE_S))
        now += 61
    assert pauses[:3] == [1, 4, 16] and max(pauses) <= 241
    assert 4 in synced and 5 in synced
    takes = QUICK_S / 2
    assert sync.sync_on_loop([7]) and sync.sync_on_loop([8])
    await sync.close()


@both
async def test_a_disk_begins_with_what_was_written_and_what_fails_is_told_later(tmp_path: Path, make: Make) -> None:
    sync = make(asyncio.get_running_loop())
    asked: list[tuple[int, ...]] = []
    real = sync._range_sync  # type: ignore[attr-defined]

    def watched(*arguments: int) -> int:
        asked.append(arguments)
        return int(real(*arguments))

    sync._range_sync = watched  # type: ignore[attr-defined]
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    for end in (4096, 10 * TAIL_BYTES):
        os.pwrite(file, b"x" * 4096, end - 4096)
        sync.start_writeback(file, end)
        assert sync.sync_on_loop([file])
    assert asked == [(file, 0, 4096, 2), (file, 9 * TAIL_BYTES, TAIL_BYTES, 2)]
    os.close(file)
    sync.start_writeback(file, 4096)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync.sync_on_loop([file])
    await sync.close()


def test_where_the_system_cannot_begin_ahead_nothing_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    sync = LoopSync()
    sync.start_writeback(file, 4096)
    assert sync.sync_on_loop([file])
    os.close(file)


@both
async def test_a_disk_that_fails_on_the_loop_says_so(tmp_path: Path, make: Make) -> None:
    sync = make(asyncio.get_running_loop())
    gone = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.close(gone)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync.sync_on_loop([gone])
    await sync.close()


async def test_what_the_kernel_tells_of_a_disk_that_fails_fails_the_round(tmp_path: Path) -> None:
    """The kernel's answer is put where it writes it: no disk of a test fails on demand."""
    sync = by_the_kernel(asyncio.get_running_loop())
    assert isinstance(sync, KernelSync)
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    real = sync._call

    def failing(*arguments: object) -> int:
        found = int(real(*arguments))
        if arguments is not None and len(arguments) == len(sync._getevents) and found == 1:
            sync._events[0].res = -errno.EIO
        return found

    sync._call = failing  # type: ignore[assignment]
    assert await sync_round(sync, [file]) == f"fdatasync failed: {os.strerror(errno.EIO)}"
    sync._call = real
    assert await sync_round(sync, [file]) is None
    await sync.close()
    os.close(file)


async def test_where_the_kernel_does_not_offer_it_a_thread_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    best = create_sync(loop)
    assert isinstance(best, KernelSync)
    await best.close()
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    other = create_sync(loop)
    assert isinstance(other, ThreadSync)
    await other.close()
