"""Bills as providers export them and spreadsheets of several countries save them: the amounts that they say, once."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_reconcile import RATES, attempt, bill, kinds

from groundplan.core.errors import Invalid, Where
from groundplan.economics.bills.model_names import resolve_model
from groundplan.economics.bills.parse import Bill, read_bill
from groundplan.economics.bills.reconcile import reconcile

AWS = """\
identity/LineItemId,bill/BillType,lineItem/LineItemType,lineItem/UsageStartDate,lineItem/ProductCode,\
lineItem/UsageType,lineItem/UsageAmount,lineItem/CurrencyCode,lineItem/UnblendedCost,lineItem/LineItemDescription,\
product/ProductName,pricing/unit
a,Anniversary,Usage,2026-11-25T00:00:00Z,AmazonBedrock,USE1-Gpt4o-input-tokens,1.0,USD,0.0020000000,\
$0.002 per 1K input,Amazon Bedrock,1K tokens
b,Anniversary,Usage,2026-11-25T00:00:00Z,AmazonBedrock,USE1-Gpt4o-output-tokens,0.1,USD,0.0010000000,\
$0.01 per 1K output,Amazon Bedrock,1K tokens
c,Anniversary,Usage,2026-11-25T00:00:00Z,AmazonS3,TimedStorage-ByteHrs,12.5,USD,0.2875,,\
Amazon Simple Storage Service,GB-Mo
d,Anniversary,Usage,2026-11-25T00:00:00Z,AWSDataTransfer,DataTransfer-Out-Bytes,1,USD,0.09,,AWS Data Transfer,GB
e,Anniversary,Credit,2026-11-25T00:00:00Z,AmazonBedrock,USE1-Gpt4o-input-tokens,0,USD,-0.0005,Credits,Amazon Bedrock,
f,Anniversary,Tax,2026-11-30T00:00:00Z,AmazonBedrock,,1,USD,0.07,Tax for product code AmazonBedrock,Amazon Bedrock,
"""
GOOGLE = """\
Invoice number,5123456789
Invoice date,"Nov 30, 2026"
Billing ID,01AB23-45CD67

