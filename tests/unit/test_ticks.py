"""Regular things meet: whenever they begin, and however late they are, they are next done at the same moment."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from groundplan.gateway.ticks import next_tick, sleep_to_tick


@given(st.floats(0, 1e7), st.sampled_from([0.05, 0.1, 0.2, 1.0]))
def test_the_next_time_is_about_one_period_later(now: float, seconds: float) -> None:
    found = next_tick(now, seconds)
    assert 0.5 * seconds - 1e-6 <= found - now <= 1.5 * seconds + 1e-6
    assert abs(found / seconds - round(found / seconds)) < 1e-6


@given(st.integers(0, 10**9), st.floats(0, 0.04), st.floats(0, 0.04))
def test_who_is_a_little_late_meets_the_others_again(number: int, one: float, other: float) -> None:
    assert next_tick(number * 0.1 + one, 0.1) == next_tick(number * 0.1 + other, 0.1)


async def test_two_that_rest_wake_in_one_turn_of_the_loop() -> None:
    """Of uvloop, whose clock goes in whole milliseconds; asyncio's own may take one turn more. They begin in the first
    half of a period: who rests from its second half on is woken one beat later."""
    woken: list[float] = []

    async def go(delay: float) -> None:
        await asyncio.sleep(delay)
        await sleep_to_tick(0.6)
        woken.append(asyncio.get_running_loop().time())

    await sleep_to_tick(0.6)
    await asyncio.gather(go(0.0), go(0.02), go(0.05))
    assert max(woken) - min(woken) < 0.3
