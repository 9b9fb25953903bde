"""Which of a deployment's keys at its provider an attempt uses: the least used one that does not rest. Pure; times are
arguments, in seconds.

Local to one worker and forgotten with it; what a key may do at most is counted across workers by `limits`.
"""

from __future__ import annotations

HALF_LIFE_S = 60.0
"""After which a use counts half."""
REFUSED_REST_S = 60.0
"""How long a key rests that its provider does not know or allow, or is not paid for (401, 402, 403)."""
BUSY_REST_S = 10.0
"""How long one rests that had too many requests (429), where the provider does not say."""
LONGEST_REST_S = 600.0
SOONEST_S = 60.0
"""After which one is used all the same where none is ready: a pause of hours is often garbage."""
RESTING = frozenset({401, 402, 403, 429})
"""Answers that are about the key, so that another one may do better."""


class KeyPool:
    """Use and rest of each key of one deployment, by its place in the declaration."""

    __slots__ = ("_at", "_soon", "_until", "_used")

    def __init__(self, keys: int) -> None:
        self._used = [0.0] * keys
        self._at = [0.0] * keys
        self._until = [0.0] * keys
        self._soon = [0.0] * keys

    @property
    def size(self) -> int:
        """How many keys there are."""
        return len(self._used)

    def order(self, now: float) -> list[int]:
        """The keys that do not rest, the least used first; of equals the first declared. Where all rest, those
        that have done so for long enough that one call may look."""
        ready = [index for index, until in enumerate(self._until) if until <= now]
        if not ready:
            ready = [index for index, soon in enumerate(self._soon) if soon <= now]
        return sorted(ready, key=lambda index: (self._use(index, now), index))

    def used(self, index: int, now: float) -> None:
        """One attempt is sent with it."""
        self._used[index] = self._use(index, now) + 1.0
        self._at[index] = now

    def refused(self, index: int, status: int, now: float, after: float | None) -> bool:
        """The provider refused it with `status`, and asked to wait `after` seconds; whether another key is left."""
        rest = after if after is not None else BUSY_REST_S if status == 429 else REFUSED_REST_S
        self._until[index] = now + min(LONGEST_REST_S, max(1.0, rest))
        self._soon[index] = now + min(SOONEST_S, max(1.0, rest))
        return any(until <= now for until in self._until)

    def rests(self, now: float) -> float:
        """Seconds until one of the keys rests no more; 0 where one does not now. `order` may name one before that."""
        return max(0.0, min(self._until) - now)

    def _use(self, index: int, now: float) -> float:
        passed: float = (now - self._at[index]) / HALF_LIFE_S
        return self._used[index] * float(0.5**passed)
