"""Declared costs are divided exactly, whatever the days, the weights and who is there to carry them."""

from __future__ import annotations

import csv
import io
from calendar import monthrange
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import Allocation
from groundplan.catalog.allocation import AllocationDoc
from groundplan.catalog.check import validate_files
from groundplan.core.errors import Invalid
from groundplan.core.money import PICO
from groundplan.economics.allocate.daily import allocate_days
from groundplan.economics.allocate.divide import amount_spent, capacity_of, divide
from groundplan.economics.allocate.model import Day, Use
from groundplan.economics.allocate.outcome import Outcomes, baseline_cost, baseline_rule, outcome_value
from groundplan.economics.export.focus import focus_csv
from groundplan.release.compile.budgets import compile_allocation

JAN = date(2026, 1, 1)
counts = st.integers(0, 10**9)
uses = st.lists(
    st.builds(
        Use, workload=st.sampled_from(["a", "b", "c", "d"]), team=st.sampled_from(["x", "y"]), calls=counts,
        cost=counts, tokens=counts, by_deployment=st.dictionaries(st.just("gpu"), counts, max_size=1),
        by_site=st.dictionaries(st.just("rack"), counts, max_size=1),
    ),
    max_size=4, unique_by=lambda use: use.workload,
)  # fmt: skip
rules = st.builds(
    Allocation,
    name=st.just("r"),
    term=st.just("platform"),
    amount=st.integers(0, 10**17),
    period=st.sampled_from(["day", "week", "month", "quarter", "year"]),
    by=st.sampled_from(["cost", "calls", "tokens", "equal", "shares"]),
    shares=st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 100), min_size=1),
    covers=st.sampled_from(["company", "team/x", "workload/a", "deployment/gpu", "site/rack"]),
    capacity=st.none() | st.integers(1, 10**9),
)


@given(rules, uses, st.integers(0, 700), st.integers(0, 70))
def test_the_lines_of_a_rule_sum_exactly_to_what_it_spent(
    rule: Allocation, made: list[Use], start: int, more: int
) -> None:
    first = JAN + timedelta(days=start)
    last = first + timedelta(days=more)
    days = [first + timedelta(days=n) for n in range(more + 1)]
    for day in days:
        parts = divide(rule, made, day)
        assert sum(part.amount for part in parts) == amount_spent(rule, day, day)
        assert all(part.amount > 0 for part in parts)
    lines = allocate_days([Day(day, 1, [rule], made) for day in days])
    assert sum(line.amount for line in lines) == amount_spent(rule, first, last)
    assert all(line.amount > 0 for line in lines)


@given(st.integers(0, 10**16), st.integers(1, 12), st.sampled_from(["month", "year", "quarter"]))
def test_days_sum_exactly_to_their_period(amount: int, month: int, period: str) -> None:
    rule = Allocation(name="r", term="logs", amount=amount, period=period)
    days = monthrange(2026, month)[1]
    whole = amount_spent(rule, date(2026, month, 1), date(2026, month, days))
    parts = [amount_spent(rule, date(2026, month, day), date(2026, month, day)) for day in range(1, days + 1)]
    assert sum(parts) == whole
    if period == "year":
        assert amount_spent(rule, JAN, date(2026, 12, 31)) == amount
    if period == "month":
        assert whole == amount


