"""The book of costs for others: FOCUS with every amount exact, statements that sum to what was spent."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pdfplumber
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.api.cost.book import Days, sum_by
from groundplan.core.money import to_decimal
from groundplan.economics.allocate.model import Line
from groundplan.economics.export.focus import COLUMNS, focus_csv
from groundplan.economics.export.statement import UNCARRIED, statement_csv, statements
from groundplan.economics.export.statement_pdf import statement_pdf

FIRST, LAST = date(2026, 11, 1), date(2026, 11, 30)
LINES = [
    Line(term="input", workload="support", team="care", amount=1234567890123, basis="measured", rule="tokens x price",
         source="genai-prices", deployment="gpt-eu", site="azure-sweden", model="openai/gpt-4.1-mini", quantity=1000),
    Line(term="platform", workload="support", team="care", amount=7, basis="allocated", rule="by calls",
         source="contract"),
    Line(term="logs", workload="finance", team="", amount=5, basis="estimated", rule="=cmd()", source="@guess"),
    Line(term="idle", workload="", amount=11, basis="allocated", rule="capacity", source="contract", deployment="gpu"),
    Line(term="cache_lookup", workload="support", team="care", amount=3, basis="estimated", rule="look-ups",
         source="cache"),
    Line(term="site_visits", workload="lines", amount=13, basis="estimated", rule="3/month", source="contract",
         site="line-3"),
    Line(term="guardrail", workload="support", team="care", amount=17, basis="measured", rule="tokens x price",
         source="genai-prices", deployment="gpt-eu", site="azure-sweden", model="openai/gpt-4.1-mini", quantity=10,
         unit="Tokens", tier="batch long"),
]  # fmt: skip


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_every_line_is_a_row_with_its_exact_amount() -> None:
    found = rows(focus_csv([(FIRST, LAST, LINES)], "acme"))
    assert tuple(found[0]) == COLUMNS
    assert [Decimal(row["BilledCost"]) for row in found] == [to_decimal(line.amount) for line in LINES]
    assert found[0]["ProviderName"] == found[0]["Provider"] == "openai"
    assert (found[0]["BillingPeriodEnd"], found[0]["ChargePeriodEnd"]) == ("2026-12-01T00:00:00Z",) * 2
    assert [row["ServiceCategory"] for row in found[1:]] == [
        "Management and Governance", "Storage", "Compute", "Compute", "Internet of Things", "AI and Machine Learning",
    ]  # fmt: skip


def test_what_has_no_maker_is_of_the_same_provider_in_book_and_file() -> None:
    own = replace(LINES[0], deployment="smollm-rack", site="rack-1", model="smollm2-135m-instruct")
    (row,) = rows(focus_csv([(FIRST, LAST, [own])], "acme"))
    assert [row["ProviderName"]] == [each["key"] for each in sum_by([own], "provider", {})] == ["rack-1"]


def test_no_cell_is_a_formula() -> None:
    text = focus_csv([(FIRST, LAST, LINES)], "=acme") + "".join(
        statement_csv(each) for each in statements(LINES, FIRST, LAST)
    )
    assert not [cell for row in csv.reader(io.StringIO(text)) for cell in row if cell[:1] in ("=", "+", "@")]
    credit = replace(LINES[0], amount=-5, source="-2+3+cmd|' /C calc'!A0")
    (made,) = statements([credit], FIRST, LAST)
    row = rows(statement_csv(made))[0]
    assert row["cost_usd"] == "-0.000000000005" and row["source"].startswith("'-2")


lines = st.lists(
    st.builds(
        Line,
        term=st.sampled_from(["input", "idle", "platform"]),
        workload=st.sampled_from(["", "support", "finance"]),
        team=st.sampled_from(["", "care", "money"]),
        amount=st.integers(-(10**15), 10**15),
        basis=st.sampled_from(["measured", "allocated", "estimated"]),
        rule=st.text(max_size=5),
        source=st.text(max_size=5),
    ),
    max_size=12,
)


@given(lines)
def test_statements_sum_exactly_to_the_book(made: list[Line]) -> None:
    found = statements(made, FIRST, LAST, charged=True)
    assert sum(each.total for each in found) == sum(line.amount for line in made)
    for each in found:
        for grouped in (each.by_workload(), each.by_term(), each.by_basis()):
            assert sum(amount for _, amount in grouped) == each.total
        last = rows(statement_csv(each))[-1]
        assert (last["workload"], Decimal(last["cost_usd"])) == ("total", to_decimal(each.total))
        assert each.charged == (each.team != UNCARRIED)


def test_a_team_is_booked_where_finance_does() -> None:
    made = {each.team: each for each in statements(LINES, FIRST, LAST, centers={"care": "=4100"})}
    assert (made["care"].cost_center, made[UNCARRIED].cost_center) == ("=4100", "")
    told = rows(statement_csv(made["care"]))
    assert {row["cost_center"] for row in told} == {"'=4100"} and told[-1]["workload"] == "total"
    assert {row["cost_center"] for row in rows(statement_csv(made[UNCARRIED]))} == {""}
    with pdfplumber.open(io.BytesIO(statement_pdf(made["care"], "acme"))) as document:
        assert "Cost center =4100." in (document.pages[0].extract_text() or "").replace("\n", " ")
    focus = rows(focus_csv([(FIRST, LAST, LINES)], "acme", {FIRST: {"care": "4100"}}))
    booked = {row["SubAccountId"]: json.loads(row["Tags"]).get("cost_center") for row in focus}
    assert booked == {"care": "4100", "": None}


def test_a_statement_shows_the_days_before() -> None:
    found = statements(LINES, FIRST, LAST, previous=LINES[1:2])
    assert [(each.team, each.previous) for each in found] == [("care", 7), (UNCARRIED, 0)]
    assert all(each.over for each in found)
    assert not any(each.over for each in statements(LINES, FIRST, LAST, over=False))


def test_what_nobody_counted_is_paid_by_use_all_the_same() -> None:
    """Only what an allocation spreads comes again each month."""
    unknown = replace(LINES[0], basis="estimated", rule="the most it can have cost")
    spread = replace(LINES[1], allocation="platform")
    hours = replace(LINES[0], basis="measured", allocation="people")
    found = rows(focus_csv([(FIRST, LAST, [LINES[0], unknown, LINES[4], hours, spread])], "acme"))
    assert [row["ChargeFrequency"] for row in found] == ["Usage-Based"] * 4 + ["Recurring"]


def test_quantities_are_decimals_also_where_all_are_whole() -> None:
    found = rows(focus_csv([(FIRST, LAST, LINES)], "acme"))
    assert [row["ConsumedQuantity"] for row in found] == ["1000.0", "", "", "", "", "", "10.0"]
    assert found[0]["PricingQuantity"] == "1000.0"


@pytest.mark.parametrize(
    ("first", "last", "before"),
    [
        ("2026-11-01", "2026-11-28", ("2026-10-01", "2026-10-28")),
        ("2026-11-01", "2026-11-01", ("2026-10-01", "2026-10-01")),
        ("2026-11-01", "2026-11-30", ("2026-10-01", "2026-10-31")),
        ("2026-03-01", "2026-03-30", ("2026-02-01", "2026-02-28")),
        ("2026-02-01", "2026-02-28", ("2026-01-01", "2026-01-31")),
        ("2026-01-01", "2026-01-15", ("2025-12-01", "2025-12-15")),
    ],
)
def test_a_month_is_compared_with_the_same_days_of_the_one_before(
    first: str, last: str, before: tuple[str, str]
) -> None:
    """What runs on the first of each month is in both."""
    days = Days(date.fromisoformat(first), date.fromisoformat(last)).month_before
    assert (days.first.isoformat(), days.last.isoformat()) == before


def test_a_charge_lies_within_its_month() -> None:
    days = Days(date(2026, 10, 30), date(2026, 12, 2))
    assert [(each.first.isoformat(), each.last.isoformat()) for each in days.months] == [
        ("2026-10-30", "2026-10-31"), ("2026-11-01", "2026-11-30"), ("2026-12-01", "2026-12-02"),
    ]  # fmt: skip
    found = rows(focus_csv([(month.first, month.last, LINES[:1]) for month in days.months], "acme"))
    assert [(row["BillingPeriodStart"], row["ChargePeriodStart"], row["ChargePeriodEnd"]) for row in found] == [
        ("2026-10-01T00:00:00Z", "2026-10-30T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z", "2026-12-03T00:00:00Z"),
    ]


def test_a_file_says_whether_it_charges() -> None:
    (care, _) = statements(LINES, FIRST, LAST, charged=True)
    (shown, _) = statements(LINES, FIRST, LAST)
    assert {row["kind"] for row in rows(statement_csv(care))} == {"chargeback"}
    assert {row["kind"] for row in rows(statement_csv(shown))} == {"showback"}


def test_a_line_says_how_it_is_known_by_which_rule_and_from_which_source_in_every_file() -> None:
    (care, _) = statements(LINES, FIRST, LAST)
    with pdfplumber.open(io.BytesIO(statement_pdf(care, "acme"))) as document:
        text = "\n".join(page.extract_text() for page in document.pages)
    exported = rows(focus_csv([(FIRST, LAST, care.lines)], "acme"))
    for line, row, charge in zip(care.lines, rows(statement_csv(care)), exported, strict=False):
        assert f"{line.term} {line.basis} {line.rule} ({line.source})" in text
        assert (row["basis"], row["rule"], row["source"]) == (line.basis, line.rule, line.source)
        assert charge["ChargeDescription"] == f"{line.term}: {line.rule}"
        assert (json.loads(charge["Tags"])["basis"], json.loads(charge["Tags"])["source"]) == (line.basis, line.source)


def test_a_document_says_sources_in_any_writing() -> None:
    sources = ["договор 12, Łódź", "契约十二号"]
    lines = [replace(LINES[1], source=source, amount=at) for at, source in enumerate(sources, 1)]
    (care,) = statements(lines, FIRST, LAST, centers={"care": "Koszty ogólne"})
    with pdfplumber.open(io.BytesIO(statement_pdf(care, "acme"))) as document:
        text = " ".join((page.extract_text() or "").replace("\n", " ") for page in document.pages)
    assert "договор 12" in text and sources[1] in text and "Cost center Koszty ogólne." in text and "■" not in text
