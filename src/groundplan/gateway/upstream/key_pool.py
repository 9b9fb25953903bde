"""Chooses which of a deployment's keys at its provider an attempt uses: the least used one that does not rest. Pure;
times are arguments, in seconds.

A key whose account is out of money rests for longer each time that it is refused again, and one call at a time probes
whether it works again. Local to one worker and forgotten with it; the limits of a key are counted across workers by
`limits`.
"""

from __future__ import annotations

from collections.abc import Iterable

HALF_LIFE_S = 60.0
"""After which a use counts half."""
REFUSED_REST_S = 60.0
"""How long a key rests that its provider does not know or allow (401, 403), or, the first time, whose account is out of
money (402, or as 429)."""
BUSY_REST_S = 10.0
"""How long a key rests after too many requests (429), if the provider does not say."""
MAX_REST_S = 600.0
LAST_RESORT_S = 60.0
"""After which a resting key is used if no other is ready: a pause of hours is often garbage."""
PROBE_S = 5.0
"""How long other calls use the other keys while one call probes a key."""
KEY_STATUSES = frozenset({401, 402, 403, 429})
"""Statuses that are about the key, so that another key may succeed."""
UNPAID = 402
REASONS = {401: "not accepted", UNPAID: "its account is not paid, or its quota is used up", 403: "not allowed"}
"""For keys that rest for longer than a moment."""
_BUSY = 429


class _Key:
    """The state of one key."""

    __slots__ = ("is_probed", "last_resort_at", "problem_status", "refusals", "rests_until", "use_count", "used_at")

    def __init__(self) -> None:
        self.use_count = self.used_at = 0.0
        self.rests_until = self.last_resort_at = 0.0
        self.problem_status = 0
        """The status because of which the key rests, or is to be probed; 0: it was busy, or is fine."""
        self.is_probed = False
        """The key was refused, and a call is probing it."""
        self.refusals = 0
        """Refusals in a row for lack of money."""

    def is_refused(self, now: float) -> bool:
        """Whether the key was refused and no probe has succeeded since; unknown after a long time without use."""
        if not self.problem_status or (not self.is_probed and self.rests_until + MAX_REST_S < now):
            return False
        return not self.is_probed or self.rests_until > now


class KeyPool:
    """Use and rest of each key of one deployment, by its index in the declaration. `before`: the pool of the previous
    declaration; a key that is still declared keeps its state, whatever its index."""

    __slots__ = ("_keys", "_known")

    def __init__(self, references: Iterable[str], before: KeyPool | None = None) -> None:
        self._known: dict[str, _Key] = {} if before is None else before._known
        self._keys = [self._known.setdefault(reference, _Key()) for reference in references]

    @property
    def size(self) -> int:
        """Number of keys."""
        return len(self._keys)

    def order(self, now: float) -> list[int]:
        """Indexes of the keys that do not rest, the least used first, then in declared order. If all rest, those that
        have rested long enough for one call to try."""
        ready = [index for index, key in enumerate(self._keys) if key.rests_until <= now]
        if not ready:
            ready = [index for index, key in enumerate(self._keys) if key.last_resort_at <= now]
        return sorted(ready, key=lambda index: (_decayed_use(self._keys[index], now), index))

    def record_use(self, index: int, now: float) -> None:
        """Count an attempt that is about to be sent with the key. If the key was refused, the attempt is a probe, and
        other calls wait a moment for its result."""
        key = self._keys[index]
        key.use_count, key.used_at = _decayed_use(key, now) + 1.0, now
        if not key.problem_status:
            return
        if not key.is_probed:
            key.is_probed, key.rests_until = True, now + PROBE_S
        elif key.rests_until <= now:  # the probe was not refused
            key.problem_status = key.refusals = 0

    def undo_use(self, index: int, now: float) -> None:
        """The attempt was not sent after all, so nothing was found out: the next call may probe."""
        key = self._keys[index]
        key.use_count, key.used_at = max(0.0, _decayed_use(key, now) - 1.0), now
        if key.is_probed:
            key.is_probed, key.rests_until = False, now

    def record_refusal(self, index: int, status: int, now: float, retry_after: float | None) -> bool:
        """Record that the provider refused the key with `status`, and asked to wait `retry_after` seconds; returns
        whether another key is left."""
        key = self._keys[index]
        if status == UNPAID:
            # several calls that were sent together count as one refusal
            key.refusals += key.problem_status != UNPAID or key.is_probed
            grown: float = REFUSED_REST_S * 2 ** min(8, key.refusals - 1)
            rest = max(grown, retry_after or 0.0)  # a shorter time is about a limit per minute
        else:
            key.refusals = 0
            rest = retry_after if retry_after is not None else BUSY_REST_S if status == _BUSY else REFUSED_REST_S
        key.problem_status, key.is_probed = 0 if status == _BUSY else status, False
        key.rests_until = now + min(MAX_REST_S, max(1.0, rest))
        key.last_resort_at = now + min(LAST_RESORT_S, max(1.0, rest))
        return any(each.rests_until <= now or each.is_probed for each in self._keys)

    def rest_seconds(self, now: float) -> float:
        """Seconds until one of the keys stops resting; 0 if one does not rest now. `order` may name one earlier."""
        return max(0.0, min(key.rests_until for key in self._keys) - now)

    def next_rest_end(self, now: float) -> float | None:
        """Seconds until the first of the resting keys is used beside those that do not rest; None if no key rests."""
        return min((key.rests_until - now for key in self._keys if key.rests_until > now), default=None)

    def problem_statuses(self, now: float) -> list[int]:
        """For each key the status because of which it rests, or is to be probed by one call; 0 if it is used as
        usual."""
        return [key.problem_status if key.is_refused(now) else _BUSY * (key.rests_until > now) for key in self._keys]


def _decayed_use(key: _Key, now: float) -> float:
    passed: float = (now - key.used_at) / HALF_LIFE_S
    return key.use_count * float(0.5**passed)
