"""From which use on own hardware is cheaper than paying by the token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.api.watch.price_changes import break_even_finding
from groundplan.core.money import PICO
from groundplan.economics.forecast.breakeven import OwnCapacity, break_even


@pytest.mark.parametrize(
    ("made", "others", "needed", "told"),
    [
        (30_000_000, {"api": 60 * PICO, "dear": 90 * PICO}, 0.5, "it pays from 50% use on"),
        (80_000_000, {"api": 160 * PICO}, 0.5, "it pays: it is used more than the 50%"),
        (30_000_000, {"api": 20 * PICO}, 1.5, "cheaper at any use"),
        (0, {"api": 20 * PICO}, None, "nothing was made"),
        (30_000_000, {}, None, "nothing else"),
        (30_000_000, {"free": 0}, None, "nothing else"),
    ],
)
def test_the_use_from_which_on_it_pays(made: int, others: dict[str, int], needed: float | None, told: str) -> None:
    found = break_even(OwnCapacity("rack", 100 * PICO, 100_000_000, made), others)
    assert found.needed == (None if needed is None else pytest.approx(needed))
    assert told in found.verdict
    assert found.other in (None, "api")
    assert found.used == made / 100_000_000


@given(st.integers(1, 10**15), st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 10**15))
def test_at_the_needed_use_both_cost_the_same(cost: int, possible: int, made: int, other: int) -> None:
    found = break_even(OwnCapacity("rack", cost, possible, made), {"api": other})
    assert found.needed is not None
    assert found.needed * possible * (other / made) == pytest.approx(cost, rel=1e-9)
    assert (found.used >= found.needed) == pytest.approx(other >= cost) or found.used == pytest.approx(found.needed)


@pytest.mark.parametrize(
    ("used", "needed", "told"),
    [(0.1, 0.5, True), (0.46, 0.5, False), (0.8, 0.5, False), (0.1, None, False), (0.1, 46_361.0, True)],
)
def test_hardware_that_is_used_too_little_is_a_finding(used: float, needed: float | None, told: bool) -> None:
    row = {
        "deployment": "rack", "cost_usd": "100.000000000000", "used": used, "needed": needed, "other": "api",
        "other_usd": "20.000000000000", "told": "api would cost less: it pays from 50% use on",
    }  # fmt: skip
    found = break_even_finding(row)
    assert (found is not None) == told
    if found is not None:
        assert (found.kind, found.subject) == ("cost.break_even", "deployment/rack")
        assert "$100.00 in 30 days at 10.0% use" in found.message and "$20.00" in found.message
        assert found.detail["saves"] == 80 * PICO
        pays = "It pays from 50% use on." if needed == 0.5 else "Even full it costs more for each token."
        assert found.message.endswith(pays)
