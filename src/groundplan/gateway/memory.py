"""What a crowd of calls took of the machine's memory and no longer needs is given back to it.

Once a worker that has grown is nearly idle, garbage in cycles is looked for, and the allocator of the C library, which
keeps what was freed, is asked to give it back: that takes milliseconds, in which calls would wait. What Python's own
allocator keeps for small objects is not reached, and where the C library is not glibc none of it is. It limits nothing:
how many calls a worker takes is `upstream.pressure`'s.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
from collections.abc import Callable
from pathlib import Path

_STATM = Path("/proc/self/statm")
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
            await asyncio.to_thread(give_back)
            before = resident()
