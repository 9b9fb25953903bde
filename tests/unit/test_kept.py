"""What was kept over some days, from daily samples: a day without one counts as the nearest, and that is said."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import Allocation
from groundplan.core.money import PICO
from groundplan.economics.allocate.divide import divide
from groundplan.economics.allocate.kept import mean_gigabytes
from groundplan.economics.allocate.model import Use

DAY = date(2026, 11, 1)
GB = 10**9


def after(days: int) -> date:
    return DAY + timedelta(days=days)


def test_what_was_deleted_is_paid_for_the_days_on_which_it_was_there() -> None:
    samples = {after(0): {"a": 4 * GB}, after(1): {"a": 4 * GB, "b": GB}, after(2): {}, after(3): {}}
    assert mean_gigabytes(samples, after(0), after(3)) == ({"a": 2.0, "b": 0.25}, True)
    assert mean_gigabytes(samples, after(2), after(3)) == ({}, True)


def test_days_without_a_sample_count_as_the_nearest_and_that_is_said() -> None:
    samples = {after(1): {"a": GB}, after(3): {"a": 3 * GB}}
    assert mean_gigabytes(samples, after(2), after(2)) == ({"a": 1.0}, False)
    assert mean_gigabytes(samples, after(0), after(0)) == ({"a": 1.0}, False), "before the first one"
    assert mean_gigabytes(samples, after(9), after(9)) == ({"a": 3.0}, False)
    assert mean_gigabytes(samples, after(0), after(3)) == ({"a": 1.5}, False)
    assert mean_gigabytes({}, after(0), after(3)) == ({}, False)


@given(
    st.dictionaries(st.integers(0, 20), st.dictionaries(st.sampled_from("ab"), st.integers(0, 10**15)), min_size=1),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_days_together_are_the_sum_of_the_days(
    sampled: dict[int, dict[str, int]], first: int, middle: int, last: int
) -> None:
    first, middle, last = sorted((first, middle, last))
    samples = {after(day): dict(kept) for day, kept in sampled.items()}

    def byte_days(start: int, end: int) -> float:
        found, _ = mean_gigabytes(samples, after(start), after(end))
        return found.get("a", 0.0) * (end - start + 1) * GB

    parts = byte_days(first, middle) + (byte_days(middle + 1, last) if middle < last else 0.0)
    assert byte_days(first, last) == pytest.approx(parts, rel=1e-12, abs=1e-3)


RULE = Allocation(name="store", term="object_storage", rate=PICO, per="gigabyte of documents", source="contract")


def test_a_price_a_month_is_paid_for_the_part_of_the_year() -> None:
    use = Use("a", units={"gigabyte of documents": 73.0})
    (line,) = divide(RULE, [use], DAY, after(9))
    assert line.amount == 24 * PICO and line.basis == "measured"
    (line,) = divide(RULE, [Use("a", units=use.units, nearest=frozenset({RULE.per}))], DAY, after(9))
    assert line.amount == 24 * PICO and line.basis == "estimated" and "nearest sample" in line.rule


@pytest.mark.parametrize(("covers", "amount"), [("company", 8), ("site/rack", 2), ("deployment/gpt", 6)])
def test_what_leaves_a_site_is_paid_by_the_answers_that_were_written_there(covers: str, amount: int) -> None:
    rule = Allocation(name="out", term="egress", rate=PICO, per="gigabyte of answers", covers=covers, source="contract")
    written = {"company": 2 * GB, "site/rack": GB // 2, "deployment/gpt": 3 * GB // 2}
    use = Use("a", by_site={"rack": 1}, by_deployment={"gpt": 1}, written=written)
    (line,) = divide(rule, [use], DAY, after(9))
    assert line.amount == amount * PICO and line.basis == "estimated" and "4 bytes a token" in line.rule
