"""Timers of microseconds on uvloop, whose own are of a millisecond: what is sent or answered "after 20 ms" by those
comes up to one earlier or later, as other events of the same loop happen to fall.

By a timerfd of Linux, from Python 3.13 on; before that the loop's own timers are used.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import time
from collections.abc import Callable
from typing import Any

_NS = 1_000_000_000


class Clock:
    """Calls what is due, on the loop that it was made on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[tuple[int, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._made = 0
        self._timer = -1
        if hasattr(os, "timerfd_create"):
            self._timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)
            loop.add_reader(self._timer, self._fired)

    def later(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> None:
        """Call it `seconds` from now."""
        if self._timer < 0:
            self._loop.call_later(seconds, call, *arguments)
            return
        self._made += 1
        at = time.monotonic_ns() + int(seconds * _NS)
        heapq.heappush(self._due, (at, self._made, call, arguments))
        if self._due[0][0] == at:
            self._arm()

    async def sleep(self, seconds: float) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        self.later(seconds, done.set_result, None)
        await done

    def _arm(self) -> None:
        os.timerfd_settime_ns(self._timer, flags=os.TFD_TIMER_ABSTIME, initial=self._due[0][0])

    def _fired(self) -> None:
        try:
            os.read(self._timer, 8)
        except BlockingIOError:
            return
        now = time.monotonic_ns()
        while self._due and self._due[0][0] <= now:
            _, _, call, arguments = heapq.heappop(self._due)
            call(*arguments)
        if self._due:
            self._arm()
