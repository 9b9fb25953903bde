"""Work on what one caller sent that takes longer than others may wait: in a thread of its own, while the loop goes on.

Such work is of one call, and touches nothing that another one, or the loop, has. The interpreter lets one thread run at
a time, so it is not made faster by this, and whatever runs outside of Python for long without giving way (a search by a
regular expression) is to be cut in pieces by whoever does it. Uses two threads: who sends much waits for others who do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")
READ_BYTES = 512 << 10
"""A larger body is read, and put into the words of another API, apart: up to 100 ms for each MiB."""
CHECKED_BYTES = 16 << 10
"""A larger text is looked at apart by guardrails: up to two seconds for each MiB."""
_THREADS = ThreadPoolExecutor(2, "apart")


async def apart(work: Callable[[], Made]) -> Made:
    """What `work` gives, or raises. Whoever is cancelled meanwhile does not wait for its end."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work)
