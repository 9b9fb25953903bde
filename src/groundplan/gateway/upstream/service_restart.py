"""Waits for a local service that cannot answer now, or that has ended and is being restarted by its supervisor.

One poll for all that wait. A service that stopped on purpose, or was never there, is not waited for, nor one that did
not come back a moment ago. Starts nothing.
"""

from __future__ import annotations

import asyncio
import math

from groundplan.core.endpoints import read_announcement
from groundplan.core.home import Home
from groundplan.gateway.stalls import stall_monitor_of

RESTART_SECONDS = 6.0
"""A service is back within this time, also on a slow machine that five others share: 4 were too few there."""
GONE_SECONDS = 10.0
"""A service that did not come back is not waited for again for so long."""
_POLL_SECONDS = 0.05
_RETRY_SECONDS = 0.15
"""Until a service that cannot answer now is called again."""


class ServiceRestart:
    """The local services of one worker."""

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self._home = home
        self._loop = loop
        self._stalls = stall_monitor_of(loop)
        self._polls: dict[str, asyncio.Task[bool]] = {}
        self._gone_until: dict[str, float] = {}
        """Until when a service that did not come back is not waited for."""

    async def wait_until_back(self, name: str, until: float, at_most: float = math.inf) -> bool:
        """Wait until the process of a service that ended is running again, at most until `until` (loop time); returns
        whether it is. It may take some more time before it answers. Stalls of this worker extend the wait, never beyond
        `at_most`. Cancelling one waiter does not affect the others."""
        now = self._loop.time()
        poll = self._polls.get(name)
        if poll is None or poll.done():
            if self._gone_until.get(name, 0.0) > now:
                return False
            poll = self._polls[name] = self._loop.create_task(self._poll(name))
        while not (await asyncio.wait((poll,), timeout=max(0.0, until - now)))[0]:
            stood, now = self._stalls.stalled_seconds(now), self._loop.time()
            until = min(until + stood, at_most)
            if until <= now:
                return False
        return poll.result()

    async def should_retry(self, name: str, since: float, until: float) -> bool:
        """Pause, and return whether to call a service again that has said since `since` that it cannot answer: not
        beyond `until`, nor if another call waited in vain a moment ago."""
        now = self._loop.time()
        if self._gone_until.get(name, 0.0) > now:
            return False
        if now + _RETRY_SECONDS > until:
            if until - since >= RESTART_SECONDS:  # a call with less time has learned nothing
                self._gone_until[name] = now + GONE_SECONDS
            return False
        await asyncio.sleep(_RETRY_SECONDS)
        return True

    async def _poll(self, name: str) -> bool:
        began = self._loop.time()
        while self._stalls.remaining(began, RESTART_SECONDS) > 0:
            await asyncio.sleep(_POLL_SECONDS)
            found = read_announcement(self._home, name)
            if found is None:
                return False
            if found.lives:
                return True
        self._gone_until[name] = self._loop.time() + GONE_SECONDS
        return False
