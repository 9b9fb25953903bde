"""The last day of the calendar, which people write for a day that never comes, and days beyond it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from tests.integration.gateway_stack import blueprint, deployment, workload
from tests.unit.test_release_plan import BASE, plan_of

from groundplan.core.clock import end_of_day, last_day
from groundplan.core.errors import Invalid
from groundplan.economics.experiment.record import ExperimentRecord
from groundplan.gateway.policy.catalog import index
from groundplan.governance.model import Change


def test_a_day_is_over_when_the_next_one_begins() -> None:
    assert end_of_day(date(2026, 12, 31)) == datetime(2027, 1, 1, tzinfo=UTC)
    assert end_of_day(date.max) > datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("day", [date(2026, 12, 31), date(2028, 2, 29), date.max])
def test_what_is_over_with_a_day_had_it_as_its_last(day: date) -> None:
    assert last_day(end_of_day(day)) == day
    assert last_day(datetime(day.year, day.month, day.day, 0, 0, 0, 1, UTC)) == day


def test_a_last_day_is_of_utc() -> None:
    assert last_day(datetime(2027, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == date(2026, 12, 31)


def test_an_exception_and_an_experiment_that_end_with_a_day_are_told_with_it() -> None:
    """Gateways heed them until it is over, and no moment of the next one."""
    end = end_of_day(date(2026, 12, 31))
    asked = Change(
        UUID(int=1), "", "exception", "workload/w", 1, {"fields": [{"field": "until", "new": end.isoformat()}]}, (),
        "operator", end, "applied", None, None,
    )  # fmt: skip
    assert asked.own_end_date == date(2026, 12, 31)
    tried = ExperimentRecord(
        id=UUID(int=2), name="try", workload="w", type="shadow", candidate="small", judge="", share=1000,
        split="person", tolerance=0.1, guard_tolerance=0.05, budget_usd=Decimal(1), until=end, reason="r",
        asked_by="ana", state="running",
    )  # fmt: skip
    assert tried.standing.endswith(" runs until 2026-12-31")


def test_a_workload_that_ends_on_the_last_day_is_served_and_so_are_those_beside_it() -> None:
    """A blueprint is taken up whole or not at all."""
    tasks = [workload("assistant", ["one"], expires="9999-12-31"), workload("other", ["one"], expires="2026-12-31")]
    plans = index(blueprint(1, [deployment("one", 1)], tasks)).plans
    assert plans["other"].until == datetime(2027, 1, 1, tzinfo=UTC).timestamp() < plans["assistant"].until


@pytest.mark.parametrize("days", ["3000000", "10M", "9007199254740991"])
def test_more_days_than_the_calendar_has_are_refused(days: str) -> None:
    with pytest.raises(Invalid) as caught:
        plan_of(BASE.replace("name: acme\n", f"name: acme\ncaps: {{days: {days}}}\n", 1))
    assert "at most 36500, or unlimited" in caught.value.problems[0].hint
    assert plan_of(BASE.replace("name: acme\n", "name: acme\ncaps: {days: 36500}\n", 1)).blueprint is not None
