"""How far PostgreSQL's clock is from a worker's: what is learned of it, and that windows never go back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.gateway.budgets.windows import AHEAD_S, BEHIND_S, Windows


@pytest.mark.parametrize("apart", [-500.0, -90.0, 0.0, 90.0, 500.0, 3600.0, 7 * 3600.0])
def test_the_first_look_counts_at_once(apart: float) -> None:
    windows = Windows()
    windows.learn(1000 + apart, 1000, 1000)
    assert windows.ahead == apart


@pytest.mark.parametrize("took", [0.01, 3.0, 3600.0])
def test_no_more_is_guessed_than_the_question_took(took: float) -> None:
    """Somebody may have stood still meanwhile."""
    windows = Windows()
    for at in (0.0, 10_000.0):
        windows.learn(at + took, at, at + took)
        assert windows.ahead == 0
    windows.learn(20_090 + took, 20_000, 20_000 + took)
    assert 0 < windows.ahead <= 90


@pytest.mark.parametrize("apart", [AHEAD_S + 1, -BEHIND_S - 1, 400 * 86_400.0])
def test_a_clock_that_is_far_away_is_not_followed(apart: float) -> None:
    windows = Windows()
    windows.learn(apart, 0, 0)
    assert windows.ahead == 0
    windows.learn(100 + apart, 100, 100)
    assert windows.ahead == 0


def test_a_clock_that_is_wrong_for_a_moment_moves_windows_little() -> None:
    windows = Windows()
    windows.learn(0, 0, 0)
    for apart in (300, -300, 3600):
        windows.learn(5 + apart, 5, 5)
        assert abs(windows.ahead) <= 5
        windows = Windows()
        windows.learn(0, 0, 0)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10), st.floats(-2000, 100_000)), min_size=2))
def test_windows_never_go_back_and_come_to_be_right(looks: list[tuple[float, float, float]]) -> None:
    windows, now, last = Windows(), 0.0, float("-inf")
    for rests, took, apart in looks:
        now += rests
        assert now + windows.ahead >= last - 1e-6
        windows.learn(now + took / 2 + apart, now, now + took)
        now += took
        assert now + windows.ahead >= last - 1e-6 or last == float("-inf")
        last = now + windows.ahead
        assert -BEHIND_S <= windows.ahead <= AHEAD_S
    for _ in range(2):
        now += 10 * AHEAD_S
        windows.learn(now - 90, now, now)
    assert windows.ahead == pytest.approx(-90)
