"""Several keys at one provider: the least used is taken, refused ones rest, and all of them come back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from groundplan.gateway.upstream.key_pool import BUSY_REST_S, LONGEST_REST_S, REFUSED_REST_S, KeyPool


def test_use_is_spread_and_what_is_long_ago_counts_less() -> None:
    pool = KeyPool(3)
    for _ in range(30):
        pool.used(pool.order(0.0)[0], 0.0)
    assert pool.order(0.0) == [0, 1, 2]
    pool.used(0, 0.0)
    assert pool.order(0.0) == [1, 2, 0]
    pool.used(1, 600.0)  # ten half-lives later one use of now weighs more than eleven of then
    assert pool.order(600.0)[-1] == 1


def test_a_refused_key_rests_as_long_as_it_was_told_or_is_usual() -> None:
    pool = KeyPool(2)
    assert pool.refused(0, 429, 0.0, None)
    assert pool.order(BUSY_REST_S - 0.1) == [1] and pool.order(BUSY_REST_S) == [0, 1]
    assert pool.refused(0, 401, 20.0, None)
    assert pool.order(20.0 + REFUSED_REST_S - 0.1) == [1]
    assert not pool.refused(1, 429, 20.0, 3.0)
    assert pool.order(22.9) == [] and pool.order(23.0) == [1]
    assert pool.refused(1, 429, 1000.0, 1e9)
    assert pool.order(1000.0 + LONGEST_REST_S) == [0, 1]
    assert pool.refused(1, 429, 2000.0, 0.0)
    assert pool.order(2000.5) == [0]  # asked again at once it would be refused again


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 30)), max_size=60))
def test_a_key_that_rests_is_never_chosen(steps: list[tuple[int, bool, float]]) -> None:
    pool, now, until = KeyPool(4), 0.0, [0.0] * 4
    for index, refused, passed in steps:
        now += passed
        order = pool.order(now)
        assert sorted(order) == [i for i in range(4) if until[i] <= now]
        if refused:
            until[index] = now + BUSY_REST_S
            assert pool.refused(index, 429, now, None) == any(each <= now for each in until)
        else:
            pool.used(index, now)
