"""Memory of a worker and of the search service: moves what every call touches into large pages, and gives back what a
burst of calls took and no longer needs.

A call touches hundreds of pages of 4 KiB, and where other processes share the core, the processor must translate the
address of each anew. So what a worker has allocated before it listens is moved into pages of 2 MiB, on Linux 6.1 and
later; elsewhere nothing happens. Later allocations are not moved: a page fault that is served with a large page could
make a call wait.

Once a worker that has grown is nearly idle, a garbage collection runs, and the allocator of the C library is asked to
return freed memory: that takes milliseconds, in which calls would wait. Memory that Python's own allocator keeps for
small objects is not returned, and without glibc none is. Limits nothing: how many calls a worker takes is decided by
`upstream.pressure`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import platform
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_STATM, _SMAPS, _MAPS = (Path("/proc/self") / name for name in ("statm", "smaps", "maps"))
_OWN = re.compile(r"(?m)^([0-9a-f]+)-([0-9a-f]+) rw-p ")
_MAPPING = re.compile(r"(?m)^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(.*)\n(?:.*\n){3}Rss: +(\d+) kB$")
LARGE_PAGE = 2 << 20
_PAGE = resource.getpagesize()
FILLED = 0.75
"""The share of a large page that must be resident already, as the rest will take memory, too."""
_COLLAPSE = 25
"""MADV_COLLAPSE"""
_NUMA_MAPS, _NODES = Path("/proc/self/numa_maps"), Path("/sys/devices/system/node/has_memory")
_BOUND = re.compile(r"(?m)^([0-9a-f]+) bind:\S+ (?!file=)")
_MBIND = {"x86_64": 237, "aarch64": 235}
"""Machine -> number of the system call `mbind`, which the C library does not offer."""
TRIM_INTERVAL_SECONDS = 30.0
GROWN_BYTES = 32 << 20
"""Growth since the last trim from which memory is given back again."""
MAX_RUNNING_CALLS = 50
"""The most running calls at which memory is given back."""


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def move_to_large_pages() -> int:
    """Move what this process has allocated so far into large pages; returns the bytes that were moved. Takes some ten
    milliseconds for a worker, two seconds for a gigabyte; other threads continue."""
    library = ctypes.CDLL(None, use_errno=True)
    madvise, mincore = getattr(library, "madvise", None), getattr(library, "mincore", None)
    if madvise is None or mincore is None:
        return 0
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)

    def residency(begin: int, end: int) -> bytes:
        resident = ctypes.create_string_buffer((end - begin) // _PAGE)
        return resident.raw if mincore(begin, end - begin, resident) == 0 else b""

    with suppress(OSError):
        _unbind_mappings()
    try:
        found = _SMAPS.read_text()
    except OSError:
        return 0
    return sum(
        LARGE_PAGE for begin in _nearly_full_pages(found, residency) if madvise(begin, LARGE_PAGE, _COLLAPSE) == 0
    )


def has_one_node() -> bool:
    """Whether all of the machine's memory is one NUMA node, as far as that is known."""
    return platform.machine() in _MBIND and _NODES.is_file() and _NODES.read_text().strip().isdigit()


def _unbind_mappings() -> None:
    """Unbind mappings from the only memory node, so that the kernel can join those that differ in nothing else."""
    if not has_one_node():
        return
    bound = {int(each, 16) for each in _BOUND.findall(_NUMA_MAPS.read_text())}
    call = ctypes.CDLL(None).syscall
    for begin, end in _OWN.findall(_MAPS.read_text()) if bound else ():
        if int(begin, 16) in bound:
            size = int(end, 16) - int(begin, 16)
            call(
                _MBIND[platform.machine()],
                ctypes.c_void_p(int(begin, 16)),
                ctypes.c_ulong(size),
                0,
                None,
                ctypes.c_ulong(0),
                0,
            )


def _nearly_full_pages(smaps: str, residency: Callable[[int, int], bytes]) -> Iterator[int]:
    """Addresses of large pages in private memory that are nearly full, except in thread stacks, which would grow.
    `residency`: (begin, end) -> one byte for each small page, 1 where it is resident."""
    for each in _MAPPING.finditer(smaps):
        begin, end, name, resident = int(each[1], 16), int(each[2], 16), each[3], int(each[4])
        begin, end = -(-begin // LARGE_PAGE) * LARGE_PAGE, end // LARGE_PAGE * LARGE_PAGE
        if name in ("", "[heap]") and resident and begin < end:
            pages, step = residency(begin, end), LARGE_PAGE // _PAGE
            for at in range(0, len(pages), step):
                if pages.count(1, at, at + step) >= FILLED * step:
                    yield begin + at * _PAGE


def trim() -> None:
    """Return unused memory to the system. Other threads continue meanwhile, except during the garbage collection."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def watch(running: Callable[[], int], every: float = TRIM_INTERVAL_SECONDS) -> None:
    """Give memory back from time to time, until cancelled. `running`: returns the number of running calls."""
    before = resident()
    while True:
        await asyncio.sleep(every)
        if resident() > before + GROWN_BYTES and running() <= MAX_RUNNING_CALLS:
            try:
                await asyncio.to_thread(trim)
            except RuntimeError:
                continue  # this user may have no more threads now
            before = resident()
