"""A bill against the ledger: every explanation where it belongs, and the parts always add up to the difference."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct
from tests.integration.gateway_stack import deployment

from groundplan.api.routes import reconcile as reconcile_route
from groundplan.blueprint.model import Rates
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.economics.allocate.model import Line as BookLine
from groundplan.economics.bills.model import EXPLANATION_KINDS, Attempt, Reconciliation
from groundplan.economics.bills.model_names import models_by_upstream, resolve_model
from groundplan.economics.bills.parse import Bill, read_bill
from groundplan.economics.bills.reconcile import reconcile
from groundplan.economics.bills.table import MAX_LINES
from groundplan.economics.export.focus import focus_csv
from groundplan.economics.prices.currency import parse_exchange_rates

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
RATES = {
    "eu": Rates(input=2 * PICO, output=10 * PICO),
    "us": Rates(input=2 * PICO, output=10 * PICO),
    "claude": Rates(input=3 * PICO, output=15 * PICO),
}


def usd(deployment: str, given_: int, generated: int) -> Decimal:
    rates = RATES[deployment]
    return Decimal(given_ * rates.input + generated * rates.output).scaleb(-18)


def attempt(given_: int = 1000, generated: int = 100, deployment: str = "eu", **more: Any) -> Attempt:
    values: dict[str, Any] = {
        "call": new_id(), "number": 0, "at": NOON, "workload": "assistant", "deployment": deployment,
        "model": "anthropic/claude-haiku-4-5" if deployment == "claude" else "openai/gpt-4o", "state": "settled",
        "outcome": "ok", "cost": usd(deployment, given_, generated), "input": given_, "output": generated,
    }  # fmt: skip
    return Attempt(**{**values, **more})


def bill(text: str, **said: str) -> Bill:
    return read_bill(text, "invoice.csv", said)


def kinds(result: Reconciliation) -> dict[str, str]:
    """Kind -> amount, checked to add up to the difference."""
    with localcontext(prec=90):
        assert sum((amount for _, amount, _ in result.explanations()), Decimal(0)) == result.difference
        assert sum((row.amount for row in result.discrepancies), Decimal(0)) == result.difference
    return {kind: f"{amount.normalize():f}" for kind, amount, _ in result.explanations()}


def generic(*lines: str) -> Bill:
    return bill("\n".join(["date,model,call id,input tokens,output tokens,amount,currency", *lines]))


def test_a_bill_that_agrees_has_no_difference() -> None:
    one, two = attempt(), attempt(5, 7)
    result = reconcile(
        generic(
            f"2026-11-25,gpt-4o,{one.call}-0,1000,100,{one.cost},USD",
            f"2026-11-25,gpt-4o,{two.call}-0,5,7,{two.cost},USD",
        ),
        [one, two], RATES,
    )  # fmt: skip
    assert kinds(result) == {} and result.difference == 0 and result.matched_by_id == 2


def test_calls_and_lines_without_each_other() -> None:
    one, two = attempt(), attempt()
    result = reconcile(
        generic(
            f"2026-11-25,gpt-4o,{one.call}-0,1000,100,0.003,USD", f"2026-11-25,gpt-4o,{new_id()}-0,1000,100,0.5,USD"
        ),
        [one, two], RATES,
    )  # fmt: skip
    assert kinds(result) == {"bill_line_without_call": "0.5", "call_without_bill_line": "-0.003"}
    (missing,) = [row for row in result.discrepancies if row.kind == "call_without_bill_line"]
    assert missing.calls == (two.call,)
    (extra,) = [row for row in result.discrepancies if row.kind == "bill_line_without_call"]
    assert extra.lines == (3,)


def test_a_line_with_an_id_of_its_own_is_not_compared_with_calls_that_the_bill_forgot() -> None:
    one, forgotten, unnamed = attempt(), attempt(5, 7), attempt(40, 50)
    result = reconcile(
        generic(
            f"2026-11-25,gpt-4o,{one.call}-0,1000,100,{one.cost},USD",
            "2026-11-25,gpt-4o,req_abc,9,9,0.5,USD",
            f"2026-11-25,gpt-4o,req_def,40,50,{unnamed.cost * 2},USD",
        ),
        [one, forgotten, unnamed], RATES,
    )  # fmt: skip
    assert kinds(result) == {
        "bill_line_without_call": "0.5",
        "call_without_bill_line": f"{-forgotten.cost.normalize():f}",
        "price": f"{unnamed.cost.normalize():f}",
    }
    assert {row.kind: row.calls for row in result.discrepancies if row.calls} == {
        "call_without_bill_line": (forgotten.call,),
        "price": (unnamed.call,),
    }


def test_other_tokens_and_another_price_are_told_apart() -> None:
    one, two = attempt(1000, 100), attempt(1000, 100)
    result = reconcile(
        generic(
            f"2026-11-25,gpt-4o,{one.call}-0,1000,150,0.0035,USD", f"2026-11-25,gpt-4o,{two.call}-0,1000,100,0.0032,USD"
        ),
        [one, two], RATES,
    )  # fmt: skip
    assert kinds(result) == {"tokens": "0.0005", "price": "0.0002"}
    notes = {row.kind: row.note for row in result.discrepancies}
    assert notes["tokens"] == "1000/150 tokens in/out on the bill, 1000/100 here"
    assert "output at 12.00 USD/Mtok would explain it" in notes["price"]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["{0}-0,1000,100,0.003", "{0}-0,1000,100,0.003"], {"bill_line_without_call": "0.003"}),
        (["{0}-0,1000,100,0.0033", "{0}-0,1000,100,0.0033"], {"bill_line_without_call": "0.0033", "price": "0.0003"}),
        (["{0},1000,100,0.003", "{0},1000,100,0.003"], {"bill_line_without_call": "0.003"}),
        (["{0}-0,1000,100,", "{0}-0,1000,100,"], {"bill_line_without_call": "0.003"}),
        (["{0}-0,1000,100,0.003", "{0}-0,1000,101,0.00301"], {"tokens": "0.00301"}),
        (["{0}-0,500,50,0.0015", "{0}-0,500,50,0.0015"], {}),
        (["{0}-0,500,50,0.0016", "{0}-0,500,50,0.0016"], {"price": "0.0002"}),
    ],
)
def test_a_line_that_is_there_once_more_is_a_line_without_a_call(lines: list[str], found: dict[str, str]) -> None:
    """Not other tokens, another price or an estimate; lines that are parts of one attempt may be alike."""
    one = attempt(estimated=found.keys() <= {"bill_line_without_call"})
    made = reconcile(generic(*(f"2026-11-25,gpt-4o,{each.format(one.call)},USD" for each in lines)), [one], RATES)
    assert kinds(made) == found and all(row.calls == (one.call,) for row in made.discrepancies)


def test_a_days_line_that_is_there_once_more_is_a_line_without_a_call() -> None:
    """Lines of calls without an id may be alike: they are told apart only where the others are what the ledger has."""
    tries, day = [attempt(), attempt(), attempt(5, 7)], "2026-11-25,gpt-4o,,2005,207,0.00608,USD"
    found = reconcile(generic(day, day), tries, RATES)
    assert kinds(found) == {"bill_line_without_call": "0.00608"} and found.discrepancies[0].lines == (3,)
    each = ["2026-11-25,gpt-4o,,1000,100,0.003,USD"] * 2 + ["2026-11-25,gpt-4o,,5,7,0.00008,USD"]
    assert kinds(reconcile(generic(*each), tries, RATES)) == {}
    assert kinds(reconcile(generic(*each, each[0]), tries, RATES)) == {"tokens": "0.003"}
    small = [attempt(0, 500) for _ in range(10)]
    cents = reconcile(generic(*["2026-11-25,gpt-4o,,0,500,0.01,USD"] * 10), small, RATES)
    assert kinds(cents) == {"rounding": "0.05"}


def test_a_call_is_valued_at_the_price_of_its_moment() -> None:
    """Since then the deployment costs half."""
    one, half = attempt(1000, 100), {"eu": Rates(input=RATES["eu"].input // 2, output=RATES["eu"].output // 2)}
    then = replace(one, rates=RATES["eu"])
    lines = generic(f"2026-11-25,gpt-4o,{one.call}-0,1000,150,0.0035,USD")
    assert kinds(reconcile(lines, [then], half)) == {"tokens": "0.0005"}
    assert set(kinds(reconcile(lines, [one], half))) == {"tokens", "price"}
    daily = generic("2026-11-25,gpt-4o,,2000,250,0.0065,USD")
    assert kinds(reconcile(daily, [then, replace(then, call=new_id())], half)) == {"tokens": "0.0005"}


def test_a_discount_shows_as_a_factor() -> None:
    one = attempt()
    result = reconcile(generic(f"2026-11-25,gpt-4o,{one.call},1000,100,0.0015,USD"), [one], RATES)
    assert kinds(result) == {"price": "-0.0015"}
    assert "the bill is 0.5 times the ledger" in result.discrepancies[0].note


def test_rounding_is_what_the_decimals_of_the_bill_allow() -> None:
    one = attempt(1234, 77)  # 0.003238
    assert kinds(reconcile(generic(f"2026-11-25,gpt-4o,{one.call},1234,77,0.0032,USD"), [one], RATES)) == {
        "rounding": "-0.000038"
    }
    assert kinds(reconcile(generic(f"2026-11-25,gpt-4o,{one.call},1234,77,0.0031,USD"), [one], RATES)) == {
        "price": "-0.000138"
    }


def test_estimates_open_calls_demo_and_failures_have_their_own_names() -> None:
    guessed, demo = attempt(10, 50, estimated=True), attempt(demo=True)
    opened, crashed = attempt(state="open", outcome="open"), attempt(state="crashed", outcome="crashed")
    failed = attempt(0, 0, cost=Decimal(0), outcome="not_billed", number=1, call=guessed.call)
    result = reconcile(
        generic(
            f"2026-11-25,gpt-4o,{guessed.call}-0,10,60,{usd('eu', 10, 60)},USD",
            f"2026-11-25,gpt-4o,{failed.call}-1,10,0,0.00002,USD",
            f"2026-11-25,gpt-4o,{crashed.call}-0,1000,40,{usd('eu', 1000, 40)},USD",
        ),
        [guessed, demo, opened, crashed, failed], RATES,
    )  # fmt: skip
    assert kinds(result) == {
        "estimated": "0.0001", "billed_failure": "0.00002", "demo": "-0.003", "open_reservation": "-0.0036"
    }  # fmt: skip


@pytest.mark.parametrize(("more", "kind"), [("0.0001", "estimated"), ("1.5", "unexplained")])
def test_one_small_estimate_among_many_calls_explains_no_more_than_it_came_to(more: str, kind: str) -> None:
    tries = [attempt(), attempt(), attempt(10, 50, estimated=True)]
    total = sum((each.cost for each in tries), Decimal(more))
    export = bill(
        "start_time,start_time_iso,amount_value,amount_currency,line_item,project_id\n"
        f"1764028800,2026-11-25T00:00:00+00:00,{total},usd,gpt-4o-2024-08-06,p\n"
    )
    assert kinds(reconcile(export, tries, RATES)) == {kind: more}
    assert kinds(reconcile(export, [replace(each, estimated=True) for each in tries], RATES)) == {"estimated": more}
    counted = generic(f"2026-11-25,gpt-4o,,2010,100250,{total},USD")
    assert kinds(reconcile(counted, tries, RATES)).keys() == {"tokens", "price"}


def test_calls_of_the_demo_are_one_row_of_their_day_and_model() -> None:
    demo = [attempt(demo=True) for _ in range(3)]
    result = reconcile(generic("2026-11-25,gpt-4o,,10,60,1,USD"), demo, RATES)
    (row,) = [row for row in result.discrepancies if row.kind == "demo"]
    assert row.calls == tuple(each.call for each in demo) and row.amount == -sum(each.cost for each in demo)
    other = [attempt(demo=True, at=NOON + timedelta(days=1)) for _ in range(3)]
    result = reconcile(generic("2026-11-25,gpt-4o,,10,60,1,USD"), [*demo, *other], RATES)
    assert [len(row.calls) for row in result.discrepancies if row.kind == "demo"] == [3, 3], (
        "of days without a line, too"
    )


def test_days_and_models_are_compared_where_no_call_is_named() -> None:
    tries = [attempt(), attempt(deployment="us"), attempt(at=NOON + timedelta(days=1)), attempt(deployment="claude")]
    export = bill(
        "start_time,start_time_iso,amount_value,amount_currency,line_item,project_id\n"
        '1764028800,2026-11-25T00:00:00+00:00,0.0040,usd,"gpt-4o-2024-08-06, input",p\n'
        '1764028800,2026-11-25T00:00:00+00:00,0.0020,usd,"gpt-4o-2024-08-06, output",p\n'
        "1764115200,2026-11-26T00:00:00+00:00,,,,\n"
    )
    assert export.format == "OpenAI costs" and export.columns["amount"] == "amount_value"
    result = reconcile(export, tries, RATES)
    assert kinds(result) == {"call_without_bill_line": "-0.003"}  # of the day after
    assert (result.excluded_attempts, result.excluded_usd) == (1, tries[3].cost)
    everything = reconcile(export, tries, RATES, provider="openai")
    assert everything.excluded_attempts == 0 and kinds(everything) == {"call_without_bill_line": "-0.003"}
    assert "1 line without an amount" in result.notes[0]


def test_a_daily_total_is_compared_with_everything_of_the_provider() -> None:
    result = reconcile(
        bill("date,amount\n2026-11-25,0.005\n"), [attempt(), attempt(), attempt(deployment="claude")], RATES,
        provider="openai",
    )  # fmt: skip
    assert kinds(result) == {"unexplained": "-0.001"} and result.ledger == Decimal("0.006")


@pytest.mark.parametrize(
    ("description", "found"),
    [
        ("API usage November", {"unexplained": "-0.001"}),
        ("gpt-4o usage", {"unexplained": "-0.001"}),
        ("o3", {"bill_line_without_call": "0.005", "call_without_bill_line": "-0.006"}),
    ],
)
def test_an_invoice_that_names_no_model_is_compared_with_everything_of_the_provider(
    description: str, found: dict[str, str]
) -> None:
    tries = [attempt(), attempt(), attempt(deployment="claude")]
    result = reconcile(bill(f"item,amount\n{description},0.005\nVAT 25 %,0.1\n"), tries, RATES, provider="openai")
    assert kinds(result) == {**found, "tax": "0.1"} and result.ledger == Decimal("0.006")
    assert any("no line names a model" in note for note in result.notes) is (description == "API usage November")


def test_anthropics_cost_lines_show_the_price_of_each_class() -> None:
    tries = [attempt(1_000_000, 100_000, "claude")]
    text = (
        "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd\n"
        "2026-11-25,Claude Haiku 4.5,Default,k,message,,input_no_cache,3.00,3\n"
        "2026-11-25,Claude Haiku 4.5,Default,k,message,,output,1.50,2\n"
    )
    assert kinds(reconcile(bill(text), tries, RATES)) == {}
    assert bill(text).format == "Anthropic cost"


def test_a_usage_export_is_valued_as_the_ledger_charges() -> None:
    text = (
        "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
        "usage_input_tokens_cache_read,usage_output_tokens\n2026-11-25,claude-haiku-4-5-20251001,600,100,300,200\n"
        "2026-11-24,claude-haiku-4-5-20251001,10,0,0,0\n2026-11-24,claude-other,10,0,0,0\n"
    )
    result = reconcile(bill(text), [attempt(1000, 100, "claude")], RATES)
    assert kinds(result) == {"tokens": "0.0015", "bill_line_without_call": "0.00003"}
    assert any("tokens and no amounts" in note for note in result.notes)
    assert any("1 line for models without a price" in note for note in result.notes)


def test_a_usage_export_with_requests_says_how_many() -> None:
    text = (
        "start_time,start_time_iso,num_model_requests,model,input_tokens,output_tokens,input_cached_tokens\n"
        "1764028800,2026-11-25T00:00:00+00:00,3,gpt-4o-2024-08-06,2500,200,500\n"
    )
    assert bill(text).format == "OpenAI usage" and bill(text).lines[0].requests == 3
    refused = attempt(0, 0, outcome="not_billed")
    result = reconcile(bill(text), [attempt(), attempt(), refused], RATES)
    assert kinds(result) == {"tokens": "0.001"}
    assert result.discrepancies[0].note.endswith("the bill counts 3 requests, the ledger 2")


def test_azure_meters_and_other_services() -> None:
    text = (
        "Date,MeterCategory,MeterName,UnitOfMeasure,Quantity,CostInBillingCurrency,BillingCurrency,ResourceId\n"
        "11/25/2026,Azure OpenAI Service,gpt-4o-0806-Inp-regnl Tokens,1K,2,0.0044000,USD,/subscriptions/x/acme\n"
        "11/25/2026,Azure OpenAI Service,gpt-4o-0806-Outp-regnl Tokens,1K,0.2,0.002,USD,/subscriptions/x/acme\n"
        "11/25/2026,Virtual Machines,D2s v3,1 Hour,24,2.5,USD,/subscriptions/x/vm\n"
        "11/25/2026,Storage,Hot LRS Data Stored,1 GB/Month,10,0.2,USD,/subscriptions/x/blob\n"
        "11/25/2026,Bandwidth,Data Transfer Out,1 GB,100,8.7,USD,/subscriptions/x/net\n"
    )
    export = bill(text)
    assert export.format == "Azure cost details" and export.date_range == (date(2026, 11, 25), date(2026, 11, 25))
    result = reconcile(export, [attempt(), attempt()], RATES)
    assert kinds(result) == {"other_service": "2.5", "price": "0.0004", "storage": "0.2", "network": "8.7"}
    (price,) = [row for row in result.discrepancies if row.kind == "price"]
    assert price.note == "the bill charges input at 2.20 USD/Mtok, output at 10.00 USD/Mtok"


def test_focus_columns() -> None:
    text = (
        "BilledCost,BillingCurrency,ChargePeriodStart,ChargePeriodEnd,ServiceName,SkuMeter,ConsumedQuantity,ConsumedUnit\n"
        "0.002,USD,2026-11-25T00:00:00Z,2026-11-26T00:00:00Z,OpenAI,gpt-4o input,1000,Tokens\n"
        "0.001,USD,2026-11-25T00:00:00Z,2026-11-26T00:00:00Z,OpenAI,gpt-4o output,100,Tokens\n"
    )
    export = bill(text)
    assert export.format == "FOCUS"
    assert [(line.input, line.output) for line in export.lines] == [(1000, None), (None, 100)]
    assert kinds(reconcile(export, [attempt()], RATES)) == {}


def test_what_the_ledger_exported_is_known_by_its_columns() -> None:
    """Of models whose names say nothing, with traffic of the demo and what a crash left, which the book has, too."""
    every = [
        attempt(), attempt(demo=True), attempt(state="crashed"),
        attempt(deployment="us", model="smollm2-135m", cost=Decimal("0.5")),
    ]  # fmt: skip
    three = int(3 * usd("eu", 1000, 100) * PICO)
    named: dict[str, Any] = {"workload": "assistant", "basis": "measured", "source": "list", "rule": "tokens x price"}
    lines = [
        BookLine(term="input", model="openai/gpt-4o", deployment="eu", amount=three // 3, quantity=2000, **named),
        BookLine(term="bound", model="openai/gpt-4o", deployment="eu", amount=three - three // 3, **named),
        BookLine(term="output", model="smollm2-135m", deployment="us", amount=PICO // 2, quantity=100, **named),
        BookLine(term="logs", amount=3 * PICO, **named),
        BookLine(term="connectivity", amount=5 * PICO, **named),
        BookLine(term="platform", amount=7 * PICO, **named),
        BookLine(term="credit", amount=-PICO, **named),
    ]
    text = focus_csv([(NOON.date().replace(day=1), NOON.date(), lines)], "acme")
    export = bill(text)
    assert export.format == "FOCUS of the ledger" and export.columns["model"] == "SkuId"
    beside = {"storage": "3", "network": "5", "other_service": "7", "credit": "-1"}
    assert kinds(reconcile(export, every, RATES)) == beside
    open_ = attempt(state="open")
    assert kinds(reconcile(export, [*every, open_], RATES)) == {**beside, "open_reservation": "-0.003"}
    assert bill(text, model="ChargeDescription").columns["model"] == "ChargeDescription", "what is said wins"


MONTHLY = {
    "FOCUS": (
        "ChargePeriodStart,ChargePeriodEnd,BilledCost,BillingCurrency,ServiceName,SkuId,ChargeCategory",
        "{0}-01T00:00:00Z,{1}-01T00:00:00Z,{2},USD,OpenAI,gpt-4o,Usage",
        "{0}-01T00:00:00Z,{1}-01T00:00:00Z,5,USD,Blob Storage,Hot LRS,Usage",
    ),
    "days that are counted": (
        "Service description,SKU description,Usage start date,Usage end date,Cost ($)",
        "Vertex AI,gpt-4o,{0}-01,{0}-30,{2}",
        "Cloud Storage,Standard Storage,{0}-01,{0}-30,5",
    ),
    "names": (
        "Billing month,Service,Product,Amount",
        "{5},OpenAI,gpt-4o,{2}",
        "{5},Cloud Storage,Standard Storage,5",
    ),
    "seconds": (
        "start_time,end_time,amount,model,service",
        "{3},{4},{2},gpt-4o,OpenAI",
        "{3},{4},5,Standard,Cloud Storage",
    ),
}


@pytest.mark.parametrize("form", MONTHLY)
def test_lines_of_a_month_are_compared_with_all_of_its_days(form: str) -> None:
    head, *lines = MONTHLY[form]
    every = [attempt(at=NOON.replace(month=month, day=day)) for month in (9, 11) for day in (1, 2, 17, 30)]
    whole = 4 * usd("eu", 1000, 100)
    september = ("2026-09", "2026-10", whole, 1788220800, 1790812800, "Sep 2026")
    november = ("2026-11", "2026-12", whole + 1, 1793491200, 1796083200, "2026-11")
    read = bill("\n".join([head, *(line.format(*month) for month in (september, november) for line in lines)]))
    assert read.date_range == (date(2026, 9, 1), date(2026, 11, 30))
    result = reconcile(read, every, RATES)
    assert kinds(result) == {"storage": "10", "unexplained": "1"}
    (more,) = [row for row in result.discrepancies if row.kind == "unexplained"]
    assert more.day == date(2026, 11, 1) and more.note.startswith("of 2026-11-01 to 2026-11-30")
    assert len(more.calls) == 4


def test_lines_of_hours_and_days_are_of_one_day_and_what_is_paid_ahead_makes_no_bill_longer() -> None:
    read = bill(
        "ChargePeriodStart,ChargePeriodEnd,BilledCost,ServiceName,SkuId\n"
        "2026-11-25T23:00:00Z,2026-11-26T00:00:00Z,0.01,OpenAI,gpt-4o\n"
        "2026-11-26,2026-11-27,0.01,OpenAI,gpt-4o\n"
        "2026-11-25,never,0.01,OpenAI,gpt-4o\n"
        "2026-01-01,2027-01-01,900,Virtual Machines,Reservation of a year\n"
    )
    assert [line.until for line in read.lines] == [None, None, None, date(2026, 12, 31)]
    assert read.date_range == (date(2026, 11, 25), date(2026, 11, 26))


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (["2026-11-24,2026-11-25", "2026-11-25,2026-11-26"], [None, None]),
        (["2026-11-25,2026-11-26"], [None]),
        (["2026-10-01,2026-11-01"], ["2026-10-31"]),
        (["2026-10-01,2026-11-01", "2026-11-01,2026-12-01"], ["2026-10-31", "2026-11-30"]),
        (["2026-10-01,2026-10-31", "2026-11-01,2026-11-30"], ["2026-10-31", "2026-11-30"]),
        (["2026-11-01,2026-11-15", "2026-11-15,2026-11-15"], ["2026-11-15", None]),
        (["2026-11-20,2026-11-10"], [None]),
    ],
)
def test_whether_an_end_is_a_day_of_its_period_is_told_by_all_lines(lines: list[str], last: list[str | None]) -> None:
    read = bill(
        "\n".join(["Start date,End date,Model,Amount", *(f"{line},gpt-4o,1" for line in lines)]), day="Start date"
    )
    assert [line.until.isoformat() if line.until else None for line in read.lines] == last


@pytest.mark.parametrize(
    ("cell", "amount", "currency"),
    [
        ("$ (1,234.50)", "-1234.50", "USD"),
        ("$(12.30)", "-12.30", "USD"),
        ("EUR (12.30)", "-12.30", "EUR"),
        ("$   12.30", "12.30", "USD"),
    ],
)
def test_amounts_as_accountants_write_them(cell: str, amount: str, currency: str) -> None:
    read = bill(f'date,model,amount\n2026/11/25,gpt-4o,"{cell}"\n2026/11/25,gpt-4o, $ -   \n2026/11/25,gpt-4o,-\n')
    (line,) = read.lines
    assert (str(line.amount), line.currency, line.day) == (amount, currency, NOON.date())
    assert read.notes == ("2 lines without an amount or tokens were passed over",)


@pytest.mark.parametrize("text", ["({}x", "{}x", "-{}-x", "1{}x", "${}x"])
@pytest.mark.parametrize("many", [" ", "1 ", "1,", "'1", "_", "\u00a0"])
def test_no_cell_takes_longer_the_more_there_is_of_it(text: str, many: str) -> None:
    cell = text.format(many * 20_000)
    started = time.process_time()
    with pytest.raises(Invalid):
        bill(f'date,model,amount\n2026-11-25,gpt-4o,"{cell}"\n')
    with pytest.raises(Invalid):
        bill(f'date,model,"{cell}"\n2026-11-25,gpt-4o,1\n')
    assert time.process_time() - started < 2


def test_other_currencies_need_a_rate() -> None:
    one = attempt()
    lines = generic(f"2026-11-25,gpt-4o,{one.call},1000,100,0.002,EUR")
    without = reconcile(lines, [one], RATES)
    assert kinds(without) == {"currency": "-0.003"} and "--rate EUR=USD" in without.notes[0]
    assert without.uncompared_lines == 1, "what counts as nothing is no comparison"
    rated = reconcile(lines, [one], RATES, exchange_rates=parse_exchange_rates({"eur": "1.5"}))
    assert kinds(rated) == {} and rated.uncompared_lines == 0
    some = generic(
        f"2026-11-25,gpt-4o,{one.call},1000,100,0.003,USD", "2026-11-25,gpt-4o,,1,1,7,EUR", "2026-11-25,gpt-4o,,1,1,7,"
    )
    assert reconcile(some, [one], RATES).uncompared_lines == 1
    for wrong in ("much", "0", "-1", "1e9"):
        with pytest.raises(Invalid):
            parse_exchange_rates({"EUR": wrong})


def test_columns_can_be_named_by_hand() -> None:
    text = "when;what;paid;Kosten\n25.11.2026;gpt-4o;ja;0,003\n"
    with pytest.raises(Invalid) as caught:
        bill(text)
    assert caught.value.code == "bill_columns" and "Kosten" in caught.value.hint
    named = bill(text, amount="Kosten", day="when", model="what")
    assert named.columns == {"amount": "Kosten", "day": "when", "model": "what"}
    assert kinds(reconcile(named, [attempt()], RATES)) == {}
    for said in ({"amount": "nothing"}, {"colour": "paid", "amount": "Kosten"}):
        with pytest.raises(Invalid):
            bill(text, **said)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("", "bill_empty", 1),
        ("amount\n", "bill_empty", 1),
        ("date,amount\n2026-11-25,much\n", "bill_line", 2),
        ("date,amount\n2026-13-25,1\n", "bill_line", 2),
        ("date,amount,input tokens\n2026-11-25,1,2.5\n", "bill_line", 2),
        ("date,amount\n2026-11-25,NaN\n", "bill_line", 2),
        ("date,amount\n2026-11-25,1e999\n", "bill_line", 2),
        ("amount\n" + "1\n" * (MAX_LINES + 2), "bill_too_large", MAX_LINES + 2),
        ("amount\n" + "9" * (17 << 20), "bill_too_large", 1),
        ("amount\n" + "9" * 200_000 + "\n", "bill_syntax", 2),
        ('date,amount,note\n2026-11-25,1,a\n2026-11-25,2,"b\n2026-11-25,3,c\n', "bill_syntax", 3),
        ('date,amount,note\n2026-11-25,1,"a"b"\n2026-11-25,3,c\n', "bill_syntax", 2),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_wrong_is_told_with_its_line(text: str, code: str, line: int) -> None:
    with pytest.raises(Invalid) as caught:
        bill(text)
    assert caught.value.code == code
    assert caught.value.where is not None and not isinstance(caught.value.where, str)
    assert abs(caught.value.where.line - line) <= 1


def test_names_on_bills_find_our_models() -> None:
    models = {"openai/gpt-4o", "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"}
    for name, found in {
        "gpt-4o": "openai/gpt-4o", "gpt-4o-2024-08-06": "openai/gpt-4o", "gpt-4o-mini-2024-07-18": "openai/gpt-4o-mini",
        "Claude Haiku 4.5": "anthropic/claude-haiku-4-5", "gpt-4": "gpt-4", "gpt-4o-mini": "openai/gpt-4o-mini",
        "Azure OpenAI GPT-4o-0806-Inp": "openai/gpt-4o",
    }.items():  # fmt: skip
        assert resolve_model(name, models) == found


CALLS = [UUID(int=(7 << 76) | (2 << 62) | number) for number in range(6)]
AMOUNTS = st.decimals(-10, 10, allow_nan=False, allow_infinity=False, places=None).map(
    lambda value: value.quantize(Decimal(1).scaleb(-18))
)
ATTEMPTS = st.builds(
    Attempt,
    call=st.sampled_from(CALLS), number=st.integers(0, 2), at=st.integers(0, 3).map(lambda d: NOON + timedelta(days=d)),
    workload=st.just("w"), deployment=st.sampled_from(["eu", "us", "claude", "gone"]),
    model=st.sampled_from(["openai/gpt-4o", "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"]),
    state=st.sampled_from(["settled", "open", "crashed"]), outcome=st.sampled_from(["ok", "failed", "not_billed"]),
    cost=st.integers(0, 10**14).map(lambda value: Decimal(value).scaleb(-12)), input=st.integers(0, 10**6),
    output=st.integers(0, 10**6), estimated=st.booleans(), demo=st.booleans(),
)  # fmt: skip
CELLS = st.tuples(
    st.sampled_from(["2026-11-25", "2026-11-26", "2026-11-30", ""]),
    st.sampled_from(["gpt-4o", "gpt-4o-mini-2024", "Claude Haiku 4.5", "strange", ""]),
    st.sampled_from([*(f"{call}-0" for call in CALLS), *map(str, CALLS), "chatcmpl-1", ""]),
    st.integers(0, 10**6).map(str) | st.just(""), st.integers(0, 10**6).map(str) | st.just(""),
    AMOUNTS.map(lambda value: f"{value:f}") | st.just(""), st.sampled_from(["USD", "eur", "CHF", ""]),
    st.sampled_from(["eu", "us", "/x/y", ""]),
)  # fmt: skip


@given(
    st.lists(ATTEMPTS, max_size=12, unique_by=lambda a: (a.call, a.number)), st.lists(CELLS, min_size=1, max_size=12),
    st.sampled_from([None, "openai", "eu", "nobody"]), st.sampled_from([{}, {"EUR": Decimal("1.083333333333")}]),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_the_parts_always_add_up_to_the_difference(
    attempts: list[Attempt], cells: list[tuple[str, ...]], provider: str | None, exchange: dict[str, Decimal]
) -> None:
    head = "date,model,call id,input tokens,output tokens,amount,currency,deployment"
    try:
        read = bill("\n".join([head, *(",".join(row) for row in cells)]))
    except Invalid:
        return
    result = reconcile(read, attempts, RATES, provider=provider, exchange_rates=exchange)
    found = kinds(result)
    assert set(found) <= set(EXPLANATION_KINDS)
    with localcontext(prec=90):
        costs = {(a.call, a.number): a.cost for a in attempts}
        assert result.ledger + result.excluded_usd <= sum(costs.values(), Decimal(0))
        if any(line.amount is not None for line in read.lines):
            told = [line for line in read.lines if line.amount is not None]
            worth = sum(
                (line.amount * {"USD": Decimal(1), **exchange}.get(line.currency, Decimal(0)) for line in told
                 if line.amount is not None), Decimal(0)
            )  # fmt: skip
            assert result.bill == worth


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_bill_or_a_told_error(text: str) -> None:
    try:
        bill(text)
    except GroundplanError as error:
        assert error.hint and error.where is not None


def test_a_line_that_bears_its_upstreams_name_means_our_model() -> None:
    """A company names its deployments at Azure as it likes, and usage exports bear these names."""
    pairs = [("My-GPT", "azure/gpt-4.1-mini"), ("gpt-4.1", "azure/gpt-4.1"), ("gpt-4.1", "openai/gpt-4.1")]
    assert models_by_upstream(pairs) == {
        "my-gpt": ("azure/gpt-4.1-mini",),
        "gpt-4.1": ("azure/gpt-4.1", "openai/gpt-4.1"),
    }
    text = "date,model,input tokens,output tokens,amount\n2026-11-02,my-gpt,10,5,1\n2026-11-02,gpt-4.1,10,5,1\n"
    place = replace_struct(deployment("gpt", 1), model="azure/gpt-4.1-mini", upstream_model="My-GPT")
    told = reconcile_route._with_our_models(read_bill(text, "a.csv", {}), [place], None)
    assert [each.model for each in told.lines] == ["azure/gpt-4.1-mini", "gpt-4.1"]
    assert not told.notes


def test_a_line_that_bears_its_upstreams_resource_means_our_model() -> None:
    """At Amazon Bedrock a company's own inference profile says nothing of its model."""
    arn = "arn:aws:bedrock:eu-north-1:12:application-inference-profile/k3v"
    text = f"date,usage,lineItem/ResourceId,amount\n2026-11-02,tokens,{arn},1\n2026-11-02,tokens,arn:x/nova-a,1\n"
    places = [
        replace_struct(deployment("a", 1), model="bedrock/nova-lite", upstream_model=arn),
        replace_struct(deployment("b", 1), model="bedrock/nova-pro", upstream_model="nova-a"),
    ]
    told = reconcile_route._with_our_models(read_bill(text, "a.csv", {}), places, None)
    assert [each.model for each in told.lines] == ["bedrock/nova-lite", "bedrock/nova-pro"]


def test_a_name_that_several_upstreams_give_asks_whose_bill_it_is() -> None:
    text = "date,model,input tokens,output tokens,amount\n2026-11-02,prod-chat,10,5,1\n"
    places = [
        replace_struct(deployment(name, 1), model=model, upstream_model="prod-chat")
        for name, model in (("eu", "azure/gpt-4.1-mini"), ("us", "azure/gpt-4.1"))
    ]
    told = reconcile_route._with_our_models(read_bill(text, "a.csv", {}), places, None)
    assert told.lines[0].model == "prod-chat"
    assert told.notes[-1].startswith("upstreams of azure/gpt-4.1 and azure/gpt-4.1-mini call their model prod-chat")
    for place in places:
        told = reconcile_route._with_our_models(read_bill(text, "a.csv", {}), places, place.name)
        assert (told.lines[0].model, told.notes) == (place.model, ())
