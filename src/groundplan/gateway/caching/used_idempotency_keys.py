"""Which idempotency keys were used in the last day, in few bytes each: where every call brings one of its own there are
millions.

The newest keys have their exact time; older ones are stored in sorted runs, eight bytes for a key, and stay used until
the youngest of their run is a day old. Two keys whose digests end alike count as one: among a million keys that happens
to one in 10^13. Pure; does not know what a key is for.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

DAY_SECONDS = 86_400.0
NEVER = 0.0
RUN_KEYS = 4096
"""Keys that have their exact time; as many are packed into a run."""
MAX_RUN_KEYS = 8 * RUN_KEYS
"""Keys of one run; sorting more would take long."""
MAX_SPAN_SECONDS = 3600.0
"""Between the first and the last use in one run."""
_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Run:
    keys: array[int]
    """Ascending."""
    first: float
    last: float


class UsedIdempotencyKeys:
    """A set of used keys. `add` them roughly in the order of time; times are seconds since the epoch."""

    __slots__ = ("_newest", "_runs", "_taken_back")

    def __init__(self) -> None:
        self._newest: OrderedDict[int, float] = OrderedDict()
        self._runs: deque[_Run] = deque()
        self._taken_back: dict[int, float] = {}
        """Keys in runs whose last use did not happen, with the last time in any run."""

    def __len__(self) -> int:
        return len(self._newest) + sum(len(run.keys) for run in self._runs)

    def add(self, digest: bytes, at: float) -> None:
        """The key with this digest was used."""
        key = int.from_bytes(digest[-_BYTES:], "big")
        self._newest[key] = at
        self._taken_back.pop(key, None)
        if len(self._newest) >= RUN_KEYS:
            self._pack()

    def discard(self, digest: bytes) -> None:
        """Take back a use that did not happen. Each use of a key before it was taken back, too, or lies more than a day
        back: otherwise there would have been no further one."""
        key = int.from_bytes(digest[-_BYTES:], "big")
        self._newest.pop(key, None)
        self._taken_back.pop(key, None)
        if any(_has(run.keys, key) for run in self._runs):
            self._taken_back[key] = max(run.last for run in self._runs)

    def update(self, used: Iterable[tuple[bytes, float]]) -> None:
        """Add (digest, time) pairs; the time `NEVER` takes a use back."""
        for digest, at in used:
            if at == NEVER:
                self.discard(digest)
            else:
                self.add(digest, at)

    def is_used(self, digest: bytes, now: float) -> bool:
        """Whether the key was used in the last day."""
        key = int.from_bytes(digest[-_BYTES:], "big")
        at = self._newest.get(key)
        if at is not None and now - at < DAY_SECONDS:
            return True
        if key in self._taken_back:
            return False
        return any(now - run.last < DAY_SECONDS and _has(run.keys, key) for run in self._runs)

    def expire(self, now: float) -> None:
        """Drop keys that were used more than a day ago."""
        newest, runs = self._newest, self._runs
        while newest and now - next(iter(newest.values())) > DAY_SECONDS:
            newest.popitem(last=False)
        while runs and now - runs[0].last > DAY_SECONDS:
            runs.popleft()
        taken_back = self._taken_back
        while taken_back and now - next(iter(taken_back.values())) > DAY_SECONDS:
            del taken_back[next(iter(taken_back))]

    def _pack(self) -> None:
        run = _Run(array("Q", sorted(self._newest)), min(self._newest.values()), max(self._newest.values()))
        self._newest.clear()
        before = self._runs[-1] if self._runs else None
        if before is not None and len(before.keys) < MAX_RUN_KEYS and run.last - before.first <= MAX_SPAN_SECONDS:
            keys = array("Q", sorted([*before.keys, *run.keys]))  # two that are sorted, which is quick
            run = _Run(keys, min(before.first, run.first), max(before.last, run.last))
            self._runs.pop()
        self._runs.append(run)


def _has(keys: array[int], key: int) -> bool:
    at = bisect_left(keys, key)
    return at < len(keys) and keys[at] == key
