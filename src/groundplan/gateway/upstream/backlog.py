"""Calls that arrive in larger numbers than the worker can begin at once, as after a moment in which it stood still.
They begin some at a time, the more important first; the others wait, and are refused after a while.

If all began together, each would take its steps among thousands of others: what one needs has left the processor's
caches when it is its turn, each needs an upstream connection of its own, and every answer comes as late as the last
one. The worker then does half of what it can, so that at half of its load it never catches up. While no such number
arrives nothing waits here.

Knows nothing of deployments, nor whether the loop is late (`pressure`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf

BEGIN_AT_ONCE = 1500
"""Calls that begin without a wait in one interval of `start_interval`, a tenth of a second: somewhat more than any
worker has answered in it."""
BEGIN_PER_TURN, MOST_PER_TURN = 64, 512
"""Calls that begin in one turn of the loop while others wait: about as many as are at the same step at full load, or as
many as were refused in the turn, up to `MOST_PER_TURN`. To refuse a call takes as long as to answer one, so that with
fewer a worker that refuses many would answer ever fewer."""
MAX_WAIT_SECONDS = (10.0, 5.0, 2.0, 0.5)
"""By rank: how long a call waits to begin."""


class Backlog:
    """The calls of one worker that wait to begin."""

    __slots__ = ("_loop", "_queues", "_refused_before", "arrived", "limit", "refused", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queues = tuple(deque[tuple[float, asyncio.Future[bool]]]() for _ in MAX_WAIT_SECONDS)
        """By rank: until when a call waits, and whether it may begin; the longest waiting first."""
        self.arrived = 0
        """Calls that have arrived."""
        self.refused = self._refused_before = 0
        """Calls that were refused because the worker was too full, and those of them before the last turn."""
        self.limit = BEGIN_AT_ONCE
        """A call begins without a wait where no more than these have arrived; negative while others wait."""
        self.waiting = 0
        """Number of calls that wait, with those whose clients have left meanwhile."""

    def start_interval(self) -> None:
        """Begin to count anew, unless calls wait."""
        if not self.waiting:
            self.limit = self.arrived + BEGIN_AT_ONCE

    async def wait(self, rank: int, seconds: float = inf) -> bool:
        """Wait until a call of this rank may begin; False if it has waited too long. It never begins after `seconds`,
        when its deadline is over."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._queues[rank].append((self._loop.time() + min(MAX_WAIT_SECONDS[rank], seconds), future))
        if not self.waiting:
            self.limit, self._refused_before = -1, self.refused
            self._loop.call_soon(self._begin_some)
        self.waiting += 1
        return await future

    def _begin_some(self) -> None:
        """Let the next calls of each rank begin, and refuse those that have waited too long."""
        now = self._loop.time()
        places = max(BEGIN_PER_TURN, min(MOST_PER_TURN, self.refused - self._refused_before))
        self._refused_before = self.refused
        most_refusals = places
        for queue in self._queues:
            refusals = most_refusals  # also where the more important calls take every place
            while queue:
                until, future = queue[0]
                if not future.done():  # its client may have left
                    is_late = now > until
                    if not (refusals if is_late else places):
                        break
                    if is_late:
                        refusals -= 1
                    else:
                        places -= 1
                    future.set_result(not is_late)
                queue.popleft()
                self.waiting -= 1
        if self.waiting:
            self._loop.call_soon(self._begin_some)
        else:
            self.start_interval()
