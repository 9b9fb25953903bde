"""How a worker, and the search service, lie in the machine's memory: in large pages what every call touches, and given
back what a crowd of calls took and no longer needs.

A call touches hundreds of pages of 4 KiB, and where other processes share the core the processor must look up anew
where each of them is. So what a worker has made until it listens is moved into pages of 2 MiB, where Linux can (6.1 and
later; elsewhere nothing happens). What it makes later is not: a page fault that is answered with a large page could
make a call wait.

Once a worker that has grown is nearly idle, garbage in cycles is looked for, and the allocator of the C library, which
keeps what was freed, is asked to give it back: that takes milliseconds, in which calls would wait. What Python's own
allocator keeps for small objects is not reached, and where the C library is not glibc none of it is. It limits nothing:
how many calls a worker takes is `upstream.pressure`'s.
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
LARGE = 2 << 20
_PAGE = resource.getpagesize()
FILLED = 0.75
"""Share of a large page that must be there already: the rest of it takes memory, too."""
_COLLAPSE = 25
"""MADV_COLLAPSE"""
_NUMA_MAPS, _NODES = Path("/proc/self/numa_maps"), Path("/sys/devices/system/node/has_memory")
_BOUND = re.compile(r"(?m)^([0-9a-f]+) bind:\S+ (?!file=)")
_MBIND = {"x86_64": 237, "aarch64": 235}
"""The number of that call of the system, which the C library does not offer."""
EVERY_SECONDS = 30.0
GROWN_BYTES = 32 << 20
"""What a worker must have more than when it was last asked."""
CALLS_AT_MOST = 50
"""Running calls at which it is not too busy."""


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def gather() -> int:
    """Move what this process has made so far into large pages; bytes of the mappings that were. Takes some ten
    milliseconds for a worker, two seconds for a gigabyte; other threads go on."""
    library = ctypes.CDLL(None, use_errno=True)
    madvise, mincore = getattr(library, "madvise", None), getattr(library, "mincore", None)
    if madvise is None or mincore is None:
        return 0
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)

    def there(begin: int, end: int) -> bytes:
        told = ctypes.create_string_buffer((end - begin) // _PAGE)
        return told.raw if mincore(begin, end - begin, told) == 0 else b""

    with suppress(OSError):
        _unbind()
    try:
        found = _SMAPS.read_text()
    except OSError:
        return 0
    return sum(LARGE for begin in _filled(found, there) if madvise(begin, LARGE, _COLLAPSE) == 0)


def one_node() -> bool:
    """Whether all of the machine's memory is one node, as far as it can be told and said."""
    return platform.machine() in _MBIND and _NODES.is_file() and _NODES.read_text().strip().isdigit()


def _unbind() -> None:
    """Let the kernel join mappings that differ only in being bound to the one node of memory that there is."""
    if not one_node():
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


def _filled(smaps: str, there: Callable[[int, int], bytes]) -> Iterator[int]:
    """Where large pages begin that lie in memory of our own and are nearly full; the stack of a thread is not among
    them, which would grow. `there`: a byte of 1 for each small page from one address to another that is."""
    for each in _MAPPING.finditer(smaps):
        begin, end, name, resident = int(each[1], 16), int(each[2], 16), each[3], int(each[4])
        begin, end = -(-begin // LARGE) * LARGE, end // LARGE * LARGE
        if name in ("", "[heap]") and resident and begin < end:
            pages, step = there(begin, end), LARGE // _PAGE
            for at in range(0, len(pages), step):
                if pages.count(1, at, at + step) >= FILLED * step:
                    yield begin + at * _PAGE


def give_back() -> None:
    """Give memory that nothing needs back to the system. Other threads go on meanwhile, but while garbage is looked
    for."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def watch(running: Callable[[], int], every: float = EVERY_SECONDS) -> None:
    """From time to time, until it is cancelled. `running`: how many calls run."""
    before = resident()
    while True:
        await asyncio.sleep(every)
        if resident() > before + GROWN_BYTES and running() <= CALLS_AT_MOST:
            try:
                await asyncio.to_thread(give_back)
            except RuntimeError:
                continue  # this user may have no more threads now
            before = resident()
