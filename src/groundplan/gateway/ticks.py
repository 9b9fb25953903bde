"""Ticks that all periodic work of a worker shares: it is done at the same moments of the loop's clock, so that the
process is woken once for all of it.

To be woken costs a process that has little to do more than what it then does. Knows nothing of what is done.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")
TURN = 2000
"""So many are looked at before calls have a turn: of a hundred thousand users each may have some limits a minute."""


def next_tick(now: float, seconds: float) -> float:
    """The multiple of `seconds` at which something that is done at `now` is to be done again: about so much later, and
    never less than half of it. Of the loop's clock."""
    return math.ceil(now / seconds + 0.5) * seconds


async def sleep_to_tick(seconds: float) -> None:
    """Until the next beat of so many seconds."""
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(next_tick(now, seconds) - now)


async def in_turns(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Some of them at a time, after which calls have a turn."""
    for at in range(0, len(items), TURN):
        yield items[at : at + TURN]
        await asyncio.sleep(0)
