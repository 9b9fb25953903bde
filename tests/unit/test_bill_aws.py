"""The second cost and usage report of AWS (CUR 2.0), whose products are maps in one cell, and its names of use."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from tests.unit.test_reconcile import RATES, attempt, bill, kinds

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.economics.bills.model import Attempt
from groundplan.economics.bills.model_names import resolve_model
from groundplan.economics.bills.parse import Bill
from groundplan.economics.bills.reconcile import reconcile

HEAD = [
    "bill_bill_type",
    "bill_payer_account_id",
    "identity_line_item_id",
    "line_item_currency_code",
    "line_item_line_item_description",
    "line_item_line_item_type",
    "line_item_product_code",
    "line_item_resource_id",
    "line_item_unblended_cost",
    "line_item_usage_amount",
    "line_item_usage_end_date",
    "line_item_usage_start_date",
    "line_item_usage_type",
    "pricing_unit",
    "product",
    "product_product_family",
    "resource_tags",
]
PROFILE = "arn:aws:bedrock:eu-north-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0"
HAIKU, NOVA = "bedrock/eu.anthropic.claude-haiku-4-5-20251001-v1:0", "bedrock/eu.amazon.nova-lite-v1:0"
AWS_RATES = {
    "haiku": Rates(input=1 * PICO, output=5 * PICO, cache_read=PICO // 10),
    "nova": Rates(input=6 * PICO // 100, output=24 * PICO // 100),
}


def line(
    kind: str, code: str, cost: str, amount: str, use: str, unit: str, name: str | None, resource: str = ""
) -> list[str]:
    product = {} if name is None else {"product_name": name, "region": "eu-north-1", "comment": 'a "b", {c}'}
    return [
        "Anniversary", "1234", "k2v", "USD", "$0.00006 per 1K input tokens", kind, code, resource, cost, amount,
        "2026-11-25T13:00:00.000Z", "2026-11-25T12:00:00.000Z", use, unit, json.dumps(product), "", "{}",
    ]  # fmt: skip


LINES = [
    line(
        "Usage", "AmazonBedrock", "0.00006", "1.0", "EUN1-NovaLite-input-tokens", "1K tokens", "Amazon Bedrock",
        PROFILE,
    ),
    line(
        "Usage", "AmazonBedrock", "0.000024", "0.1", "EUN1-NovaLite-output-tokens", "1K tokens", "Amazon Bedrock",
        PROFILE,
    ),
    line(
        "Usage", "4xkzpq", "0.002", "0.002", "EUN1-MP:EUN1_InputTokenCount-Units", "Units",
        "Claude Haiku 4.5 (Amazon Bedrock Edition)",
    ),
    line(
        "Usage", "4xkzpq", "0.0005", "0.0001", "EUN1-MP:EUN1_OutputTokenCount-Units", "Units",
        "Claude Haiku 4.5 (Amazon Bedrock Edition)",
    ),
    line(
        "Usage", "4xkzpq", "0.0001", "0.001", "EUN1-MP:EUN1_CacheReadInputTokenCount-Units", "Units",
        "Claude Haiku 4.5 (Amazon Bedrock Edition)",
    ),
    line("Usage", "AmazonS3", "0.2875", "12.5", "EUN1-TimedStorage-ByteHrs", "GB-Mo", "Amazon Simple Storage Service"),
    line("Tax", "AmazonBedrock", "0.07", "1", "", "", None),
]  # fmt: skip


def report(form: str) -> Bill:
    if form == "json":
        return bill(
            "\n".join(
                json.dumps({**dict(zip(HEAD, cells, strict=True)), "product": json.loads(cells[14])}) for cells in LINES
            )
        )
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(HEAD)
    for cells in LINES:
        if form == "athena":
            pairs = ", ".join(f"{key}={text}" for key, text in json.loads(cells[14]).items())
            cells = [*cells[:14], f"{{{pairs}}}", *cells[15:]]
        writer.writerow(cells)
    return bill(buffer.getvalue())


def attempts() -> list[Attempt]:
    noon = datetime(2026, 11, 25, 12, tzinfo=UTC)
    return [
        attempt(1000, 100, "nova", model=NOVA, at=noon, cost=Decimal("0.000084")),
        attempt(3000, 100, "haiku", model=HAIKU, at=noon, cost=Decimal("0.0026")),
    ]


@pytest.fixture(autouse=True)
def _rates(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rates in AWS_RATES.items():
        monkeypatch.setitem(RATES, name, rates)


@pytest.mark.parametrize("form", ["csv", "athena", "json"])
def test_products_that_are_maps_name_models_and_services(form: str) -> None:
    read = report(form)
    assert read.format == "AWS cost and usage" and read.date_range == (date(2026, 11, 25), date(2026, 11, 25))
    assert [(each.input, each.output, each.token_class) for each in read.lines[:5]] == [
        (1000, None, "input"), (None, 100, "output"), (2000, None, "input"), (None, 100, "output"),
        (1000, None, "cache_read"),
    ]  # fmt: skip
    assert read.lines[0].deployment == PROFILE
    found = reconcile(read, attempts(), AWS_RATES)
    assert kinds(found) == {"storage": "0.2875", "tax": "0.07"}, "what calls cost agrees"
    assert found.excluded_attempts == 0


def test_a_line_whose_map_has_no_name_is_of_its_product_code() -> None:
    buffer = io.StringIO()
    cells = line("Usage", "AmazonBedrock", "0.00006", "1.0", "EUN1-NovaLite-input-tokens", "1K tokens", None)
    csv.writer(buffer).writerows([HEAD, cells, LINES[5]])
    first, storage = bill(buffer.getvalue()).lines
    assert (first.model, first.service, first.input) == ("EUN1-NovaLite-input-tokens", "AmazonBedrock", 1000)
    assert storage.purpose == "storage"


def test_claude_is_found_with_its_number_before_or_after_its_family() -> None:
    models = [
        HAIKU,
        "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "bedrock/anthropic.claude-sonnet-4-20250514-v1:0",
        "anthropic/claude-3-7-sonnet-20250219",
    ]
    for name, model in {
        "USW2-Claude4.5Sonnet-cache-write-input-token-count": models[1],
        "USW2-Claude4Sonnet-output-tokens-long-context-cross-region-global": models[2],
        "USW2-anthropic.claude-haiku-4-5-mantle-input-tokens-standard": models[0],
        "Claude Sonnet 3.7": models[3],
        "Claude Sonnet 4.5 (Amazon Bedrock Edition)": models[1],
    }.items():
        assert resolve_model(name, models) == model


@pytest.mark.parametrize(
    ("use", "token_class"),
    [
        ("USW2-Claude4.6Sonnet-cache-read-input-token-count", "cache_read"),
        ("USE1-MP:USE1_CacheWrite1hInputTokenCount_Global-Units", "cache_write"),
        ("USE1-openai.gpt-oss-120b-mantle-output-tokens-flex", "output"),
        ("uncached_input_tokens", "input"),
    ],
)
def test_classes_of_tokens_are_told_by_names_of_use(use: str, token_class: str) -> None:
    (read,) = bill(f"date,model,token type,amount\n2026-11-25,m,{use},1.00\n").lines
    assert read.token_class == token_class
