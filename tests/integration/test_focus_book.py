"""The export that the specification's validator is given is of a real book, with the fields that it leaves empty."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal

import pytest
from benchmarks import focus_book
from benchmarks.focus_validator import partly_empty_columns

from groundplan.api.cost import receipt as cost_receipt
from groundplan.core.database import connect
from groundplan.economics.export.focus import CATEGORIES
from groundplan.ledger import queries
from groundplan.testing.database import Database


def test_the_export_of_a_real_book_has_empty_fields_and_every_attempt(database: Database) -> None:
    text = focus_book.export(database)
    rows = list(csv.DictReader(io.StringIO(text)))
    empty = {
        "SubAccountId",
        "ResourceId",
        "RegionId",
        "ConsumedQuantity",
        "ConsumedUnit",
        "ListUnitPrice",
        "ResourceType",
    }
    assert empty <= set(partly_empty_columns(text))
    tags = [json.loads(row["Tags"]) for row in rows]
    assert {"measured", "allocated", "estimated"} == {tag["basis"] for tag in tags}
    terms = {tag["term"] for tag in tags}
    assert {"idle", "platform", "egress", "vector_storage", "site_visits", "guardrail", "images_made"} <= terms
    billed = [(tag["term"], row["ResourceId"], Decimal(row["BilledCost"])) for row, tag in zip(rows, tags, strict=True)]
    asked = len(range(1, focus_book.DAYS, 3))
    for term, place, each in (("embedding", "vectors", "0.000006"), ("rerank", "sorter", "0.002")):
        found = [cost for name, at, cost in billed if at == place]
        assert sum(found) == asked * Decimal(each), "a term of its own, of each call, and no tokens of answers"
        assert {name for name, at, _ in billed if at == place} == {term}
        with connect(database.urls["control"]) as conn:
            row = conn.execute("SELECT call_id FROM attempt WHERE deployment = %s LIMIT 1", (place,)).fetchone()
            assert row is not None
            receipt = queries.receipt(conn, row[0])
            cost_receipt.explain_terms(conn, receipt)
        (attempt,) = receipt["attempts"]
        ((named, rule),) = [(each["term"], each["rule"]) for each in attempt["terms"]]
        assert named == term and rule.endswith(f" x price of {place}"), "a receipt says the same as the book"
    reviewed = sum(cost for name, _, cost in billed if name == "review")
    assert reviewed == 4 * Decimal(focus_book.REVIEW_MINUTES) / 60 * 45, "minutes that people looked, at their wage"
    assert len({row["BillingPeriodStart"] for row in rows}) >= 2
    own = [row for row, tag in zip(rows, tags, strict=True) if tag["term"] not in CATEGORIES]
    with connect(database.urls["owner"]) as conn:
        spent = conn.execute("SELECT sum(cost_usd) FROM attempt").fetchone()
    assert spent is not None and spent[0] > 0
    assert sum(Decimal(row["BilledCost"]) for row in own) == spent[0], "every attempt, to the picodollar"


@pytest.mark.parametrize(("text", "found"), [("a,b\n1,\n2,3\n", ["b"]), ("a,b\n1,\n2,\n", []), ("a,b\n", [])])
def test_columns_that_some_rows_leave_empty_are_named(text: str, found: list[str]) -> None:
    assert partly_empty_columns(text) == found
