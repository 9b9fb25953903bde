"""Shared ticks for a worker's periodic work: all of it runs at the same times of the loop's clock, so that the process
wakes up once for all of it. Waking up costs an idle process more than the work itself.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")
TURN = 2000
"""Items that are handled before calls get a turn: each of a hundred thousand users may have several limits a minute."""


def next_tick(now: float, seconds: float) -> float:
    """The next multiple of `seconds` that is at least half of `seconds` after `now`, by the loop's clock."""
    return math.ceil(now / seconds + 0.5) * seconds


async def sleep_to_tick(seconds: float) -> None:
    """Sleep until the next tick of an interval of `seconds`."""
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(next_tick(now, seconds) - now)


async def in_turns(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Yield the items in slices of `TURN`; calls get a turn after each."""
    for at in range(0, len(items), TURN):
        yield items[at : at + TURN]
        await asyncio.sleep(0)