Project name,Service description,SKU description,Credit type,Cost type,Usage start date,Usage end date,Usage amount,\
Usage unit,Unrounded Cost (€),Cost (€)
prod,Vertex AI,Gpt-4o Text Input,,Usage,2026-11-25,2026-11-25,1000,count,0.002,0.00
prod,Vertex AI,Gpt-4o Text Output,,Usage,2026-11-25,2026-11-25,100,count,0.001,0.00
prod,Vertex AI,Gpt-4o Text Input,Committed usage discount,Usage,2026-11-25,2026-11-25,,,-0.0004,0.00
prod,Cloud Storage,Standard Storage,,Usage,2026-11-25,2026-11-25,2,gibibyte month,0.04,0.04
,,,,Tax,,,,,0.01,0.01
,,,,Rounding error,,,,,0.0002,0.00
Total,,,,,,,,,0.0528,0.05
"""


LITELLM_LOGS = """\
request_id,call_type,api_key,spend,total_tokens,prompt_tokens,completion_tokens,startTime,endTime,model,model_group
chatcmpl-1,acompletion,88dc,0.003,1100,1000,100,2026-11-25 09:00:00.120000,2026-11-25 09:00:01.5,gpt-4o,chat
chatcmpl-2,acompletion,88dc,4.2e-05,15,11,2,2026-11-25 23:59:59.500000,2026-11-26 00:00:01.5,gpt-4o,chat
"""
LITELLM_DAYS = """\
date,api_key,model,prompt_tokens,completion_tokens,cache_read_input_tokens,cache_creation_input_tokens,spend,api_requests
2026-11-25,88dc,gpt-4o,1000,100,600,50,0.003,1
"""


def line_values(read: Bill) -> list[tuple[str | None, Decimal | None, str, str]]:
    return [(line.model, line.amount, line.currency, line.purpose) for line in read.lines]


def test_cost_and_usage_of_aws() -> None:
    read = bill(AWS)
    assert read.format == "AWS cost and usage" and read.date_range == (date(2026, 11, 25), date(2026, 11, 30))
    assert [(line.input, line.output) for line in read.lines[:2]] == [(1000, None), (None, 100)]
    found = reconcile(read, [attempt()], RATES)
    assert kinds(found) == {
        "storage": "0.2875", "network": "0.09", "tax": "0.07", "credit": "-0.0005",
    }, "what calls cost agrees"  # fmt: skip


def test_spend_logs_of_litellm() -> None:
    """Its amounts count, and a call that ends after midnight is one of the day on which it began."""
    read = bill(LITELLM_LOGS)
    assert read.format == "LiteLLM spend logs" and read.columns["amount"] == "spend"
    assert [(line.amount, line.day, line.until) for line in read.lines] == [
        (Decimal("0.003"), date(2026, 11, 25), None), (Decimal("0.000042"), date(2026, 11, 25), None),
    ]  # fmt: skip
    assert reconcile(read, [attempt(), attempt(11, 2)], RATES).difference == 0


def test_prompt_tokens_of_litellm_include_those_of_the_cache() -> None:
    read = bill(LITELLM_DAYS)
    assert [(line.input, line.output, line.requests) for line in read.lines] == [(1000, 100, 1)]
    assert reconcile(read, [attempt()], RATES).difference == 0
    chosen = bill(LITELLM_DAYS, cache_read="cache_read_input_tokens")
    assert chosen.lines[0].input == 1600, "a column that is chosen is read"


def test_the_cost_table_of_google_with_its_heading_credits_tax_and_total() -> None:
    read = bill(GOOGLE)
    assert read.format == "Google Cloud costs" and read.columns["amount"] == "Unrounded Cost (€)"
    assert {line.currency for line in read.lines} == {"EUR"} and "1 line of totals was passed over" in read.notes
    found = reconcile(read, [attempt()], RATES, exchange_rates={"EUR": Decimal(1)})
    assert found.bill == Decimal("0.0528")
    assert kinds(found) == {"storage": "0.04", "tax": "0.01", "credit": "-0.0002"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('date,model,amount\n2026-11-25,m,"1,234.56"\n2026-11-25,m,"1,234"\n', "2468.56"),
        ('date,model,amount\n2026-11-25,m,"12,50"\n2026-11-25,m,"1,234"\n', "13.734"),
        ("date;model;amount\n25.11.2026;m;1.234,56 €\n25.11.2026;m;1.234 €\n", "2468.56"),
        ("date;model;amount\n2026-11-25;m;1,234.56\n2026-11-25;m;2.5\n", "1237.06"),
        ("date;model;amount\n2026-11-25;m;0.123456\n2026-11-25;m;1.234\n", "1.357456"),
        ("date;model;amount\n2026-11-25;m;1 234,56\n2026-11-25;m;−3,50\n", "1231.06"),
        ("date,model,amount\n2026-11-25,m,1'234.50\n2026-11-25,m,(34.50)\n", "1200.00"),
        ('date,model,amount\n2026-11-25,m,"$1,00,000.25"\n2026-11-25,m,-$0.25\n2026-11-25,m,$-1.00\n', "99999.00"),
        ("date,model,amount\n2026-11-25,m,12.34-\n2026-11-25,m,USD 20.00\n", "7.66"),
        ("date,model,amount\n2026-11-25,m,1.5E-05\n2026-11-25,m,2\n", "2.000015"),
        ("date;model;amount\n25.11.2026;m;1,182E-05\n25.11.2026;m;1,234\n", "1.23401182"),
        ('date,model,amount\n2026-11-25,m,"-2,5e-3"\n2026-11-25,m,"1,234"\n', "1.2315"),
    ],
)  # fmt: skip
def test_an_amount_is_read_as_its_file_writes_amounts(text: str, told: str) -> None:
    assert sum(line.amount or 0 for line in bill(text).lines) == Decimal(told)


@pytest.mark.parametrize(
    ("amount", "told", "currency"),
    [
        ("$1,234.56", "1234.56", "USD"), ("$1,234", "1234", "USD"), ("$1.234", "1.234", "USD"),
        ("US$ 0.12", "0.12", "USD"), ("$1,234.56 USD", "1234.56", "USD"), ("CA$1,234.50", "1234.50", "CAD"),
        ("$5.00 CAD", "5.00", "CAD"), ("€0,12", "0.12", "EUR"), ("0,12 €", "0.12", "EUR"),
        ("€1,234.56", "1234.56", "EUR"),
        ("EUR 1.234,50", "1234.50", "EUR"), ("€1.234.567", "1234567", "EUR"), ("£1,234,567", "1234567", "GBP"),
        ("R$ 1.234,50", "1234.50", "BRL"), ("₹1,00,000.25", "100000.25", "INR"), ("1.234", "1.234", "USD"),
    ],
)  # fmt: skip
def test_an_amount_with_a_currency_is_read_if_it_has_one_meaning(amount: str, told: str, currency: str) -> None:
    (line,) = bill(f'date,model,amount\n2026-11-25,m,"{amount}"\n').lines
    assert (str(line.amount), line.currency) == (told, currency)


@pytest.mark.parametrize(
    ("delimiter", "amounts"),
    [
        (",", ["1,234"]), (",", ["€1,234"]), (",", ["€1.234"]), (",", ["1.234 EUR", "€ 12"]), (",", ["R$ 1.234"]),
        (";", ["1.234"]), (";", ["$1,234"]), ("\t", ["1,234"]), (",", ["12,50", "3.75", "1.234"]),
    ],
)  # fmt: skip
def test_an_amount_that_may_be_thousands_or_decimals_is_refused(delimiter: str, amounts: list[str]) -> None:
    """A thousandfold error is worse than a question: its line and what to write instead are told."""
    head, row = delimiter.join(("date", "model", "amount")), delimiter.join(("2026-11-25", "m", '"{}"'))
    with pytest.raises(Invalid, match="may be thousands, or have three decimals") as refused:
        bill("\n".join([head, *map(row.format, amounts), ""]))
    line = 1 + max(n for n, amount in enumerate(amounts, 1) if "234" in amount)
    assert str(refused.value.where).startswith(f"invoice.csv:{line}:")
    assert refused.value.hint is not None and "1234.00 or 1.2340" in refused.value.hint
    for hinted, total in (("1234.00", "1234.00"), ("1.2340", "1.2340")):
        read = bill(f"date,model,amount\n2026-11-25,m,{hinted}\n")
        assert str(read.lines[0].amount) == total


@pytest.mark.parametrize("cell", ["€1.50", "1.50 EUR", "R$1.50"])
def test_a_line_with_two_currencies_is_refused(cell: str) -> None:
    with pytest.raises(Invalid, match="the line's currency is USD"):
        bill(f"date,model,amount,currency\n2026-11-25,m,{cell},USD\n")
    read = bill("date,model,amount,currency\n2026-11-25,m,$1.50,CAD\n2026-11-25,m,1.50,USD\n")
    assert [line.currency for line in read.lines] == ["CAD", "USD"]


def test_a_column_of_amounts_that_names_its_currency_is_in_no_other() -> None:
    """Azure has the currency of billing in each line, beside amounts in USD."""
    read = bill("date,meterName,costInUsd,billingCurrency\n2026-11-25,gpt-4o,1.50,NOK\n")
    assert [line.currency for line in read.lines] == ["USD"] and "currency" not in read.columns
    read = bill("date,model,Cost (EUR),currency\n2026-11-25,gpt-4o,1.50,NOK\n", currency="currency")
    assert [line.currency for line in read.lines] == ["NOK"], "unless it is chosen"


@pytest.mark.parametrize(
    "amount",
    [
        "¥500",
        "5 XYZ",
        "C$5.00",
        "kr 5",
        "$5 EUR",
        "1.2.3",
        "(12.34",
        "--5",
        "-(5)-",
        "EUR 5 USD",
        "1,23,4",
        "twelve",
        "12 34",
    ],
)
def test_what_is_no_amount_of_a_known_currency_is_told(amount: str) -> None:
    with pytest.raises(Invalid) as refused:
        bill(f'date,model,amount\n2026-11-25,m,"{amount}"\n')
    assert refused.value.code == "bill_line" and "2" in str(refused.value.where)


@given(
    st.lists(st.decimals(-(10**9), 10**9, places=2), min_size=1, max_size=20),
    st.sampled_from([(",", "."), (".", ","), ("'", "."), (" ", ","), ("", "."), ("", ",")]),
    st.sampled_from(",;"),
)
def test_every_way_of_writing_says_the_same_sum(amounts: list[Decimal], marks: tuple[str, str], between: str) -> None:
    written = [f"{amount:,.2f}".translate({ord(","): marks[0], ord("."): marks[1]}) for amount in amounts]
    rows = [f'2026-11-25{between}m{between}"{text}"' for text in written]
    read = bill("\n".join([f"date{between}model{between}amount", *rows, ""]))
    assert sum(line.amount or 0 for line in read.lines) == sum(amounts)


def test_days_are_in_one_order_in_a_whole_file() -> None:
    """The fifth of November beside the 25th: a European file, though that line alone may be May."""
    read = bill("date,model,amount\n05/11/2026,m,1.50\n25/11/2026,m,1.50\n")
    assert [line.day for line in read.lines] == [date(2026, 11, 5), date(2026, 11, 25)]
    assert read.notes == ("days such as 25/11/2026 were read as day/month/year",)
    read = bill("date;model;amount\n05/11/2026;m;1,50\n06/11/2026;m;1.234,50\n")
    assert [line.day for line in read.lines] == [date(2026, 11, 5), date(2026, 11, 6)], "where a comma is a point"
    doubt = "; if that is wrong, write them as 2026-11-25"
    assert read.notes == (
        f"days such as 25/11/2026 were read as day/month/year{doubt}",
        "a comma in an amount was read as the decimal point",
    )
    read = bill("date,model,amount\n11/05/2026,m,1.50\n")
    assert read.lines[0].day == date(2026, 11, 5)
    assert read.notes == (f"days such as 11/25/2026 were read as month/day/year{doubt}",)
    read = bill("date,model,amount\n11/05/2026,m,1.50\n11/25/2026,m,1.50\n")
    assert [line.day for line in read.lines] == [date(2026, 11, 5), date(2026, 11, 25)]
    read = bill(
        'date,model,amount\n05.11.2026,m,1.50\n"Nov 6, 2026",m,1.50\n7 November 2026,m,1.50\n08-Nov-2026,m,1.50\n'
    )
    assert [line.day for line in read.lines] == [date(2026, 11, day) for day in (5, 6, 7, 8)]
    assert read.notes == ()


@pytest.mark.parametrize("cell", ["2026-11", "2026/11", "11/2026", "11-2026", "Nov 2026", "november 2026", "202611"])
def test_a_month_in_place_of_a_day_is_all_of_its_days(cell: str) -> None:
    (line,) = bill(f"month,model,amount\n{cell},gpt-4o,1.50\n").lines
    assert (line.day, line.until) == (date(2026, 11, 1), date(2026, 11, 30))
    with pytest.raises(Invalid, match="day is not a date"):
        bill("month,model,amount\n2026-13,gpt-4o,1.50\n")


def test_totals_taxes_and_credits_of_an_invoice_are_no_use_of_models() -> None:
    read = bill(
        "Description,Quantity,Unit price,Amount\n"
        "gpt-4o usage November,1,0.003,$0.003\n"
        "Promotional credit,1,-0.001,-$0.001\n"
        "Subtotal,,,$0.002\n"
        "Sales tax (7 %),,,$0.0002\n"
        "Amount due:,,,$0.0022\n"
    )
    found = reconcile(read, [attempt()], RATES)
    assert found.bill == Decimal("0.0022") and kinds(found) == {"credit": "-0.001", "tax": "0.0002"}
    assert "2 lines of totals were passed over" in read.notes
    records = bill(
        "InvoiceID,RecordType,ProductName,UsageStartDate,TotalCost\n"
        "Estimated,PayerLineItem,Amazon Bedrock,2026-11-25,0.003\n"
        "Estimated,AccountTotal,,,0.003\n"
        "Estimated,InvoiceTotal,,,0.003\n"
        "Estimated,StatementTotal,,,0.003\n"
    )
    assert [line.amount for line in records.lines] == [Decimal("0.003")]
    assert "3 lines of totals were passed over" in records.notes
    alone = bill("Description,Amount\nTotal,$5.00\n")
    assert line_values(alone) == [("Total", Decimal("5.00"), "USD", "")], "of a file that says no more it is the bill"


@pytest.mark.parametrize("model", ["acme/credit-risk-v2", "tax-advisor", "ft:gpt-4o:acme:refund-bot"])
def test_a_model_may_be_called_after_money(model: str) -> None:
    (line,) = bill(f"date,model,amount\n2026-11-25,{model},1.00\n").lines
    assert not line.is_foreign and not line.charge


@pytest.mark.parametrize(
    ("head", "amount", "currency"),
    [
        ("cost_eur", "1.50", "EUR"), ("Cost (GBP)", "1.50", "GBP"), ("cost", "€1.50", "EUR"),
        ("Cost ($)", "1.50", "USD"),
        ("amount", "1.50 CHF", "CHF"), ("amount", "1.50", "USD"), ("Cost (EUR)", "$1.50", "USD"),
    ],
)  # fmt: skip
def test_the_currency_is_where_a_file_says_it(head: str, amount: str, currency: str) -> None:
    (line,) = bill(f"date,model,{head}\n2026-11-25,m,{amount}\n").lines
    assert (line.amount, line.currency) == (Decimal("1.50"), currency)


def test_counts_with_marks_between_thousands() -> None:
    read = bill("date;model;input tokens;output tokens;amount\n2026-11-25;m;1.234.567;1.234;5,25\n")
    assert [(line.input, line.output) for line in read.lines] == [(1_234_567, 1_234)]
    read = bill('date,model,input tokens,amount\n2026-11-25,m,"1,234",5.25\n2026-11-25,m,"12,345,678",5.25\n')
    assert [line.input for line in read.lines] == [1234, 12_345_678]


def test_names_of_use_on_bills_find_our_models() -> None:
    models = ["anthropic/claude-3-5-haiku", "anthropic/claude-3-haiku", "amazon/nova-lite", "openai/gpt-4o"]
    assert resolve_model("USE1-Claude3Haiku-input-tokens", models) == models[1]
    assert resolve_model("EUC1-Claude3.5Haiku-output-tokens", models) == models[0]
    assert resolve_model("USW2-NovaLite-cache-read-tokens", models) == models[2]
    assert resolve_model("Claude 3.5 Haiku (Amazon Bedrock Edition)", models) == models[0]
    assert resolve_model("USE1-Llama3-input-tokens", models) == "USE1-Llama3-input-tokens"


def test_names_of_bedrock_and_dated_ones_are_found() -> None:
    haiku, nova = "bedrock/anthropic.claude-3-haiku-20240307-v1:0", "bedrock/eu.amazon.nova-lite-v1:0"
    models = [
        haiku,
        "bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0",
        nova,
        "azure/gpt-4o-2024-08-06",
        "x/gpt-4.1",
    ]
    assert resolve_model("USE1-Claude3Haiku-input-tokens", models) == haiku
    assert resolve_model("Claude Haiku 4.5 (Amazon Bedrock Edition)", models) == models[1]
    assert resolve_model("EUN1-NovaLite-output-tokens", models) == nova
    assert resolve_model("gpt 4o 0806 Inp glbl Tokens", models) == models[3]
    assert resolve_model("gpt-4.1-mini", models) == "x/gpt-4.1", "as before: the longest that it begins with"
    dated = ["openai/gpt-4o-2024-05-13", "openai/gpt-4o-2024-08-06", "openai/gpt-4o"]
    assert [resolve_model(name.partition("/")[2], dated) for name in dated] == dated


def test_a_refund_of_a_day_stays_beside_what_was_used_on_it() -> None:
    read = bill("date,model,charge type,amount\n2026-11-25,gpt-4o,Usage,0.003\n2026-11-25,gpt-4o,Refund,-0.003\n")
    found = reconcile(read, [attempt()], RATES)
    assert kinds(found) == {"credit": "-0.003"} and found.bill == 0
    assert kinds(reconcile(replace(read, lines=read.lines[1:]), [attempt()], RATES, provider="openai")) == {
        "call_without_bill_line": "-0.003", "credit": "-0.003",
    }  # fmt: skip


def test_rounding_is_that_of_the_bill_s_own_currency() -> None:
    """Half a yen is a third of a cent: more than these calls differ by, and less than a wrong price would."""
    read = bill("date,model,amount,currency\n2026-11-25,gpt-4o,1,JPY\n")
    yen = {"JPY": Decimal("0.0066")}
    assert kinds(reconcile(read, [attempt(2000, 250)], RATES, exchange_rates=yen)) == {"rounding": "0.0001"}
    assert kinds(reconcile(read, [attempt(6000, 0)], RATES, exchange_rates=yen)) == {"unexplained": "-0.0054"}
    pounds = bill("date,model,amount,currency\n2026-11-25,gpt-4o,0.01,GBP\n")
    found = reconcile(pounds, [attempt(8000, 300)], RATES, exchange_rates={"GBP": Decimal("1.30")})
    assert kinds(found) == {"rounding": "-0.006"}, "half a penny is more than half a cent"


def test_an_amount_that_its_own_comma_cut_in_two_is_told_and_not_taken_for_its_beginning() -> None:
    with pytest.raises(Invalid) as caught:
        read_bill("date,model,cost\n2026-11-27,gpt,12.50\n2026-11-27,gpt,1,234.56\n", "bill.csv", {})
    assert str(caught.value.where) == "bill.csv:3:1"
    assert "cell 4 of the line is below no name" in caught.value.message
    (line,) = read_bill("date,model,cost\n2026-11-27,gpt,12.50,,\n", "bill.csv", {}).lines
    assert line.amount == Decimal("12.50")
    for head, row, cell in (
        ("date,model,cost,", "2026-11-27,gpt,1,234.56", 4),
        ("date,cost,,model", "2026-11-27,1,234.56,gpt", 3),
    ):
        with pytest.raises(Invalid, match=f"cell {cell} of the line"):
            bill(f"{head}\n{row}\n")


@pytest.mark.parametrize(
    "text",
    [
        "date,model,cost,\n2026-11-27,gpt,12.50,\n",
        "date,,model,,cost,,,\n2026-11-27,,gpt,,12.50,,,\n",
        ",date,model,cost\n0,2026-11-27,gpt,12.50\n",
        "Acme Ltd,,,\nNo. 17,,,\ndate,model,cost,\n2026-11-27,gpt,12.50,\n",
        '{"": 7, "date": "2026-11-27", "model": "gpt", "cost": "12.50"}',
    ],
)
def test_a_column_without_a_name_has_no_role(text: str) -> None:
    read = bill(text)
    assert dict(read.columns) == {"day": "date", "model": "model", "amount": "cost"}
    assert [(line.day, line.model, line.amount) for line in read.lines] == [
        (date(2026, 11, 27), "gpt", Decimal("12.50"))
    ]


def test_columns_in_other_scripts_can_be_chosen() -> None:
    read = bill("日付,モデル,金額\n2026-11-27,gpt,12.50\n", day="日付", model="モデル", amount="金額")
    assert line_values(read) == [("gpt", Decimal("12.50"), "USD", "")] and read.lines[0].day == date(2026, 11, 27)


_GOOGLE_LINES = [
    {
        "service": {"id": "C7E2", "description": "Vertex AI"},
        "sku": {"id": "A1", "description": f"Gpt-4o Text {kind}"},
        "usage_start_time": "2026-11-25 09:00:00 UTC", "usage_end_time": "2026-11-25 10:00:00 UTC",
        "project": {"id": "prod", "labels": []}, "labels": [{"key": "team", "value": "a, b"}], "system_labels": [],
        "cost": cost, "currency": "USD", "usage": {"amount": amount, "unit": "count", "pricing_unit": "count"},
        "cost_type": "regular", "credits": [
            {"name": "Committed, use", "amount": given, "full_name": None, "id": "c", "type": "DISCOUNT"}
            for given in credits_
        ],
    }
    for kind, amount, cost, credits_ in (("Input", 1000, 0.002, (-0.0004, -0.0001)), ("Output", 100, 0.001, ()))
]  # fmt: skip


def _google_csv(credits_of: Callable[[list[Any]], str], **columns: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["service_description", "sku_description", "usage_start_time", "cost", "currency", "usage_amount",
                     "usage_unit", "cost_type", "credits", *columns])  # fmt: skip
    for each in _GOOGLE_LINES:
        row: Any = each
        writer.writerow([row["service"]["description"], row["sku"]["description"], row["usage_start_time"], row["cost"],
                         "USD", row["usage"]["amount"], "count", "regular", credits_of(row["credits"]),
                         *columns.values()])  # fmt: skip
    return out.getvalue()


_AS_ONE_LIST, _AS_PRINTED = json.dumps(_GOOGLE_LINES), json.dumps(_GOOGLE_LINES, indent=2)
_AS_LINES = "".join(json.dumps(each) + "\n" for each in _GOOGLE_LINES)


@pytest.mark.parametrize(
    "text",
    [
        _AS_LINES,
        _AS_ONE_LIST,
        "\ufeff" + _AS_PRINTED,
        _google_csv(json.dumps),
        _google_csv(repr),
        _google_csv(lambda every: f"array({every!r}, dtype=object)"),
        _google_csv(lambda every: repr(every).replace("-0.0004", "Decimal('-0.0004')")),
    ],
    ids=["ndjson", "json", "printed json", "csv with json", "csv of Python", "csv of pandas", "csv with decimals"],
)
def test_credits_that_google_lists_in_each_line_are_taken_off(text: str) -> None:
    """They have no column of their own in the export of BigQuery, so the bill was told without them."""
    read = bill(text)
    assert read.format == "Google Cloud costs" and read.date_range == (date(2026, 11, 25), date(2026, 11, 25))
    found = reconcile(read, [attempt()], RATES)
    assert (found.bill, kinds(found)) == (Decimal("0.0025"), {"credit": "-0.0005"})
    assert [line.charge for line in read.lines] == ["", "credit", ""]


def test_credits_beside_an_amount_that_has_them_are_not_taken_off_twice() -> None:
    text = _google_csv(json.dumps, net_cost="0.0025")
    assert sum(line.amount or 0 for line in bill(text, amount="net_cost").lines) == Decimal("0.005")
    assert sum(line.amount or 0 for line in bill(text).lines) == Decimal("0.0025")
    assert sum(line.amount or 0 for line in bill(text, credits="").lines) == Decimal("0.003")


@pytest.mark.parametrize("cell", ["[{'amount': 'much'}]", "[1]", "[{}]", "[{name=a, amount=-1}]", "[" * 20_000])
def test_a_list_of_credits_that_cannot_be_read_is_named(cell: str) -> None:
    with pytest.raises(Invalid) as refused:
        bill(_google_csv(lambda _: cell))
    assert refused.value.code == "bill_line" and "credits" in refused.value.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"cost": 1, "usage_start_time": "2026-11-25"}\n{"cost": }\n', 2),
        ('[{"cost": 1},\n\n3]', 3),
        ('[{"a":' * 9_999, 1),
    ],
)
def test_json_that_is_broken_is_refused_at_its_line(text: str, line: int) -> None:
    with pytest.raises(Invalid) as refused:
        bill(text)
    assert refused.value.code == "bill_syntax" and refused.value.where == Where("invoice.csv", line)


@pytest.mark.parametrize("depth", [600, 1000, 3000])
def test_json_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    with pytest.raises(Invalid) as found:
        read_bill('{"a":' * depth + "1" + "}" * depth, "bill.json", {})
    assert (found.value.code, found.value.where) == ("bill_syntax", Where("bill.json", 1))


def test_json_in_which_each_line_has_fields_of_its_own_is_refused_before_it_fills_memory() -> None:
    lines = "\n".join(f'{{"k{i}": 1, "cost": "1"}}' for i in range(6000))
    with pytest.raises(Invalid) as found:
        read_bill(lines, "bill.json", {})
    assert found.value.code == "bill_too_large"


def test_lone_surrogates_of_json_are_replaced_in_names_and_cells() -> None:
    text = r'{"x\ud800": "1", "model": "a\ud800b", "cost": "1", "date": "2026-11-01", "service": "Gemini é"}'
    found = read_bill(text, "bill.json", {})
    assert [line.model for line in found.lines] == ["a?b"]
    assert [line.service for line in found.lines] == ["Gemini é"]
