"""How far PostgreSQL's clock is from a worker's: what is learned of it, and that windows never go back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.gateway.budgets.windows import MAX_AHEAD_S, MAX_BEHIND_S, WindowClock


@pytest.mark.parametrize("apart", [-500.0, -90.0, 0.0, 90.0, 500.0, 3600.0, 7 * 3600.0])
def test_the_first_look_counts_at_once(apart: float) -> None:
    windows = WindowClock()
    windows.learn(1000 + apart, 1000, 1000)
    assert windows.seconds_ahead == apart


@pytest.mark.parametrize("took", [0.01, 3.0, 3600.0])
def test_no_more_is_guessed_than_the_question_took(took: float) -> None:
    """Somebody may have stood still meanwhile."""
    windows = WindowClock()
    for at in (0.0, 10_000.0):
        windows.learn(at + took, at, at + took)
        assert windows.seconds_ahead == 0
    windows.learn(20_090 + took, 20_000, 20_000 + took)
    assert 0 < windows.seconds_ahead <= 90


@pytest.mark.parametrize("apart", [MAX_AHEAD_S + 1, -MAX_BEHIND_S - 1, 400 * 86_400.0])
def test_a_clock_that_is_far_away_is_not_followed(apart: float) -> None:
    windows = WindowClock()
    windows.learn(apart, 0, 0)
    assert windows.seconds_ahead == 0
    windows.learn(100 + apart, 100, 100)
    assert windows.seconds_ahead == 0


def test_a_clock_that_is_wrong_for_a_moment_moves_windows_little() -> None:
    windows = WindowClock()
    windows.learn(0, 0, 0)
    for apart in (300, -300, 3600):
        windows.learn(5 + apart, 5, 5)
        assert abs(windows.seconds_ahead) <= 5
        windows = WindowClock()
        windows.learn(0, 0, 0)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10), st.floats(-2000, 100_000)), min_size=2))
def test_windows_never_go_back_and_come_to_be_right(looks: list[tuple[float, float, float]]) -> None:
    windows, now, last = WindowClock(), 0.0, float("-inf")
    for rests, took, apart in looks:
        now += rests
        assert now + windows.seconds_ahead >= last - 1e-6
        windows.learn(now + took / 2 + apart, now, now + took)
        now += took
        assert now + windows.seconds_ahead >= last - 1e-6 or last == float("-inf")
        last = now + windows.seconds_ahead
        assert -MAX_BEHIND_S <= windows.seconds_ahead <= MAX_AHEAD_S
    for _ in range(2):
        now += 10 * MAX_AHEAD_S
        windows.learn(now - 90, now, now)
    assert windows.seconds_ahead == pytest.approx(-90)
