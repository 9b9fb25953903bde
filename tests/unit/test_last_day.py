"""The last day of the calendar, which people write for a day that never comes, and days beyond it."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from tests.integration.gateway_stack import blueprint, deployment, workload
from tests.unit.test_release_plan import BASE, planned

from groundplan.core.clock import end_of
from groundplan.core.errors import Invalid
from groundplan.gateway.policy.catalog import index


def test_a_day_is_over_when_the_next_one_begins() -> None:
    assert end_of(date(2026, 12, 31)) == datetime(2027, 1, 1, tzinfo=UTC)
    assert end_of(date.max) > datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_a_workload_that_ends_on_the_last_day_is_served_and_so_are_those_beside_it() -> None:
    """A blueprint is taken up whole or not at all."""
    tasks = [workload("assistant", ["one"], expires="9999-12-31"), workload("other", ["one"], expires="2026-12-31")]
    plans = index(blueprint(1, [deployment("one", 1)], tasks)).plans
    assert plans["other"].until == datetime(2027, 1, 1, tzinfo=UTC).timestamp() < plans["assistant"].until


@pytest.mark.parametrize("days", ["3000000", "10M", "9007199254740991"])
def test_more_days_than_the_calendar_has_are_refused(days: str) -> None:
    with pytest.raises(Invalid) as caught:
        planned(BASE.replace("name: acme\n", f"name: acme\ncaps: {{days: {days}}}\n", 1))
    assert "at most 36500, or unlimited" in caught.value.problems[0].hint
    assert planned(BASE.replace("name: acme\n", "name: acme\ncaps: {days: 36500}\n", 1)).blueprint is not None
