"""Words agree with their numbers."""

from __future__ import annotations

import pytest

from groundplan.console.render import templates
from groundplan.core.words import counted, each


@pytest.mark.parametrize(
    ("number", "words", "told"),
    [
        (0, ("workload",), "0 workloads"),
        (1, ("workload",), "1 workload"),
        (2, ("workload",), "2 workloads"),
        (1, ("entry holds", "entries hold"), "1 entry holds"),
        (1_000_000, ("entry", "entries"), "1,000,000 entries"),
    ],
)
def test_one_is_singular_and_everything_else_is_not(number: int, words: tuple[str, ...], told: str) -> None:
    assert counted(number, *words) == told


def test_a_period_has_its_article() -> None:
    assert [each(period) for period in ("minute", "hour", "day")] == ["a minute", "an hour", "a day"]


def test_a_budget_without_an_end_is_for_all_time() -> None:
    assert (each("month"), each("hour"), each("total")) == ("a month", "an hour", "in total")
    shown = templates.from_string("{{ limit|usd }} {{ period|each }}").render(limit="50.000000000000", period="total")
    assert shown == "$50.00 in total"
