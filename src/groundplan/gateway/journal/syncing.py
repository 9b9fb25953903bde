"""How what a journal wrote is made to survive a loss of power: beside the event loop, one round of fdatasync at a time,
or on the loop itself for a call that is alone.

Beside it by the kernel where it offers that (Linux AIO, told by an eventfd): there is no thread then that wants the
interpreter while calls are served, which was a tenth of what a call computes. Elsewhere by a thread. On the loop while
the disk is quicker than being woken again. When a round is begun, who is alone, and what failed for good, is the
journal's to know.
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

Done = Callable[[str | None], None]
"""Called in the loop: with None when everything is durable, else with what went wrong."""
_CALLS: Final = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""Numbers of io_setup, io_destroy, io_getevents and io_submit."""
_FDSYNC, _RESFD, _RANGE_WRITE = 3, 1, 2
"""IOCB_CMD_FDSYNC, IOCB_FLAG_RESFD, SYNC_FILE_RANGE_WRITE"""
AT_ONCE = 8
"""Descriptors that the kernel is given together."""
NEAR_BYTES = 64 << 10
"""What few calls write between two syncs is within so many bytes of the end."""
QUICK_S = 0.0005
"""A disk that takes longer than this is not waited for on the loop for a while."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 60.0
"""That while: doubled each time that it is too slow again."""


class Sync(Protocol):
    """One round at a time: `start` is called again only after `done` was."""

    def start(self, descriptors: Sequence[int], done: Done) -> None:
        """fdatasync each of `descriptors`, which stay open until then."""

    def at_once(self, descriptors: Sequence[int]) -> bool:
        """fdatasync each of them now, on the loop; False, with nothing done, where that would take long. Raises
        OSError."""

    def ahead(self, descriptor: int, end: int) -> None:
        """Have the device begin with what was written before `end`, for which an fdatasync that follows soon waits the
        less. It waits for nothing; what fails is told by that fdatasync."""

    async def close(self) -> None:
        """End it. No round is under way."""


def best_sync(loop: asyncio.AbstractEventLoop) -> Sync:
    """The kernel's own where there is one, else a thread."""
    return KernelSync.open(loop) or ThreadSync(loop)


def _range_sync() -> Callable[[int, int, int, int], int]:
    """sync_file_range of the C library where there is one, without giving up the interpreter; else nothing."""
    made = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    if sys.platform == "linux":
        with suppress(AttributeError):
            return made(("sync_file_range", ctypes.PyDLL(None)))
    return lambda *_: 0


class OnLoop:
    """fdatasync on the loop, while the last one was quick."""

    _again = 0.0
    _pause = FIRST_PAUSE_S

    def __init__(self) -> None:
        self._range_sync = _range_sync()

    def ahead(self, descriptor: int, end: int) -> None:
        start = max(0, end - NEAR_BYTES)
        self._range_sync(descriptor, start, end - start, _RANGE_WRITE)

    def at_once(self, descriptors: Sequence[int]) -> bool:
        began = time.monotonic()
        if began < self._again:
            return False
        for descriptor in descriptors:
            os.fdatasync(descriptor)
        took = time.monotonic() - began
        if took <= QUICK_S:
            self._pause = FIRST_PAUSE_S
        else:
            self._again = began + took + self._pause
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


class KernelSync(OnLoop):
    """By Linux AIO. Make it with `open`. What the kernel does not take is synced on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: ctypes.c_ulong, calls: tuple[int, ...]) -> None:
        super().__init__()
        _, destroy, getevents, submit = calls
        self._loop = loop
        # the interpreter is kept during a call: it takes a microsecond, and giving it up would take longer
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        self._told = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._blocks = [_Iocb(opcode=_FDSYNC, flags=_RESFD, resfd=self._told) for _ in range(AT_ONCE)]
        pointers = (ctypes.POINTER(_Iocb) * AT_ONCE)(*(ctypes.pointer(block) for block in self._blocks))
        self._events = (_Event * AT_ONCE)()
        self._submit = [(ctypes.c_long(submit), context, ctypes.c_long(n), pointers) for n in range(AT_ONCE + 1)]
        self._get = (ctypes.c_long(getevents), context, ctypes.c_long(0), ctypes.c_long(AT_ONCE), self._events, None)
        self._destroy = (ctypes.c_long(destroy), context)
        self._rest: Sequence[int] = ()
        self._left = 0
        self._failed: str | None = None
        self._done: Done | None = None
        loop.add_reader(self._told, self._readable)

    @classmethod
    def open(cls, loop: asyncio.AbstractEventLoop) -> KernelSync | None:
        """None where the system, or a sandbox around it, does not offer it."""
        calls = _CALLS.get(platform.machine())
        if sys.platform != "linux" or calls is None:
            return None
        context = ctypes.c_ulong(0)
        setup = ctypes.PyDLL(None, use_errno=True).syscall
        if setup(ctypes.c_long(calls[0]), ctypes.c_long(AT_ONCE), ctypes.byref(context)) != 0:
            return None
        return cls(loop, context, calls)

    def start(self, descriptors: Sequence[int], done: Done) -> None:
        self._rest, self._failed, self._done = descriptors, None, done
        self._next()

    def _next(self) -> None:
        some, self._rest = self._rest[:AT_ONCE], self._rest[AT_ONCE:]
        for block, descriptor in zip(self._blocks, some, strict=False):
            block.fildes = descriptor
        taken = max(0, self._call(*self._submit[len(some)]))
        self._left = taken
        for descriptor in some[taken:]:
            try:
                os.fdatasync(descriptor)
            except OSError as error:
                self._failed = _failed(error.errno)
        if not taken:
            self._loop.call_soon(self._ended)

    def _readable(self) -> None:
        try:
            os.eventfd_read(self._told)
        except BlockingIOError:
            return
        found = max(0, self._call(*self._get))
        for event in self._events[:found]:
            if event.res < 0:
                self._failed = _failed(-event.res)
        self._left -= found
        if found and not self._left:
            self._ended()

    def _ended(self) -> None:
        if self._rest and self._failed is None:
            self._next()
            return
        done, self._done = self._done, None
        if done is not None:
            done(self._failed)

    async def close(self) -> None:
        self._loop.remove_reader(self._told)
        self._call(*self._destroy)
        os.close(self._told)


class ThreadSync(OnLoop):
    """By a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._jobs: SimpleQueue[tuple[Sequence[int], Done] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    def start(self, descriptors: Sequence[int], done: Done) -> None:
        self._jobs.put((descriptors, done))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            descriptors, done = job
            failed = None
            try:
                for descriptor in descriptors:
                    os.fdatasync(descriptor)
            except OSError as error:
                failed = _failed(error.errno)
            try:
                self._loop.call_soon_threadsafe(done, failed)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    async def close(self) -> None:
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)


def _failed(number: int | None) -> str:
    return f"fdatasync failed: {os.strerror(number or 0)}"
