"""Which of a deployment's keys at its provider an attempt uses: the least used one that does not rest. Pure; times are
arguments, in seconds.

A key whose account is out of money rests for longer each time that it is refused again, and one call at a time finds
out whether it is well. Local to one worker and forgotten with it; what a key may do at most is counted across workers
by `limits`.
"""

from __future__ import annotations

from collections.abc import Iterable

HALF_LIFE_S = 60.0
"""After which a use counts half."""
REFUSED_REST_S = 60.0
"""How long a key rests that its provider does not know or allow (401, 403), or, the first time, whose account is out of
money (402, or as 429)."""
BUSY_REST_S = 10.0
"""How long one rests that had too many requests (429), where the provider does not say."""
LONGEST_REST_S = 600.0
SOONEST_S = 60.0
"""After which one is used all the same where none is ready: a pause of hours is often garbage."""
FINDS_OUT_S = 5.0
"""How long others are left to the other keys while one call finds out whether a key is well again."""
RESTING = frozenset({401, 402, 403, 429})
"""Answers that are about the key, so that another one may do better."""
UNPAID = 402
WHYS = {401: "not accepted", UNPAID: "its account is not paid, or its quota is used up", 403: "not allowed"}
"""Of the keys that rest for longer than a moment."""
_BUSY = 429


class _Key:
    """What is known of one."""

    __slots__ = ("asked", "at", "refusals", "soon", "until", "used", "why")

    def __init__(self) -> None:
        self.used = self.at = 0.0
        self.until = self.soon = 0.0
        self.why = 0
        """The status that says why it rests, or has to be tried; 0: it was busy, or is well."""
        self.asked = False
        """Of one that was refused: a call finds out about it."""
        self.refusals = 0
        """In a row, for want of money."""

    def is_refused(self, now: float) -> bool:
        """Whether it was, and nobody knows better; after long without a use it is not known any more."""
        if not self.why or (not self.asked and self.until + LONGEST_REST_S < now):
            return False
        return not self.asked or self.until > now


class KeyPool:
    """Use and rest of each key of one deployment, by its place in the declaration. `before`: what was declared before;
    what is known of a key that is still there stays with it, whatever its place."""

    __slots__ = ("_keys", "_known")

    def __init__(self, references: Iterable[str], before: KeyPool | None = None) -> None:
        self._known: dict[str, _Key] = {} if before is None else before._known
        self._keys = [self._known.setdefault(reference, _Key()) for reference in references]

    @property
    def size(self) -> int:
        """How many keys there are."""
        return len(self._keys)

    def order(self, now: float) -> list[int]:
        """The keys that do not rest, the least used first; of equals the first declared. Where all rest, those
        that have done so for long enough that one call may look."""
        ready = [index for index, key in enumerate(self._keys) if key.until <= now]
        if not ready:
            ready = [index for index, key in enumerate(self._keys) if key.soon <= now]
        return sorted(ready, key=lambda index: (_use(self._keys[index], now), index))

    def used(self, index: int, now: float) -> None:
        """One attempt is to be sent with it; of one that was refused it finds out, and others wait a moment for how."""
        key = self._keys[index]
        key.used, key.at = _use(key, now) + 1.0, now
        if not key.why:
            return
        if not key.asked:
            key.asked, key.until = True, now + FINDS_OUT_S
        elif key.until <= now:  # whoever found out was not refused
            key.why = key.refusals = 0

    def unsent(self, index: int, now: float) -> None:
        """It was not, in the end, so that nothing was found out: whoever comes next may."""
        key = self._keys[index]
        key.used, key.at = max(0.0, _use(key, now) - 1.0), now
        if key.asked:
            key.asked, key.until = False, now

    def refused(self, index: int, status: int, now: float, after: float | None) -> bool:
        """The provider refused it with `status`, and asked to wait `after` seconds; whether another key is left."""
        key = self._keys[index]
        if status == UNPAID:
            # several calls that were on their way together are one refusal
            key.refusals += key.why != UNPAID or key.asked
            grown: float = REFUSED_REST_S * 2 ** min(8, key.refusals - 1)
            rest = max(grown, after or 0.0)  # who says less means what a minute may have
        else:
            key.refusals = 0
            rest = after if after is not None else BUSY_REST_S if status == _BUSY else REFUSED_REST_S
        key.why, key.asked = 0 if status == _BUSY else status, False
        key.until = now + min(LONGEST_REST_S, max(1.0, rest))
        key.soon = now + min(SOONEST_S, max(1.0, rest))
        return any(each.until <= now or each.asked for each in self._keys)

    def rests(self, now: float) -> float:
        """Seconds until one of the keys rests no more; 0 where one does not now. `order` may name one before that."""
        return max(0.0, min(key.until for key in self._keys) - now)

    def whys(self, now: float) -> list[int]:
        """Of each key the status for which it rests, or is to be tried by one call; 0: it is not used less than
        others."""
        return [key.why if key.is_refused(now) else _BUSY * (key.until > now) for key in self._keys]


def _use(key: _Key, now: float) -> float:
    passed: float = (now - key.at) / HALF_LIFE_S
    return key.used * float(0.5**passed)
