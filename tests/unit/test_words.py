"""Words agree with their numbers."""

from __future__ import annotations

import pytest

from groundplan.console.render import templates
from groundplan.core.words import display_value, per_period, quantity


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
    assert quantity(number, *words) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["finance", "hr"], "finance, hr"),
        (True, "yes"),
        ([{"use": "own", "words": ["refund", "lawyer"], "longer": None}], "{use: own, words: [refund, lawyer]}"),
        ({"training": False, "retention_days": 0}, "{training: no, retention_days: 0}"),
    ],
)
def test_what_was_declared_is_told_as_people_write_it(value: object, told: str) -> None:
    assert display_value(value) == told


def test_what_lies_deeper_than_anybody_writes_is_left_out() -> None:
    value: object = "end"
    for _ in range(5_000):
        value = {"in": [value]}
    assert display_value(value).count("in: ") < 10 and "…" in display_value(value)


def test_a_period_has_its_article() -> None:
    assert [per_period(period) for period in ("minute", "hour", "day")] == ["a minute", "an hour", "a day"]


def test_a_budget_without_an_end_is_for_all_time() -> None:
    assert (per_period("month"), per_period("hour"), per_period("total")) == ("a month", "an hour", "in total")
    shown = templates.from_string("{{ limit|usd }} {{ period|each }}").render(limit="50.000000000000", period="total")
    assert shown == "$50.00 in total"
