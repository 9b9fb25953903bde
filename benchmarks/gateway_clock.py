"""Timers of microseconds on uvloop. Its own have a resolution of a millisecond: what they send "after 20 ms" is up to
one millisecond early or late, depending on the other events of the loop.

Uses a timerfd of Linux from Python 3.13 on; before that, the loop's own timers.
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
    """Calls functions after a delay, on the loop that it was created for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[int, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._sequence = 0
        self._timerfd = -1
        if hasattr(os, "timerfd_create"):
            self._timerfd = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)
            loop.add_reader(self._timerfd, self._run_due_calls)

    def call_later(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> None:
        """Call the function `seconds` from now."""
        if self._timerfd < 0:
            self._loop.call_later(seconds, call, *arguments)
            return
        self._sequence += 1
        due_ns = time.monotonic_ns() + int(seconds * _NS)
        heapq.heappush(self._heap, (due_ns, self._sequence, call, arguments))
        if self._heap[0][0] == due_ns:
            self._set_timer()

    async def sleep(self, seconds: float) -> None:
        finished: asyncio.Future[None] = self._loop.create_future()
        self.call_later(seconds, finished.set_result, None)
        await finished

    def _set_timer(self) -> None:
        os.timerfd_settime_ns(self._timerfd, flags=os.TFD_TIMER_ABSTIME, initial=self._heap[0][0])

    def _run_due_calls(self) -> None:
        try:
            os.read(self._timerfd, 8)
        except BlockingIOError:
            return
        now = time.monotonic_ns()
        while self._heap and self._heap[0][0] <= now:
            _, _, call, arguments = heapq.heappop(self._heap)
            call(*arguments)
        if self._heap:
            self._set_timer()
