"""Days are allocated by the rules of their own day, and any days together are what each of them costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import Allocation
from groundplan.core.money import PICO
from groundplan.economics.allocate.daily import allocate_days
from groundplan.economics.allocate.divide import amount_spent
from groundplan.economics.allocate.model import Day, Line, LookupCost, Use

JAN = date(2026, 1, 1)
HOUR = 3_600_000_000
counts = st.integers(0, 10**9)
uses = st.lists(
    st.builds(
        Use, workload=st.sampled_from(["a", "b", "c", ""]), team=st.sampled_from(["x", "y", ""]), calls=counts,
        cost=counts, tokens=counts, by_deployment=st.dictionaries(st.just("gpu"), counts, max_size=1),
        by_site=st.dictionaries(st.just("rack"), counts, max_size=1),
        calls_at=st.dictionaries(st.sampled_from(["deployment/gpu", "site/rack"]), counts, max_size=2),
        answer_tokens=st.dictionaries(st.sampled_from(["company", "site/rack"]), counts, max_size=2),
        units=st.dictionaries(
            st.sampled_from(["review hour", "gigabyte of documents"]), st.decimals(0, 10**6, places=4), max_size=2
        ),
        nearest_sample_units=st.frozensets(st.just("gigabyte of documents")),
    ),
    max_size=4, unique_by=lambda use: use.workload,
)  # fmt: skip
dates = st.sampled_from(["", "2026-01-05", "2026-02-01"])
covered = st.sampled_from(["company", "team/x", "workload/a", "deployment/gpu", "site/rack"])
amounts = st.builds(
    Allocation, name=st.sampled_from(["p", "q"]), term=st.sampled_from(["platform", "capacity"]),
    amount=st.integers(0, 10**17), period=st.sampled_from(["day", "week", "month", "quarter", "year"]),
    by=st.sampled_from(["cost", "calls", "tokens", "equal", "shares"]),
    shares=st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 100), min_size=1), covers=covered,
    capacity=st.none() | st.integers(1, 10**9), since=dates,
)  # fmt: skip
rates = st.builds(
    Allocation, name=st.just("r"), term=st.just("support"), rate=st.integers(1, 10**14),
    per=st.sampled_from(["1000 calls", "1M tokens", "review hour", "gigabyte of documents", "gigabyte of answers"]),
    covers=covered, until=st.sampled_from(["", "2026-01-20"]),
)  # fmt: skip
credits_ = st.builds(
    Allocation, name=st.just("c"), term=st.just("credit"), amount=st.integers(-(10**17), 0),
    period=st.sampled_from(["day", "month", "quarter"]), by=st.sampled_from(["cost", "calls", "equal"]), covers=covered,
    since=dates,
)  # fmt: skip
looked = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.builds(LookupCost, workload=st.just("a"), spent_us=st.integers(0, 10**10), hourly_price=st.integers(0, 10**12)),
)
versions = st.lists(st.lists(st.one_of(amounts, rates, credits_), max_size=3), min_size=1, max_size=3)


@st.composite
def spans(draw: st.DrawFn) -> list[Day]:
    """Days in a row, the rules of which change."""
    declared = draw(versions)
    changes = draw(st.lists(st.integers(0, 2), min_size=1, max_size=8))
    start = draw(st.integers(0, 40))
    found = []
    for n, change in enumerate(changes):
        number = change % len(declared)
        asked = {name: LookupCost(name, each.spent_us, each.hourly_price) for name, each in draw(looked).items()}
        found.append(Day(JAN + timedelta(days=start + n), number + 1, declared[number], draw(uses), lookups=asked))
    return found


def sums(lines: Sequence[Line]) -> Counter[tuple[object, ...]]:
    found: Counter[tuple[object, ...]] = Counter()
    for line in lines:
        found[line.workload, line.team, line.term, line.basis, line.allocation, line.source, line.deployment] += (
            line.amount
        )
    return found


@given(spans(), st.integers(0, 8))
def test_two_spans_are_exactly_what_both_are_together(days: list[Day], middle: int) -> None:
    whole = allocate_days(days)
    first, second = allocate_days(days[:middle]), allocate_days(days[middle:])
    assert sums(whole) == sums([*first, *second])
    assert sums(whole) == sums([line for day in days for line in allocate_days([day])])
    numbers = {number for line in whole for number in line.blueprints}
    assert numbers == {number for line in [*first, *second] for number in line.blueprints}


@given(spans())
def test_every_day_s_rules_sum_exactly_to_what_they_spent(days: list[Day]) -> None:
    days = [Day(day.day, day.blueprint, [r for r in day.rules if r.rate is None], day.uses) for day in days]
    due = sum(amount_spent(rule, day.day, day.day) for day in days for rule in day.rules)
    assert sum(line.amount for line in allocate_days(days)) == due


def platform(amount: int, **more: Any) -> Allocation:
    return Allocation(name="platform", term="platform", amount=amount, period="day", source="contract", **more)


def test_a_rule_that_changes_leaves_the_days_before_as_they_were() -> None:
    used = [Use("a", "x", calls=1, cost=1), Use("b", "y", calls=3, cost=1)]
    old = [Day(JAN + timedelta(days=n), 3, [platform(4 * PICO, by="cost")], used) for n in range(2)]
    new = [Day(JAN + timedelta(days=2), 4, [platform(8 * PICO, by="calls")], used)]
    told = {(line.workload, line.rule): (line.amount, line.blueprints) for line in allocate_days([*old, *new])}
    by_cost, by_calls = "by cost (allocation platform)", "by calls (allocation platform)"
    assert told == {
        ("a", by_cost): (4 * PICO, (3,)), ("b", by_cost): (4 * PICO, (3,)),
        ("a", by_calls): (2 * PICO, (4,)), ("b", by_calls): (6 * PICO, (4,)),
    }  # fmt: skip


def test_a_rule_whose_amount_changes_is_a_line_of_each_version() -> None:
    used = [Use("a", "x", calls=1)]
    days = [Day(JAN + timedelta(days=n), 3 + n, [platform((1 + n) * PICO, by="calls")], used) for n in range(2)]
    assert [(line.amount, line.blueprints) for line in allocate_days(days)] == [(PICO, (3,)), (2 * PICO, (4,))]


def test_a_rule_that_stays_as_it_is_is_one_line_of_all_its_blueprints() -> None:
    days = [Day(JAN + timedelta(days=n), 3 + n, [platform(PICO, by="calls")], [Use("a", calls=1)]) for n in range(3)]
    (line,) = allocate_days(days)
    assert (line.amount, line.blueprints, line.allocation) == (3 * PICO, (3, 4, 5), "platform")


def test_a_workload_that_moves_is_carried_by_each_team_for_its_days() -> None:
    teams = ["care", "care", "sales"]
    days = [
        Day(JAN + timedelta(days=n), 1 + n // 2, [platform(3 * PICO, by="calls")], [Use("a", team, calls=1)])
        for n, team in enumerate(teams)
    ]
    assert {line.team: line.amount for line in allocate_days(days)} == {"care": 6 * PICO, "sales": 3 * PICO}


def test_a_day_on_which_nothing_was_done_is_shared_equally_and_says_so() -> None:
    rule = platform(4 * PICO, by="calls")
    days = [
        Day(JAN, 1, [rule], [Use("a", calls=1), Use("b")]),
        Day(JAN + timedelta(days=1), 1, [rule], [Use("a"), Use("b")]),
    ]
    told = [(line.workload, line.amount, line.rule.partition(" (")[0]) for line in allocate_days(days)]
    equally = "equally where nothing is to be divided by calls"
    assert told == [("a", 4 * PICO, "by calls"), ("a", 2 * PICO, equally), ("b", 2 * PICO, equally)]


def test_units_are_added_up_over_the_days() -> None:
    rule = Allocation(name="desk", term="support", rate=2 * PICO, per="1000 calls", source="contract")
    (line,) = allocate_days([Day(JAN + timedelta(days=n), 1, [rule], [Use("a", calls=1500)]) for n in range(2)])
    assert (line.amount, line.rule) == (6 * PICO, "3 x rate for each 1000 calls (allocation desk)")
    looks = {"a": LookupCost("a", HOUR // 2, PICO, "care")}
    days = [Day(JAN + timedelta(days=n), 0, [], [], lookups=looks) for n in range(2)]
    (line,) = allocate_days(days)
    assert (line.amount, line.team, line.blueprints) == (PICO, "care", ())
    assert line.rule.startswith("3600 s of look-ups x $1.00 an hour")


def test_hours_are_exact_whatever_they_are() -> None:
    rule = Allocation(name="people", term="review", rate=45 * PICO, per="review hour", source="HR 2026")
    (line,) = allocate_days([Day(JAN, 1, [rule], [Use("a", units={"review hour": Decimal(1) / 3})])])
    assert line.amount == 15 * PICO
