"""Calls that arrive together are taken through each step together, one after the other, which keeps the step's code and
tables in the processor's cache.

What a call runs through of code and tables is more than the nearest cache of a processor holds: taken from its first
step to its last, each call reads all of it anew from further away. Of several that take one step in turn only the first
does. A call that comes alone waits for nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

MANY = 4
WITHIN_NS = 300_000
"""So many that begin within so long come together."""
AFTER_NS = 10_000_000
"""So do those that begin that soon after them: of the first of a few nobody knows yet that others follow."""


class StepBatching:
    """Of one worker. A step that others are to take first waits for `gateway.step_batching`; what is known of live
    policy and clocks is a turn of the loop old then."""

    __slots__ = ("_began", "_many", "_until")

    def __init__(self) -> None:
        self._began: deque[int] = deque([-WITHIN_NS] * MANY, maxlen=MANY)
        self._until = 0
        self._many = False

    def begun(self, at: int) -> None:
        """A call began `at` that time of `perf_counter_ns`."""
        began = self._began
        began.append(at)
        if at - began[0] < WITHIN_NS:
            self._until = at + AFTER_NS
        self._many = at < self._until

    def __await__(self) -> Generator[None]:
        if self._many:
            yield