def test_capacity_that_is_not_used_is_a_line_of_its_own() -> None:
    rule = Allocation(
        name="gpu", term="capacity", amount=31 * PICO, covers="deployment/gpu", capacity=1000, by="tokens"
    )
    lines = divide(rule, [Use("a", by_deployment={"gpu": 300}), Use("b", by_deployment={"gpu": 100})], JAN)
    assert [(line.term, line.workload, line.amount) for line in lines] == [
        ("capacity", "a", 3 * PICO // 10),
        ("capacity", "b", PICO // 10),
        ("idle", "", 6 * PICO // 10),
    ]


def test_pieces_of_hardware_add_up_and_costs_of_one_piece_do_not() -> None:
    piece: dict[str, Any] = {"amount": PICO, "covers": "deployment/gpu", "capacity": 100, "period": "day"}
    rules = [
        Allocation(name="first", term="capacity", **piece),
        Allocation(name="second", term="capacity", since="2026-01-02", **piece),
        Allocation(name="service", term="support", **piece),
    ]
    days = [JAN, JAN + timedelta(days=1)]
    assert [capacity_of(rules, "deployment/gpu", day) for day in days] == [100, 200]
    used = [Use("a", by_deployment={"gpu": 100})]
    idle = [
        sum(line.amount for line in allocate_days([Day(day, 1, rules, used)]) if line.term == "idle") for day in days
    ]
    assert idle == [0, 3 * PICO // 2]


@pytest.mark.parametrize(
    ("per", "company", "gpu", "rack"),
    [("1M tokens", 5, 2, 3), ("1000 calls", 7, 4, 6), ("gigabyte of answers", 8, 2, 4)],
)
def test_a_rate_of_a_place_counts_what_was_done_there_alone(per: str, company: int, gpu: int, rack: int) -> None:
    used = Use(
        "a", calls=7000, tokens=5_000_000, by_deployment={"gpu": 2_000_000, "cloud": 3_000_000},
        by_site={"rack": 3_000_000}, calls_at={"deployment/gpu": 4000, "site/rack": 6000},
        answer_tokens={"company": 2 * 10**9, "deployment/gpu": 10**9 // 2, "site/rack": 10**9},
    )  # fmt: skip
    for covers, units in (("company", company), ("deployment/gpu", gpu), ("site/rack", rack), ("site/none", 0)):
        rule = Allocation(name="r", term="support", rate=PICO, per=per, covers=covers)
        assert sum(part.amount for part in divide(rule, [used], JAN)) == units * PICO


def test_what_is_of_one_workload_is_carried_by_it_before_it_is_served() -> None:
    camera = Allocation(name="camera", term="device", amount=31 * PICO, covers="workload/inspector", source="invoice")
    (line,) = divide(camera, [Use("a", calls=9)], JAN)
    assert (line.workload, line.team, line.amount) == ("inspector", "", PICO) and "not served" in line.rule
    (line,) = divide(camera, [Use("a", calls=9), Use("inspector", "factory")], JAN)
    assert (line.workload, line.team, line.amount) == ("inspector", "factory", PICO)
    of_team = Allocation(name="desk", term="support", amount=31 * PICO, covers="team/factory", source="invoice")
    assert [part.workload for part in divide(of_team, [Use("a", calls=9)], JAN)] == [""]


def test_what_is_kept_for_no_workload_is_a_line_of_nobody() -> None:
    rule = Allocation(name="store", term="object_storage", rate=PICO, per="gigabyte of documents")
    left = Use("", units={"gigabyte of documents": Decimal(365)})
    (part,) = divide(rule, [Use("a"), left], JAN)
    assert (part.workload, part.team, part.amount) == ("", "", 12 * PICO) and "of no workload" in part.rule
    of_team = Allocation(name="store", term="object_storage", rate=PICO, per=rule.per, covers="team/x")
    assert divide(of_team, [left], JAN) == []
    equal = Allocation(name="p", term="platform", amount=PICO, period="day", by="equal")
    assert [part.workload for part in divide(equal, [Use("a"), left], JAN)] == ["a"], "it carries nothing else"


def test_a_site_s_cost_is_carried_by_whoever_has_calls_there() -> None:
    rule = Allocation(name="room", term="energy", amount=31 * PICO, covers="site/rack")
    used = [Use("a", by_site={"rack": 30}), Use("b", by_site={"rack": 10}), Use("c", by_site={"cloud": 99})]
    lines = divide(rule, used, JAN)
    assert [(line.workload, line.amount, line.site) for line in lines] == [
        ("a", 3 * PICO // 4, "rack"), ("b", PICO // 4, "rack"),
    ]  # fmt: skip
    assert lines[0].rule == "by tokens at rack (allocation room)"
    (nobody,) = divide(rule, [Use("c", by_site={"cloud": 99})], JAN)
    assert (nobody.workload, nobody.amount, nobody.site) == ("", PICO, "rack")


def test_a_rate_is_paid_for_what_was_measured() -> None:
    rule = Allocation(name="people", term="review", rate=45 * PICO, per="review hour", source="HR 2026")
    (line,) = divide(rule, [Use("a", units={"review hour": Decimal("0.5")}), Use("b")], JAN)
    assert (line.workload, line.amount, line.basis, line.source) == ("a", 45 * PICO // 2, "measured", "HR 2026")


def test_an_outcome_is_compared_with_how_it_was_before() -> None:
    found = outcome_value(10 * PICO, Outcomes(reported=30, accepted=20), baseline_cost(None, 6.0, 30 * PICO))
    assert (found.cost_per_accepted, found.baseline, found.saved) == (PICO // 2, 3 * PICO, 50 * PICO)
    assert baseline_rule(None, 6.0, 30 * PICO) == "6 declared minutes of a case x $30.00 an hour"
    assert baseline_rule(PICO, 6.0, None, "2026-01-10") == "the declared cost of a case, as it was on 2026-01-10"
    assert baseline_rule(None, 6.0, None) == ""
    assert found.returned == 6.0
    assert outcome_value(PICO, Outcomes(), 3 * PICO).cost_per_accepted is None


@pytest.mark.parametrize(
    "bad",
    [
        {"cost": "120 USD/month", "rate": "1 USD", "per": "1000 calls"},
        {},
        {"rate": "1 USD"},
        {"cost": "120 USD/month", "by": "shares"},
        {"cost": "120 USD/month", "capacity": "1000/day"},
        {"cost": "120 USD/total"},
        {"cost": "-5 USD/month"},
        {"cost": "120 NOX/month"},
        {"cost": "1 USD/month", "from": "2026-02-01", "until": "2026-01-01"},
    ],
)
def test_a_rule_that_cannot_be_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        AllocationDoc.model_validate({"name": "x", "term": "logs", "source": "contract", **bad})


@pytest.mark.parametrize("told", ["0/day", "1/month"])
def test_hardware_that_makes_nothing_is_refused(told: str) -> None:
    """Nothing would be idle of it, and no use of it measured."""
    rack = {"name": "rack", "term": "capacity", "cost": "5 USD/day", "covers": "deployment/gpu", "source": "contract"}
    with pytest.raises(ValueError, match="at least one token a day, such as 40M/day"):
        AllocationDoc.model_validate({**rack, "capacity": told})


COMPANY = "kind: company\nname: acme\nformat: 1\n---\n"
RULE = "kind: allocation\nname: {}\nterm: logs\ncost: 5 USD/month\nsource: contract\n{}\n---\n"


def test_two_rules_of_the_same_days_are_refused_where_they_are() -> None:
    text = COMPANY + RULE.format("old", "until: 2026-03-31") + RULE.format("new", "from: 2026-03-01")
    with pytest.raises(Invalid) as refused:
        validate_files({"a.yaml": text})
    assert [problem.code for problem in refused.value.problems] == ["allocation_twice"]
    assert "a.yaml" in str(refused.value.problems[0].where)


EDGE = """\
kind: company
name: acme
---
kind: allocation
name: cameras
term: device
purchase: 900 USD
life: 1095d
count: 40
from: 2026-01-01
source: invoice 9
---
kind: allocation
name: visits
term: site_visits
rate: 180 USD
per: site visit
quantity: 3/month
source: contract 3
---
kind: allocation
name: firmware
term: updates
rate: 0.09 USD
per: gigabyte of updates
quantity: 10/day
source: price list
---
kind: allocation
name: power
term: energy
rate: 0.24 USD
per: kWh
quantity: 2/hour
source: tariff
---
kind: allocation
name: sim-cards
term: connectivity
rate: 0.50 USD
per: gigabyte of traffic
quantity: 20/month
source: contract 9
"""


def compiled(text: str) -> dict[str, Allocation]:
    return {name: compile_allocation(doc) for name, doc in validate_files({"a.yaml": text}).allocations.items()}


def test_edge_terms_are_declared_and_cost_what_they_say() -> None:
    made = compiled(EDGE)
    month = (date(2026, 11, 1), date(2026, 11, 30))
    days = [date(2026, 11, n) for n in range(1, 31)]
    lines = {
        name: allocate_days([Day(day, 1, [rule], [Use("lines", cost=3)]) for day in days])
        for name, rule in made.items()
    }
    assert [amount_spent(made["visits"], *month), amount_spent(made["firmware"], *month)] == [540 * PICO, 27 * PICO]
    usd = {name: sum(line.amount for line in mine) / PICO for name, mine in lines.items()}
    assert usd == {
        "cameras": pytest.approx(36_000 * 30 / 1095), "visits": 540, "firmware": 27, "power": pytest.approx(345.6),
        "sim-cards": 10,
    }  # fmt: skip
    assert lines["visits"][0].rule.startswith("3/month x 180 USD for each site visit, by cost")
    assert lines["cameras"][0].rule.startswith("40 x 900 USD over 1095 days")
    whole = amount_spent(made["cameras"], date(2025, 1, 1), date(2030, 1, 1))
    assert whole == 36_000 * PICO
    assert amount_spent(made["cameras"], date(2028, 12, 30), date(2030, 1, 1)) == amount_spent(
        made["cameras"], date(2028, 12, 30), date(2028, 12, 30)
    )


CREDITS = """\
kind: company
name: acme
---
kind: allocation
name: grant
term: credit
cost: 100 USD/month
from: 2026-11-01
until: 2026-11-30
source: grant of the provider
---
kind: allocation
name: rebate
term: credit
rate: 0.01 USD
per: 1M tokens
source: contract 4
"""


def test_a_credit_is_taken_off_and_sums_exactly() -> None:
    made = compiled(CREDITS)
    assert (made["grant"].amount, made["rebate"].rate) == (-100 * PICO, -PICO // 100)
    uses = [Use("a", "x", cost=1, tokens=3_000_000), Use("b", "y", cost=2)]
    days = [Day(date(2026, 11, n), 1, list(made.values()), uses) for n in range(1, 31)]
    lines = allocate_days(days)
    assert {line.term for line in lines} == {"credit"} and all(line.amount < 0 for line in lines)
    sums = {(line.allocation, line.workload): line.amount for line in lines}
    assert (
        sums["grant", "a"] + sums["grant", "b"] == amount_spent(made["grant"], days[0].day, days[-1].day) == -100 * PICO
    )
    assert abs(sums["grant", "a"] * 2 - sums["grant", "b"]) <= 60 and sums["rebate", "a"] == -90 * PICO // 100
    row = next(csv.DictReader(io.StringIO(focus_csv([(days[0].day, days[-1].day, lines)], "acme"))))
    assert (row["ChargeCategory"], row["ServiceCategory"], row["BilledCost"][0]) == ("Credit", "Other", "-")


@pytest.mark.parametrize(
    "more", ["purchase: 9 USD\nlife: 90d", "cost: 9 USD/day\ncovers: deployment/d\ncapacity: 9/day"]
)
def test_a_credit_is_of_a_time_or_of_units(more: str) -> None:
    with pytest.raises(Invalid) as refused:
        validate_files({"a.yaml": CREDITS.replace("cost: 100 USD/month", more)})
    assert "A credit is a cost of a period" in refused.value.problems[0].hint


@pytest.mark.parametrize(
    "bad",
    [
        {"purchase": "900 USD"},
        {"purchase": "900 USD", "life": "1095d"},
        {"purchase": "900 USD", "life": "1h", "from": "2026-01-01"},
        {"purchase": "900 USD", "life": "1095d", "from": "2026-01-01", "cost": "1 USD/month"},
        {"rate": "180 USD", "per": "site visit"},
        {"rate": "180 USD", "per": "review hour", "quantity": "3/month"},
        {"purchase": "-900 USD", "life": "1095d", "from": "2026-01-01"},
    ],
)
def test_edge_terms_that_cannot_be_are_refused(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        AllocationDoc.model_validate({"name": "a", "term": "device", "source": "contract", **bad})
