"""Takes calls that arrive together through each step one after the other, which keeps the step's code and tables in the
processor's cache.

The code and tables of all steps exceed the processor's nearest cache: run from its first step to its last, each call
would load all of them anew from further away. Of several calls that take one step in turn only the first does. A call
that comes alone never waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

BATCH_CALLS = 4
BATCH_WINDOW_NS = 300_000
"""`BATCH_CALLS` calls that begin within this time arrive together."""
BATCH_HOLD_NS = 10_000_000
"""So do calls that begin within this time after them: of the first few it is not known yet that others follow."""


class StepBatching:
    """The step batching of one worker. A call awaits `gateway.step_batching` where others are to take the earlier step
    first; what it has read of live policy and clocks is a turn of the loop old then."""

    __slots__ = ("_began", "_is_batching", "_until")

    def __init__(self) -> None:
        self._began: deque[int] = deque([-BATCH_WINDOW_NS] * BATCH_CALLS, maxlen=BATCH_CALLS)
        self._until = 0
        self._is_batching = False

    def note_begin(self, at: int) -> None:
        """Note that a call began. `at`: by `perf_counter_ns`."""
        began = self._began
        began.append(at)
        if at - began[0] < BATCH_WINDOW_NS:
            self._until = at + BATCH_HOLD_NS
        self._is_batching = at < self._until

    def __await__(self) -> Generator[None]:
        if self._is_batching:
            yield
