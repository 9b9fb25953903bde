"""Keys that were used in the last day: none is free too early, none is remembered for much longer."""

from __future__ import annotations

import hashlib
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.gateway.caching.used_idempotency_keys import (
    DAY_SECONDS,
    MAX_SPAN_SECONDS,
    RUN_KEYS,
    UsedIdempotencyKeys,
)


def digest(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 2 * RUN_KEYS), st.floats(0, 2 * MAX_SPAN_SECONDS)), min_size=1, max_size=8),
    st.floats(0, 1.2 * DAY_SECONDS),
)
def test_a_used_key_is_used_for_a_day_and_for_little_more(added: list[tuple[int, float]], later: float) -> None:
    """Each step adds so many keys at once, some time after the one before it; some of them come again."""
    keys, at, last = UsedIdempotencyKeys(), 0.0, dict[int, float]()
    for count, after in added:
        at += after
        for number in range(0, count, 3):
            keys.add(digest(number), at)
            last[number] = at
    now = at + later
    keys.expire(now)
    for number in range(0, 2 * RUN_KEYS, 37):
        used, known = keys.is_used(digest(number), now), last.get(number)
        if known is None or now - known > DAY_SECONDS + MAX_SPAN_SECONDS:
            assert not used
        elif now - known < DAY_SECONDS:
            assert used


def test_a_use_that_is_taken_back_late_did_not_happen() -> None:
    """As where a call fails after so long that thousands of other keys were used meanwhile."""
    keys = UsedIdempotencyKeys()
    for number in range(3 * RUN_KEYS):
        keys.add(digest(number), float(number))
    late, again, now = digest(1), digest(2), 3.0 * RUN_KEYS
    for each in (late, again):
        keys.discard(each)
        assert not keys.is_used(each, now)
    keys.add(again, now)
    assert keys.is_used(again, now) and keys.is_used(digest(3), now) and not keys.is_used(late, now)
    for number in range(3 * RUN_KEYS, 4 * RUN_KEYS):
        keys.add(digest(number), now)
    assert keys.is_used(again, now) and not keys.is_used(late, now)
    keys.expire(now + DAY_SECONDS + MAX_SPAN_SECONDS + 1)
    assert not len(keys) and not keys._taken_back


def test_expired_keys_are_forgotten() -> None:
    keys = UsedIdempotencyKeys()
    for number in range(40 * RUN_KEYS):
        keys.add(digest(number), number * DAY_SECONDS / (8 * RUN_KEYS))
        if not number % 100:
            keys.expire(number * DAY_SECONDS / (8 * RUN_KEYS))
            assert len(keys) <= 8 * RUN_KEYS + 3 * RUN_KEYS


def test_a_key_stays_used_until_the_newest_in_its_block_is_a_day_old() -> None:
    keys = UsedIdempotencyKeys()
    for number in range(RUN_KEYS):
        keys.add(digest(number), 0.0 if number < RUN_KEYS // 2 else MAX_SPAN_SECONDS)
    soon = DAY_SECONDS + MAX_SPAN_SECONDS / 2
    keys.expire(soon)
    assert all(keys.is_used(digest(number), soon) for number in range(RUN_KEYS))
    late = DAY_SECONDS + MAX_SPAN_SECONDS + 1
    assert not any(keys.is_used(digest(number), late) for number in range(RUN_KEYS))
    keys.expire(late)
    assert not len(keys)


def test_runs_of_one_hour_are_few() -> None:
    """Each is looked through for a key that was never used."""
    keys = UsedIdempotencyKeys()
    for number in range(20 * RUN_KEYS):
        keys.add(digest(number), number * MAX_SPAN_SECONDS / (20 * RUN_KEYS))
    assert len(keys._runs) <= 3 and len(keys) == 20 * RUN_KEYS
    assert max(len(run.keys) for run in keys._runs) <= 9 * RUN_KEYS


def test_a_key_takes_eight_bytes() -> None:
    digests = [digest(number) for number in range(50 * RUN_KEYS)]
    tracemalloc.start()
    keys = UsedIdempotencyKeys()
    for each in digests:
        keys.add(each, 5.0)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(keys) == len(digests) and taken < 10 * len(digests) + (2 << 20)
    assert all(keys.is_used(each, 5.0) for each in digests[::997]) and not keys.is_used(bytes(32), 5.0)
