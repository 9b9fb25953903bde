"""Waits for a local service that cannot answer now, or that has ended and is started again by its supervisor.

One look for all who wait. What withdrew itself, or was never there, is waited for by nobody, and neither is what did
not come back a moment ago. Starts nothing.
"""

from __future__ import annotations

import asyncio
import math

from groundplan.core.endpoints import announced
from groundplan.core.home import Home
from groundplan.gateway.stalls import stall_monitor_of

BACK_SECONDS = 6.0
"""Within this a service is back, also on a slow machine that five others share: 4 were too few there."""
GONE_SECONDS = 10.0
"""What did not come back is not waited for again for so long."""
_LOOK_SECONDS = 0.05
_AGAIN_SECONDS = 0.15
"""Until one that cannot answer just now is asked again."""


class ServiceRestart:
    """Of one worker."""

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self._home = home
        self._loop = loop
        self._stalls = stall_monitor_of(loop)
        self._looks: dict[str, asyncio.Task[bool]] = {}
        self._gone: dict[str, float] = {}
        """Until when what did not come back is not waited for."""

    async def back(self, name: str, until: float, at_most: float = math.inf) -> bool:
        """Whether the process of a service that ended is there again before `until`, of the loop's clock; it may take
        some more time before it answers. For as long as this worker stood still meanwhile it is waited longer, never
        beyond `at_most`. Whoever is cancelled meanwhile takes nobody along."""
        now = self._loop.time()
        look = self._looks.get(name)
        if look is None or look.done():
            if self._gone.get(name, 0.0) > now:
                return False
            look = self._looks[name] = self._loop.create_task(self._look(name))
        while not (await asyncio.wait((look,), timeout=max(0.0, until - now)))[0]:
            stood, now = self._stalls.stood(now), self._loop.time()
            until = min(until + stood, at_most)
            if until <= now:
                return False
        return look.result()

    async def ready(self, name: str, since: float, until: float) -> bool:
        """Whether a service that says since then that it cannot answer is to be asked again, after a pause: not beyond
        `until`, and not where somebody waited in vain a moment ago."""
        now = self._loop.time()
        if self._gone.get(name, 0.0) > now:
            return False
        if now + _AGAIN_SECONDS > until:
            if until - since >= BACK_SECONDS:  # whoever has less time has learned nothing
                self._gone[name] = now + GONE_SECONDS
            return False
        await asyncio.sleep(_AGAIN_SECONDS)
        return True

    async def _look(self, name: str) -> bool:
        began = self._loop.time()
        while self._stalls.left(began, BACK_SECONDS) > 0:
            await asyncio.sleep(_LOOK_SECONDS)
            found = announced(self._home, name)
            if found is None:
                return False
            if found.lives:
                return True
        self._gone[name] = self._loop.time() + GONE_SECONDS
        return False
