"""What was kept over some days, from daily samples: a day without one counts as the nearest, and that is said."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import Allocation
from groundplan.core.money import PICO
from groundplan.economics.allocate.daily import allocate_days
from groundplan.economics.allocate.divide import divide
from groundplan.economics.allocate.model import Day, Use
from groundplan.economics.allocate.storage import stored_bytes_on

DAY = date(2026, 11, 1)
GB = 10**9


def days_after(days: int) -> date:
    return DAY + timedelta(days=days)


Kept = dict[date, dict[str, int]]


def stored_on(samples: Kept, day: int) -> tuple[dict[str, int], bool]:
    kept, own = stored_bytes_on(samples, sorted(samples), days_after(day))
    return dict(kept), own


def test_what_was_deleted_is_paid_for_the_days_on_which_it_was_there() -> None:
    samples = {
        days_after(0): {"a": 4 * GB},
        days_after(1): {"a": 4 * GB, "b": GB},
        days_after(2): {},
        days_after(3): {},
    }
    assert [stored_on(samples, day) for day in range(4)] == [
        ({"a": 4 * GB}, True), ({"a": 4 * GB, "b": GB}, True), ({}, True), ({}, True),
    ]  # fmt: skip


def test_days_without_a_sample_count_as_the_nearest_and_that_is_said() -> None:
    samples = {days_after(1): {"a": GB}, days_after(3): {"a": 3 * GB}}
    assert stored_on(samples, 2) == ({"a": GB}, False)
    assert stored_on(samples, 0) == ({"a": GB}, False), "before the first one"
    assert stored_on(samples, 9) == ({"a": 3 * GB}, False)
    assert [stored_on(samples, day)[1] for day in range(4)] == [False, True, False, True]
    assert stored_on({}, 0) == ({}, False)


@given(
    st.dictionaries(st.integers(0, 20), st.dictionaries(st.sampled_from("ab"), st.integers(0, 10**15)), min_size=1),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_a_day_is_the_same_whatever_days_are_asked_beside_it(
    sampled: dict[int, dict[str, int]], first: int, day: int, last: int
) -> None:
    first, day, last = sorted((first, day, last))
    samples = {days_after(n): dict(kept) for n, kept in sampled.items()}
    before = max((n for n in sampled if n < first), default=first)
    later = min((n for n in sampled if n > last), default=last)
    read = {at: kept for at, kept in samples.items() if days_after(before) <= at <= days_after(later)}
    assert stored_on(read, day) == stored_on(samples, day)


RULE = Allocation(name="store", term="object_storage", rate=PICO, per="gigabyte of documents", source="contract")


def test_a_price_a_month_is_paid_for_the_part_of_the_year() -> None:
    units = {"gigabyte of documents": Decimal(73)}
    days = [Day(days_after(n), 1, [RULE], [Use("a", units=units)]) for n in range(10)]
    (line,) = allocate_days(days)
    assert line.amount == 24 * PICO and line.basis == "measured"
    near = [replace(day, uses=[Use("a", units=units, nearest_sample_units=frozenset({RULE.per}))]) for day in days]
    (line,) = allocate_days(near)
    assert line.amount == 24 * PICO and line.basis == "estimated" and "nearest sample" in line.rule
    both = allocate_days([*days[:4], *near[4:]])
    assert [(each.basis, each.amount) for each in both] == [
        ("measured", 24 * PICO * 4 // 10), ("estimated", 24 * PICO * 6 // 10),
    ]  # fmt: skip


@pytest.mark.parametrize(("covers", "amount"), [("company", 8), ("site/rack", 2), ("deployment/gpt", 6)])
def test_what_leaves_a_site_is_paid_by_the_answers_that_were_written_there(covers: str, amount: int) -> None:
    rule = Allocation(name="out", term="egress", rate=PICO, per="gigabyte of answers", covers=covers, source="contract")
    written = {"company": 2 * GB, "site/rack": GB // 2, "deployment/gpt": 3 * GB // 2}
    use = Use("a", by_site={"rack": 1}, by_deployment={"gpt": 1}, answer_tokens=written)
    (line,) = divide(rule, [use], DAY)
    assert line.amount == amount * PICO and line.basis == "estimated" and "4 bytes a token" in line.rule
