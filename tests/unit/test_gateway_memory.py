"""What a worker has made lies in large pages where the machine can; memory that a crowd of calls took goes back to it
once a worker is nearly idle, and not before."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import resource
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests import small_pages

from groundplan.gateway import memory


@pytest.fixture(autouse=True)
def large_pages() -> Iterator[None]:
    with small_pages.allowed():
        yield


_CROWD = """
from groundplan.gateway.memory import resident, trim
pieces = [bytes(4000) + bytes([at % 256]) for at in range(40_000)]
kept = pieces[::1000] + pieces[-1:]
del pieces
before = resident()
trim()
print(before - resident())
"""


_MADE = """
import sys, zlib
from pathlib import Path
from groundplan.gateway import memory
made = [bytes([at % 251]) * 200 for at in range(200_000)]
def large():
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(text.split("AnonHugePages:")[1].split()[0]) << 10
before, resident = large(), memory.resident()
moved = memory.move_to_large_pages()
assert all(each == bytes([at % 251]) * 200 for at, each in enumerate(made))
print(moved, large() - before, memory.resident() - resident)
"""


def test_what_was_made_is_moved_into_large_pages_and_hardly_grows() -> None:
    told = subprocess.run([sys.executable, "-c", _MADE], check=True, capture_output=True, text=True).stdout
    moved, large, grown = map(int, told.split())
    assert moved == large, "what it says is what the kernel has"
    assert (moved >= 10 << 20) == kernel_can(), "a good part of 40 MB, as mappings lie, or nothing where it cannot"
    assert grown < 12 << 20


_BOUND = """
import ctypes, mmap, platform
from pathlib import Path
from groundplan.gateway import memory
own = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
own.write(bytes(range(256)) * (32 << 12))
at, piece, node = ctypes.addressof(ctypes.c_char.from_buffer(own)), 600 << 10, ctypes.c_ulong(1)
bind, number = ctypes.CDLL(None).syscall, memory._MBIND.get(platform.machine())
for begin in range(at, at + (32 << 20) - piece, 2 * piece) if number else ():
    bind(number, ctypes.c_void_p(begin), ctypes.c_ulong(piece), 2, ctypes.byref(node), ctypes.c_ulong(64), 0)
def bound():
    return Path("/proc/self/numa_maps").read_text().count(" bind:0 ")
before, moved = bound(), memory.move_to_large_pages()
assert bytes(own) == bytes(range(256)) * (32 << 12)
print(before, bound(), moved)
"""


def test_pieces_that_are_bound_to_the_only_node_are_joined() -> None:
    """Where there are several nodes they stay as they are."""
    told = subprocess.run([sys.executable, "-c", _BOUND], check=True, capture_output=True, text=True).stdout
    before, after, moved = map(int, told.split())
    joined = memory.has_one_node() or not before
    assert after == (0 if joined else before)
    assert (moved >= 28 << 20) == (joined and kernel_can())


def kernel_can() -> bool:
    """Whether one large page can be made of an own mapping here."""
    with mmap.mmap(-1, 2 * memory.LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as own:
        own.write(bytes(2 * memory.LARGE_PAGE))
        at = ctypes.addressof(ctypes.c_char.from_buffer(own))
        madvise = getattr(ctypes.CDLL(None), "madvise", None)
        return madvise is not None and not madvise(
            ctypes.c_void_p(-(-at // memory.LARGE_PAGE) * memory.LARGE_PAGE), ctypes.c_size_t(memory.LARGE_PAGE), 25
        )


def mapping(begin: int, end: int, name: str, resident: int, rights: str = "rw-p") -> str:
    """As /proc/self/smaps has it; `resident` in KiB."""
    lines = [f"{begin:x}-{end:x} {rights} 00000000 00:00 0 {name}", f"Size:           {(end - begin) >> 10} kB"]
    lines += ["KernelPageSize:        4 kB", "MMUPageSize:           4 kB", f"Rss:            {resident} kB"]
    return "\n".join([*lines, "Pss:                   1 kB", "VmFlags: rd wr mr mw me ac", ""])


def test_only_own_memory_that_is_there_already_is_moved() -> None:
    large, base = memory.LARGE_PAGE, 0x7F0000000000
    text = "".join(
        [
            mapping(base + 4096, base + 3 * large, "[heap]", 5 << 10),
            mapping(base + 4 * large, base + 8 * large, "", 8 << 10),
            mapping(base + 10 * large, base + 14 * large, "", 1 << 10),
            mapping(base + 15 * large, base + 18 * large, "", 0),
            mapping(base + 20 * large, base + 22 * large, "[stack]", 4 << 10),
            mapping(base + 30 * large, base + 32 * large, "/usr/lib/x.so", 4 << 10),
            mapping(base + 40 * large, base + 42 * large, "", 4 << 10, "r--p"),
            mapping(base + 50 * large + 4096, base + 51 * large, "", 2 << 10),
        ]
    )
    page = resource.getpagesize()
    missing = range(base + 5 * large, base + 6 * large - page * 100)

    def there(begin: int, end: int) -> bytes:
        return bytes(at not in missing for at in range(begin, end, page))

    told = [(at - base) // large for at in memory._nearly_full_pages(text, there)]
    assert told == [1, 2, 4, 6, 7, 10, 11, 12, 13]
    assert list(memory._nearly_full_pages(text, lambda _begin, _end: b"")) == []


def test_what_was_freed_goes_back_to_the_machine() -> None:
    """In a process of its own: here it would depend on what other tests left."""
    told = subprocess.run([sys.executable, "-c", _CROWD], check=True, capture_output=True, text=True).stdout
    assert int(told) > 64 << 20


def test_garbage_in_cycles_goes_with_it() -> None:
    class Part:
        other: Part | None = None

    one = Part()
    one.other = Part()
    one.other.other = one
    gone = weakref.ref(one)
    del one
    memory.trim()
    assert gone() is None


@pytest.mark.parametrize("running", [0, memory.MAX_RUNNING_CALLS + 1])
async def test_only_a_nearly_idle_worker_is_asked(running: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, asked, looks = asyncio.get_running_loop(), asyncio.Event(), iter(range(1000))
    enough = asyncio.Event()

    def resident() -> int:
        if next(looks) > 5:
            enough.set()
        return 100 << 20 if next(looks) < 2 else 200 << 20

    monkeypatch.setattr(memory, "resident", resident)
    monkeypatch.setattr(memory, "trim", lambda: loop.call_soon_threadsafe(asked.set))
    watching = asyncio.create_task(memory.watch(lambda: running, every=0.001))
    await asyncio.wait_for((enough if running else asked).wait(), 20)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    assert asked.is_set() == (running == 0)


async def test_it_goes_on_after_a_moment_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended for good there, and what had been freed stayed with the worker from then on."""
    given, left = asyncio.Event(), iter(range(3))

    async def to_thread(_: object) -> None:
        if next(left, None) is not None:
            raise RuntimeError("can't start new thread")
        given.set()

    looks = iter(range(10**6))
    monkeypatch.setattr(memory, "resident", lambda: (100 << 20) * (1 + (next(looks) > 0)))
    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    watching = asyncio.create_task(memory.watch(lambda: 0, every=0.001))
    await asyncio.wait_for(given.wait(), 20)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
