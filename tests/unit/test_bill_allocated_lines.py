"""A bill's storage and traffic are compared with what is allocated of them, and it is said what to do."""

from __future__ import annotations

from decimal import Decimal

import pytest

from groundplan.core.money import PICO
from groundplan.economics.allocate.model import Line
from groundplan.economics.bills.allocated_lines import compare_allocations
from groundplan.economics.bills.parse import read_bill
from groundplan.economics.bills.reconcile import reconcile

BILL = """date,cost,currency,ServiceName
2026-11-03,40,USD,Blob Storage
2026-11-04,20.5,USD,Storage Backup
2026-11-04,7,USD,Bandwidth
2026-11-04,3,USD,Virtual Machines
"""


def line(term: str, usd: Decimal) -> Line:
    amount = int(usd * PICO)
    return Line(term=term, workload="a", amount=amount, basis="allocated", rule="", source="contract 4")


@pytest.mark.parametrize(
    ("lines", "allocated", "told"),
    [
        ([line("object_storage", Decimal("40.5")), line("logs", Decimal(20))], "60.5", "is what was billed"),
        ([line("object_storage", Decimal(30)), line("platform", Decimal(99))], "30", "less is allocated"),
        ([line("vector_storage", Decimal(90))], "90", "more is allocated than was billed: end the rule"),
        ([line("platform", Decimal(99))], "0", "nothing is allocated"),
    ],
)
def test_storage_is_compared_with_its_terms(lines: list[Line], allocated: str, told: str) -> None:
    made = reconcile(read_bill(BILL, "bill.csv", {}), [], {})
    found = {each.purpose: each for each in compare_allocations(made, lines)}
    assert set(found) == {"storage", "network"}
    storage = found["storage"]
    assert (storage.bill, storage.allocated) == (Decimal("60.5"), Decimal(allocated))
    assert storage.difference == Decimal("60.5") - Decimal(allocated)
    assert told in storage.advice
    assert found["network"].bill == 7 and "nothing is allocated" in found["network"].advice


def test_a_bill_of_models_alone_has_nothing_beside() -> None:
    made = reconcile(read_bill("date,cost,model\n2026-11-03,4,gpt\n", "bill.csv", {}), [], {})
    assert compare_allocations(made, [line("logs", Decimal(3))]) == []


def test_allocations_for_another_bill_are_not_held_against_this_one() -> None:
    made = reconcile(read_bill(BILL, "aws.csv", {}), [], {})
    other = Line(
        term="database", workload="a", amount=50 * PICO, basis="allocated", rule="", source="another cloud"
    )  # fmt: skip
    mine = line("object_storage", Decimal("60.5"))
    both = next(each for each in compare_allocations(made, [mine, other]) if each.purpose == "storage")
    assert "another cloud and contract 4" in both.advice and "--source" in both.advice
    one = next(each for each in compare_allocations(made, [mine, other], ["contract 4"]) if each.purpose == "storage")
    assert (one.allocated, one.rules, one.advice) == (
        Decimal("60.5"), ("contract 4",), "what is allocated is what was billed",
    )  # fmt: skip


def test_databases_are_storage_of_the_bill() -> None:
    text = BILL + "2026-11-05,11,USD,Azure Database for PostgreSQL\n2026-11-05,2,USD,Azure AI Search\n"
    made = reconcile(read_bill(text, "bill.csv", {}), [], {})
    storage = next(each for each in compare_allocations(made, []) if each.purpose == "storage")
    assert storage.bill == Decimal("73.5")


def test_a_column_that_is_called_service_tells_what_a_line_is_for_and_tokens_are_of_models_whatever_it_says() -> None:
    text = """date,model,service,input_tokens,output_tokens,cost,currency
2026-11-02,gpt-4.1-mini,Tokens,1000,100,0.5,USD
2026-11-03,,Object storage GB-month,,,3,USD
2026-11-03,,Bandwidth out,,,2,USD
2026-11-04,,Support plan,,,1,USD
"""
    bill = read_bill(text, "b.csv", {})
    assert bill.columns["service"] == "service"
    assert [(each.is_foreign, each.purpose) for each in bill.lines] == [
        (False, ""), (True, "storage"), (True, "network"), (True, ""),
    ]  # fmt: skip
