"""Makes what a journal wrote survive a loss of power: beside the event loop, one round of fdatasync at a time, or on
the loop itself for a call that is alone.

Beside the loop it uses the kernel's asynchronous I/O (Linux AIO, signalled by an eventfd) where there is one: no thread
then competes for the interpreter while calls are served, which was a tenth of what a call computes. Elsewhere it uses a
thread. It syncs on the loop while the disk is quicker than a wake-up. The journal decides when a round starts, when a
call is alone, and what has failed for good.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, Protocol

OnDone = Callable[[str | None], None]
"""Called in the loop, with None when everything is durable, else with the error."""
_SYSTEM_CALLS: Final = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""Numbers of io_setup, io_destroy, io_getevents and io_submit."""
_FDSYNC, _RESFD, _RANGE_WRITE = 3, 1, 2
"""IOCB_CMD_FDSYNC, IOCB_FLAG_RESFD, SYNC_FILE_RANGE_WRITE"""
MAX_SUBMITTED = 8
"""Descriptors submitted to the kernel together."""
TAIL_BYTES = 64 << 10
"""What few calls write between two syncs is within so many bytes of the end."""
QUICK_S = 0.0005
"""After a sync on the loop that takes longer than this, none is done there for a while."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 60.0
"""Length of that while: doubled each time that the disk is too slow again."""


class Sync(Protocol):
    """Syncs files, one round at a time: `start` is called again only after `done` was."""

    def start(self, descriptors: Sequence[int], done: OnDone) -> None:
        """fdatasync each of `descriptors`, which stay open until `done` is called."""

    def sync_on_loop(self, descriptors: Sequence[int]) -> bool:
        """fdatasync each of them now, on the loop. Returns False, with nothing done, where that would take long. Raises
        OSError."""

    def start_writeback(self, descriptor: int, end: int) -> None:
        """Start writing to the device what was written before `end`, so that an fdatasync that follows soon waits less.
        Does not wait; errors are reported by that fdatasync."""

    async def close(self) -> None:
        """Release everything. No round is under way."""


def create_sync(loop: asyncio.AbstractEventLoop) -> Sync:
    """Return the kernel's own sync where there is one, else a thread's."""
    return KernelSync.open(loop) or ThreadSync(loop)


def _range_sync() -> Callable[[int, int, int, int], int]:
    """Return sync_file_range of the C library where there is one, called without releasing the GIL; else a no-op."""
    made = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    if sys.platform == "linux":
        with suppress(AttributeError):
            return made(("sync_file_range", ctypes.PyDLL(None)))
    return lambda *_: 0


class LoopSync:
    """Syncs on the loop, as long as the last sync was quick."""

    _paused_until = 0.0
    _pause = FIRST_PAUSE_S

    def __init__(self) -> None:
        self._range_sync = _range_sync()

    def start_writeback(self, descriptor: int, end: int) -> None:
        start = max(0, end - TAIL_BYTES)
        self._range_sync(descriptor, start, end - start, _RANGE_WRITE)

    def sync_on_loop(self, descriptors: Sequence[int]) -> bool:
        began = time.monotonic()
        if began < self._paused_until:
            return False
        for descriptor in descriptors:
            os.fdatasync(descriptor)
        took = time.monotonic() - began
        if took <= QUICK_S:
            self._pause = FIRST_PAUSE_S
        else:
            self._paused_until = began + took + self._pause
            self._pause = min(LONGEST_PAUSE_S, 2 * self._pause)
        return True


class _Iocb(ctypes.Structure):
    """struct iocb of linux/aio_abi.h on a little-endian machine"""

    _fields_ = [
        ("data", ctypes.c_uint64), ("key", ctypes.c_uint32), ("rw_flags", ctypes.c_int32), ("opcode", ctypes.c_uint16),
        ("reqprio", ctypes.c_int16), ("fildes", ctypes.c_uint32), ("buf", ctypes.c_uint64), ("nbytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64), ("reserved2", ctypes.c_uint64), ("flags", ctypes.c_uint32),
        ("resfd", ctypes.c_uint32),
    ]  # fmt: skip


class _Event(ctypes.Structure):
    """struct io_event of linux/aio_abi.h"""

    _fields_ = [
        ("data", ctypes.c_uint64), ("obj", ctypes.c_uint64), ("res", ctypes.c_int64), ("res2", ctypes.c_int64),
    ]  # fmt: skip


class KernelSync(LoopSync):
    """Syncs by Linux AIO. Create it with `open`. What the kernel does not accept is synced on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: ctypes.c_ulong, calls: tuple[int, ...]) -> None:
        super().__init__()
        _, destroy, getevents, submit = calls
        self._loop = loop
        # the GIL is kept during a system call: it takes a microsecond, and releasing the GIL would take longer
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._blocks = [_Iocb(opcode=_FDSYNC, flags=_RESFD, resfd=self._eventfd) for _ in range(MAX_SUBMITTED)]
        pointers = (ctypes.POINTER(_Iocb) * MAX_SUBMITTED)(*(ctypes.pointer(block) for block in self._blocks))
        self._events = (_Event * MAX_SUBMITTED)()
        self._submit = [(ctypes.c_long(submit), context, ctypes.c_long(n), pointers) for n in range(MAX_SUBMITTED + 1)]
        self._getevents = (
            ctypes.c_long(getevents),
            context,
            ctypes.c_long(0),
            ctypes.c_long(MAX_SUBMITTED),
            self._events,
            None,
        )
        self._destroy = (ctypes.c_long(destroy), context)
        self._remaining: Sequence[int] = ()
        self._unfinished = 0
        self._error: str | None = None
        self._done: OnDone | None = None
        loop.add_reader(self._eventfd, self._on_readable)

    @classmethod
    def open(cls, loop: asyncio.AbstractEventLoop) -> KernelSync | None:
        """Return None where the system, or a sandbox around it, does not offer it."""
        calls = _SYSTEM_CALLS.get(platform.machine())
        if sys.platform != "linux" or calls is None:
            return None
        context = ctypes.c_ulong(0)
        setup = ctypes.PyDLL(None, use_errno=True).syscall
        if setup(ctypes.c_long(calls[0]), ctypes.c_long(MAX_SUBMITTED), ctypes.byref(context)) != 0:
            return None
        return cls(loop, context, calls)

    def start(self, descriptors: Sequence[int], done: OnDone) -> None:
        self._remaining, self._error, self._done = descriptors, None, done
        self._submit_next()

    def _submit_next(self) -> None:
        some, self._remaining = self._remaining[:MAX_SUBMITTED], self._remaining[MAX_SUBMITTED:]
        for block, descriptor in zip(self._blocks, some, strict=False):
            block.fildes = descriptor
        taken = max(0, self._call(*self._submit[len(some)]))
        self._unfinished = taken
        for descriptor in some[taken:]:
            try:
                os.fdatasync(descriptor)
            except OSError as error:
                self._error = _failure_text(error.errno)
        if not taken:
            self._loop.call_soon(self._finish)

    def _on_readable(self) -> None:
        try:
            os.eventfd_read(self._eventfd)
        except BlockingIOError:
            return
        found = max(0, self._call(*self._getevents))
        for event in self._events[:found]:
            if event.res < 0:
                self._error = _failure_text(-event.res)
        self._unfinished -= found
        if found and not self._unfinished:
            self._finish()

    def _finish(self) -> None:
        if self._remaining and self._error is None:
            self._submit_next()
            return
        done, self._done = self._done, None
        if done is not None:
            done(self._error)

    async def close(self) -> None:
        self._loop.remove_reader(self._eventfd)
        self._call(*self._destroy)
        os.close(self._eventfd)


class ThreadSync(LoopSync):
    """Syncs in a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._jobs: SimpleQueue[tuple[Sequence[int], OnDone] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    def start(self, descriptors: Sequence[int], done: OnDone) -> None:
        self._jobs.put((descriptors, done))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            descriptors, done = job
            failed = None
            try:
                for descriptor in descriptors:
                    os.fdatasync(descriptor)
            except OSError as error:
                failed = _failure_text(error.errno)
            try:
                self._loop.call_soon_threadsafe(done, failed)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    async def close(self) -> None:
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)


def _failure_text(number: int | None) -> str:
    return f"fdatasync failed: {os.strerror(number or 0)}"
